package storage

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	partSuffix = ".part"
	// partSync is after how many bytes a file that grows is synced: a sync of gigabytes at its end
	// would hold up every transaction on the same disk.
	partSync = 4 << 20
	// saveLeaves is the free space that a file system must keep where no store has a reserve.
	saveLeaves = 64 << 20
)

// ErrExists says that a backup does not replace a file.
var ErrExists = errors.New("the file exists")

// SaveOptions say how a backup file is written.
type SaveOptions struct {
	// Reserve is the free space, in bytes, that the file system keeps; 0 is 64 MiB.
	Reserve int64
	// Expect is how large the file may become; the space is asked for before the first byte. 0 is unknown.
	Expect int64
	// Busy, when not nil, reports whether others work now, so that checking the file rests for them.
	Busy func() bool
	// Verifying, when not nil, is called with the bytes that were read back so far.
	Verifying func(bytes int64)
}

// SaveBackup makes a backup file from what write writes. The file has the name name+".part" until
// all of it is synced, read back from the disk and found whole; only then it gets its name, so what
// has the name is a backup. When SaveBackup fails nothing is left; when the process dies the part
// is, which the next SaveBackup of that name begins anew. Errors: ErrExists, ErrReserve, ErrBackup,
// ErrLocked (another process writes this file), those of write and of the disk.
func SaveBackup(ctx context.Context, name string, o SaveOptions, write func(w io.Writer) error) (BackupInfo, error) {
	return saveBackup(ctx, osFS{}, name, o, write)
}

func saveBackup(ctx context.Context, fs fsys, name string, o SaveOptions, write func(w io.Writer) error) (info BackupInfo, err error) {
	if there, err := exists(fs, name); err != nil || there {
		return info, errors.Join(err, fmt.Errorf("%w: %s; give another name", ErrExists, name))
	}
	if o.Reserve <= 0 {
		o.Reserve = saveLeaves
	}
	dir := filepath.Dir(name)
	if err := leaves(fs, dir, o.Expect, o.Reserve); err != nil {
		return info, err
	}
	part := name + partSuffix
	f, err := fs.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return info, err
	}
	lock, err := lockPart(part)
	if err != nil {
		return info, errors.Join(err, f.Close())
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, fs.Remove(part))
			info = BackupInfo{}
		}
		err = errors.Join(err, unlockDir(lock))
	}()
	if err := f.Truncate(0); err != nil {
		return info, err
	}
	w := &partWriter{fs: fs, file: f, dir: dir, reserve: o.Reserve}
	if err := write(w); err != nil {
		return info, err
	}
	if err := f.Datasync(); err != nil {
		return info, err
	}
	if g, ok := f.(osFile); ok {
		// So that what is read back comes from the disk, and the store's own pages stay in memory.
		_ = unix.Fadvise(int(g.Fd()), 0, 0, unix.FADV_DONTNEED) // only advice
	}
	r := bufio.NewReaderSize(&counted{r: io.NewSectionReader(f, 0, w.size), progress: o.Verifying}, 256<<10)
	if info, err = readBackup(ctx, r, backupTarget{pace: newPacer(o.Busy)}); err != nil {
		return info, fmt.Errorf("reading the backup back: %w", err)
	}
	if there, err := exists(fs, name); err != nil || there {
		return info, errors.Join(err, fmt.Errorf("%w: %s; give another name", ErrExists, name))
	}
	if err := fs.Rename(part, name); err != nil {
		return info, err
	}
	if err := fs.SyncDir(dir); err != nil {
		// The name may be gone after a power cut: then there is no backup.
		return info, errors.Join(err, fs.Rename(name, part))
	}
	return info, nil
}

// leaves refuses what would take a file system's last space.
func leaves(fs fsys, dir string, expect, reserve int64) error {
	free, _, err := fs.Free(dir)
	if err != nil {
		return err
	}
	if free-expect < reserve {
		return fmt.Errorf("%w: a backup in %s may need %d MiB, %d MiB are free and %d MiB of that are to stay free; make room, or write to another disk",
			ErrReserve, dir, expect>>20, free>>20, reserve>>20)
	}
	return nil
}

// lockPart takes a part for this process, so that nobody else writes or removes it.
func lockPart(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: another process writes %s; wait for it, or give another name", ErrLocked, name)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// partWriter writes a file from its front, syncs it as it goes and stops before the disk is full.
type partWriter struct {
	fs      fsys
	file    file
	dir     string
	reserve int64
	size    int64
	synced  int64
}

func (w *partWriter) Write(b []byte) (int, error) {
	n, err := w.file.WriteAt(b, w.size)
	w.size += int64(n)
	if err != nil || w.size-w.synced < partSync {
		return n, err
	}
	if err := w.file.Datasync(); err != nil {
		return n, err
	}
	w.synced = w.size
	return n, leaves(w.fs, w.dir, 0, w.reserve)
}

// counted tells how many bytes were read.
type counted struct {
	r        io.Reader
	n        int64
	progress func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if c.progress != nil {
		c.progress(c.n)
	}
	return n, err
}

// SaveBackup is the function SaveBackup for this store: the file leaves the store's reserve where it
// lies on the store's file system, and both the backup and its check rest for transactions. wrote
// and verified, when not nil, are told the bytes read from the store and read back.
func (db *DB) SaveBackup(ctx context.Context, name string, o BackupOptions, verified func(bytes int64)) (BackupInfo, error) {
	s := SaveOptions{Busy: db.pacer().busy, Verifying: verified, Expect: db.backupBound()}
	if same, err := SameFileSystem(db.opt.Dir, filepath.Dir(name)); err != nil {
		return BackupInfo{}, err
	} else if same {
		s.Reserve = db.space.reserve
	}
	if newest := newestSize(filepath.Dir(name)); newest > 0 {
		s.Expect = min(s.Expect, newest+newest/4)
	}
	return saveBackup(ctx, db.fs, name, s, func(w io.Writer) error {
		_, err := db.Backup(ctx, w, o)
		return err
	})
}

// backupBound is more than a backup takes: everything as it lies in the store, which is not packed as tightly.
func (db *DB) backupBound() int64 {
	var s Stats
	db.messages.stats(&s)
	n := s.MessageBytes
	for _, l := range db.badger.Levels() {
		n += l.Size
	}
	size, err := dirSize(db.fs, db.path(blobDir))
	if err != nil {
		return n
	}
	return n + size
}

func dirSize(fs fsys, dir string) (n int64, err error) {
	list, err := fs.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() { // else it has just gone
			n += st.Size()
		}
	}
	return n, nil
}

// SameFileSystem reports whether two paths lie on one file system.
func SameFileSystem(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Stat(a, &x); err != nil {
		return false, &os.PathError{Op: "stat", Path: a, Err: err}
	}
	if err := unix.Stat(b, &y); err != nil {
		return false, &os.PathError{Op: "stat", Path: b, Err: err}
	}
	return x.Dev == y.Dev, nil
}

// CheckBackupDir tells why no backup could be begun in a directory that is there, without writing to
// it; nil for one that is not there, which the first backup makes. What else ails a disk shows only at
// a write.
func CheckBackupDir(dir string) error {
	err := unix.Access(dir, unix.W_OK|unix.X_OK)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "write to", Path: dir, Err: err}
}

// A directory of backups holds files that BackupName named. Other files in it are nobody's business.
const (
	backupPrefix = "muster-"
	backupSuffix = ".mbk"
	backupStamp  = "20060102T150405Z"
)

// BackupName is the name of a backup in a directory of backups: names sort by time.
func BackupName(at time.Time) string {
	return backupPrefix + at.UTC().Format(backupStamp) + backupSuffix
}

// FreeBackupName is BackupName for a directory: when it holds a backup of that second already, the
// name is that of the next second without one.
func FreeBackupName(dir string, at time.Time) string {
	for range maxBackupFiles {
		name := BackupName(at)
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return name // if it is not missing, who makes the backup is told why
		}
		at = at.Add(time.Second)
	}
	return BackupName(at)
}

func backupNamed(name string) (time.Time, bool) {
	stamp, ok := strings.CutPrefix(name, backupPrefix)
	if ok {
		stamp, ok = strings.CutSuffix(stamp, backupSuffix)
	}
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(backupStamp, stamp)
	return at, err == nil
}

// BackupFile is a file of a directory of backups.
type BackupFile struct {
	Name string     // without the directory
	Size int64      // bytes
	Info BackupInfo // from its header; the zero value when Err is set
	Err  error      // its header cannot be read
}

// maxBackupFiles bounds a list of backups.
const maxBackupFiles = 10_000

// ListBackups lists a directory of backups, the newest first. Only headers are read: whether a
// backup is whole, VerifyBackup tells.
func ListBackups(dir string) ([]BackupFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := []BackupFile{}
	for _, e := range entries {
		if _, ok := backupNamed(e.Name()); !ok || !e.Type().IsRegular() {
			continue
		}
		if len(list) == maxBackupFiles {
			return nil, fmt.Errorf("%s holds more than %d backups; move some away", dir, maxBackupFiles)
		}
		b := BackupFile{Name: e.Name()}
		b.Size, b.Info, b.Err = headerOf(filepath.Join(dir, e.Name()))
		if errors.Is(b.Err, os.ErrNotExist) {
			continue // it has just gone
		}
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b BackupFile) int { return cmp.Compare(b.Name, a.Name) })
	return list, nil
}

func headerOf(name string) (size int64, info BackupInfo, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, info, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return 0, info, err
	}
	info, err = ReadBackupHeader(f)
	return st.Size(), info, err
}

func newestSize(dir string) int64 {
	list, err := ListBackups(dir)
	if err != nil || len(list) == 0 || list[0].Err != nil {
		return 0
	}
	return list[0].Size
}

// PruneBackups removes the oldest backups of an epoch beyond the newest keep, and what processes
// that died left unfinished. Backups of other epochs stay: a restored hub must not remove what it
// was restored from. It returns the names that it removed.
func PruneBackups(dir, epoch string, keep int) (removed []string, err error) {
	list, err := ListBackups(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, b := range list {
		if b.Err != nil || b.Info.Epoch != epoch {
			continue
		}
		if keep--; keep >= 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, b.Name)); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, b.Name)
	}
	errs = append(errs, removeParts(dir))
	if len(removed) > 0 {
		errs = append(errs, osFS{}.SyncDir(dir))
	}
	return removed, errors.Join(errs...)
}

// removeParts removes unfinished backups that nobody writes.
func removeParts(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		base, part := strings.CutSuffix(e.Name(), partSuffix)
		if _, ok := backupNamed(base); !ok || !part {
			continue
		}
		name := filepath.Join(dir, e.Name())
		lock, err := lockPart(name)
		if err != nil {
			continue // it is being written, or has gone
		}
		errs = append(errs, os.Remove(name), unlockDir(lock))
	}
	return errors.Join(errs...)
}
