package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/storage"
)

func backupHooks() cli.BackupHooks {
	return cli.BackupHooks{Create: createBackup, Verify: verifyBackup, Restore: restoreBackup, Resume: resume}
}

func summary(file string, i storage.BackupInfo) cli.BackupSummary {
	s := cli.BackupSummary{File: file, Sequence: i.Sequence, Epoch: i.Epoch, Time: i.Time, HasKey: i.HasKey, Bytes: i.Size, SHA256: i.SHA256}
	for _, t := range i.Tables {
		s.Entries += t.Records
	}
	return s
}

// passphrase reads the first line of a file.
func passphrase(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
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

func createBackup(ctx context.Context, f cli.StoreFlags, file, passphraseFile string, std cli.IO) (s cli.BackupSummary, err error) {
	pass, err := passphrase(passphraseFile)
	if err != nil {
		return s, err
	}
	if err := existing(f.Data); err != nil {
		return s, err
	}
	if file != "-" {
		if _, err := os.Stat(file); err == nil {
			return s, fmt.Errorf("%s exists; give another name", file)
		}
	}
	db, err := storage.Open(ctx, storeOptions(f))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	o := storage.BackupOptions{Passphrase: pass}
	if file == "-" {
		i, err := db.Backup(ctx, std.Out, o)
		return summary(file, i), err
	}
	// A temporary name, so that what has the name is whole.
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp") // 0600
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // what counts is the first error
		}
	}()
	i, err := db.Backup(ctx, tmp, o)
	if err == nil {
		err = tmp.Sync()
	}
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = storage.VerifyBackup(ctx, tmp)
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return s, err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return s, err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return s, err
	}
	return summary(file, i), errors.Join(dir.Sync(), dir.Close())
}

func openBackup(file string, std cli.IO) (io.Reader, func() error, error) {
	if file == "-" {
		return std.In, func() error { return nil }, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

func verifyBackup(ctx context.Context, f cli.StoreFlags, file, passphraseFile string, drill bool, std cli.IO) (s cli.BackupSummary, err error) {
	pass, err := passphrase(passphraseFile)
	if err != nil {
		return s, err
	}
	r, end, err := openBackup(file, std)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if !drill {
		i, err := storage.VerifyBackup(ctx, r)
		return summary(file, i), err
	}
	beside := filepath.Dir(file)
	dir, err := os.MkdirTemp(beside, "muster-drill-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f.Data = filepath.Join(dir, "data")
	i, err := storage.Drill(ctx, r, storeOptions(f), pass)
	return summary(file, i), err
}

func restoreBackup(ctx context.Context, f cli.StoreFlags, file, passphraseFile string, std cli.IO) (s cli.BackupSummary, err error) {
	pass, err := passphrase(passphraseFile)
	if err != nil {
		return s, err
	}
	r, end, err := openBackup(file, std)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, end()) }()
	i, err := storage.Restore(ctx, r, storeOptions(f), pass)
	return summary(file, i), err
}

func resume(ctx context.Context, f cli.StoreFlags, _ cli.IO) error {
	if err := existing(f.Data); err != nil {
		return err
	}
	db, err := storage.Open(ctx, storeOptions(f))
	if err != nil {
		return err
	}
	return errors.Join(db.Resume(), db.Close())
}
