package query

import (
	"slices"
	"sync"
	"time"
)

// Live keeps the results of queries while the rows of columns change. Each
// distinct query is evaluated once, whoever reads it, and only when a change
// concerns a path that it reads. Safe for concurrent use.
//
// It has no clock and no goroutine: whoever owns it waits at Attention and
// calls Tell and Wake.
type Live struct {
	table     liveTable
	options   LiveOptions
	attention chan struct{} // capacity 1
	ready     chan struct{} // closed: what Next returns when it has more at once
	pace      livePace

	mu          sync.Mutex
	now         time.Time // for conditions: of the newest Tell; never goes back
	stamp       time.Time // of the newest commit or Tell
	position    uint64    // of the newest commit
	queries     map[string]*liveQuery
	made        uint64 // queries so far
	members     memberships
	index       pathIndex
	projections map[string]*projection
	due         dueHeap
	serial      uint64  // of rows in due so far
	tidyAt      int     // so many rows in due are tidied
	turn        uint64  // changes and rows looked at so far
	row         liveRow // that is evaluated
	held        heldValue
	touched     []*liveQuery
	changed     []*projection
	dirty       []*liveQuery // have events of which their readers don't know
	shown       shownSet     // what the events of all rings tell
	leave       uint32       // of the turn left, for all queries that the row leaves
	left        uint64
	lagged      int64
}

// livePace is how much is done in one go, while changes wait.
type livePace struct {
	build int // rows evaluated of a new query
	scan  int // rows looked at for a snapshot
	page  int // rows given out of one
	bytes int // of rows given out, about
}

// LiveOptions bound a Live. All must be given.
type LiveOptions struct {
	Queries int           // distinct queries
	Bytes   int64         // about, of the events that are kept, of all queries together
	Linger  time.Duration // how long a query that nobody reads is kept, so that readers can resume
	Quiet   []string      // root attributes that change often: SELECT * does not show them
	// Text adds what is to stand before the row where events are written, so that it
	// is made once whoever reads the event; row says what comes. None when it is nil.
	Text     func(b []byte, id string, position uint64, at time.Time, row LiveRowText) []byte
	Instance string // of this Live alone: cursors of others are answered with LiveReset; letters and digits
}

// LiveStats are figures of a Live.
type LiveStats struct {
	Queries int   // distinct ones
	Readers int   // of all of them
	Lagged  int64 // how often a reader was left behind and began again
}

// LiveRowText says of what an event tells whether a row comes, and which.
type LiveRowText uint8

// What may come.
const (
	NoRow      LiveRowText = iota
	WholeRow               // all that the query selects of it
	PartialRow             // it may have more: properties that got no column
)

// liveTable is what Live reads: the rows of Columns.
type liveTable interface {
	Apply(changes []Change)
	// look gives access to the rows until release is called; meanwhile they
	// don't change.
	look() (rows liveRows, release func())
}

// liveRows are rows by ordinal: a small number that is a row's own while the
// row exists, and may be another's afterwards.
type liveRows interface {
	ordinal(id string) (n uint32, ok bool)
	// id is the other way round; ok is false when no row has the ordinal.
	id(n uint32) (id string, ok bool)
	// ordinals is above all ordinals.
	ordinals() uint32
	// value returns what stands at a path, objects without members; ok is
	// false when the columns can't tell. What is found out of the path is kept in
	// place, for the next time; it may be nil.
	value(n uint32, p Path, place *cellPlace) (v Value, ok bool)
	// whole is value with all that is below the path; all of the row for an empty
	// one. all is false when there may be more, of which the columns can't tell.
	whole(n uint32, p Path) (v Value, all bool)
	// holds reports whether the columns can tell what stands at a path.
	holds(p Path) bool
	// after calls yield for the rows behind an id in order, at most n. more is
	// false when there are no others.
	after(id string, n int, yield func(id string, n uint32)) (more bool)
}

// NewLive returns live queries over columns. All changes must go through
// Live.Apply from then on.
func NewLive(c *Columns, o LiveOptions) *Live { return newLive(columnsTable{c, c.mu.RUnlock}, o) }

func newLive(t liveTable, o LiveOptions) *Live {
	l := &Live{
		table: t, options: o, attention: make(chan struct{}, 1), ready: make(chan struct{}), pace: livePace{build: 4 << 10, scan: 8 << 10, page: 256, bytes: 64 << 10},
		queries: map[string]*liveQuery{}, projections: map[string]*projection{},
	}
	close(l.ready)
	return l
}

// Stats returns the figures at the moment.
func (l *Live) Stats() LiveStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LiveStats{Queries: len(l.queries), Lagged: l.lagged}
	for _, q := range l.queries {
		s.Readers += q.readers
	}
	return s
}

// Apply hands changes to the columns (Columns.Apply says what they are) and
// tells what they do to the queries. position is that of the commit, 0 of
// changes between two of them; now is their time; one caller at a time, in commit order. What conditions take for the time
// only moves with Tell.
func (l *Live) Apply(position uint64, now time.Time, changes []Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.position, l.stamp = max(l.position, position), now
	if len(l.queries) == 0 {
		l.table.Apply(changes)
		return
	}
	for i := range changes {
		l.change(changes[i : i+1 : i+1])
	}
}

// change applies one change and tells what it does to the queries.
func (l *Live) change(one []Change) {
	c := &one[0]
	l.turn++
	l.touched = l.touched[:0]
	rows, release := l.table.look()
	n, known := rows.ordinal(c.ID)
	switch {
	case c.Gone && !known:
	case c.Gone:
		for _, q := range l.queries {
			q.forget(n)
			if l.members.has(q, n) {
				l.tell(q, LiveLeave, c.ID, nil)
			}
		}
		l.members.forget(n)
	case c.Replace || !known:
		for _, q := range l.queries {
			l.touch(q)
			q.compare, q.turned = true, true
		}
	default:
		l.touchFields(rows, n, c.Fields)
	}
	if known && !c.Gone {
		for _, q := range l.touched {
			if q.compare && !q.certain && l.members.has(q, n) {
				q.before = append(q.before[:0], q.projection.render(rows, n, l.turn)...)
				q.partly = q.projection.partly
			}
		}
	}
	release()

	id, gone, stays := c.ID, c.Gone, known && !c.Replace
	l.table.Apply(one)
	if gone || len(l.touched) == 0 {
		return
	}
	rows, release = l.table.look()
	defer release()
	if !stays {
		if n, known = rows.ordinal(id); !known {
			return
		}
	}
	l.turn++ // what was rendered before is no longer so
	for _, q := range l.touched {
		l.evaluate(rows, q, id, n)
	}
}

// touchFields finds the queries that the fields of a change concern.
func (l *Live) touchFields(rows liveRows, n uint32, fields []Field) {
	for i := range fields {
		f := &fields[i]
		spot := l.index.at(f.Path)
		if !spot.used() {
			continue
		}
		// What is below an object is not looked at here; it is compared as it
		// is shown.
		var place *cellPlace
		if spot.end != nil {
			place = &spot.end.place
		}
		old, ok := rows.value(n, f.Path, place)
		plain := ok && isPlain(old) && isPlain(f.Value)
		if plain && same(old, f.Value) {
			continue
		}
		var m *move
		if plain {
			m = &move{old, f.Value}
		}
		quiet := len(f.Path) > 0 && slices.Contains(l.options.Quiet, f.Path[0])
		spot.find(m, func(u pathUse, below bool) {
			p := u.projection
			switch {
			case p == nil:
				if !l.bars(u.query, f.Path, rows, n) {
					l.touch(u.query).turned = true
				}
				return
			case quiet && p.items == nil:
				return
			case p.mark != l.turn:
				p.mark, p.certain = l.turn, false
				l.changed = append(l.changed, p)
			}
			p.certain = p.certain || plain && !below
		})
	}
	// Many queries may show what changed, and few of them have the row.
	for _, p := range l.changed {
		l.members.each(p.queries, n, func(q *liveQuery) {
			l.touch(q)
			q.compare, q.certain = true, p.certain
		})
	}
	l.changed = l.changed[:0]
}

// bars reports whether a change of a path can't concern a query since the row is
// none of those that its guard lets in. What changes the guarded value itself
// touches the query by the guard's path.
func (l *Live) bars(q *liveQuery, changed Path, rows liveRows, n uint32) bool {
	g := q.guard
	if g == nil || related(changed, g.path) {
		return false
	}
	if h := &l.held; h.turn != l.turn || !samePath(h.path, g.path) {
		h.turn, h.path = l.turn, g.path
		h.value, h.known = rows.value(n, g.path, &g.place)
	}
	return l.held.known && !same(l.held.value, g.value)
}

// heldValue is what the row of a change had at a path before.
type heldValue struct {
	turn  uint64
	path  Path
	value Value
	known bool // the columns could tell
}

// touch lists a query among those that a change concerns.
func (l *Live) touch(q *liveQuery) *liveQuery {
	if q.mark != l.turn {
		q.mark, q.compare, q.certain, q.turned = l.turn, false, false, false
		l.touched = append(l.touched, q)
	}
	return q
}

// evaluate looks at a row that changed, and tells what it is to the query now.
func (l *Live) evaluate(rows liveRows, q *liveQuery, id string, n uint32) {
	if n >= q.built && !q.whole {
		return // build comes to it
	}
	was := l.members.has(q, n)
	is := was
	if q.turned {
		is = l.selects(rows, q, n)
	}
	if q.err != nil {
		return
	}
	if was && !is {
		l.members.put(q, n, false)
		l.tell(q, LiveLeave, id, nil)
	}
	if !is || was && !q.compare {
		return
	}
	row := q.projection.render(rows, n, l.turn)
	switch {
	case q.projection.missing != nil:
		l.fail(q, q.projection.missing)
	case !was:
		l.members.put(q, n, true)
		l.tell(q, LiveEnter, id, row)
	case q.certain || q.projection.partly || q.partly || string(row) != string(q.before): // in what is not shown nothing can be compared
		l.tell(q, LiveChange, id, row)
	}
}

// selects evaluates a query's condition on a row, and notes when time alone
// may change the outcome.
func (l *Live) selects(rows liveRows, q *liveQuery, n uint32) bool {
	v := &l.row
	if v.turn != l.turn {
		*v = liveRow{rows: rows, n: n, turn: l.turn, seen: v.seen[:0]}
	}
	v.missing = nil
	is := q.where == nil || q.where.eval(v, l.now).True()
	if len(q.timed) > 0 {
		l.expect(q, n, q.flips(v, l.now))
	}
	if v.missing != nil {
		l.fail(q, v.missing)
	}
	return is
}

// fail ends a query: the columns no longer tell what it asks about.
func (l *Live) fail(q *liveQuery, missing Path) {
	if q.err == nil {
		q.err = &LiveError{Path: missing}
		l.wake(q)
	}
}

// tell adds an event to a query's ring; row is nil when it leaves.
func (l *Live) tell(q *liveQuery, kind LiveKind, id string, row []byte) {
	if !q.whole {
		return // nobody has begun to read it
	}
	shown, turn := &q.projection.shown, &q.projection.told
	if row == nil {
		shown, turn = &l.leave, &l.left
	}
	if *turn != l.turn {
		line := l.line(id, row, q.projection.partly)
		*shown, *turn = l.shown.add(&LiveShown{Position: l.position, time: l.stamp.UnixNano(), id: uint32(len(id)), row: uint32(len(row))}, line), l.turn
	}
	q.ring.add(liveEntry{kind, *shown})
	l.bound()
	l.shown.compact()
	if q.fresh++; q.fresh == liveMany {
		l.attend()
	}
	l.wake(q)
}

// line is what is told of a row now, behind shownHead bytes; good until the next
// call.
func (l *Live) line(id string, row []byte, partly bool) []byte {
	b := append(append(l.shown.line[:0], make([]byte, shownHead)...), id...)
	if l.options.Text != nil {
		comes := WholeRow
		switch {
		case len(row) == 0:
			comes = NoRow
		case partly:
			comes = PartialRow
		}
		b = l.options.Text(b, id, l.position, l.stamp, comes)
	}
	b = append(b, row...)
	if cap(b) <= shownLineMost {
		l.shown.line = b
	}
	return b
}

// shownLineMost is the most room for a line that is kept for the next one.
const shownLineMost = 64 << 10

// show is what is told of a row now to one reader.
func (l *Live) show(id string, row []byte, partly bool) LiveShown {
	line := l.line(id, row, partly)
	return LiveShown{Position: l.position, time: l.stamp.UnixNano(), text: string(line[shownHead:]), id: uint32(len(id)), row: uint32(len(row))}
}

// room is how many bytes all rings may hold together.
func (l *Live) room() int { return max(int(l.options.Bytes), liveRingLeast*len(l.queries)) }

// bound makes room in the rings that hold more than their share, as each may
// while others need less.
func (l *Live) bound() {
	room := l.room()
	if l.shown.bytes <= room {
		return
	}
	share := room / max(1, len(l.queries))
	for _, q := range l.queries {
		if q.ring.bytes > share {
			q.ring.trim(share / 2) // more than need be, so that it is not done for each event
		}
		if l.shown.bytes < room/4*3 {
			return
		}
	}
}

const (
	liveMany     = 512 // events of a query are worth waking its readers for
	liveTogether = 8   // moments in the time to gather at which readers are woken
)

// wake says that a query has something to tell.
func (l *Live) wake(q *liveQuery) {
	if !q.dirty {
		q.dirty = true
		l.dirty = append(l.dirty, q)
		l.attend()
	}
}

func (l *Live) attend() {
	select {
	case l.attention <- struct{}{}:
	default:
	}
}

// Follows reports whether a query reads a path, or what is below or above it;
// SELECT * does not count.
func (l *Live) Follows(p Path) (yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index.at(p).find(nil, func(u pathUse, _ bool) { yes = yes || u.query != nil || u.projection.items != nil })
	return yes
}

// Attention is signalled when Tell and Wake are to be called: there are events,
// or the time of the next call has changed.
func (l *Live) Attention() <-chan struct{} { return l.attention }

// Tell does what time alone does, and forgets queries that nobody has read for
// long. It returns when it is to be called again at the latest; zero: when
// Attention says.
func (l *Live) Tell(now time.Time) (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	if len(l.due) > 0 {
		next = l.due[0].at
	}
	for _, q := range l.queries {
		if q.readers > 0 {
			continue
		}
		ends := q.idle.Add(l.options.Linger)
		if !ends.After(l.now) {
			l.drop(q)
		} else if next.IsZero() || ends.Before(next) {
			next = ends
		}
	}
	return next
}

// Wake wakes the readers of queries that have events: at once where the last
// time is as long ago as events are to gather, or where there are many. Each
// turn of a reader costs more than an event does, and a query of which little
// comes waits for nobody. Times to gather end at moments that are the same for all
// queries, for which an eighth of them is left out at most, so that many readers are
// woken together. It returns when it is to be called again at the latest; zero: when
// Attention says.
func (l *Live) Wake(now time.Time, gather time.Duration) (next time.Time) {
	l.mu.Lock()
	var moved []chan struct{}
	later, step := l.dirty[:0], gather/liveTogether
	for _, q := range l.dirty {
		if at := q.woken.Add(gather).Truncate(step); at.After(now) && q.fresh < liveMany && q.err == nil {
			later = append(later, q)
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		q.dirty, q.fresh, q.woken = false, 0, now
		if q.moved != nil {
			moved = append(moved, q.moved)
			q.moved = nil
		}
	}
	clear(l.dirty[len(later):])
	l.dirty = later
	l.mu.Unlock()
	for _, c := range moved { // each may have thousands of readers
		close(c)
	}
	return next
}

// advance moves time on, and looks at the rows that are due.
func (l *Live) advance(now time.Time) {
	if now.After(l.now) {
		l.now, l.stamp = now, now
	}
	if len(l.due) == 0 || l.due[0].at.After(l.now) {
		return
	}
	rows, release := l.table.look()
	defer release()
	for len(l.due) > 0 && !l.due[0].at.After(l.now) {
		d := l.due.pop()
		if !d.query.takes(d) {
			continue
		}
		if id, ok := rows.id(d.n); ok {
			l.turn++
			d.query.compare, d.query.turned = false, true
			l.evaluate(rows, d.query, id, d.n)
		}
	}
}

// expect notes when a row of a query is to be looked at again.
func (l *Live) expect(q *liveQuery, n uint32, at time.Time) {
	if at.IsZero() {
		q.forget(n)
		return
	}
	if pending, ok := q.pending[n]; ok && !pending.at.After(at) {
		return // then it is seen that it has to wait longer
	}
	l.serial++
	q.pending[n] = pendingRow{at, l.serial}
	first := len(l.due) == 0 || at.Before(l.due[0].at)
	l.due.push(dueRow{at, q, n, l.serial})
	if len(l.due) > l.tidyAt {
		// A device that takes its times back again and again must not fill memory.
		l.due.tidy()
		l.tidyAt = max(liveTidy, 2*len(l.due))
	}
	if first {
		l.attend()
	}
}

// liveTidy is how many rows in due are too few to be tidied.
const liveTidy = 1024

// isPlain reports whether a value is neither an object nor undefined: nothing is
// below it.
func isPlain(v Value) bool { return v.kind != Object && v.kind != Undefined }

// same reports whether two values are alike, as JSON; the order of members
// does not matter.
func same(a, b Value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case Bool, Number:
		return a.number == b.number
	case String:
		return a.text == b.text
	case Array:
		return slices.EqualFunc(a.items, b.items, same)
	case Object:
		return len(a.members) == len(b.members) && !slices.ContainsFunc(a.members, func(m Member) bool { return !same(m.Value, b.Member(m.Key)) })
	}
	return true
}
