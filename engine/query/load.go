package query

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// Builder loads the first rows of Columns quickly. While it is open, changes wait.
type Builder struct {
	columns *Columns
	waiting []Change // guarded by Columns.mu
	mu      sync.Mutex
	loaders []*Loader
}

// Loader is one goroutine's part of a Builder.
type Loader struct {
	store *store
}

// Build begins to load rows, in place of all that were there before; until Done
// what Apply is given waits, and queries see the rows from before. Take the
// snapshot that is loaded after Build returned; changes that are in it already do
// no harm.
func (c *Columns) Build() *Builder {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.builder = &Builder{columns: c}
	return c.builder
}

// loadedColumns is how many times as many paths as get a column are loaded, so
// that those get one that most rows have, and not those that came first.
const loadedColumns = 4

// Loader returns a loader; each goroutine needs its own, and rows come quickest
// when each loader gets them in the order of their ids. Safe for concurrent use.
func (b *Builder) Loader() *Loader {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.columns.options
	o.MaxColumns *= loadedColumns
	l := &Loader{newStore(o, b.columns.seed)}
	b.loaders = append(b.loaders, l)
	return l
}

// Add loads a row with its note (Columns.Notes). No id may come twice, in whatever
// loader. Nothing of fields is kept.
func (l *Loader) Add(id string, note uint32, fields []Field) {
	l.store.oldest = l.store.now + 1
	l.store.apply(&Change{ID: id, Fields: fields, Noted: true, Note: note})
	if l.store.bytes > l.store.options.Memory {
		l.store.shrink()
	}
}

// Done puts the rows of all loaders together, applies what waited, and shows the
// rows to queries. The loaders must not be used any more.
func (b *Builder) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := newStore(b.columns.options, b.columns.seed)
	s.join(b.loaders)
	c := b.columns
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.builder != b {
		return // another one began later
	}
	s.shape = c.store.shape + 1
	c.store, c.builder = s, nil
	c.apply(b.waiting)
	b.waiting = nil
}

// wanted is a path as it stands in the stores that are joined.
type wanted struct {
	nodes map[int]*node // by store
	path  Path
	rows  int
}

// join takes the rows of stores; s is empty.
func (s *store) join(loaders []*Loader) {
	bases := make([]uint32, len(loaders))
	paths := map[*node]*wanted{}
	for k, l := range loaders {
		bases[k] = s.joinRows(&l.store.rows)
		for ord := range uint32(len(l.store.partial) * 64) {
			if l.store.partial.has(ord) {
				s.partial.add(bases[k] + ord)
			}
		}
		s.joinRefusals(l.store)
		s.joinPaths(l.store.root, s.root, k, paths)
	}
	list := slices.SortedFunc(maps.Values(paths), func(a, b *wanted) int {
		return cmp.Or(cmp.Compare(b.rows, a.rows), cmp.Compare(len(a.path), len(b.path)), slices.Compare(a.path, b.path))
	})
	for _, w := range list {
		s.joinColumn(w, loaders, bases)
	}
	s.shrink()
}

// joinRows takes another store's rows, which begin with a stripe of their own,
// and returns where.
func (s *store) joinRows(o *rows) uint32 {
	for s.ids.len()%stripeRows != 0 {
		s.free = append(s.free, uint32(s.ids.len()))
		s.ids.skip()
	}
	base := uint32(s.ids.len())
	s.ids.places = slices.Grow(s.ids.places, o.ids.len())
	s.notes = slices.Grow(s.notes, s.ids.len()-len(s.notes)+o.ids.len())
	s.notes = append(s.notes[:s.ids.len()], o.notes...) // of those between nobody asks
	s.index.reserve(o.count, base+uint32(o.ids.len()), s.hashes)
	for ord := range uint32(o.ids.len()) {
		if !o.isAlive(ord) {
			s.free = append(s.free, base+ord)
			s.ids.skip()
			continue
		}
		s.ids.push(o.ids.at(ord))
		s.index.add(s.hash(s.ids.at(base+ord)), base+ord, s.hashes)
	}
	s.alive = append(s.alive, o.alive...)
	for _, theirs := range o.spans {
		s.spans = append(s.spans, theirs.move(base))
	}
	s.count += o.count
	theirs := o.sorted.all()
	for i := range theirs {
		theirs[i] += base
	}
	s.sorted.fill(mergeSorted(s.sorted.all(), theirs, &s.ids))
	return base
}

// mergeSorted merges two lists that are sorted by ids.
func mergeSorted(a, b []uint32, ids *textList) []uint32 {
	if len(a) == 0 || len(b) == 0 || ids.at(a[len(a)-1]) < ids.at(b[0]) {
		return append(a, b...)
	}
	if ids.at(b[len(b)-1]) < ids.at(a[0]) {
		return append(b, a...)
	}
	all := make([]uint32, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if ids.at(a[0]) < ids.at(b[0]) {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}

func (s *store) joinRefusals(o *store) {
	s.refused.total += o.refused.total
	if s.refused.bits == nil && o.refused.bits != nil {
		s.refused.bits = make([]uint64, refusalWords)
	}
	for i, w := range o.refused.bits {
		s.refused.bits[i] |= w
	}
}

// joinPaths notes the paths of another store.
func (s *store) joinPaths(theirs, ours *node, k int, paths map[*node]*wanted) {
	for key, t := range theirs.children {
		n := s.child(ours, key)
		if t.why != "" && n.why == "" {
			n.why = t.why
		}
		n.partial = n.partial || t.partial
		if t.role == plain && (t.column != nil || t.why != "") {
			w := paths[n]
			if w == nil {
				w = &wanted{nodes: map[int]*node{}, path: n.path()}
				paths[n] = w
			}
			w.nodes[k] = t
			if t.column != nil {
				w.rows += t.column.used
			}
		}
		s.joinPaths(t, n, k, paths)
	}
}

// joinColumn makes the column of a path that all stores have whole.
func (s *store) joinColumn(w *wanted, loaders []*Loader, bases []uint32) {
	parent := s.root
	for _, key := range w.path[:len(w.path)-1] {
		parent = parent.children[key]
		if parent == nil {
			return // its column was refused, and with it all below
		}
	}
	key := w.path[len(w.path)-1]
	n := parent.children[key]
	if n == nil {
		return
	}
	whole := n.why == "" && !s.refused.has(parent, key) && s.columns < s.options.MaxColumns
	if !whole {
		if n.why == "" {
			s.refuse(parent, key)
			parent.forget(key)
			for k, t := range w.nodes {
				t.column.rows(func(ord uint32) { s.partial.add(bases[k] + ord) })
			}
		} else {
			s.lost++
		}
		return
	}
	c := newColumn(0)
	n.column = c
	s.columns++
	s.shape++
	first := true
	for k := range loaders {
		if w.nodes[k] == nil {
			continue
		}
		theirs := w.nodes[k].column
		if first {
			c.creator, first = theirs.creator+bases[k], false
		}
		c.join(theirs, int(bases[k]>>stripeBits))
	}
	s.bytes += c.size()
}

// join takes the cells of another column, whose stripes come from a number on.
func (c *column) join(o *column, at int) {
	c.expect(&o.dictionary)
	codes := make([]uint32, len(o.entries))
	same := true
	for code := range o.entries {
		e := o.entries[code]
		if uint32(code) < firstCode {
			codes[code] = uint32(code)
			c.entries[code].counted += e.count() * oneRow
			continue
		}
		if e.count() == 0 {
			continue
		}
		text := o.texts.text(e.place)
		hash := c.hash(e.kind(), text)
		to, ok := c.search(hash, e.kind(), text)
		if ok {
			c.entries[to].counted += e.count() * oneRow
		} else {
			to = c.insert(hash, o.value(uint32(code)), text, e.count())
		}
		codes[code] = to
		same = same && to == uint32(code)
	}
	c.inline = c.inline || o.inline || c.numbers > distinctNumbers
	c.used += o.used
	for k := range c.kinds {
		c.kinds[k] += o.kinds[k]
	}
	c.stripes = append(c.stripes, make([]*stripe, max(0, at+len(o.stripes)-len(c.stripes)))...)
	for i, s := range o.stripes {
		if s == nil {
			continue
		}
		if !same {
			s.recode(codes)
		}
		c.stripes[at+i] = s
		c.cells += s.bytes()
	}
}

// expect makes room for the values of another dictionary, if most of them seem to
// be new here.
func (d *dictionary) expect(o *dictionary) {
	const asked = 64
	looked, known := 0, 0
	for code := int(firstCode); code < len(o.entries) && looked < asked && d.live > 0; code++ {
		if e := o.entries[code]; e.count() > 0 {
			looked++
			if _, ok := d.lookup(e.kind(), o.texts.text(e.place)); ok {
				known++
			}
		}
	}
	if known*2 > looked {
		return
	}
	d.entries = slices.Grow(d.entries, o.live)
	d.index.reserve(o.live, uint32(len(d.entries)+o.live), d.hashes)
}

// recode gives the codes in a stripe new numbers.
func (s *stripe) recode(codes []uint32) {
	need := s.form
	if s.form != sparse && s.form != floats {
		need = formOf(codeCell(slices.Max(codes)))
	}
	if need > s.form {
		s.widen(need)
	}
	switch s.form {
	case one:
		for i, code := range s.one {
			s.one[i] = uint8(codes[code])
		}
	case two:
		for i, code := range s.two {
			s.two[i] = uint16(codes[code])
		}
	case four:
		for i, code := range s.four {
			s.four[i] = codes[code]
		}
	case sparse:
		recodeCells(s.cells, codes)
	case floats:
		recodeCells(s.floats, codes)
	}
}

func recodeCells(cells []cell, codes []uint32) {
	for i, x := range cells {
		if x.coded() {
			cells[i] = codeCell(codes[x.code()])
		}
	}
}
