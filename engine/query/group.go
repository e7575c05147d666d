package query

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// grouping collects groups and their aggregates.
type grouping struct {
	run    *run
	keys   []*binding
	calls  []aggregateCall
	groups []*group
	byKey  map[string]int32 // canonical tuple to group
	step   *Step

	// What is known of cells, so that their values are looked at once.
	codes    []int32 // one key: group+1 by code
	numbers  map[cell]int32
	tuples   map[string]int32 // several keys: their cells
	of       *column          // that codes is of
	only     bool             // COUNT() of all rows and nothing else
	offsets  []uint32
	members  []int32
	original []cell
}

// aggregateCall is an aggregate that a query needs, once, however often it occurs.
type aggregateCall struct {
	aggregate aggregate
	distinct  bool
	binding   *binding // nil: COUNT()
}

// group is the rows with one key.
type group struct {
	key    []Value
	totals []total // by aggregateCall
	order  []Value // by key of ORDER BY
}

// total is what an aggregate has seen so far.
type total struct {
	count    int64 // rows with a value; of AVG and the like, a number
	sum      float64
	carry    float64 // what sum lost by rounding
	min, max float64
	cells    map[cell]struct{}   // distinct values of the column
	others   map[string]struct{} // those that are not in the column
}

// What a group and a distinct value take, roughly.
const (
	groupBytes    = 160
	totalBytes    = 64
	distinctBytes = 48
)

// costGroup is what a row takes for each aggregate, in nanoseconds, roughly.
const costGroup = 15

// groups answers a query whose rows are groups.
func (r *run) groups() (*Page, error) {
	g := &grouping{run: r, byKey: map[string]int32{}, numbers: map[cell]int32{}, tuples: map[string]int32{}}
	fromColumns := true
	bind := func(p Path) *binding {
		b := r.bindings.of(p)
		if b.missing {
			fromColumns = false
			r.missing(b)
		}
		return b
	}
	for _, p := range r.query.group {
		g.keys = append(g.keys, bind(p))
	}
	for _, i := range r.query.items {
		if i.aggregate != notAggregated {
			g.call(i.aggregate, i.distinct, i.path, bind)
		}
	}
	walk(r.query.having, func(e expr) {
		if a, is := e.(*aggregated); is {
			g.call(a.aggregate, a.distinct, a.path, bind)
		}
	})
	names := make([]string, len(g.keys))
	for i, p := range r.query.group {
		names[i] = p.String()
	}
	g.step = &Step{Kind: "aggregate", Estimate: -1}
	if len(g.keys) > 0 {
		g.step.Kind, g.step.Path = "group", strings.Join(names, ", ")
	} else if _, err := g.find(nil); err != nil {
		return nil, err // the one group there is, even of no rows
	}
	r.plan.Steps = append(r.plan.Steps, g.step)
	g.only = len(g.keys) == 0 && !slices.ContainsFunc(g.calls, func(c aggregateCall) bool { return c.binding != nil })
	r.sinkCost = costGroup * float64(len(g.keys)*len(g.keys)+len(g.calls))
	if err := r.feed(g, fromColumns); err != nil {
		return nil, err
	}
	g.step.Selected = int64(len(g.groups))
	return g.page()
}

// call makes sure that an aggregate is computed, and returns its number.
func (g *grouping) call(a aggregate, distinct bool, p Path, bind func(Path) *binding) int {
	c := aggregateCall{a, distinct, nil}
	if len(p) > 0 {
		c.binding = bind(p)
	}
	if a != aggregateCount {
		c.aggregate, c.distinct = aggregateAvg, false // which knows the others, too
	}
	i := slices.Index(g.calls, c)
	if i < 0 {
		i = len(g.calls)
		g.calls = append(g.calls, c)
	}
	return i
}

// find returns the group of a key.
func (g *grouping) find(key []Value) (int32, error) {
	text := string(canonicalTuple(nil, key))
	if i, ok := g.byKey[text]; ok {
		return i, nil
	}
	i := int32(len(g.groups))
	g.byKey[text] = i
	key = slices.Clone(key)
	for k, v := range key {
		if v.kind == Object || v.kind == Array {
			key[k] = v.inOrder()
		}
	}
	g.groups = append(g.groups, &group{key: key, totals: make([]total, len(g.calls))})
	return i, g.run.hold(int64(groupBytes+2*len(text)+len(g.calls)*totalBytes), g.step.Kind)
}

// rows implements sink.
func (g *grouping) rows(b *block) (left []uint32, err error) {
	begin := time.Now()
	defer func() { g.step.Time += time.Since(begin) }()
	if g.only {
		n := int64(b.count())
		g.step.Rows += n
		for i := range g.calls {
			g.groups[0].totals[i].count += n
		}
		return nil, nil
	}
	g.offsets = g.offsets[:0]
	b.each(func(at uint32) { g.offsets = append(g.offsets, at) })
	if left, err = g.withoutObjects(b); err != nil {
		return nil, err
	}
	g.step.Rows += int64(len(g.offsets))
	base := b.base() - b.from
	if err := g.assign(b.stripe, base); err != nil {
		return nil, err
	}
	for i := range g.calls {
		if err := g.count(i, b.stripe, base); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// withoutObjects takes out of offsets the rows in which a key or a distinct value
// is an object, and returns them.
func (g *grouping) withoutObjects(b *block) (left []uint32, err error) {
	sieve := func(k *binding) {
		if k.column == nil || k.column.kinds[Object] == 0 {
			return
		}
		base := b.base() - b.from
		g.offsets = slices.DeleteFunc(g.offsets, func(at uint32) bool {
			is := k.column.get(base+at) == codeCell(codeObject)
			if is {
				left = append(left, base+at)
			}
			return is
		})
	}
	for _, k := range g.keys {
		sieve(k)
	}
	for _, c := range g.calls {
		if c.distinct {
			sieve(c.binding)
		}
	}
	return left, nil
}

// assign finds the group of each row in offsets.
func (g *grouping) assign(stripe int, base uint32) error {
	g.members = slices.Grow(g.members[:0], len(g.offsets))[:len(g.offsets)]
	switch {
	case len(g.keys) == 0:
		clear(g.members)
		return nil
	case len(g.keys) == 1 && !g.keys[0].identity:
		return g.assignOne(g.keys[0], stripe)
	}
	text := make([]byte, 0, 64)
	key := make([]Value, len(g.keys))
	for i, at := range g.offsets {
		text = text[:0]
		for _, k := range g.keys {
			switch {
			case k.identity:
				text = strconv.AppendUint(text, uint64(base+at), 36)
			case k.column != nil:
				text = strconv.AppendUint(text, uint64(k.column.plain(k.column.get(base+at))), 36)
			}
			text = append(text, ' ')
		}
		m, ok := g.tuples[string(text)]
		if !ok {
			for j, k := range g.keys {
				key[j] = k.value(g.run.store, base+at)
			}
			var err error
			if m, err = g.find(key); err != nil {
				return err
			}
			g.tuples[string(text)] = m
			if err := g.run.hold(int64(len(text)+24), g.step.Kind); err != nil {
				return err
			}
		}
		g.members[i] = m
	}
	return nil
}

// assignOne finds groups by one column.
func (g *grouping) assignOne(k *binding, number int) error {
	if k.column == nil && len(g.offsets) == 0 {
		return nil
	}
	if k.column == nil {
		m, err := g.find([]Value{{}})
		for i := range g.members {
			g.members[i] = m
		}
		return err
	}
	if g.of != k.column {
		g.of, g.codes = k.column, nil
		clear(g.numbers)
	}
	g.codes = append(g.codes, make([]int32, max(0, len(k.column.entries)-len(g.codes)))...)
	g.original = k.column.gather(g.original[:0], number, g.offsets)
	for i, x := range g.original {
		if x.coded() {
			m := g.codes[x.code()]
			if m == 0 {
				found, err := g.find([]Value{k.column.cellValue(x)})
				if err != nil {
					return err
				}
				m = found + 1
				g.codes[x.code()] = m
			}
			g.members[i] = m - 1
			continue
		}
		m, ok := g.numbers[x]
		if !ok {
			var err error
			if m, err = g.find([]Value{k.column.cellValue(x)}); err != nil {
				return err
			}
			g.numbers[x] = m
		}
		g.members[i] = m
	}
	return nil
}

// gather appends the cells of rows of one stripe.
func (c *column) gather(dst []cell, number int, offsets []uint32) []cell {
	var s *stripe
	if c != nil && number < len(c.stripes) {
		s = c.stripes[number]
	}
	switch {
	case s == nil:
		for range offsets {
			dst = append(dst, codeCell(codeUndefined))
		}
	case s.form == one:
		for _, at := range offsets {
			dst = append(dst, codeCell(uint32(s.one[at])))
		}
	case s.form == floats:
		for _, at := range offsets {
			dst = append(dst, s.floats[at])
		}
	default:
		for _, at := range offsets {
			dst = append(dst, s.get(at))
		}
	}
	return dst
}

// count adds the rows in offsets to the totals of one aggregate.
func (g *grouping) count(i, number int, base uint32) error {
	c := g.calls[i]
	switch {
	case c.binding == nil || c.binding.identity && !c.distinct && c.aggregate == aggregateCount:
		for _, m := range g.members {
			g.groups[m].totals[i].count++
		}
		return nil
	case c.binding.identity:
		for j, at := range g.offsets {
			if err := g.groups[g.members[j]].totals[i].addValue(c, StringValue(g.run.store.ids.at(base+at)), g.run); err != nil {
				return err
			}
		}
		return nil
	case c.binding.column == nil:
		return nil
	}
	col := c.binding.column
	g.original = col.gather(g.original[:0], number, g.offsets)
	for j, x := range g.original {
		if x == codeCell(codeUndefined) {
			continue
		}
		t := &g.groups[g.members[j]].totals[i]
		switch {
		case c.distinct:
			if err := t.addCell(col.plain(x), g.run); err != nil {
				return err
			}
		case c.aggregate == aggregateCount:
			t.count++
		default:
			if f := col.number(x); f == f {
				t.addNumber(f)
			}
		}
	}
	return nil
}

func (t *total) addNumber(f float64) {
	if t.count == 0 {
		t.min, t.max = f, f
	}
	t.count++
	t.min, t.max = min(t.min, f), max(t.max, f)
	// Kahan's sum, as Neumaier has it: the order of rows matters less.
	sum := t.sum + f
	if abs(t.sum) >= abs(f) {
		t.carry += t.sum - sum + f
	} else {
		t.carry += f - sum + t.sum
	}
	t.sum = sum
}

func abs(f float64) float64 { return max(f, -f) }

func (t *total) addCell(x cell, r *run) error {
	if t.cells == nil {
		t.cells = map[cell]struct{}{}
	}
	if _, ok := t.cells[x]; ok {
		return nil
	}
	t.cells[x] = struct{}{}
	t.count++
	return r.hold(distinctBytes, "distinct")
}

// addValue adds a value that comes from a document.
func (t *total) addValue(c aggregateCall, v Value, r *run) error {
	switch {
	case v.kind == Undefined:
	case c.distinct:
		text := string(appendCanonical(nil, v))
		if _, ok := t.others[text]; ok {
			return nil
		}
		if t.others == nil {
			t.others = map[string]struct{}{}
		}
		t.others[text] = struct{}{}
		t.count++
		return r.hold(int64(distinctBytes+len(text)), "distinct")
	case c.aggregate == aggregateCount:
		t.count++
	case v.kind == Number:
		t.addNumber(v.number)
	}
	return nil
}

// document implements sink.
func (g *grouping) document(_ string, doc Value) error {
	begin := time.Now()
	defer func() { g.step.Time += time.Since(begin) }()
	g.step.Rows++
	key := make([]Value, len(g.keys))
	for i, p := range g.run.query.group {
		key[i] = doc.Value(p)
	}
	m, err := g.find(key)
	if err != nil {
		return err
	}
	for i, c := range g.calls {
		t := &g.groups[m].totals[i]
		if c.binding == nil {
			t.count++
			continue
		}
		v := doc.Value(c.binding.path)
		if c.distinct && c.binding.column != nil && v.kind != Object {
			if x, ok := g.known(c.binding.column, v); ok {
				if err := t.addCell(x, g.run); err != nil {
					return err
				}
				continue
			}
		}
		if err := t.addValue(c, v, g.run); err != nil {
			return err
		}
	}
	return nil
}

// known returns the cell by which rows of a column count a value; ok is false
// when none can have it.
func (g *grouping) known(c *column, v Value) (x cell, ok bool) {
	if v.kind == Undefined {
		return 0, false
	}
	if v.kind == Number {
		return numberCell(v.number + 0), true
	}
	g.run.columns.mu.RLock()
	defer g.run.columns.mu.RUnlock()
	code, ok := c.find(v)
	return codeCell(code), ok
}

// result returns an aggregate's value; undefined when there was nothing to
// compute it of, or when a sum is too large for a number.
func (t *total) result(a aggregate) Value {
	switch {
	case a == aggregateCount:
		return NumberValue(float64(t.count))
	case t.count == 0:
		return Value{}
	case a == aggregateAvg:
		return finite((t.sum + t.carry) / float64(t.count))
	case a == aggregateSum:
		return finite(t.sum + t.carry)
	case a == aggregateMin:
		return NumberValue(t.min)
	}
	return NumberValue(t.max)
}
