package query

import (
	"hash/maphash"
	"slices"
	"strings"
)

// rows are the ids of a collection. A row is known by its ordinal, which stays
// while the row lives.
type rows struct {
	ids     []string // by ordinal; of a row that is gone too, until the ordinal is free
	alive   []uint64 // a bit an ordinal
	index   table
	sorted  idOrder
	free    []uint32
	retired []retired
	count   int
	text    int64 // bytes of ids
	seed    maphash.Seed
}

func (r *rows) hash(id string) uint64 { return maphash.String(r.seed, id) * 0x9e3779b97f4a7c15 }

func (r *rows) find(id string) (uint32, bool) {
	return r.index.find(r.hash(id), func(ord uint32) bool { return r.ids[ord] == id })
}

func (r *rows) isAlive(ord uint32) bool { return r.alive[ord>>6]>>(ord&63)&1 == 1 }

// add makes a row of an id that is not there.
func (r *rows) add(id string) uint32 {
	ord := r.number(strings.Clone(id))
	r.index.add(r.hash(id), ord)
	r.sorted.insert(r.ids, ord)
	return ord
}

// number gives an id an ordinal, and no more than that.
func (r *rows) number(id string) uint32 {
	var ord uint32
	if n := len(r.free); n > 0 {
		ord = r.free[n-1]
		r.free = r.free[:n-1]
		r.ids[ord] = id
	} else {
		ord = uint32(len(r.ids))
		r.ids = append(r.ids, id)
		if int(ord>>6) == len(r.alive) {
			// A stripe's worth at once: queries look at whole words of it.
			r.alive = append(r.alive, make([]uint64, stripeRows/64)...)
		}
	}
	r.alive[ord>>6] |= 1 << (ord & 63)
	r.count++
	r.text += int64(len(id)+15) &^ 15
	return ord
}

// remove ends a row. Its ordinal is free when no query that began before now is
// running.
func (r *rows) remove(ord uint32, now uint64) {
	r.index.remove(r.hash(r.ids[ord]), ord)
	r.sorted.remove(r.ids, ord)
	r.alive[ord>>6] &^= 1 << (ord & 63)
	r.count--
	r.retired = append(r.retired, retired{ord, now})
}

func (r *rows) reclaim(before uint64) {
	n := 0
	for n < len(r.retired) && r.retired[n].when < before {
		ord := r.retired[n].code
		r.text -= int64(len(r.ids[ord])+15) &^ 15
		r.ids[ord] = ""
		r.free = append(r.free, ord)
		n++
	}
	r.retired = slices.Delete(r.retired, 0, n)
}

func (r *rows) bytes() int64 {
	return r.text + int64(cap(r.ids))*16 + int64(cap(r.alive))*8 + r.index.bytes() + r.sorted.bytes() + int64(cap(r.free))*4
}
