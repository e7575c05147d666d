package query

import (
	"math"
	"math/bits"
)

// kernel is a comparison of arithmetic on several columns' numbers, 64 rows at a
// time. What is not a number is NaN in it, and so is what is not finite: any
// comparison with that is undefined.
type kernel struct {
	relation    relation
	left, right vector
	bare        []*binding // sides that are a path alone: they may be no number and yet compare
	rest        rowTest    // for rows in which they are none
}

// vector computes a number for each of 64 rows.
type vector interface {
	load(dst *[64]float64, number int, from uint32)
}

// newKernel returns the kernel for an expression, nil if it is none.
func newKernel(e expr, want bool, b *bindings) *kernel {
	n, is := e.(*binary)
	if !is || n.op < opEqual || n.op > opGreaterEqual {
		return nil
	}
	k := &kernel{relation: relationOf(n.op, want), left: newVector(n.left, b), right: newVector(n.right, b)}
	if k.left == nil || k.right == nil {
		return nil
	}
	for _, side := range []vector{k.left, k.right} {
		if v, is := side.(*columnVector); is {
			k.bare = append(k.bare, v.binding)
		}
	}
	return k
}

func newVector(e expr, b *bindings) vector {
	switch n := e.(type) {
	case *literal:
		if n.value.kind == Number {
			return constantVector(n.value.number)
		}
	case *ref:
		if k := b.of(n.path); !k.identity {
			return &columnVector{binding: k}
		}
	case *unary:
		if n.op == opNegate {
			if x := newVector(n.x, b); x != nil {
				return &arithmetic{op: opSubtract, left: constantVector(0), right: x}
			}
		}
	case *binary:
		if n.op >= opAdd && n.op <= opModulo {
			l, r := newVector(n.left, b), newVector(n.right, b)
			if l != nil && r != nil {
				return &arithmetic{op: n.op, left: l, right: r}
			}
		}
	}
	return nil
}

type constantVector float64

func (v constantVector) load(dst *[64]float64, _ int, _ uint32) {
	for i := range dst {
		dst[i] = float64(v)
	}
}

// columnVector is the numbers of a column.
type columnVector struct {
	binding *binding
	column  *column // that numbers is of
	asked   uint64
	numbers []float64 // by code, of small dictionaries
}

func (v *columnVector) load(dst *[64]float64, number int, from uint32) {
	c := v.binding.column
	var s *stripe
	if c != nil && number < len(c.stripes) {
		s = c.stripes[number]
	}
	if s == nil {
		constantVector(math.NaN()).load(dst, 0, 0)
		return
	}
	switch s.form {
	case floats:
		for i, x := range (*[64]cell)(s.floats[from:]) {
			dst[i] = math.Float64frombits(uint64(x))
			if dst[i] != dst[i] { // a code, which a number that came early has, too
				dst[i] = c.number(x)
			}
		}
	case one:
		v.prepare(c)
		for i, code := range (*[64]uint8)(s.one[from:]) {
			dst[i] = v.numbers[code]
		}
	default:
		for i := range dst {
			dst[i] = c.number(s.get(from + uint32(i)))
		}
	}
}

// prepare makes the table of the codes of a byte.
func (v *columnVector) prepare(c *column) {
	if v.column == c && v.asked == c.changes {
		return
	}
	v.column, v.asked = c, c.changes
	if v.numbers == nil {
		v.numbers = make([]float64, 256)
	}
	for code := range v.numbers {
		v.numbers[code] = math.NaN()
		if code < len(c.entries) {
			v.numbers[code] = c.number(codeCell(uint32(code)))
		}
	}
}

// number returns a cell's number, NaN if it is none.
func (c *column) number(x cell) float64 {
	if !x.coded() {
		return x.number()
	}
	if e := c.entries[x.code()]; e.kind() == Number {
		return c.numberOf(e)
	}
	return math.NaN()
}

// arithmetic is an operation on two vectors.
type arithmetic struct {
	op          operator
	left, right vector
	scratch     [64]float64
}

func (v *arithmetic) load(dst *[64]float64, number int, from uint32) {
	y := &v.scratch
	v.left.load(dst, number, from)
	v.right.load(y, number, from)
	switch v.op {
	case opAdd:
		for i := range dst {
			dst[i] += y[i]
		}
	case opSubtract:
		for i := range dst {
			dst[i] -= y[i]
		}
	case opMultiply:
		for i := range dst {
			dst[i] *= y[i]
		}
	case opDivide:
		for i := range dst {
			dst[i] /= y[i]
		}
	case opModulo:
		for i := range dst {
			dst[i] = math.Mod(dst[i], y[i])
		}
	}
	for i, f := range dst {
		if f-f != 0 { // not finite
			dst[i] = math.NaN()
		}
	}
}

// filter implements test.
func (k *kernel) filter(b *block) {
	var x, y [64]float64
	base := b.base() - b.from
	for i, w := range b.bits {
		if w == 0 {
			continue
		}
		from := b.from + uint32(i<<6)
		k.left.load(&x, b.stripe, from)
		k.right.load(&y, b.stripe, from)
		m := compareWord(k.relation, &x, &y) & w
		if len(k.bare) > 0 {
			var open uint64
			for j := range x {
				open |= bit(x[j] != x[j] || y[j] != y[j]) << (j & 63)
			}
			for open &= w; open != 0; open &= open - 1 {
				j := uint32(bits.TrailingZeros64(open))
				if k.comparable(base+from+j) && k.rest.pass(base+from+j) {
					m |= 1 << j
				}
			}
		}
		b.bits[i] = m
	}
}

// comparable reports whether a side is no number, but may be compared.
func (k *kernel) comparable(ord uint32) bool {
	for _, b := range k.bare {
		if b.column == nil {
			continue
		}
		if x := b.column.get(ord); x.coded() {
			switch b.column.entries[x.code()].kind() {
			case Null, Bool, String:
				return true
			}
		}
	}
	return false
}

func compareWord(r relation, x, y *[64]float64) (m uint64) {
	switch r {
	case less:
		for i := range x {
			m |= bit(x[i] < y[i]) << (i & 63)
		}
	case lessEqual:
		for i := range x {
			m |= bit(x[i] <= y[i]) << (i & 63)
		}
	case greater:
		for i := range x {
			m |= bit(x[i] > y[i]) << (i & 63)
		}
	case greaterEqual:
		for i := range x {
			m |= bit(x[i] >= y[i]) << (i & 63)
		}
	case equal:
		for i := range x {
			m |= bit(x[i] == y[i]) << (i & 63)
		}
	case differs:
		for i := range x {
			m |= (bit(x[i] < y[i]) | bit(x[i] > y[i])) << (i & 63)
		}
	}
	return m
}
