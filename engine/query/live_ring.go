package query

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
func (k LiveKind) String() string { return liveKinds[k] }

var liveKinds = [...]string{"", "row", "enter", "change", "leave", "current", "reset"}

// LiveEvent is one step of a live query's result.
type LiveEvent struct {
	Kind LiveKind
	LiveShown

	query  *liveQuery // nil of LiveReset
	number uint64     // of the event that comes next
	edge   string     // of the snapshot under way: the last row that was given out
}

// AppendCursor adds the cursor that resumes right after the event: letters,
// digits, and what JSON needs no escapes for. LiveReset has none.
func (e *LiveEvent) AppendCursor(b []byte) []byte {
	if e.query == nil {
		return b
	}
	return e.query.appendCursor(b, e.number, e.edge, e.edge != "")
}

// Cursor is what AppendCursor adds.
func (e *LiveEvent) Cursor() string { return string(e.AppendCursor(nil)) }

// liveEntry is an event in a ring. Many are told of and few are read, so it is
// no more than that.
type liveEntry struct {
	kind  LiveKind
	shown uint32 // in the Live's shownSet
}

// liveEntryBytes is about what a liveEntry takes, as rings grow.
const liveEntryBytes = 16

// liveRing holds the newest events of one query. Events have numbers; those
// before first are gone.
type liveRing struct {
	entries []liveEntry // around: the oldest stands at head
	head    int
	count   int
	first   uint64    // number of the oldest
	bytes   int       // with what other rings have, too
	shown   *shownSet // of all rings together, in which what they share counts once
}

// next is the number of the event that comes.
func (r *liveRing) next() uint64 { return r.first + uint64(r.count) }

// add appends an event and drops the oldest ones above the bounds.
func (r *liveRing) add(e liveEntry) {
	if r.count == liveRingEvents {
		for range liveRingDrop { // one by one would be one cache line after the other
			r.drop()
		}
	}
	if r.count == len(r.entries) {
		more := make([]liveEntry, max(16, 2*r.count))
		n := copy(more, r.entries[r.head:])
		copy(more[n:], r.entries[:r.head])
		r.entries, r.head = more, 0
	}
	r.entries[(r.head+r.count)&(len(r.entries)-1)] = e
	r.count++
	r.bytes += r.shown.hold(e.shown) + liveEntryBytes
	r.shown.bytes += liveEntryBytes
	r.trim(liveRingBytes)
}

// drop forgets the oldest event.
func (r *liveRing) drop() {
	r.shown.bytes -= liveEntryBytes
	r.bytes -= r.shown.release(r.entries[r.head].shown) + liveEntryBytes
	r.head = (r.head + 1) & (len(r.entries) - 1)
	r.count--
	r.first++
}

// trim drops the oldest events above a bound. The newest stays, however large it
// is.
func (r *liveRing) trim(bytes int) {
	for r.count > 1 && r.bytes > bytes {
		r.drop()
	}
}

// clear forgets all events; nobody adds one any more.
func (r *liveRing) clear() {
	for r.count > 0 {
		r.drop()
	}
	r.entries = nil
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
	at := (r.head + skip) & (len(r.entries) - 1)
	return r.entries[at : at+min(n, r.count-skip, len(r.entries)-at)], true
}

const (
	liveRingEvents = 16 << 10 // of one query; a power of two, as all sizes of a ring are
	liveRingDrop   = 128      // go at once
	liveRingBytes  = 16 << 20 // of one query, at most
	liveRingLeast  = 64 << 10 // of one query, however many there are
)
