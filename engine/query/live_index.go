package query

import (
	"slices"
	"sort"
)

// pathIndex finds the conditions and projections that a change of a path concerns:
// those that read the path, an object in which it lies, or something below it.
type pathIndex struct {
	root pathNode

	// The path that was asked about last, and the way to it: one change mostly has
	// siblings.
	last Path
	way  []*pathNode
}

type pathNode struct {
	children map[string]*pathNode
	uses     []pathUse // of this very path
	compared compared
	place    cellPlace
}

// pathSpot is where a path stands in a pathIndex, until that is asked about
// another one.
type pathSpot struct {
	way []*pathNode // from the root on, as far as there is anything
	end *pathNode   // of the path itself; nil when there is nothing
}

// pathUse is what reads a path, one of the two.
type pathUse struct {
	query      *liveQuery  // in its condition
	projection *projection // of all queries that show the same
}

// compared are the uses of a path in comparisons with constants alone: they can
// turn out differently only when a value moves across one of their constants.
type compared struct {
	uses    []pathUse
	numbers []numberUse // by number
	texts   map[string][]pathUse
}

type numberUse struct {
	number float64
	use    pathUse
}

// add notes a use with its constants.
func (c *compared) add(u pathUse, constants []Value) {
	c.uses = append(c.uses, u)
	for _, v := range constants {
		switch v.kind {
		case Number:
			at := sort.Search(len(c.numbers), func(i int) bool { return c.numbers[i].number >= v.number })
			c.numbers = slices.Insert(c.numbers, at, numberUse{v.number, u})
		case String:
			if c.texts == nil {
				c.texts = map[string][]pathUse{}
			}
			c.texts[v.text] = append(c.texts[v.text], u)
		}
	}
}

func (c *compared) remove(u pathUse) {
	is := func(other pathUse) bool { return other == u }
	c.uses = slices.DeleteFunc(c.uses, is)
	c.numbers = slices.DeleteFunc(c.numbers, func(n numberUse) bool { return n.use == u })
	for text, uses := range c.texts {
		if uses = slices.DeleteFunc(uses, is); len(uses) > 0 {
			c.texts[text] = uses
		} else {
			delete(c.texts, text)
		}
	}
}

// moved calls yield for the uses that a move from one value to another may
// concern.
func (c *compared) moved(m *move, yield func(u pathUse, below bool)) {
	switch {
	case m == nil || m.old.kind != m.new.kind || m.old.kind != Number && m.old.kind != String:
		for _, u := range c.uses {
			yield(u, false)
		}
	case m.old.kind == Number:
		low, high := min(m.old.number, m.new.number), max(m.old.number, m.new.number)
		from := sort.Search(len(c.numbers), func(i int) bool { return c.numbers[i].number >= low })
		for _, n := range c.numbers[from:] {
			if n.number > high {
				break
			}
			yield(n.use, false)
		}
	default:
		for _, text := range [...]string{m.old.text, m.new.text} {
			for _, u := range c.texts[text] {
				yield(u, false)
			}
		}
	}
}

// move is how a value changed, neither of both being an object.
type move struct{ old, new Value }

// constantsOf returns the constants that an expression compares a path with;
// only is false when it asks anything else about the path.
func constantsOf(e expr, p Path) (constants []Value, only bool) {
	reads, compares := 0, 0
	is := func(e expr) bool {
		r, ok := e.(*ref)
		return ok && samePath(r.path, p)
	}
	walk(e, func(e expr) {
		if is(e) {
			reads++
		}
		b, ok := e.(*binary)
		if !ok {
			return
		}
		side, other := b.left, b.right
		if is(other) {
			side, other = other, side
		}
		if !is(side) {
			return
		}
		var values []expr
		switch b.op {
		case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
			values = []expr{other}
		case opIn, opNotIn:
			if l, ok := other.(*list); ok {
				values = l.items
			}
		}
		for _, v := range values {
			l, ok := v.(*literal)
			ordered := b.op >= opLess && b.op <= opGreaterEqual
			if !ok || ordered && l.value.kind == String {
				return // texts are looked up, and not by their order
			}
			constants = append(constants, l.value)
		}
		if len(values) > 0 {
			compares++
		}
	})
	return constants, reads == compares
}

// guard is a value that a row must have at a path to be selected.
type guard struct {
	path  Path
	value Value
	place cellPlace
}

// guardOf returns a guard of a condition, as the site is of what is low in a
// site; nil when it has none.
func guardOf(where expr) *guard {
	parts, _ := leaves(opAnd, where, nil, nil)
	for _, part := range parts {
		b, ok := part.(*binary)
		if !ok || b.op != opEqual {
			continue
		}
		side, other := b.left, b.right
		if _, ok := side.(*ref); !ok {
			side, other = other, side
		}
		r, ok := side.(*ref)
		l, constant := other.(*literal)
		if ok && constant && (l.value.kind == String || l.value.kind == Number) {
			return &guard{path: r.path, value: l.value}
		}
	}
	return nil
}

// related reports whether two paths are the same or one lies below the other.
func related(a, b Path) bool {
	n := min(len(a), len(b))
	return samePath(a[:n], b[:n])
}

// add notes that a path is read, in a condition if it is not nil.
func (x *pathIndex) add(p Path, u pathUse, where expr) {
	x.last, x.way = nil, nil
	n := &x.root
	for _, key := range p {
		child := n.children[key]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*pathNode{}
			}
			child = &pathNode{}
			n.children[key] = child
		}
		n = child
	}
	if where != nil {
		if constants, only := constantsOf(where, p); only {
			n.compared.add(u, constants)
			return
		}
	}
	if !slices.Contains(n.uses, u) {
		n.uses = append(n.uses, u)
	}
}

// remove is the other end of add.
func (x *pathIndex) remove(p Path, u pathUse) {
	x.last, x.way = nil, nil
	x.root.remove(p, u)
}

func (n *pathNode) remove(p Path, u pathUse) (empty bool) {
	if len(p) == 0 {
		n.uses = slices.DeleteFunc(n.uses, func(other pathUse) bool { return other == u })
		n.compared.remove(u)
	} else if child := n.children[p[0]]; child != nil && child.remove(p[1:], u) {
		delete(n.children, p[0])
	}
	return len(n.uses) == 0 && len(n.compared.uses) == 0 && len(n.children) == 0
}

// at looks a path up.
func (x *pathIndex) at(p Path) (s pathSpot) {
	if x.way == nil {
		x.way = append(x.way, &x.root)
	}
	same := 0
	for same < min(len(p), len(x.last), len(x.way)-1) && p[same] == x.last[same] {
		same++
	}
	x.last, x.way = p, x.way[:same+1]
	n := x.way[same]
	for _, key := range p[same:] {
		if n = n.children[key]; n == nil {
			break
		}
		x.way = append(x.way, n)
	}
	return pathSpot{x.way, n}
}

// used reports whether find would find anything.
func (s pathSpot) used() bool {
	for _, n := range s.way {
		if len(n.uses) > 0 || len(n.compared.uses) > 0 {
			return true
		}
	}
	return s.end != nil && len(s.end.children) > 0
}

// find calls yield for each use of the path, of an object in which it lies, and
// of what lies below it: then below is true. When it is known how the value at
// the path moved, it leaves out those that the move can't concern; a use may come
// twice.
func (s pathSpot) find(m *move, yield func(u pathUse, below bool)) {
	for _, n := range s.way {
		for _, u := range n.uses {
			yield(u, false)
		}
		if n == s.end {
			n.compared.moved(m, yield)
			n.below(yield)
		} else {
			n.compared.moved(nil, yield)
		}
	}
}

func (n *pathNode) below(yield func(u pathUse, below bool)) {
	for _, child := range n.children {
		for _, u := range child.uses {
			yield(u, true)
		}
		child.compared.moved(nil, func(u pathUse, _ bool) { yield(u, true) })
		child.below(yield)
	}
}
