package query

import (
	"slices"
	"strings"
)

// What a row costs a test, in nanoseconds, roughly.
const (
	costTable   = 0.6
	costNumber  = 1
	costKernel  = 6
	costValue   = 120 // a program on a value
	costRow     = 300 // a program on a row
	sampledRows = 256
)

// planLeaf plans an expression that is not split any further.
func (r *run) planLeaf(e expr, want bool) (*condition, error) {
	if err := r.breathe(); err != nil {
		return nil, err
	}
	reads := paths(e)
	c := &condition{kind: leafTest, step: &Step{Text: r.text(e, want), Estimate: -1}}
	program, err := compile(e)
	if err != nil {
		return nil, err
	}
	bound := make([]*binding, len(reads))
	for i, p := range reads {
		bound[i] = r.bindings.of(p)
		if bound[i].missing {
			c.kind, c.cost, c.share = needsDocuments, costRow, 1
			c.step.Kind, c.step.Path, c.step.Note = "documents", p.String(), bound[i].why
			r.missing(bound[i])
			return c, nil
		}
	}
	switch {
	case len(reads) == 0:
		got := program.eval(&single{}, r.ask.Now)
		pass := got.kind == Bool && got.Bool() == want
		c.test, c.cost, c.step.Kind = constantTest(pass), costTable, "constant"
	case len(reads) == 1 && bound[0].identity:
		t := &identityTest{columnTest: columnTest{program: program, want: want, now: r.ask.Now}, store: r.store}
		t.equals = equalValues(e, want)
		c.test, c.cost, c.step.Kind = t, costValue, "ids"
		if t.equals != nil {
			c.cost, c.step.Kind = costTable, "id lookup"
			t.find()
		}
	case len(reads) == 1:
		t := &columnTest{binding: bound[0], program: program, want: want, now: r.ask.Now}
		t.equals, t.numbers = equalValues(e, want), t.numberTest(e)
		c.test, c.cost, c.step.Kind = t, costTable, "column lookup"
		if k := bound[0].column; k != nil && k.inline {
			c.cost, c.step.Kind = costNumber, "column compare"
			if !t.numbers.known {
				if kernel := newKernel(e, want, r.bindings); kernel != nil {
					kernel.rest = rowTest{program, want, r.ask.Now, columnRow{bindings: r.bindings}}
					c.test, c.cost, c.step.Kind = kernel, costKernel, "column arithmetic"
					break
				}
				c.cost, c.step.Kind = costValue, "column values"
			}
		} else if k != nil && k.live > max(eagerEntries, r.store.count/4) && t.equals == nil {
			c.cost = costValue
		}
	default:
		rest := rowTest{program, want, r.ask.Now, columnRow{bindings: r.bindings}}
		if kernel := newKernel(e, want, r.bindings); kernel != nil {
			kernel.rest = rest
			c.test, c.cost, c.step.Kind = kernel, costKernel, "column arithmetic"
		} else {
			c.test, c.cost, c.step.Kind = &rest, costRow, "residual"
		}
	}
	names := make([]string, len(reads))
	for i, p := range reads {
		names[i] = p.String()
	}
	c.step.Path = strings.Join(names, ", ")
	if len(reads) == 1 && !bound[0].identity && bound[0].column == nil {
		c.step.Note = "no row has this path"
	}
	c.share = r.estimate(c)
	c.step.Estimate = Share(c.share)
	if t, is := c.test.(*columnTest); is {
		c.step.Memory = int64(len(t.table))
		return c, r.hold(c.step.Memory, c.step.Kind)
	}
	return c, nil
}

// text returns what an expression looks like, for people.
func (r *run) text(e expr, want bool) string {
	s := format(e)
	if !want {
		return "NOT (" + s + ")"
	}
	return s
}

// estimate returns the share of rows that may pass a test, from a sample of
// them; an equality is counted.
func (r *run) estimate(c *condition) float64 {
	n := r.store.ids.len()
	if n == 0 || r.store.count == 0 {
		return 0
	}
	switch t := c.test.(type) {
	case constantTest:
		if t {
			return 1
		}
		return 0
	case *identityTest:
		if t.equals != nil {
			return float64(len(t.ords)) / float64(r.store.count)
		}
	case *columnTest:
		if k := t.binding.column; k == nil || t.equals != nil && !k.inline || !k.inline && k.live <= eagerEntries {
			return t.counted(r.store.count)
		}
	}
	tried, passed := 0, 0
	step := max(1, n/sampledRows)
	var word [1]uint64
	for ord := step / 2; ord < n; ord += step {
		if !r.store.isAlive(uint32(ord)) {
			continue
		}
		at := uint32(ord) & (stripeRows - 1)
		b := block{ord >> stripeBits, at &^ 63, word[:]}
		word[0] = 1 << (at & 63)
		c.test.filter(&b)
		tried++
		if word[0] != 0 {
			passed++
		}
	}
	if tried == 0 {
		return 0.5
	}
	return (float64(passed) + 0.01) / (float64(tried) + 0.02)
}

// counted returns the share of rows that pass, from the dictionary's counts.
func (t *columnTest) counted(rows int) float64 {
	t.prepare()
	n := 0
	k := t.binding.column
	if k == nil {
		if t.pass(codeUndefined) {
			return 1
		}
		return 0
	}
	for _, code := range t.codes {
		n += int(k.entries[code].count())
	}
	for code, p := range t.table {
		if p == passes && uint32(code) != codeUndefined {
			n += int(k.entries[code].count())
		}
	}
	if t.codes == nil && t.pass(codeUndefined) {
		n += rows - k.used
	}
	return float64(n) / float64(max(rows, 1))
}

// relationOf is what must hold between two numbers for a comparison to be true,
// or false.
func relationOf(op operator, want bool) relation {
	r, opposite := always, always
	switch op {
	case opEqual, opIn:
		r, opposite = equal, differs
	case opNotEqual, opNotIn:
		r, opposite = differs, equal
	case opLess:
		r, opposite = less, greaterEqual
	case opLessEqual:
		r, opposite = lessEqual, greater
	case opGreater:
		r, opposite = greater, lessEqual
	case opGreaterEqual:
		r, opposite = greaterEqual, less
	}
	if !want {
		return opposite
	}
	return r
}

// sides returns a comparison as a path and a constant; ok is false for another one.
func sides(e expr) (op operator, constant Value, ok bool) {
	n, is := e.(*binary)
	if !is || n.op < opEqual || n.op > opGreaterEqual {
		return 0, Value{}, false
	}
	_, left := n.left.(*ref)
	if l, is := n.right.(*literal); is && left {
		return n.op, l.value, true
	}
	_, right := n.right.(*ref)
	if l, is := n.left.(*literal); is && right {
		return mirrored(n.op), l.value, true
	}
	return 0, Value{}, false
}

func primitive(v Value) bool {
	return v.kind == Null || v.kind == Bool || v.kind == Number || v.kind == String
}

// equalValues returns the values for which an expression of one path is as
// wanted, if it asks for equality with constants; else nil.
func equalValues(e expr, want bool) []Value {
	if op, v, ok := sides(e); ok {
		if primitive(v) && (op == opEqual && want || op == opNotEqual && !want) {
			return []Value{v}
		}
		return nil
	}
	n, is := e.(*binary)
	if !is || !(n.op == opIn && want || n.op == opNotIn && !want) {
		return nil
	}
	values := inValues(n)
	return slices.DeleteFunc(values, func(v Value) bool { return !primitive(v) })
}

// inValues returns the constants behind IN, if a path stands before it.
func inValues(n *binary) []Value {
	l, is := n.right.(*list)
	if _, left := n.left.(*ref); !is || !left {
		return nil
	}
	values := make([]Value, 0, len(l.items))
	for _, item := range l.items {
		c, is := item.(*literal)
		if !is {
			return nil
		}
		values = append(values, c.value)
	}
	return values
}

// numberTest returns the test on numbers that an expression of one path is.
func (t *columnTest) numberTest(e expr) numberTest {
	if op, v, ok := sides(e); ok {
		if v.kind == Number {
			return numberTest{known: true, relation: relationOf(op, t.want), constant: v.number}
		}
		return t.alike()
	}
	switch n := e.(type) {
	case *ref:
		return t.alike()
	case *call:
		if len(n.args) == 1 && strings.HasPrefix(n.name, "IS_") {
			if _, is := n.args[0].(*ref); is {
				return t.alike()
			}
		}
	case *binary:
		if n.op != opIn && n.op != opNotIn {
			return numberTest{}
		}
		values := inValues(n)
		if values == nil {
			return numberTest{}
		}
		set := make(map[float64]bool, len(values))
		for _, v := range values {
			if !primitive(v) {
				return numberTest{} // undefined unless another one is equal
			}
			if v.kind == Number {
				set[v.number] = true
			}
		}
		return numberTest{known: true, relation: relationOf(n.op, t.want), set: set}
	}
	return numberTest{}
}

// alike is the test when all numbers give the same.
func (t *columnTest) alike() numberTest {
	if t.judge(NumberValue(1)) {
		return numberTest{known: true, relation: always}
	}
	return numberTest{known: true, relation: never}
}
