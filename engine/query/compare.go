package query

import (
	"cmp"
	"slices"
	"strings"
)

// compareValues is the order in which ORDER BY and groups put values of all types:
// undefined, null, false, true, numbers, strings by their bytes, arrays, objects;
// the last two by their JSON.
func compareValues(a, b Value) int {
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	switch a.kind {
	case Bool, Number:
		return cmp.Compare(a.number, b.number)
	case String:
		return strings.Compare(a.text, b.text)
	case Array, Object:
		return strings.Compare(string(appendCanonical(nil, a)), string(appendCanonical(nil, b)))
	}
	return 0
}

func compareTuples(a, b []Value) int { return slices.CompareFunc(a, b, compareValues) }

// appendCanonical appends a text that is the same for the same value, whatever the
// order of members: JSON, and nothing for undefined.
func appendCanonical(dst []byte, v Value) []byte {
	if v.kind == Undefined {
		return dst
	}
	if v.kind == Object || v.kind == Array {
		v = v.inOrder()
	}
	return v.AppendJSON(dst)
}

// inOrder returns a value with the members of its objects sorted.
func (v Value) inOrder() Value {
	v.items, v.members = slices.Clone(v.items), slices.Clone(v.members)
	for i := range v.items {
		v.items[i] = v.items[i].inOrder()
	}
	for i := range v.members {
		v.members[i].Value = v.members[i].Value.inOrder()
	}
	slices.SortFunc(v.members, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
	return v
}

// canonicalTuple appends a text for several values: a line each.
func canonicalTuple(dst []byte, values []Value) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, '\n') // compact JSON has none
		}
		dst = appendCanonical(dst, v)
	}
	return dst
}

// parseTuple reads what canonicalTuple wrote.
func parseTuple(text string, n int) ([]Value, bool) {
	lines := strings.Split(text, "\n")
	if len(lines) != n {
		return nil, false
	}
	values := make([]Value, n)
	for i, line := range lines {
		if line == "" {
			continue
		}
		v, err := ParseValue([]byte(line))
		if err != nil {
			return nil, false
		}
		values[i] = v
	}
	return values, true
}
