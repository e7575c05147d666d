package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

func backupOf(t *testing.T, db *DB, pass string) ([]byte, BackupInfo) {
	t.Helper()
	var b bytes.Buffer
	info, err := db.Backup(t.Context(), &b, BackupOptions{Passphrase: []byte(pass)})
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(b.Len()) {
		t.Fatalf("the size is %d, %d bytes were written", info.Size, b.Len())
	}
	return b.Bytes(), info
}

func filled(t *testing.T, n int) *DB {
	t.Helper()
	db, err := openWith(t.Context(), Options{Dir: t.TempDir()}, osFS{}, small())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for i := range n {
		if err := db.Update(t.Context(), func(tx *Tx) error {
			return errors.Join(changes().Append(tx, fmt.Appendf(nil, "change %d", i)), docs().Put(tx, Tuple(int64(i)), doc{City: "Ulm", Number: int64(i), Text: "text"}))
		}); err != nil {
			t.Fatal(err)
		}
		stored := make(chan error, 1)
		if err := db.Messages().Append(fmt.Appendf(nil, "message %d", i), func(_ uint64, err error) { stored <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func TestBackupRoundTrip(t *testing.T) {
	db := filled(t, 200)
	sealed, err := db.Seal([]byte("secret"), "here")
	if err != nil {
		t.Fatal(err)
	}
	b, info := backupOf(t, db, "horse battery")
	if got, err := VerifyBackup(t.Context(), bytes.NewReader(b)); err != nil || got.SHA256 != info.SHA256 || got.Size != info.Size {
		t.Fatalf("VerifyBackup: %+v, %v", got, err)
	}
	o := Options{Dir: filepath.Join(t.TempDir(), "new")}
	if _, err := restoreWith(t.Context(), bytes.NewReader(b), o, []byte("horse battery"), small()); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	again, err := openWith(t.Context(), o, osFS{}, small())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if e := again.Epoch(); e.Ordinal != 2 || e.ID == info.Epoch || !again.Paused() {
		t.Errorf("epoch %+v, paused %v", e, again.Paused())
	}
	if plain, err := again.Unseal(sealed, "here"); err != nil || string(plain) != "secret" {
		t.Errorf("Unseal: %q, %v", plain, err)
	}
	if _, second := backupOf(t, again, ""); !slices.Equal(second.Tables, info.Tables) {
		t.Errorf("restored: %+v\nwant %+v", second.Tables, info.Tables)
	}
	if err := again.Update(t.Context(), func(tx *Tx) error {
		return changes().Append(tx, []byte("next"))
	}); err != nil {
		t.Errorf("the log does not go on: %v", err)
	}
	if again.Stats().Visible <= info.Sequence {
		t.Errorf("sequence %d after the backup's %d", again.Stats().Visible, info.Sequence)
	}
	if err := again.Resume(); err != nil || again.Paused() {
		t.Errorf("Resume: %v", err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(b), o, []byte("horse battery")); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("restore over a store: %v", err)
	}
}

func TestBackupDamageIsFound(t *testing.T) {
	b, _ := backupOf(t, filled(t, 20), "p")
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if _, err := VerifyBackup(t.Context(), bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d flipped: not found", i)
		}
		if _, err := VerifyBackup(t.Context(), bytes.NewReader(b[:i])); !errors.Is(err, ErrBackup) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(append(b, 0))); !errors.Is(err, ErrBackup) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestBackupUnderWritersIsOneSequence(t *testing.T) {
	db := filled(t, 1)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := int64(0); ctx.Err() == nil; i++ {
				// Two records that are equal at every sequence.
				_ = db.Update(ctx, func(tx *Tx) error {
					v := doc{Number: i, Text: string(bytes.Repeat([]byte("x"), 2000))}
					return errors.Join(docs().Put(tx, Tuple(int64(w), "a"), v), docs().Put(tx, Tuple(int64(w), "z"), v))
				})
			}
		})
	}
	for range 5 {
		b, info := backupOf(t, db, "p")
		o := Options{Dir: filepath.Join(t.TempDir(), "new")}
		if _, err := restoreWith(t.Context(), bytes.NewReader(b), o, []byte("p"), small()); err != nil {
			t.Fatal(err)
		}
		again, err := openWith(t.Context(), o, osFS{}, small())
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Stats().Visible; got < info.Sequence {
			t.Errorf("sequence %d, the backup says %d", got, info.Sequence)
		}
		err = again.View(t.Context(), func(r Reader) error {
			for w := range 2 {
				a, errA := docs().Get(r, Tuple(int64(w), "a"))
				z, errZ := docs().Get(r, Tuple(int64(w), "z"))
				if a.Number != z.Number || (errA == nil) != (errZ == nil) {
					t.Errorf("%d (%v) and %d (%v)", a.Number, errA, z.Number, errZ)
				}
			}
			return nil
		})
		if err := errors.Join(err, again.Close()); err != nil {
			t.Error(err)
		}
	}
	stop()
	writers.Wait()
}

func TestRestoreRefuses(t *testing.T) {
	db := filled(t, 20)
	b, _ := backupOf(t, db, "right")
	plain, _ := backupOf(t, db, "")
	for _, c := range []struct {
		name string
		b    []byte
		pass string
		want error
	}{
		{"wrong passphrase", b, "wrong", ErrPassphrase},
		{"no passphrase", b, "", ErrPassphrase},
		{"no key", plain, "", ErrPassphrase},
		{"cut", b[:len(b)-10], "right", ErrBackup},
		{"empty", nil, "right", ErrBackup},
		{"huge frame", append([]byte(backupMagic), 'H', 255, 255, 255, 255, 0, 0, 0, 0), "", ErrBackup},
	} {
		dir := filepath.Join(t.TempDir(), "new")
		if _, err := restoreWith(t.Context(), bytes.NewReader(c.b), Options{Dir: dir}, []byte(c.pass), small()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", c.name, left, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "half")
	if err := claim(osFS{}, dir); err != nil { // as a process that died leaves it
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrRestoring) {
		t.Errorf("open of a half restore: %v", err)
	}
	if _, err := restoreWith(t.Context(), bytes.NewReader(b), Options{Dir: dir}, []byte("right"), small()); err != nil {
		t.Errorf("restore again: %v", err)
	}
}

func FuzzVerifyBackup(f *testing.F) {
	f.Add([]byte(backupMagic))
	f.Add(append([]byte(backupMagic), 'H', 2, 0, 0, 0, 0, 0, 0, 0, '{', '}'))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := VerifyBackup(t.Context(), bytes.NewReader(b)); err == nil && len(b) < 100 {
			t.Error("taken for a backup")
		}
	})
}
