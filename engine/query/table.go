package query

// table finds a number by the hash of its key, with open addressing: 8 bytes a
// slot, the keys stay where they are. The zero table is empty.
type table struct {
	slots []uint64 // hash in the upper half, number+1 in the lower; 0 is free
	used  int
}

func (t *table) home(slot uint64) int { return int((slot >> 32) * uint64(len(t.slots)) >> 32) }

func (t *table) next(i int) int {
	if i++; i == len(t.slots) {
		return 0
	}
	return i
}

// find returns the number whose key has this hash and is the same.
func (t *table) find(hash uint64, same func(uint32) bool) (uint32, bool) {
	if t.used == 0 {
		return 0, false
	}
	for i := t.home(hash); ; i = t.next(i) {
		s := t.slots[i]
		if s == 0 {
			return 0, false
		}
		if s>>32 == hash>>32 && same(uint32(s)-1) {
			return uint32(s) - 1, true
		}
	}
}

// add puts a number in that is not there.
func (t *table) add(hash uint64, number uint32) {
	if (t.used+1)*4 > len(t.slots)*3 {
		t.resize(max(8, len(t.slots)*3/2))
	}
	t.put(hash>>32<<32 | uint64(number+1))
	t.used++
}

// reserve makes room for more numbers.
func (t *table) reserve(more int) {
	if want := (t.used+more)*4/3 + 1; want > len(t.slots) {
		t.resize(want)
	}
}

func (t *table) resize(slots int) {
	old := t.slots
	t.slots = make([]uint64, slots)
	for _, s := range old {
		if s != 0 {
			t.put(s)
		}
	}
}

func (t *table) put(slot uint64) {
	i := t.home(slot)
	for t.slots[i] != 0 {
		i = t.next(i)
	}
	t.slots[i] = slot
}

// remove takes a number out. Those behind it move up, so that no tombstone stays.
func (t *table) remove(hash uint64, number uint32) {
	want := hash>>32<<32 | uint64(number+1)
	i := t.home(want)
	for t.slots[i] != want {
		if t.slots[i] == 0 {
			return
		}
		i = t.next(i)
	}
	t.used--
	for j := t.next(i); ; j = t.next(j) {
		s := t.slots[j]
		if s == 0 {
			break
		}
		// It moves into the hole unless its home lies behind the hole.
		if h := t.home(s); (i < j && (h <= i || h > j)) || (i > j && h <= i && h > j) {
			t.slots[i] = s
			i = j
		}
	}
	t.slots[i] = 0
}

func (t *table) bytes() int64 { return int64(cap(t.slots)) * 8 }
