package query

import "slices"

// pathIndex finds the live queries that a change of a path concerns: those
// that read the path, an object in which it lies, or something below it.
type pathIndex struct{ root pathNode }

type pathNode struct {
	children map[string]*pathNode
	uses     []pathUse // of this very path
}

// pathUse is a query that reads a path.
type pathUse struct {
	query     *liveQuery
	projected bool // in what it shows, else in its condition
}

// add notes that a query reads a path.
func (x *pathIndex) add(p Path, u pathUse) {
	n := &x.root
	for _, key := range p {
		child := n.children[key]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*pathNode{}
			}
			child = &pathNode{}
			n.children[key] = child
		}
		n = child
	}
	if !slices.Contains(n.uses, u) {
		n.uses = append(n.uses, u)
	}
}

// remove is the other end of add.
func (x *pathIndex) remove(p Path, u pathUse) { x.root.remove(p, u) }

func (n *pathNode) remove(p Path, u pathUse) (empty bool) {
	if len(p) == 0 {
		n.uses = slices.DeleteFunc(n.uses, func(other pathUse) bool { return other == u })
	} else if child := n.children[p[0]]; child != nil && child.remove(p[1:], u) {
		delete(n.children, p[0])
	}
	return len(n.uses) == 0 && len(n.children) == 0
}

// find calls yield for each use of a path, of an object in which it lies, and
// of what lies below it: then below is true. It reports whether there is any,
// and with a nil yield does no more.
func (x *pathIndex) find(p Path, yield func(u pathUse, below bool)) (found bool) {
	n := &x.root
	for i := 0; ; i++ {
		for _, u := range n.uses {
			found = true
			if yield == nil {
				return true
			}
			yield(u, false)
		}
		if i == len(p) {
			break
		}
		if n = n.children[p[i]]; n == nil {
			return found
		}
	}
	if len(n.children) == 0 {
		return found
	}
	if yield != nil {
		n.below(yield)
	}
	return true
}

func (n *pathNode) below(yield func(u pathUse, below bool)) {
	for _, child := range n.children {
		for _, u := range child.uses {
			yield(u, true)
		}
		child.below(yield)
	}
}
