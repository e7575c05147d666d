package query

import "math/bits"

func (b *block) empty() bool {
	for _, w := range b.bits {
		if w != 0 {
			return false
		}
	}
	return true
}

func (b *block) count() int {
	n := 0
	for _, w := range b.bits {
		n += bits.OnesCount64(w)
	}
	return n
}

// keep leaves the rows for which f says so.
func (b *block) keep(f func(at uint32) bool) {
	for i, w := range b.bits {
		for rest := w; rest != 0; rest &= rest - 1 {
			k := bits.TrailingZeros64(rest)
			if !f(b.from + uint32(i<<6+k)) {
				w &^= 1 << k
			}
		}
		b.bits[i] = w
	}
}

// each calls f for each row that is left, with its offset in the stripe.
func (b *block) each(f func(at uint32)) {
	for i, w := range b.bits {
		for ; w != 0; w &= w - 1 {
			f(b.from + uint32(i<<6+bits.TrailingZeros64(w)))
		}
	}
}

// only leaves a row alone, if it was there.
func (b *block) only(ords []uint32) {
	var kept [16]uint64
	keep := kept[:0]
	for _, ord := range ords {
		at := int64(ord) - int64(b.base())
		in := at >= 0 && at < int64(len(b.bits))*64 && b.bits[at>>6]>>(at&63)&1 == 1
		keep = append(keep, 0)
		if in {
			keep[len(keep)-1] = uint64(at) + 1
		}
	}
	clear(b.bits)
	for _, at := range keep {
		if at > 0 {
			b.bits[(at-1)>>6] |= 1 << ((at - 1) & 63)
		}
	}
}
