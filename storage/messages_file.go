package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// A file of the message log begins with messageFileHeader bytes: magic, position of the first
// record, CRC-32C of both, zeros. Records follow without gaps:
//
//	[0:4] body length  [4:8] CRC-32C of all but these 4 bytes  [8:16] position  [16:24] time,
//	Unix ns  [24:32] the position up to which everything was durable when this was written
//
// The last field tells a torn tail from damage: behind a record that cannot be read, one that
// says that it had been durable proves that it was lost later.
const (
	messageMagic      = "MUSTERM1"
	messageFileHeader = 32
	messageRecord     = 32
	messageDir        = "messages"
)

func messageHeader(first uint64) []byte {
	h := make([]byte, messageFileHeader)
	copy(h, messageMagic)
	binary.LittleEndian.PutUint64(h[8:], first)
	binary.LittleEndian.PutUint32(h[16:], crc32.Checksum(h[:16], castagnoli))
	return h
}

func appendMessage(b []byte, position uint64, at int64, durable uint64, data []byte) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, position)
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint64(b, durable)
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b[from+4:], messageSum(b[from:]))
	return b
}

func messageSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, b[8:])
}

// decodeMessage reads the record at the beginning of b; ok is false when there is none that is
// whole. The entry's data aliases b.
func decodeMessage(b []byte) (e Entry, durable uint64, size int, ok bool) {
	if len(b) < messageRecord {
		return Entry{}, 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxValue || int(n) > len(b)-messageRecord {
		return Entry{}, 0, 0, false
	}
	size = messageRecord + int(n)
	if binary.LittleEndian.Uint32(b[4:]) != messageSum(b[:size]) {
		return Entry{}, 0, 0, false
	}
	e = Entry{
		Position: binary.LittleEndian.Uint64(b[8:]),
		Time:     time.Unix(0, int64(binary.LittleEndian.Uint64(b[16:]))).UTC(),
		Data:     b[messageRecord:size],
	}
	return e, binary.LittleEndian.Uint64(b[24:]), size, true
}

// messageScan reads records one after another from an offset to end.
type messageScan struct {
	file    file
	offset  int64 // of the next record
	end     int64
	buf     []byte // bytes from offset on
	durable uint64 // of the newest record
}

// next returns the next record; ok is false at the end and at what is not whole.
func (s *messageScan) next() (e Entry, ok bool, err error) {
	e, durable, size, ok := decodeMessage(s.buf)
	if !ok && s.offset+int64(len(s.buf)) < s.end {
		want := int64(256 << 10)
		if len(s.buf) >= messageRecord {
			want = max(want, messageRecord+int64(min(binary.LittleEndian.Uint32(s.buf), maxValue)))
		}
		b := make([]byte, min(want, s.end-s.offset))
		n, err := s.file.ReadAt(b, s.offset)
		if err != nil && err != io.EOF {
			return Entry{}, false, err
		}
		s.buf = b[:n]
		if e, durable, size, ok = decodeMessage(s.buf); !ok && n >= messageRecord {
			if more := messageRecord + int64(min(binary.LittleEndian.Uint32(b), maxValue)); more > int64(n) && more <= s.end-s.offset {
				s.buf = make([]byte, more)
				if n, err = s.file.ReadAt(s.buf, s.offset); err != nil && err != io.EOF {
					return Entry{}, false, err
				}
				s.buf = s.buf[:n]
				e, durable, size, ok = decodeMessage(s.buf)
			}
		}
	}
	if !ok {
		return Entry{}, false, nil
	}
	s.buf, s.offset, s.durable = s.buf[size:], s.offset+int64(size), durable
	return e, true, nil
}

// openMessages reads the names of the segments and all of the newest one, whose torn tail it cuts.
func openMessages(db *DB, m mode) (l *MessageLog, err error) {
	l = &MessageLog{db: db, dir: db.path(messageDir), kick: make(chan struct{}, 1), pending: pending{born: time.Now()}}
	if err := db.fs.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := db.fs.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var first uint64
		if strings.HasSuffix(e.Name(), ".tmp") { // a segment that was never finished
			if err := db.fs.Remove(l.dir + "/" + e.Name()); err != nil {
				return nil, err
			}
		} else if _, err := fmt.Sscanf(e.Name(), "%020d.log", &first); err == nil && l.path(first) == l.dir+"/"+e.Name() {
			info, err := e.Info()
			if err != nil {
				return nil, err
			}
			l.segments = append(l.segments, &messageSegment{first: first, size: info.Size(), latest: info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(l.segments, func(a, b *messageSegment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	if m.repair {
		if err := l.mendOlder(m); err != nil {
			return l, err
		}
	}
	if n := len(l.segments); n > 0 {
		err = l.openNewest(l.segments[n-1], m)
	}
	return l, err
}

func (l *MessageLog) openNewest(s *messageSegment, m mode) error {
	name := l.path(s.first)
	f, err := l.db.fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l.active = f
	l.last = s.first - 1
	scan, err := l.scanSegment(f, s)
	if err == nil {
		err = l.readNewest(f, s, scan)
	}
	if m.repair && errors.Is(err, ErrCorrupt) {
		l.active = nil
		if err := f.Close(); err != nil {
			return err
		}
		return l.mendNewest(m, s)
	}
	return err
}

// readNewest learns times and marks, and cuts the torn tail.
func (l *MessageLog) readNewest(f file, s *messageSegment, scan *messageScan) error {
	mark := int64(0)
	for {
		at := scan.offset
		e, ok, err := scan.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if e.Position != l.last+1 {
			return damage(l.path(s.first), at, "the record has position %d, %d is expected", e.Position, l.last+1)
		}
		if at >= mark {
			s.marks = append(s.marks, messageMark{e.Position, at})
			mark = at + messageMarkEvery
		}
		l.last, l.lastTime, s.latest = e.Position, e.Time.UnixNano(), e.Time.UnixNano()
		if s.begun == 0 {
			s.begun = s.latest
		}
	}
	if scan.offset == s.size {
		return nil
	}
	rest := make([]byte, s.size-scan.offset)
	if _, err := f.ReadAt(rest, scan.offset); err != nil && err != io.EOF {
		return err
	}
	for i := 1; i+messageRecord <= len(rest); i++ {
		if p := binary.LittleEndian.Uint64(rest[i+8:]); p <= l.last || p > l.last+uint64(len(rest)) {
			continue
		}
		if e, durable, _, ok := decodeMessage(rest[i:]); ok && durable > l.last {
			return damage(l.path(s.first), scan.offset, "the record %d cannot be read, yet record %d behind it says that it was durable", l.last+1, e.Position)
		}
	}
	if len(bytes.Trim(rest, "\x00")) > 0 {
		l.db.opt.Logger.Info("cut the torn tail of the message log", "file", l.path(s.first), "offset", scan.offset, "bytes", len(rest))
	}
	if err := f.Truncate(scan.offset); err != nil {
		return err
	}
	s.size = scan.offset
	return f.Datasync()
}

// scanSegment checks the header and returns a scan from the first record on.
func (l *MessageLog) scanSegment(f file, s *messageSegment) (*messageScan, error) {
	h := make([]byte, messageFileHeader)
	if _, err := f.ReadAt(h, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if !bytes.Equal(h, messageHeader(s.first)) {
		return nil, damage(l.path(s.first), 0, "the header is not that of a message segment beginning at %d", s.first)
	}
	return &messageScan{file: f, offset: messageFileHeader, end: s.size}, nil
}

// Read yields the durable messages after a position, oldest first, up to the newest at the time
// of the call; it begins at First when after is older. A damaged record ends it with ErrCorrupt.
// The data of an entry may be kept.
func (l *MessageLog) Read(after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if after == math.MaxUint64 {
			return
		}
		l.mu.Lock()
		segments := make([]messageSegment, len(l.segments))
		for i, s := range l.segments {
			segments[i] = *s
		}
		last := l.last
		l.mu.Unlock()
		for i := range segments {
			if i+1 < len(segments) && segments[i+1].first <= after+1 {
				continue
			}
			if !l.readSegment(&segments[i], after, yield) || segments[i].first > last {
				return
			}
		}
	}
}

func (l *MessageLog) readSegment(s *messageSegment, after uint64, yield func(Entry, error) bool) bool {
	f, err := l.db.fs.OpenFile(l.path(s.first), os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return true // retention took it meanwhile
	}
	if err != nil {
		yield(Entry{}, err)
		return false
	}
	defer f.Close() // read only
	return l.readFile(f, s, after, yield)
}

func (l *MessageLog) readFile(f file, s *messageSegment, after uint64, yield func(Entry, error) bool) bool {
	scan, err := l.scanSegment(f, s)
	if err != nil {
		yield(Entry{}, err)
		return false
	}
	position, mark := s.first, int64(0)
	for _, m := range s.marks {
		if m.position <= after+1 {
			position, scan.offset = m.position, m.offset
		}
		mark = m.offset + messageMarkEvery
	}
	var passed []messageMark
	defer func() { l.remember(s, passed) }()
	for scan.offset < s.size {
		at := scan.offset
		e, ok, err := scan.next()
		if err == nil && (!ok || e.Position != position) {
			err = damage(l.path(s.first), at, "message %d cannot be read", position)
		}
		if err != nil {
			if errors.Is(err, ErrCorrupt) {
				l.db.raise(err) // whoever reads next comes to it, too
			}
			yield(Entry{Position: position}, err)
			return false
		}
		if at >= mark {
			passed = append(passed, messageMark{position, at})
			mark = at + messageMarkEvery
		}
		if position++; e.Position <= after {
			continue
		}
		e.Data = bytes.Clone(e.Data)
		if !yield(e, nil) {
			return false
		}
	}
	return true
}

// remember keeps the marks that a reader of s has passed and that were not known: those of
// segments that were there when the store was opened. Else each page of a reader who resumes would
// begin at the segment's front.
func (l *MessageLog) remember(s *messageSegment, passed []messageMark) {
	if len(passed) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, has := range l.segments[:max(len(l.segments)-1, 0)] { // the newest one's are the writer's
		if has.first == s.first && len(has.marks) == len(s.marks) {
			has.marks = append(slices.Clip(has.marks), passed...)
		}
	}
}

// verify reads every message for Verify.
func (l *MessageLog) verify(ctx context.Context, r *Report) error {
	expected := l.First()
	for e, err := range l.Read(0) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.problem(err)
			return nil
		}
		if e.Position != expected {
			// A repair leaves the damaged file beside the gap that it made.
			aside, err := exists(l.db.fs, l.path(expected)+".damaged")
			if err != nil {
				return err
			}
			if aside {
				expected = e.Position
			}
		}
		if e.Position != expected {
			r.problem(fmt.Errorf("%w: messages %d to %d are missing", ErrCorrupt, expected, e.Position-1))
		}
		expected = e.Position + 1
		r.Logs++
		r.Bytes += int64(len(e.Data))
	}
	return nil
}
