package query

import (
	"errors"
	"sync/atomic"
)

// errReplan says that a path has lost its column since the query was planned.
var errReplan = errors.New("query: a path lost its column")

// binding ties a path that a query reads to what the columns have of it.
type binding struct {
	path Path
	located
}

// bindings are a query's paths. Those of its expressions are known by where
// their slices stand, which is quicker than to compare their keys.
type bindings struct {
	store *store
	list  []*binding
	known []known
	shape uint64
}

func newBindings(s *store) *bindings {
	return &bindings{store: s, shape: s.shape}
}

// of returns a path's binding.
func (b *bindings) of(p Path) *binding {
	if len(p) == 0 {
		return &binding{path: p, located: located{missing: true, why: whyOutside}}
	}
	for i := range b.known {
		if k := &b.known[i]; k.first == &p[0] && len(k.binding.path) == len(p) {
			return k.binding
		}
	}
	for _, k := range b.list {
		if samePath(k.path, p) {
			b.know(p, k)
			return k
		}
	}
	k := &binding{path: p, located: b.store.locate(p)}
	if k.column != nil {
		atomic.StoreInt64(&k.column.asked, int64(b.store.now))
	}
	b.list = append(b.list, k)
	b.know(p, k)
	return k
}

// knownMost is how many slices are remembered; a query with more paths than that
// compares keys.
const knownMost = 16

// known is a path's slice, by where it stands.
type known struct {
	first   *string
	binding *binding
}

func (b *bindings) know(p Path, k *binding) {
	if len(b.known) < knownMost {
		b.known = append(b.known, known{&p[0], k})
	}
}

// refresh looks the paths up again if one got or lost a column.
func (b *bindings) refresh() error {
	if b.shape == b.store.shape {
		return nil
	}
	b.shape = b.store.shape
	for _, k := range b.list {
		l := b.store.locate(k.path)
		if l.missing != k.missing {
			return errReplan
		}
		k.located = l
	}
	return nil
}

func samePath(a, b Path) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// columnRow is a row as expressions read it from columns.
type columnRow struct {
	bindings *bindings
	ord      uint32
}

// Value returns what the row has at a path that has a column.
func (r *columnRow) Value(p Path) Value {
	return r.bindings.of(p).value(r.bindings.store, r.ord)
}

func (k *binding) value(s *store, ord uint32) Value {
	switch {
	case k.column != nil:
		return k.column.cellValue(k.column.get(ord))
	case k.identity:
		return Value{kind: String, text: s.ids.at(ord)}
	}
	return Value{}
}

// single is a row of one path.
type single struct{ value Value }

// Value returns the value, whatever the path.
func (r *single) Value(Path) Value { return r.value }
