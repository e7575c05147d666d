package disk

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// world runs file operations under a record.
type world struct {
	t   *testing.T
	dir string
	d   *Disk
	n   int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	d, err := New(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.d = d
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) create(name string) (f *os.File) {
	w.t.Helper()
	_, err := w.d.Open(w.path(name), os.O_CREATE|os.O_RDWR, func() (err error) {
		f, err = os.OpenFile(w.path(name), os.O_CREATE|os.O_RDWR, 0o600)
		return err
	})
	w.check(err)
	w.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (w *world) sync(name string) {
	w.check(w.d.Sync(w.d.Lookup(w.path(name)), func() error { return nil }))
}

func (w *world) syncDir() { w.check(w.d.SyncDir(w.dir, func() error { return nil })) }

func (w *world) truncate(f *os.File, size int64) {
	w.check(w.d.Truncate(w.d.Lookup(f.Name()), size, func() error { return f.Truncate(size) }))
}

func (w *world) remove(name string) {
	w.check(w.d.Remove(w.path(name), func() error { return os.Remove(w.path(name)) }))
}

func (w *world) rename(from, to string) {
	w.check(w.d.Rename(w.path(from), w.path(to), func() error { return os.Rename(w.path(from), w.path(to)) }))
}

func (w *world) write(f *os.File, off int64, s string) {
	_, err := f.WriteAt([]byte(s), off)
	w.check(err)
}

// states makes many images and returns the different states of each file, as
// "absent" or by describe.
func (w *world) states(name string, describe func(b []byte) string) []string {
	w.t.Helper()
	seen := map[string]bool{}
	base := w.t.TempDir()
	for range 150 {
		w.n++
		dir := filepath.Join(base, fmt.Sprint(w.n))
		w.d.mu.Lock()
		_, err := (&Cut{w.d}).Image(dir, rand.New(rand.NewPCG(1, uint64(w.n))))
		w.d.mu.Unlock()
		w.check(err)
		b, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case os.IsNotExist(err):
			seen["absent"] = true
		default:
			w.check(err)
			seen[describe(b)] = true
		}
		w.check(os.RemoveAll(dir))
	}
	return slices.Sorted(maps.Keys(seen))
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("images show %q, expected %q", got, want)
	}
}

// pages names the letter with which each page begins.
func pages(b []byte) string {
	var s []byte
	for i := 0; i < len(b); i += pageSize {
		s = append(s, max(b[i], '.'))
	}
	return string(s)
}

func TestUnsyncedPagesMayBeMissing(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.truncate(f, 3*pageSize)
	w.write(f, 0, "a")
	w.sync("a")
	w.syncDir()
	expect(t, w.states("a", pages), "a..")
	w.write(f, 0, "b")
	w.write(f, pageSize, "c")
	w.write(f, 2*pageSize, "d")
	expect(t, w.states("a", pages), "a..", "a.d", "ac.", "acd", "b..", "b.d", "bc.", "bcd")
	w.sync("a")
	expect(t, w.states("a", pages), "bcd")
}

func TestMappedWritesAreSeen(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.truncate(f, pageSize)
	w.syncDir()
	m, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	w.check(err)
	defer func() { w.check(unix.Munmap(m)) }()
	copy(m, "mapped")
	if got := w.states("a", text); !slices.Contains(got, "mapped") || !slices.Contains(got, "") {
		t.Errorf("images show %q", got)
	}
	w.sync("a")
	expect(t, w.states("a", text), "mapped")
}

func TestPagesTearBetweenSectors(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.write(f, 0, strings.Repeat("a", pageSize))
	w.sync("a")
	w.write(f, 0, strings.Repeat("b", pageSize))
	torn := 0
	for _, s := range w.states("a", func(b []byte) string { return string(b) }) {
		for i := 0; i < pageSize; i += sectorSize {
			if n := strings.Count(s[i:i+sectorSize], "a"); n != 0 && n != sectorSize {
				t.Fatalf("a sector of %d a and %d b", n, sectorSize-n)
			}
		}
		if strings.Contains(s, "a") && strings.Contains(s, "b") {
			torn++
		}
	}
	if torn < 5 {
		t.Errorf("%d torn pages in 150 images", torn)
	}
}

func TestGrownFileMayBeAnyLengthBetween(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.write(f, 0, "base")
	w.sync("a")
	w.write(f, 4, "tail")
	got := w.states("a", text)
	for _, want := range []string{"base", "basetail", "baset"} {
		if !slices.Contains(got, want) {
			t.Errorf("no image shows %q: %q", want, got)
		}
	}
	for _, s := range got {
		if !strings.HasPrefix("basetail", s) || len(s) < 4 {
			t.Errorf("an image shows %q", s)
		}
	}
}

// Deletion as ristretto does it: the file is cut first, then removed.
func TestDeletionLeavesOldEmptyOrNone(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.write(f, 0, "old")
	w.sync("a")
	w.syncDir()
	w.truncate(f, 0)
	expect(t, w.states("a", text), "", "old")
	w.remove("a")
	expect(t, w.states("a", text), "", "absent", "old")
	w.syncDir()
	expect(t, w.states("a", text), "absent")
}

func TestSyncOfANewFileKeepsItsNameAndAllChangesBefore(t *testing.T) {
	w := newWorld(t)
	w.create("first")
	w.create("a")
	expect(t, w.states("first", text), "", "absent")
	w.sync("a")
	expect(t, w.states("a", text), "")
	expect(t, w.states("first", text), "")
	w.create("last")
	w.sync("a")
	expect(t, w.states("last", text), "", "absent")
}

func TestReplacementByRename(t *testing.T) {
	for _, tt := range []struct {
		name string
		sync bool
		want []string
	}{
		{"synced before", true, []string{"new", "old"}},
		{"never synced", false, []string{"", "n", "ne", "new", "old"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write(w.create("a"), 0, "old")
			w.sync("a")
			w.syncDir()
			w.write(w.create("tmp"), 0, "new")
			if tt.sync {
				w.sync("tmp")
			}
			w.rename("tmp", "a")
			expect(t, w.states("a", text), tt.want...)
			w.syncDir()
			for _, s := range w.states("a", text) {
				if s == "old" {
					t.Error("the old file is back after the directory's sync")
				}
			}
		})
	}
}

func TestSyncCountsFromItsStart(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.truncate(f, pageSize)
	w.write(f, 0, "a")
	n := w.d.Lookup(w.path("a"))
	w.check(w.d.Sync(n, func() error {
		w.write(f, 0, "b")
		return w.d.Sync(n, func() error { // begins later and ends earlier
			w.write(f, 0, "c")
			return nil
		})
	}))
	expect(t, w.states("a", pages), "b", "c")
}

func TestResizeDuringASync(t *testing.T) {
	w := newWorld(t)
	f := w.create("a")
	w.write(f, 0, strings.Repeat("a", 2*pageSize))
	w.check(w.d.Sync(w.d.Lookup(w.path("a")), func() error {
		w.truncate(f, pageSize)
		w.create("b")
		w.syncDir() // makes the new length certain
		return nil
	}))
	expect(t, w.states("a", pages), "a")
}

func TestSyncOfAFileThatIsGone(t *testing.T) {
	w := newWorld(t)
	w.create("a")
	n := w.d.Lookup(w.path("a"))
	w.remove("a")
	w.syncDir()
	w.check(w.d.Sync(n, func() error { return nil }))
	expect(t, w.states("a", text), "absent")
}

func TestLyingSync(t *testing.T) {
	w := newWorld(t)
	w.d.Lie = func(path string) bool { return path == "a" }
	w.write(w.create("a"), 0, "x")
	w.syncDir()
	w.sync("a")
	expect(t, w.states("a", text), "", "x")
}

func TestUnseenOperationsAreReported(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(w *world) error
	}{
		{"created", func(w *world) error { return os.WriteFile(w.path("b"), nil, 0o600) }},
		{"removed", func(w *world) error { return os.Remove(w.path("a")) }},
		{"cut", func(w *world) error { return os.Truncate(w.path("a"), 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write(w.create("a"), 0, "x")
			w.sync("a")
			w.check(tt.do(w))
			w.d.mu.Lock()
			_, err := (&Cut{w.d}).Image(filepath.Join(t.TempDir(), "i"), rand.New(rand.NewPCG(1, 1)))
			w.d.mu.Unlock()
			if err == nil {
				t.Error("not noticed")
			}
		})
	}
}

func TestWatchSeesTheMomentsOfADeletion(t *testing.T) {
	w := newWorld(t)
	var got []string
	w.d.Watch = func(e Event, _ *Cut) { got = append(got, fmt.Sprint(e.Op, " ", e.Path, " ", e.After)) }
	f := w.create("a")
	w.write(f, 0, "x")
	w.truncate(f, 0)
	w.remove("a")
	want := []string{"open a false", "create a true", "truncate a false", "truncate a true", "remove a false", "remove a true"}
	if !slices.Equal(got, want) {
		t.Errorf("events %q, expected %q", got, want)
	}
}

func TestContentRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 50 {
		b := make([]byte, rng.IntN(5*pageSize))
		for range rng.IntN(4) {
			if len(b) > 0 {
				b[rng.IntN(len(b))] = 'x'
			}
		}
		from, to := filepath.Join(dir, fmt.Sprint("f", i)), filepath.Join(dir, fmt.Sprint("t", i))
		if err := os.WriteFile(from, b, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		c, err := readContent(f, content{})
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.write(to, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes came back as %d, %v", len(b), len(got), err)
		}
	}
}
