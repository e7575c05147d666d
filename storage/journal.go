package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// The journal is a pool of segment files of one size, written with zeros when made, then used
// again and again. A segment begins with a header (one page) that names the epoch and the first
// sequence of its present use; records follow at multiples of recordAlign. A record is one
// group of transactions:
//
//	[0:4] magic  [4:8] body length  [8:16] sequence  [16:24] time, Unix ns  [24:28] CRC-32C of
//	[4:24] and the body  [28:32] zero  [32:] body
//
// The body is a list of operations: a kind byte, the key's length and bytes, and for a set the
// value's length and bytes (lengths as unsigned varints).
const (
	segmentMagic  = "MUSTERJ1"
	segmentHeader = 4096
	recordMagic   = 0x4A52534D // "MSRJ"
	recordHeader  = 32
	recordAlign   = 64

	opSet    = 1
	opDelete = 2
)

// op is one operation of a record. Its slices alias the record.
type op struct {
	key, value []byte // value is nil for a delete
}

func appendOp(b, key, value []byte) []byte {
	if value == nil {
		b = append(b, opDelete)
		b = binary.AppendUvarint(b, uint64(len(key)))
		return append(b, key...)
	}
	b = append(b, opSet)
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// decodeOps splits a body. It is called only after the checksum matched, yet trusts nothing.
func decodeOps(b []byte) ([]op, error) {
	var ops []op
	text := func() ([]byte, error) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, fmt.Errorf("%w: a length in a journal record is out of bounds", ErrCorrupt)
		}
		t := b[w : w+int(n) : w+int(n)]
		b = b[w+int(n):]
		return t, nil
	}
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		if kind != opSet && kind != opDelete {
			return nil, fmt.Errorf("%w: unknown operation %d in a journal record", ErrCorrupt, kind)
		}
		key, err := text()
		if err != nil {
			return nil, err
		}
		if len(key) == 0 {
			return nil, fmt.Errorf("%w: an empty key in a journal record", ErrCorrupt)
		}
		o := op{key: key}
		if kind == opSet {
			if o.value, err = text(); err != nil {
				return nil, err
			}
		}
		ops = append(ops, o)
	}
	return ops, nil
}

// sealRecord fills in the header of a record whose body begins at b[recordHeader], and pads it.
func sealRecord(b []byte, seq uint64, at int64) []byte {
	body := len(b) - recordHeader
	binary.LittleEndian.PutUint32(b[0:], recordMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(body))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint64(b[16:], uint64(at))
	binary.LittleEndian.PutUint32(b[24:], recordSum(b))
	binary.LittleEndian.PutUint32(b[28:], 0)
	for len(b)%recordAlign != 0 {
		b = append(b, 0)
	}
	return b
}

func recordSum(b []byte) uint32 {
	n := binary.LittleEndian.Uint32(b[4:])
	sum := crc32.Update(0, castagnoli, b[4:24])
	return crc32.Update(sum, castagnoli, b[recordHeader:recordHeader+int(n)])
}

// record is a decoded journal record.
type record struct {
	seq  uint64
	time int64
	body []byte
	size int // with header and padding
}

// decodeRecord reads the record at the beginning of b. ok is false when there is none that is
// whole; sequence numbers are not judged here.
func decodeRecord(b []byte) (r record, ok bool) {
	if len(b) < recordHeader || binary.LittleEndian.Uint32(b) != recordMagic {
		return record{}, false
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n > int64(len(b)-recordHeader) || binary.LittleEndian.Uint32(b[24:]) != recordSum(b) {
		return record{}, false
	}
	size := recordHeader + int(n)
	if rest := size % recordAlign; rest != 0 {
		size += recordAlign - rest
	}
	return record{
		seq:  binary.LittleEndian.Uint64(b[8:]),
		time: int64(binary.LittleEndian.Uint64(b[16:])),
		body: b[recordHeader : recordHeader+int(n)],
		size: min(size, len(b)),
	}, true
}

// segment is one file of the pool.
type segment struct {
	name  string
	file  file
	first uint64 // first sequence of its present use; 0: never used
	last  uint64 // newest sequence written to it
	bad   string // why its header cannot be used; "" when it can
}

// journal writes records. append is called by one goroutine; the pool is shared with the
// checkpoints, which recycle segments, and is guarded by mu.
type journal struct {
	fs    fsys
	dir   string
	epoch [16]byte
	size  int64
	most  int

	mu     sync.Mutex
	all    []*segment
	free   []*segment
	full   []*segment    // in the order of their sequences; no longer written to
	freed  chan struct{} // capacity 1: a segment became free
	lastID int

	active *segment
	pos    int64
	page   []byte // a segment header and the record behind it
}

func (j *journal) path(name string) string { return filepath.Join(j.dir, name) }

// openJournal reads the headers of the pool. Missing names are those that the checkpoint lists.
func openJournal(fs fsys, dir string, epoch [16]byte, t tuning) (*journal, error) {
	j := &journal{fs: fs, dir: dir, epoch: epoch, size: t.segmentSize, most: t.segments, freed: make(chan struct{}, 1)}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".tmp") { // a segment that was never finished
			if err := fs.Remove(j.path(name)); err != nil {
				return nil, err
			}
			continue
		}
		var id int
		if _, err := fmt.Sscanf(name, "%d.seg", &id); err != nil || name != segmentName(id) {
			continue
		}
		f, err := fs.OpenFile(j.path(name), os.O_RDWR, 0)
		if err != nil {
			return nil, errors.Join(err, j.close())
		}
		s := &segment{name: name, file: f}
		j.all = append(j.all, s)
		j.lastID = max(j.lastID, id)
		if err := j.readHeader(s); err != nil {
			return nil, errors.Join(err, j.close())
		}
	}
	return j, nil
}

func segmentName(id int) string { return fmt.Sprintf("%06d.seg", id) }

func (j *journal) readHeader(s *segment) error {
	var h [64]byte
	n, err := s.file.ReadAt(h[:], 0)
	if err != nil && err != io.EOF {
		return err
	}
	switch {
	case n < len(h):
		s.bad = fmt.Sprintf("the header has %d bytes, %d are expected", n, len(h))
	case h == [64]byte{}: // never used
	case string(h[:8]) != segmentMagic:
		s.bad = fmt.Sprintf("the header begins with %q, %q is expected", h[:8], segmentMagic)
	case binary.LittleEndian.Uint32(h[32:]) != crc32.Checksum(h[:32], castagnoli):
		s.bad = "the checksum of the header does not match"
	case [16]byte(h[16:32]) != j.epoch:
		s.bad = "the segment belongs to another data directory or epoch"
	default:
		s.first = binary.LittleEndian.Uint64(h[8:])
	}
	return nil
}

func (j *journal) header(first uint64) []byte {
	h := make([]byte, segmentHeader)
	copy(h, segmentMagic)
	binary.LittleEndian.PutUint64(h[8:], first)
	copy(h[16:], j.epoch[:])
	binary.LittleEndian.PutUint32(h[32:], crc32.Checksum(h[:32], castagnoli))
	return h
}

// grow adds a free segment: zeros under a temporary name, sync, rename, sync of the directory.
func (j *journal) grow() error {
	j.mu.Lock()
	j.lastID++
	name := segmentName(j.lastID)
	j.mu.Unlock()
	tmp := j.path(name + ".tmp")
	f, err := j.fs.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(j.size, 1<<20))
	for at := int64(0); at < j.size && err == nil; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), j.size-at)], at)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = j.fs.Rename(tmp, j.path(name))
	}
	if err == nil {
		err = j.fs.SyncDir(j.dir)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s := &segment{name: name, file: f}
	j.mu.Lock()
	j.all = append(j.all, s)
	j.free = append(j.free, s)
	j.mu.Unlock()
	j.wake()
	return nil
}

func (j *journal) wake() {
	select {
	case j.freed <- struct{}{}:
	default:
	}
}

// wants reports whether the pool should grow before a writer has to wait.
func (j *journal) wants() (grow, starved bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.free) == 0 && len(j.all) < j.most, len(j.free) == 0
}

// names lists the pool for the checkpoint record.
func (j *journal) names() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	names := make([]string, len(j.all))
	for i, s := range j.all {
		names[i] = s.name
	}
	slices.Sort(names)
	return names
}

// recycle frees the segments of which nothing above seq is left.
func (j *journal) recycle(seq uint64) {
	j.mu.Lock()
	n := 0
	for n < len(j.full) && j.full[n].last <= seq {
		n++
	}
	j.free = append(j.free, j.full[:n]...)
	j.full = slices.Delete(j.full, 0, n)
	j.mu.Unlock()
	if n > 0 {
		j.wake()
	}
}

// reset makes every segment free: a checkpoint covers all that they hold.
func (j *journal) reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.free = slices.Clone(j.all)
	j.full, j.active, j.pos = nil, nil, 0
}

// next takes a free segment; nil when there is none yet.
func (j *journal) next() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.free) == 0 {
		return nil
	}
	s := j.free[0]
	j.free = slices.Delete(j.free, 0, 1)
	if j.active != nil {
		j.full = append(j.full, j.active)
	}
	s.first, s.last, s.bad = 0, 0, ""
	j.active, j.pos = s, segmentHeader
	return s
}

// append writes one sealed record and syncs it. wait is called while no segment is free; an
// error of it ends the append with nothing written. written tells whether bytes may have
// reached the file when err is not nil.
func (j *journal) append(rec []byte, seq uint64, wait func(freed <-chan struct{}) error) (written bool, err error) {
	if j.active == nil || j.pos+int64(len(rec)) > j.size {
		for j.next() == nil {
			if err := wait(j.freed); err != nil {
				return false, err
			}
		}
	}
	s, at, b := j.active, j.pos, rec
	if s.first == 0 { // the header goes out in the same write as the first record
		j.page = append(append(j.page[:0], j.header(seq)...), rec...)
		at, b = 0, j.page
	}
	if _, err := s.file.WriteAt(b, at); err != nil {
		return true, err
	}
	if err := s.file.Datasync(); err != nil {
		return true, err
	}
	if s.first == 0 {
		s.first = seq
		if cap(j.page) > 1<<20 {
			j.page = nil
		}
	}
	j.mu.Lock()
	s.last = seq
	j.mu.Unlock()
	j.pos += int64(len(rec))
	return true, nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range j.all {
		errs = append(errs, s.file.Close())
	}
	j.all = nil
	return errors.Join(errs...)
}
