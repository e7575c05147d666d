package storage

import (
	"bytes"
	"iter"
)

// Chunk is a run of records as they are stored. Decoding them is most of the work of a scan, and
// several goroutines can share it: one iterates over chunks, others decode.
type Chunk[T any] struct {
	table *Table[T]
	pairs []pair
}

// Chunks yields the records of a range in the order of their keys, up to size in a Chunk; an
// error ends it. A Chunk stays valid after the Reader has ended.
func (t *Table[T]) Chunks(r Reader, g Range, size int) iter.Seq2[Chunk[T], error] {
	lo, hi := g.bounds(t.prefix)
	return func(yield func(Chunk[T], error) bool) {
		if empty(lo, hi) {
			return
		}
		c := Chunk[T]{table: t}
		last := 0 // bytes of the chunk that is being made, or of the one before
		var slab []byte
		for p, err := range r.scan(lo, hi, g.Reverse) {
			if err != nil {
				yield(Chunk[T]{}, err)
				return
			}
			if c.pairs == nil {
				c.pairs = make([]pair, 0, size)
				slab = make([]byte, 0, last+last/8) // the next chunk tends to be as large as the last one
				last = 0
			}
			at := len(slab)
			slab = append(append(slab, p.key...), p.value...)
			key := slab[at : at+len(p.key) : at+len(p.key)]
			c.pairs = append(c.pairs, pair{key: key, value: slab[at+len(p.key) : len(slab) : len(slab)]})
			last += len(p.key) + len(p.value)
			if len(c.pairs) == size {
				if !yield(c, nil) {
					return
				}
				c.pairs = nil
			}
		}
		if len(c.pairs) > 0 {
			yield(c, nil)
		}
	}
}

// Len returns how many records the chunk has, at least one.
func (c Chunk[T]) Len() int { return len(c.pairs) }

// Keys returns the keys of the chunk's first and last record.
func (c Chunk[T]) Keys() (first, last Key) {
	key := func(p pair) Key { return bytes.Clone(p.key[len(c.table.prefix):]) }
	return key(c.pairs[0]), key(c.pairs[len(c.pairs)-1])
}

// Items decodes the records in their order. An error ends it.
func (c Chunk[T]) Items() iter.Seq2[Item[T], error] {
	return func(yield func(Item[T], error) bool) {
		for _, p := range c.pairs {
			v, err := c.table.decode(p.key, p.value)
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			if !yield(Item[T]{Key: bytes.Clone(p.key[len(c.table.prefix):]), Value: v}, nil) {
				return
			}
		}
	}
}
