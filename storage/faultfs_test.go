package storage

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// faultFS is the real file layer with faults: a hook sees every operation before it happens and
// may answer with an error, or block, and the free space is given.
type faultFS struct {
	osFS
	mu   sync.Mutex
	hook func(op, name string) error
	free int64 // 0: the real one
}

func (f *faultFS) set(hook func(op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *faultFS) setFree(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = n
}

func (f *faultFS) before(op, name string) error {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op, name)
}

func (f *faultFS) OpenFile(name string, flag int, perm os.FileMode) (file, error) {
	if err := f.before("open", name); err != nil {
		return nil, err
	}
	g, err := f.osFS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return faultFile{g, f, name}, nil
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.before("rename", to); err != nil {
		return err
	}
	return f.osFS.Rename(from, to)
}

func (f *faultFS) SyncFile(name string) error {
	if err := f.before("syncfile", name); err != nil {
		return err
	}
	return f.osFS.SyncFile(name)
}

func (f *faultFS) SyncDir(name string) error {
	if err := f.before("syncdir", name); err != nil {
		return err
	}
	return f.osFS.SyncDir(name)
}

func (f *faultFS) Free(name string) (int64, int64, error) {
	f.mu.Lock()
	free := f.free
	f.mu.Unlock()
	if free != 0 {
		return free, 0xEF53, nil
	}
	return f.osFS.Free(name)
}

type faultFile struct {
	file
	fs   *faultFS
	name string
}

func (f faultFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.fs.before("write", f.name); err != nil {
		if err == unix.ENOSPC && len(b) > 1 { // a full disk takes a part
			n, werr := f.file.WriteAt(b[:len(b)/2], at)
			if werr != nil {
				return n, werr
			}
			return n, err
		}
		return 0, err
	}
	return f.file.WriteAt(b, at)
}

func (f faultFile) Datasync() error {
	if err := f.fs.before("sync", f.name); err != nil {
		return err
	}
	return f.file.Datasync()
}
