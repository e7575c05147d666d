package query

// Requires returns the texts one of which a path must have for the predicate to
// match: whoever keeps rows by that path has to look at those alone. ok is false
// when it may have any.
func (p *Predicate) Requires(path Path) (texts []string, ok bool) { return requires(p.where, path) }

func requires(e expr, path Path) (texts []string, ok bool) {
	b, is := e.(*binary)
	if !is {
		return nil, false
	}
	switch b.op {
	case opAnd:
		if texts, ok = requires(b.left, path); ok {
			return texts, true
		}
		return requires(b.right, path)
	case opOr:
		left, ok := requires(b.left, path)
		if !ok {
			return nil, false
		}
		right, ok := requires(b.right, path)
		if !ok {
			return nil, false
		}
		return append(left, right...), true
	case opEqual:
		if isRef(b.left, path) {
			return literalTexts(b.right)
		}
		if isRef(b.right, path) {
			return literalTexts(b.left)
		}
	case opIn:
		if isRef(b.left, path) {
			return literalTexts(b.right)
		}
	}
	return nil, false
}

func isRef(e expr, path Path) bool {
	r, is := e.(*ref)
	return is && samePath(r.path, path)
}

// literalTexts returns the texts of a constant or a list of constants. One of
// another type equals no text.
func literalTexts(e expr) (texts []string, ok bool) {
	switch e := e.(type) {
	case *literal:
		if e.value.kind == String {
			return []string{e.value.text}, true
		}
		return nil, true
	case *list:
		for _, one := range e.items {
			more, ok := literalTexts(one)
			if !ok {
				return nil, false
			}
			texts = append(texts, more...)
		}
		return texts, true
	}
	return nil, false
}

// Bounds returns how many rows TOP or LIMIT lets through, -1 when neither is
// there, and how many of the first OFFSET skips.
func (q *Query) Bounds() (top, offset int) { return q.top, q.offset }
