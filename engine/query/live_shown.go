package query

import (
	endian "encoding/binary" // binary is an expression here
	"time"
)

// LiveShown is what events tell of a row at one moment. Queries that show the
// same of it share one. Its texts lie among others, and hold some 64 KiB: who keeps
// one for long keeps a copy.
type LiveShown struct {
	Position uint64 // of the newest commit when this was so
	time     int64  // when this was so, in nanoseconds since 1970
	text     string // the id, what LiveOptions.Text made, the row
	id, row  uint32 // lengths
}

// ID is that of the row; empty of LiveCurrent and LiveReset.
func (s *LiveShown) ID() string { return s.text[:s.id] }

// Row is a JSON object: what the query shows of the row; empty where it leaves.
func (s *LiveShown) Row() string { return s.text[len(s.text)-int(s.row):] }

// Text is what LiveOptions.Text made, and then the row.
func (s *LiveShown) Text() string { return s.text[s.id:] }

// Time is when this was so.
func (s *LiveShown) Time() time.Time { return time.Unix(0, s.time) }

// shownSet holds what the events in rings tell. These are the most that lives
// of what live queries allocate, so they stand where the collector looks at
// nothing: each is a number, a record without pointers, and a text in an arena.
type shownSet struct {
	records []shownRecord
	free    []uint32 // numbers that are not in use
	texts   arena
	used    int    // records in use
	bytes   int    // that they count for, and the entries of rings
	line    []byte // in which a text is made
}

type shownRecord struct {
	place    uint32
	held     uint32 // rings that have it; then its text is kept
	id, row  uint32
	line     uint32 // bytes of its text
	position uint64
	time     int64
}

// What a shownRecord takes beside its text, as lists grow; and how much more than
// what is in use texts may take before those are moved that are among few.
const (
	shownRecordBytes = 80
	shownSlack       = 1 << 20
)

// add keeps what is told until no ring has it. Its text is line, of which the
// first shownHead bytes are free.
func (s *shownSet) add(e *LiveShown, line []byte) (n uint32) {
	if k := len(s.free); k > 0 {
		n = s.free[k-1]
		s.free = s.free[:k-1]
	} else {
		n = uint32(len(s.records))
		s.records = append(s.records, shownRecord{})
	}
	s.used++
	endian.LittleEndian.PutUint32(line, n)
	s.records[n] = shownRecord{place: s.texts.addBytes(line), id: e.id, row: e.row, line: uint32(len(line)), position: e.Position, time: e.time}
	return n
}

// size is what it counts for: chunks of texts are compacted when half of them is
// unused.
func (r *shownRecord) size() int { return shownRecordBytes + 2*framed(int(r.line)) }

// shownHead is what stands before a text: the number of its record.
const shownHead = 4

// get returns what is told.
func (s *shownSet) get(n uint32) LiveShown {
	r := &s.records[n]
	return LiveShown{Position: r.position, time: r.time, text: s.texts.text(r.place)[shownHead:], id: r.id, row: r.row}
}

// hold notes that one more ring has it.
func (s *shownSet) hold(n uint32) (size int) {
	r := &s.records[n]
	size = r.size()
	if r.held++; r.held == 1 {
		s.bytes += size
	}
	return size
}

// release is the other end of hold.
func (s *shownSet) release(n uint32) (size int) {
	r := &s.records[n]
	size = r.size()
	if r.held--; r.held > 0 {
		return size
	}
	s.bytes -= size
	s.texts.removeOf(r.place, int(r.line))
	s.free = append(s.free, n)
	if s.used--; s.used == 0 {
		line := s.line
		*s = shownSet{bytes: s.bytes, line: line}
	}
	return size
}

// compact moves texts that few are left around, when what is unused takes more
// than what is in use.
func (s *shownSet) compact() {
	if len(s.texts.thin) == 0 || s.texts.bytes <= int64(s.bytes)+shownSlack {
		return
	}
	s.texts.compact(func(text string, place uint32) *uint32 {
		n := endian.LittleEndian.Uint32([]byte(text[:shownHead]))
		if int(n) >= len(s.records) || s.records[n].held == 0 || s.records[n].place != place {
			return nil
		}
		return &s.records[n].place
	})
}
