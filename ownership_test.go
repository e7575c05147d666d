package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/storage"
)

// TestRootLeavesNothingOfItsOwn: what root does to a stopped hub of another user leaves files that
// this user's hub can open.
func TestRootLeavesNothingOfItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := giveBack(filepath.Join(t.TempDir(), "absent")); err != nil { // no look at it
			t.Error(err)
		}
		return
	}
	t.Parallel()
	const owner = 65534
	dir := t.TempDir()
	flags := cli.StoreFlags{Data: dir}
	db, err := storage.Open(t.Context(), storeOptions(flags))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	each := func(f func(name string, uid uint32) error) {
		t.Helper()
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			return f(name, info.Sys().(*syscall.Stat_t).Uid)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	each(func(name string, _ uint32) error { return os.Lchown(name, owner, owner) })
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link, symbolic := filepath.Join(dir, "link"), filepath.Join(dir, "symbolic")
	if err := errors.Join(os.Link(elsewhere, link), os.Symlink(elsewhere, symbolic)); err != nil {
		t.Fatal(err)
	}
	for what, run := range map[string]func() error{
		"verify": func() error { _, err := verify(t.Context(), flags, cli.IO{}); return err },
		"repair": func() error { _, err := repair(t.Context(), flags, cli.IO{}); return err },
		"resume": func() error { return resume(t.Context(), flags, cli.IO{}) },
		"backup": func() error {
			_, err := createBackup(t.Context(), flags, filepath.Join(t.TempDir(), "b.mbk"), nil, func(string, int64) {}, cli.IO{})
			return err
		},
		"verify --acks": func() error {
			_, end, err := ackSource(t.Context(), flags, cli.IO{})
			if err != nil {
				return err
			}
			return end()
		},
	} {
		if err := run(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		each(func(name string, uid uint32) error {
			if (uid != owner) != (name == link || name == symbolic) {
				t.Errorf("after %s %s belongs to %d", what, name, uid)
			}
			return nil
		})
	}
}
