package twin

import "strconv"

// maxDepth bounds how deep containers nest in any document, so that recursion
// over one is bounded too. maxSectionDepth leaves room for the members around
// a section in a document that holds it.
const (
	maxDepth        = 64
	maxSectionDepth = 56
)

type nodeKind uint8

// The codes are stored (see Encode): never renumber them.
const (
	kindNull nodeKind = iota
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
	kindGone // only inside a merge: a member to be dropped
)

func (k nodeKind) String() string {
	switch k {
	case kindNull:
		return "null"
	case kindFalse, kindTrue:
		return "a boolean"
	case kindNumber:
		return "a number"
	case kindString:
		return "a string"
	case kindArray:
		return "an array"
	case kindObject:
		return "an object"
	default:
		return "nothing"
	}
}

// node is one JSON value with its metadata. Nodes are shared between patches
// and sections and never changed after they were built: a change copies the
// member lists on the way to it and nothing else.
type node struct {
	text    string   // number as written, or string decoded
	members []member // object: in order; array: its items, keys empty
	updated int64    // ticks; only in desired and reported
	version int64    // section version of the last change; only in desired
	kind    nodeKind
}

type member struct {
	key   string
	value node
}

// manyMembers is where looking keys up one by one becomes slower than a map
// and, at the sizes a section may have, too slow.
const manyMembers = 24

func (n *node) find(key string) int {
	for i := range n.members {
		if n.members[i].key == key {
			return i
		}
	}
	return -1
}

// finder returns a lookup for n's keys that stays cheap when it is asked often.
func (n *node) finder(lookups int) func(key string) int {
	if len(n.members) <= manyMembers || lookups <= 4 {
		return n.find
	}
	index := make(map[string]int, len(n.members))
	for i := range n.members {
		index[n.members[i].key] = i
	}
	return func(key string) int {
		if i, ok := index[key]; ok {
			return i
		}
		return -1
	}
}

func (n *node) equal(m *node) bool {
	if n.kind != m.kind || n.text != m.text || len(n.members) != len(m.members) {
		return false
	}
	if n.kind != kindObject {
		for i := range n.members {
			if !n.members[i].value.equal(&m.members[i].value) {
				return false
			}
		}
		return true
	}
	find := m.finder(len(n.members))
	for i := range n.members {
		j := find(n.members[i].key)
		if j < 0 || !n.members[i].value.equal(&m.members[j].value) {
			return false
		}
	}
	return true
}

// size is IoT Hub's measure of a value: a string its bytes without control
// characters, a number 8, a boolean 4, an object or array the sum of what it
// holds, keys counted in bytes.
func (n *node) size() int {
	switch n.kind {
	case kindFalse, kindTrue:
		return 4
	case kindNumber:
		return 8
	case kindString:
		return printable(n.text)
	case kindArray, kindObject:
		sum := 0
		for i := range n.members {
			m := &n.members[i]
			sum += printable(m.key) + m.value.size()
		}
		return sum
	default:
		return 0
	}
}

// printable counts the bytes of s that do not belong to C0 or C1 controls.
func printable(s string) int {
	n := len(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			n--
		case c == 0xc2 && i+1 < len(s) && s[i+1] < 0xa0:
			n -= 2
		}
	}
	return n
}

func (n *node) appendJSON(dst []byte) []byte {
	switch n.kind {
	case kindFalse:
		return append(dst, "false"...)
	case kindTrue:
		return append(dst, "true"...)
	case kindNumber:
		return append(dst, n.text...)
	case kindString:
		return AppendString(dst, n.text)
	case kindArray:
		dst = append(dst, '[')
		for i := range n.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = n.members[i].value.appendJSON(dst)
		}
		return append(dst, ']')
	case kindObject:
		dst = append(dst, '{')
		dst = n.appendMembers(dst)
		return append(dst, '}')
	default:
		return append(dst, "null"...)
	}
}

// appendMembers writes an object's members without the braces.
func (n *node) appendMembers(dst []byte) []byte {
	for i := range n.members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, n.members[i].key)
		dst = append(dst, ':')
		dst = n.members[i].value.appendJSON(dst)
	}
	return dst
}

// AppendString appends s, which is valid UTF-8, to dst as a JSON string that
// escapes only what JSON demands (RFC 8259, section 7), and returns dst.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

const maxNumberBytes = 128

// numberFault returns "" when s is a JSON number that a float64 can hold, else
// what is wrong with it.
func numberFault(s string) string {
	if len(s) > maxNumberBytes {
		return "a number of " + strconv.Itoa(len(s)) + " characters"
	}
	i, exponent := 0, false
	digits := func() bool {
		from := i
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return "a malformed number"
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return "a malformed number"
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		exponent = true
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return "a malformed number"
		}
	}
	if i != len(s) {
		return "a malformed number"
	}
	if exponent { // without one, 128 digits are always finite
		if _, err := strconv.ParseFloat(s, 64); err != nil {
			return "the number " + s + " beyond the range of a 64-bit float"
		}
	}
	return ""
}

// integer reports whether the number is written as an integer, and its value;
// fits is false when it is beyond 64 bits.
func integer(s string) (v int64, isInteger, fits bool) {
	for i := range len(s) {
		if c := s[i]; c == '.' || c == 'e' || c == 'E' {
			return 0, false, true
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, true, err == nil
}
