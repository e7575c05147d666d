package twin

import "slices"

// View is a value inside a section, to be read without encoding it. It is
// immutable, and its texts and keys are shared with the section; the zero View
// is null.
type View struct{ n *node }

// View returns the section's members as an object. Version and metadata are no
// members.
func (s *Section) View() View { return View{&s.root} }

// View returns the patch's members as an object; nulls are what the patch
// removes. One that IsNull is null.
func (p Patch) View() View {
	if p.null {
		return View{}
	}
	return View{&node{kind: kindObject, members: p.root.members}}
}

// Form returns the first mark of the value's JSON: one of n t f " [ {, and 0 for
// a number.
func (v View) Form() byte {
	if v.n == nil {
		return 'n'
	}
	return [...]byte{kindNull: 'n', kindFalse: 'f', kindTrue: 't', kindNumber: '0', kindString: '"', kindArray: '[', kindObject: '{', kindGone: 'n'}[v.n.kind]
}

// Text returns a number as it was written, or a string's content.
func (v View) Text() string { return v.n.text }

// Len returns how many elements an array has, or members an object.
func (v View) Len() int { return len(v.n.members) }

// At returns member i of an object, or element i of an array, whose key is empty.
func (v View) At(i int) (key string, value View) {
	m := &v.n.members[i]
	return m.key, View{&m.value}
}

// Member returns the member of an object with this key; of anything else there
// is none.
func (v View) Member(key string) (value View, ok bool) {
	if v.n == nil || v.n.kind != kindObject {
		return View{}, false
	}
	i := v.n.find(key)
	if i < 0 {
		return View{}, false
	}
	return View{&v.n.members[i].value}, true
}

// AppendJSON appends the value to dst as compact JSON.
func (v View) AppendJSON(dst []byte) []byte {
	if v.n == nil {
		return append(dst, "null"...)
	}
	return v.n.appendJSON(dst)
}

// Compare calls f for each place at which two sections differ, or may differ:
// with its keys, which are f's only during the call, and the value there after
// the change, or ok false where there is none. Objects that both have are
// entered; of one that came, or took the place of something else, f gets the
// whole. What the two share costs a look. Versions are not compared.
func Compare(before, after *Section, f func(path []string, value View, ok bool)) {
	c := comparer{f: f}
	c.compare(&before.root, &after.root)
}

type comparer struct {
	path []string
	f    func(path []string, value View, ok bool)
}

func (c *comparer) compare(a, b *node) {
	if shared(a, b) {
		return
	}
	find := b.finder(len(a.members))
	next := 0 // a change keeps the order
	kept := 0
	for i := range a.members {
		key, v := a.members[i].key, &a.members[i].value
		at := next
		if at >= len(b.members) || b.members[at].key != key {
			if at = find(key); at < 0 {
				c.tell(key, nil)
				continue
			}
		}
		next = at + 1
		kept++
		w := &b.members[at].value
		switch {
		case v.kind == kindObject && w.kind == kindObject:
			c.path = append(c.path, key)
			c.compare(v, w)
			c.path = c.path[:len(c.path)-1]
		case v.kind != w.kind, v.text != w.text, !shared(v, w) && !v.equal(w):
			c.tell(key, w)
		}
	}
	if kept == len(b.members) {
		return
	}
	find = a.finder(len(b.members))
	for i := range b.members {
		if key := b.members[i].key; i >= len(a.members) || a.members[i].key != key {
			if find(key) < 0 {
				c.tell(key, &b.members[i].value)
			}
		}
	}
}

// shared reports whether two containers are the same one.
func shared(a, b *node) bool {
	if len(a.members) != len(b.members) {
		return false
	}
	return len(a.members) == 0 || &a.members[0] == &b.members[0]
}

func (c *comparer) tell(key string, v *node) {
	c.path = append(c.path, key)
	c.f(slices.Clip(c.path), View{v}, v != nil)
	c.path = c.path[:len(c.path)-1]
}
