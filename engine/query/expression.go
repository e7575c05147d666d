package query

import (
	"slices"
	"strings"
	"time"
)

// condition reads an expression behind WHERE or HAVING and checks it whole.
func (p *parser) condition() expr {
	e := p.or()
	if p.err == nil {
		p.check(e)
	}
	if p.err != nil {
		return nil
	}
	return e
}

// enter goes one level deeper; each call is followed by leave.
func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.tok.at, p.tok.describe()+" nested more than "+count(maxDepth, "level")+" deep", "a flatter condition")
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) or() expr  { return p.joined(opOr, "OR", p.and) }
func (p *parser) and() expr { return p.joined(opAnd, "AND", p.not) }

func (p *parser) joined(op operator, word string, operand func() expr) expr {
	list := []expr{operand()}
	var places []int
	for p.tok.is(word) {
		places = append(places, p.advance().at)
		list = append(list, operand())
	}
	if p.tok.isAny("&&", "||") {
		p.unexpected(map[string]string{"&&": "AND", "||": "OR"}[p.tok.value])
	}
	if p.err != nil {
		return nil
	}
	return join(op, list, places)
}

func (p *parser) not() expr {
	if !p.tok.is("NOT") {
		return p.comparison()
	}
	p.enter()
	defer p.leave()
	place := p.advance().at
	return &unary{at(place), opNot, p.not()}
}

// operators are those of comparison.
var comparisons = map[string]operator{
	"=": opEqual, "!=": opNotEqual, "<>": opNotEqual, "<": opLess, "<=": opLessEqual, ">": opGreater, ">=": opGreaterEqual,
}

func (p *parser) comparison() expr {
	left := p.sum()
	t := p.tok
	negated := false
	if op, ok := comparisons[t.value]; ok && t.kind == tokenSign {
		p.advance()
		right := p.sum()
		if _, again := comparisons[p.tok.value]; again && p.tok.kind == tokenSign {
			p.fail(p.tok.at, "a second comparison", "AND between comparisons")
		}
		return &binary{at(t.at), op, left, right}
	}
	if t.is("NOT") {
		p.advance()
		if !p.tok.isAny("IN", "LIKE", "BETWEEN", "REGEXP") {
			p.unexpected("IN, LIKE, BETWEEN or REGEXP behind NOT", "IN", "LIKE", "BETWEEN", "REGEXP")
			return nil
		}
		p.extension(t.at, "NOT "+strings.ToUpper(p.tok.value))
		negated = true
	}
	e := p.wordComparison(left)
	if negated {
		return &unary{at(t.at), opNot, e}
	}
	return e
}

// wordComparison reads the operators that are words; without one it returns left.
func (p *parser) wordComparison(left expr) expr {
	t := p.tok
	switch {
	case t.is("IN"), t.is("NIN"):
		p.advance()
		op := opIn
		if t.is("NIN") {
			op = opNotIn
		}
		if p.tok.is("(") {
			p.fail(p.tok.at, `"("`, "square brackets: "+strings.ToUpper(t.value)+" ['a', 'b']")
		} else if !p.tok.is("[") {
			p.unexpected("a list in square brackets: ['a', 'b']; for an array in the twin see ARRAY_CONTAINS")
		}
		return &binary{at(t.at), op, left, p.list()}
	case t.is("LIKE"), t.is("REGEXP"):
		p.extension(t.at, strings.ToUpper(t.value))
		p.advance()
		op := opLike
		if t.is("REGEXP") {
			op = opMatch
		}
		right := p.primary()
		if p.err == nil {
			p.pattern(op, right)
		}
		return &binary{at(t.at), op, left, right}
	case t.is("BETWEEN"):
		p.extension(t.at, "BETWEEN")
		p.twice(left)
		p.advance()
		low := p.sum()
		and := p.tok.at
		p.expect("AND", "AND between the bounds of BETWEEN")
		high := p.sum()
		return join(opAnd, []expr{&binary{at(t.at), opGreaterEqual, left, low}, &binary{at(t.at), opLessEqual, left, high}}, []int{and})
	case t.is("=="):
		p.unexpected(`"="`)
	case t.is("=~"):
		p.unexpected("REGEXP, the operator for regular expressions")
	case t.is("!"):
		p.unexpected("NOT or !=")
	}
	return left
}

func (p *parser) sum() expr { return p.chain([]string{"+", "-"}, p.product) }

func (p *parser) product() expr { return p.chain([]string{"*", "/", "%"}, p.operand) }

// arithmetics are the signs of arithmetic.
var arithmetics = map[string]operator{"+": opAdd, "-": opSubtract, "*": opMultiply, "/": opDivide, "%": opModulo}

// chain reads operators of one precedence from the left.
func (p *parser) chain(signs []string, operand func() expr) expr {
	e := operand()
	for n := 1; p.tok.kind == tokenSign && slices.Contains(signs, p.tok.value); n++ {
		if n > maxChain {
			p.fail(p.tok.at, "more than "+count(maxChain, "operator")+" in a row", "fewer")
		}
		t := p.advance()
		if isNow(e) && t.isAny("+", "-") {
			e = p.shift(e.(*call), t)
			continue
		}
		e = &binary{at(t.at), arithmetics[t.value], e, operand()}
	}
	return e
}

// shift reads the duration behind now() and a sign.
func (p *parser) shift(c *call, sign token) expr {
	d := p.tok
	p.advance()
	return p.shifted(c, sign.value == "-", d.kind == tokenDuration || d.kind == tokenString, d.value, d.at, d.describe())
}

// shifted adds a duration to now(); ok says that the value has the form of one.
func (f *faults) shifted(c *call, minus, ok bool, value string, place int, found string) expr {
	by, read := parseDuration(value)
	if !ok || !read {
		f.fail(place, found, durationExpected)
	}
	if minus {
		by = -by
	}
	sum := nowOffset(c) + by
	if sum.Abs() > maxShift {
		f.fail(place, found, "at most a hundred years from now")
	}
	return newNow(c.offset(), int64(sum/time.Millisecond))
}

func (p *parser) operand() expr {
	t := p.tok
	switch {
	case t.isAny("-", "+") && t.kind == tokenSign:
		p.enter()
		defer p.leave()
		p.advance()
		x := p.operand()
		if t.is("+") || p.err != nil {
			return x
		}
		return negate(t.at, x)
	case t.is("NOT"):
		p.enter()
		defer p.leave()
		p.advance()
		return &unary{at(t.at), opNot, p.operand()}
	}
	return p.primary()
}

func (p *parser) primary() expr {
	t := p.tok
	switch t.kind {
	case tokenNumber:
		p.advance()
		return &literal{at(t.at), NumberValue(t.number)}
	case tokenString:
		p.advance()
		return &literal{at(t.at), StringValue(t.value)}
	case tokenDuration:
		p.unexpected("a number; a duration stands only behind now() - ")
		return nil
	case tokenQuoted:
		return p.reference(p.advance())
	case tokenWord:
		if v, ok := constant(t); ok {
			p.advance()
			return &literal{at(t.at), v}
		}
		if !isReserved(t.value) {
			p.advance()
			if p.tok.is("(") {
				return p.call(t)
			}
			return p.reference(t)
		}
	case tokenSign:
		if t.is("(") {
			p.enter()
			defer p.leave()
			p.advance()
			e := p.or()
			p.expect(")", `")"`)
			return e
		}
		if t.is("[") {
			l := p.list()
			values := make([]Value, len(l.items))
			for i, e := range l.items {
				values[i] = e.(*literal).value
			}
			return &literal{at(t.at), ArrayValue(values)}
		}
		if t.is("!") {
			p.unexpected("NOT")
		}
	}
	p.unexpected("a path, a value, a function or a bracket")
	return nil
}

// constant returns the value of a word that is one.
func constant(t token) (Value, bool) {
	switch {
	case t.is("TRUE"):
		return BoolValue(true), true
	case t.is("FALSE"):
		return BoolValue(false), true
	case t.is("NULL"):
		return NullValue(), true
	case t.is("UNDEFINED"):
		return Value{}, true
	}
	return Value{}, false
}

// list reads constants in square brackets.
func (p *parser) list() *list {
	l := &list{at: at(p.tok.at)}
	p.expect("[", `"["`)
	if p.accept("]") {
		return l
	}
	for p.err == nil {
		l.items = append(l.items, p.element())
		if !p.accept(",") {
			break
		}
	}
	p.expect("]", `"," or "]"`)
	if p.err != nil {
		l.items = nil
	}
	return l
}

// element reads a constant of a list.
func (p *parser) element() expr {
	sign := p.tok
	negative := p.accept("-")
	t := p.tok
	v, ok := constant(t)
	switch {
	case t.kind == tokenNumber && negative:
		v = NumberValue(-t.number)
	case negative:
		p.unexpected("a number behind the minus")
	case t.kind == tokenNumber:
		v = NumberValue(t.number)
	case t.kind == tokenString:
		v = StringValue(t.value)
	case !ok:
		p.unexpected("a constant: a number, a string, true, false, null or undefined")
	}
	p.advance()
	return &literal{at(sign.at), v}
}

// reference makes an expression of a path whose first name was read.
func (p *parser) reference(first token) expr {
	segments := p.segments(first)
	if p.err != nil {
		return nil
	}
	if p.having != nil {
		if e := p.groupReference(segments); e != nil || p.err != nil {
			return e
		}
	}
	path, connected := p.resolve(p.scope, segments)
	switch {
	case p.err != nil:
		return nil
	case connected:
		return connectedIs(first.at)
	case p.having != nil && !p.having.groupedBy(path):
		p.fail(first.at, "a path that differs within a group", "an aggregate, its name, or a path of GROUP BY")
		return nil
	}
	return &ref{at(first.at), path}
}

// groupReference returns what the name of a selected item means behind HAVING;
// nil when it is no such name.
func (p *parser) groupReference(segments []segment) expr {
	if len(segments) > 1 {
		return nil
	}
	for _, i := range p.having.items {
		switch {
		case i.key != segments[0].text:
		case i.aggregate == notAggregated:
			return &ref{at(segments[0].at), i.path}
		default:
			return &aggregated{at(segments[0].at), i.aggregate, i.distinct, i.path}
		}
	}
	return nil
}

// call reads the arguments of a function, whose name was read.
func (p *parser) call(name token) expr {
	if p.having != nil && isAggregate(name.value) {
		a, distinct, segments := p.aggregate(name)
		var path Path
		if len(segments) > 0 && p.err == nil {
			path, _ = p.resolve(p.scope, segments)
		}
		return &aggregated{at(name.at), a, distinct, path}
	}
	p.enter()
	defer p.leave()
	p.advance()
	var args []expr
	for p.err == nil && !p.tok.is(")") {
		args = append(args, p.or())
		if !p.accept(",") {
			break
		}
	}
	p.expect(")", `"," or ")"`)
	if p.err != nil {
		return nil
	}
	e := p.newCall(name.at, name.value, args)
	return e
}

func isAggregate(name string) bool {
	for a := aggregateCount; a <= aggregateMax; a++ {
		if strings.EqualFold(a.String(), name) {
			return true
		}
	}
	return false
}
