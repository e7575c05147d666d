//go:build powercut

package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/dgraph-io/ristretto/v2/z"

	"github.com/muster-hub/muster/test/powercut/disk"
)

// These files are compiled only by test/powercut, which puts hooked copies of Badger and
// ristretto in the modules' place.

// recordedFS is osFS under a record. Nothing is really synced: what a sync promises is the
// record's business, and the page cache holds the rest.
type recordedFS struct {
	imageFS
	disk *disk.Disk
}

// imageFS is osFS, but a file of an image shows the inode number that it had before the power
// cut: the checkpoint knows MANIFEST by its inode.
type imageFS struct {
	osFS
	inodes *inodes
}

// inodes gives each file a number of its own. The numbers of the file system serve as keys only,
// since it uses them again.
type inodes struct {
	mu     sync.Mutex
	number map[uint64]uint64
	last   uint64
}

// fresh is called when a file has been made.
func (t *inodes) fresh(real uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.number[real] = t.last
}

// same gives a copy the number of its origin.
func (t *inodes) same(from, to uint64) {
	n := t.shown(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number[to] = n
}

func (t *inodes) shown(real uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.number[real]
	if !ok {
		t.last++
		n = t.last
		t.number[real] = n
	}
	return n
}

func inodeOf(st os.FileInfo) uint64 { return st.Sys().(*syscall.Stat_t).Ino }

type imageInfo struct {
	os.FileInfo
	sys syscall.Stat_t
}

func (i imageInfo) Sys() any { return &i.sys }

func (f imageFS) Stat(name string) (os.FileInfo, error) {
	st, err := f.osFS.Stat(name)
	if err != nil {
		return nil, err
	}
	i := imageInfo{st, *st.Sys().(*syscall.Stat_t)}
	i.sys.Ino = f.inodes.shown(i.sys.Ino)
	return i, nil
}

type recordedFile struct {
	file
	disk *disk.Disk
	node *disk.Node
}

func noSync() error { return nil }

func (r recordedFS) OpenFile(name string, flag int, perm os.FileMode) (file, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return r.osFS.OpenFile(name, flag, perm)
	}
	var f file
	node, err := r.disk.Open(name, flag, func() (err error) {
		f, err = r.osFS.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	return recordedFile{f, r.disk, node}, nil
}

func (r recordedFS) Rename(from, to string) error {
	return r.disk.Rename(from, to, func() error { return os.Rename(from, to) })
}

func (r recordedFS) Remove(name string) error {
	return r.disk.Remove(name, func() error { return os.Remove(name) })
}

func (r recordedFS) SyncFile(name string) error {
	node := r.disk.Find(name)
	if node == nil {
		return &os.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return r.disk.Sync(node, noSync)
}

func (r recordedFS) SyncDir(name string) error { return r.disk.SyncDir(name, noSync) }

func (f recordedFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.disk.Write(f.node, func() (err error) {
		n, err = f.file.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f recordedFile) Truncate(size int64) error {
	return f.disk.Truncate(f.node, size, func() error { return f.file.Truncate(size) })
}

func (f recordedFile) Datasync() error { return f.disk.Sync(f.node, noSync) }

// hookBadger sends Badger's file operations to the record that current returns.
func hookBadger(current func() *disk.Disk) {
	z.SetPowercut(func(op, path, to string, n int64, do func() error) error {
		d := current()
		if d == nil {
			return do()
		}
		switch op {
		case "open":
			_, err := d.Open(path, int(n), do)
			return err
		case "truncate":
			return d.Truncate(d.Lookup(path), n, do)
		case "write":
			return d.Write(d.Lookup(path), do)
		case "sync":
			return d.Sync(d.Lookup(path), noSync)
		case "syncdir":
			return d.SyncDir(path, noSync)
		case "remove":
			return d.Remove(path, do)
		case "rename":
			return d.Rename(path, to, do)
		}
		return errors.New("unknown operation " + op)
	})
}

// cutUnseen are the lock files: they say who has the directory open and hold no data.
func cutUnseen(path string) bool { return filepath.Base(path) == "LOCK" }

// copyImage copies a directory of plain files. The copies show the inode numbers of the originals.
func copyImage(from, to string, t *inodes) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := filepath.Join(to, strings.TrimPrefix(path, from))
		if e.IsDir() {
			return os.MkdirAll(dst, 0o700)
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dst, b, st.Mode().Perm()); err != nil {
			return err
		}
		made, err := os.Stat(dst)
		if err != nil {
			return err
		}
		t.same(inodeOf(st), inodeOf(made))
		return nil
	})
}
