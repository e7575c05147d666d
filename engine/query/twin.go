package query

import (
	"strconv"

	"github.com/muster-hub/muster/engine/twin"
)

// TwinValue makes a Value of what a section of a twin holds. Its texts are
// shared with the section.
func TwinValue(v twin.View) Value {
	switch v.Form() {
	case 't', 'f':
		return BoolValue(v.Form() == 't')
	case '0':
		f, _ := strconv.ParseFloat(v.Text(), 64) // a section holds no number beyond the range
		return NumberValue(f)
	case '"':
		return StringValue(v.Text())
	case '[':
		items := make([]Value, v.Len())
		for i := range items {
			_, item := v.At(i)
			items[i] = TwinValue(item)
		}
		return ArrayValue(items)
	case '{':
		members := make([]Member, v.Len())
		for i := range members {
			key, value := v.At(i)
			members[i] = Member{key, TwinValue(value)}
		}
		return ObjectValue(members)
	default:
		return NullValue()
	}
}
