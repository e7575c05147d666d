package scripting

import (
	"math"
	"path"
	"reflect"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// valuesMost is how many values one call may give or take.
const valuesMost = 1000

func baseFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"pattern": basePattern, "require": baseRequire,
		"error": baseError, "pcall": basePCall, "xpcall": baseXPCall, "assert": baseAssert,
		"tostring": baseToString, "tonumber": baseToNumber, "type": baseType,
		"setmetatable": baseSetMetatable, "getmetatable": baseGetMetatable,
		"pairs": basePairs, "ipairs": baseIpairs, "next": baseNext,
		"select": baseSelect, "unpack": baseUnpack,
	}
}

// basePattern is pattern{...}: its argument is the pattern.
func basePattern(l *lua.LState) int {
	x, t := of(l), l.CheckTable(1)
	if x.table != nil {
		return x.raisef(l, pattern.FaultLua, "pattern is called twice: a bundle has one pattern")
	}
	x.table = t
	l.Push(t)
	return 1
}

// baseRequire runs another file of the bundle, once.
func baseRequire(l *lua.LState) int {
	x, name := of(l), l.CheckString(1)
	file := path.Join("/", strings.ReplaceAll(name, ".", "/")+".lua")[1:]
	proto, ok := x.prog.files[file]
	if !ok || file == pattern.MainFile {
		return x.raisef(l, pattern.FaultLua, "require %s: the bundle has no file %s", quote(name), quote(file))
	}
	v, known := x.loaded[file]
	switch {
	case known && v == nil:
		return x.raisef(l, pattern.FaultLua, "require %s: files require one another in a circle", quote(name))
	case known:
		l.Push(v)
		return 1
	}
	if x.loaded == nil {
		x.loaded = map[string]lua.LValue{}
	}
	x.loaded[file] = nil
	l.Push(x.state.NewFunctionFromProto(proto))
	l.Call(0, 1)
	v = l.Get(-1)
	if v == lua.LNil {
		v = lua.LTrue
	}
	x.loaded[file] = v
	l.Push(v)
	return 1
}

// baseToString gives no addresses, which differ from replay to replay.
func baseToString(l *lua.LState) int {
	l.Push(lua.LString(tostring(l, l.CheckAny(1))))
	return 1
}

// tostring is what the function tostring gives: with __tostring, where there is
// one.
func tostring(l *lua.LState, v lua.LValue) string {
	switch v.(type) {
	case *lua.LTable, *lua.LUserData:
		if f, ok := l.GetMetaField(v, "__tostring").(*lua.LFunction); ok {
			l.Push(f)
			l.Push(v)
			l.Call(1, 1)
			text := l.Get(-1)
			l.Pop(1)
			if s, ok := text.(lua.LString); ok {
				return string(s)
			}
			of(l).raisef(l, pattern.FaultLua, "__tostring gave a %s, expected a text", typeName(text))
		}
	}
	return show(v)
}

// show is tostring without __tostring.
func show(v lua.LValue) string {
	switch v := v.(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return formatNumber(float64(v))
	case *lua.LUserData:
		switch value := v.Value.(type) {
		case null:
			return "null"
		case secret:
			return "secret:" + string(value)
		case group:
			return string(value)
		}
	case *lua.LTable:
		code, ok1 := v.RawGetString("code").(lua.LString)
		message, ok2 := v.RawGetString("message").(lua.LString)
		if ok1 && ok2 {
			return string(code) + ": " + string(message)
		}
	case lua.LBool, *lua.LNilType:
		return v.String()
	}
	return typeName(v)
}

// formatNumber writes a number as Lua does: 14 digits, whole ones without a
// point.
func formatNumber(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case f == math.Trunc(f) && math.Abs(f) < 1<<53:
		return strconv.FormatInt(int64(f), 10)
	}
	return formatG(f, 14)
}

// formatG is %.Ng of C.
func formatG(f float64, digits int) string {
	s := strconv.FormatFloat(f, 'e', digits-1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	e, _ := strconv.Atoi(exponent)
	if e < -4 || e >= digits {
		mantissa = trimZeros(mantissa)
		sign := "+"
		if e < 0 {
			sign, e = "-", -e
		}
		if e < 10 {
			return mantissa + "e" + sign + "0" + strconv.Itoa(e)
		}
		return mantissa + "e" + sign + strconv.Itoa(e)
	}
	return trimZeros(strconv.FormatFloat(f, 'f', max(0, digits-1-e), 64))
}

func trimZeros(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func baseToNumber(l *lua.LState) int {
	base := l.OptInt(2, 10)
	switch v := l.CheckAny(1).(type) {
	case lua.LNumber:
		l.Push(v)
	case lua.LString:
		if n, ok := parseNumber(string(v), base); ok {
			l.Push(lua.LNumber(n))
			return 1
		}
		l.Push(lua.LNil)
	default:
		l.Push(lua.LNil)
	}
	return 1
}

// parseNumber reads a number as Lua's tonumber does: decimal or 0x.
func parseNumber(s string, base int) (float64, bool) {
	s = strings.Trim(s, " \t\n\v\f\r")
	if len(s) > 400 || s == "" || strings.ContainsAny(s, "_") {
		return 0, false
	}
	digits, negative := strings.CutPrefix(s, "-")
	if hex := strings.ToLower(digits); strings.HasPrefix(hex, "0x") && (base == 10 || base == 16) {
		digits, base = hex[2:], 16
	} else if base == 10 {
		switch c := digits[:min(1, len(digits))]; {
		case c == "" || !strings.ContainsAny(c, "0123456789.+"):
			return 0, false // inf, nan
		}
		f, err := strconv.ParseFloat(s, 64)
		return f, err == nil || math.IsInf(f, 0)
	}
	if base < 2 || base > 36 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, false
	}
	if negative {
		return -float64(n), true
	}
	return float64(n), true
}

func baseType(l *lua.LState) int {
	l.Push(lua.LString(typeName(l.CheckAny(1))))
	return 1
}

// typeName is the type of a value as programs see it.
func typeName(v lua.LValue) string {
	if ud, ok := v.(*lua.LUserData); ok {
		if _, ok := ud.Value.(group); ok {
			return "table"
		}
	}
	return v.Type().String()
}

func baseSetMetatable(l *lua.LState) int {
	t := l.CheckTable(1)
	l.CheckTypes(2, lua.LTNil, lua.LTTable)
	if mt, ok := t.Metatable.(*lua.LTable); ok && mt.RawGetString("__metatable") != lua.LNil {
		return of(l).raisef(l, pattern.FaultLua, "the metatable of this table can't be changed")
	}
	t.Metatable = l.Get(2)
	l.SetTop(1)
	return 1
}

func baseGetMetatable(l *lua.LState) int {
	l.Push(l.GetMetatable(l.CheckAny(1)))
	return 1
}

func basePairs(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	x.charge(l, keysOf(t)/8)
	l.Push(x.lib.pairsNext)
	l.Push(t)
	l.Push(lua.LNil)
	return 3
}

// keysOf is how many keys a table has had: gopher-lua walks over those that were
// deleted, too.
func keysOf(t *lua.LTable) int { return reflect.ValueOf(t).Elem().FieldByName("keys").Len() }

// baseNext is next, and what pairs gives. Its cost counts when keys were deleted:
// those are walked over.
func baseNext(l *lua.LState) int {
	t := checkTable(l, 1)
	key := l.Get(2)
	x := of(l)
	if n := keysOf(t); n > keysFree {
		if skipped := skips(t, key, n); skipped > keysFree {
			x.charge(l, skipped/8)
		}
	}
	k, v := t.Next(key)
	l.Push(k)
	if k == lua.LNil {
		return 1
	}
	l.Push(v)
	return 2
}

const keysFree = 64

// skips counts the deleted keys behind a key, before the next that is there.
func skips(t *lua.LTable, key lua.LValue, n int) int {
	k, _ := t.Next(key)
	places := reflect.ValueOf(t).Elem().FieldByName("k2i")
	at := func(key lua.LValue) int {
		if i := places.MapIndex(reflect.ValueOf(&key).Elem()); i.IsValid() {
			return int(i.Int())
		}
		return 0
	}
	if k == lua.LNil {
		return n - at(key)
	}
	return at(k) - at(key)
}

func baseIpairs(l *lua.LState) int {
	t := checkTable(l, 1)
	l.Push(of(l).lib.ipairsNext)
	l.Push(t)
	l.Push(lua.LNumber(0))
	return 3
}

func ipairsNext(l *lua.LState) int {
	i := l.CheckInt(2) + 1
	v := l.GetTable(l.Get(1), lua.LNumber(i))
	if v == lua.LNil {
		l.Push(lua.LNil)
		return 1
	}
	l.Push(lua.LNumber(i))
	l.Push(v)
	return 2
}

func baseSelect(l *lua.LState) int {
	count := l.GetTop() - 1
	if s, ok := l.Get(1).(lua.LString); ok && s == "#" {
		l.Push(lua.LNumber(count))
		return 1
	}
	n := l.CheckInt(1)
	switch {
	case n < 0:
		n += count + 1
	case n > count:
		return 0
	}
	if n < 1 {
		l.ArgError(1, "index out of range")
	}
	return count - n + 1
}

func baseUnpack(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	from, to := index(l, 2, 1), index(l, 3, t.Len())
	if from > to {
		return 0
	}
	if to-from >= valuesMost {
		return x.raisef(l, pattern.FaultTooCostly, "unpack would give %s values, at most %s", thousands(int64(to)-int64(from)+1), thousands(valuesMost))
	}
	x.charge(l, (to-from)/8)
	for i := from; i <= to; i++ {
		l.Push(t.RawGetInt(i))
	}
	return to - from + 1
}

// index is a whole number as an argument, within what an index can be.
func index(l *lua.LState, n, otherwise int) int {
	if l.Get(n) == lua.LNil {
		return otherwise
	}
	return clamp(float64(l.CheckNumber(n)))
}

func clamp(f float64) int {
	switch {
	case math.IsNaN(f):
		return 0
	case f > 1<<30:
		return 1 << 30
	case f < -1<<30:
		return -1 << 30
	}
	return int(f)
}

// checkTable is l.CheckTable with a message for those who have forgotten an
// argument.
func checkTable(l *lua.LState, n int) *lua.LTable {
	t, ok := l.Get(n).(*lua.LTable)
	if !ok {
		of(l).raisef(l, pattern.FaultLua, "expected a table as argument %d, got %s", n, article(typeName(l.Get(n))))
	}
	return t
}

func article(name string) string {
	if name == "nil" || name == "" {
		return name
	}
	return "a " + name
}

// concat stands for a .. b .. c: from the right, as the operator, with
// __concat.
func concat(l *lua.LState) int {
	x, n, total, plain := of(l), l.GetTop(), 0, true
	for i := 1; i <= n; i++ {
		switch v := l.Get(i).(type) {
		case lua.LString:
			total += len(v)
		case lua.LNumber:
			total += 24
		default:
			plain = false
		}
	}
	if plain {
		x.fits(l, total, "..")
		var b strings.Builder
		b.Grow(total)
		for i := 1; i <= n; i++ {
			b.WriteString(show(l.Get(i)))
		}
		l.Push(lua.LString(b.String()))
		return 1
	}
	right := l.Get(n)
	for i := n - 1; i >= 1; i-- {
		right = x.concatTwo(l, l.Get(i), right)
	}
	l.Push(right)
	return 1
}

func (x *execution) concatTwo(l *lua.LState, left, right lua.LValue) lua.LValue {
	if lua.LVCanConvToString(left) && lua.LVCanConvToString(right) {
		a, b := show(left), show(right)
		x.fits(l, len(a)+len(b), "..")
		return lua.LString(a + b)
	}
	for _, v := range []lua.LValue{left, right} {
		if f, ok := l.GetMetaField(v, "__concat").(*lua.LFunction); ok {
			l.Push(f)
			l.Push(left)
			l.Push(right)
			l.Call(2, 1)
			v := l.Get(-1)
			l.Pop(1)
			return v
		}
	}
	bad := right
	if !lua.LVCanConvToString(left) {
		bad = left
	}
	x.raisef(l, pattern.FaultLua, "attempt to join %s with ..", article(typeName(bad)))
	return lua.LNil
}

// fits raises too-big for a text that would be larger than one may be, and
// charges for it else.
func (x *execution) fits(l *lua.LState, n int, what string) {
	if n > pattern.MaxString {
		x.raisef(l, pattern.FaultTooBig, "%s would make a text of more than %s bytes", what, thousands(pattern.MaxString))
	}
	x.chargeBytes(l, n)
}

func pushBool(l *lua.LState, is bool) int {
	l.Push(lua.LBool(is))
	return 1
}

// less stands for a < b.
func less(l *lua.LState, a, b lua.LValue) bool {
	if x, y, ok := texts(l, a, b); ok {
		return x < y
	}
	return l.LessThan(a, b)
}

// texts are two values that both are texts, and charges for comparing them.
func texts(l *lua.LState, a, b lua.LValue) (x, y string, ok bool) {
	first, ok1 := a.(lua.LString)
	second, ok2 := b.(lua.LString)
	if ok1 && ok2 {
		of(l).chargeBytes(l, min(len(first), len(second)))
	}
	return string(first), string(second), ok1 && ok2
}

// atMost stands for a <= b: by __le, or by __lt the other way round.
func atMost(l *lua.LState, a, b lua.LValue) bool {
	if x, y, ok := texts(l, a, b); ok {
		return x <= y
	}
	x, ok1 := a.(lua.LNumber)
	y, ok2 := b.(lua.LNumber)
	if ok1 && ok2 {
		return x <= y
	}
	if f, ok := l.GetMetaField(a, "__le").(*lua.LFunction); ok && l.GetMetaField(b, "__le") == lua.LValue(f) {
		l.Push(f)
		l.Push(a)
		l.Push(b)
		l.Call(2, 1)
		v := l.Get(-1)
		l.Pop(1)
		return lua.LVAsBool(v)
	}
	return !l.LessThan(b, a)
}

func secretText(l *lua.LState) int {
	l.Push(lua.LString(show(l.Get(1))))
	return 1
}

// secretConcat refuses what can only be a mistake: the text would be sent, and not
// the secret.
func secretConcat(l *lua.LState) int {
	return of(l).raisef(l, pattern.FaultInvalid, "a secret can't be joined with a text: give it whole, as a header, a member of json or of a payload")
}

func faultText(l *lua.LState) int {
	l.Push(lua.LString(show(l.Get(1))))
	return 1
}

func faultConcat(l *lua.LState) int {
	text := tostring(l, l.Get(1)) + tostring(l, l.Get(2))
	of(l).fits(l, len(text), "..")
	l.Push(lua.LString(text))
	return 1
}
