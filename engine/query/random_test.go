package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Random twins and queries over few paths and small domains, so that queries
// meet values often.

// scaled is how many of n random cases, or rows, a test takes. What is compared
// with a plain evaluator is one goroutine's work, in which the race detector finds
// nothing: with it a tenth is enough, and test/run.sh runs all without it.
func scaled(n int) int {
	if raceDetector {
		return max(1, n/10)
	}
	return n
}

// randomPath is a path in the twins and how queries write it.
type randomPath struct {
	path Path
	text string
	of   string // what it mostly holds: n numbers, s strings, b booleans, t times, a arrays, o objects
}

func randomPaths() []randomPath {
	return []randomPath{
		{Path{"tags", "a"}, "tags.a", "n"},
		{Path{"tags", "b"}, "tags.b", "s"},
		{Path{"tags", "c", "d"}, "tags.c.d", "n"},
		{Path{"tags", "c", "e"}, "@tags.c.e", "s"},
		{Path{"tags", "ключ"}, "tags.ключ", "s"},
		{Path{"tags", "odd key"}, "tags.[[odd key]]", "b"},
		{Path{"properties", "desired", "x"}, "desired.x", "n"},
		{Path{"properties", "reported", "x"}, "properties.reported.x", "n"},
		{Path{"properties", "reported", "y"}, "reported.y", "n"},
		{Path{"properties", "reported", "on"}, "reported.on", "b"},
		{Path{"properties", "reported", "text"}, "reported.text", "s"},
		{Path{"properties", "reported", "wide"}, "reported.wide", "n"}, // a value for each twin
		{Path{"properties", "reported", "high"}, "reported.high", "n"}, // the same
		{Path{"properties", "reported", "name"}, "reported.name", "s"}, // a value for each twin
		{Path{"properties", "reported", "seen"}, "reported.seen", "t"}, //
		{Path{"properties", "reported", "list"}, "reported.list", "a"}, //
		{Path{"properties", "reported", "lat"}, "reported.lat", "p"},   //
		{Path{"properties", "reported", "lon"}, "reported.lon", "p"},   //
		{Path{"properties", "reported", "deep", "er", "x"}, "reported.deep.er.x", "n"},
	}
}

// randomQueries makes queries and twins of one seed.
type randomQueries struct {
	*rand.Rand
	paths []randomPath
}

func newRandomQueries(seed uint64) randomQueries {
	return randomQueries{rand.New(rand.NewPCG(seed, 4)), randomPaths()}
}

func pick[T any](r randomQueries, list ...T) T { return list[r.IntN(len(list))] }

// chance is true in n of a hundred cases.
func (r randomQueries) chance(n int) bool { return r.IntN(100) < n }

// of returns a path that mostly holds values of a kind.
func (r randomQueries) of(kinds string) randomPath {
	for {
		if p := pick(r, r.paths...); strings.Contains(kinds, p.of) {
			return p
		}
	}
}

func (r randomQueries) number() Value {
	return NumberValue(pick(r, 0, 1, 2, 3, -1, 10, 0.5, -2.25, 255, 256))
}

func (r randomQueries) string() Value {
	return StringValue(pick(r, "", "a", "ab", "abc", "B", "b", "é", "éa", "a%", "a_b", "Ж", "1", "10", "-2.5"))
}

// value returns a random value for a path: one of its kind mostly.
func (r randomQueries) value(of string) Value {
	if r.chance(12) {
		of = pick(r, "n", "s", "b", "t", "a", "o", "0")
	}
	switch of {
	case "n":
		return r.number()
	case "s":
		return r.string()
	case "b":
		return BoolValue(r.chance(50))
	case "t":
		return StringValue(pick(r, "2026-11-29T11:59:00Z", "2026-11-29T12:00:00Z", "2026-11-29T12:01:00.5Z", "2026-11-29T13:00:00+01:00", "2026-11-28", "2020-01-01T00:00:00Z"))
	case "p":
		return NumberValue(pick(r, -90.0, 0, 0.001, 45, 89.5, 10, 120))
	case "a":
		list := []Value{}
		for range r.IntN(4) {
			list = append(list, pick(r, r.number(), r.string(), NullValue(), BoolValue(true)))
		}
		return ArrayValue(list)
	case "o":
		var members []Member
		for _, k := range []string{"d", "e", "é"} {
			if r.chance(50) {
				members = append(members, Member{k, pick(r, r.number(), r.string())})
			}
		}
		return ObjectValue(members)
	}
	return NullValue()
}

// field returns a random change of a path: of the value there, of one above it,
// or none there any more.
func (r randomQueries) field() Field {
	p := pick(r, r.paths...)
	path, v := p.path, r.value(p.of)
	switch {
	case r.chance(80) && slices.Contains([]string{"reported.wide", "reported.high", "reported.name"}, p.text):
		v = r.unique(p)
	case r.chance(8) && len(path) > 2 && path[0] == "tags" || r.chance(2):
		path, v = path[:len(path)-1], r.value(pick(r, "o", "o", "n", "s"))
	}
	if len(path) < 2 || path[0] == "properties" && len(path) < 3 { // tags alone are an object
		v = r.value("o")
		for v.Kind() != Object {
			v = r.value("o")
		}
	}
	if r.chance(10) {
		v = Value{}
	}
	return Field{Path: path, Value: v}
}

// unique returns a value that few twins have alike.
func (r randomQueries) unique(p randomPath) Value {
	if p.of == "s" {
		return StringValue("name-" + strconv.Itoa(r.IntN(100_000)))
	}
	return NumberValue(float64(r.IntN(100_000)) / 16)
}

// twin returns a new twin's fields.
func (r randomQueries) twin(source Source, id string) []Field {
	device, module, _ := strings.Cut(id, "/")
	fields := []Field{
		{Path{"deviceId"}, StringValue(device)},
		{Path{"status"}, StringValue(pick(r, "enabled", "enabled", "disabled"))},
		{Path{"statusReason"}, pick(r, NullValue(), NullValue(), StringValue("lost"))},
		{Path{"connectionState"}, StringValue(pick(r, "Connected", "Disconnected"))},
		{Path{"capabilities", "iotEdge"}, BoolValue(r.chance(20))},
		{Path{"properties", "desired"}, ObjectValue([]Member{{"$version", NumberValue(float64(1 + r.IntN(5)))}})},
		{Path{"properties", "reported"}, ObjectValue([]Member{{"$version", NumberValue(float64(1 + r.IntN(5)))}})},
	}
	if source == Modules {
		fields = append(fields, Field{Path{"moduleId"}, StringValue(module)})
	}
	for _, p := range r.paths {
		if strings.Contains(" reported.wide reported.high reported.name ", " "+p.text+" ") && r.chance(85) {
			fields = append(fields, Field{p.path, r.unique(p)})
		}
	}
	for range 6 + r.IntN(30) {
		fields = append(fields, r.field())
	}
	return fields
}

// set is a change of a document as its documentation says, the naive way.
func naiveSet(v Value, path Path, to Value) Value {
	if len(path) == 0 {
		return to
	}
	old := v.Member(path[0])
	if to.Kind() == Undefined && (v.Kind() != Object || old.Kind() == Undefined) {
		return v // nothing to take away
	}
	child := naiveSet(old, path[1:], to)
	if to.Kind() == Undefined && len(path) > 1 && old.Kind() != Object {
		child = old
	}
	var members []Member
	put := false
	for _, m := range v.Members() {
		if m.Key == path[0] {
			put = true
			if m.Value = child; child.Kind() == Undefined {
				continue
			}
		}
		members = append(members, m)
	}
	if !put && child.Kind() != Undefined {
		members = append(members, Member{path[0], child})
	}
	return ObjectValue(members)
}

// query returns the text of a random query and what it reads.
func (r randomQueries) query(source Source) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	limit := r.chance(20)
	if limit && r.chance(50) {
		limit = false
		fmt.Fprintf(&b, "TOP %d ", r.IntN(30))
	}
	var groups, items []string
	aggregates := false
	switch form := r.IntN(100); {
	case form < 50:
		b.WriteString("*")
	case form < 70:
		for i := range 1 + r.IntN(4) {
			items = append(items, r.item(i))
		}
	case form < 85:
		aggregates = true
		for range 1 + r.IntN(2) {
			groups = append(groups, pick(r, r.any(), r.of("nsb").text, "status", "connectionState"))
		}
		for i, g := range groups {
			if r.chance(80) {
				items = append(items, fmt.Sprintf("%s AS g%d", g, i))
			}
		}
		fallthrough
	default:
		aggregates = true
		for i := range 1 + r.IntN(3) {
			items = append(items, fmt.Sprintf("%s AS f%d", r.aggregate(), i))
		}
	}
	b.WriteString(strings.Join(items, ", "))
	b.WriteString(" FROM " + source.String())
	if r.chance(90) {
		b.WriteString(" WHERE " + r.condition(r.IntN(4)))
	}
	if len(groups) > 0 {
		b.WriteString(" GROUP BY " + strings.Join(groups, ", "))
	}
	if aggregates && r.chance(30) {
		b.WriteString(" HAVING " + r.having(groups))
	}
	if r.chance(30) {
		b.WriteString(" ORDER BY " + r.order(aggregates, groups, items))
	}
	if limit {
		fmt.Fprintf(&b, " LIMIT %d", r.IntN(30))
	}
	if r.chance(10) {
		fmt.Fprintf(&b, " OFFSET %d", r.IntN(10))
	}
	return strings.ReplaceAll(b.String(), "@", source.String()+".") // the source may stand before a path
}

// any returns a path of whatever values.
func (r randomQueries) any() string {
	if r.chance(15) {
		return pick(r, "deviceId", "status", "statusReason", "connectionState", "capabilities.iotEdge", "tags", "tags.c", "reported.deep", "desired.$version", "tags.nothing", "modelId")
	}
	return pick(r, r.paths...).text
}

// item gives names to all but the first: two items of one name are refused.
func (r randomQueries) item(i int) string {
	if i == 0 && r.chance(50) {
		return r.any()
	}
	return fmt.Sprintf("%s AS p%d", r.any(), i)
}

func (r randomQueries) aggregate() string {
	switch r.IntN(8) {
	case 0:
		return "COUNT()"
	case 1:
		return "COUNT(" + r.any() + ")"
	case 2:
		return "COUNT(DISTINCT " + pick(r, r.any(), r.of("ns").text) + ")"
	case 3:
		return "COUNT(*)"
	}
	return pick(r, "AVG", "SUM", "MIN", "MAX") + "(" + r.of("nnnsb").text + ")"
}

func (r randomQueries) having(groups []string) string {
	c := fmt.Sprintf("%s %s %d", r.aggregate(), r.comparison(), r.IntN(6))
	if len(groups) > 0 && r.chance(40) {
		c = pick(r, "NOT ", "") + "(" + c + pick(r, " AND ", " OR ") + groups[0] + r.compareWith() + ")"
	}
	return c
}

func (r randomQueries) order(aggregates bool, groups, items []string) string {
	var keys []string
	for range 1 + r.IntN(2) {
		key := r.any()
		if aggregates {
			key = pick(r, append(slices.Clone(groups), items...)...)
			if _, alias, ok := strings.Cut(key, " AS "); ok {
				key = alias
			}
		}
		keys = append(keys, key+pick(r, "", " ASC", " DESC", " DESC"))
	}
	return strings.Join(keys, ", ")
}

func (r randomQueries) comparison() string { return pick(r, "=", "!=", "<>", "<", "<=", ">", ">=") }

func (r randomQueries) compareWith() string { return " " + r.comparison() + " " + r.constant() }

// constant returns one of any type.
func (r randomQueries) constant() string {
	switch r.IntN(10) {
	case 0:
		return pick(r, "true", "false", "null", "undefined", "TRUE")
	case 1, 2, 3, 4:
		return r.numberText()
	}
	return r.stringText()
}

func (r randomQueries) numberText() string {
	if r.chance(10) {
		return pick(r, "0xA", "0xFF", "1e1", "0x1")
	}
	return strconv.FormatFloat(r.number().Number(), 'f', -1, 64)
}

func (r randomQueries) stringText() string {
	s := r.string().Text()
	if r.chance(5) {
		return pick(r, `"\u0061"`, `'\u00e9'`, `"it's"`)
	}
	return pick(r, "'"+s+"'", `"`+s+`"`)
}

// condition returns a text that is true, false or undefined.
func (r randomQueries) condition(depth int) string {
	if depth > 0 {
		switch n := r.IntN(100); {
		case n < 25:
			return r.condition(depth-1) + " AND " + r.condition(depth-1)
		case n < 55:
			return r.condition(depth-1) + " OR " + r.condition(depth-1)
		case n < 70:
			return "NOT (" + r.condition(depth-1) + ")"
		case n < 75:
			return "(" + r.condition(depth-1) + ")"
		}
	}
	switch n := r.IntN(100); {
	case n < 18:
		return r.of("n").text + " " + r.comparison() + " " + r.numeric(2)
	case n < 26:
		return r.of("s").text + " " + r.comparison() + " " + r.stringy(1)
	case n < 32:
		return r.any() + r.compareWith()
	case n < 38:
		return r.numeric(2) + " " + r.comparison() + " " + r.numeric(1)
	case n < 45: // two columns
		left, right := r.of("n").text, r.of("n").text
		if r.chance(50) {
			left, right = "reported.wide", "reported.high"
		}
		return left + " " + r.comparison() + " " + right
	case n < 48:
		return r.stringy(1) + " " + r.comparison() + " " + r.stringy(2)
	case n < 54:
		var list []string
		for range 1 + r.IntN(4) {
			list = append(list, r.constant())
		}
		return r.any() + pick(r, " IN ", " NIN ", " NOT IN ") + "[" + strings.Join(list, ", ") + "]"
	case n < 57:
		return r.of("s").text + pick(r, " LIKE ", " NOT LIKE ") + pick(r, `'a%'`, `'%b'`, `'%'`, `'_'`, `'_b%'`, `'a\\%'`, `'%a%b%'`, `'name-_1%'`, `'é%'`)
	case n < 61:
		return r.of("s").text + " REGEXP " + pick(r, `'^a'`, `'b$'`, `'^.$'`, `'(?i)^B'`, `'[0-9]+'`, `'é|Ж'`, `'^name-1'`)
	case n < 65:
		return r.numeric(0) + " BETWEEN " + r.numberText() + " AND " + r.numberText()
	case n < 70:
		return pick(r, r.of("t").text, r.of("t").text, r.any()) + pick(r, " < ", " <= ", " > ", " >= ") + "now()" + pick(r, "", " - 1m", " + 60s", " - 1d", " - 1h30m")
	case n < 72:
		return "GEO_DISTANCE(reported.lat, reported.lon, 0, " + pick(r, "0", "10") + ") < " + pick(r, "1000", "2000000", "7000000", "12000000")
	case n < 74:
		return pick(r, "connected", r.of("b").text, r.any())
	case n < 90:
		return pick(r, "IS_DEFINED", "IS_NULL", "IS_BOOL", "IS_NUMBER", "IS_STRING", "IS_ARRAY", "IS_OBJECT", "IS_PRIMITIVE") + "(" + r.any() + ")"
	case n < 96:
		return pick(r, "STARTSWITH", "ENDSWITH", "CONTAINS") + "(" + r.stringy(1) + ", " + pick(r, "'a'", "'b'", "''", "'é'", r.stringy(0)) + ")"
	}
	return "ARRAY_CONTAINS(" + pick(r, "reported.list", "reported.list", r.any()) + ", " + pick(r, r.constant(), r.any()) + ")"
}

// numeric returns a text that mostly gives a number.
func (r randomQueries) numeric(depth int) string {
	if depth == 0 || r.chance(35) {
		return pick(r, r.numberText(), r.of("n").text, r.of("n").text)
	}
	switch n := r.IntN(100); {
	case n < 42:
		return "(" + r.numeric(depth-1) + pick(r, " + ", " - ", " * ", " / ", " % ") + r.numeric(depth-1) + ")"
	case n < 47:
		return "-" + r.of("n").text
	case n < 73:
		return pick(r, "ABS", "CEILING", "FLOOR", "SIGN", "SQUARE", "SQRT", "EXP") + "(" + r.numeric(depth-1) + ")"
	case n < 78:
		return "POWER(" + r.numeric(depth-1) + ", " + r.numeric(depth-1) + ")"
	case n < 84:
		return "LENGTH(" + r.stringy(depth-1) + ")"
	case n < 89:
		return "INDEX_OF(" + r.stringy(depth-1) + ", " + r.stringy(0) + ")"
	case n < 96:
		return "AS_NUMBER(" + pick(r, r.stringy(depth-1), r.any()) + ")"
	}
	return "ARRAY_LENGTH(" + pick(r, "reported.list", "reported.list", r.any()) + ")"
}

// stringy returns a text that mostly gives a string.
func (r randomQueries) stringy(depth int) string {
	if depth == 0 || r.chance(40) {
		return pick(r, r.stringText(), r.of("s").text, r.of("s").text, "deviceId")
	}
	switch r.IntN(4) {
	case 0:
		return pick(r, "LOWER", "UPPER") + "(" + r.stringy(depth-1) + ")"
	case 1:
		return "CONCAT(" + r.stringy(depth-1) + ", " + r.stringy(0) + ")"
	case 2:
		return "SUBSTRING(" + r.stringy(depth-1) + ", " + pick(r, "0", "1", "2", r.of("n").text) + ")"
	}
	return "SUBSTRING(" + r.stringy(depth-1) + ", " + pick(r, "0", "1") + ", " + pick(r, "1", "2", r.of("n").text) + ")"
}
