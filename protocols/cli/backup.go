package cli

import (
	"context"
	"fmt"
	"time"
)

// BackupSummary describes a backup file.
type BackupSummary struct {
	File     string    `json:"file"`
	Sequence uint64    `json:"sequence"` // the newest commit that it holds
	Epoch    string    `json:"epoch"`
	Time     time.Time `json:"time"`
	HasKey   bool      `json:"hasKey"` // the master key is in it, under a passphrase
	Bytes    int64     `json:"bytes"`
	Entries  uint64    `json:"entries"` // records, index and log entries, messages
	SHA256   string    `json:"sha256"`
}

// BackupHooks make, read and restore backups. PassphraseFile is "" for none.
type BackupHooks struct {
	// Create writes a backup of a data directory whose hub does not run; file "-" is io.Out.
	Create func(ctx context.Context, f StoreFlags, file, passphraseFile string, io IO) (BackupSummary, error)
	// Verify reads a backup; with drill it is also restored beside the file and compared.
	Verify func(ctx context.Context, f StoreFlags, file, passphraseFile string, drill bool, io IO) (BackupSummary, error)
	// Restore makes a data directory.
	Restore func(ctx context.Context, f StoreFlags, file, passphraseFile string, io IO) (BackupSummary, error)
	// Resume ends the pause of a restored data directory whose hub does not run.
	Resume func(ctx context.Context, f StoreFlags, io IO) error
}

type backupGroup struct {
	Create backupCreateCmd `cmd:"" help:"Write a backup of a data directory; the hub must not run."`
	Verify backupVerifyCmd `cmd:"" help:"Read a whole backup and check it."`
}

type backupCreateCmd struct {
	StoreFlags
	OutputFlags
	File           string `arg:"" help:"File to make, which must not exist; - is standard output."`
	PassphraseFile string `help:"Include the master key, encrypted with the passphrase in this file." placeholder:"FILE"`
}

// Run makes a backup.
func (c *backupCreateCmd) Run(a *app) error {
	if a.hooks.Backup.Create == nil {
		return notBuilt("backup create")
	}
	s, err := a.hooks.Backup.Create(a.ctx, c.StoreFlags, c.File, c.PassphraseFile, a.io)
	if err != nil {
		return err
	}
	if !s.HasKey {
		a.note("The master key is not in the backup. Next: keep %s/master.key (or your --master-key-file) elsewhere; without it the backup cannot be restored.", c.Data)
	}
	if c.File == "-" {
		a.note("Wrote %d entries, %d bytes, up to change %d.", s.Entries, s.Bytes, s.Sequence)
		return nil
	}
	return a.printBackup(c.OutputFlags, s)
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
	s, err := a.hooks.Backup.Verify(a.ctx, StoreFlags{MasterKeyFile: c.MasterKeyFile}, c.File, c.PassphraseFile, c.Drill, a.io)
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
	s, err := a.hooks.Backup.Restore(a.ctx, c.StoreFlags, c.File, c.PassphraseFile, a.io)
	if err != nil {
		return err
	}
	a.note("Restored into %s. Queued messages are held back. Next: look at the hub, stop it, then `muster resume --data %s`.", c.Data, c.Data)
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
