package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

// Both fronts build their trees here, so that the same predicate gives the same
// tree and the same faults.

// join makes one AND or OR of several conditions. The operators are
// associative, so the tree is balanced: a thousand conditions are ten deep. at
// are the places of the operators, one fewer.
func join(op operator, list []expr, at []int) expr {
	list, at = flatten(op, list, at)
	if len(list) == 1 {
		return list[0]
	}
	return balanced(op, list, at)
}

func balanced(op operator, list []expr, places []int) expr {
	if len(list) == 1 {
		return list[0]
	}
	m := (len(list) + 1) / 2
	return &binary{at(places[m-1]), op, balanced(op, list[:m], places[:m-1]), balanced(op, list[m:], places[m:])}
}

// flatten takes the same operator out of brackets.
func flatten(op operator, list []expr, places []int) ([]expr, []int) {
	if !slices.ContainsFunc(list, func(e expr) bool { b, ok := e.(*binary); return ok && b.op == op }) {
		return list, places
	}
	var flat []expr
	var at []int
	for i, e := range list {
		if i > 0 {
			at = append(at, places[i-1])
		}
		flat, at = leaves(op, e, flat, at)
	}
	return flat, at
}

// leaves appends what a tree of one operator joins, and the operators' places.
func leaves(op operator, e expr, list []expr, at []int) ([]expr, []int) {
	if b, ok := e.(*binary); ok && b.op == op {
		list, at = leaves(op, b.left, list, at)
		return leaves(op, b.right, list, append(at, b.offset()))
	}
	return append(list, e), at
}

// negate makes -x, of a number at once.
func negate(place int, x expr) expr {
	if l, ok := x.(*literal); ok && l.value.Kind() == Number {
		return &literal{at(place), NumberValue(-l.value.Number())}
	}
	return &unary{at(place), opNegate, x}
}

// connectedIs is what the alias connected stands for.
func connectedIs(place int) expr {
	return &binary{at(place), opEqual, &ref{at(place), Path{"connectionState"}}, &literal{at(place), StringValue("Connected")}}
}

// newNow makes now() with an offset in milliseconds.
func newNow(place int, offset int64) *call {
	return &call{at(place), nowName, []expr{&literal{at(place), NumberValue(float64(offset))}}}
}

func isNow(e expr) bool {
	c, ok := e.(*call)
	return ok && c.name == nowName
}

// newCall makes the call of a function that is looked up by name.
func (f *faults) newCall(place int, name string, args []expr) expr {
	upper := strings.ToUpper(name)
	fn := lookup(upper)
	if fn == nil && upper == "STARTS_WITH" {
		f.extension(place, "STARTS_WITH")
		upper = "STARTSWITH"
		fn = lookup(upper)
	}
	if fn == nil {
		f.unknownFunction(place, name)
		return nil
	}
	if fn.extension {
		f.extension(place, upper)
	}
	if upper == nowName && len(args) == 0 {
		return newNow(place, 0)
	}
	switch n := len(args); {
	case n < fn.least:
		f.fail(place, fmt.Sprintf("%s with %s", upper, count(n, "argument")), upper+fn.arguments)
	case n > fn.most:
		f.fail(args[fn.most].offset(), fmt.Sprintf("%s with %s", upper, count(n, "argument")), upper+fn.arguments)
	}
	return &call{at(place), upper, args}
}

func (f *faults) unknownFunction(place int, name string) {
	for a := aggregateCount; a <= aggregateMax; a++ {
		if strings.EqualFold(a.String(), name) {
			f.fail(place, "the aggregate "+a.String(), "a condition on single devices; what counts or sums stands behind SELECT, or in HAVING")
			return
		}
	}
	expected := "one of " + strings.Join(functionNames(), ", ")
	if wording.Nearest(name, functionNames()) != "" {
		expected = meant(name, functionNames(), "a function that there is")
	}
	f.fail(place, "the function "+quoted(name), expected)
}

// pattern checks the right side of LIKE and of a regular expression.
func (f *faults) pattern(op operator, e expr) {
	l, ok := e.(*literal)
	if !ok || l.value.Kind() != String {
		f.fail(e.offset(), "what is no string", "a pattern in quotes")
		return
	}
	if n := len(l.value.Text()); n > maxPattern {
		f.fail(e.offset(), fmt.Sprintf("a pattern of %d bytes", n), fmt.Sprintf("at most %d bytes", maxPattern))
		return
	}
	if op == opMatch {
		_, steps, err := compileRegexp(l.value.Text())
		if err != nil {
			f.fail(e.offset(), "a regular expression that can't be used", err.Error())
		}
		f.steps += steps
	} else {
		f.steps += compileLike(l.value.Text()).steps()
	}
	if f.steps > maxSteps {
		f.fail(e.offset(), "a pattern too much", fmt.Sprintf("fewer or simpler ones: together they make more than %d steps a character", maxSteps))
	}
}

// twice checks an operand that stands in two comparisons: were there others of
// this sort in it, the tree would double with each level.
func (f *faults) twice(e expr) {
	if e == nil {
		return
	}
	walk(e, func(e expr) {
		if isTest(e) {
			f.fail(e.offset(), "a condition within what is compared twice", "a path, a value or a function of these")
		}
	})
}

// check walks a finished tree: now() stands only where it can be evaluated.
func (f *faults) check(e expr) {
	switch e := e.(type) {
	case *unary:
		f.check(e.x)
	case *binary:
		if _, ok := dueOf(e); ok {
			return
		}
		f.check(e.left)
		if e.op != opIn && e.op != opNotIn {
			f.check(e.right)
		}
	case *call:
		if e.name == nowName {
			before := "15m"
			if f.bare {
				before = `"15m"`
			}
			f.fail(e.offset(), "now()", "it in a comparison with <, <=, > or >= and a path on the other side, as in lastActivityTime < now() - "+before)
			return
		}
		for _, a := range e.args {
			f.check(a)
		}
	}
}
