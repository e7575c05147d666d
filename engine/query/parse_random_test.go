package query

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// grower makes random expressions of small domains, such that they often meet
// what there is in grown documents.
type grower struct {
	*rand.Rand
	bare bool // only what a bare predicate can say
}

func (g grower) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g grower) path() Path {
	p := Path{"tags", g.pick("a", "b", "group", "my-key", "é", "x]]y")}
	switch g.IntN(5) {
	case 0:
		return Path{g.pick("deviceId", "status", "lastActivityTime")}
	case 1:
		p = Path{"properties", g.pick("desired", "reported"), g.pick("a", "b", "$version")}
	}
	if g.IntN(5) == 0 {
		p = append(p, g.pick("x", "a"))
	}
	return p
}

func (g grower) constant() Value {
	switch g.IntN(8) {
	case 0:
		return NullValue()
	case 1:
		return Value{}
	case 2:
		return BoolValue(g.IntN(2) == 0)
	case 3, 4:
		return StringValue(g.pick("", "a", "A", "a'b\"c\\", "2026-01-10T12:00:00Z", "é\n\u0001", "%"))
	default:
		return NumberValue([]float64{0, 1, 2, -1, 0.5, 1e21, -2.5e-7, 255}[g.IntN(8)])
	}
}

// value grows an operand of comparisons and functions.
func (g grower) value(depth int) expr {
	switch n := g.IntN(10); {
	case depth <= 0 || n < 4:
		return &ref{path: g.path()}
	case n < 6:
		return &literal{value: g.constant()}
	case n < 7:
		x := g.value(depth - 1)
		if _, ok := x.(*literal); ok { // is folded
			x = &ref{path: g.path()}
		}
		return &unary{op: opNegate, x: x}
	case n < 9:
		return &binary{op: opAdd + operator(g.IntN(5)), left: g.value(depth - 1), right: g.value(depth - 1)}
	default:
		return g.call(depth, false)
	}
}

func (g grower) call(depth int, test bool) expr {
	for {
		f := functions[g.IntN(len(functions))]
		if f.name == nowName || test != (f.test != nil || f.pair != nil) {
			continue
		}
		c := &call{name: f.name}
		for range f.least + g.IntN(min(f.most, f.least+1)-f.least+1) {
			c.args = append(c.args, g.value(depth-1))
		}
		return c
	}
}

// condition grows what gives true or false.
func (g grower) condition(depth int) expr {
	if depth > 0 {
		switch g.IntN(4) {
		case 0:
			list := make([]expr, 2+g.IntN(4))
			for i := range list {
				list[i] = g.condition(depth - 1)
			}
			return join([]operator{opAnd, opOr}[g.IntN(2)], list, make([]int, len(list)-1))
		case 1:
			return &unary{op: opNot, x: g.condition(depth - 1)}
		}
	}
	switch n := g.IntN(12); {
	case n < 5:
		return &binary{op: opEqual + operator(g.IntN(6)), left: g.value(depth), right: g.value(depth)}
	case n < 6:
		l := &list{}
		for range g.IntN(4) {
			l.items = append(l.items, &literal{value: g.constant()})
		}
		return &binary{op: opIn, left: g.value(depth), right: l}
	case n < 7 && !g.bare:
		l := &list{items: []expr{&literal{value: g.constant()}}}
		return &binary{op: opNotIn, left: g.value(depth), right: l}
	case n < 8 && !g.bare:
		return &binary{op: opLike, left: g.value(depth), right: &literal{value: StringValue(g.pick("a%", "%a", "_", "%", "a\\%"))}}
	case n < 9:
		return &binary{op: opMatch, left: g.value(depth), right: &literal{value: StringValue(g.pick("^a", "a$", "[a-c]+", ""))}}
	case n < 10:
		return &binary{op: opLess + operator(g.IntN(4)), left: &ref{path: g.path()}, right: newNow(0, int64(g.IntN(3)-1)*60_000)}
	case n < 11:
		return &ref{path: g.path()}
	default:
		return g.call(depth, true)
	}
}

// document grows a twin of the paths that grow in expressions.
func (g grower) document() Value {
	section := func() Value {
		var list []Member
		for _, key := range []string{"a", "b", "group", "my-key", "é", "x]]y", "$version"} {
			switch v := g.constant(); {
			case g.IntN(3) == 0:
			case g.IntN(5) == 0:
				list = append(list, Member{key, ObjectValue([]Member{{"x", v}, {"a", ArrayValue([]Value{g.constant()})}})})
			case v.Kind() != Undefined:
				list = append(list, Member{key, v})
			}
		}
		return ObjectValue(list)
	}
	return ObjectValue([]Member{
		{"deviceId", StringValue("a")}, {"status", StringValue("enabled")}, {"lastActivityTime", StringValue("2026-01-10T12:15:00Z")},
		{"tags", section()}, {"properties", ObjectValue([]Member{{"desired", section()}, {"reported", section()}})},
	})
}

// formatBare writes an expression as a bare predicate.
func formatBare(b *strings.Builder, e expr) {
	nested := func(e expr) {
		b.WriteByte('(')
		formatBare(b, e)
		b.WriteByte(')')
	}
	switch e := e.(type) {
	case *literal:
		switch e.value.Kind() {
		case Null:
			b.WriteString("nil")
		case String:
			b.WriteString(strconv.Quote(e.value.Text()))
		case Number:
			s := strconv.FormatFloat(e.value.Number(), 'g', -1, 64)
			b.WriteString(s)
		default:
			writeValue(b, e.value)
		}
	case *ref:
		b.WriteString(e.path[0])
		for _, key := range e.path[1:] {
			b.WriteString("[" + strconv.Quote(key) + "]")
		}
	case *list:
		b.WriteByte('[')
		for i, item := range e.items {
			comma(b, i)
			formatBare(b, item)
		}
		b.WriteByte(']')
	case *unary:
		b.WriteString(map[operator]string{opNot: "not ", opNegate: "-"}[e.op])
		nested(e.x)
	case *call:
		if e.name == nowName {
			b.WriteString("now()")
			sign := " + "
			by := nowOffset(e)
			if by < 0 {
				sign, by = " - ", -by
			}
			if by != 0 {
				b.WriteString(sign + strconv.Quote(formatDuration(by)))
			}
			return
		}
		b.WriteString(e.name + "(")
		for i, a := range e.args {
			comma(b, i)
			formatBare(b, a)
		}
		b.WriteByte(')')
	case *binary:
		sign := map[operator]string{opAnd: "and", opOr: "or", opEqual: "==", opIn: "in", opMatch: "matches"}[e.op]
		if sign == "" {
			sign = symbols[e.op].text
		}
		if u, ok := e.left.(*unary); ok && u.op == opNot { // is refused, even in brackets
			e = &binary{op: e.op, left: &literal{value: BoolValue(true)}, right: e.right}
		}
		nested(e.left)
		b.WriteString(" " + sign + " ")
		if _, ok := e.right.(*list); ok {
			formatBare(b, e.right)
		} else if _, ok := e.right.(*literal); ok {
			formatBare(b, e.right)
		} else {
			nested(e.right)
		}
	}
}

// TestRoundTrip prints random conditions and parses them again: the same tree,
// so the same text, and the same value on random twins.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	g := grower{Rand: rand.New(rand.NewPCG(1, 2))}
	n, selected := scaled(3000), 0
	for range n {
		e := g.condition(4)
		text := "SELECT * FROM devices WHERE " + format(e)
		q, err := Parse(text, Options{})
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		if got := format(q.where); !sameTree(e, q.where) {
			t.Fatalf("got  %s\nfrom %s", got, format(e))
		}
		p, err := compile(e)
		if err != nil {
			t.Fatal(err)
		}
		again, err := compile(q.where)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			doc := g.document()
			a, b := p.truth(doc, exampleNow()), again.truth(doc, exampleNow())
			if a != b {
				t.Fatalf("%s: %s, parsed again %s", text, shown(a), shown(b))
			}
			if a == truthYes {
				selected++
			}
		}
	}
	if selected < n/3 {
		t.Errorf("only %d of %d select: the test looks at nothing", selected, 5*n)
	}
}

// sameTree compares all but places.
func sameTree(a, b expr) bool {
	switch a := a.(type) {
	case *literal:
		b, ok := b.(*literal)
		return ok && string(a.value.AppendJSON(nil)) == string(b.value.AppendJSON(nil)) && a.value.Kind() == b.value.Kind()
	case *ref:
		b, ok := b.(*ref)
		return ok && a.path.String() == b.path.String()
	case *unary:
		b, ok := b.(*unary)
		return ok && a.op == b.op && sameTree(a.x, b.x)
	case *binary:
		b, ok := b.(*binary)
		return ok && a.op == b.op && sameTree(a.left, b.left) && sameTree(a.right, b.right)
	case *list:
		b, ok := b.(*list)
		return ok && sameTrees(a.items, b.items)
	case *call:
		b, ok := b.(*call)
		return ok && a.name == b.name && sameTrees(a.args, b.args)
	}
	return false
}

func sameTrees(a, b []expr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !sameTree(a[i], b[i]) {
			return false
		}
	}
	return true
}

// TestBareIsSQL writes random conditions in both languages: one tree.
func TestBareIsSQL(t *testing.T) {
	t.Parallel()
	g := grower{Rand: rand.New(rand.NewPCG(3, 4)), bare: true}
	for range scaled(3000) {
		e := g.condition(3)
		var b strings.Builder
		formatBare(&b, e)
		p, err := ParsePredicate(b.String())
		if err != nil {
			t.Fatalf("%s\n%v", b.String(), err)
		}
		sql := format(p.where)
		q, err := Parse("SELECT * FROM devices WHERE "+sql, Options{})
		if err != nil {
			t.Fatalf("%s\n%v", sql, err)
		}
		if !sameTree(p.where, q.where) {
			t.Fatalf("bare %s\nSQL  %s\ngot  %s", b.String(), sql, format(q.where))
		}
		if strings.Contains(b.String(), "(true)") {
			continue // formatBare has written something else
		}
		if !sameTree(e, p.where) {
			t.Fatalf("bare %s\ngot  %s\nwant %s", b.String(), sql, format(e))
		}
		want, err := compile(e)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			doc := g.document()
			if x, y := want.truth(doc, exampleNow()), p.program.truth(doc, exampleNow()); x != y {
				t.Fatalf("%s: %s, want %s", b.String(), shown(y), shown(x))
			}
		}
	}
}
