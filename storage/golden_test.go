package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// goldenTuning is that of the golden directories: small files.
func goldenTuning() tuning {
	t := small()
	t.segmentSize = 64 << 10
	return t
}

// goldenSteps fills a golden directory.
func goldenSteps(db *DB) error {
	var errs []error
	for i := range int64(60) {
		errs = append(errs, db.Update(context.Background(), func(tx *Tx) error {
			tx.Add("n", 1)
			tx.SetCursor("c", uint64(i))
			if err := changes().Append(tx, fmt.Appendf(nil, "change %d", i+1)); err != nil {
				return err
			}
			for n := i; i%2 == 0 && n < i+2; n++ { // in pairs, so that values hold several
				if err := auditLog().Append(tx, fmt.Appendf(nil, "entry %d", n)); err != nil {
					return err
				}
			}
			if i%7 == 6 {
				return docs().Delete(tx, Tuple("key", uint64(i-3)))
			}
			return docs().Put(tx, Tuple("key", uint64(i)), doc{City: fmt.Sprint("city ", i%3), Number: i, Text: text(200, "golden ")})
		}))
	}
	return errors.Join(errs...)
}

// TestGolden opens the data directories that earlier releases left: of every rung of the ladder one
// that was closed and one whose process was killed. STORAGE_GOLDEN=write makes those of the
// present rung.
func TestGolden(t *testing.T) {
	if os.Getenv("STORAGE_GOLDEN") == "write" {
		writeGolden(t)
	}
	for rung := 1; rung < len(ladder); rung++ {
		for _, kind := range []string{"closed", "killed"} {
			t.Run(ladder[rung]+"/"+kind, func(t *testing.T) {
				o := testOptions(t, copyDir(t, filepath.Join("testdata", ladder[rung], kind)))
				for range 2 {
					db := mustOpen(t, o, osFS{}, goldenTuning())
					checkGolden(t, db)
					if rung >= 3 {
						checkChanges(t, db, 1, 60)
					}
					mustClose(t, db)
				}
			})
		}
	}
}

func checkGolden(t *testing.T, db *DB) {
	t.Helper()
	view(t, db, func(r Reader) error {
		for i := range int64(60) {
			v, err := docs().Get(r, Tuple("key", uint64(i)))
			gone := i%7 == 6 || i%7 == 3 && i < 57
			if gone && !errors.Is(err, ErrNotFound) || !gone && (err != nil || v.Number != i || v.Text != text(200, "golden ")) {
				t.Errorf("record %d: %d, %v", i, v.Number, err)
			}
		}
		n, err := Counter(r, "n")
		c, cerr := Cursor(r, "c")
		entries, bad, lerr := auditLog().Verify(t.Context(), r)
		if n != 60 || c != 59 || entries != 60 || bad != 0 {
			t.Errorf("counter %d, cursor %d, entries %d, bad %d", n, c, entries, bad)
		}
		plain, uerr := db.Unseal(goldenSecret(t, db.opt.Dir), "golden")
		if string(plain) != "secret" {
			t.Errorf("unsealed %q", plain)
		}
		return errors.Join(err, cerr, lerr, uerr)
	})
}

func goldenSecret(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "sealed"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeGolden(t *testing.T) {
	base := filepath.Join("testdata", ladder[currentRung])
	if err := os.RemoveAll(base); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, t.TempDir())
	o.CheckpointEvery = time.Hour
	db := mustOpen(t, o, osFS{}, goldenTuning())
	if err := goldenSteps(db); err != nil {
		t.Fatal(err)
	}
	sealed, err := db.Seal([]byte("secret"), "golden")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "sealed"), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	killed := copyDir(t, o.Dir)
	mustClose(t, db)
	for kind, dir := range map[string]string{"killed": killed, "closed": o.Dir} {
		if err := os.CopyFS(filepath.Join(base, kind), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		// What holds nothing is left out of the repository; two of them are megabytes of zeros.
		for _, name := range []string{lockFile, "badger/DISCARD", "badger/000001.vlog"} {
			if err := os.Remove(filepath.Join(base, kind, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
