package scripting

import (
	"slices"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/wording"
)

// caller reads the arguments of a call of the host API, and raises FaultInvalid
// for what is wrong with them.
type caller struct {
	x              *execution
	l              *lua.LState
	object, method string // "dev" and "call", for messages
}

// name is how messages call it.
func (c caller) name() string { return c.object + ":" + c.method }

// method begins a call obj:name(...). Whoever wrote a dot instead of the colon is
// told so.
func method(l *lua.LState, object, name string) caller {
	c := caller{x: of(l), l: l, object: object, method: name}
	if ud, ok := l.Get(1).(*lua.LUserData); ok {
		switch v := ud.Value.(type) {
		case group:
			if string(v) == object {
				return c
			}
		case store:
			if object == "kv" {
				return c
			}
		}
	}
	c.invalid("call it with a colon: %s(...)", c.name())
	return c
}

func (c caller) invalid(format string, args ...any) {
	c.x.raisef(c.l, pattern.FaultInvalid, c.name()+": "+format, args...)
}

// given reports whether argument n is there. The object itself is argument 1.
func (c caller) given(n int) bool { return c.l.Get(n) != lua.LNil }

// text is argument n, a text that is not empty.
func (c caller) text(n int, what string) string { return c.textOf(c.l.Get(n), what) }

func (c caller) textOf(v lua.LValue, what string) string {
	s, ok := v.(lua.LString)
	switch {
	case !ok:
		c.invalid("%s is %s, expected a text", what, article(typeName(v)))
	case s == "":
		c.invalid("%s is empty", what)
	case len(s) > pattern.MaxValue:
		c.x.raisef(c.l, pattern.FaultTooBig, "%s: %s has %d bytes, at most %d", c.name(), what, len(s), pattern.MaxValue)
	}
	return valid(string(s))
}

func (c caller) wholeOf(v lua.LValue, what string) int64 {
	n, ok := v.(lua.LNumber)
	if !ok || float64(int64(n)) != float64(n) || n > 1<<53 || n < -1<<53 {
		c.invalid("%s is %s, expected a whole number", what, clip(show(v), 40))
	}
	return int64(n)
}

func (c caller) boolOf(v lua.LValue, what string) bool {
	b, ok := v.(lua.LBool)
	if !ok {
		c.invalid("%s is %s, expected true or false", what, article(typeName(v)))
	}
	return bool(b)
}

// table is argument n, a table.
func (c caller) table(n int, what string) *lua.LTable {
	t, ok := c.l.Get(n).(*lua.LTable)
	if !ok {
		c.invalid("%s is %s, expected a table", what, article(typeName(c.l.Get(n))))
	}
	return t
}

// json is a value as JSON.
func (c caller) json(v lua.LValue, what string) []byte {
	b, err := encode(v, pattern.MaxValue)
	if err != nil {
		c.x.raisef(c.l, codeOf(err), "%s: %s %s", c.name(), what, err)
	}
	c.x.chargeBytes(c.l, 4*len(b))
	return b
}

// durationOf is a duration: a text such as "5m", or a number of seconds.
func (c caller) durationOf(v lua.LValue, what string) string {
	switch v := v.(type) {
	case lua.LNumber:
		if v >= 0 && v < 1e9 {
			return secondsText(float64(v))
		}
	case lua.LString:
		if v != "" && len(v) <= 32 {
			return valid(string(v))
		}
	}
	c.invalid(`%s is %s, expected a duration such as "90s" or "5m"`, what, clip(show(v), 40))
	return ""
}

// durationText is durationOf for libraries.
func durationText(l *lua.LState, v lua.LValue, name string) string {
	if n, ok := v.(lua.LNumber); ok && n < 0 && n > -1e9 {
		return "-" + secondsText(float64(-n))
	}
	return caller{x: of(l), l: l, object: "time", method: name}.durationOf(v, "the duration")
}

// options is the last table of a call. Members must be among names, unless any is
// set; nil when there is none.
func (c caller) options(n int, open bool, names ...string) options {
	if !c.given(n) {
		return options{c: c}
	}
	t := c.table(n, "the last argument")
	if !open {
		t.ForEach(func(k, _ lua.LValue) {
			if name, ok := k.(lua.LString); ok && slices.Contains(names, string(name)) {
				return
			}
			text := "there is no option " + quote(show(k))
			if near := wording.Nearest(show(k), names); near != "" {
				text += ": did you mean " + near + "?"
			} else {
				text += ", expected " + strings.Join(names, ", ")
			}
			c.invalid("%s", text)
		})
	}
	return options{c: c, t: t}
}

// options are named arguments.
type options struct {
	c caller
	t *lua.LTable
}

func (o options) get(name string) lua.LValue {
	if o.t == nil {
		return lua.LNil
	}
	return o.t.RawGetString(name)
}

// args writes the arguments of a step as canonical JSON: whoever calls it does so
// in the order of the names.
type args struct{ b []byte }

func (a *args) name(name string) {
	if len(a.b) == 0 {
		a.b = append(make([]byte, 0, 64), '{')
	} else {
		a.b = append(a.b, ',')
	}
	a.b = append(append(append(a.b, '"'), name...), '"', ':')
}

func (a *args) text(name, value string) {
	if value != "" {
		a.name(name)
		a.b = appendString(a.b, value)
	}
}

func (a *args) raw(name string, value []byte) {
	if value != nil {
		a.name(name)
		a.b = append(a.b, value...)
	}
}

func (a *args) whole(name string, value int64) {
	a.name(name)
	a.b = strconv.AppendInt(a.b, value, 10)
}

func (a *args) yes(name string, value bool) {
	if value {
		a.raw(name, []byte("true"))
	}
}

// end gives the object.
func (a *args) end() []byte {
	if len(a.b) == 0 {
		return nil
	}
	return append(a.b, '}')
}

// take takes the step, and reads its result.
func (c caller) take(op string, a args) lua.LValue {
	result := c.x.step(c.l, op, a.end())
	if result == nil {
		return lua.LNil
	}
	c.x.chargeBytes(c.l, 4*len(result))
	v, err := c.x.lib.decode(string(result))
	if err != nil {
		c.x.raisef(c.l, pattern.FaultInvalid, "%s: the result %s", c.name(), err)
	}
	return v
}

// give takes the step and pushes its result.
func (c caller) give(op string, a args) int {
	c.l.Push(c.take(op, a))
	return 1
}

// giveMembers takes the step and pushes members of its result.
func (c caller) giveMembers(op string, a args, names ...string) int {
	result := c.x.step(c.l, op, a.end())
	c.x.chargeBytes(c.l, 4*len(result))
	if result == nil {
		result = []byte("{}")
	}
	values, err := c.x.lib.members(string(result), names)
	if err != nil {
		c.x.raisef(c.l, pattern.FaultInvalid, "%s: the result %s", c.name(), err)
	}
	for _, v := range values {
		c.l.Push(v)
	}
	return len(values)
}
