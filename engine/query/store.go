package query

import (
	"hash/maphash"
	"strings"
)

// store is what Columns guards: rows, and a tree of paths with their columns.
type store struct {
	rows
	options ColumnOptions
	root    *node
	now     uint64 // counts changes
	oldest  uint64 // when the query began that runs longest; now when none does
	shape   uint64 // counts paths that got or lost a column
	columns int
	bytes   int64     // of columns
	dirty   []*column // columns from which codes may be reclaimed
	refused refusals
	lost    int      // paths whose column was dropped to save memory
	partial ordinals // rows that had a path that got no column, since they were new or replaced
}

// node is a path.
type node struct {
	key      string
	hash     uint64 // of the path
	parent   *node
	children map[string]*node
	order    []*node // of them, as the last object that a row had here named them
	column   *column // nil when there is none
	role     role
	why      string // why a path that was seen has no column
	partial  bool   // a path right below was seen that got no column
}

// role says what else a path may be than the name of a column.
type role uint8

// The roles.
const (
	plain    role = iota
	identity      // the value is the row's id
	outside       // it stands in documents only
)

// What a path without a column gives as its reason.
const (
	whyOutside = "it is kept in documents only"
	whyFull    = "there are as many columns as may be"
	whyMemory  = "its column was dropped: columns had more memory than they may"
)

func newStore(o ColumnOptions, seed maphash.Seed) *store {
	s := &store{options: o, root: &node{}}
	s.rows.seed, s.refused.seed = seed, seed
	for _, p := range o.Outside {
		n := s.reserve(p)
		n.role, n.why = outside, whyOutside
	}
	if len(o.ID) > 0 {
		s.reserve(o.ID).role = identity
	}
	return s
}

func (s *store) reserve(p Path) *node {
	n := s.root
	for _, key := range p {
		n = s.child(n, key)
	}
	return n
}

func (s *store) child(n *node, key string) *node {
	c := n.children[key]
	if c == nil {
		if n.children == nil {
			n.children = map[string]*node{}
		}
		key = strings.Clone(key)
		c = &node{key: key, parent: n, hash: s.refused.hash(n, key)}
		n.children[key] = c
	}
	return c
}

// orderMost is how many children have a place in order.
const orderMost = 64

// member is the child of an object's member; nil: there is none. Objects of the
// same shape, as those of a fleet mostly are, find it without a look at the map.
func (n *node) member(place int, key string) *node {
	if place < len(n.order) && n.order[place].key == key {
		return n.order[place]
	}
	c := n.children[key]
	switch {
	case c == nil:
	case place < len(n.order):
		n.order[place] = c
	case place == len(n.order) && place < orderMost:
		n.order = append(n.order, c)
	}
	return c
}

// forget removes a child.
func (n *node) forget(key string) {
	delete(n.children, key)
	n.order = nil
}

func (n *node) path() Path {
	var p Path
	for ; n.parent != nil; n = n.parent {
		p = append(p, n.key)
	}
	for i, j := 0, len(p)-1; i < j; i, j = i+1, j-1 {
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// apply does to a row what a change says.
func (s *store) apply(ch *Change) {
	s.now++
	ord, found := s.find(ch.ID)
	switch {
	case ch.Gone:
		if found {
			s.clear(s.root, ord)
			s.partial.remove(ord)
			s.remove(ord, s.now)
		}
		return
	case !found:
		ord = s.add(ch.ID)
	case ch.Replace:
		s.clear(s.root, ord)
		s.partial.remove(ord)
		s.notes[ord] = 0
	}
	if ch.Noted {
		s.notes[ord] = ch.Note
	}
	var q quota
	for i := range ch.Fields {
		s.set(ord, ch.Fields[i].Path, ch.Fields[i].Value, &q)
	}
}

// set puts a value at a path of a row.
func (s *store) set(ord uint32, p Path, v Value, q *quota) {
	n := s.root
	for _, key := range p {
		c := n.children[key]
		if c.fresh() {
			if v.kind == Undefined {
				if c == nil {
					return
				}
			} else if c = s.newPath(n, key, ord, q); c == nil {
				s.objects(n, ord)
				return
			}
		}
		if c.role != plain {
			if v.kind != Undefined {
				s.objects(n, ord)
			}
			return
		}
		n = c
	}
	// Where a row has a value, all above are objects already.
	if v.kind != Undefined && (n.column == nil || n.column.get(ord) == codeCell(codeUndefined)) {
		s.objects(n.parent, ord)
	}
	s.put(n, ord, v, q)
}

// fresh reports whether no row had the path so far, or none has had it for a while.
func (n *node) fresh() bool { return n == nil || n.column == nil && n.role == plain && n.why == "" }

// objects makes sure that a row has an object at a node and at all above it.
func (s *store) objects(n *node, ord uint32) {
	for ; n != s.root; n = n.parent {
		if c := n.column; c != nil && c.get(ord) != codeCell(codeObject) {
			s.store(c, ord, Value{kind: Object})
		}
	}
}

// put stores a value at a node, in place of what the row has there and below.
func (s *store) put(n *node, ord uint32, v Value, q *quota) {
	if len(n.children) > 0 && (n.column == nil || n.column.get(ord) == codeCell(codeObject)) {
		s.clear(n, ord)
	}
	if n.column != nil {
		s.store(n.column, ord, v)
		if n.column.used == 0 {
			s.prune(n)
		}
	}
	for i, m := range v.members {
		c := n.member(i, m.Key)
		if c.fresh() {
			if c = s.newPath(n, m.Key, ord, q); c == nil {
				continue
			}
		}
		if c.role == plain {
			s.put(c, ord, m.Value, q)
		}
	}
}

func (s *store) store(c *column, ord uint32, v Value) {
	before, waiting := c.size(), c.busy()
	c.set(ord, v, s.now)
	s.bytes += c.size() - before
	if !waiting && c.busy() {
		s.dirty = append(s.dirty, c)
	}
}

// clear takes from a row all that is below a node.
func (s *store) clear(n *node, ord uint32) {
	for _, c := range n.children {
		if c.role != plain {
			continue
		}
		under := true
		if c.column != nil {
			old := c.column.get(ord)
			under = old == codeCell(codeObject)
			if old != codeCell(codeUndefined) {
				s.store(c.column, ord, Value{})
			}
		}
		if under && len(c.children) > 0 {
			s.clear(c, ord)
		}
		if c.column != nil && c.column.used == 0 {
			s.prune(c)
		}
	}
}

// prune forgets a path that no row has, and those above it that are left empty.
func (s *store) prune(n *node) {
	for n != s.root && n.role == plain && len(n.children) == 0 && n.column != nil && n.column.used == 0 {
		s.drop(n)
		n.parent.forget(n.key)
		n = n.parent
	}
}

// reclaim frees what no query can see any more.
func (s *store) reclaim() {
	s.rows.reclaim(s.oldest)
	left := s.dirty[:0]
	for _, c := range s.dirty {
		before := c.size()
		c.dictionary.reclaim(s.oldest)
		if !c.dropped {
			s.bytes += c.size() - before
		}
		if c.busy() {
			left = append(left, c)
		}
	}
	clear(s.dirty[len(left):])
	s.dirty = left
}

// located is what the columns know about a path.
type located struct {
	column   *column // nil: undefined in all rows, unless one of these is set
	identity bool
	missing  bool // the path has values that are in no column
	why      string
}

// locate finds a path's column.
func (s *store) locate(p Path) located {
	n := s.root
	for _, key := range p {
		if n.role == identity {
			return located{} // below a string there is nothing
		}
		c := n.children[key]
		if c.fresh() && s.refused.has(n, key) {
			return located{missing: true, why: whyFull}
		}
		if c == nil {
			return located{}
		}
		if c.role == outside {
			return located{missing: true, why: c.why}
		}
		n = c
	}
	switch {
	case n.role == identity:
		return located{identity: true}
	case n.column != nil:
		return located{column: n.column}
	case n.why == "": // only the way to one that is reserved
		return located{missing: true, why: whyOutside}
	}
	return located{missing: true, why: n.why}
}

func (s *store) value(id string, p Path) (Value, bool) {
	ord, found := s.find(id)
	if !found {
		return Value{}, true
	}
	return s.valueOf(ord, p)
}

func (s *store) valueOf(ord uint32, p Path) (Value, bool) { return s.valueAt(ord, s.locate(p)) }

func (s *store) valueAt(ord uint32, l located) (Value, bool) {
	switch {
	case l.missing:
		return Value{}, false
	case l.identity:
		return StringValue(s.ids.at(ord)), true
	case l.column == nil:
		return Value{}, true
	}
	return l.column.cellValue(l.column.get(ord)), true
}
