package query

import (
	"strconv"

	"github.com/muster-hub/muster/engine/twin"
)

// TwinValue makes a Value of what a section of a twin holds. Its texts are
// shared with the section.
func TwinValue(v twin.View) Value { return (*TwinValues)(nil).Of(v) }

// TwinValues makes the Values of many sections, of which none is kept: their
// memory is used again. The zero value is ready. It is for one goroutine at a time.
type TwinValues struct {
	members []Member
	items   []Value
}

// Reset takes back the memory of all Values that Of has made.
func (t *TwinValues) Reset() { t.members, t.items = t.members[:0], t.items[:0] }

// Of is TwinValue, until Reset.
func (t *TwinValues) Of(v twin.View) Value {
	switch v.Form() {
	case 't', 'f':
		return BoolValue(v.Form() == 't')
	case '0':
		f, _ := strconv.ParseFloat(v.Text(), 64) // a section holds no number beyond the range
		return NumberValue(f)
	case '"':
		return StringValue(v.Text())
	case '[':
		items := t.newItems(v.Len())
		for i := range items {
			_, item := v.At(i)
			items[i] = t.Of(item)
		}
		return ArrayValue(items)
	case '{':
		members := t.newMembers(v.Len())
		for i := range members {
			key, value := v.At(i)
			members[i] = Member{key, t.Of(value)}
		}
		return ObjectValue(members)
	default:
		return NullValue()
	}
}

func (t *TwinValues) newMembers(n int) []Member {
	if t == nil {
		return make([]Member, n)
	}
	return takeFrom(&t.members, n)
}

func (t *TwinValues) newItems(n int) []Value {
	if t == nil {
		return make([]Value, n)
	}
	return takeFrom(&t.items, n)
}

// takeFrom cuts n elements out of a slab. One that is too short is left to what
// was cut out of it before.
func takeFrom[T any](slab *[]T, n int) []T {
	if n > cap(*slab)-len(*slab) {
		*slab = make([]T, 0, max(n, 2*cap(*slab), 16))
	}
	at := len(*slab)
	*slab = (*slab)[:at+n]
	return (*slab)[at : at+n : at+n]
}
