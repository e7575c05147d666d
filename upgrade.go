package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/storage"
)

// backupFresh is how old a backup may be that one relies on in an upgrade.
const backupFresh = 24 * time.Hour

// checkUpgrade looks at a data directory, and at the hub that may run on it,
// with the eyes of the program that is to take over. It changes nothing.
func checkUpgrade(f cli.UpgradeFlags, b build, now time.Time) ([]cli.Finding, error) {
	d, err := storage.Inspect(f.Data, storage.Options{Memory: int64(f.Memory), Reserve: int64(f.Reserve)})
	switch {
	case errors.Is(err, storage.ErrNewerFormat):
		return []cli.Finding{{Check: "format", Level: "fail", Text: err.Error(), Next: "Keep the program that wrote it, or install a newer one than this."}}, nil
	case errors.Is(err, storage.ErrCorrupt):
		return []cli.Finding{{Check: "format", Level: "fail", Text: err.Error(), Next: "Mend the directory with the program that wrote it, before an upgrade."}}, nil
	case err != nil:
		return nil, err
	case d.Restoring:
		return []cli.Finding{{Check: "format", Level: "fail", Text: "A restore into " + f.Data + " has not finished.", Next: "Run `muster restore` into it again."}}, nil
	case !d.Exists:
		return []cli.Finding{{Check: "format", Level: "ok", Text: f.Data + " holds no store yet; this program makes one of the format " + d.Current + "."}}, nil
	}
	list := []cli.Finding{checkRunning(f, b), checkFormat(d), checkData(f.Data)}
	key := f.MasterKeyFile
	if key == "" {
		key = filepath.Join(f.Data, "master.key")
	}
	list = append(list, checkReadable("master key", key), checkFresh(f, d, now))
	if len(d.Steps) > 0 {
		list = append(list, checkRoom(d))
	}
	if d.Paused {
		list = append(list, cli.Finding{Check: "paused", Level: "warn", Text: "The hub was restored and is not resumed; an upgrade does not change that.", Next: "`muster resume --data DIR` when you have looked at it."})
	}
	return list, nil
}

func checkRunning(f cli.UpgradeFlags, b build) cli.Finding {
	switch {
	case f.Running == nil:
		return cli.Finding{Check: "hub", Level: "ok", Text: fmt.Sprintf("No hub runs on %s; this program is %s.", f.Data, b.version)}
	case f.Running.Version == b.version:
		return cli.Finding{Check: "hub", Level: "ok", Text: fmt.Sprintf("The running hub is of this version already, %s.", b.version)}
	}
	return cli.Finding{Check: "hub", Level: "ok", Text: fmt.Sprintf("The running hub is %s, this program is %s.", f.Running.Version, b.version)}
}

func checkFormat(d storage.Directory) cli.Finding {
	if len(d.Steps) == 0 {
		return cli.Finding{Check: "format", Level: "ok", Text: fmt.Sprintf("The data directory has the format %s, which is this program's: nothing is migrated, and the program before can open it again.", d.Format)}
	}
	return cli.Finding{
		Check: "format", Level: "warn",
		Text: fmt.Sprintf("The data directory has the format %s. The first start of this program makes a backup, %s, and then brings it to %s; the program before can't open it after that.", d.Format, d.BackupFile, strings.Join(d.Steps, ", then ")),
		Next: "To go back afterwards, restore that backup with the program before into a new directory.",
	}
}

// checkFresh looks for a backup that was read whole.
func checkFresh(f cli.UpgradeFlags, d storage.Directory, now time.Time) cli.Finding {
	next := "`muster backup create FILE` makes one now."
	if f.Backups != nil && f.Backups.Last != nil {
		last := f.Backups.Last
		text := fmt.Sprintf("The hub's newest backup, %s, is of %s, up to change %d, and was read back.", last.File, last.Started.Format(time.RFC3339), last.Sequence)
		if now.Sub(last.Started.Time) > backupFresh {
			return cli.Finding{Check: "backup", Level: "warn", Text: text, Next: "`muster backup run` makes one now."}
		}
		return cli.Finding{Check: "backup", Level: "ok", Text: text}
	}
	if f.BackupDir == "" {
		return cli.Finding{Check: "backup", Level: "warn", Text: "No backup is known.", Next: next + " Or name the directory of the hub's backups with --backup-dir."}
	}
	files, err := storage.ListBackups(f.BackupDir)
	if err != nil {
		return cli.Finding{Check: "backup", Level: "warn", Text: err.Error(), Next: next}
	}
	for _, b := range files {
		if b.Err != nil || b.Info.Epoch != d.Epoch {
			continue
		}
		name := filepath.Join(f.BackupDir, b.Name)
		text := fmt.Sprintf("The newest backup, %s, is of %s, up to change %d.", name, b.Info.Time.Format(time.RFC3339), b.Info.Sequence)
		if now.Sub(b.Info.Time) > backupFresh {
			return cli.Finding{Check: "backup", Level: "warn", Text: text, Next: next}
		}
		return cli.Finding{Check: "backup", Level: "ok", Text: text + " `muster backup verify` reads it whole."}
	}
	return cli.Finding{Check: "backup", Level: "warn", Text: f.BackupDir + " holds no backup of this data directory.", Next: next}
}

func checkRoom(d storage.Directory) cli.Finding {
	text := fmt.Sprintf("%d MiB are free; the backup before the migration and the hub's reserve need %d MiB at most.", d.Free/mib, d.Needs/mib)
	if d.Free < d.Needs {
		return cli.Finding{Check: "space", Level: "fail", Text: text, Next: "Make room. Or back up with the program before onto another disk, and restore that with this one into a new directory."}
	}
	return cli.Finding{Check: "space", Level: "ok", Text: text}
}

// checkBackupDir looks at where a hub is to leave its backups.
func checkBackupDir(f cli.ServeFlags) []cli.Finding {
	found := checkData(f.BackupDir)
	found.Check = "backup"
	list := []cli.Finding{found}
	if _, err := os.Stat(f.BackupDir); err == nil && found.Level == "ok" {
		if same, err := storage.SameFileSystem(f.Data, f.BackupDir); err == nil && same {
			list = append(list, cli.Finding{Check: "backup", Level: "warn", Text: f.BackupDir + " lies on the same file system as the data.", Next: "Give a directory on another disk, or copy the backups to another machine."})
		}
	}
	if f.BackupPassphrase != "" {
		list = append(list, checkReadable("backup passphrase", f.BackupPassphrase))
	}
	return list
}
