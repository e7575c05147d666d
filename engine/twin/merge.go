package twin

// merger carries what one change needs.
type merger struct {
	kind    Kind
	now     int64 // ticks
	version int64 // of the section after
	quiet   bool  // history: stamp nothing, collect neither undo nor paths
	path    trail
	paths   []string
}

func object(members []member) Patch {
	return Patch{root: node{kind: kindObject, members: members}}
}

func (m *merger) mark(n *node) {
	if m.kind != Tags {
		n.updated = m.now
	}
	if m.kind == Desired {
		n.version = m.version
	}
}

func (m *merger) touch(key string) {
	if m.quiet || len(m.paths) >= maxPaths {
		return
	}
	m.paths = append(m.paths, append(m.path, key).String())
}

// merge applies patch to the object n and returns the object after and the
// members of the patch back.
func (m *merger) merge(n *node, patch []member) (after node, undo []member) {
	after = node{kind: kindObject, updated: n.updated, version: n.version}
	if !m.quiet {
		m.mark(&after)
	}
	members := make([]member, len(n.members), len(n.members)+min(len(patch), 8))
	copy(members, n.members)
	find := n.finder(len(patch))
	gone := 0
	for i := range patch {
		key, v := patch[i].key, &patch[i].value
		at := find(key)
		switch {
		case v.kind == kindNull:
			if at >= 0 {
				undo = m.undo(undo, key, &members[at].value)
				members[at].value = node{kind: kindGone}
				gone++
				m.touch(key)
			}
		case at < 0:
			undo = m.undo(undo, key, nil)
			members = append(members, member{key, m.stamp(*v)})
			m.touch(key)
		case v.kind == kindObject && members[at].value.kind == kindObject:
			m.path = append(m.path, key)
			sub, back := m.merge(&members[at].value, v.members)
			m.path = m.path[:len(m.path)-1]
			members[at].value = sub
			if len(back) > 0 {
				undo = append(undo, member{key, node{kind: kindObject, members: back}})
			}
		default:
			undo = m.undo(undo, key, &members[at].value)
			members[at].value = m.stamp(*v)
			m.touch(key)
		}
	}
	if gone > 0 {
		kept := members[:0]
		for i := range members {
			if members[i].value.kind != kindGone {
				kept = append(kept, members[i])
			}
		}
		clear(members[len(kept):])
		members = kept
	}
	after.members = members
	return after, undo
}

// undo notes how to get the former value back; nil is none.
func (m *merger) undo(list []member, key string, former *node) []member {
	if list == nil && !m.quiet {
		list = make([]member, 0, 8)
	}
	switch {
	case m.quiet:
		return list
	case former == nil:
		return append(list, member{key, node{kind: kindNull}})
	default:
		return append(list, member{key, *former})
	}
}

// stamp returns a value of a patch as a section holds it: nulls gone, every
// object and leaf marked. Arrays are leaves, so that their items are shared.
func (m *merger) stamp(v node) node {
	if v.kind == kindObject {
		members := make([]member, 0, len(v.members))
		for i := range v.members {
			if v.members[i].value.kind != kindNull {
				members = append(members, member{v.members[i].key, m.stamp(v.members[i].value)})
			}
		}
		v.members = members
	}
	v.updated, v.version = 0, 0
	if !m.quiet {
		m.mark(&v)
	}
	return v
}

// replaced collects the paths that a replacement set or removed.
func (m *merger) replaced(before, after *node) {
	find := before.finder(len(after.members))
	for i := range after.members {
		key, v := after.members[i].key, &after.members[i].value
		if at := find(key); at >= 0 && v.kind == kindObject && before.members[at].value.kind == kindObject {
			m.path = append(m.path, key)
			m.replaced(&before.members[at].value, v)
			m.path = m.path[:len(m.path)-1]
			continue
		}
		m.touch(key)
	}
	find = after.finder(len(before.members))
	for i := range before.members {
		if find(before.members[i].key) < 0 {
			m.touch(before.members[i].key)
		}
	}
}

// withNulls returns after's members with a null for each member of before that
// is not in after, at every level that both have.
func withNulls(before, after *node) []member {
	members := make([]member, 0, len(after.members))
	find := before.finder(len(after.members))
	for i := range after.members {
		key, v := after.members[i].key, after.members[i].value
		if at := find(key); at >= 0 && v.kind == kindObject && before.members[at].value.kind == kindObject {
			v.members = withNulls(&before.members[at].value, &v)
		}
		members = append(members, member{key, v})
	}
	find = after.finder(len(before.members))
	for i := range before.members {
		if find(before.members[i].key) < 0 {
			members = append(members, member{before.members[i].key, node{kind: kindNull}})
		}
	}
	return members
}

// patchBetween returns the members of the smallest merge patch from one object
// to another.
func patchBetween(from, to *node) []member {
	var patch []member
	find := from.finder(len(to.members))
	for i := range to.members {
		key, v := to.members[i].key, &to.members[i].value
		at := find(key)
		switch {
		case at < 0:
			patch = append(patch, member{key, *v})
		case v.kind == kindObject && from.members[at].value.kind == kindObject:
			if sub := patchBetween(&from.members[at].value, v); len(sub) > 0 {
				patch = append(patch, member{key, node{kind: kindObject, members: sub}})
			}
		case !v.equal(&from.members[at].value):
			patch = append(patch, member{key, *v})
		}
	}
	find = to.finder(len(from.members))
	for i := range from.members {
		if find(from.members[i].key) < 0 {
			patch = append(patch, member{from.members[i].key, node{kind: kindNull}})
		}
	}
	return patch
}
