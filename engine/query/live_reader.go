package query

import (
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// LiveReader reads one live query, for one goroutine at a time. A reader that
// does not read holds up nobody: it is told to begin again when the events that
// it has not read are gone.
type LiveReader struct {
	live   *Live
	query  *liveQuery
	number uint64 // of the event that comes next

	// Of a snapshot under way: rows up to edge were given out, and are at
	// the reader as of event number; rows behind it are yet to come.
	sweeping bool
	edge     string
	reset    bool // LiveReset comes first

	batch LiveBatch // what Next returned
}

// livePage is events behind a snapshot for readers who are at the same place, as
// they are when they were woken together.
type livePage struct {
	batch  LiveBatch
	takers int // readers that have it, or had
	events []LiveEvent
}

// LiveBatch names what LiveReader.Next returned: readers of a query that got
// the same events together got the same name. The zero one is nobody else's.
type LiveBatch struct{ Query, From, To uint64 }

// ErrLiveFull says that as many distinct queries as allowed are being read.
var ErrLiveFull = errors.New("as many distinct live queries as allowed are being read")

// ErrLiveCursor says that a cursor was not given by a live query, or by another
// one.
var ErrLiveCursor = errors.New("the cursor is not one that this live query gave")

// Open begins to read a query, from a snapshot or right after the event whose
// cursor is given. The time is that of the newest Tell. Close must be called. Errors: *Error for a query that can't
// be followed, *LiveError, ErrLiveFull, ErrLiveCursor.
func (l *Live) Open(query *Query, cursor string) (*LiveReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, err := l.join(query)
	if err != nil {
		return nil, err
	}
	r := &LiveReader{live: l, query: q, sweeping: true}
	if cursor != "" {
		if err := r.resume(cursor); err != nil {
			return nil, err
		}
	}
	q.readers++
	return r, nil
}

// Close ends the reading.
func (r *LiveReader) Close() {
	r.live.mu.Lock()
	defer r.live.mu.Unlock()
	if r.query.readers--; r.query.readers == 0 {
		r.query.idle = r.live.now
		r.live.attend()
	}
}

// Cursor resumes after all that Next has returned. It is empty while only the
// one that Open was given would do: LiveReset is yet to come.
func (r *LiveReader) Cursor() string {
	if r.reset {
		return ""
	}
	return string(r.query.appendCursor(nil, r.number, r.edge, r.sweeping))
}

// Batch returns the name of what Next returned last.
func (r *LiveReader) Batch() LiveBatch { return r.batch }

// Next returns what comes next, at most about most events, without waiting. When
// there is nothing, more is closed as soon as there is; it may be closed
// already: then Next has to be called again at once, since it does no more
// than a little in one go. The list is made in the place of list, which may be
// nil, or, when there is a Batch, is one that other readers have, too. The error
// is a *LiveError.
func (r *LiveReader) Next(most int, list []LiveEvent) (_ []LiveEvent, more <-chan struct{}, err error) {
	l, q := r.live, r.query
	r.batch, list = LiveBatch{}, list[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.err != nil {
		return list, nil, q.err
	}
	if !q.whole {
		l.build(q)
		return list, l.ready, q.err
	}
	if r.reset {
		return r.begin(list), l.ready, nil
	}
	if r.sweeping && r.number == 0 {
		r.number = q.ring.next()
	}
	entries, held := q.ring.from(r.number, most)
	switch {
	case !held:
		l.lagged++
		return r.begin(list), l.ready, nil
	case r.sweeping:
		return r.sweep(entries, list), l.ready, nil
	case len(entries) > 0:
		return r.give(entries, list), l.ready, nil
	}
	if q.moved == nil {
		q.moved = make(chan struct{})
	}
	return list, q.moved, nil
}

// give lists events behind the snapshot, as far as a page holds them.
func (r *LiveReader) give(entries []liveEntry, list []LiveEvent) []LiveEvent {
	l, q := r.live, r.query
	p := q.page
	if p == nil || p.batch.From != r.number || p.batch.To > r.number+uint64(len(entries)) {
		n, bytes := 0, 0
		for ; n < len(entries); n++ {
			if bytes += int(l.shown.records[entries[n].shown].row); n > 0 && bytes > l.pace.bytes {
				break
			}
		}
		if p = nil; q.readers > 1 {
			p = &livePage{batch: LiveBatch{q.number, r.number, r.number + uint64(n)}}
			list, q.page = nil, p
		}
		list = slices.Grow(list, n)
		for i, e := range entries[:n] {
			list = append(list, LiveEvent{Kind: e.kind, LiveShown: l.shown.get(e.shown), query: q, number: r.number + uint64(i) + 1})
		}
		if p == nil {
			r.number += uint64(n)
			return list
		}
		p.events = list
	}
	if p.takers++; p.takers >= q.readers {
		q.page = nil
	}
	r.batch, r.number = p.batch, p.batch.To
	return p.events
}

// livePart is how many rows are looked at before it is seen whether a page is
// full.
const livePart = 32

// begin lists a LiveReset and begins a snapshot.
func (r *LiveReader) begin(list []LiveEvent) []LiveEvent {
	r.number, r.sweeping, r.edge, r.reset = 0, true, "", false
	return append(list, LiveEvent{Kind: LiveReset, LiveShown: r.live.show("", nil, false)})
}

// sweep lists a part of a snapshot: the events of rows that were given out
// already, and when there are no more, the next rows as they are now.
func (r *LiveReader) sweep(entries []liveEntry, list []LiveEvent) []LiveEvent {
	l, q := r.live, r.query
	bytes := 0
	for _, e := range entries {
		if bytes > l.pace.bytes {
			break
		}
		r.number++
		if shown := l.shown.get(e.shown); shown.ID() <= r.edge { // else the row is yet to come
			list = append(list, r.event(e.kind, shown))
			bytes += int(shown.row)
		}
	}
	if r.number < q.ring.next() {
		return list
	}
	rows, release := l.table.look()
	defer release()
	more := true
	part := min(l.pace.page, livePart)
	for left := l.pace.scan; more && left > 0 && len(list) < l.pace.page && bytes <= l.pace.bytes; left -= part {
		more = rows.after(r.edge, part, func(id string, n uint32) {
			r.edge = id
			if !l.members.has(q, n) {
				return
			}
			l.turn++
			row := q.projection.render(rows, n, l.turn)
			if q.projection.missing != nil {
				l.fail(q, q.projection.missing)
			}
			bytes += len(row)
			list = append(list, r.event(LiveRow, l.show(id, row, q.projection.partly)))
		})
	}
	if !more {
		r.sweeping, r.edge = false, ""
		list = append(list, r.event(LiveCurrent, l.show("", nil, false)))
	}
	return list
}

// event is one after which the reader is where it is now.
func (r *LiveReader) event(kind LiveKind, shown LiveShown) LiveEvent {
	return LiveEvent{kind, shown, r.query, r.number, r.edge}
}

// appendCursor names a place: what is before event number, and while a snapshot
// is under way the last row that was given out.
func (q *liveQuery) appendCursor(b []byte, number uint64, edge string, sweeping bool) []byte {
	b = strconv.AppendUint(append(b, q.cursor...), number, cursorBase)
	if sweeping {
		b = base64.RawURLEncoding.AppendEncode(append(b, '.'), []byte(edge))
	}
	return b
}

// cursorOf begins all cursors of a query.
func (l *Live) cursorOf(q *liveQuery) string {
	return l.options.Instance + "." + q.hash[:cursorHash] + "." + strconv.FormatUint(q.number, cursorBase) + "."
}

// Each event has its cursor, often twice: so it is short.
const (
	cursorBase = 32
	cursorHash = 8 // digits of the query's hash: whose cursor it is, of those of one client
)

// resume moves to a cursor. What it names may be gone: then LiveReset comes.
func (r *LiveReader) resume(cursor string) error {
	if len(cursor) > liveCursorBytes {
		return ErrLiveCursor
	}
	parts := strings.Split(cursor, ".")
	if len(parts) != 4 && len(parts) != 5 || parts[0] == "" {
		return ErrLiveCursor
	}
	made, err := strconv.ParseUint(parts[2], cursorBase, 64)
	number, err2 := strconv.ParseUint(parts[3], cursorBase, 64)
	if err != nil || err2 != nil || parts[1] != r.query.hash[:cursorHash] {
		return ErrLiveCursor
	}
	edge := ""
	if len(parts) == 5 {
		b, err := base64.RawURLEncoding.DecodeString(parts[4])
		if err != nil {
			return ErrLiveCursor
		}
		edge = string(b)
	}
	switch q := r.query; {
	case parts[0] != r.live.options.Instance, made != q.number:
		r.reset = true
	case number > q.ring.next():
		return ErrLiveCursor
	default:
		r.number, r.edge, r.sweeping = number, edge, len(parts) == 5
	}
	return nil
}

// liveCursorBytes is the longest cursor that is looked at.
const liveCursorBytes = 1024
