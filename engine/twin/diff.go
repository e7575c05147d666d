package twin

import "encoding/json"

// Difference is one path at which two sections differ. Before or After is nil
// where the path is absent. What is an object on one side only is one
// difference with the whole object.
type Difference struct {
	Path   string // dotted
	Before json.RawMessage
	After  json.RawMessage
}

// Diff lists where b differs from a: first by a's order, then what only b has.
// Order of members, metadata and version are not compared; numbers are, by
// their text. A nil section counts as empty.
func Diff(a, b *Section) []Difference {
	var d differ
	var empty node
	from, to := &empty, &empty
	if a != nil {
		from = &a.root
	}
	if b != nil {
		to = &b.root
	}
	d.compare(from, to)
	return d.found
}

type differ struct {
	path  trail
	found []Difference
}

func (d *differ) compare(a, b *node) {
	find := b.finder(len(a.members))
	for i := range a.members {
		key, v := a.members[i].key, &a.members[i].value
		at := find(key)
		if at < 0 {
			d.add(key, v, nil)
			continue
		}
		w := &b.members[at].value
		if v.kind == kindObject && w.kind == kindObject {
			d.path = append(d.path, key)
			d.compare(v, w)
			d.path = d.path[:len(d.path)-1]
		} else if !v.equal(w) {
			d.add(key, v, w)
		}
	}
	find = a.finder(len(b.members))
	for i := range b.members {
		if find(b.members[i].key) < 0 {
			d.add(b.members[i].key, nil, &b.members[i].value)
		}
	}
}

func (d *differ) add(key string, before, after *node) {
	diff := Difference{Path: append(d.path, key).String()}
	if before != nil {
		diff.Before = before.appendJSON(nil)
	}
	if after != nil {
		diff.After = after.appendJSON(nil)
	}
	d.found = append(d.found, diff)
}
