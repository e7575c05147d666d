package query

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The naive evaluator: the semantics of the language once more, as plainly as
// they can be written, without columns, plans, programs or speed. It shares the
// syntax tree and Value with the package and nothing else, so that a mistake
// there is not made here.

// naiveRow is a twin of a collection.
type naiveRow struct {
	id       string
	document Value
}

// naive is the value of an expression on a row, or, in HAVING, on a group.
type naive struct {
	document Value
	group    []Value // its documents
	now      time.Time
}

// is3 is a truth value: +1 true, -1 false, 0 neither.
func is3(v Value) int {
	if v.Kind() == Bool {
		if v.Bool() {
			return 1
		}
		return -1
	}
	return 0
}

func of3(t int) Value {
	if t == 0 {
		return Value{}
	}
	return BoolValue(t > 0)
}

func (n naive) eval(e expr) Value {
	switch e := e.(type) {
	case *literal:
		return e.value
	case *ref:
		return naiveAt(n.document, e.path)
	case *list:
		var items []Value
		for _, x := range e.items {
			items = append(items, n.eval(x))
		}
		return ArrayValue(items)
	case *unary:
		x := n.eval(e.x)
		if e.op == opNot {
			return of3(-is3(x))
		}
		if x.Kind() != Number {
			return Value{}
		}
		return NumberValue(-x.Number())
	case *aggregated:
		return naiveAggregate(e.aggregate, e.distinct, e.path, n.group)
	case *call:
		return n.call(e)
	case *binary:
		return n.binary(e)
	}
	panic("the naive evaluator knows no such node")
}

func naiveAt(v Value, p Path) Value {
next:
	for _, key := range p {
		for _, m := range v.Members() {
			if m.Key == key {
				v = m.Value
				continue next
			}
		}
		return Value{}
	}
	return v
}

func (n naive) binary(e *binary) Value {
	if v, ok := n.due(e); ok {
		return v
	}
	left, right := n.eval(e.left), n.eval(e.right)
	switch e.op {
	case opAnd: // the smaller of the two
		return of3(min(is3(left), is3(right)))
	case opOr:
		return of3(max(is3(left), is3(right)))
	case opIn, opNotIn:
		t := -1
		for _, item := range right.List() {
			t = max(t, is3(naiveEqual(left, item)))
		}
		if !naivePrimitive(left) {
			t = 0
		}
		if e.op == opNotIn {
			t = -t
		}
		return of3(t)
	case opEqual:
		return naiveEqual(left, right)
	case opNotEqual:
		return of3(-is3(naiveEqual(left, right)))
	case opLess:
		return naiveLess(left, right)
	case opGreater:
		return naiveLess(right, left)
	case opLessEqual:
		return of3(max(is3(naiveLess(left, right)), is3Same(left, right)))
	case opGreaterEqual:
		return of3(max(is3(naiveLess(right, left)), is3Same(left, right)))
	case opLike, opMatch:
		if left.Kind() != String {
			return Value{}
		}
		if e.op == opLike {
			return BoolValue(naiveLike([]rune(left.Text()), []rune(right.Text())))
		}
		return BoolValue(regexp.MustCompile(right.Text()).MatchString(left.Text()))
	}
	if left.Kind() != Number || right.Kind() != Number {
		return Value{}
	}
	a, b := left.Number(), right.Number()
	switch e.op {
	case opAdd:
		return naiveNumber(a + b)
	case opSubtract:
		return naiveNumber(a - b)
	case opMultiply:
		return naiveNumber(a * b)
	case opDivide:
		return naiveNumber(a / b)
	case opModulo:
		return naiveNumber(math.Mod(a, b))
	}
	panic("the naive evaluator knows no such operator")
}

// due compares a time in RFC 3339 with now(), which a call of NOW with an offset
// in milliseconds stands for.
func (n naive) due(e *binary) (Value, bool) {
	left, right := e.left, e.right
	sign := 1
	if c, ok := left.(*call); ok && c.name == "NOW" {
		left, right, sign = right, left, -1
	}
	c, ok := right.(*call)
	if !ok || c.name != "NOW" {
		return Value{}, false
	}
	then, err := time.Parse(time.RFC3339, n.eval(left).Text())
	if err != nil {
		return Value{}, true
	}
	now := n.now.Add(time.Duration(n.eval(c.args[0]).Number()) * time.Millisecond)
	order := sign * then.Compare(now)
	switch e.op {
	case opLess:
		return BoolValue(order < 0), true
	case opLessEqual:
		return BoolValue(order <= 0), true
	case opGreater:
		return BoolValue(order > 0), true
	}
	return BoolValue(order >= 0), true
}

// naiveNumber is a result of arithmetic: undefined where there is none.
func naiveNumber(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return NumberValue(f)
}

func naivePrimitive(v Value) bool {
	return v.Kind() == Null || v.Kind() == Bool || v.Kind() == Number || v.Kind() == String
}

// naiveEqual compares primitives; with anything else it is undefined.
func naiveEqual(a, b Value) Value {
	switch {
	case !naivePrimitive(a) || !naivePrimitive(b):
		return Value{}
	case a.Kind() != b.Kind():
		return BoolValue(false)
	case a.Kind() == Number:
		return BoolValue(a.Number() == b.Number())
	case a.Kind() == String:
		return BoolValue(a.Text() == b.Text())
	case a.Kind() == Bool:
		return BoolValue(a.Bool() == b.Bool())
	}
	return BoolValue(true) // null
}

// naiveLess orders numbers and strings, each among themselves.
func naiveLess(a, b Value) Value {
	switch {
	case a.Kind() == Number && b.Kind() == Number:
		return BoolValue(a.Number() < b.Number())
	case a.Kind() == String && b.Kind() == String:
		return BoolValue(bytes.Compare([]byte(a.Text()), []byte(b.Text())) < 0)
	}
	return Value{}
}

// is3Same is equality where there is an order.
func is3Same(a, b Value) int {
	if naiveLess(a, b).Kind() == Undefined {
		return 0
	}
	return is3(naiveEqual(a, b))
}

// naiveLike tries every way.
func naiveLike(s, pattern []rune) bool {
	if len(pattern) == 0 {
		return len(s) == 0
	}
	switch pattern[0] {
	case '\\':
		if len(pattern) > 1 {
			pattern = pattern[1:]
		}
	case '%':
		return naiveLike(s, pattern[1:]) || len(s) > 0 && naiveLike(s[1:], pattern)
	case '_':
		return len(s) > 0 && naiveLike(s[1:], pattern[1:])
	}
	return len(s) > 0 && s[0] == pattern[0] && naiveLike(s[1:], pattern[1:])
}

// call knows every function.
func (n naive) call(e *call) Value {
	args := make([]Value, len(e.args))
	for i, a := range e.args {
		args[i] = n.eval(a)
	}
	kind := func(i int) Kind { return args[i].Kind() }
	text := func(i int) string { return args[i].Text() }
	switch e.name {
	case "IS_DEFINED":
		return BoolValue(kind(0) != Undefined)
	case "IS_NULL":
		return BoolValue(kind(0) == Null)
	case "IS_BOOL":
		return BoolValue(kind(0) == Bool)
	case "IS_NUMBER":
		return BoolValue(kind(0) == Number)
	case "IS_STRING":
		return BoolValue(kind(0) == String)
	case "IS_ARRAY":
		return BoolValue(kind(0) == Array)
	case "IS_OBJECT":
		return BoolValue(kind(0) == Object)
	case "IS_PRIMITIVE":
		return BoolValue(naivePrimitive(args[0]))
	case "STARTSWITH", "ENDSWITH", "CONTAINS", "INDEX_OF":
		if kind(0) != String || kind(1) != String {
			return Value{}
		}
		s, part := []rune(text(0)), []rune(text(1))
		at := -1
		for i := len(s) - len(part); i >= 0; i-- {
			if string(s[i:i+len(part)]) == string(part) {
				at = i
				if e.name == "ENDSWITH" {
					break
				}
			}
		}
		switch e.name {
		case "STARTSWITH":
			return BoolValue(at == 0)
		case "ENDSWITH":
			return BoolValue(at >= 0 && at == len(s)-len(part))
		case "CONTAINS":
			return BoolValue(at >= 0)
		}
		return NumberValue(float64(at))
	case "ARRAY_CONTAINS":
		if kind(0) != Array || kind(1) == Undefined {
			return Value{}
		}
		for _, item := range args[0].List() {
			if naiveEqual(item, args[1]).True() {
				return BoolValue(true)
			}
		}
		return BoolValue(false)
	case "ARRAY_LENGTH":
		if kind(0) != Array {
			return Value{}
		}
		return NumberValue(float64(len(args[0].List())))
	case "LENGTH":
		if kind(0) != String {
			return Value{}
		}
		return NumberValue(float64(utf8.RuneCountInString(text(0))))
	case "LOWER", "UPPER":
		if kind(0) != String {
			return Value{}
		}
		if e.name == "LOWER" {
			return StringValue(strings.ToLower(text(0)))
		}
		return StringValue(strings.ToUpper(text(0)))
	case "CONCAT":
		var s strings.Builder
		for i := range args {
			if kind(i) != String {
				return Value{}
			}
			s.WriteString(text(i))
		}
		return StringValue(s.String())
	case "SUBSTRING":
		return naiveSubstring(args)
	case "AS_NUMBER":
		return naiveAsNumber(args[0])
	}
	for i := range args {
		if kind(i) != Number {
			return Value{}
		}
	}
	x := func(i int) float64 { return args[i].Number() }
	switch e.name {
	case "ABS":
		return naiveNumber(max(x(0), -x(0)))
	case "EXP":
		return naiveNumber(math.Exp(x(0)))
	case "POWER":
		return naiveNumber(math.Pow(x(0), x(1)))
	case "SQUARE":
		return naiveNumber(x(0) * x(0))
	case "SQRT":
		return naiveNumber(math.Sqrt(x(0)))
	case "CEILING":
		return naiveNumber(-math.Floor(-x(0)))
	case "FLOOR":
		return naiveNumber(math.Floor(x(0)))
	case "GEO_DISTANCE":
		return naiveDistance(args)
	case "SIGN":
		return naiveNumber(float64(cmp.Compare(x(0), 0)))
	}
	panic("the naive evaluator knows no function " + e.name)
}

func naiveSubstring(args []Value) Value {
	if args[0].Kind() != String {
		return Value{}
	}
	for _, a := range args[1:] {
		if a.Kind() != Number || a.Number() < 0 || a.Number() != math.Floor(a.Number()) {
			return Value{}
		}
	}
	var part []rune
	for i, r := range []rune(args[0].Text()) {
		if float64(i) >= args[1].Number() && (len(args) == 2 || float64(i) < args[1].Number()+args[2].Number()) {
			part = append(part, r)
		}
	}
	return StringValue(string(part))
}

func naiveAsNumber(v Value) Value {
	switch v.Kind() {
	case Number:
		return v
	case String:
		var f float64
		if json.Unmarshal([]byte(v.Text()), &f) == nil && strings.TrimSpace(v.Text()) == v.Text() && v.Text() != "null" {
			return NumberValue(f)
		}
	}
	return Value{}
}

// naiveDistance is the length of the chord between two points of a sphere,
// turned into the length of the arc.
func naiveDistance(args []Value) Value {
	var x [4]float64
	for i, a := range args {
		if limit := []float64{90, 180}[i%2]; a.Number() < -limit || a.Number() > limit {
			return Value{}
		}
		x[i] = a.Number() * math.Pi / 180
	}
	point := func(lat, lon float64) (p [3]float64) {
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	a, b := point(x[0], x[1]), point(x[2], x[3])
	chord := math.Hypot(math.Hypot(a[0]-b[0], a[1]-b[1]), a[2]-b[2])
	return NumberValue(2 * 6371008.8 * math.Asin(min(1, chord/2)))
}

// naiveAggregate is an aggregate over some documents.
func naiveAggregate(a aggregate, distinct bool, p Path, documents []Value) Value {
	var values []Value
	for _, d := range documents {
		v := d
		if len(p) > 0 {
			v = naiveAt(d, p)
		}
		if v.Kind() == Undefined {
			continue
		}
		if distinct && slices.ContainsFunc(values, func(o Value) bool { return naiveKey(o) == naiveKey(v) }) {
			continue
		}
		values = append(values, v)
	}
	if a == aggregateCount {
		return NumberValue(float64(len(values)))
	}
	var numbers []float64
	for _, v := range values {
		if v.Kind() == Number {
			numbers = append(numbers, v.Number())
		}
	}
	if len(numbers) == 0 {
		return Value{}
	}
	sum := 0.0
	for _, f := range numbers {
		sum += f
	}
	switch a {
	case aggregateSum:
		return naiveNumber(sum)
	case aggregateAvg:
		return naiveNumber(sum / float64(len(numbers)))
	case aggregateMin:
		return NumberValue(slices.Min(numbers))
	}
	return NumberValue(slices.Max(numbers))
}

// naiveKey is a value as a text that equal values share and others do not; the
// order of an object's members does not matter.
func naiveKey(v Value) string {
	if v.Kind() == Undefined {
		return "undefined"
	}
	var any any
	if err := json.Unmarshal(v.AppendJSON(nil), &any); err != nil {
		panic(err)
	}
	text, err := json.Marshal(any) // sorts members
	if err != nil {
		panic(err)
	}
	return string(text)
}

// naiveRun answers a query: ids for SELECT *, else rows.
func naiveRun(q *Query, rows []naiveRow, now time.Time) (ids, out []string) {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b naiveRow) int { return strings.Compare(a.id, b.id) })
	rows = slices.DeleteFunc(rows, func(r naiveRow) bool {
		return q.where != nil && !naive{document: r.document, now: now}.eval(q.where).True()
	})
	if naiveAggregates(q) {
		return nil, naiveGroups(q, rows, now)
	}
	naiveSort(rows, q.order, func(r naiveRow, o order) Value { return naiveAt(r.document, o.path) })
	rows = naiveCut(q, rows)
	for _, r := range rows {
		if q.star {
			ids = append(ids, r.id)
			continue
		}
		out = append(out, naiveObject(q, func(i item) Value { return naiveAt(r.document, i.path) }))
	}
	return ids, out
}

func naiveAggregates(q *Query) bool {
	return len(q.group) > 0 || slices.ContainsFunc(q.items, func(i item) bool { return i.aggregate != notAggregated })
}

func naiveGroups(q *Query, rows []naiveRow, now time.Time) (out []string) {
	groups := map[string][]Value{}
	if len(q.group) == 0 {
		groups[""] = nil
	}
	for _, r := range rows {
		var key strings.Builder
		for _, p := range q.group {
			key.WriteString(naiveKey(naiveAt(r.document, p)) + "\x00")
		}
		groups[key.String()] = append(groups[key.String()], r.document)
	}
	keys := slices.Sorted(maps.Keys(groups))
	slices.SortStableFunc(keys, func(a, b string) int {
		for _, p := range q.group {
			if c := naiveOrder(naiveAt(groups[a][0], p), naiveAt(groups[b][0], p)); c != 0 {
				return c
			}
		}
		return 0
	})
	if q.having != nil {
		keys = slices.DeleteFunc(keys, func(k string) bool {
			n := naive{group: groups[k], now: now}
			if len(groups[k]) > 0 {
				n.document = groups[k][0]
			}
			return !n.eval(q.having).True()
		})
	}
	value := func(k string, i item) Value {
		if i.aggregate != notAggregated {
			return naiveAggregate(i.aggregate, i.distinct, i.path, groups[k])
		}
		return naiveSorted(naiveAt(groups[k][0], i.path))
	}
	naiveSort(keys, q.order, func(k string, o order) Value {
		for _, i := range q.items {
			if o.key != "" && i.key == o.key {
				return value(k, i)
			}
		}
		return naiveAt(groups[k][0], o.path)
	})
	for _, k := range naiveCut(q, keys) {
		out = append(out, naiveObject(q, func(i item) Value { return value(k, i) }))
	}
	return out
}

// naiveSorted sorts the members of objects: one group may have had them in
// several orders.
func naiveSorted(v Value) Value {
	if v.Kind() != Object && v.Kind() != Array {
		return v
	}
	sorted, err := ParseValue([]byte(naiveKey(v)))
	if err != nil {
		panic(err)
	}
	return sorted
}

func naiveCut[T any](q *Query, list []T) []T {
	list = list[min(q.offset, len(list)):]
	if q.top >= 0 {
		list = list[:min(q.top, len(list))]
	}
	return list
}

func naiveSort[T any](list []T, by []order, value func(T, order) Value) {
	slices.SortStableFunc(list, func(a, b T) int {
		for _, o := range by {
			c := naiveOrder(value(a, o), value(b, o))
			if o.descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

// naiveOrder is the order of ORDER BY: by kind, then by value.
func naiveOrder(a, b Value) int {
	if c := cmp.Compare(a.Kind(), b.Kind()); c != 0 {
		return c
	}
	switch a.Kind() {
	case Bool, Number:
		return cmp.Compare(a.number, b.number)
	case String:
		return strings.Compare(a.Text(), b.Text())
	}
	return strings.Compare(naiveKey(a), naiveKey(b))
}

// naiveObject is a row; what is undefined is left out, and of two members of
// one name the last one stands.
func naiveObject(q *Query, value func(item) Value) string {
	var members []Member
	for _, i := range q.items {
		members = slices.DeleteFunc(members, func(m Member) bool { return m.Key == i.key })
		if v := value(i); v.Kind() != Undefined {
			members = append(members, Member{Key: i.key, Value: v})
		}
	}
	return string(ObjectValue(members).AppendJSON(nil))
}
