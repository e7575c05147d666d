package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"time"
)

// Kept is what a program has computed from all records and would be long in computing again. It
// lies in a file beside them from one Close to the next Open, and may be lost at any time.
type Kept struct {
	// Version names the form of the content. What was kept in another one is not given back.
	Version string
	// Write writes the content; Close calls it when everything else is done, once. After an error
	// or a panic nothing is kept. nil: there is nothing to keep.
	Write func(w io.Writer) error
}

const (
	keptFile = "KEPT"
	keptHalf = ".tmp" // behind its name while it is written
	// The file begins with keptHead as FORMAT is written, filled up with spaces to so many bytes.
	keptHeadSize = 1024
	keptBuffer   = 1 << 20
)

// keptHead says of what the content was computed.
type keptHead struct {
	Version string `json:"version"`
	Bytes   int64  `json:"bytes"`
	Sum     string `json:"crc32c"`
	keptOf
}

// keptOf is one state of the records: a sequence alone may come again after a repair.
type keptOf struct {
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Newest   int64  `json:"newest"` // time of the newest commit, Unix ns
}

// forgetKept removes what was kept, for good.
func (db *DB) forgetKept() error {
	removed := false
	for _, name := range []string{keptFile, keptFile + keptHalf} {
		err := db.fs.Remove(db.path(name))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		removed = removed || err == nil
	}
	if !removed {
		return nil
	}
	return db.fs.SyncDir(db.opt.Dir)
}

func (db *DB) keptOf() keptOf {
	return keptOf{db.format.EpochID, db.visible.Load(), db.newest.Load()}
}

// keepWhat writes what Options.Kept has; db is closing, and nothing changes any more. After a
// callback has panicked the program may not know what was committed.
func (db *DB) keepWhat() {
	if db.opt.Kept.Write == nil || db.trouble.Load() != nil {
		return
	}
	began := time.Now()
	n, err := db.writeKept()
	if err != nil {
		db.opt.Logger.Info("nothing was kept for the next start, which will take longer", slog.Any("reason", err))
		return
	}
	db.opt.Logger.Debug("kept for the next start", slog.Int64("bytes", n), slog.Duration("took", time.Since(began)))
}

func (db *DB) writeKept() (n int64, err error) {
	name := db.path(keptFile)
	tmp := name + keptHalf
	f, err := db.fs.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	w := &keptWriter{db: db, file: f}
	if err = w.fill(db.opt.Kept.Write); err == nil {
		err = w.finish(keptHead{db.opt.Kept.Version, w.size, fmt.Sprintf("%08x", w.sum), db.keptOf()})
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = db.fs.Rename(tmp, name)
	}
	if err != nil {
		_ = db.fs.Remove(tmp)
	}
	return w.size, err
}

// keptWriter writes the content, as long as there is room that nothing more important needs.
type keptWriter struct {
	db   *DB
	file file
	size int64
	sum  uint32
}

func (w *keptWriter) fill(write func(w io.Writer) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("what was to be kept panicked: %v", p)
		}
	}()
	buffered := bufio.NewWriterSize(w, keptBuffer)
	if err := write(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

func (w *keptWriter) Write(b []byte) (int, error) {
	// The guard looks once a second; what was written since is taken off.
	free, err := w.db.space.look(time.Now())
	if err == nil && free-w.size-int64(len(b)) < w.db.space.reserve {
		err = fmt.Errorf("%w: %d MiB are free, %d MiB are reserved", ErrReserve, free>>20, w.db.space.reserve>>20)
	}
	if err != nil {
		return 0, err
	}
	n, err := w.file.WriteAt(b, keptHeadSize+w.size)
	w.size += int64(n)
	w.sum = crc32.Update(w.sum, castagnoli, b[:n])
	return n, err
}

func (w *keptWriter) finish(head keptHead) error {
	b, err := encodeText(head)
	if err != nil {
		return err
	}
	if len(b) > keptHeadSize {
		return fmt.Errorf("%w: the version %.40q... is too long", ErrTooLarge, head.Version)
	}
	b = append(b, bytes.Repeat([]byte(" "), keptHeadSize-len(b))...)
	if _, err := w.file.WriteAt(b, 0); err != nil {
		return err
	}
	return w.file.Datasync()
}

// Kept gives read what the last Close has kept in this version, if it was computed from what Open
// has found: not when the store was killed since, or repaired, or restored. What was committed since
// Open is not in it. It can be had once. Errors: ErrNotFound when there is nothing of the kind,
// ErrCorrupt when the file is damaged (nobody needs to do anything), ErrClosed, and read's.
func (db *DB) Kept(version string, read func(r *bufio.Reader) error) error {
	snap, err := db.newSnapshot() // Close waits for it
	if err != nil {
		return err
	}
	defer snap.end()
	name := db.path(keptFile)
	f, err := db.fs.OpenFile(name, os.O_RDONLY, 0)
	if os.IsNotExist(err) {
		return errors.Join(fmt.Errorf("%w: nothing was kept", ErrNotFound), db.forgetKept())
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	// It is of no use any more, whatever happens: should reading it kill the process, the next start
	// must not try again.
	if err := db.forgetKept(); err != nil {
		return err
	}
	head, err := readKeptHead(f, name)
	if err != nil {
		return err
	}
	if head.Version != version || head.keptOf != db.opened {
		return fmt.Errorf("%w: what was kept is of version %q and sequence %d, not %q and %d", ErrNotFound, head.Version, head.Sequence, version, db.opened.Sequence)
	}
	content := func() *bufio.Reader {
		return bufio.NewReaderSize(io.NewSectionReader(f, keptHeadSize, head.Bytes), keptBuffer)
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, content()); err != nil {
		return err
	}
	if got := fmt.Sprintf("%08x", sum.Sum32()); got != head.Sum {
		return fmt.Errorf("%w: %s: its checksum is %s, not %s; it is computed again", ErrCorrupt, name, got, head.Sum)
	}
	return read(content())
}

func readKeptHead(f file, name string) (head keptHead, err error) {
	b := make([]byte, keptHeadSize)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return head, err
	}
	return head, decodeText(name, bytes.TrimRight(b, " \x00"), &head, nil)
}
