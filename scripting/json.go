package scripting

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// Values cross between Lua and the hub as JSON. What is written is canonical:
// sorted keys, whole numbers without a point, and the same escapes as
// encoding/json, so that a journal that was stored and read again has the same
// bytes.

// secretMember marks a secret on the wire: {"$secret": "name"}.
const secretMember = "$secret"

// secret is an opaque value that stands for one.
type secret string

var (
	errDeep = fmt.Errorf("nests deeper than %d levels", pattern.MaxDepth)
	errText = errors.New("has a text that is not UTF-8: use base64.encode")
)

// tooBig is the error of a value that has more bytes than it may.
type tooBig int

func (n tooBig) Error() string { return fmt.Sprintf("has more than %d bytes as JSON", int(n)) }

// encode writes a value as canonical JSON of at most so many bytes.
func encode(v lua.LValue, most int) ([]byte, error) { return appendValue(nil, v, 0, most) }

func appendValue(b []byte, v lua.LValue, depth, most int) ([]byte, error) {
	if len(b) > most {
		return b, tooBig(most)
	}
	switch v := v.(type) {
	case *lua.LNilType:
		return append(b, "null"...), nil
	case lua.LBool:
		return strconv.AppendBool(b, bool(v)), nil
	case lua.LNumber:
		return appendNumber(b, float64(v))
	case lua.LString:
		if len(b)+len(v) > most {
			return b, tooBig(most)
		}
		if !utf8.ValidString(string(v)) {
			return b, errText
		}
		return appendString(b, string(v)), nil
	case *lua.LTable:
		return appendTable(b, v, depth+1, most)
	case *lua.LUserData:
		switch value := v.Value.(type) {
		case null:
			return append(b, "null"...), nil
		case secret:
			return append(appendString(append(b, `{"`+secretMember+`":`...), string(value)), '}'), nil
		}
	}
	return b, fmt.Errorf("has a %s in it, which can't leave the program", typeName(v))
}

func appendNumber(b []byte, f float64) ([]byte, error) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return b, fmt.Errorf("has the number %s in it, which JSON does not know", formatNumber(f))
	case f == math.Trunc(f) && math.Abs(f) < 1<<53:
		return strconv.AppendInt(b, int64(f), 10), nil
	}
	format := byte('f')
	if a := math.Abs(f); a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if n := len(b); format == 'e' && n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		b[n-2] = b[n-1] // e-09 is e-9, as encoding/json has it
		b = b[:n-1]
	}
	return b, nil
}

// appendString writes what encoding/json writes.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			// U+2028 and U+2029 are e2 80 a8 and e2 80 a9.
			if c == 0xe2 && i+2 < len(s) && s[i+1] == 0x80 && s[i+2]&^1 == 0xa8 {
				b = append(append(b, s[start:i]...), `\u202`...)
				b = append(b, hex[s[i+2]&0xf])
				i += 3
				start = i
				continue
			}
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func appendTable(b []byte, t *lua.LTable, depth, most int) (_ []byte, err error) {
	if depth > pattern.MaxDepth {
		return b, errDeep
	}
	var names []string
	items, last, other := 0, 0, lua.LValue(nil)
	t.ForEach(func(k, _ lua.LValue) {
		switch k := k.(type) {
		case lua.LString:
			names = append(names, string(k))
			return
		case lua.LNumber:
			if f := float64(k); f == math.Trunc(f) && f >= 1 && f < 1<<31 {
				items, last = items+1, max(last, int(f))
				return
			}
		}
		other = k
	})
	switch {
	case other != nil:
		return b, fmt.Errorf("has a table with the key %s, expected texts, or 1 to n", clip(show(other), 40))
	case items > 0 && len(names) > 0:
		return b, fmt.Errorf("has a table with both the key %q and items, expected an object or a list", clip(names[0], 40))
	case items != last:
		return b, fmt.Errorf("has a list of %d items that ends at %d: nil can't be in a list, use json.null", items, last)
	case items == 0 && len(names) == 0 && isArray(t):
		return append(b, "[]"...), nil
	case items > 0:
		for i := 1; i <= last; i++ {
			b = append(b, "[,"[min(i-1, 1)])
			if b, err = appendValue(b, t.RawGetInt(i), depth, most); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		if len(b)+len(name) > most {
			return b, tooBig(most)
		}
		if !utf8.ValidString(name) {
			return b, errText
		}
		b = append(appendString(b, name), ':')
		if b, err = appendValue(b, t.RawGetString(name), depth, most); err != nil {
			return b, err
		}
	}
	if len(b) > most {
		return b, tooBig(most)
	}
	return append(b, '}'), nil
}

// isArray reports whether a table was marked as a list.
func isArray(t *lua.LTable) bool {
	mt, ok := t.Metatable.(*lua.LTable)
	return ok && mt.RawGetString(markArray) == lua.LTrue
}

// null is the value of json.null.
type null struct{}

// decoder reads JSON into Lua values. It takes what encoding/json takes, and is
// bounded by the length and depth of the text.
type decoder struct {
	text string
	at   int
	lib  *library
}

// decode reads a JSON text. Members come in the order of their names.
func (lib *library) decode(text string) (lua.LValue, error) {
	d := decoder{text: text, lib: lib}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.space(); d.at < len(d.text) {
		return nil, d.wrong("the end")
	}
	return v, nil
}

func (d *decoder) wrong(expected string) error {
	if d.at >= len(d.text) {
		return fmt.Errorf("ends where %s is expected", expected)
	}
	return fmt.Errorf("has %q at byte %d, expected %s", d.text[d.at], d.at+1, expected)
}

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) take(word string) bool {
	if strings.HasPrefix(d.text[d.at:], word) {
		d.at += len(word)
		return true
	}
	return false
}

func (d *decoder) value(depth int) (lua.LValue, error) {
	if depth > maxDecoded {
		return nil, errDeep
	}
	d.space()
	if d.at >= len(d.text) {
		return nil, d.wrong("a value")
	}
	switch c := d.text[d.at]; {
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"':
		s, err := d.string()
		return lua.LString(s), err
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	case d.take("true"):
		return lua.LTrue, nil
	case d.take("false"):
		return lua.LFalse, nil
	case d.take("null"):
		return d.lib.null, nil
	}
	return nil, d.wrong("a value")
}

// maxDecoded is how deep what is read may nest: twins nest a little deeper than
// what programs may write.
const maxDecoded = 2 * pattern.MaxDepth

type member struct {
	name  string
	value lua.LValue
}

func (d *decoder) object(depth int) (lua.LValue, error) {
	d.at++
	var room [8]member
	list, sorted := room[:0], true
	for {
		d.space()
		if d.at < len(d.text) && d.text[d.at] == '}' && len(list) == 0 {
			break
		}
		if d.at >= len(d.text) || d.text[d.at] != '"' {
			return nil, d.wrong("the name of a member")
		}
		name, err := d.string()
		if err != nil {
			return nil, err
		}
		if d.space(); !d.take(":") {
			return nil, d.wrong("a colon")
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		sorted = sorted && (len(list) == 0 || list[len(list)-1].name < name)
		list = append(list, member{name, v})
		if d.space(); d.take(",") {
			continue
		}
		if d.at < len(d.text) && d.text[d.at] == '}' {
			break
		}
		return nil, d.wrong("a comma or }")
	}
	d.at++
	if len(list) == 1 && list[0].name == secretMember {
		if name, ok := list[0].value.(lua.LString); ok {
			return d.lib.secret(string(name)), nil
		}
	}
	if !sorted {
		slices.SortStableFunc(list, func(a, b member) int { return strings.Compare(a.name, b.name) })
	}
	t := newTable(len(list))
	for _, m := range list {
		t.RawSetString(m.name, m.value)
	}
	return t, nil
}

// newTable makes a table with room for so many members: gopher-lua makes room for
// 32 otherwise, which takes longer than to fill it. The method does without its
// state.
func newTable(members int) *lua.LTable { return (*lua.LState)(nil).CreateTable(0, members) }

// members reads some members of an object, each as decode does; those that are
// not there, or null, are nil.
func (lib *library) members(text string, names []string) ([]lua.LValue, error) {
	d, values := decoder{text: text, lib: lib}, make([]lua.LValue, len(names))
	for i := range values {
		values[i] = lua.LNil
	}
	if d.space(); !d.take("{") {
		return nil, d.wrong("an object")
	}
	for first := true; ; first = false {
		if d.space(); d.take("}") {
			return values, nil
		}
		if !first {
			if !d.take(",") {
				return nil, d.wrong("a comma or }")
			}
			d.space()
		}
		if d.at >= len(d.text) || d.text[d.at] != '"' {
			return nil, d.wrong("the name of a member")
		}
		name, err := d.string()
		if err != nil {
			return nil, err
		}
		if d.space(); !d.take(":") {
			return nil, d.wrong("a colon")
		}
		v, err := d.value(0)
		if err != nil {
			return nil, err
		}
		if i := slices.Index(names, name); i >= 0 && v != lua.LValue(lib.null) {
			values[i] = v
		}
	}
}

func (d *decoder) array(depth int) (lua.LValue, error) {
	d.at++
	t := &lua.LTable{Metatable: d.lib.arrayMeta}
	for n := 1; ; n++ {
		if d.space(); n == 1 && d.take("]") {
			return t, nil
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		t.RawSetInt(n, v)
		if d.space(); d.take(",") {
			continue
		}
		if d.take("]") {
			return t, nil
		}
		return nil, d.wrong("a comma or ]")
	}
}

func (d *decoder) number() (lua.LValue, error) {
	start := d.at
	digits := func() bool {
		from := d.at
		for d.at < len(d.text) && d.text[d.at] >= '0' && d.text[d.at] <= '9' {
			d.at++
		}
		return d.at > from
	}
	d.take("-")
	if !d.take("0") && !digits() {
		return nil, d.wrong("a digit")
	}
	whole := true
	if d.take(".") {
		whole = false
		if !digits() {
			return nil, d.wrong("a digit")
		}
	}
	if d.take("e") || d.take("E") {
		whole = false
		if !d.take("+") {
			d.take("-")
		}
		if !digits() {
			return nil, d.wrong("a digit")
		}
	}
	text := d.text[start:d.at]
	if whole && len(text) < 16 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && (n != 0 || text[0] != '-') {
			return lua.LNumber(n), nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("has the number %s, which is too large", clip(text, 40))
	}
	return lua.LNumber(f), nil
}

// string reads a text, the reader being at its first quote.
func (d *decoder) string() (string, error) {
	d.at++
	start := d.at
	for d.at < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			s := d.text[start:d.at]
			d.at++
			return valid(s), nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", d.wrong("no control character in a text")
		}
		d.at++
	}
	return "", d.wrong(`a closing "`)
}

func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s)) // each bad byte by itself, as encoding/json has it
}

func (d *decoder) escaped(start int) (string, error) {
	b := append(make([]byte, 0, 2*(d.at-start)+16), d.text[start:d.at]...)
	for d.at < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			d.at++
			return valid(string(b)), nil
		case c < ' ':
			return "", d.wrong("no control character in a text")
		case c != '\\':
			b = append(b, c)
			d.at++
			continue
		}
		if d.at++; d.at >= len(d.text) {
			return "", d.wrong("an escape")
		}
		c := d.text[d.at]
		if c == 'u' {
			r, ok := d.unicode()
			if !ok {
				return "", d.wrong("four hexadecimal digits")
			}
			b = utf8.AppendRune(b, r)
			continue
		}
		i := strings.IndexByte(`"\/bfnrt`, c)
		if i < 0 {
			return "", d.wrong("an escape")
		}
		b = append(b, "\"\\/\b\f\n\r\t"[i])
		d.at++
	}
	return "", d.wrong(`a closing "`)
}

// unicode reads uXXXX, and the second half of a pair behind it.
func (d *decoder) unicode() (rune, bool) {
	half := func() (rune, bool) {
		if d.at+5 > len(d.text) || d.text[d.at] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(d.text[d.at+1:d.at+5], 16, 16)
		if err != nil {
			return 0, false
		}
		return rune(n), true
	}
	r, ok := half()
	if !ok {
		return 0, false
	}
	d.at += 5
	if r < 0xd800 || r > 0xdfff {
		return r, true
	}
	if r < 0xdc00 && d.at+6 <= len(d.text) && d.text[d.at] == '\\' {
		d.at++
		if low, ok := half(); ok && low >= 0xdc00 && low <= 0xdfff {
			d.at += 5
			return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), true
		}
		d.at--
	}
	return utf8.RuneError, true
}
