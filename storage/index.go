package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Index finds records by something else than their key. Keys returns the index keys of a record:
// none, one or several; it must depend on its arguments only.
type Index[T any] struct {
	Name string
	Keys func(key Key, v T) []Key

	prefix []byte
}

// An index entry's key is prefix, index key and record key; its value says where in the raw key
// the record's key begins.
func indexValue(raw []byte, at int) []byte {
	b := beginFrame(make([]byte, 0, frameHeader+2), 1)
	return endFrame(raw, binary.BigEndian.AppendUint16(b, uint16(at)))
}

func indexSplit(raw, value []byte) (at int, err error) {
	_, payload, err := unframe(raw, value)
	if err != nil {
		return 0, err
	}
	if len(payload) != 2 || int(binary.BigEndian.Uint16(payload)) > len(raw) {
		return 0, badValue(raw, "an index entry points nowhere")
	}
	return int(binary.BigEndian.Uint16(payload)), nil
}

// Lookup yields the records whose index keys lie in a range, in the order of index key and
// record key. The bounds of the range compare with the index key followed by the record's key, so
// After continues behind a record when it is that concatenation.
func (t *Table[T]) Lookup(r Reader, index string, g Range) iter.Seq2[Item[T], error] {
	var prefix []byte
	for i := range t.indexes {
		if t.indexes[i].Name == index {
			prefix = t.indexes[i].prefix
		}
	}
	if prefix == nil {
		panic(fmt.Sprintf("storage: table %s has no index %q", t.name, index))
	}
	lo, hi := g.bounds(prefix)
	return func(yield func(Item[T], error) bool) {
		if empty(lo, hi) {
			return
		}
		for p, err := range r.scan(lo, hi, g.Reverse) {
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			at, err := indexSplit(p.key, p.value)
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			key := Key(bytes.Clone(p.key[at:]))
			raw := t.raw(key)
			value, err := r.get(raw)
			if errors.Is(err, ErrNotFound) {
				err = badValue(raw, "index %s points to a record that does not exist", index)
			}
			var v T
			if err == nil {
				v, err = t.decode(raw, value)
			}
			if err != nil {
				yield(Item[T]{}, err)
				return
			}
			if !yield(Item[T]{Key: key, Value: v}, nil) {
				return
			}
		}
	}
}
