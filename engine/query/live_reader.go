package query

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
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

	list  []*LiveEvent // what Next returned, reused
	ends  []int        // reused
	batch LiveBatch    // of list
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
	return r.live.cursor(r.query, r.number, r.edge, r.sweeping)
}

// Batch returns the name of the list that Next returned last.
func (r *LiveReader) Batch() LiveBatch { return r.batch }

// Next returns what comes next, at most about most events, without waiting. When
// there is nothing, more is closed as soon as there is; it may be closed
// already: then Next has to be called again at once, since it does no more
// than a little in one go. The list, not the events, is reused by the next call.
// The error is a *LiveError.
func (r *LiveReader) Next(most int) (list []*LiveEvent, more <-chan struct{}, err error) {
	l, q := r.live, r.query
	clear(r.list)
	r.list, r.batch = r.list[:0], LiveBatch{}
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.err != nil {
		return nil, nil, q.err
	}
	if !q.whole {
		if l.build(q); q.err != nil {
			return nil, nil, q.err
		}
		return nil, l.ready, nil
	}
	if r.reset {
		r.begin()
		return r.list, l.ready, nil
	}
	if r.sweeping && r.number == 0 {
		r.number = q.ring.next()
	}
	events, held := q.ring.from(r.number, most)
	switch {
	case !held:
		l.lagged++
		r.begin()
		return r.list, l.ready, nil
	case !r.sweeping && len(events) > 0:
		r.give(events)
		return r.list, l.ready, nil
	case !r.sweeping:
		if q.moved == nil {
			q.moved = make(chan struct{})
		}
		return nil, q.moved, nil
	}
	r.sweep(events)
	return r.list, l.ready, nil
}

// give lists events behind the snapshot, as far as a page holds them. Those that
// nobody has taken before are made together, which costs less than one by one.
func (r *LiveReader) give(events []liveEntry) {
	l, q := r.live, r.query
	n, fresh, bytes := 0, 0, 0
	for ; n < len(events); n++ {
		if bytes += len(events[n].row); n > 0 && bytes > l.pace.bytes {
			break
		}
		if events[n].event == nil {
			fresh++
		}
	}
	r.batch = LiveBatch{q.number, r.number, r.number + uint64(n)}
	made, ends := make([]LiveEvent, 0, fresh), r.ends[:0]
	text := make([]byte, 0, 64*fresh)
	for i := range events[:n] {
		r.number++
		e := &events[i]
		if e.event == nil {
			made = append(made, LiveEvent{Kind: e.kind, ID: e.id, Row: e.row, Position: e.position, Time: time.Unix(0, e.time)})
			e.event = &made[len(made)-1]
			text = l.appendCursor(text, q, r.number, "", false)
			ends = append(ends, len(text))
		}
		r.list = append(r.list, e.event)
	}
	cursors, from := string(text), 0
	for i, end := range ends {
		made[i].Cursor = cursors[from:end]
		from = end
	}
	r.ends = ends
}

// livePart is how many rows are looked at before it is seen whether a page is
// full.
const livePart = 32

// begin lists a LiveReset and begins a snapshot.
func (r *LiveReader) begin() {
	r.number, r.sweeping, r.edge, r.reset = 0, true, "", false
	r.list = append(r.list, &LiveEvent{Kind: LiveReset, Position: r.live.position, Time: r.live.stamp})
}

// sweep lists a part of a snapshot: the events of rows that were given out
// already, and when there are no more, the next rows as they are now.
func (r *LiveReader) sweep(events []liveEntry) {
	l, q := r.live, r.query
	bytes := 0
	for i := range events {
		e := &events[i]
		if bytes > l.pace.bytes {
			break
		}
		r.number++
		if e.id <= r.edge { // else the row is yet to come
			r.list = append(r.list, e.tell(r.Cursor()))
			bytes += len(e.row)
		}
	}
	if r.number < q.ring.next() {
		return
	}
	rows, release := l.table.look()
	defer release()
	more := true
	part := min(l.pace.page, livePart)
	for left := l.pace.scan; more && left > 0 && len(r.list) < l.pace.page && bytes <= l.pace.bytes; left -= part {
		more = rows.after(r.edge, part, func(id string, n uint32) {
			r.edge = id
			if !q.members.has(n) {
				return
			}
			l.turn++
			row := q.projection.render(rows, n, l.turn)
			if q.projection.missing != nil {
				l.fail(q, q.projection.missing)
			}
			bytes += len(row)
			r.list = append(r.list, &LiveEvent{Kind: LiveRow, ID: id, Row: row, Position: l.position, Time: l.stamp, Cursor: r.Cursor()})
		})
	}
	if !more {
		r.sweeping, r.edge = false, ""
		r.list = append(r.list, &LiveEvent{Kind: LiveCurrent, Position: l.position, Time: l.stamp, Cursor: r.Cursor()})
	}
}

// tell makes an event for one reader.
func (e *liveEntry) tell(cursor string) *LiveEvent {
	return &LiveEvent{Kind: e.kind, ID: e.id, Row: e.row, Position: e.position, Time: time.Unix(0, e.time), Cursor: cursor}
}

// cursor names a place: what is before event number, and while a snapshot is
// under way the last row that was given out.
func (l *Live) cursor(q *liveQuery, number uint64, edge string, sweeping bool) string {
	return string(l.appendCursor(make([]byte, 0, len(l.options.Instance)+48+2*len(edge)), q, number, edge, sweeping))
}

func (l *Live) appendCursor(b []byte, q *liveQuery, number uint64, edge string, sweeping bool) []byte {
	b = append(append(b, l.options.Instance...), '.')
	b = append(append(b, q.hash...), '.')
	b = append(strconv.AppendUint(b, q.number, 36), '.')
	b = strconv.AppendUint(b, number, 36)
	if sweeping {
		b = base64.RawURLEncoding.AppendEncode(append(b, '.'), []byte(edge))
	}
	return b
}

// resume moves to a cursor. What it names may be gone: then LiveReset comes.
func (r *LiveReader) resume(cursor string) error {
	if len(cursor) > liveCursorBytes {
		return ErrLiveCursor
	}
	parts := strings.Split(cursor, ".")
	if len(parts) != 4 && len(parts) != 5 || parts[0] == "" {
		return ErrLiveCursor
	}
	made, err := strconv.ParseUint(parts[2], 36, 64)
	number, err2 := strconv.ParseUint(parts[3], 36, 64)
	if err != nil || err2 != nil || parts[1] != r.query.hash {
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
