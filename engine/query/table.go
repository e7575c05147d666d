package query

import "math/bits"

// table finds a number by the hash of its key, with open addressing and four
// bytes a slot: the number, and above it as many bits of the hash as there is room
// for, so that few keys are compared in vain. The keys stay where they are. The
// zero table is empty.
type table struct {
	slots []uint32 // 0 is free, gone a number that was removed
	bits  int      // of a slot that are number+1
	used  int
	holes int // slots that are gone
}

const gone = ^uint32(0)

// keyed gives the hash of each number that is in a table, in whatever order.
type keyed func(yield func(number uint32, hash uint64))

func (t *table) home(hash uint64) int { return int((hash >> 32) * uint64(len(t.slots)) >> 32) }

func (t *table) next(i int) int {
	if i++; i == len(t.slots) {
		return 0
	}
	return i
}

func (t *table) slot(hash uint64, number uint32) uint32 { return uint32(hash)<<t.bits | (number + 1) }

// find returns the number whose key has this hash and is the same.
func (t *table) find(hash uint64, same func(uint32) bool) (uint32, bool) {
	if t.used == 0 {
		return 0, false
	}
	mark := uint32(hash) << t.bits >> t.bits
	for i := t.home(hash); ; i = t.next(i) {
		s := t.slots[i]
		if s == 0 {
			return 0, false
		}
		if s>>t.bits == mark && s != gone {
			if number := s&(1<<t.bits-1) - 1; same(number) {
				return number, true
			}
		}
	}
}

// add puts a number in that is not there. all are those that are.
func (t *table) add(hash uint64, number uint32, all keyed) {
	if (t.used+t.holes+1)*4 > len(t.slots)*3 || uint64(number)+2 >= 1<<t.bits {
		slots := len(t.slots)
		if (t.used+1)*8 > slots*5 { // else there are many holes
			slots = max(8, slots*3/2)
		}
		t.resize(slots, number, all)
	}
	t.put(hash, number)
	t.used++
}

// reserve makes room for more numbers, up to one.
func (t *table) reserve(more int, number uint32, all keyed) {
	if want := (t.used+more)*4/3 + 2; want > len(t.slots) {
		t.resize(want, number, all)
	}
}

func (t *table) resize(slots int, number uint32, all keyed) {
	t.slots, t.holes = make([]uint32, slots), 0
	t.bits = max(t.bits, bits.Len64(uint64(max(number, uint32(slots)))+2))
	if t.used > 0 {
		all(func(number uint32, hash uint64) { t.put(hash, number) })
	}
}

func (t *table) put(hash uint64, number uint32) {
	i := t.home(hash)
	for t.slots[i] != 0 && t.slots[i] != gone {
		i = t.next(i)
	}
	if t.slots[i] == gone {
		t.holes--
	}
	t.slots[i] = t.slot(hash, number)
}

// remove takes a number out, if it is there.
func (t *table) remove(hash uint64, number uint32) {
	if t.used == 0 {
		return
	}
	want := t.slot(hash, number)
	i := t.home(hash)
	for t.slots[i] != want {
		if t.slots[i] == 0 {
			return
		}
		i = t.next(i)
	}
	t.used--
	if t.slots[t.next(i)] == 0 {
		t.slots[i] = 0
		return
	}
	t.slots[i] = gone
	t.holes++
}

func (t *table) bytes() int64 { return int64(cap(t.slots)) * 4 }
