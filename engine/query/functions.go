package query

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Function describes a function of the language.
type Function struct {
	Name      string // upper-case; any case is taken
	Arguments string // as documentation shows them: "(string, start, length)"
	Does      string // what it gives, one sentence
	Extension bool   // not in IoT Hub's language over twins
}

// Functions returns all functions in order of name.
func Functions() []Function {
	list := make([]Function, len(functions))
	for i, f := range functions {
		list[i] = Function{Name: f.name, Arguments: f.arguments, Does: f.does, Extension: f.extension}
	}
	return list
}

// nowName is the one function that is no row of the table's evaluation: a
// comparison with it is compiled as a whole.
const nowName = "NOW"

// function is a row of the one table of functions. Of test, one, two, pair and
// many one is set, except for NOW.
type function struct {
	name, arguments, does string
	extension             bool
	least, most           int
	test                  func(Value) bool
	one                   func(Value) Value
	pair                  func(a, b Value) truth
	two                   func(a, b Value) Value
	many                  func([]Value) Value
}

// functions is in order of name.
var functions = [...]function{
	{name: "ABS", arguments: "(number)", does: "the number without its sign", extension: true, least: 1, most: 1, one: numeric(math.Abs)},
	{name: "ARRAY_CONTAINS", arguments: "(array, value)", does: "true when an element of the array equals the value", least: 2, most: 2, pair: arrayContains},
	{name: "ARRAY_LENGTH", arguments: "(array)", does: "how many elements the array has", extension: true, least: 1, most: 1, one: arrayLength},
	{name: "AS_NUMBER", arguments: "(string)", does: "the number that the string spells as JSON does; undefined when it spells none", extension: true, least: 1, most: 1, one: asNumber},
	{name: "CEILING", arguments: "(number)", does: "the least whole number that is not below", extension: true, least: 1, most: 1, one: numeric(math.Ceil)},
	{name: "CONCAT", arguments: "(string, string, ...)", does: "the strings one behind the other", extension: true, least: 2, most: 100, many: concat},
	{name: "CONTAINS", arguments: "(string, part)", does: "true when the part is somewhere in the string", extension: true, least: 2, most: 2, pair: stringTest(strings.Contains)},
	{name: "ENDSWITH", arguments: "(string, end)", does: "true when the string ends so", extension: true, least: 2, most: 2, pair: stringTest(strings.HasSuffix)},
	{name: "EXP", arguments: "(number)", does: "e to the power of the number", extension: true, least: 1, most: 1, one: numeric(math.Exp)},
	{name: "FLOOR", arguments: "(number)", does: "the greatest whole number that is not above", extension: true, least: 1, most: 1, one: numeric(math.Floor)},
	{name: "GEO_DISTANCE", arguments: "(latitude, longitude, latitude, longitude)", does: "metres between two points in degrees, on a sphere of the earth's mean radius; undefined beyond 90 degrees of latitude and 180 of longitude", extension: true, least: 4, most: 4, many: geoDistance},
	{name: "INDEX_OF", arguments: "(string, part)", does: "characters before the first place of the part, -1 when it is not there", extension: true, least: 2, most: 2, two: indexOf},
	{name: "IS_ARRAY", arguments: "(value)", does: "true when the value is an array", extension: true, least: 1, most: 1, test: func(v Value) bool { return v.kind == Array }},
	{name: "IS_BOOL", arguments: "(value)", does: "true when the value is true or false", extension: true, least: 1, most: 1, test: func(v Value) bool { return v.kind == Bool }},
	{name: "IS_DEFINED", arguments: "(path)", does: "true when there is a value, null, an object or an array included", least: 1, most: 1, test: func(v Value) bool { return v.kind != Undefined }},
	{name: "IS_NULL", arguments: "(value)", does: "true when the value is null", extension: true, least: 1, most: 1, test: func(v Value) bool { return v.kind == Null }},
	{name: "IS_NUMBER", arguments: "(value)", does: "true when the value is a number", extension: true, least: 1, most: 1, test: func(v Value) bool { return v.kind == Number }},
	{name: "IS_OBJECT", arguments: "(value)", does: "true when the value is an object", extension: true, least: 1, most: 1, test: func(v Value) bool { return v.kind == Object }},
	{name: "IS_PRIMITIVE", arguments: "(value)", does: "true when the value is null, a boolean, a number or a string", extension: true, least: 1, most: 1, test: Value.primitive},
	{name: "IS_STRING", arguments: "(value)", does: "true when the value is a string", extension: true, least: 1, most: 1, test: func(v Value) bool { return v.kind == String }},
	{name: "LENGTH", arguments: "(string)", does: "how many characters the string has", extension: true, least: 1, most: 1, one: length},
	{name: "LOWER", arguments: "(string)", does: "the string in lower case", extension: true, least: 1, most: 1, one: stringMap(strings.ToLower)},
	{name: nowName, arguments: "()", does: "the time of the query, in path < now() - 15m; units are ms, s, m, h, d and w", extension: true},
	{name: "POWER", arguments: "(number, exponent)", does: "the number to the power of the exponent", extension: true, least: 2, most: 2, two: power},
	{name: "SIGN", arguments: "(number)", does: "-1, 0 or 1", extension: true, least: 1, most: 1, one: numeric(sign)},
	{name: "SQRT", arguments: "(number)", does: "the square root; undefined below zero", extension: true, least: 1, most: 1, one: numeric(math.Sqrt)},
	{name: "SQUARE", arguments: "(number)", does: "the number times itself", extension: true, least: 1, most: 1, one: numeric(func(x float64) float64 { return x * x })},
	{name: "STARTSWITH", arguments: "(string, beginning)", does: "true when the string begins so", least: 2, most: 2, pair: stringTest(strings.HasPrefix)},
	{name: "SUBSTRING", arguments: "(string, start, length)", does: "the characters from start on, counted from zero, at most length of them; without length all", extension: true, least: 2, most: 3, many: substring},
	{name: "UPPER", arguments: "(string)", does: "the string in upper case", extension: true, least: 1, most: 1, one: stringMap(strings.ToUpper)},
}

// lookup returns the row of an upper-case name, nil when there is none.
func lookup(name string) *function {
	i, ok := slices.BinarySearchFunc(functions[:], name, func(f function, name string) int { return strings.Compare(f.name, name) })
	if !ok {
		return nil
	}
	return &functions[i]
}

func functionNames() []string {
	list := make([]string, len(functions))
	for i := range functions {
		list[i] = functions[i].name
	}
	return list
}

func numeric(f func(float64) float64) func(Value) Value {
	return func(v Value) Value {
		if v.kind != Number {
			return Value{}
		}
		return finite(f(v.number))
	}
}

// finite makes a number a value; undefined when it is none that JSON can hold.
func finite(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return NumberValue(f)
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

func power(a, b Value) Value {
	if a.kind != Number || b.kind != Number {
		return Value{}
	}
	return finite(math.Pow(a.number, b.number))
}

func arrayContains(list, v Value) truth {
	if list.kind != Array || v.kind == Undefined {
		return truthUnknown
	}
	for i := range list.items {
		if equals(list.items[i], v) == truthYes {
			return truthYes
		}
	}
	return truthNo
}

func arrayLength(v Value) Value {
	if v.kind != Array {
		return Value{}
	}
	return NumberValue(float64(len(v.items)))
}

func asNumber(v Value) Value {
	switch {
	case v.kind == Number:
		return v
	case v.kind != String || !jsonNumber(v.text):
		return Value{}
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil {
		return Value{}
	}
	return finite(f)
}

func stringTest(f func(s, part string) bool) func(a, b Value) truth {
	return func(a, b Value) truth {
		if a.kind != String || b.kind != String {
			return truthUnknown
		}
		return truthOf(f(a.text, b.text))
	}
}

func stringMap(f func(string) string) func(Value) Value {
	return func(v Value) Value {
		if v.kind != String {
			return Value{}
		}
		return built(f(v.text))
	}
}

// built makes a string a value; undefined when it has grown too long.
func built(s string) Value {
	if len(s) > maxBuilt {
		return Value{}
	}
	return StringValue(s)
}

func concat(args []Value) Value {
	size := 0
	for i := range args {
		if args[i].kind != String {
			return Value{}
		}
		if size += len(args[i].text); size > maxBuilt {
			return Value{}
		}
	}
	var b strings.Builder
	b.Grow(size)
	for i := range args {
		b.WriteString(args[i].text)
	}
	return StringValue(b.String())
}

func length(v Value) Value {
	if v.kind != String {
		return Value{}
	}
	return NumberValue(float64(utf8.RuneCountInString(v.text)))
}

func indexOf(s, part Value) Value {
	if s.kind != String || part.kind != String {
		return Value{}
	}
	i := strings.Index(s.text, part.text)
	if i > 0 {
		i = utf8.RuneCountInString(s.text[:i])
	}
	return NumberValue(float64(i))
}

// substring takes characters, not bytes. A start or length that is no whole
// number from zero on gives undefined.
func substring(args []Value) Value {
	if args[0].kind != String {
		return Value{}
	}
	start, ok := whole(args[1])
	most := math.MaxInt
	if ok && len(args) > 2 {
		most, ok = whole(args[2])
	}
	if !ok {
		return Value{}
	}
	rest := skipRunes(args[0].text, start)
	return StringValue(rest[:len(rest)-len(skipRunes(rest, most))])
}

// whole returns a number that counts something.
func whole(v Value) (int, bool) {
	if v.kind != Number || v.number < 0 || v.number != math.Trunc(v.number) {
		return 0, false
	}
	return int(min(v.number, math.MaxInt32)), true
}

// skipRunes returns what is behind the first n characters of s.
func skipRunes(s string, n int) string {
	for ; n > 0 && s != ""; n-- {
		_, size := utf8.DecodeRuneInString(s)
		s = s[size:]
	}
	return s
}

// geoDistance is the haversine formula.
func geoDistance(args []Value) Value {
	const radius = 6371008.8 // metres, the mean
	var x [4]float64
	for i := range x {
		limit := 90.0 // of a latitude
		if i%2 == 1 {
			limit = 180
		}
		if args[i].kind != Number || math.Abs(args[i].number) > limit {
			return Value{}
		}
		x[i] = args[i].number * math.Pi / 180
	}
	lat, lon := math.Sin((x[2]-x[0])/2), math.Sin((x[3]-x[1])/2)
	h := lat*lat + math.Cos(x[0])*math.Cos(x[2])*lon*lon
	return finite(2 * radius * math.Asin(math.Sqrt(min(h, 1))))
}
