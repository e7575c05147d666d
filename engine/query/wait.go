package query

import (
	"strings"

	"github.com/expr-lang/expr/ast"
)

// ParseWait parses a bare predicate that is followed on one twin, in which names
// stand for values that are known beforehand: `reported.boot.count > before`. A
// name is found before an attribute of twins of the same name, and its members as
// those of a path are. A value is null, a truth, a number, a text, or a list of
// such; of an object only the members can be used. now() is refused: it would
// come true without any change. Whatever is wrong with the text is an *Error.
func ParseWait(text string, names map[string]Value) (*Predicate, error) {
	return parseBare(bare{faults: faults{text: text}, scope: scope{source: Devices, bare: true}, names: names, timeless: true})
}

// named translates a path that begins with a name; ok is false if it begins with
// none.
func (b *bare) named(segments []segment) (e expr, ok bool) {
	v, ok := b.names[segments[0].text]
	if !ok || segments[0].quoted {
		return nil, false
	}
	place := segments[0].at
	v = v.At(texts(segments[1:])...)
	fine := v.primitive() || v.Kind() == Undefined
	if v.Kind() == Array {
		fine = true
		for _, item := range v.List() {
			fine = fine && item.primitive()
		}
	}
	if !fine {
		b.fail(place, quoted(segments[len(segments)-1].text)+", whose value is an object, or a list of more than plain values", "a plain value, a list of them, or a member: name.member")
		return nil, true
	}
	return &literal{at(place), v}, true
}

// namedList returns the list that a node names, nil if it names none.
func (b *bare) namedList(n ast.Node) *list {
	if len(b.names) == 0 {
		return nil
	}
	switch n.(type) {
	case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
	default:
		return nil
	}
	c, ok := b.expr(n).(*literal)
	if !ok || c.value.Kind() != Array {
		return nil
	}
	l := &list{at: c.at}
	for _, item := range c.value.List() {
		l.items = append(l.items, &literal{c.at, item})
	}
	return l
}

// noTime refuses now() where a condition may not read the clock.
func (b *bare) noTime(place int, name string) bool {
	if !b.timeless || !strings.EqualFold(name, nowName) {
		return false
	}
	b.fail(place, "now() in a condition that is waited for", "properties alone: time passes without a change; wait with a timeout, or sleep")
	return true
}
