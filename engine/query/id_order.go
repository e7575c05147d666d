package query

import (
	"slices"
	"sort"
)

// idOrder holds ordinals sorted by their ids, in blocks, so that an id that comes
// or goes moves a block's part only.
type idOrder struct {
	blocks [][]uint32 // none is empty
}

const blockRows = 1024

// place returns the block and the position in it where an id stands or would stand.
func (o *idOrder) place(ids *textList, id string) (block, at int) {
	block = max(0, sort.Search(len(o.blocks), func(i int) bool { return ids.at(o.blocks[i][0]) > id })-1)
	if block < len(o.blocks) {
		b := o.blocks[block]
		at = sort.Search(len(b), func(i int) bool { return ids.at(b[i]) >= id })
	}
	return block, at
}

// insert adds an ordinal; its id is in ids and not yet in the order.
func (o *idOrder) insert(ids *textList, ord uint32) {
	if len(o.blocks) == 0 {
		o.blocks = append(o.blocks, append(make([]uint32, 0, blockRows), ord))
		return
	}
	k := len(o.blocks) - 1
	at := len(o.blocks[k])
	if ids.at(o.blocks[k][at-1]) > ids.at(ord) {
		k, at = o.place(ids, ids.at(ord))
	}
	b := append(o.blocks[k], 0)
	copy(b[at+1:], b[at:])
	b[at] = ord
	o.blocks[k] = b
	if len(b) < blockRows {
		return
	}
	half := len(b) / 2
	if k == len(o.blocks)-1 && at == len(b)-1 {
		half = len(b) - 1 // ids that only grow leave full blocks
	}
	right := append(make([]uint32, 0, blockRows), b[half:]...)
	o.blocks[k] = b[:half:blockRows]
	o.blocks = append(o.blocks, nil)
	copy(o.blocks[k+2:], o.blocks[k+1:])
	o.blocks[k+1] = right
}

// remove takes an ordinal out whose id is still in ids.
func (o *idOrder) remove(ids *textList, ord uint32) {
	k, at := o.place(ids, ids.at(ord))
	if k >= len(o.blocks) || at >= len(o.blocks[k]) || o.blocks[k][at] != ord {
		return
	}
	b := o.blocks[k]
	copy(b[at:], b[at+1:])
	b = b[:len(b)-1]
	o.blocks[k] = b
	switch {
	case len(b) == 0:
		o.blocks = append(o.blocks[:k], o.blocks[k+1:]...)
	case k+1 < len(o.blocks) && len(b)+len(o.blocks[k+1]) < blockRows/2:
		o.blocks[k] = append(b, o.blocks[k+1]...)
		o.blocks = append(o.blocks[:k+1], o.blocks[k+2:]...)
	}
}

// fill takes ordinals that are sorted by id already, in place of all there was.
func (o *idOrder) fill(sorted []uint32) {
	o.blocks = nil
	for len(sorted) > 0 {
		n := min(len(sorted), blockRows*3/4)
		o.blocks = append(o.blocks, append(make([]uint32, 0, blockRows), sorted[:n]...))
		sorted = sorted[n:]
	}
}

// all returns the ordinals in their order.
func (o *idOrder) all() []uint32 { return slices.Concat(o.blocks...) }

// after appends up to n ordinals behind an id to dst; behind "" from the first.
func (o *idOrder) after(dst []uint32, ids *textList, id string, n int) []uint32 {
	k, at := o.place(ids, id)
	if id != "" && k < len(o.blocks) && at < len(o.blocks[k]) && ids.at(o.blocks[k][at]) == id {
		at++
	}
	for ; k < len(o.blocks) && n > 0; k, at = k+1, 0 {
		b := o.blocks[k][at:]
		b = b[:min(n, len(b))]
		dst = append(dst, b...)
		n -= len(b)
	}
	return dst
}

func (o *idOrder) bytes() int64 { return int64(len(o.blocks)) * (blockRows*4 + 24) }
