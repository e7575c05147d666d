package query

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	exprparser "github.com/expr-lang/expr/parser"
	exprlexer "github.com/expr-lang/expr/parser/lexer"

	"github.com/muster-hub/muster/engine/wording"
)

// ParsePredicate parses a bare predicate, as in `tags.site == "A" and
// reported.battery < 20`, which is written in expr-lang/expr's language: of it
// comparison, arithmetic, and, or, not, in, contains, startsWith, endsWith,
// matches, lists, paths and the functions of queries are taken. Whatever is
// wrong with the text is an *Error. A text may have 64 KiB and nest 100 deep.
func ParsePredicate(text string) (*Predicate, error) {
	return parseBare(bare{faults: faults{text: text}, scope: scope{source: Devices, bare: true}})
}

func parseBare(b bare) (*Predicate, error) {
	b.faults.bare = true
	e := b.parse()
	if err := b.failure(); err != nil {
		return nil, err
	}
	p, err := newPredicate(b.text, e)
	if err != nil {
		return nil, &Error{Text: b.text, Found: "a predicate that can't be used", Expected: err.Error()}
	}
	return p, nil
}

// bare translates expr's syntax tree into ours.
type bare struct {
	faults
	scope scope
	bytes []int // byte offset of each character; nil when they are the same
	edits []edit
	depth int

	names    map[string]Value // that stand for values; see ParseWait
	timeless bool             // now() is refused
}

func (b *bare) parse() expr {
	b.checkText()
	if b.err == nil {
		if i := invalidUTF8(b.text); i >= 0 {
			b.fail(i, "a byte that is not UTF-8", "UTF-8")
		}
	}
	if b.err != nil {
		return nil
	}
	b.index()
	if b.tokens(); b.err != nil {
		return nil
	}
	tree, err := exprparser.Parse(b.edited())
	if err != nil {
		b.foreign(err)
		return nil
	}
	e := b.expr(tree.Node)
	if b.err == nil {
		b.check(e)
	}
	return e
}

func invalidUTF8(s string) int {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// index prepares place: expr counts characters.
func (b *bare) index() {
	if utf8.RuneCountInString(b.text) == len(b.text) {
		return
	}
	for i := range b.text {
		b.bytes = append(b.bytes, i)
	}
}

// place returns the byte offset of a character.
func (b *bare) place(character int) int {
	switch {
	case b.bytes == nil:
		return min(character, len(b.text))
	case character < len(b.bytes):
		return b.bytes[character]
	}
	return len(b.text)
}

// advice is what to write for parts of expr's language that are not taken.
var advice = map[string]string{
	"=": "== to compare", "&": "and", "|": "or between conditions: there are no pipes",
	"?": "and, or: there is no choice between values", ":": "no slices and no choice between values",
	"??": "a comparison: see IS_DEFINED(path)", "..": "two comparisons, as in 1 <= path and path <= 5",
	"**": "POWER(number, exponent)", "^": "POWER(number, exponent)", ";": "one condition", "#": "a path",
	"::": "a function's name", "let": "a condition without variables", "if": "and, or: there are no branches", "else": "and, or: there are no branches",
	"{": "a path, a value, a function or a bracket", "}": "a path, a value, a function or a bracket",
}

// words of SQL that are none in a bare predicate.
var foreignWords = map[string]string{
	"AND": "and", "OR": "or", "NOT": "not", "IN": "in", "NIN": "not in", "LIKE": "contains, startsWith, endsWith or matches",
	"REGEXP": "matches", "IS": "== nil, or IS_DEFINED(path)", "BETWEEN": "two comparisons joined by and",
}

// statements are the words that begin a query or a part of one, and what to write instead. Behind one of
// them stands a word, or the * of SELECT; behind a path's name, an operator.
var statements = map[string]string{
	"SELECT": "a condition, as stands behind WHERE", "FROM": "a condition, as stands behind WHERE",
	"WHERE": "the condition alone", "WITH": "a condition", "EXPLAIN": "a condition",
}

// statement refuses a text that is no condition from its first word on.
func (b *bare) statement(list []exprlexer.Token) {
	if !list[0].Is(exprlexer.Identifier) || !list[1].Is(exprlexer.Identifier) && !list[1].Is(exprlexer.Operator, "*") {
		return
	}
	word := strings.ToUpper(list[0].Value)
	expected, ok := statements[word]
	if changes(word) {
		expected, ok = "a condition: "+changesNothing, true
	}
	if ok && (list[1].Is(exprlexer.Identifier) || word == "SELECT") {
		b.fail(b.place(list[0].From), quoted(list[0].Value), expected)
	}
}

// tokens looks at the text's tokens before expr's parser does: what is refused
// anyway is refused here, where its place is known, and nesting is bounded,
// which that parser does not do.
func (b *bare) tokens() {
	list, err := exprlexer.Lex(file.NewSource(b.text))
	if err != nil {
		b.foreign(err)
		return
	}
	if b.statement(list); b.err != nil {
		return
	}
	depth, prefix := 0, 0
	for i, t := range list {
		place := b.place(t.From)
		if t.Is(exprlexer.Operator, "not", "!", "-", "+") {
			prefix++
		} else {
			prefix = 0
		}
		switch {
		case t.Is(exprlexer.Bracket, "(", "["):
			depth++
		case t.Is(exprlexer.Bracket, ")", "]"):
			depth--
		case t.Is(exprlexer.String):
			b.surrogates(place, b.place(t.To))
		case t.Is(exprlexer.Bytes):
			b.fail(place, "a string of bytes", "a string without the b before its quote")
		case t.Is(exprlexer.Operator, "<") && i+1 < len(list) && list[i+1].Is(exprlexer.Operator, ">") && list[i+1].From == t.To:
			b.fail(place, `"<>"`, "!=")
		case isFunction(list, i):
			b.edits = append(b.edits, edit{place, b.place(t.To), bareFunctions[t.Value]})
		case t.Is(exprlexer.Operator), t.Is(exprlexer.Bracket):
			if a, ok := advice[t.Value]; ok && !afterDot(list, i) {
				b.fail(place, quoted(t.Value), a)
			}
		case t.Is(exprlexer.Identifier) && !afterDot(list, i):
			// An operator of SQL's stands where no name can; all but NOT behind a value.
			a, ok := foreignWords[strings.ToUpper(t.Value)]
			value := i > 0 && !list[i-1].Is(exprlexer.Operator) && !list[i-1].Is(exprlexer.Bracket, "(", "[")
			if ok && (value || strings.EqualFold(t.Value, "NOT")) {
				b.fail(place, quoted(t.Value), a)
			}
		}
		if depth+prefix > maxDepth {
			b.fail(place, quoted(t.Value)+" nested more than "+count(maxDepth, "level")+" deep", "a flatter condition")
		}
		if b.err != nil {
			return
		}
	}
}

// isFunction reports whether a token is an operator of expr's that is called as
// our function of that name: contains(path, "x"). An operator stands behind a
// value, maybe with not between; expr's lexer does not tell the two apart.
func isFunction(list []exprlexer.Token, i int) bool {
	if list[i].Kind != exprlexer.Operator || bareFunctions[list[i].Value] == "" || !list[i+1].Is(exprlexer.Bracket, "(") || afterDot(list, i) {
		return false
	}
	for i--; i >= 0 && list[i].Is(exprlexer.Operator, "not") && !afterDot(list, i); i-- {
	}
	return i < 0 || list[i].Is(exprlexer.Bracket, "(", "[") || list[i].Is(exprlexer.Operator) && !afterDot(list, i)
}

// edit is what expr's parser reads in place of a part of the text. Places stay
// those of the text.
type edit struct {
	from, to int
	text     string
}

// edited returns the text with its edits, and adapts place to it.
func (b *bare) edited() string {
	if len(b.edits) == 0 {
		return b.text
	}
	var text strings.Builder
	b.bytes = b.bytes[:0]
	add := func(from, to int) {
		text.WriteString(b.text[from:to])
		for i := range b.text[from:to] {
			b.bytes = append(b.bytes, from+i)
		}
	}
	end := 0
	for _, e := range b.edits {
		add(end, e.from)
		text.WriteString(e.text)
		for range e.text {
			b.bytes = append(b.bytes, e.from)
		}
		end = e.to
	}
	add(end, len(b.text))
	return text.String()
}

// surrogates makes one character of each pair of \u escapes in a string: expr's
// lexer makes U+FFFD of either.
func (b *bare) surrogates(from, to int) {
	if b.text[from] == '`' { // without escapes
		return
	}
	for i := from + 1; i < to-1; i++ {
		if b.text[i] != '\\' {
			continue
		}
		r, size := codePoint(b.text[i:to])
		if utf16.IsSurrogate(r) {
			low, _ := hexUnit(b.text[i+size : to])
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError || size != unitBytes {
				b.fail(i, brokenEscape, escapeExpected)
				return
			}
			b.edits = append(b.edits, edit{i, i + 2*unitBytes, string(r)})
			size = 2 * unitBytes
		}
		i += size - 1
	}
}

// codePoint reads \uXXXX, \u{XXXXXX} or \UXXXXXXXX at the start of s; of another
// escape r is 0.
func codePoint(s string) (r rune, size int) {
	digits := ""
	switch {
	case strings.HasPrefix(s, `\u{`):
		digits, _, _ = strings.Cut(s[3:], "}")
		size = len(digits) + 4
	case strings.HasPrefix(s, `\u`) && len(s) >= unitBytes:
		digits, size = s[2:unitBytes], unitBytes
	case strings.HasPrefix(s, `\U`) && len(s) >= 10:
		digits, size = s[2:10], 10
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return 0, 2
	}
	return rune(n), size
}

func afterDot(list []exprlexer.Token, i int) bool {
	return i > 0 && list[i-1].Is(exprlexer.Operator, ".", "?.")
}

// foreign translates an error of expr's parser.
func (b *bare) foreign(err error) {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		b.fail(0, "a text that can't be read", err.Error())
		return
	}
	place := b.place(e.From)
	rest := b.text[place:]
	switch {
	case strings.Contains(e.Message, "not terminated"):
		b.fail(place+1, "the end of the line within a string", "its closing quote")
	case strings.Contains(e.Message, "escape"):
		b.fail(place, "an unknown escape in a string", `one of \' \" \\ \n \t \uXXXX; a backslash itself is \\`)
	case strings.Contains(e.Message, "unclosed comment"):
		b.fail(strings.LastIndex(b.text, "/*"), "a comment without its end", "*/ behind it")
	case strings.Contains(e.Message, "bad number"):
		b.fail(b.wordBefore(place+1), "a number with a letter behind it", `a number, or a duration in quotes: now() - "15m"`)
	case strings.Contains(e.Message, "literal"): // integer literal: value out of range
		b.fail(b.wordBefore(place), "a number that is too large", "a number that a 64-bit float can hold, with a decimal point")
	case strings.Contains(e.Message, "EOF"), strings.TrimSpace(rest) == "", strings.Contains(e.Message, "unexpected end"):
		b.fail(len(b.text), "the end of the text", "a path, a value, a function or a closing bracket")
	case strings.Contains(e.Message, "maximum allowed nodes"):
		b.fail(place, "a condition of too many parts", "fewer than 10,000")
	default:
		b.fail(place, quoted(firstWord(rest)), "an operator such as ==, and, or, in, or the end of the text")
	}
}

// wordBefore returns where the word or number begins that ends before a place.
func (b *bare) wordBefore(place int) int {
	place = min(place, len(b.text))
	for place > 0 && !isWordByte(b.text[place-1]) {
		place--
	}
	for place > 0 && isWordByte(b.text[place-1]) {
		place--
	}
	return place
}

// firstWord returns the name, number or sign at the start of s.
func firstWord(s string) string {
	n := 0
	for n < len(s) && isWordByte(s[n]) {
		n++
	}
	if n == 0 {
		_, n = utf8.DecodeRuneInString(s)
	}
	return s[:n]
}

// The operators of expr that have one of ours.
var bareOperators = map[string]operator{
	"and": opAnd, "&&": opAnd, "or": opOr, "||": opOr,
	"==": opEqual, "!=": opNotEqual, "<": opLess, "<=": opLessEqual, ">": opGreater, ">=": opGreaterEqual,
	"+": opAdd, "-": opSubtract, "*": opMultiply, "/": opDivide, "%": opModulo,
}

// bareFunctions are the operators of expr that are functions of ours.
var bareFunctions = map[string]string{"contains": "CONTAINS", "startsWith": "STARTSWITH", "endsWith": "ENDSWITH"}

// expr translates a node; nil after an error.
func (b *bare) expr(n ast.Node) expr {
	if b.err != nil {
		return nil
	}
	place := b.place(n.Location().From)
	if b.depth++; b.depth > maxChain+maxDepth {
		b.fail(place, "a condition of too many parts in a row", "brackets around some of them")
		return nil
	}
	defer func() { b.depth-- }()
	switch n := n.(type) {
	case *ast.NilNode:
		return &literal{at(place), NullValue()}
	case *ast.BoolNode:
		return &literal{at(place), BoolValue(n.Value)}
	case *ast.IntegerNode:
		return &literal{at(place), NumberValue(float64(n.Value))}
	case *ast.FloatNode:
		return &literal{at(place), NumberValue(n.Value)}
	case *ast.StringNode:
		return &literal{at(place), StringValue(n.Value)}
	case *ast.ArrayNode:
		l := b.list(n)
		values := make([]Value, len(l.items))
		for i, e := range l.items {
			values[i] = e.(*literal).value
		}
		return &literal{at(place), ArrayValue(values)}
	case *ast.UnaryNode:
		return b.unary(n, place)
	case *ast.BinaryNode:
		return b.binary(n, place)
	case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
		return b.path(n)
	case *ast.CallNode:
		if callee, ok := n.Callee.(*ast.IdentifierNode); ok {
			return b.call(place, callee.Value, n.Arguments)
		}
		b.fail(place, "a function of a value", "a function's name: "+wording.OneOf([]string{"LENGTH(path)", "CONTAINS(path, text)"}))
	case *ast.BuiltinNode:
		return b.call(place, n.Name, n.Arguments)
	case *ast.SliceNode:
		b.fail(place, "a slice", "a path; see SUBSTRING")
	default:
		b.fail(place, "an expression of another sort", "a condition, a path, a value or a function")
	}
	return nil
}

func (b *bare) unary(n *ast.UnaryNode, place int) expr {
	x := b.expr(n.Node)
	if b.err != nil {
		return nil
	}
	switch n.Operator {
	case "not", "!":
		return &unary{at(place), opNot, x}
	case "-":
		return negate(place, x)
	}
	return x
}

func (b *bare) binary(n *ast.BinaryNode, place int) expr {
	op, known := bareOperators[n.Operator]
	if op == opAnd || op == opOr {
		return b.junction(op, n)
	}
	if l, ok := n.Left.(*ast.UnaryNode); ok && (l.Operator == "not" || l.Operator == "!") {
		b.fail(b.place(l.Location().From), quoted(l.Operator)+", which here applies to the left side alone", "brackets: not (a "+n.Operator+" b)")
		return nil
	}
	switch n.Operator {
	case "in":
		return b.in(n, place)
	case "matches":
		left, right := b.expr(n.Left), b.expr(n.Right)
		if b.err == nil {
			b.pattern(opMatch, right)
		}
		return &binary{at(place), opMatch, left, right}
	}
	left := b.expr(n.Left)
	if b.err == nil && isNow(left) && (op == opAdd || op == opSubtract) {
		return b.shift(left.(*call), op, n.Right)
	}
	right := b.expr(n.Right)
	if b.err != nil {
		return nil
	}
	if name, ok := bareFunctions[n.Operator]; ok {
		return b.newCall(place, name, []expr{left, right})
	}
	if !known {
		b.fail(place, quoted(n.Operator), "a comparison, and, or, in, or arithmetic")
		return nil
	}
	return &binary{at(place), op, left, right}
}

// junction translates a chain of one operator without recursion to its left.
func (b *bare) junction(op operator, n *ast.BinaryNode) expr {
	var nodes []ast.Node
	var places []int
	var node ast.Node = n
	for {
		x, ok := node.(*ast.BinaryNode)
		if !ok || bareOperators[x.Operator] != op {
			break
		}
		nodes = append(nodes, x.Right)
		places = append(places, b.place(x.Location().From))
		node = x.Left
	}
	nodes = append(nodes, node)
	slices.Reverse(nodes)
	slices.Reverse(places)
	list := make([]expr, len(nodes))
	for i, node := range nodes {
		if i > 0 && sharesOperand(nodes[i-1], node) {
			b.twice(list[i-1].(*binary).right)
		}
		if list[i] = b.expr(node); b.err != nil {
			return nil
		}
	}
	return join(op, list, places)
}

// sharesOperand reports whether two comparisons are what expr has made of
// a < b < c, where b stands in both.
func sharesOperand(a, b ast.Node) bool {
	left, ok := a.(*ast.BinaryNode)
	right, too := b.(*ast.BinaryNode)
	return ok && too && left.Right == right.Left
}

// in translates membership: of a list that is written out, or of a twin's array.
func (b *bare) in(n *ast.BinaryNode, place int) expr {
	left := b.expr(n.Left)
	if a, ok := n.Right.(*ast.ArrayNode); ok {
		return &binary{at(place), opIn, left, b.list(a)}
	}
	if l := b.namedList(n.Right); l != nil {
		return &binary{at(place), opIn, left, l}
	}
	right := b.expr(n.Right)
	if b.err != nil {
		return nil
	}
	if _, ok := right.(*ref); !ok {
		b.fail(right.offset(), "what is no list", "a list, as in [1, 2], or the path of an array")
		return nil
	}
	return b.newCall(place, "ARRAY_CONTAINS", []expr{right, left})
}

// list translates a list of constants.
func (b *bare) list(n *ast.ArrayNode) *list {
	l := &list{at: at(b.place(n.Location().From))}
	for _, item := range n.Nodes {
		e := b.expr(item)
		c, ok := e.(*literal)
		if b.err == nil && (!ok || c.value.Kind() == Array) {
			b.fail(e.offset(), "what is no constant", "a constant: a number, a string, true, false or nil")
		}
		if b.err != nil {
			return &list{}
		}
		l.items = append(l.items, c)
	}
	return l
}

// shift translates now() - "15m", also with expr's own duration("15m").
func (b *bare) shift(c *call, op operator, by ast.Node) expr {
	place := b.place(by.Location().From)
	if d, ok := by.(*ast.BuiltinNode); ok && d.Name == "duration" && len(d.Arguments) == 1 {
		by = d.Arguments[0]
	}
	s, ok := by.(*ast.StringNode)
	if !ok {
		b.fail(place, "what is no duration", durationExpected+`, in quotes: now() - "15m"`)
		return nil
	}
	return b.shifted(c, op == opSubtract, true, s.Value, place, "the string "+quoted(s.Value))
}

func (b *bare) call(place int, name string, nodes []ast.Node) expr {
	if b.noTime(place, name) {
		return nil
	}
	args := make([]expr, 0, len(nodes))
	for _, n := range nodes {
		if _, ok := n.(*ast.PredicateNode); ok {
			b.unknownFunction(place, name)
			return nil
		}
		args = append(args, b.expr(n))
	}
	if b.err != nil {
		return nil
	}
	return b.newCall(place, name, args)
}

// path translates names joined by dots, or by brackets with a string in them.
func (b *bare) path(n ast.Node) expr {
	var segments []segment
	first := n
	for {
		if c, ok := first.(*ast.ChainNode); ok {
			first = c.Node
			continue
		}
		place := b.place(first.Location().From)
		if id, ok := first.(*ast.IdentifierNode); ok {
			segments = append(segments, segment{id.Value, false, place})
			break
		}
		m, ok := first.(*ast.MemberNode)
		if !ok {
			b.fail(place, "what is no path", "a path, which begins with an attribute: "+strings.Join(b.scope.source.roots(), ", "))
			return nil
		}
		key, ok := m.Property.(*ast.StringNode)
		if !ok {
			b.fail(b.place(m.Property.Location().From), "what is no name", `a name in quotes, as in tags["my-key"]; elements of an array have no path: see ARRAY_CONTAINS`)
			return nil
		}
		place = b.place(key.Location().From)
		segments = append(segments, segment{key.Value, strings.IndexByte("\"'`", b.text[place]) >= 0, place})
		if len(segments) > maxSegments {
			b.fail(place, "a path of more than "+count(maxSegments, "name"), "a shorter one: twins nest less deeply")
			return nil
		}
		first = m.Node
	}
	slices.Reverse(segments)
	if e, ok := b.named(segments); ok {
		return e
	}
	place := segments[0].at
	if len(segments) == 1 {
		switch segments[0].text {
		case "null":
			return &literal{at(place), NullValue()}
		case "undefined":
			return &literal{at: at(place)}
		}
	}
	path, connected := b.resolve(b.scope, segments)
	if connected {
		return connectedIs(place)
	}
	return &ref{at(place), path}
}
