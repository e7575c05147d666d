package query

import (
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
	store   *store
	program *program
	want    bool
	now     time.Time
	row     single
	text    func() string

	equals  []Value // the values that pass, if that can be said; else nil
	numbers numberTest
	column  *column // that the table is of
	asked   uint64  // the dictionary's changes that the table knows
	table   []uint8 // by code
	coded   bool    // a row that is not an inline number may pass
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
			t.column = nil
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
		t.table = slices.Grow(t.table[:0], len(c.entries))[:len(c.entries)]
		clear(t.table)
		for _, v := range t.equals {
			if code, ok := c.find(v); ok {
				t.table[code] = passes
				t.coded = true
			}
		}
		return
	}
	for code := len(t.table); code < len(c.entries); code++ {
		t.table = append(t.table, notAsked)
	}
	eager := c.live <= eagerEntries
	for code := range t.table {
		if uint32(code) >= firstCode && !eager {
			t.coded = true
			break
		}
		if t.table[code] == notAsked && (uint32(code) < firstCode || c.entries[code].count > 0) {
			t.table[code] = answer(t.judge(c.value(uint32(code))))
		}
		t.coded = t.coded || t.table[code] == passes
	}
}

// pass tells about a code.
func (t *columnTest) pass(code uint32) bool {
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

func (t *columnTest) filterOne(b *block, codes []uint8) {
	// Codes of a byte number at most 256, so that all have been asked, or are
	// not in use, unless the dictionary is larger by now.
	var table [256]uint8
	copy(table[:], t.table)
	for i, w := range b.bits {
		if w == 0 {
			continue
		}
		row := (*[64]uint8)(codes[i<<6:])
		var m, open uint64
		for k, code := range row {
			p := uint64(table[code])
			m |= (p & 1) << (k & 63)
			open |= (p >> 1) << (k & 63)
		}
		for open &= w; open != 0; open &= open - 1 {
			k := bits.TrailingZeros64(open)
			if t.pass(uint32(row[k])) {
				m |= 1 << (k & 63)
			}
			table[row[k]] = t.table[row[k]]
		}
		b.bits[i] = w & m
	}
}

func (t *columnTest) filterTwo(b *block, codes []uint16) {
	table := t.table
	for i, w := range b.bits {
		if w == 0 {
			continue
		}
		row := (*[64]uint16)(codes[i<<6:])
		var m, open uint64
		for k, code := range row {
			p := uint64(table[code])
			m |= (p & 1) << (k & 63)
			open |= (p >> 1) << (k & 63)
		}
		for open &= w; open != 0; open &= open - 1 {
			k := bits.TrailingZeros64(open)
			if t.pass(uint32(row[k])) {
				m |= 1 << (k & 63)
			}
		}
		b.bits[i] = w & m
	}
}

func (t *columnTest) filterFour(b *block, codes []uint32) {
	table := t.table
	for i, w := range b.bits {
		var m uint64
		for rest := w; rest != 0; rest &= rest - 1 {
			k := bits.TrailingZeros64(rest)
			code := codes[i<<6+k]
			if p := table[code]; p == passes || p == notAsked && t.pass(code) {
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
			m = t.numbers.word(row) & w
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

// word tests 64 rows; those that are no numbers do not pass.
func (t *numberTest) word(row *[64]cell) (m uint64) {
	c := t.constant
	if t.set != nil || t.relation == always {
		for k, x := range row {
			if !x.coded() && t.pass(x.number()) {
				m |= 1 << (k & 63)
			}
		}
		return m
	}
	switch t.relation {
	case less:
		for k, x := range row {
			m |= bit(math.Float64frombits(uint64(x)) < c) << (k & 63)
		}
	case lessEqual:
		for k, x := range row {
			m |= bit(math.Float64frombits(uint64(x)) <= c) << (k & 63)
		}
	case greater:
		for k, x := range row {
			m |= bit(math.Float64frombits(uint64(x)) > c) << (k & 63)
		}
	case greaterEqual:
		for k, x := range row {
			m |= bit(math.Float64frombits(uint64(x)) >= c) << (k & 63)
		}
	case equal:
		for k, x := range row {
			m |= bit(math.Float64frombits(uint64(x)) == c) << (k & 63)
		}
	case differs:
		for k, x := range row {
			f := math.Float64frombits(uint64(x))
			m |= (bit(f < c) | bit(f > c)) << (k & 63)
		}
	}
	return m
}

func bit(b bool) (m uint64) {
	if b {
		m = 1
	}
	return m
}
