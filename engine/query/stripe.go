package query

import "slices"

// stripeRows is how many rows a stripe has.
const (
	stripeBits = 14
	stripeRows = 1 << stripeBits
	sparseMost = 1024 // rows with a value in a sparse stripe
)

// form is how a stripe keeps its cells.
type form uint8

// The forms. A stripe goes to a wider one when a cell needs it, alone.
const (
	sparse form = iota // only rows with a value, sorted
	one                // codes of a byte
	two
	four
	floats // cells as float64: numbers, and codes in NaNs
)

// stripe is a run of stripeRows rows of a column. Of the slices one is in use,
// or offsets and cells.
type stripe struct {
	form    form
	used    int // rows that are not undefined
	offsets []uint16
	cells   []cell
	one     []uint8
	two     []uint16
	four    []uint32
	floats  []cell
}

func (s *stripe) get(at uint32) cell {
	switch s.form {
	case one:
		return codeCell(uint32(s.one[at]))
	case two:
		return codeCell(uint32(s.two[at]))
	case four:
		return codeCell(s.four[at])
	case floats:
		return s.floats[at]
	}
	if i, ok := slices.BinarySearch(s.offsets, uint16(at)); ok {
		return s.cells[i]
	}
	return codeCell(codeUndefined)
}

// set stores a cell; what was there before is old.
func (s *stripe) set(at uint32, old, c cell) {
	undefined := codeCell(codeUndefined)
	if old == undefined {
		s.used++
	}
	if c == undefined {
		s.used--
	}
	if s.form == sparse {
		i, found := slices.BinarySearch(s.offsets, uint16(at))
		switch {
		case found && c == undefined:
			s.offsets = slices.Delete(s.offsets, i, i+1)
			s.cells = slices.Delete(s.cells, i, i+1)
			return
		case found:
			s.cells[i] = c
			return
		case c == undefined:
			return
		case len(s.offsets) < sparseMost:
			s.offsets = slices.Insert(s.offsets, i, uint16(at))
			s.cells = slices.Insert(s.cells, i, c)
			return
		}
	}
	if need := formOf(c); need > s.form {
		s.widen(need)
	}
	s.store(at, c)
}

func (s *stripe) store(at uint32, c cell) {
	switch s.form {
	case one:
		s.one[at] = uint8(c)
	case two:
		s.two[at] = uint16(c)
	case four:
		s.four[at] = uint32(c)
	case floats:
		s.floats[at] = c
	}
}

// formOf returns the narrowest dense form that holds a cell.
func formOf(c cell) form {
	switch {
	case !c.coded():
		return floats
	case c.code() < 1<<8:
		return one
	case c.code() < 1<<16:
		return two
	}
	return four
}

// widen changes to a wider form. Of a sparse stripe all cells fit it, or it
// becomes wider still.
func (s *stripe) widen(to form) {
	if s.form == sparse {
		for _, c := range s.cells {
			to = max(to, formOf(c))
		}
	}
	next := stripe{form: to, used: s.used}
	switch to {
	case one:
		next.one = make([]uint8, stripeRows)
	case two:
		next.two = make([]uint16, stripeRows)
	case four:
		next.four = make([]uint32, stripeRows)
	case floats:
		next.floats = make([]cell, stripeRows)
		for i := range next.floats {
			next.floats[i] = codeCell(codeUndefined)
		}
	}
	if s.form == sparse {
		for i, at := range s.offsets {
			next.store(uint32(at), s.cells[i])
		}
	} else {
		for at := range uint32(stripeRows) {
			next.store(at, s.get(at))
		}
	}
	*s = next
}

// each calls f for every row that is not undefined.
func (s *stripe) each(f func(at uint32, c cell)) {
	if s.form == sparse {
		for i, at := range s.offsets {
			f(uint32(at), s.cells[i])
		}
		return
	}
	for at := range uint32(stripeRows) {
		if c := s.get(at); c != codeCell(codeUndefined) {
			f(at, c)
		}
	}
}

func (s *stripe) bytes() int64 {
	const head = 144
	return head + int64(cap(s.offsets))*2 + int64(cap(s.cells))*8 +
		int64(len(s.one)) + int64(len(s.two))*2 + int64(len(s.four))*4 + int64(len(s.floats))*8
}

// column is the values of one path.
type column struct {
	dictionary
	stripes []*stripe // nil: undefined throughout
	inline  bool      // new numbers need no code
	used    int       // rows that are not undefined
	kinds   [Object + 1]int
	cells   int64  // bytes of stripes
	creator uint32 // the row that had the path first
	asked   int64  // when a query last used it; atomic
	dropped bool
}

// distinctNumbers is how many numbers get a code before a column keeps floats.
const distinctNumbers = 255

func newColumn(creator uint32) *column { return &column{dictionary: newDictionary(), creator: creator} }

func (c *column) size() int64 { return c.cells + c.dictionary.bytes() + 256 + int64(cap(c.stripes))*8 }

func (c *column) get(ord uint32) cell {
	if k := int(ord >> stripeBits); k < len(c.stripes) {
		if s := c.stripes[k]; s != nil {
			return s.get(ord & (stripeRows - 1))
		}
	}
	return codeCell(codeUndefined)
}

// rows calls f for each row that has the path.
func (c *column) rows(f func(ord uint32)) {
	for i, s := range c.stripes {
		if s != nil {
			s.each(func(at uint32, _ cell) { f(uint32(i)<<stripeBits + at) })
		}
	}
}

// set gives a row a value.
func (c *column) set(ord uint32, v Value, now uint64) {
	old := c.get(ord)
	next := c.cell(v)
	c.leave(old, now)
	c.enter(v.kind)
	c.put(ord, old, next)
}

// cell returns the cell for a value, which one more row has from now on.
func (c *column) cell(v Value) cell {
	if v.kind == Number {
		v.number += 0 // -0 is 0
		if v.number != v.number {
			v = NullValue()
		} else if c.inline {
			return numberCell(v.number)
		}
	}
	code := c.take(v)
	if v.kind == Number && c.numbers > distinctNumbers {
		c.inline = true
	}
	return codeCell(code)
}

func (c *column) enter(k Kind) {
	c.kinds[k]++
	if k != Undefined {
		c.used++
	}
}

func (c *column) leave(old cell, now uint64) {
	kind := Number
	if old.coded() {
		kind = c.entries[old.code()].kind()
		c.give(old.code(), now)
	}
	c.kinds[kind]--
	if kind != Undefined {
		c.used--
	}
}

func (c *column) put(ord uint32, old, next cell) {
	k := int(ord >> stripeBits)
	for k >= len(c.stripes) {
		c.stripes = append(c.stripes, nil)
	}
	s := c.stripes[k]
	if s == nil {
		if next == codeCell(codeUndefined) {
			return
		}
		s = &stripe{}
		c.stripes[k] = s
		c.cells += s.bytes()
	}
	before := s.bytes()
	s.set(ord&(stripeRows-1), old, next)
	if s.used == 0 {
		c.stripes[k] = nil
		c.cells -= before
		return
	}
	c.cells += s.bytes() - before
}
