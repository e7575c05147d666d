package query

import (
	bytesof "encoding/binary" // binary is an expression
	"math"
	"math/bits"
	"slices"
	"time"
)

// slowRow is the cost of a row, in nanoseconds, from which on a test is put off
// until a row is really wanted.
const slowRow = 20

// eagerEntries is up to how many entries of a dictionary a test looks at before
// it begins; of a larger one it looks at an entry when a row has it.
const eagerEntries = 4096

// What a test thinks of a code.
const (
	fails uint8 = iota
	passes
	notAsked
)

// columnTest is an expression that reads one path. It is evaluated once for each
// distinct value, and looked up for each row.
type columnTest struct {
	binding *binding
	program *program
	want    bool
	now     time.Time
	row     single

	equals  []Value // the values that pass, if that can be said; else nil
	numbers numberTest
	column  *column  // that the table is of
	asked   uint64   // the dictionary's changes that the table knows
	table   []uint8  // by code
	codes   []uint32 // those that pass, in place of a table of a large dictionary
	lazy    bool     // not all codes have been asked
	coded   bool     // a row that is not an inline number may pass
}

// judge evaluates the expression for a value.
func (t *columnTest) judge(v Value) bool {
	t.row.value = v
	got := t.program.eval(&t.row, t.now)
	return got.kind == Bool && got.Bool() == t.want
}

func answer(pass bool) uint8 {
	if pass {
		return passes
	}
	return fails
}

// prepare brings the table up to date. Codes do not change their meaning while
// the query runs, but some may be new.
func (t *columnTest) prepare() {
	c := t.binding.column
	if c == nil {
		if t.column != nil || t.table == nil {
			t.table = []uint8{answer(t.judge(Value{}))}
			t.column, t.codes = nil, nil
		}
		return
	}
	if t.column == c && t.asked == c.changes {
		return
	}
	if t.column != c {
		t.column, t.table = c, nil
	}
	t.asked = c.changes
	t.coded = false
	if t.equals != nil {
		t.prepareEquals(c)
		return
	}
	for code := len(t.table); code < len(c.entries); code++ {
		t.table = append(t.table, notAsked)
	}
	t.lazy = c.live > eagerEntries
	for code := range t.table {
		if uint32(code) >= firstCode && t.lazy {
			t.coded = true
			break
		}
		if t.table[code] == notAsked && (uint32(code) < firstCode || c.entries[code].count() > 0) {
			t.table[code] = answer(t.judge(c.value(uint32(code))))
		}
		t.coded = t.coded || t.table[code] == passes
	}
}

// prepareEquals finds the codes of the values that pass.
func (t *columnTest) prepareEquals(c *column) {
	t.table, t.codes, t.lazy = nil, []uint32{}, false
	for _, v := range t.equals {
		if code, ok := c.find(v); ok {
			t.codes = append(t.codes, code)
		}
	}
	t.coded = len(t.codes) > 0
	if len(c.entries) > 1<<16 {
		slices.Sort(t.codes)
		return
	}
	t.table = make([]uint8, len(c.entries))
	for _, code := range t.codes {
		t.table[code] = passes
	}
	t.codes = nil
}

// pass tells about a code.
func (t *columnTest) pass(code uint32) bool {
	if t.codes != nil {
		if len(t.codes) == 1 {
			return t.codes[0] == code
		}
		_, found := slices.BinarySearch(t.codes, code)
		return found
	}
	p := t.table[code]
	if p == notAsked {
		p = answer(t.judge(t.column.value(code)))
		t.table[code] = p
	}
	return p == passes
}

func (t *columnTest) passCell(c cell) bool {
	if c.coded() {
		return t.pass(c.code())
	}
	return t.passNumber(c.number())
}

func (t *columnTest) passNumber(f float64) bool {
	if t.numbers.known {
		return t.numbers.pass(f)
	}
	return t.judge(NumberValue(f))
}

// filter implements test.
func (t *columnTest) filter(b *block) {
	t.prepare()
	var s *stripe
	if c := t.binding.column; c != nil && b.stripe < len(c.stripes) {
		s = c.stripes[b.stripe]
	}
	if s == nil {
		if !t.pass(codeUndefined) {
			clear(b.bits)
		}
		return
	}
	switch s.form {
	case sparse:
		t.filterSparse(b, s)
	case one:
		t.filterOne(b, s.one[b.from:])
	case two:
		t.filterTwo(b, s.two[b.from:])
	case four:
		t.filterFour(b, s.four[b.from:])
	case floats:
		t.filterFloats(b, s.floats[b.from:])
	}
}

func (t *columnTest) filterSparse(b *block, s *stripe) {
	i, _ := slices.BinarySearch(s.offsets, uint16(b.from))
	if t.pass(codeUndefined) {
		for ; i < len(s.offsets) && int(s.offsets[i]-uint16(b.from)) < len(b.bits)*64; i++ {
			at := uint32(s.offsets[i]) - b.from
			if b.bits[at>>6]>>(at&63)&1 == 1 && !t.passCell(s.cells[i]) {
				b.bits[at>>6] &^= 1 << (at & 63)
			}
		}
		return
	}
	// All others go; the words are taken one after the other.
	done := 0
	for i < len(s.offsets) {
		w := int(uint32(s.offsets[i])-b.from) >> 6
		if w >= len(b.bits) {
			break
		}
		var m uint64
		for ; i < len(s.offsets) && int(uint32(s.offsets[i])-b.from)>>6 == w; i++ {
			if k := (uint32(s.offsets[i]) - b.from) & 63; b.bits[w]>>k&1 == 1 && t.passCell(s.cells[i]) {
				m |= 1 << (k & 63)
			}
		}
		clear(b.bits[done:w])
		b.bits[w] &= m
		done = w + 1
	}
	clear(b.bits[done:])
}

// few is up to how many rows of a word are looked at one by one.
const few = 12

func (t *columnTest) filterOne(b *block, codes []uint8) {
	// The dictionary may have many codes more; of these 256 all are asked.
	var table [256]uint8
	passing, last := 0, uint8(0)
	for code := range min(len(t.column.entries), len(table)) {
		if t.column.entries[code].count() > 0 && t.pass(uint32(code)) || code == int(codeUndefined) && t.pass(codeUndefined) {
			table[code] = 1
			passing, last = passing+1, uint8(code)
		}
	}
	for i, w := range b.bits {
		if w == 0 {
			continue
		}
		row := (*[64]uint8)(codes[i<<6:])
		switch {
		case passing == 1:
			w &= equalBytes(row, last)
		case bits.OnesCount64(w) < few:
			for rest := w; rest != 0; rest &= rest - 1 {
				k := bits.TrailingZeros64(rest)
				w &^= uint64(1-table[row[k]]) << (k & 63)
			}
		default:
			var m uint64
			for k := 0; k < 64; k += 8 {
				r := (*[8]uint8)(row[k:])
				m |= uint64(table[r[0]]|table[r[1]]<<1|table[r[2]]<<2|table[r[3]]<<3|
					table[r[4]]<<4|table[r[5]]<<5|table[r[6]]<<6|table[r[7]]<<7) << (k & 63)
			}
			w &= m
		}
		b.bits[i] = w
	}
}

// equalBytes returns a bit for each of 64 bytes that is the wanted one. Eight bytes are compared
// at a time, in one word: a byte's high bit says that it is another one. The bits of the eight
// words come together in one, byte by byte, which is then transposed as a matrix of 8 by 8 (Warren,
// Hacker's Delight, 7-3).
func equalBytes(row *[64]uint8, want uint8) uint64 {
	const ones, low, high = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
	pattern := uint64(want) * ones
	other := func(k int) uint64 {
		x := bytesof.LittleEndian.Uint64(row[k*8:]) ^ pattern
		return (x&low + low | x) & high
	}
	m := other(0)>>7 | other(1)>>6 | other(2)>>5 | other(3)>>4 | other(4)>>3 | other(5)>>2 | other(6)>>1 | other(7)
	t := (m ^ m>>7) & 0x00aa00aa00aa00aa
	m ^= t ^ t<<7
	t = (m ^ m>>14) & 0x0000cccc0000cccc
	m ^= t ^ t<<14
	t = (m ^ m>>28) & 0x00000000f0f0f0f0
	return ^(m ^ t ^ t<<28)
}

func (t *columnTest) filterTwo(b *block, codes []uint16) {
	table := t.table
	for i, w := range b.bits {
		if w == 0 {
			continue
		}
		row := (*[64]uint16)(codes[i<<6:])
		if table == nil || t.lazy || bits.OnesCount64(w) < few {
			for rest := w; rest != 0; rest &= rest - 1 {
				if k := bits.TrailingZeros64(rest); !t.pass(uint32(row[k])) {
					w &^= 1 << (k & 63)
				}
			}
			b.bits[i] = w
			continue
		}
		var m uint64
		for k := 0; k < 64; k += 8 {
			r := (*[8]uint16)(row[k:])
			m |= uint64(table[r[0]]|table[r[1]]<<1|table[r[2]]<<2|table[r[3]]<<3|
				table[r[4]]<<4|table[r[5]]<<5|table[r[6]]<<6|table[r[7]]<<7) << (k & 63)
		}
		b.bits[i] = w & m
	}
}

func (t *columnTest) filterFour(b *block, codes []uint32) {
	for i, w := range b.bits {
		var m uint64
		for rest := w; rest != 0; rest &= rest - 1 {
			k := bits.TrailingZeros64(rest)
			if t.pass(codes[i<<6+k]) {
				m |= 1 << (k & 63)
			}
		}
		b.bits[i] = m
	}
}

func (t *columnTest) filterFloats(b *block, cells []cell) {
	for i, w := range b.bits {
		if w == 0 {
			continue
		}
		row := (*[64]cell)(cells[i<<6:])
		var m uint64
		if t.numbers.known {
			m = t.numbers.word(row, w)
		} else {
			for rest := w; rest != 0; rest &= rest - 1 {
				k := bits.TrailingZeros64(rest)
				if !row[k].coded() && t.judge(NumberValue(row[k].number())) {
					m |= 1 << (k & 63)
				}
			}
		}
		if t.coded {
			for rest := w &^ m; rest != 0; rest &= rest - 1 {
				k := bits.TrailingZeros64(rest)
				if row[k].coded() && t.pass(row[k].code()) {
					m |= 1 << (k & 63)
				}
			}
		}
		b.bits[i] = m
	}
}

// relation is how a number compares to a constant for a test to pass.
type relation uint8

// The relations. Without one, all numbers pass or none does.
const (
	always relation = iota
	never
	less
	lessEqual
	greater
	greaterEqual
	equal
	differs
)

// numberTest is a test on numbers that needs no program.
type numberTest struct {
	known    bool
	relation relation
	constant float64
	set      map[float64]bool // instead of one constant, with equal and differs
}

func (t *numberTest) pass(f float64) bool {
	if t.set != nil {
		return t.set[f] == (t.relation == equal)
	}
	switch t.relation {
	case less:
		return f < t.constant
	case lessEqual:
		return f <= t.constant
	case greater:
		return f > t.constant
	case greaterEqual:
		return f >= t.constant
	case equal:
		return f == t.constant
	case differs:
		return f < t.constant || f > t.constant
	}
	return t.relation == always
}

// word tests those of 64 rows that are asked for; what is no number does not pass.
func (t *numberTest) word(row *[64]cell, asked uint64) (m uint64) {
	if t.set != nil || t.relation == always || t.relation == never || bits.OnesCount64(asked) < few {
		for ; asked != 0; asked &= asked - 1 {
			k := bits.TrailingZeros64(asked)
			if !row[k].coded() && t.pass(row[k].number()) {
				m |= 1 << (k & 63)
			}
		}
		return m
	}
	// Everything else is a range, or what is outside of one.
	low, high, c := math.Inf(-1), math.Inf(1), t.constant
	switch t.relation {
	case less:
		high = math.Nextafter(c, low)
	case lessEqual:
		high = c
	case greater:
		low = math.Nextafter(c, high)
	case greaterEqual:
		low = c
	case equal:
		low, high = c, c
	case differs:
		for k := 0; k < 64; k += 4 {
			r := (*[4]cell)(row[k:])
			m |= (beside(r[0], c) | beside(r[1], c)<<1 | beside(r[2], c)<<2 | beside(r[3], c)<<3) << (k & 63)
		}
		return m & asked
	}
	for k := 0; k < 64; k += 4 {
		r := (*[4]cell)(row[k:])
		m |= (inside(r[0], low, high) | inside(r[1], low, high)<<1 | inside(r[2], low, high)<<2 | inside(r[3], low, high)<<3) << (k & 63)
	}
	return m & asked
}

// A code is a NaN and therefore neither inside nor beside.
func inside(x cell, low, high float64) uint64 {
	f := x.number()
	return bit(f >= low) & bit(f <= high)
}

func beside(x cell, c float64) uint64 {
	f := x.number()
	return bit(f < c) | bit(f > c)
}

func bit(b bool) (m uint64) {
	if b {
		m = 1
	}
	return m
}
