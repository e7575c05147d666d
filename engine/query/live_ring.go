package query

import (
	"sync"
	"time"
)

// LiveKind says what a LiveEvent tells.
type LiveKind uint8

// The kinds of events. A reader gets a snapshot first: rows in order of id,
// and between them events of rows that it has got already; then LiveCurrent,
// and from there on events alone.
const (
	LiveRow     LiveKind = iota + 1 // of the snapshot
	LiveEnter                       // a row that is selected from now on
	LiveChange                      // a row that shows something else than before
	LiveLeave                       // a row that is selected no longer; it has no Row
	LiveCurrent                     // the snapshot is whole: this is the result at Position
	LiveReset                       // events are gone: forget all rows, a snapshot follows
)

// String returns the kind as events name it.
func (k LiveKind) String() string {
	return [...]string{"", "row", "enter", "change", "leave", "current", "reset"}[k]
}

// LiveEvent is one step of a live query's result. Readers share it: nobody
// changes one.
type LiveEvent struct {
	Kind     LiveKind
	ID       string    // of the row; empty of LiveCurrent and LiveReset
	Row      []byte    // a JSON object: what the query shows of the row
	Position uint64    // of the newest commit when this was so
	Time     time.Time // when this was so
	Cursor   string    // resumes right after it; empty of LiveReset

	once sync.Once
	made any
}

// Made returns what f makes of the event, which is done once for all readers
// who share it; f must always be the same.
func (e *LiveEvent) Made(f func(*LiveEvent) any) any {
	e.once.Do(func() { e.made = f(e) })
	return e.made
}

// liveEntry is an event in a ring. Many are told of and few are read, so its
// LiveEvent is made when the first reader takes it.
type liveEntry struct {
	kind     LiveKind
	id       string
	row      []byte
	position uint64
	time     int64 // nanoseconds since 1970
	event    *LiveEvent
}

// size is about what an event takes, with the forms that are made of it.
func (e *liveEntry) size() int { return 256 + 3*len(e.row) }

// liveRing holds the newest events of one query. Events have numbers; those
// before first are gone.
type liveRing struct {
	entries []liveEntry // around: the oldest stands at head
	head    int
	count   int
	first   uint64 // number of the oldest
	bytes   int
}

// next is the number of the event that comes.
func (r *liveRing) next() uint64 { return r.first + uint64(r.count) }

// add appends an event and drops the oldest ones above the bounds. The newest
// stays, however large it is.
func (r *liveRing) add(e liveEntry, bytes int) {
	if r.count == liveRingEvents {
		r.drop()
	}
	if r.count == len(r.entries) {
		more := make([]liveEntry, max(16, 2*r.count))
		n := copy(more, r.entries[r.head:])
		copy(more[n:], r.entries[:r.head])
		r.entries, r.head = more, 0
	}
	r.entries[(r.head+r.count)%len(r.entries)] = e
	r.count++
	r.bytes += e.size()
	for r.count > 1 && r.bytes > bytes {
		r.drop()
	}
}

// drop forgets the oldest event.
func (r *liveRing) drop() {
	old := &r.entries[r.head]
	r.bytes -= old.size()
	*old = liveEntry{}
	r.head = (r.head + 1) % len(r.entries)
	r.count--
	r.first++
}

// from returns events from a number on, at most n and not always all there are;
// held is false when they are gone. The list lives until add is called.
func (r *liveRing) from(number uint64, n int) (list []liveEntry, held bool) {
	if number < r.first {
		return nil, false
	}
	skip := int(number - r.first)
	if skip >= r.count {
		return nil, true
	}
	at := (r.head + skip) % len(r.entries)
	return r.entries[at : at+min(n, r.count-skip, len(r.entries)-at)], true
}

const (
	liveRingEvents = 16 << 10 // of one query; a power of two, so that no more is allocated
	liveRingBytes  = 16 << 20 // of one query, at most
	liveRingLeast  = 64 << 10 // of one query, however many there are
)
