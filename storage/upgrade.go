package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// climb brings a directory of a lower rung to the present one, after a backup: what is written from
// then on older programs cannot read. A process that dies on the way begins again at the next
// open; a backup that is whole is not made twice.
func (db *DB) climb(ctx context.Context, m mode) error {
	f := db.format
	if f.Rung == currentRung || db.opt.KeepFormat {
		return nil
	}
	if !m.repair { // what is damaged cannot be backed up; who repairs has copied it
		if err := db.backupBeforeClimb(ctx); err != nil {
			return fmt.Errorf("the data directory has the format %s and is to get %s, with a backup before; that failed, and nothing was changed: %w", f.Name, ladder[currentRung], err)
		}
	}
	f.Rung, f.Name = currentRung, ladder[currentRung]
	if err := writeText(db.fs, db.path(formatFile), f); err != nil {
		return err
	}
	db.opt.Logger.Info("the data directory has the present format now", "before", db.format.Name, "now", f.Name)
	db.format = f
	return nil
}

// UpgradeBackup is the file, inside a data directory, in which an open leaves a backup before it
// brings the directory to the present format.
func UpgradeBackup() string { return "before-" + ladder[currentRung] + backupSuffix }

const upgradeProgress = 10 * time.Second // between two lines of the log

func (db *DB) backupBeforeClimb(ctx context.Context) error {
	name := db.path(UpgradeBackup())
	info, err := verifyFile(ctx, db.fs, name)
	switch {
	case err == nil && info.Epoch == db.format.EpochID && info.Sequence == db.visible.Load():
		db.opt.Logger.Info("the backup before the change of format is there already", "file", name)
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrBackup):
		return err
	case err == nil || errors.Is(err, ErrBackup): // of an attempt that ended too early, or of an earlier state
		if err := db.fs.Remove(name); err != nil {
			return err
		}
	}
	db.opt.Logger.Info("making a backup before the data directory gets the present format", "file", name, "now", db.format.Name, "then", ladder[currentRung])
	said := time.Now()
	say := func(step string) func(int64) {
		return func(n int64) {
			if time.Since(said) >= upgradeProgress {
				said = time.Now()
				db.opt.Logger.Info("the backup before the change of format goes on", "step", step, "MiB", n>>20)
			}
		}
	}
	if info, err = db.SaveBackup(ctx, name, BackupOptions{Progress: say("writing")}, say("reading")); err != nil {
		return err
	}
	db.opt.Logger.Info("the backup is made and was read back; remove it when you don't go back", "file", name, "sequence", info.Sequence, "bytes", info.Size)
	return nil
}

func verifyFile(ctx context.Context, fs fsys, name string) (BackupInfo, error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return BackupInfo{}, err
	}
	defer f.Close() // only read
	n, err := f.Size()
	if err != nil {
		return BackupInfo{}, err
	}
	return readBackup(ctx, io.NewSectionReader(f, 0, n), backupTarget{})
}

// Directory is what a data directory is, as seen from outside.
type Directory struct {
	Exists     bool // it holds a store; else the rest but Free is zero
	Restoring  bool // a restore into it has not finished
	Paused     bool // restored, and not resumed
	Epoch      string
	Format     string   // its format
	Current    string   // this program's
	Steps      []string // the formats that an open would bring it through, in order; empty: none
	BackupFile string   // made before the first step
	Needs      int64    // free space, in bytes, for that backup at most and the reserve; 0 without steps
	Free       int64    // of its file system
}

// Inspect looks at a data directory without opening it; a hub may run on it. What is newer than
// this program is ErrNewerFormat, a damaged FORMAT is ErrCorrupt.
func Inspect(dir string, o Options) (d Directory, err error) {
	files := osFS{}
	if d.Free, _, err = files.Free(dir); err != nil {
		return d, err
	}
	d.Current = ladder[currentRung]
	if d.Restoring, err = exists(files, filepath.Join(dir, restoringFile)); err != nil || d.Restoring {
		return d, err
	}
	f, ok, err := readFormat(files, dir)
	if err != nil || !ok {
		return d, err
	}
	d.Exists, d.Paused, d.Epoch, d.Format = true, f.Paused, f.EpochID, f.Name
	d.Steps = ladder[f.Rung+1:]
	if len(d.Steps) == 0 {
		return d, nil
	}
	d.BackupFile = filepath.Join(dir, UpgradeBackup())
	o = o.withDefaults()
	if d.Needs = o.Reserve; d.Needs <= 0 {
		d.Needs = computedReserve(tuning{}.withDefaults(o.Memory))
	}
	for _, sub := range []string{badgerDir, messageDir, blobDir} {
		n, err := dirSize(files, filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
		d.Needs += n
	}
	return d, nil
}
