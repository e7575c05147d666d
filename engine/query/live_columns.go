package query

import (
	"slices"
	"strings"
)

// columnsTable lets live queries read columns.
type columnsTable struct {
	*Columns
	release func() // made once: each change looks twice
}

func (t columnsTable) look() (rows liveRows, release func()) {
	t.mu.RLock()
	return columnsRows{t.store}, t.release
}

// columnsRows are the rows of columns while nobody changes them.
type columnsRows struct{ *store }

func (r columnsRows) ordinal(id string) (uint32, bool) { return r.find(id) }

func (r columnsRows) id(n uint32) (string, bool) {
	if int(n) >= r.ids.len() || !r.isAlive(n) {
		return "", false
	}
	return r.ids.at(n), true
}

func (r columnsRows) ordinals() uint32 { return uint32(r.ids.len()) }

func (r columnsRows) value(n uint32, p Path, place *cellPlace) (Value, bool) {
	if place == nil {
		return r.valueOf(n, p)
	}
	if place.column == nil && !place.identity || place.shape != r.shape {
		*place = cellPlace{r.locate(p), r.shape}
	}
	return r.valueAt(n, place.located)
}

// cellPlace is what columns have of a path, for who asks about it again and again.
type cellPlace struct {
	located        // looked up again where it is neither a column nor the id
	shape   uint64 // of the store when it was looked up
}

func (r columnsRows) holds(p Path) bool { return !r.locate(p).missing }

func (r columnsRows) whole(n uint32, p Path) (v Value, all bool) {
	at := r.root
	for _, key := range p {
		if at = at.children[key]; at == nil {
			return Value{}, true // who asks for a path that got no column does not come here
		}
	}
	all = true
	return r.below(n, at, &all), all
}

// below is what a row has at a path, with all below it. A path that has no
// column of its own is an object if anything is below it. It sets all to false
// when the row may have more.
func (r columnsRows) below(n uint32, at *node, all *bool) Value {
	switch {
	case at.role == outside:
		return Value{}
	case at.role == identity:
		return StringValue(r.ids.at(n))
	case at.column != nil:
		if v := at.column.cellValue(at.column.get(n)); v.kind != Object {
			if v.kind == String { // an event may be kept for long, and a chunk of texts with it
				v.text = strings.Clone(v.text)
			}
			return v
		}
	case at.why != "":
		*all = false
	}
	if at.partial && r.partial.has(n) {
		*all = false
	}
	var members []Member
	for key, child := range at.children {
		if v := r.below(n, child, all); v.kind != Undefined {
			members = append(members, Member{key, v})
		}
	}
	if members == nil && at.column == nil {
		return Value{}
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
	return ObjectValue(members)
}

func (r columnsRows) after(id string, n int, yield func(id string, n uint32)) (more bool) {
	block, at := r.sorted.place(&r.ids, id)
	for ; block < len(r.sorted.blocks); block, at = block+1, 0 {
		for _, ord := range r.sorted.blocks[block][min(at, len(r.sorted.blocks[block])):] {
			switch {
			case r.ids.at(ord) <= id:
				continue
			case n == 0:
				return true
			}
			n--
			yield(r.ids.at(ord), ord)
		}
	}
	return false
}
