package service

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoding/json matches the names of members without case and lets the last
// of two members win. Both would let a client store what a reader of the same
// text does not see, so bodies are read by hand here: json.Valid decides what
// is JSON, and the functions below walk text that passed it.

// checkJSON reports why data is not one JSON value in UTF-8 of bounded depth.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return badFormat("the body is not valid UTF-8; expected JSON in UTF-8")
	}
	depth, quoted, escaped := 0, false, false
	for i, b := range data {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = b == '\\', b != '"'
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return badFormat("the body is nested deeper than %d levels at byte %d", maxDepth, i)
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	if !json.Valid(data) {
		var v json.RawMessage
		where := ""
		if e, ok := json.Unmarshal(data, &v).(*json.SyntaxError); ok { //nolint:errorlint // json returns it bare
			where = " at byte " + strconv.FormatInt(e.Offset, 10)
		}
		return badFormat("the body is not valid JSON%s; expected one JSON value", where)
	}
	return nil
}

// fields is a JSON object taken apart one level deep. where names the object
// in messages, "" for the body itself.
type fields struct {
	where   string
	members map[string]json.RawMessage
}

// object takes data apart, which must be valid JSON. Member names count
// exactly as they are written; one that comes twice is refused.
func object(data []byte, where string) (fields, error) {
	f := fields{where: where, members: map[string]json.RawMessage{}}
	i := space(data, 0)
	if i >= len(data) || data[i] != '{' {
		return f, badFormat("%s is %s; expected a JSON object", f.name(""), kindOf(data))
	}
	i = space(data, i+1)
	for i < len(data) && data[i] != '}' {
		end := value(data, i)
		key := unquote(data[i:end])
		i = space(data, end)
		i = space(data, i+1) // the colon
		end = value(data, i)
		if _, twice := f.members[key]; twice {
			return f, badFormat("%s comes twice; expected it once", f.name(key))
		}
		f.members[key] = json.RawMessage(data[i:end])
		i = space(data, end)
		if i < len(data) && data[i] == ',' {
			i = space(data, i+1)
		}
	}
	return f, nil
}

// elements takes a JSON array apart, which must be valid JSON; it stops after
// max+1 elements, so that the caller sees that there are too many.
func elements(data []byte, where string, max int) ([]json.RawMessage, error) {
	i := space(data, 0)
	if i >= len(data) || data[i] != '[' {
		return nil, badFormat("%s is %s; expected a JSON array", fields{where: where}.name(""), kindOf(data))
	}
	var list []json.RawMessage
	i = space(data, i+1)
	for i < len(data) && data[i] != ']' && len(list) <= max {
		end := value(data, i)
		list = append(list, json.RawMessage(data[i:end]))
		i = space(data, end)
		if i < len(data) && data[i] == ',' {
			i = space(data, i+1)
		}
	}
	return list, nil
}

// space returns the index of the first byte from i on that is not white space.
func space(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r') {
		i++
	}
	return i
}

// value returns the index behind the JSON value that begins at i.
func value(data []byte, i int) int {
	depth, quoted := 0, false
	for ; i < len(data); i++ {
		switch b := data[i]; {
		case quoted:
			if b == '\\' {
				i++
			} else if b == '"' {
				if quoted = false; depth == 0 {
					return i + 1
				}
			}
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			if depth == 0 {
				return i // the end of what holds a number or a literal
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (b == ',' || b == ':' || b == ' ' || b == '\t' || b == '\n' || b == '\r'):
			return i
		}
	}
	return i
}

// unquote returns the text of a valid JSON string.
func unquote(raw []byte) string {
	if len(raw) >= 2 && strings.IndexByte(string(raw), '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	_ = json.Unmarshal(raw, &s) // raw passed json.Valid
	return s
}

// kindOf says in words what a JSON text holds.
func kindOf(raw []byte) string {
	i := space(raw, 0)
	if i >= len(raw) {
		return "empty"
	}
	switch raw[i] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// name returns how a message calls a member: dotted from the body's root.
func (f fields) name(key string) string {
	switch {
	case f.where == "" && key == "":
		return "the body"
	case f.where == "":
		return key
	case key == "":
		return f.where
	}
	return f.where + "." + key
}

// get returns a member that is there and not null.
func (f fields) get(key string) (json.RawMessage, bool) {
	raw, ok := f.members[key]
	if !ok || raw[0] == 'n' {
		return nil, false
	}
	return raw, true
}

// text returns a string member; "" when it is absent or null.
func (f fields) text(key string) (string, error) {
	raw, ok := f.get(key)
	if !ok {
		return "", nil
	}
	if raw[0] != '"' {
		return "", badFormat("%s is %s; expected a string", f.name(key), kindOf(raw))
	}
	return unquote(raw), nil
}

// boolean returns a boolean member; false when it is absent or null.
func (f fields) boolean(key string) (bool, error) {
	raw, ok := f.get(key)
	if !ok {
		return false, nil
	}
	if raw[0] != 't' && raw[0] != 'f' {
		return false, badFormat("%s is %s; expected true or false", f.name(key), kindOf(raw))
	}
	return raw[0] == 't', nil
}

// integer returns a whole number, as also 30.0 is one: some clients know only
// floating point. ok is false when it is absent or null.
func (f fields) integer(key string) (n int64, ok bool, err error) {
	raw, ok := f.get(key)
	if !ok {
		return 0, false, nil
	}
	if n, err = strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true, nil
	}
	const exact = 1 << 53 // beyond, a float may stand for another number than its text
	x, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) > exact {
		return 0, false, badFormat("%s is not a whole number", f.name(key))
	}
	return int64(x), true, nil
}

// object returns an object member; its members are nil when it is absent or null.
func (f fields) object(key string) (fields, error) {
	raw, ok := f.get(key)
	if !ok {
		return fields{where: f.name(key)}, nil
	}
	return object(raw, f.name(key))
}

// texts returns an array of strings; nil when it is absent or null.
func (f fields) texts(key string, max int) ([]string, error) {
	raw, ok := f.get(key)
	if !ok {
		return nil, nil
	}
	list, err := elements(raw, f.name(key), max)
	if err != nil {
		return nil, err
	}
	if len(list) > max {
		return nil, invalid("%s has more than %d entries", f.name(key), max)
	}
	texts := make([]string, 0, len(list))
	for i, e := range list {
		if e[0] != '"' {
			return nil, badFormat("%s[%d] is %s; expected a string", f.name(key), i, kindOf(e))
		}
		texts = append(texts, unquote(e))
	}
	return texts, nil
}
