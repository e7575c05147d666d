package storage

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keeps are options of a program that keeps a content.
func keeps(t testing.TB, dir, version, content string) Options {
	o := testOptions(t, dir)
	o.Kept = Kept{version, func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}}
	return o
}

// kept opens a directory and returns what it gets back of the run before.
func kept(t testing.TB, dir, version string) (string, error) {
	t.Helper()
	db := mustOpen(t, testOptions(t, dir), osFS{}, small())
	defer mustClose(t, db)
	return keptOfOpen(db, version)
}

func keptOfOpen(db *DB, version string) (got string, err error) {
	err = db.Kept(version, func(r *bufio.Reader) error {
		b, err := io.ReadAll(r)
		got = string(b)
		return err
	})
	return got, err
}

// putDoc commits something.
func putDoc(t testing.TB, db *DB, n int64) {
	t.Helper()
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("k"), doc{Number: n}) })
}

func TestKept(t *testing.T) {
	content := strings.Repeat("what was computed ", 200_000)
	leave := func(t *testing.T) string {
		dir := t.TempDir()
		db := mustOpen(t, keeps(t, dir, "1", content), osFS{}, small())
		putDoc(t, db, 1)
		mustClose(t, db)
		return dir
	}
	change := func(at int64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, keptFile), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 4
			if _, err := f.WriteAt(b, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		version string
		between func(t *testing.T, dir string)
		want    error // nil: the content
	}{
		"as it was":       {"1", nil, nil},
		"another version": {"2", nil, ErrNotFound},
		"a run between that changed nothing": {"1", func(t *testing.T, dir string) {
			mustClose(t, mustOpen(t, testOptions(t, dir), osFS{}, small()))
		}, nil},
		"a commit between": {"1", func(t *testing.T, dir string) {
			db := mustOpen(t, testOptions(t, dir), osFS{}, small())
			putDoc(t, db, 2)
			mustClose(t, db)
		}, ErrNotFound},
		"a repair between": {"1", func(t *testing.T, dir string) {
			if _, err := Repair(t.Context(), testOptions(t, dir)); err != nil {
				t.Fatal(err)
			}
		}, ErrNotFound},
		"a bit of the content": {"1", change(keptHeadSize + 1_000_000), ErrCorrupt},
		"a bit of the head":    {"1", change(20), ErrCorrupt},
		"the end is missing": {"1", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, keptFile), keptHeadSize+100); err != nil {
				t.Fatal(err)
			}
		}, ErrCorrupt},
		"an empty file": {"1", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, keptFile), 0); err != nil {
				t.Fatal(err)
			}
		}, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := leave(t)
			if c.between != nil {
				c.between(t, dir)
			}
			got, err := kept(t, dir, c.version)
			if !errors.Is(err, c.want) || c.want == nil && got != content {
				t.Fatalf("%d bytes, %v; want %v", len(got), err, c.want)
			}
			// Whatever it was, it is gone.
			if _, err := kept(t, dir, c.version); !errors.Is(err, ErrNotFound) {
				t.Fatal("twice:", err)
			}
		})
	}
}

func TestKeptIsOfWhatOpenFound(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, keeps(t, dir, "1", "content"), osFS{}, small())
	putDoc(t, db, 1)
	mustClose(t, db)
	db = mustOpen(t, testOptions(t, dir), osFS{}, small())
	putDoc(t, db, 2)
	if got, err := keptOfOpen(db, "1"); err != nil || got != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	mustClose(t, db)
	if _, err := keptOfOpen(db, "1"); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestKeepingFails(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"its own error": func(o *Options) {
			o.Kept.Write = func(w io.Writer) error {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 3<<20))
				return io.ErrUnexpectedEOF
			}
		},
		"a panic":            func(o *Options) { o.Kept.Write = func(io.Writer) error { panic("it is broken") } },
		"no room":            func(o *Options) { o.Reserve = 1 << 60 },
		"a version too long": func(o *Options) { o.Kept.Version = strings.Repeat("v", keptHeadSize) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := keeps(t, dir, "1", "content")
			change(&o)
			mustClose(t, mustOpen(t, o, osFS{}, small()))
			entries, err := os.ReadDir(dir)
			if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), keptFile) }) {
				t.Fatal(entries, err)
			}
			if _, err := kept(t, dir, "1"); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		})
	}
}
