package query

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// liveQuery is a distinct query with its result. mu of its Live guards it.
type liveQuery struct {
	hash       string // of its text
	number     uint64 // of all that were made
	cursor     string // what its cursors begin with
	where      *program
	timed      []timedPath
	reads      []Path // of the condition
	guard      *guard // nil when it has none
	projection *projection

	slot    int    // whose bits say which rows it selects
	built   uint32 // rows below were evaluated
	whole   bool   // all were; later ones are as they come
	pending map[uint32]pendingRow

	ring    liveRing
	page    *livePage     // the newest one that readers share; nil when all have taken it
	moved   chan struct{} // closed when there is more; nil while nobody waits
	dirty   bool
	fresh   int       // events since its readers were woken
	woken   time.Time // when that was
	readers int
	idle    time.Time // since when there are none
	err     error     // why it can't go on

	// Of the change that is looked at:
	mark    uint64
	compare bool   // what is shown may have changed
	certain bool   // it has
	turned  bool   // its condition may have turned out differently
	before  []byte // what was shown
	partly  bool   // and that it was not all
}

// LiveError says that a live query can't go on, or begin: a path has no column.
type LiveError struct{ Path Path }

// Error says what is missing, and what to do.
func (e *LiveError) Error() string {
	return "the path " + e.Path.String() + " has no column, so changes of it can't be followed: it is kept in documents only, or the columns' memory is used up"
}

// forget cancels what a row waits for.
func (q *liveQuery) forget(n uint32) { delete(q.pending, n) }

// takes reports whether a row still waits for what came due.
func (q *liveQuery) takes(d dueRow) bool {
	if !d.stands() || q.err != nil {
		return false
	}
	delete(q.pending, d.n)
	return true
}

// hashOf names a query in cursors. Bare and SQL forms of one are two.
func hashOf(q *Query) string {
	sum := sha256.Sum256([]byte(q.source.String() + "\x00" + q.text))
	return hex.EncodeToString(sum[:8])
}

// join finds the query's evaluation or begins one.
func (l *Live) join(query *Query) (*liveQuery, error) {
	hash := hashOf(query)
	if q := l.queries[hash]; q != nil && q.err == nil {
		return q, nil
	} else if q != nil {
		l.drop(q)
	}
	err := CheckLive(query)
	if err != nil {
		return nil, err
	}
	q := &liveQuery{hash: hash, timed: timedPaths(query.where), ring: liveRing{first: 1, shown: &l.shown}, idle: l.now, pending: map[uint32]pendingRow{}}
	if query.where != nil {
		if q.where, err = compile(query.where); err != nil {
			return nil, err
		}
		q.reads, q.guard = paths(query.where), guardOf(query.where)
	}
	if p := l.missing(query, q.reads); p != nil {
		return nil, &LiveError{p}
	}
	if len(l.queries) >= l.options.Queries && !l.dropIdle() {
		return nil, ErrLiveFull
	}
	l.members.join(q)
	l.made++
	q.number = l.made
	q.cursor = l.cursorOf(q)
	l.project(q, query)
	for _, p := range q.reads {
		l.index.add(p, pathUse{query: q}, query.where)
	}
	l.queries[hash] = q
	return q, nil
}

// missing returns a path of a query that columns can't tell; nil when there is
// none.
func (l *Live) missing(q *Query, reads []Path) Path {
	rows, release := l.table.look()
	defer release()
	for _, p := range reads {
		if !rows.holds(p) {
			return p
		}
	}
	for _, it := range q.items {
		if !rows.holds(it.path) {
			return it.path
		}
	}
	return nil
}

// dropIdle forgets the query that has had no reader for the longest time.
func (l *Live) dropIdle() bool {
	var oldest *liveQuery
	for _, q := range l.queries {
		if q.readers == 0 && (oldest == nil || q.idle.Before(oldest.idle)) {
			oldest = q
		}
	}
	if oldest != nil {
		l.drop(oldest)
	}
	return oldest != nil
}

// drop forgets a query. Its readers, if any, keep what they hold of it.
func (l *Live) drop(q *liveQuery) {
	for _, p := range q.reads {
		l.index.remove(p, pathUse{query: q})
	}
	shared := q.projection
	shared.queries.remove(q.slot)
	l.members.leave(q)
	if shared.queries.empty() {
		for _, p := range shared.paths {
			l.index.remove(p, pathUse{projection: shared})
		}
		delete(l.projections, shared.key)
	}
	clear(q.pending)
	q.ring.clear()
	l.due.tidy()
	delete(l.queries, q.hash)
	l.bound()
}

// build evaluates some more of the rows that were there before the query.
func (l *Live) build(q *liveQuery) {
	rows, release := l.table.look()
	defer release()
	end := rows.ordinals()
	for to := min(end, q.built+uint32(l.pace.build)); q.built < to && q.err == nil; q.built++ {
		l.turn++
		_, ok := rows.id(q.built)
		l.members.put(q, q.built, ok && l.selects(rows, q, q.built))
	}
	q.whole = q.built >= end
}

// projection is what queries show of a row. Those that show the same share it,
// and what is rendered for a row.
type projection struct {
	key     string
	queries slotSet
	items   []item   // nil: all of the row
	quiet   []string // root attributes that all does not mean
	paths   []Path
	places  []cellPlace // of items

	// Of the change that is looked at:
	mark    uint64
	certain bool // what is shown has changed

	turn    uint64 // when text was made
	text    []byte // good until another turn
	missing Path   // an item that the columns could not tell
	partly  bool   // the row may have more than is shown

	told  uint64 // when shown was made
	shown uint32
}

// project gives a query its projection.
func (l *Live) project(of *liveQuery, q *Query) {
	var b strings.Builder
	for _, it := range q.items {
		b.WriteString(it.key)
		b.WriteByte(0)
		for _, key := range it.path {
			b.WriteString(key)
			b.WriteByte(0)
		}
		b.WriteByte(0)
	}
	if q.star {
		b.Reset() // all, which no list of items is
	}
	p := l.projections[b.String()]
	if p == nil {
		p = &projection{key: b.String(), paths: []Path{{}}, quiet: l.options.Quiet}
		if !q.star {
			p.items, p.paths, p.places = q.items, nil, make([]cellPlace, len(q.items))
			for _, it := range q.items {
				p.paths = append(p.paths, it.path)
			}
		}
		l.projections[p.key] = p
		for _, path := range p.paths {
			l.index.add(path, pathUse{projection: p}, nil)
		}
	}
	p.queries.add(of.slot)
	of.projection = p
}

// render returns what is shown of a row, as a JSON object. The same turn means
// the same row in the same state. All of a row is what the columns hold of it,
// without what is quiet.
func (p *projection) render(rows liveRows, n uint32, turn uint64) []byte {
	if p.turn == turn {
		return p.text
	}
	p.turn, p.missing, p.partly = turn, nil, false
	b := p.text[:0]
	if p.items == nil {
		v, all := rows.whole(n, nil)
		p.partly = !all
		v.members = slices.DeleteFunc(v.members, func(m Member) bool { return slices.Contains(p.quiet, m.Key) })
		p.text = v.AppendJSON(b)
		return p.text
	}
	b = append(b, '{')
	for i := range p.items {
		it := &p.items[i]
		v, ok := rows.value(n, it.path, &p.places[i])
		if !ok {
			p.missing = it.path
		}
		if v.kind == Object {
			var all bool
			v, all = rows.whole(n, it.path)
			p.partly = p.partly || !all
		}
		if v.kind == Undefined {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(twin.AppendString(b, it.key), ':')
		b = v.AppendJSON(b)
	}
	p.text = append(b, '}')
	return p.text
}

// liveRow is a row as conditions read it. What was looked up is remembered,
// for the next query that reads the same.
type liveRow struct {
	rows    liveRows
	n       uint32
	turn    uint64
	seen    []Field
	missing Path // that the columns could not tell
}

// Value returns what the row has at a path.
func (r *liveRow) Value(p Path) Value {
	for i := range r.seen {
		if samePath(r.seen[i].Path, p) {
			return r.seen[i].Value
		}
	}
	v, ok := r.rows.value(r.n, p, nil)
	if !ok {
		r.missing = p
		return v
	}
	if v.kind == Object {
		v, _ = r.rows.whole(r.n, p) // no condition depends on what an object has
	}
	if len(r.seen) < liveSeen {
		r.seen = append(r.seen, Field{p, v})
	}
	return v
}

// liveSeen is how many paths a liveRow remembers: finding one among many is not
// quicker than looking it up.
const liveSeen = 16
