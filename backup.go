package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/storage"
)

func backupHooks() cli.BackupHooks {
	return cli.BackupHooks{Create: createBackup, Save: saveBackup, Verify: verifyBackup, List: listBackups, Restore: restoreBackup, Resume: resume}
}

func summary(file string, i storage.BackupInfo) cli.BackupSummary {
	s := cli.BackupSummary{
		File: file, Sequence: i.Sequence, Epoch: i.Epoch, Time: i.Time, Format: fmt.Sprintf("backup-%d/%d", i.Version, i.Rung),
		Changes: engine.BackupChanges(i), Messages: i.Messages, HasKey: i.HasKey, Bytes: i.Size, SHA256: i.SHA256,
	}
	for _, t := range i.Tables {
		s.Entries += t.Records
		s.Tables = append(s.Tables, cli.BackupTable(t))
	}
	return s
}

// backupPlan is the schedule that the flags ask for.
func backupPlan(f cli.ServeFlags) engine.BackupPlan {
	p := engine.BackupPlan{Dir: f.BackupDir, At: f.BackupAt}
	if f.BackupEvery != nil {
		p.Every = *f.BackupEvery
	}
	if f.BackupKeep != nil {
		p.Keep = *f.BackupKeep
	}
	if f.BackupPassphrase != "" {
		p.Passphrase = func() ([]byte, error) { return cli.Passphrase(f.BackupPassphrase) }
	}
	return p
}

func createBackup(ctx context.Context, f cli.StoreFlags, file string, passphrase []byte, progress cli.BackupProgress, std cli.IO) (s cli.BackupSummary, err error) {
	if err := existing(f.Data); err != nil {
		return s, err
	}
	open := storeOptions(f)
	open.KeepFormat = true // who is about to upgrade must be able to go back
	db, err := storage.Open(ctx, open)
	if err != nil {
		return s, errors.Join(err, giveBack(f.Data))
	}
	defer func() { err = errors.Join(err, db.Close(), giveBack(f.Data)) }()
	o := storage.BackupOptions{Passphrase: passphrase, Progress: func(n int64) { progress("writing", n) }}
	var i storage.BackupInfo
	if file == "-" {
		i, err = db.Backup(ctx, std.Out, o)
	} else {
		i, err = db.SaveBackup(ctx, file, o, func(n int64) { progress("reading", n) })
	}
	return summary(file, i), err
}

// saveBackup keeps what a running hub sends. Its own work gives way: the hub is
// likely on this machine, with devices that wait.
func saveBackup(ctx context.Context, file string, progress cli.BackupProgress, std cli.IO, write func(w io.Writer) error) (cli.BackupSummary, error) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10) // only politeness
	if file == "-" {
		return pipeBackup(ctx, progress, std.Out, write)
	}
	o := storage.SaveOptions{Busy: func() bool { return true }, Verifying: func(n int64) { progress("reading", n) }}
	i, err := storage.SaveBackup(ctx, file, o, func(w io.Writer) error { return write(&counting{w: w, progress: progress}) })
	return summary(file, i), err
}

// pipeBackup passes a backup on and reads it on the way.
func pipeBackup(ctx context.Context, progress cli.BackupProgress, out io.Writer, write func(w io.Writer) error) (cli.BackupSummary, error) {
	r, w := io.Pipe()
	type result struct {
		info storage.BackupInfo
		err  error
	}
	read := make(chan result, 1)
	go func() {
		i, err := storage.VerifyBackup(ctx, r)
		_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // so that the writer does not wait
		read <- result{i, err}
	}()
	err := write(&counting{w: io.MultiWriter(out, w), progress: progress})
	_ = w.CloseWithError(err) // nil is the end of the file
	got := <-read
	if err != nil {
		return cli.BackupSummary{}, err
	}
	return summary("-", got.info), got.err
}

// counting tells how much was written.
type counting struct {
	w        io.Writer
	n        int64
	progress cli.BackupProgress
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	c.progress("writing", c.n)
	return n, err
}

// openBackup opens a file, or standard input, and tells how much of it is read.
func openBackup(file, step string, progress cli.BackupProgress, std cli.IO) (io.Reader, func() error, error) {
	r, end := std.In, func() error { return nil }
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, nil, err
		}
		r, end = f, f.Close
	}
	return io.TeeReader(r, &counted{step: step, progress: progress}), end, nil
}

type counted struct {
	n        int64
	step     string
	progress cli.BackupProgress
}

func (c *counted) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	c.progress(c.step, c.n)
	return len(b), nil
}

func verifyBackup(ctx context.Context, f cli.StoreFlags, file string, passphrase []byte, drill bool, progress cli.BackupProgress, std cli.IO) (s cli.BackupSummary, err error) {
	step := "reading"
	if drill {
		step = "restoring"
	}
	r, end, err := openBackup(file, step, progress, std)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if !drill {
		i, err := storage.VerifyBackup(ctx, r)
		return summary(file, i), err
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), "muster-drill-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f.Data = filepath.Join(dir, "data")
	i, err := storage.Drill(ctx, r, storeOptions(f), passphrase)
	return summary(file, i), err
}

func listBackups(dir string) ([]cli.BackupSummary, error) {
	files, err := storage.ListBackups(dir)
	if err != nil {
		return nil, err
	}
	list := []cli.BackupSummary{}
	for _, f := range files {
		s := summary(filepath.Join(dir, f.Name), f.Info)
		s.Bytes = f.Size
		if f.Err != nil {
			s.Problem = f.Err.Error()
		}
		list = append(list, s)
	}
	return list, nil
}

func restoreBackup(ctx context.Context, f cli.StoreFlags, file string, passphrase []byte, progress cli.BackupProgress, std cli.IO) (s cli.BackupSummary, err error) {
	r, end, err := openBackup(file, "restoring", progress, std)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, end()) }()
	i, err := storage.Restore(ctx, r, storeOptions(f), passphrase)
	return summary(file, i), err
}

func resume(ctx context.Context, f cli.StoreFlags, _ cli.IO) error {
	if err := existing(f.Data); err != nil {
		return err
	}
	db, err := storage.Open(ctx, storeOptions(f))
	if err != nil {
		return errors.Join(err, giveBack(f.Data))
	}
	return errors.Join(db.Resume(), db.Close(), giveBack(f.Data))
}
