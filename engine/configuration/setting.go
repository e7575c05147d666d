package configuration

import (
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/twin"
)

// Setting is what is to be at one path of the desired properties.
type Setting struct {
	Path  string // dotted, below desired
	Value string // compact JSON; "null": nothing is to be there, "{}": an object
}

// The values that are more than a value.
const (
	nothing   = "null"
	anyObject = "{}"
)

// IsNothing reports whether the setting keeps its path away.
func (s Setting) IsNothing() bool { return s.Value == nothing }

// conflicts reports whether two settings can't both hold.
func (s Setting) conflicts(o Setting) bool {
	return s.Path == o.Path || isAbove(s.Path, o.Path) && s.Value != anyObject || isAbove(o.Path, s.Path) && o.Value != anyObject
}

// isAbove reports whether a path is a part of another one's way.
func isAbove(path, other string) bool {
	return len(other) > len(path) && other[len(path)] == '.' && strings.HasPrefix(other, path)
}

// Leaves are the values of a twin's desired properties, each with its path: those
// that are no object, and empty objects. They are in the order of the twin.
func Leaves(desired *twin.Section) []Setting {
	if desired.Empty() {
		return nil
	}
	return flatten(nil, "", desired.View())
}

// Touches reports whether a merge patch says what is to be at a path.
func Touches(patch twin.View, path string) bool {
	for key := range strings.SplitSeq(path, ".") {
		v, ok := patch.Member(key)
		switch {
		case !ok:
			return false
		case v.Form() != '{':
			return true
		}
		patch = v
	}
	return true
}

// flatten appends the settings of an object to a list.
func flatten(list []Setting, path string, v twin.View) []Setting {
	if v.Form() == '{' && v.Len() > 0 {
		for i := range v.Len() {
			key, member := v.At(i)
			if path != "" {
				key = path + "." + key
			}
			list = flatten(list, key, member)
		}
		return list
	}
	return append(list, Setting{path, string(v.AppendJSON(nil))})
}

// patch makes a merge patch of settings that do not conflict.
func patch(list []Setting) []byte {
	if len(list) == 0 {
		return nil
	}
	root := &branch{}
	for _, s := range list {
		root.put(strings.Split(s.Path, "."), s.Value)
	}
	return root.appendJSON(nil)
}

// branch is an object of a patch that is being made.
type branch struct {
	keys  []string
	index map[string]int // of keys, once there are many
	below []*branch      // nil where leaf is
	leaf  []string
}

func (b *branch) put(path []string, value string) {
	i := b.find(path[0])
	if i < 0 {
		i = len(b.keys)
		b.keys, b.below, b.leaf = append(b.keys, path[0]), append(b.below, nil), append(b.leaf, value)
		if b.index != nil {
			b.index[path[0]] = i
		}
	}
	switch {
	case len(path) > 1:
		if b.below[i] == nil {
			b.below[i] = &branch{}
		}
		b.below[i].put(path[1:], value)
	case b.below[i] == nil: // else an empty object, and it is not empty
		b.leaf[i] = value
	}
}

// manyKeys is from where on keys are no longer looked up one by one.
const manyKeys = 24

func (b *branch) find(key string) int {
	if len(b.keys) < manyKeys {
		return slices.Index(b.keys, key)
	}
	if b.index == nil {
		b.index = make(map[string]int, 2*len(b.keys))
		for i, k := range b.keys {
			b.index[k] = i
		}
	}
	if i, ok := b.index[key]; ok {
		return i
	}
	return -1
}

func (b *branch) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i, key := range b.keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(twin.AppendString(dst, key), ':')
		if b.below[i] != nil {
			dst = b.below[i].appendJSON(dst)
		} else {
			dst = append(dst, b.leaf[i]...)
		}
	}
	return append(dst, '}')
}
