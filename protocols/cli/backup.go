package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// BackupSummary describes a backup file.
type BackupSummary struct {
	File     string        `json:"file"`
	Sequence uint64        `json:"sequence"` // the newest commit that it holds
	Epoch    string        `json:"epoch"`
	Time     time.Time     `json:"time"`
	Format   string        `json:"format"`   // of the backup and of the data directory
	Changes  uint64        `json:"changes"`  // newest position of the log of changes
	Messages uint64        `json:"messages"` // newest position of the message log
	HasKey   bool          `json:"hasKey"`   // the master key is in it, under a passphrase
	Bytes    int64         `json:"bytes"`
	Entries  uint64        `json:"entries"` // records, index and log entries, messages
	SHA256   string        `json:"sha256"`
	Tables   []BackupTable `json:"tables,omitempty"`
	Problem  string        `json:"problem,omitempty"` // why it cannot be read, in a list
}

// BackupTable counts one table, index or log of a backup.
type BackupTable struct {
	Name    string `json:"name"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// BackupProgress is called with a step, "writing", "reading" or "restoring",
// and the bytes done in it. It does not block.
type BackupProgress func(step string, bytes int64)

// BackupHooks make, read and restore backups. The passphrase is nil for none;
// file "-" is standard input or output.
type BackupHooks struct {
	// Create writes a backup of a data directory whose hub does not run.
	Create func(ctx context.Context, f StoreFlags, file string, passphrase []byte, progress BackupProgress, io IO) (BackupSummary, error)
	// Save makes a file of the backup that write writes, checks it and only then gives it its name.
	Save func(ctx context.Context, file string, progress BackupProgress, io IO, write func(w io.Writer) error) (BackupSummary, error)
	// Verify reads a backup; with drill it is also restored beside the file and compared.
	Verify func(ctx context.Context, f StoreFlags, file string, passphrase []byte, drill bool, progress BackupProgress, io IO) (BackupSummary, error)
	// List reads the headers of a directory of backups, the newest first.
	List func(dir string) ([]BackupSummary, error)
	// Restore makes a data directory.
	Restore func(ctx context.Context, f StoreFlags, file string, passphrase []byte, progress BackupProgress, io IO) (BackupSummary, error)
	// Resume ends the pause of a restored data directory whose hub does not run.
	Resume func(ctx context.Context, f StoreFlags, io IO) error
}

// Passphrase reads the first line of a file; nil when file is "".
func Passphrase(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("%s holds no passphrase in its first line", file)
	}
	return line, nil
}

type backupGroup struct {
	Create backupCreateCmd `cmd:"" help:"Write a backup: of a running hub while it serves, or of a data directory whose hub does not run."`
	Verify backupVerifyCmd `cmd:"" help:"Read a whole backup and check it."`
	List   backupListCmd   `cmd:"" help:"List the hub's scheduled backups, or those in a directory."`
	Run    backupRunCmd    `cmd:"" help:"Have the hub make a backup in its directory now."`
}

type backupCreateCmd struct {
	WhichHub
	OutputFlags
	File           string `arg:"" help:"File to make, which must not exist; - is standard output."`
	PassphraseFile string `help:"Include the master key, encrypted with the passphrase in this file." placeholder:"FILE"`
	MasterKeyFile  string `help:"When the hub does not run: file with the key that seals secrets; default DATA/master.key." placeholder:"FILE"`
	Memory         Bytes  `help:"When the hub does not run: memory for the work, such as 512MiB; 0 takes the store's default." default:"0" placeholder:"SIZE"`
}

// Run makes a backup: of the hub that answers, else of the data directory.
func (c *backupCreateCmd) Run(a *app) error {
	hooks := a.hooks.Backup
	if hooks.Create == nil || hooks.Save == nil {
		return notBuilt("backup create")
	}
	pass, err := Passphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	progress, done := a.backupProgress(c.OutputFlags)
	ctx, stop := context.WithTimeout(a.ctx, 10*time.Second)
	_, err = s.Hub(ctx)
	stop()
	var made BackupSummary
	switch _, unreached := errors.AsType[*client.ConnectError](err); {
	case err == nil:
		made, err = hooks.Save(a.ctx, c.File, progress, a.io, func(w io.Writer) error { return a.streamBackup(s, pass, w) })
	case unreached && c.local(a):
		made, err = hooks.Create(a.ctx, StoreFlags{Data: c.Data, MasterKeyFile: c.MasterKeyFile, Memory: c.Memory}, c.File, pass, progress, a.io)
	}
	done()
	switch e, unreached := errors.AsType[*client.ConnectError](err); {
	case unreached && a.ctx.Err() != nil: // then it is the user who has ended the connection
		return context.Cause(a.ctx)
	case errors.Is(err, client.ErrBackupCut) && unreached:
		return backupCut(c.File, e)
	case err != nil:
		return err
	}
	if !made.HasKey {
		a.note("The master key is not in the backup. Next: keep %s/master.key (or the hub's --master-key-file) elsewhere; without it the backup cannot be restored.", c.Data)
	}
	if c.File == "-" {
		a.note("Wrote %d entries, %d bytes, up to change %d.", made.Entries, made.Bytes, made.Sequence)
		return nil
	}
	return a.printBackup(c.OutputFlags, made)
}

// backupCut says of a backup that began to come what is there of it: whoever
// looks for a file must not take what standard output got for one.
func backupCut(file string, e *client.ConnectError) error {
	left := "There is no " + file
	if file == "-" {
		left = "What standard output got is no backup, so throw it away"
	}
	return &problem{exit: ExitConnect, what: "the hub did not send all of the backup", why: e.Target + ": " + e.Err.Error(),
		next: left + ". `muster status` tells whether the hub runs, and its log why it ended; then make the backup again."}
}

// streamBackup waits for its turn: the hub makes one backup at a time.
func (a *app) streamBackup(s *client.Service, pass []byte, w io.Writer) error {
	for first := true; ; first = false {
		err := s.Backup(a.ctx, pass, w)
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != "BackupRunning" {
			return err
		}
		if first {
			a.note("The hub makes a backup already; waiting for it.")
		}
		t := time.NewTimer(time.Second)
		select {
		case <-t.C:
		case <-a.ctx.Done():
			t.Stop()
			return a.ctx.Err()
		}
	}
}

// local reports whether the command means the data directory, not a hub elsewhere.
func (c *backupCreateCmd) local(a *app) bool {
	return c.Hub == "" || a.settings.origin["data"] == "flag"
}

type backupVerifyCmd struct {
	OutputFlags
	File           string `arg:"" help:"The backup; - is standard input."`
	Drill          bool   `help:"Also restore it into a temporary directory beside it, open that, compare everything, and remove it."`
	PassphraseFile string `help:"With --drill: the passphrase of the backup." placeholder:"FILE"`
	MasterKeyFile  string `help:"With --drill: the master key, when the backup does not hold it." placeholder:"FILE"`
}

// Run verifies a backup.
func (c *backupVerifyCmd) Run(a *app) error {
	if a.hooks.Backup.Verify == nil {
		return notBuilt("backup verify")
	}
	pass, err := Passphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	progress, done := a.backupProgress(c.OutputFlags)
	s, err := a.hooks.Backup.Verify(a.ctx, StoreFlags{MasterKeyFile: c.MasterKeyFile}, c.File, pass, c.Drill, progress, a.io)
	done()
	if err != nil {
		return err
	}
	return a.printBackup(c.OutputFlags, s)
}

func (a *app) printBackup(o OutputFlags, s BackupSummary) error {
	sh := &sheet{columns: []string{"FILE", "SEQUENCE", "TIME", "ENTRIES", "BYTES", "KEY", "SHA256"}}
	sh.add(s, s.File, s.Sequence, s.Time, s.Entries, s.Bytes, s.HasKey, s.SHA256)
	return a.print(o, sh)
}

type restoreCmd struct {
	StoreFlags
	OutputFlags
	File           string `arg:"" help:"The backup; - is standard input."`
	PassphraseFile string `help:"The passphrase that the backup was made with." placeholder:"FILE"`
}

// Run restores a backup.
func (c *restoreCmd) Run(a *app) error {
	if a.hooks.Backup.Restore == nil {
		return notBuilt("restore")
	}
	pass, err := Passphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	progress, done := a.backupProgress(c.OutputFlags)
	s, err := a.hooks.Backup.Restore(a.ctx, c.StoreFlags, c.File, pass, progress, a.io)
	done()
	if err != nil {
		return err
	}
	flags := "--data " + c.Data
	if c.MasterKeyFile != "" { // restore leaves it where it is
		flags += " --master-key-file " + c.MasterKeyFile
	}
	a.note("Restored into %s. Queued messages are held back. Next: look at the hub with `muster serve %s`, stop it, then `muster resume %s`.", c.Data, flags, flags)
	return a.printBackup(c.OutputFlags, s)
}

type resumeCmd struct {
	StoreFlags
}

// Run resumes a restored hub.
func (c *resumeCmd) Run(a *app) error {
	if a.hooks.Backup.Resume == nil {
		return notBuilt("resume")
	}
	if err := a.hooks.Backup.Resume(a.ctx, c.StoreFlags, a.io); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.io.Out, "Resumed. Queued messages go out when the hub runs.")
	return err
}

// backupProgress shows how far long work is: one line that is written over on
// a terminal, JSON lines on standard error with -o json or jsonl, else nothing.
func (a *app) backupProgress(o OutputFlags) (show BackupProgress, done func()) {
	terminal := isTerminal(a.io.Err)
	asJSON := o.Output == "json" || o.Output == "jsonl"
	every := 200 * time.Millisecond
	if asJSON {
		every = time.Second
	}
	began, wide := time.Now(), 0
	shown := began // what takes a moment shows nothing
	show = func(step string, n int64) {
		if !terminal && !asJSON || time.Since(shown) < every {
			return
		}
		shown = time.Now()
		if asJSON {
			_ = writeJSONLine(a.io.Err, map[string]any{"step": step, "bytes": n, "seconds": time.Since(began).Seconds()}) // nobody is left to tell
			return
		}
		line := fmt.Sprintf("%s: %.1f MiB, %s", step, float64(n)/(1<<20), since(time.Since(began)))
		_, _ = fmt.Fprintf(a.io.Err, "\r%-*s", wide, line)
		wide = len(line)
	}
	return show, func() {
		if wide > 0 {
			_, _ = fmt.Fprintf(a.io.Err, "\r%*s\r", wide, "")
		}
	}
}
