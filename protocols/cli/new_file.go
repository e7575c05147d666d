package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Files that commands make, with one rule: what is there is not replaced unless
// --force, where a command has it, says so (ExitConflict, as of any record that
// exists), and nobody finds half of a file. What replaces by its nature says so in its
// help: container get, and the faults of an import, which are written as they come.

// What to do about a place that is taken.
const (
	takenForce = "Say another place, or replace it with --force."
	takenNext  = "Say another place, or remove it first."
)

// placeFree refuses a place that is taken; next says what to do then.
func placeFree(to, next string) error {
	if _, err := os.Lstat(to); err == nil {
		return placeTaken(to, next)
	}
	return nil // why it can't be looked at is told by who makes it
}

func placeTaken(to, next string) error {
	return &problem{exit: ExitConflict, what: printable(to) + " exists already", next: next}
}

// newFile is a file that is being made: under a temporary name beside its place, for
// its owner alone, until it is whole.
type newFile struct {
	*os.File
	to      string
	replace bool   // what is there
	next    string // what to do when something is
}

// createFile begins a file. Whoever has made it whole calls keep; drop is deferred.
func createFile(to string, replace bool, next string) (*newFile, error) {
	if !replace {
		if err := placeFree(to, next); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(to), ".muster-new-*")
	if err != nil {
		return nil, notMade(to, err)
	}
	return &newFile{f, to, replace, next}, nil
}

// keep gives the file its place.
func (f *newFile) keep() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if !f.replace {
		switch err := os.Link(f.Name(), f.to); { // fails when somebody made it meanwhile
		case err == nil:
			return nil // drop removes the other name
		case errors.Is(err, fs.ErrExist):
			return placeTaken(f.to, f.next)
		}
		// There are file systems without links.
		if err := placeFree(f.to, f.next); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), f.to)
}

// drop removes the temporary name, if the file still has it.
func (f *newFile) drop() {
	_ = f.Close()
	_ = os.Remove(f.Name()) // it has another name when all went well
}

// wholeFile makes a file of what write writes, and only if all of it came.
func wholeFile(to string, replace bool, write func(w io.Writer) error) error {
	f, err := createFile(to, replace, takenForce)
	if err != nil {
		return err
	}
	defer f.drop()
	if err := write(f); err != nil {
		return err
	}
	return f.keep()
}

// notMade says why a file or folder can't be made, and what to do.
func notMade(to string, err error) *problem {
	in := printable(filepath.Dir(to))
	p := &problem{exit: ExitFailed, what: printable(to) + " can't be made", why: cause(err), next: "Say another place."}
	switch {
	case errors.Is(err, fs.ErrNotExist) && isFolder(filepath.Dir(to)): // such as /proc
		p.exit, p.why = ExitUsage, in+" takes no new files or folders"
	case errors.Is(err, fs.ErrNotExist):
		p.exit, p.why, p.next = ExitUsage, "there is no folder "+in, "Make the folder, or say another place."
	case errors.Is(err, syscall.ENOTDIR) && isFolder(filepath.Dir(to)):
		p.exit, p.why = ExitUsage, printable(to)+" is a file, and no folder"
	case errors.Is(err, syscall.ENOTDIR):
		p.exit, p.why = ExitUsage, in+" is no folder"
	case errors.Is(err, fs.ErrPermission):
		p.exit, p.next = ExitForbidden, "Run the command as a user that may write to "+in+", or say another place."
	case errors.Is(err, syscall.ENOSPC):
		p.next = "Make room on the disk, or say another place."
	}
	return p
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// cause is the text of an error of the file system without the names in it.
func cause(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
