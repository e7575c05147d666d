package query

import "slices"

// Select returns the query for whole twins of a source that a predicate selects.
func Select(source Source, p *Predicate) *Query {
	return &Query{text: p.text, source: source, star: true, where: p.where, top: -1}
}

// SelectID returns the query for the ids, of devices, of what a predicate
// selects: followed, it tells who comes and goes and of no other change.
func SelectID(source Source, p *Predicate) *Query {
	return &Query{
		text: "SELECT deviceId FROM " + source.String() + " WHERE " + p.text, source: source,
		items: []item{{key: "deviceId", path: Path{"deviceId"}}}, where: p.where, top: -1,
	}
}

// Star reports whether the query selects whole twins.
func (q *Query) Star() bool { return q.star }

// Ordered reports whether the query has ORDER BY: its result is a list that
// only stands as a whole, while any other goes on behind the last row of a page.
func (q *Query) Ordered() bool { return len(q.order) > 0 }

// Reads reports whether the query looks at a path, at something below it, or at
// an object that holds it. What SELECT * shows does not count.
func (q *Query) Reads(path ...string) bool {
	is := func(p Path) bool {
		n := min(len(p), len(path))
		return n > 0 && slices.Equal(p[:n], path[:n])
	}
	return slices.ContainsFunc(q.items, func(i item) bool { return is(i.path) }) ||
		slices.ContainsFunc(q.group, is) ||
		slices.ContainsFunc(q.order, func(o order) bool { return is(o.path) }) ||
		q.where != nil && slices.ContainsFunc(paths(q.where), is) ||
		q.having != nil && slices.ContainsFunc(paths(q.having), is)
}
