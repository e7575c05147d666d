package query

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync/atomic"
)

// refusals are paths that got no column: a Bloom filter. What it wrongly holds is
// read from documents, which is slower, but right. A million paths make one
// in forty wrong.
type refusals struct {
	seed  maphash.Seed // as that of all stores whose refusals come together
	bits  []uint64     // nil while there are none
	total int64
}

const (
	refusalWords  = 1 << 17 // a mebibyte
	refusalProbes = 4
)

// hash returns the hash of a path below a node.
func (r *refusals) hash(n *node, key string) uint64 {
	return n.hash*0x9e3779b97f4a7c15 + maphash.String(r.seed, key)
}

func (r *refusals) has(n *node, key string) bool {
	if r.bits == nil {
		return false
	}
	h := r.hash(n, key)
	for range refusalProbes {
		if r.bits[h>>6%refusalWords]>>(h&63)&1 == 0 {
			return false
		}
		h = h*0x9e3779b97f4a7c15 + 1
	}
	return true
}

// refuse notes that a path gets no column.
func (s *store) refuse(n *node, key string) {
	n.partial = true
	r := &s.refused
	r.total++
	if r.has(n, key) {
		return
	}
	s.shape++
	if r.bits == nil {
		r.bits = make([]uint64, refusalWords)
	}
	h := r.hash(n, key)
	for range refusalProbes {
		r.bits[h>>6%refusalWords] |= 1 << (h & 63)
		h = h*0x9e3779b97f4a7c15 + 1
	}
}

// newPath makes a path below a node, with a column, for a row that has it. When
// there are columns enough, it takes the column of a path that only one row has;
// else nil is returned, and the path is known to be missing, of that row too.
func (s *store) newPath(n *node, key string, ord uint32, q *quota) *node {
	if !s.makeRoom(n, key, ord, q) {
		s.refuse(n, key)
		s.partial.add(ord)
		return nil
	}
	c := s.child(n, key)
	c.column = newColumn(ord)
	s.columns++
	s.shape++
	s.bytes += c.column.size()
	return c
}

// makeRoom reports whether a path below a node may have a column now.
func (s *store) makeRoom(n *node, key string, ord uint32, q *quota) bool {
	if s.refused.has(n, key) || s.lost >= s.options.MaxColumns {
		return false
	}
	if s.columns < s.options.MaxColumns {
		return true
	}
	victim := s.rarest(ord, n, q)
	if victim == nil {
		return false
	}
	victim.column.rows(s.partial.add)
	s.drop(victim)
	s.refuse(victim.parent, victim.key)
	victim.parent.forget(victim.key)
	return true
}

// quota is what one change may still take.
type quota struct {
	victims []*node        // those that may lose their column, the best one last
	rare    map[uint32]int // how many each row made of paths that only one row has; nil before they were counted
}

// rarest returns the path without others below it that only one row has, of the
// row that made the most such paths; nil when none made more than the row that
// asks. So a row can't take all, and rows that try share what is left. The node
// above is not considered. All paths are looked at once for a change.
func (s *store) rarest(of uint32, above *node, q *quota) *node {
	rare := func(n *node) bool { return n.column != nil && n.column.used <= 1 && len(n.children) == 0 }
	if q.rare == nil {
		q.rare = map[uint32]int{}
		s.each(func(n *node) {
			if rare(n) {
				q.rare[n.column.creator]++
				q.victims = append(q.victims, n)
			}
		})
		slices.SortStableFunc(q.victims, func(a, b *node) int {
			return cmp.Compare(q.rare[a.column.creator], q.rare[b.column.creator])
		})
	}
	for len(q.victims) > 0 {
		last := len(q.victims) - 1
		n := q.victims[last]
		q.victims = q.victims[:last]
		if rare(n) && n != above && q.rare[n.column.creator] > q.rare[of]+1 {
			q.rare[n.column.creator]--
			q.rare[of]++
			return n
		}
	}
	return nil
}

// each calls f for each path with a column.
func (s *store) each(f func(n *node)) {
	var walk func(n *node)
	walk = func(n *node) {
		if n.column != nil {
			f(n)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(s.root)
}

// drop takes a node's column away; the caller says what becomes of the node.
func (s *store) drop(n *node) {
	c := n.column
	c.dropped = true
	s.bytes -= c.size()
	s.columns--
	s.shape++
	n.column = nil
}

// shrink drops columns until they fit their memory: those that no query used for
// longest, of them the largest.
func (s *store) shrink() {
	if s.bytes <= s.options.Memory {
		return
	}
	var all []*node
	s.each(func(n *node) { all = append(all, n) })
	slices.SortFunc(all, func(a, b *node) int {
		return cmp.Or(cmp.Compare(atomic.LoadInt64(&a.column.asked), atomic.LoadInt64(&b.column.asked)),
			cmp.Compare(b.column.size(), a.column.size()))
	})
	for _, n := range all {
		if s.bytes <= s.options.Memory*15/16 {
			return
		}
		s.drop(n)
		s.lost++
		n.why = whyMemory
	}
}
