package query

// span is which rows of a stripe have its least and its greatest id, by their ordinals.
// A fleet comes mostly in the order of its ids, and is loaded in it when a hub starts, so
// that what a page wants stands in few stripes (candidates).
type span struct{ first, last uint32 }

// What a span has in place of an ordinal.
const (
	noRow   = ^uint32(0)     // no row has been there
	anyRow  = ^uint32(0) - 1 // it is not known any more
	spanned = anyRow         // ordinals are below
)

// emptySpan is the span of a stripe without rows.
func emptySpan() span { return span{noRow, noRow} }

// add takes a row in, whose id is in ids.
func (s *span) add(ids *textList, ord uint32) {
	id := ids.at(ord)
	if s.first == noRow || s.first < spanned && id < ids.at(s.first) {
		s.first = ord
	}
	if s.last == noRow || s.last < spanned && id > ids.at(s.last) {
		s.last = ord
	}
}

// remove takes a row out. Which one comes after it is not looked for: the stripe is
// looked through more often than it need be, until the columns are restored or built anew.
// So it is when new ids take the places of old ones, which may be anywhere.
func (s *span) remove(ord uint32) {
	if s.first == ord {
		s.first = anyRow
	}
	if s.last == ord {
		s.last = anyRow
	}
}

// move is the span when ordinals begin at a base.
func (s span) move(base uint32) span {
	if s.first < spanned {
		s.first += base
	}
	if s.last < spanned {
		s.last += base
	}
	return s
}

// least is an id that no row of the stripe is before.
func (s span) least(ids *textList) string {
	if s.first < spanned {
		return ids.at(s.first)
	}
	return ""
}

// upTo reports whether no row of the stripe is behind an id.
func (s span) upTo(ids *textList, id string) bool {
	return s.last == noRow || s.last < spanned && ids.at(s.last) <= id
}
