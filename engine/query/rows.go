package query

import (
	"hash/maphash"
	"slices"
)

// rows are the ids of a collection. A row is known by its ordinal, which stays
// while the row lives.
type rows struct {
	ids     textList // by ordinal; of a row that is gone too, until the ordinal is free
	notes   []uint32 // by ordinal
	alive   []uint64 // a bit an ordinal
	spans   []span   // by stripe
	index   table
	sorted  idOrder
	free    []uint32
	retired []retired
	count   int
	seed    maphash.Seed
}

// ordinals is a set of them that is empty mostly.
type ordinals []uint64

func (o ordinals) has(n uint32) bool { return int(n>>6) < len(o) && o[n>>6]>>(n&63)&1 != 0 }

func (o *ordinals) add(n uint32) {
	if more := int(n>>6) + 1 - len(*o); more > 0 {
		*o = append(*o, make([]uint64, more)...)
	}
	(*o)[n>>6] |= 1 << (n & 63)
}

func (o ordinals) remove(n uint32) {
	if o.has(n) {
		o[n>>6] &^= 1 << (n & 63)
	}
}

// textList is texts by a number.
type textList struct {
	arena  arena
	places []uint32
}

func (t *textList) len() int { return len(t.places) }

// at returns the text of a number; "" when it has none.
func (t *textList) at(n uint32) string { return t.arena.text(t.places[n]) }

// push gives the next number to a text.
func (t *textList) push(text string) { t.places = append(t.places, t.arena.add(text)) }

// skip leaves out the next number.
func (t *textList) skip() { t.places = append(t.places, noPlace) }

func (t *textList) set(n uint32, text string) { t.places[n] = t.arena.add(text) }

func (t *textList) remove(n uint32) {
	t.arena.remove(t.places[n])
	t.places[n] = noPlace
}

func (t *textList) bytes() int64 { return t.arena.size() + int64(cap(t.places))*4 }

func (r *rows) hash(id string) uint64 { return maphash.String(r.seed, id) * 0x9e3779b97f4a7c15 }

func (r *rows) find(id string) (uint32, bool) {
	return r.index.find(r.hash(id), func(ord uint32) bool { return r.ids.at(ord) == id })
}

// hashes gives the hash of each row's id.
func (r *rows) hashes(yield func(ord uint32, hash uint64)) {
	for ord := range uint32(r.ids.len()) {
		if r.isAlive(ord) {
			yield(ord, r.hash(r.ids.at(ord)))
		}
	}
}

func (r *rows) isAlive(ord uint32) bool { return r.alive[ord>>6]>>(ord&63)&1 == 1 }

// add makes a row of an id that is not there.
func (r *rows) add(id string) uint32 {
	ord := uint32(r.ids.len())
	if n := len(r.free); n > 0 {
		ord = r.free[n-1]
		r.free = r.free[:n-1]
		r.ids.set(ord, id)
		r.notes[ord] = 0
	} else {
		r.ids.push(id)
		r.notes = append(r.notes, 0)
		if int(ord>>6) == len(r.alive) {
			// A stripe's worth at once: queries look at whole words of it.
			r.alive = append(r.alive, make([]uint64, stripeRows/64)...)
			r.spans = append(r.spans, emptySpan())
		}
	}
	r.index.add(r.hash(id), ord, r.hashes) // before it is alive, else it might be put in twice
	r.alive[ord>>6] |= 1 << (ord & 63)
	r.count++
	r.sorted.insert(&r.ids, ord)
	r.spans[ord>>stripeBits].add(&r.ids, ord)
	return ord
}

// remove ends a row. Its ordinal is free when no query that began before now is
// running.
func (r *rows) remove(ord uint32, now uint64) {
	r.index.remove(r.hash(r.ids.at(ord)), ord)
	r.sorted.remove(&r.ids, ord)
	r.spans[ord>>stripeBits].remove(ord)
	r.alive[ord>>6] &^= 1 << (ord & 63)
	r.count--
	r.retired = append(r.retired, retired{ord, now})
}

func (r *rows) reclaim(before uint64) {
	n := 0
	for n < len(r.retired) && r.retired[n].when < before {
		ord := r.retired[n].code
		r.ids.remove(ord)
		r.free = append(r.free, ord)
		n++
	}
	r.retired = slices.Delete(r.retired, 0, n)
	if len(r.ids.arena.thin) == 0 {
		return
	}
	waiting := make(map[uint32]uint32, len(r.retired)) // ordinals by places
	for _, gone := range r.retired {
		waiting[r.ids.places[gone.code]] = gone.code
	}
	r.ids.arena.compact(func(id string, place uint32) *uint32 {
		ord, ok := waiting[place]
		if !ok {
			ord, ok = r.find(id)
		}
		if ok && r.ids.places[ord] == place {
			return &r.ids.places[ord]
		}
		return nil
	})
}

func (r *rows) bytes() int64 {
	return r.ids.bytes() + int64(cap(r.notes))*4 + int64(cap(r.alive))*8 + int64(cap(r.spans))*8 + r.index.bytes() + r.sorted.bytes() + int64(cap(r.free))*4
}
