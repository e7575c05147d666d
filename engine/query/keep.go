package query

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
)

// Columns that were built from a million documents can be kept in a file, so that
// a restart need not build them again. What is kept is what can't be computed: ids,
// texts and cells. Hashes, counts and sizes are computed when it is read, which also
// shows whether it fits together.

// holesMost is how many times as many ordinals as rows are taken over.
const holesMost = 8

// ErrPartial is the error of Keep when some paths have no column: a new build may
// have room for them, so these columns are not worth keeping.
var ErrPartial = errors.New("some paths have no column")

// The parts of what Keep writes, each a message of gob: first keptRows, then a
// keptIDs for each stripe of rows, keptOrder, and keptColumns.
type (
	keptRows struct {
		Ordinals int
		Alive    []uint64
		Columns  int
	}
	keptTexts struct {
		Lengths []uint32
		Texts   []byte // end to end
	}
	keptIDs struct { // of rows that are alive
		IDs   keptTexts
		Notes []uint32
	}
	keptOrder struct {
		Sorted []uint32 // ordinals by their ids
	}
	keptColumn struct {
		Path    []string
		Creator uint32
		Inline  bool
		Kinds   []byte // by code, from firstCode on; Undefined where the code is free
		Values  keptTexts
		Stripes []keptStripe
	}
	keptStripe struct {
		Number  int
		Form    uint8
		Offsets []uint16
		Cells   []uint64 // of sparse or floats
		One     []uint8
		Two     []uint16
		Four    []uint32
	}
)

func (t *keptTexts) add(text string) {
	t.Lengths = append(t.Lengths, uint32(len(text)))
	t.Texts = append(t.Texts, text...)
}

// next takes the first text out.
func (t *keptTexts) next() (string, error) {
	if len(t.Lengths) == 0 || uint64(t.Lengths[0]) > uint64(len(t.Texts)) {
		return "", errors.New("there are fewer texts than there should be")
	}
	n := t.Lengths[0]
	text := string(t.Texts[:n])
	t.Lengths, t.Texts = t.Lengths[1:], t.Texts[n:]
	return text, nil
}

// Keep writes all rows, for Restore. Its error is ErrPartial, or w's. Changes wait
// meanwhile, queries do not.
func (c *Columns) Keep(w io.Writer) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.store
	if c.builder != nil || s.lost > 0 || s.refused.total > 0 {
		return ErrPartial
	}
	enc := gob.NewEncoder(w)
	err := enc.Encode(keptRows{s.ids.len(), s.alive, s.columns})
	for from := 0; from < s.ids.len() && err == nil; from += stripeRows {
		var kept keptIDs
		for ord := from; ord < min(from+stripeRows, s.ids.len()); ord++ {
			if s.isAlive(uint32(ord)) {
				kept.IDs.add(s.ids.at(uint32(ord)))
				kept.Notes = append(kept.Notes, s.notes[ord])
			}
		}
		err = enc.Encode(kept)
	}
	if err == nil {
		err = enc.Encode(keptOrder{s.sorted.all()})
	}
	s.each(func(n *node) {
		if err == nil {
			err = enc.Encode(n.keep())
		}
	})
	return err
}

func (n *node) keep() keptColumn {
	c := n.column
	k := keptColumn{Path: n.path(), Creator: c.creator, Inline: c.inline}
	for _, e := range c.entries[firstCode:] {
		if e.count() == 0 {
			k.Kinds = append(k.Kinds, byte(Undefined))
			continue
		}
		k.Kinds = append(k.Kinds, byte(e.kind()))
		k.Values.add(c.texts.text(e.place))
	}
	for i, s := range c.stripes {
		if s == nil {
			continue
		}
		kept := keptStripe{Number: i, Form: uint8(s.form), Offsets: s.offsets, One: s.one, Two: s.two, Four: s.four}
		for _, x := range s.cells {
			kept.Cells = append(kept.Cells, uint64(x))
		}
		for _, x := range s.floats {
			kept.Cells = append(kept.Cells, uint64(x))
		}
		k.Stripes = append(k.Stripes, kept)
	}
	return k
}

// Restore puts the rows that Keep wrote in place of all that were there, for
// columns with the same options. It must not run while rows are loaded (Build).
// After an error nothing has changed: what was read is not what Keep writes, or
// needs more memory than the columns may take. r should be an io.ByteReader, as
// else more may be read from it than Keep wrote.
func (c *Columns) Restore(r io.Reader) error {
	s := newStore(c.options, c.seed)
	if err := s.restore(gob.NewDecoder(r)); err != nil {
		return fmt.Errorf("kept columns: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.builder != nil {
		return errors.New("rows are being loaded")
	}
	s.shape = c.store.shape + 1
	c.store = s
	return nil
}

func (s *store) restore(dec *gob.Decoder) error {
	var rows keptRows
	if err := dec.Decode(&rows); err != nil {
		return err
	}
	if rows.Ordinals < 0 || rows.Ordinals >= 1<<31 || len(rows.Alive) != (rows.Ordinals+stripeRows-1)/stripeRows*stripeRows/64 {
		return errors.New("the rows are not as many as they should be")
	}
	for _, w := range rows.Alive {
		s.count += bits.OnesCount64(w)
	}
	if rows.Ordinals > holesMost*(s.count+stripeRows) {
		return errors.New("most rows are gone: a new build takes less memory")
	}
	if err := s.restoreIDs(dec, &rows); err != nil {
		return err
	}
	for range rows.Columns {
		var k keptColumn
		if err := dec.Decode(&k); err != nil {
			return err
		}
		if err := s.restoreColumn(&k); err != nil {
			return fmt.Errorf("path %q: %w", k.Path, err)
		}
	}
	if s.bytes > s.options.Memory {
		return errors.New("they take more memory than they may")
	}
	return nil
}

func (s *store) restoreIDs(dec *gob.Decoder, rows *keptRows) error {
	s.ids.places = make([]uint32, 0, rows.Ordinals)
	s.notes = make([]uint32, rows.Ordinals)
	for from := 0; from < rows.Ordinals; from += stripeRows {
		var kept keptIDs
		if err := dec.Decode(&kept); err != nil {
			return err
		}
		if len(kept.Notes) != len(kept.IDs.Lengths) {
			return errors.New("not each row has a note")
		}
		for ord := from; ord < min(from+stripeRows, rows.Ordinals); ord++ {
			if rows.Alive[ord>>6]>>(ord&63)&1 == 0 {
				s.free = append(s.free, uint32(ord))
				s.ids.skip()
				continue
			}
			id, err := kept.IDs.next()
			if err != nil {
				return err
			}
			s.ids.push(id)
			s.notes[ord], kept.Notes = kept.Notes[0], kept.Notes[1:]
		}
	}
	var order keptOrder
	if err := dec.Decode(&order); err != nil {
		return err
	}
	// Each row once: as many as are alive, and no two ids the same.
	if len(order.Sorted) != s.count {
		return errors.New("the order of ids has not each row")
	}
	s.alive = rows.Alive
	s.index.reserve(s.count, uint32(rows.Ordinals), s.hashes)
	s.spans = slices.Repeat([]span{emptySpan()}, len(rows.Alive)*64/stripeRows)
	before := ""
	for i, ord := range order.Sorted {
		if int(ord) >= rows.Ordinals || !s.isAlive(ord) || i > 0 && s.ids.at(ord) <= before {
			return errors.New("the order of ids is not one")
		}
		before = s.ids.at(ord)
		s.index.add(s.hash(before), ord, s.hashes)
		s.spans[ord>>stripeBits].add(&s.ids, ord)
	}
	s.sorted.fill(order.Sorted)
	return nil
}

func (s *store) restoreColumn(k *keptColumn) error {
	if len(k.Path) == 0 {
		return errors.New("it is empty")
	}
	n := s.root
	for _, key := range k.Path {
		if n = s.child(n, key); n.role != plain {
			return errors.New("it has no column")
		}
	}
	if n.column != nil {
		return errors.New("it comes twice")
	}
	c := newColumn(k.Creator)
	counts := make([]uint32, int(firstCode)+len(k.Kinds))
	for i := range k.Stripes {
		if err := c.restoreStripe(&k.Stripes[i], s, counts); err != nil {
			return err
		}
	}
	for code := codeNull; code < firstCode; code++ {
		c.entries[code].counted += counts[code] * oneRow
		c.kinds[c.entries[code].kind()] += int(counts[code])
	}
	if err := c.restoreEntries(k, counts[firstCode:]); err != nil {
		return err
	}
	c.kinds[Undefined] = -c.used
	c.inline = k.Inline
	n.column = c
	s.columns++
	s.bytes += c.size()
	return nil
}

// restoreStripe takes a stripe, and counts its codes.
func (c *column) restoreStripe(k *keptStripe, rows *store, counts []uint32) error {
	if k.Number < len(c.stripes) || k.Number >= len(rows.alive)*64/stripeRows {
		return fmt.Errorf("stripe %d is out of place", k.Number)
	}
	cells := make([]cell, len(k.Cells))
	for i, x := range k.Cells {
		cells[i] = cell(x)
	}
	s := &stripe{form: form(k.Form), one: k.One, two: k.Two, four: k.Four}
	whole := false
	switch s.form {
	case sparse:
		s.offsets, s.cells = k.Offsets, cells
		whole = len(s.offsets) == len(s.cells) && len(s.cells) <= sparseMost
		for i, at := range s.offsets {
			whole = whole && at < stripeRows && (i == 0 || s.offsets[i-1] < at)
		}
	case one:
		whole = len(s.one) == stripeRows
	case two:
		whole = len(s.two) == stripeRows
	case four:
		whole = len(s.four) == stripeRows
	case floats:
		s.floats = cells
		whole = len(cells) == stripeRows
	}
	if !whole {
		return fmt.Errorf("stripe %d is not whole", k.Number)
	}
	base, known := uint32(k.Number)<<stripeBits, true
	s.each(func(at uint32, x cell) {
		switch {
		case !rows.isAlive(base + at), x == codeCell(codeUndefined), x.coded() && x != codeCell(x.code()):
			known = false
		case !x.coded():
			c.kinds[Number]++
		case int(x.code()) < len(counts):
			counts[x.code()]++
		default:
			known = false
		}
		s.used++
	})
	if !known {
		return fmt.Errorf("stripe %d has a code without a value, or a value without a row", k.Number)
	}
	c.stripes = append(c.stripes, make([]*stripe, k.Number+1-len(c.stripes))...)
	c.stripes[k.Number] = s
	c.used += s.used
	c.cells += s.bytes()
	return nil
}

// restoreEntries takes the values of codes, of which counts says how many rows have them.
func (c *column) restoreEntries(k *keptColumn, counts []uint32) error {
	c.index.reserve(len(k.Values.Lengths), uint32(len(c.entries)+len(k.Kinds)), c.hashes)
	c.entries = slices.Grow(c.entries, len(k.Kinds))
	for i, kind := range k.Kinds {
		code := uint32(len(c.entries))
		c.entries = append(c.entries, newEntry(Undefined, noPlace, 0))
		if Kind(kind) == Undefined {
			if counts[i] > 0 {
				return errors.New("a row has a code that is free")
			}
			c.free = append(c.free, code)
			continue
		}
		text, err := k.Values.next()
		if err != nil {
			return err
		}
		if counts[i] == 0 {
			return errors.New("no row has a value")
		}
		if err := c.restoreEntry(code, Kind(kind), text, counts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *column) restoreEntry(code uint32, kind Kind, text string, count uint32) error {
	switch kind {
	case String:
	case Number:
		if len(text) != 8 {
			return errors.New("a number is not whole")
		}
		c.numbers++
	case Array:
		v, err := ParseValue([]byte(text))
		if err != nil || v.kind != Array {
			return errors.New("an array is none")
		}
		if c.arrays == nil {
			c.arrays = map[uint32]Value{}
		}
		c.arrays[code] = v
		c.spread += arrayCost(text)
	default:
		return errors.New("a value is of no kind")
	}
	hash := c.hash(kind, text)
	if _, ok := c.search(hash, kind, text); ok {
		return errors.New("a value has two codes")
	}
	c.index.add(hash, code, c.hashes)
	c.entries[code] = newEntry(kind, c.texts.add(text), count)
	c.live++
	c.kinds[kind] += int(count)
	return nil
}
