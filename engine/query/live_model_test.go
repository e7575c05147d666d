package query

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// plainTable is a liveTable of whole documents: the model of Columns.
type plainTable struct {
	ids       []string // by ordinal; "" is free
	documents map[string]Value
}

func newPlainTable() *plainTable { return &plainTable{documents: map[string]Value{}} }

func (t *plainTable) look() (liveRows, func()) { return t, func() {} }

func (t *plainTable) Apply(changes []Change) {
	for _, c := range changes {
		n := slices.Index(t.ids, c.ID)
		switch {
		case c.Gone && n >= 0:
			t.ids[n] = ""
			delete(t.documents, c.ID)
			continue
		case c.Gone:
			continue
		case n < 0:
			if n = slices.Index(t.ids, ""); n < 0 {
				n = len(t.ids)
				t.ids = append(t.ids, "")
			}
			t.ids[n] = c.ID
		}
		d := t.documents[c.ID]
		if c.Replace || d.kind != Object {
			d = ObjectValue([]Member{{"deviceId", StringValue(c.ID)}})
		}
		for _, f := range c.Fields {
			d = setAt(d, f.Path, f.Value)
		}
		t.documents[c.ID] = d
	}
}

// setAt is a document with another value at a path.
func setAt(d Value, p Path, v Value) Value {
	if len(p) == 0 {
		return v
	}
	if v.kind == Undefined && d.At(p...).kind == Undefined {
		return d // what is not there can't be removed
	}
	inner := setAt(d.Member(p[0]), p[1:], v)
	members := slices.DeleteFunc(slices.Clone(d.members), func(m Member) bool { return m.Key == p[0] })
	if inner.kind != Undefined {
		members = append(members, Member{p[0], inner})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
	return ObjectValue(members)
}

func (t *plainTable) ordinal(id string) (uint32, bool) {
	n := slices.Index(t.ids, id)
	return uint32(max(n, 0)), n >= 0
}

func (t *plainTable) id(n uint32) (string, bool) {
	if int(n) >= len(t.ids) || t.ids[n] == "" {
		return "", false
	}
	return t.ids[n], true
}

func (t *plainTable) ordinals() uint32 { return uint32(len(t.ids)) }

func (t *plainTable) value(n uint32, p Path, _ *cellPlace) (Value, bool) {
	v, _ := t.whole(n, p)
	if v.kind == Object {
		v = ObjectValue(nil)
	}
	return v, true
}

func (t *plainTable) whole(n uint32, p Path) (Value, bool) {
	id, _ := t.id(n)
	return t.documents[id].At(p...), true
}

func (t *plainTable) holds(Path) bool { return true }

func (t *plainTable) after(id string, n int, yield func(string, uint32)) bool {
	ids := slices.Sorted(maps.Keys(t.documents))
	i, found := slices.BinarySearch(ids, id)
	if found {
		i++
	}
	rest := ids[i:]
	for _, id := range rest[:min(n, len(rest))] {
		o, _ := t.ordinal(id)
		yield(id, o)
	}
	return len(rest) > n
}

// model is a live query's result as a client folds it from events, and what
// the client knows of where it is.
type model struct {
	reader   *LiveReader
	query    *Query
	cursor   string
	rows     map[string]string
	current  bool // the snapshot is whole
	last     string
	position uint64
}

// take folds one event, and fails when it contradicts what is known.
func (m *model) take(t *testing.T, past history, e *LiveEvent) {
	t.Helper()
	if m.current && e.Position > m.position && e.Kind != LiveReset {
		m.compare(t, past, e.Position-1)
	}
	_, have := m.rows[e.ID()]
	switch e.Kind {
	case LiveReset:
		m.rows, m.current, m.last = map[string]string{}, false, ""
		return
	case LiveCurrent:
		m.current = true
		defer func() { m.compare(t, past, e.Position) }()
	case LiveRow:
		if have || m.current || e.ID() <= m.last {
			t.Fatalf("%s: row %s comes twice, or late, or out of order (behind %s)", m.query.text, e.ID(), m.last)
		}
		m.last = e.ID()
	case LiveEnter:
		if have {
			t.Fatalf("%s: %s enters, and was there", m.query.text, e.ID())
		}
	case LiveChange, LiveLeave:
		if !have {
			t.Fatalf("%s: %s of %s, which was not there", m.query.text, e.Kind, e.ID())
		}
		if e.Kind == LiveChange && m.rows[e.ID()] == e.Row() {
			t.Fatalf("%s: %s changes to what it was: %s", m.query.text, e.ID(), e.Row())
		}
	}
	m.position = e.Position
	if e.Kind == LiveLeave {
		delete(m.rows, e.ID())
	} else if e.ID() != "" {
		m.rows[e.ID()] = e.Row()
	}
	m.cursor = e.Cursor()
}

// compare fails when what was folded is not the result at a position. What
// depends on the time is compared when a reader has nothing left to read.
func (m *model) compare(t *testing.T, past history, position uint64) {
	t.Helper()
	if want := past[m.query.text][position]; len(timedPaths(m.query.where)) == 0 && !maps.Equal(m.rows, want) {
		t.Fatalf("position %d, %s:\ngot  %v\nwant %v", position, m.query.text, m.rows, want)
	}
}

// history is the naive result of each query at each position.
type history map[string]map[uint64]map[string]string

func (h history) note(table *plainTable, queries []*Query, position uint64) {
	for _, q := range queries {
		if h[q.text] == nil {
			h[q.text] = map[uint64]map[string]string{}
		}
		h[q.text][position] = table.result(q, time.Time{})
	}
}

// result is what a query selects.
func (t *plainTable) result(q *Query, now time.Time) map[string]string {
	rows := map[string]string{}
	for id, d := range t.documents {
		if q.where != nil {
			if p, err := compile(q.where); err != nil || !p.eval(d, now).True() {
				continue
			}
		}
		shown := d
		if !q.star {
			shown = ObjectValue(nil)
			for _, it := range q.items {
				if v := d.At(it.path...); v.kind != Undefined {
					shown.members = append(shown.members, Member{it.key, v})
				}
			}
		}
		rows[id] = string(shown.AppendJSON(nil))
	}
	return rows
}

func modelQueries() []*Query {
	seen := Path{"properties", "reported", "seen"}
	now := func(offset time.Duration) expr {
		return &call{name: nowName, args: []expr{&literal{value: NumberValue(float64(offset.Milliseconds()))}}}
	}
	site, battery, deep, name := Path{"tags", "site"}, Path{"properties", "reported", "battery"}, Path{"tags", "deep", "x"}, Path{"tags", "deep"}
	equal := func(p Path, v Value) expr {
		return &binary{op: opEqual, left: &ref{path: p}, right: &literal{value: v}}
	}
	less := func(p Path, v float64) expr {
		return &binary{op: opLess, left: &ref{path: p}, right: &literal{value: NumberValue(v)}}
	}
	items := func(list ...Path) (out []item) {
		for _, p := range list {
			out = append(out, item{key: p[len(p)-1], path: p})
		}
		return out
	}
	var list []*Query
	for _, text := range []string{
		"SELECT deviceId FROM devices WHERE reported.battery IN [1, 3, 'B', null] AND NOT (tags.site = 'A')",
		"SELECT tags.site FROM devices WHERE reported.battery >= 2 AND reported.battery != 4 OR reported.battery = 'B'",
		"SELECT deviceId FROM devices WHERE tags.deep.x != 1 OR tags.site > 'B' OR tags.site = true",
		"SELECT deviceId, tags.deep FROM devices WHERE tags.site NIN ['A', 'B'] AND IS_DEFINED(reported.battery)",
		"SELECT reported.other FROM devices WHERE 3 > reported.battery AND reported.battery + 1 > 2",
		"SELECT reported.battery FROM devices WHERE tags.site = 'B' AND reported.battery < 3",
		"SELECT deviceId FROM devices WHERE reported.battery < 4 AND 1 = tags.deep.x AND IS_DEFINED(tags.site)",
		"SELECT deviceId FROM devices WHERE tags.site = 'A' AND reported.seen < now() - 7s",
	} {
		q, err := Parse(text, Options{})
		if err != nil {
			panic(err)
		}
		list = append(list, q)
	}
	return append(list, []*Query{
		{text: "all", star: true, top: -1},
		{text: "site A", star: true, where: equal(site, StringValue("A")), top: -1},
		{text: "battery", items: items(battery), where: less(battery, 3), top: -1},
		{text: "both", items: items(site, name), where: &binary{op: opAnd, left: less(battery, 4), right: &unary{op: opNot, x: equal(site, StringValue("B"))}}, top: -1},
		{text: "either", items: items(deep), where: &binary{op: opOr, left: equal(deep, NumberValue(1)), right: equal(site, StringValue("C"))}, top: -1},
		{text: "cross", items: items(Path{"deviceId"}), where: &binary{op: opLess, left: &ref{path: battery}, right: &ref{path: deep}}, top: -1},
		{text: "deep all", items: items(name), top: -1},
		{text: "stale", items: items(seen), where: &binary{op: opLess, left: &ref{path: seen}, right: now(-7 * time.Second)}, top: -1},
		{text: "fresh", items: items(seen, site), where: &binary{op: opAnd, left: &unary{op: opNot, x: equal(site, StringValue("A"))}, right: &binary{op: opLessEqual, left: now(-5 * time.Second), right: &ref{path: seen}}}, top: -1},
	}...)
}

func randomLiveChange(r *rand.Rand, now time.Time) Change {
	c := Change{ID: fmt.Sprintf("d%02d", r.IntN(40))}
	values := []Value{{}, NumberValue(float64(r.IntN(6))), StringValue(string(rune('A' + r.IntN(4)))), NullValue(), ObjectValue([]Member{{"x", NumberValue(float64(r.IntN(3)))}, {"y", BoolValue(true)}}), ObjectValue(nil)}
	at := []Path{{"tags", "site"}, {"tags", "deep"}, {"tags", "deep", "x"}, {"tags"}, {"properties", "reported", "seen"}, {"properties", "reported", "battery"}, {"properties", "reported", "other"}}
	switch k := r.IntN(20); {
	case k == 0:
		c.Gone = true
		return c
	case k == 1:
		c.Replace = true
	}
	for range 1 + r.IntN(3) {
		f := Field{at[r.IntN(len(at))], values[r.IntN(len(values))]}
		if f.Path[len(f.Path)-1] == "seen" && r.IntN(8) > 0 {
			f.Value = StringValue(now.Add(time.Duration(r.IntN(12)-9) * time.Second).UTC().Format(time.RFC3339))
		}
		if len(f.Path) == 1 && f.Value.kind != Object {
			f.Value = ObjectValue(nil)
		}
		if !slices.ContainsFunc(c.Fields, func(o Field) bool { return related(o.Path, f.Path) }) {
			c.Fields = append(c.Fields, f)
		}
	}
	return c
}

// TestLiveModel folds what readers of live queries get, who join, lag, leave
// and resume while rows change, and compares it with what each query selects
// at each position.
func TestLiveModel(t *testing.T) {
	seeds := scaled(5)
	ran, resets := 0, 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ran++
			resets += runLiveModel(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
	if ran == seeds && resets < seeds { // not every one has a reader that is that far behind
		t.Errorf("%d resets show little", resets)
	}
}

// runLiveModel returns how often a reader had to begin anew.
func runLiveModel(t *testing.T, r *rand.Rand) (resets int) {
	plain, now := newPlainTable(), time.Unix(1000, 0)
	columns := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
	l := NewLive(columns, LiveOptions{Queries: 20, Bytes: 100 << 10, Linger: time.Minute, Instance: "i1"})
	l.pace = livePace{build: 7, scan: 6, page: 3, bytes: 100}
	queries, past := modelQueries(), history{}
	var readers []*model
	checks, resumed, events := 0, 0, 0
	position := uint64(0)
	past.note(plain, queries, 0)
	// read opens a model's reader if need be, and reads a little.
	read := func(m *model) {
		if m.reader == nil {
			var err error
			if m.reader, err = l.Open(m.query, m.cursor); err != nil {
				t.Fatal(err)
			}
			if m.cursor != "" {
				resumed++
			} else {
				m.rows, m.current, m.last = map[string]string{}, false, ""
			}
		}
		for range r.IntN(12) {
			list, more, err := m.reader.Next(1+r.IntN(20), nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range list {
				e := &list[i]
				m.take(t, past, e)
				if events++; e.Kind == LiveReset {
					resets++
				}
			}
			switch {
			case len(list) > 0 && m.current && m.reader.Cursor() != m.cursor:
				t.Fatalf("the reader is at %s, its last event at %s", m.reader.Cursor(), m.cursor)
			case len(list) == 0 && more != l.ready && m.current:
				checks++
				m.compare(t, past, position)
				if want := plain.result(m.query, l.now); !maps.Equal(m.rows, want) {
					t.Fatalf("position %d, %s at %s:\ngot  %v\nwant %v", position, m.query.text, l.now, m.rows, want)
				}
				return
			}
		}
	}
	for range 3000 {
		switch k := r.IntN(10); {
		case k < 5:
			position++
			now = now.Add(time.Duration(r.IntN(1500)) * time.Millisecond)
			var list []Change
			for range 1 + r.IntN(3) {
				list = append(list, randomLiveChange(r, now))
			}
			plain.Apply(list)
			past.note(plain, queries, position)
			l.Apply(position, now, list)
		case k == 5 && len(readers) < 20:
			readers = append(readers, &model{query: queries[r.IntN(len(queries))], rows: map[string]string{}})
		case k == 6 && len(readers) > 0: // leaves, and may come back with what it has
			if m := readers[r.IntN(len(readers))]; m.reader != nil {
				m.reader.Close()
				m.reader = nil
			} else if r.IntN(4) == 0 {
				*m = model{query: m.query, rows: map[string]string{}}
			}
		case len(readers) > 0:
			read(readers[r.IntN(len(readers))])
		}
		if r.IntN(4) == 0 {
			l.Tell(now)
			l.Wake(now, time.Second)
			checkRings(t, l)
		}
	}
	t.Logf("%d checks, %d resumed, %d resets, %d events", checks, resumed, resets, events)
	if checks < 50 || resumed < 20 || events < 500 {
		t.Error("this shows little")
	}
	return resets
}

// checkRings fails when the rings hold more than they may, or another sum than
// they say.
func checkRings(t *testing.T, l *Live) {
	t.Helper()
	held, sum := map[uint32]int{}, 0
	for _, q := range l.queries {
		bytes := 0
		for i := range q.ring.count {
			e := &q.ring.entries[(q.ring.head+i)%len(q.ring.entries)]
			size := l.shown.records[e.shown].size()
			if held[e.shown]++; held[e.shown] == 1 {
				sum += size
			}
			bytes += size + liveEntryBytes
			sum += liveEntryBytes
		}
		if bytes != q.ring.bytes {
			t.Fatalf("a ring has %d bytes and says %d", bytes, q.ring.bytes)
		}
	}
	for n, rings := range held {
		if r := l.shown.records[n]; int(r.held) != rings {
			t.Fatalf("%d rings have what %d are said to", rings, r.held)
		}
	}
	if l.shown.used != len(held) || l.shown.used+len(l.shown.free) != len(l.shown.records) {
		t.Fatalf("%d records are in use, %d are said to be, and %d of %d are free", len(held), l.shown.used, len(l.shown.free), len(l.shown.records))
	}
	if sum != l.shown.bytes || sum > l.room() {
		t.Fatalf("the rings have %d bytes, say %d and may have %d", sum, l.shown.bytes, l.room())
	}
}
