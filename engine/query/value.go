package query

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/muster-hub/muster/engine/twin"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds. Undefined is what a missing path has; it is not null.
const (
	Undefined Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// String returns the kind as error texts and reports name it.
func (k Kind) String() string {
	return [...]string{"undefined", "null", "boolean", "number", "string", "array", "object"}[k]
}

// Value is a JSON value, or undefined, which the zero Value is. Values are
// immutable: what they refer to must not be changed.
type Value struct {
	kind    Kind
	number  float64 // of a Number; 1 of a true Bool
	text    string  // of a String
	items   []Value // of an Array
	members []Member
}

// Member is one member of an object.
type Member struct {
	Key   string
	Value Value
}

// NullValue is JSON's null.
func NullValue() Value { return Value{kind: Null} }

// BoolValue is a boolean.
func BoolValue(b bool) Value {
	v := Value{kind: Bool}
	if b {
		v.number = 1
	}
	return v
}

// NumberValue is a number.
func NumberValue(f float64) Value { return Value{kind: Number, number: f} }

// StringValue is a string.
func StringValue(s string) Value { return Value{kind: String, text: s} }

// ArrayValue is an array.
func ArrayValue(list []Value) Value { return Value{kind: Array, items: list} }

// ObjectValue is an object; keys must not repeat.
func ObjectValue(members []Member) Value { return Value{kind: Object, members: members} }

// Kind returns the value's type.
func (v Value) Kind() Kind { return v.kind }

// True reports whether the value is the boolean true, which alone selects.
func (v Value) True() bool { return v.kind == Bool && v.number == 1 }

// Bool returns a Bool's value.
func (v Value) Bool() bool { return v.number == 1 }

// Number returns a Number's value.
func (v Value) Number() float64 { return v.number }

// Text returns a String's value.
func (v Value) Text() string { return v.text }

// List returns an Array's elements, not to be changed.
func (v Value) List() []Value { return v.items }

// Members returns an Object's members in their order, not to be changed.
func (v Value) Members() []Member { return v.members }

// Member returns a member of an object; undefined when there is none.
func (v Value) Member(key string) Value {
	for i := range v.members {
		if v.members[i].Key == key {
			return v.members[i].Value
		}
	}
	return Value{}
}

// At follows a path of keys; undefined when it leads nowhere.
func (v Value) At(keys ...string) Value {
	for _, k := range keys {
		v = v.Member(k)
	}
	return v
}

// Value makes a Value a Row: the path is followed from the document's root.
func (v Value) Value(p Path) Value { return v.At(p...) }

// AppendJSON appends the value as compact JSON. Undefined, and a number that
// JSON has no form for, become null.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(dst, v.Bool())
	case Number:
		return appendNumber(dst, v.number)
	case String:
		return twin.AppendString(dst, v.text)
	case Array:
		dst = append(dst, '[')
		for i, e := range v.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.AppendJSON(dst)
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		for i, m := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = twin.AppendString(dst, m.Key)
			dst = append(dst, ':')
			dst = m.Value.AppendJSON(dst)
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

func appendNumber(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	b, _ := json.Marshal(f) // a finite number always encodes
	return append(dst, b...)
}
