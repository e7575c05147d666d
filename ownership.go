package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// giveBack gives what root made in a data directory to the directory's owner: who looks at a hub
// that does not run does so with sudo, and a store that is opened writes files, which the hub could
// not open under its own user. For others than root there is nothing to do.
func giveBack(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	var owner unix.Stat_t
	if err := unix.Stat(dir, &owner); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if owner.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && (e.IsDir() || e.Type().IsRegular()) {
			err = giveFile(name, owner)
		}
		if errors.Is(err, fs.ErrNotExist) { // a hub that runs after all moves its files
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "chown", Path: name, Err: err}
		}
		return nil
	})
}

// giveFile gives one file or folder of root's away. The owner of the directory may put there what
// they like: a link to a file of root's elsewhere is none that root made here.
func giveFile(name string, to unix.Stat_t) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // only read
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return err
	}
	if folder := s.Mode&unix.S_IFMT == unix.S_IFDIR; s.Uid != 0 || !folder && s.Nlink != 1 {
		return nil
	}
	return unix.Fchown(fd, int(to.Uid), int(to.Gid))
}
