package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestClimbBacksUpFirst: a directory of an older format is changed only when a
// backup of it lies there, whole; what ends on the way begins where it stood;
// the backup is of the old format and restores.
func TestClimbBacksUpFirst(t *testing.T) {
	for _, kind := range []string{"closed", "killed"} {
		t.Run(kind, func(t *testing.T) {
			o := testOptions(t, copyDir(t, filepath.Join("testdata", ladder[1], kind)))
			backup := filepath.Join(o.Dir, UpgradeBackup())
			format := func() string {
				f, ok, err := readFormat(osFS{}, o.Dir)
				if err != nil || !ok {
					t.Fatal(err)
				}
				return f.Name
			}
			fs := &faultFS{}
			refuse := func(what string, err error) {
				t.Helper()
				db, got := openWith(t.Context(), o, fs, goldenTuning())
				if got == nil {
					mustClose(t, db)
					t.Fatalf("%s: it opened", what)
				}
				if !errors.Is(got, err) || format() != ladder[1] {
					t.Fatalf("%s: %v; the format is %s", what, got, format())
				}
			}
			hook := func(op, part string, err error) {
				fs.set(func(o, name string) error {
					if o == op && strings.Contains(filepath.Base(name), part) {
						return err
					}
					return nil
				})
			}
			hook("write", "before-", unix.ENOSPC)
			refuse("disk full", unix.ENOSPC)
			hook("sync", "before-", unix.EIO)
			refuse("failed sync", unix.EIO)
			hook("rename", formatFile, unix.EIO)
			refuse("ended before FORMAT", unix.EIO)
			first, err := os.Stat(backup)
			if err != nil {
				t.Fatalf("no backup: %v", err)
			}
			fs.set(nil)
			checkGoldenOpen(t, o, fs)
			if format() != ladder[currentRung] {
				t.Errorf("the format is %s", format())
			}
			second, err := os.Stat(backup)
			if err != nil || !os.SameFile(first, second) {
				t.Errorf("a whole backup was made again: %v", err)
			}
			if err := os.Remove(backup); err != nil { // and is not missed
				t.Fatal(err)
			}
			checkGoldenOpen(t, o, fs)
			if _, err := os.Stat(backup); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a directory of the present format is backed up: %v", err)
			}
		})
	}
}

func TestKeepFormat(t *testing.T) {
	o := testOptions(t, copyDir(t, filepath.Join("testdata", ladder[1], "killed")))
	o.KeepFormat = true
	db := mustOpen(t, o, osFS{}, goldenTuning())
	checkGolden(t, db)
	err := db.Update(t.Context(), func(tx *Tx) error { return docs().Put(tx, Tuple("new"), doc{}) })
	if merr := db.Messages().Append([]byte("x"), nil); !errors.Is(err, ErrReadOnly) || !errors.Is(merr, ErrReadOnly) {
		t.Errorf("written: %v, %v", err, merr)
	}
	mustClose(t, db)
	if f, _, err := readFormat(osFS{}, o.Dir); err != nil || f.Name != ladder[1] {
		t.Errorf("%+v, %v", f, err)
	}
}

func checkGoldenOpen(t *testing.T, o Options, fs fsys) {
	t.Helper()
	db := mustOpen(t, o, fs, goldenTuning())
	checkGolden(t, db)
	mustClose(t, db)
}

// TestUpgradeBackupRestores: the backup names the old format, and a damaged one
// is made anew.
func TestUpgradeBackupRestores(t *testing.T) {
	o := testOptions(t, copyDir(t, filepath.Join("testdata", ladder[1], "closed")))
	backup := filepath.Join(o.Dir, UpgradeBackup())
	if err := os.WriteFile(backup, []byte("of an attempt that ended too early"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkGoldenOpen(t, o, osFS{})
	f, err := os.Open(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again := Options{Dir: filepath.Join(t.TempDir(), "again"), MasterKeyFile: filepath.Join(o.Dir, masterKeyFile), Reserve: 1}
	info, err := restoreWith(t.Context(), f, again, nil, goldenTuning())
	if err != nil || info.Rung != 1 {
		t.Fatalf("rung %d, %v", info.Rung, err)
	}
	sealed, err := os.ReadFile(filepath.Join(o.Dir, "sealed"))
	if err == nil {
		err = os.WriteFile(filepath.Join(again.Dir, "sealed"), sealed, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	checkGoldenOpen(t, again, osFS{})
}

func TestInspect(t *testing.T) {
	dir := copyDir(t, filepath.Join("testdata", ladder[1], "closed"))
	d, err := Inspect(dir, Options{Reserve: 5 << 20})
	if err != nil || !d.Exists || d.Format != ladder[1] || len(d.Steps) != currentRung-1 || d.Needs <= 5<<20 || d.Free == 0 || d.Epoch == "" {
		t.Errorf("%+v, %v", d, err)
	}
	d, err = Inspect(copyDir(t, filepath.Join("testdata", ladder[currentRung], "closed")), Options{})
	if err != nil || len(d.Steps) != 0 || d.Needs != 0 {
		t.Errorf("present: %+v, %v", d, err)
	}
	if d, err := Inspect(t.TempDir(), Options{}); err != nil || d.Exists {
		t.Errorf("empty: %+v, %v", d, err)
	}
	if _, err := Inspect(filepath.Join(dir, "nowhere"), Options{}); err == nil {
		t.Error("nowhere")
	}
	if err := claim(osFS{}, filepath.Join(dir, "half")); err != nil {
		t.Fatal(err)
	}
	if d, err := Inspect(filepath.Join(dir, "half"), Options{}); err != nil || !d.Restoring {
		t.Errorf("half restored: %+v, %v", d, err)
	}
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(dir, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}
