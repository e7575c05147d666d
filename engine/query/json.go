package query

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ParseValue reads a JSON document. Of members with the same key the last one
// counts. The error names the byte; objects and arrays nest at most 100 deep.
func ParseValue(json []byte) (Value, error) {
	r := reader{text: string(json), members: make([]Member, 0, 32)}
	v := r.value(1)
	r.space()
	if r.err == nil && r.at < len(r.text) {
		r.fail("the end of the document")
	}
	if r.err != nil {
		return Value{}, r.err
	}
	return v, nil
}

// reader reads one JSON document in one pass. Strings without escapes are cut
// out of the text without copying.
type reader struct {
	text    string
	at      int
	items   []Value // of the arrays that are still open
	members []Member
	err     error
}

func (r *reader) fail(expected string) {
	if r.err != nil {
		return
	}
	found := "the end"
	if r.at < len(r.text) {
		c, _ := utf8.DecodeRuneInString(r.text[r.at:])
		found = strconv.QuoteRune(c)
	}
	r.err = fmt.Errorf("query: byte %d of the JSON document: found %s, expected %s", r.at, found, expected)
	r.at = len(r.text)
}

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// accept goes over blanks and c if it is there.
func (r *reader) accept(c byte) bool {
	r.space()
	if r.at >= len(r.text) || r.text[r.at] != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) value(depth int) Value {
	r.space()
	if r.at >= len(r.text) {
		r.fail("a value")
		return Value{}
	}
	rest := r.text[r.at:]
	switch c := rest[0]; {
	case (c == '{' || c == '[') && depth > maxJSONDepth:
		r.fail(fmt.Sprintf("at most %d objects and arrays in each other", maxJSONDepth))
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case c == '"':
		return StringValue(r.string())
	case c == '-' || isDigit(c):
		return r.number()
	case strings.HasPrefix(rest, "true"):
		r.at += 4
		return BoolValue(true)
	case strings.HasPrefix(rest, "false"):
		r.at += 5
		return BoolValue(false)
	case strings.HasPrefix(rest, "null"):
		r.at += 4
		return NullValue()
	default:
		r.fail("a value")
	}
	return Value{}
}

func (r *reader) object(depth int) Value {
	r.at++
	if r.accept('}') {
		return ObjectValue(nil)
	}
	base := len(r.members)
	var index map[string]int // once there are many
	for r.err == nil {
		r.space()
		if r.at >= len(r.text) || r.text[r.at] != '"' {
			r.fail("a key in double quotes")
			break
		}
		key := r.string()
		if !r.accept(':') {
			r.fail("':'")
		}
		v := r.value(depth + 1)
		if i := r.find(base, key, &index); i >= 0 {
			r.members[i].Value = v
		} else {
			r.members = append(r.members, Member{key, v})
		}
		if r.accept('}') {
			break
		}
		if !r.accept(',') {
			r.fail("',' or '}'")
		}
	}
	list := append([]Member(nil), r.members[base:]...)
	r.members = r.members[:base]
	return ObjectValue(list)
}

// find returns where the open object that began at base has a key, or -1.
func (r *reader) find(base int, key string, index *map[string]int) int {
	const many = 16
	open := r.members[base:]
	if len(open) < many {
		for i := range open {
			if open[i].Key == key {
				return base + i
			}
		}
		return -1
	}
	if *index == nil {
		*index = make(map[string]int, 2*many)
		for i := range open {
			(*index)[open[i].Key] = base + i
		}
	}
	if i, ok := (*index)[key]; ok {
		return i
	}
	(*index)[key] = len(r.members) // where it will be
	return -1
}

func (r *reader) array(depth int) Value {
	r.at++
	if r.accept(']') {
		return ArrayValue(nil)
	}
	base := len(r.items)
	for r.err == nil {
		v := r.value(depth + 1)
		r.items = append(r.items, v)
		if r.accept(']') {
			break
		}
		if !r.accept(',') {
			r.fail("',' or ']'")
		}
	}
	list := append([]Value(nil), r.items[base:]...)
	r.items = r.items[:base]
	return ArrayValue(list)
}

func (r *reader) number() Value {
	start := r.at
	for r.at < len(r.text) && strings.IndexByte("+-.0123456789eE", r.text[r.at]) >= 0 {
		r.at++
	}
	s := r.text[start:r.at]
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !jsonNumber(s) {
		r.at = start
		r.fail("a JSON number that a 64-bit float can hold")
	}
	return NumberValue(f)
}

// jsonNumber reports whether s is a number as JSON spells it.
func jsonNumber(s string) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(s) && isDigit(s[i]) {
			i++
		}
		return i > from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	first := i
	if !digits() || s[first] == '0' && i > first+1 {
		return false
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(s)
}

// string reads a string; the current byte is its opening quote.
func (r *reader) string() string {
	r.at++
	start := r.at
	var b []byte // what came before start, once there was an escape
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '"':
			s := r.text[start:r.at]
			r.at++
			if b != nil {
				s = string(append(b, s...))
			}
			return strings.ToValidUTF8(s, "\uFFFD")
		case c == '\\':
			b = append(b, r.text[start:r.at]...)
			b = utf8.AppendRune(b, r.escape())
			start = r.at
		case c < ' ':
			r.fail("control characters escaped")
			return ""
		default:
			r.at++
		}
	}
	r.fail("the closing quote of a string")
	return ""
}

// escape reads what a backslash begins. Half of a surrogate pair becomes
// U+FFFD, as in encoding/json.
func (r *reader) escape() rune {
	rest := r.text[r.at:]
	if len(rest) < 2 {
		r.fail("an escape")
		return 0
	}
	if i := strings.IndexByte(`"\/bfnrt`, rest[1]); i >= 0 {
		r.at += 2
		return rune("\"\\/\b\f\n\r\t"[i])
	}
	c, ok := hexUnit(rest)
	if !ok {
		r.fail(`one of \" \\ \/ \b \f \n \r \t \uXXXX`)
		return 0
	}
	r.at += 6
	if utf16.IsSurrogate(c) {
		low, _ := hexUnit(rest[6:])
		if c = utf16.DecodeRune(c, low); c != utf8.RuneError {
			r.at += 6
		}
	}
	return c
}
