package query

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/muster-hub/muster/engine/twin"
)

// String returns the path as a query has it.
func (p Path) String() string {
	var b strings.Builder
	for i, s := range p {
		if i > 0 {
			b.WriteByte('.')
		}
		if plainName(s) {
			b.WriteString(s)
		} else {
			b.WriteString(bracketed(s))
		}
	}
	return b.String()
}

// Bare returns the path as a bare predicate has it, which knows no [[ ]].
func (p Path) Bare() string {
	var b []byte
	for i, s := range p {
		switch {
		case i == 0:
			b = append(b, s...)
		case bareName(s):
			b = append(append(b, '.'), s...)
		default:
			b = append(twin.AppendString(append(b, '['), s), ']')
		}
	}
	return string(b)
}

// bareName reports whether a key needs no quotes in a bare predicate.
func bareName(key string) bool {
	for i, r := range key {
		if r != '_' && r != '$' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return !slices.Contains([]string{"", "and", "or", "not", "in", "if", "else", "let", "matches", "contains", "startsWith", "endsWith"}, key)
}

// bracketed returns a name in [[ ]], as the lexer reads it.
func bracketed(name string) string { return "[[" + strings.ReplaceAll(name, "]]", "]]]]") + "]]" }

// format returns an expression as a query has it; parsed again it gives the
// same tree.
func format(e expr) string {
	var b strings.Builder
	write(&b, e, 0)
	return b.String()
}

// The precedences, from the loosest on.
const (
	levelOr = iota + 1
	levelAnd
	levelNot
	levelCompare
	levelSum
	levelProduct
	levelUnary
)

// symbols are the operators as they are written, with their precedence.
var symbols = [...]struct {
	text  string
	level int
}{
	opAnd: {"AND", levelAnd}, opOr: {"OR", levelOr}, opNot: {"NOT", levelNot}, opNegate: {"-", levelUnary},
	opEqual: {"=", levelCompare}, opNotEqual: {"!=", levelCompare}, opLess: {"<", levelCompare}, opLessEqual: {"<=", levelCompare},
	opGreater: {">", levelCompare}, opGreaterEqual: {">=", levelCompare},
	opAdd: {"+", levelSum}, opSubtract: {"-", levelSum}, opMultiply: {"*", levelProduct}, opDivide: {"/", levelProduct}, opModulo: {"%", levelProduct},
	opIn: {"IN", levelCompare}, opNotIn: {"NIN", levelCompare}, opLike: {"LIKE", levelCompare}, opMatch: {"REGEXP", levelCompare},
}

// write appends an expression, in brackets if it binds looser than level.
func write(b *strings.Builder, e expr, level int) {
	switch e := e.(type) {
	case *literal:
		writeValue(b, e.value)
	case *ref:
		b.WriteString(e.path.String())
	case *list:
		b.WriteByte('[')
		for i, item := range e.items {
			comma(b, i)
			write(b, item, 0)
		}
		b.WriteByte(']')
	case *aggregated:
		b.WriteString(e.aggregate.String() + "(")
		if e.distinct {
			b.WriteString("DISTINCT ")
		}
		b.WriteString(e.path.String() + ")")
	case *call:
		writeCall(b, e)
	case *unary:
		s := symbols[e.op]
		open(b, level > s.level)
		b.WriteString(s.text)
		if e.op == opNot {
			b.WriteByte(' ')
			write(b, e.x, levelNot)
		} else {
			open(b, true)
			write(b, e.x, 0)
			closeBracket(b, true)
		}
		closeBracket(b, level > s.level)
	case *binary:
		writeBinary(b, e, level)
	}
}

func writeBinary(b *strings.Builder, e *binary, level int) {
	s := symbols[e.op]
	open(b, level > s.level)
	if e.op == opAnd || e.op == opOr {
		list, _ := leaves(e.op, e, nil, nil)
		for i, x := range list {
			if i > 0 {
				b.WriteString(" " + s.text + " ")
			}
			write(b, x, s.level+1)
		}
	} else {
		left := s.level
		if s.level == levelCompare {
			left++ // comparisons don't chain
		}
		write(b, e.left, left)
		b.WriteString(" " + s.text + " ")
		write(b, e.right, s.level+1)
	}
	closeBracket(b, level > s.level)
}

func writeCall(b *strings.Builder, c *call) {
	b.WriteString(c.name + "(")
	if c.name == nowName {
		b.WriteByte(')')
		if by := nowOffset(c); by < 0 {
			b.WriteString(" - " + formatDuration(-by))
		} else if by > 0 {
			b.WriteString(" + " + formatDuration(by))
		}
		return
	}
	for i, a := range c.args {
		comma(b, i)
		write(b, a, 0)
	}
	b.WriteByte(')')
}

func open(b *strings.Builder, really bool) {
	if really {
		b.WriteByte('(')
	}
}

func closeBracket(b *strings.Builder, really bool) {
	if really {
		b.WriteByte(')')
	}
}

func comma(b *strings.Builder, i int) {
	if i > 0 {
		b.WriteString(", ")
	}
}

func writeValue(b *strings.Builder, v Value) {
	switch v.kind {
	case Undefined:
		b.WriteString("undefined")
	case Number:
		b.WriteString(strconv.FormatFloat(v.number, 'g', -1, 64))
	case String:
		writeString(b, v.text)
	case Array:
		b.WriteByte('[')
		for i, e := range v.items {
			comma(b, i)
			writeValue(b, e)
		}
		b.WriteByte(']')
	default:
		b.Write(v.AppendJSON(nil))
	}
}

func writeString(b *strings.Builder, s string) {
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			b.WriteString(`\u00` + strconv.FormatInt(int64(r)>>4, 16) + strconv.FormatInt(int64(r)&15, 16))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
}

// paths returns the paths that an expression reads, each once, in order of
// their first appearance.
func paths(e expr) []Path {
	var list []Path
	seen := map[string]bool{}
	walk(e, func(e expr) {
		var p Path
		switch e := e.(type) {
		case *ref:
			p = e.path
		case *aggregated:
			p = e.path
		}
		if key := strings.Join(p, "\x00"); len(p) > 0 && !seen[key] {
			seen[key] = true
			list = append(list, p)
		}
	})
	return slices.Clip(list)
}

// hasNow reports whether the expression's value depends on the time.
func hasNow(e expr) bool {
	found := false
	walk(e, func(e expr) { found = found || isNow(e) })
	return found
}

// walk calls f for an expression and all in it, from the left.
func walk(e expr, f func(expr)) {
	if e == nil {
		return
	}
	f(e)
	switch e := e.(type) {
	case *unary:
		walk(e.x, f)
	case *binary:
		walk(e.left, f)
		walk(e.right, f)
	case *list:
		for _, i := range e.items {
			walk(i, f)
		}
	case *call:
		for _, a := range e.args {
			walk(a, f)
		}
	}
}
