package query

import "math/bits"

// memberships say which rows queries select. Each query has a slot, which is a bit
// of every row; the bits of 64 queries lie together, so that a change finds those
// that have its row without a look at each of them.
type memberships struct {
	slots []*liveQuery // by slot; nil: it is free
	rows  [][]uint64   // by slot/64, then by ordinal; rows of which no query was told are not there
}

// join gives a query a slot. The slot's bits may be those of the query that had it
// before: they count where put has been called since.
func (m *memberships) join(q *liveQuery) {
	for i, other := range m.slots {
		if other == nil {
			m.slots[i], q.slot = q, i
			return
		}
	}
	q.slot = len(m.slots)
	m.slots = append(m.slots, q)
	if len(m.rows) <= q.slot/64 {
		m.rows = append(m.rows, nil)
	}
}

// leave takes back the slot of a query.
func (m *memberships) leave(q *liveQuery) {
	m.slots[q.slot] = nil
	word := q.slot / 64
	for _, other := range m.slots[word*64 : min(len(m.slots), word*64+64)] {
		if other != nil {
			return
		}
	}
	m.rows[word] = nil
}

// has reports whether a query selects a row.
func (m *memberships) has(q *liveQuery, n uint32) bool {
	return m.of(q.slot/64, n)>>(q.slot%64)&1 != 0
}

// put says whether it does.
func (m *memberships) put(q *liveQuery, n uint32, is bool) {
	rows, bit := &m.rows[q.slot/64], uint64(1)<<(q.slot%64)
	switch {
	case int(n) < len(*rows) && !is:
		(*rows)[n] &^= bit
	case is:
		if need := int(n) + 1; need > len(*rows) {
			*rows = append(*rows, make([]uint64, max(need-len(*rows), len(*rows)/4))...)
		}
		(*rows)[n] |= bit
	}
}

// of returns the bits that a row has of the 64 slots from 64*word on.
func (m *memberships) of(word int, n uint32) uint64 {
	if rows := m.rows[word]; int(n) < len(rows) {
		return rows[n]
	}
	return 0
}

// forget clears what is known of a row, which is no more.
func (m *memberships) forget(n uint32) {
	for _, rows := range m.rows {
		if int(n) < len(rows) {
			rows[n] = 0
		}
	}
}

// slotSet is a set of slots.
type slotSet []uint64

func (s *slotSet) add(slot int) {
	for len(*s) <= slot/64 {
		*s = append(*s, 0)
	}
	(*s)[slot/64] |= 1 << (slot % 64)
}

func (s slotSet) remove(slot int) { s[slot/64] &^= 1 << (slot % 64) }

func (s slotSet) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// each calls yield for the queries of a set that select a row.
func (m *memberships) each(s slotSet, n uint32, yield func(q *liveQuery)) {
	for word, set := range s {
		if set == 0 {
			continue
		}
		for set &= m.of(word, n); set != 0; set &= set - 1 {
			yield(m.slots[word*64+bits.TrailingZeros64(set)])
		}
	}
}
