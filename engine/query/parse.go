package query

import (
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

// Options says which language a text is in.
type Options struct {
	// Strict takes IoT Hub's grammar alone: an extension of Muster's is an
	// error that says so.
	Strict bool
}

// Parse parses a query. Whatever is wrong with the text is an *Error. A text
// may have 64 KiB (8,192 characters if strict) and nest 100 deep.
func Parse(text string, o Options) (*Query, error) {
	p := parser{lexer: lexer{faults: faults{text: text, strict: o.Strict}}}
	p.checkText()
	if p.err == nil {
		p.tok = p.lexer.next()
	}
	q := p.query()
	if err := p.failure(); err != nil {
		return nil, err
	}
	q.text = text
	return q, nil
}

// parser reads a query by recursive descent. After the first error all it sees
// is the end of the text.
type parser struct {
	lexer
	tok    token
	scope  scope
	depth  int
	having *Query // while its HAVING is read

	directed bool // the last key of ORDER BY has its direction
}

func (p *parser) fail(at int, found, expected string) {
	p.lexer.fail(at, found, expected)
	p.tok = token{kind: tokenEnd, at: len(p.text), end: len(p.text)}
}

// advance goes to the next token and returns the one before.
func (p *parser) advance() token {
	t := p.tok
	if p.err == nil {
		p.tok = p.lexer.next()
	}
	if p.err != nil {
		p.tok = token{kind: tokenEnd, at: len(p.text), end: len(p.text)}
	}
	return t
}

// accept goes over a word or sign if it is there.
func (p *parser) accept(word string) bool {
	if !p.tok.is(word) {
		return false
	}
	p.advance()
	return true
}

// unexpected fails at the current token; words are what it may be a misspelling of.
func (p *parser) unexpected(expected string, words ...string) {
	if p.tok.kind == tokenWord {
		expected = meant(p.tok.value, words, expected)
	}
	p.fail(p.tok.at, p.tok.describe(), expected)
}

// expect goes over a word or sign that must be there.
func (p *parser) expect(word, expected string) {
	if !p.accept(word) {
		p.unexpected(expected, word)
	}
}

// selected is an item before it is known what the query reads.
type selected struct {
	item
	segments []segment
	named    bool // by an alias
}

func (p *parser) query() *Query {
	q := &Query{top: -1}
	if p.tok.kind == tokenWord && changes(p.tok.value) {
		p.fail(p.tok.at, p.tok.describe(), "SELECT: "+changesNothing)
	}
	p.expect("SELECT", "SELECT")
	top := p.tok
	if p.accept("TOP") {
		brackets := p.tok
		if p.accept("(") {
			p.extension(brackets.at, "TOP with brackets")
		}
		q.top = p.number("TOP")
		if brackets.is("(") {
			p.expect(")", `")"`)
		}
	}
	items := p.items(q)
	p.expect("FROM", "FROM and what to read: "+p.sources())
	q.source = p.source()
	p.scope.source = q.source
	p.resolveItems(q, items)
	behind := "FROM"
	if p.accept("WHERE") {
		behind = "WHERE"
		q.where = p.condition()
	}
	if at := p.tok.at; p.accept("GROUP") {
		behind = "GROUP BY"
		p.group(q, at)
	}
	p.checkItems(q)
	if at := p.tok.at; p.accept("HAVING") {
		behind = "HAVING"
		p.extension(at, "HAVING")
		p.havingOf(q, at)
	}
	if at := p.tok.at; p.accept("ORDER") {
		behind = "ORDER BY"
		p.extension(at, "ORDER BY")
		p.orderBy(q)
	}
	if last := p.limit(q, top); last != "" {
		behind = last
	}
	if p.tok.kind != tokenEnd {
		p.unexpectedEnd(q, behind, top.is("TOP"))
	}
	return q
}

// clauses are those behind FROM, in their order.
var clauses = [...]string{"WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "OFFSET"}

// mayHave reports whether a clause can stand in a query whose items and source
// are read, and its groups if it has some.
func (p *parser) mayHave(q *Query, clause string, top bool) bool {
	switch clause {
	case "GROUP BY":
		return q.source != Jobs && !q.star && (q.source != Modules || !p.strict)
	case "HAVING":
		return !p.strict && (len(q.group) > 0 || q.aggregates())
	case "ORDER BY":
		return !p.strict && (!q.source.columnless() || len(q.group) > 0 || q.aggregates())
	case "LIMIT":
		return !p.strict && !top
	case "OFFSET":
		return !p.strict
	}
	return true
}

// unexpectedEnd says what could have stood where the query was read to, which is
// behind a clause.
func (p *parser) unexpectedEnd(q *Query, behind string, top bool) {
	if e := instead(p.tok); e != "" {
		p.unexpected(e)
		return
	}
	order := clauses[:]
	if p.strict {
		order = order[:2]
	}
	for _, c := range order { // a suggestion would be what stands there
		if p.tok.is(strings.TrimSuffix(c, " BY")) {
			p.unexpected("each clause once and in its order: " + strings.Join(order, ", "))
			return
		}
	}
	var expected, words []string
	switch behind {
	case "WHERE", "HAVING":
		expected = []string{"AND", "OR", "an operator"}
		words = []string{"AND", "OR", "IN", "NIN"}
		if !p.strict {
			words = append(words, "LIKE")
		}
	case "ORDER BY":
		if !p.directed {
			expected = []string{"ASC", "DESC"}
		}
		words = expected
	}
	for _, c := range clauses[slices.Index(clauses[:], behind)+1:] {
		if p.mayHave(q, c, top) {
			expected, words = append(expected, c), append(words, strings.TrimSuffix(c, " BY"))
		}
	}
	if behind == "OFFSET" && q.top < 0 {
		expected, words = append(expected, "LIMIT"), append(words, "LIMIT")
	}
	p.unexpected(wording.OneOf(append(expected, "the end of the text")), words...)
}

// instead says what to write for words of other languages, where an operator or
// a clause could stand.
func instead(t token) string {
	switch {
	case t.is(")"):
		return "no bracket that was not opened"
	case t.is(";"):
		return "no semicolon: a query ends where its text does"
	case t.isAny("JOIN", "UNION"):
		return "no " + strings.ToUpper(t.value) + ": a query reads one collection"
	case t.is("IS"):
		return "= null, or a function: IS_DEFINED(path), IS_NULL(path)"
	case t.isAny("CONTAINS", "STARTSWITH", "ENDSWITH"):
		return "it as a function: " + strings.ToUpper(t.value) + "(path, 'text')"
	case t.isAny("MATCHES", "RLIKE", "SIMILAR"):
		return "REGEXP, the operator for regular expressions"
	case t.is("ILIKE"):
		return "LIKE, with LOWER(path) on its left"
	}
	return ""
}

// number reads how many rows a keyword asks for.
func (p *parser) number(behind string) int {
	t := p.tok
	if t.kind != tokenNumber || t.number != float64(int64(t.number)) || t.number > maxRows {
		p.unexpected("a whole number behind " + behind)
		return 0
	}
	p.advance()
	return int(t.number)
}

// items reads what is selected; nil is the asterisk.
func (p *parser) items(q *Query) []selected {
	if p.tok.is("DISTINCT") {
		p.fail(p.tok.at, "DISTINCT", "COUNT(DISTINCT path), or GROUP BY, which gives each value once")
	}
	if p.accept("*") {
		q.star = true
		if p.tok.is(",") {
			p.fail(p.tok.at, `","`, "FROM: an asterisk is selected alone")
		}
		return nil
	}
	var list []selected
	for {
		list = append(list, p.item())
		if len(list) > maxItems {
			p.fail(p.tok.at, "more than "+count(maxItems, "item"), "fewer")
		}
		if !p.accept(",") {
			return list
		}
	}
}

func (p *parser) item() selected {
	s := selected{item: item{at: p.tok.at}}
	if p.tok.kind != tokenQuoted && (p.tok.kind != tokenWord || isReserved(p.tok.value)) {
		p.unexpected("*, a path or an aggregate")
		return s
	}
	first := p.advance()
	if p.tok.is("(") && first.kind == tokenWord {
		s.aggregate, s.distinct, s.segments = p.aggregate(first)
	} else {
		s.segments = p.segments(first)
	}
	if t := p.tok; p.accept("AS") {
		s.key, s.named = p.alias("a name behind AS"), true
	} else if t.kind == tokenQuoted || t.kind == tokenWord && !isReserved(t.value) {
		if wording.Nearest(t.value, []string{"FROM"}) != "" {
			p.unexpected("FROM", "FROM")
		}
		s.key, s.named = p.alias("a name"), true
	}
	return s
}

// alias reads the name of an item.
func (p *parser) alias(expected string) string {
	t := p.tok
	switch {
	case t.kind == tokenWord && isReserved(t.value):
		p.fail(t.at, "the reserved word "+quoted(t.value), "a name, quoted if it is this one: [["+t.value+"]]")
	case t.kind != tokenWord && t.kind != tokenQuoted:
		p.unexpected(expected)
	default:
		p.advance()
	}
	return t.value
}

// aggregate reads the brackets behind an aggregate's name.
func (p *parser) aggregate(name token) (a aggregate, distinct bool, segments []segment) {
	names := []string{}
	for i := aggregateCount; i <= aggregateMax; i++ {
		names = append(names, i.String())
		if strings.EqualFold(i.String(), name.value) {
			a = i
		}
	}
	if a == notAggregated {
		expected := "a path or an aggregate: " + wording.OneOf(names)
		if lookup(strings.ToUpper(name.value)) != nil {
			expected += "; functions stand behind WHERE"
		}
		p.fail(name.at, "the function "+quoted(name.value), meant(name.value, names, expected))
		return
	}
	p.advance()
	at := p.tok.at
	switch {
	case a == aggregateCount && p.tok.is(")"):
	case a == aggregateCount && p.accept("*"):
		p.extension(at, "COUNT(*)")
	default:
		if p.tok.is("DISTINCT") {
			if a != aggregateCount {
				p.unexpected("a path: DISTINCT stands in COUNT only")
			}
			p.extension(at, "COUNT(DISTINCT path)")
			p.advance()
			distinct = true
		} else if a == aggregateCount {
			p.extension(at, "COUNT(path)")
		}
		if p.tok.kind != tokenQuoted && (p.tok.kind != tokenWord || isReserved(p.tok.value)) {
			p.unexpected("a path in " + a.String())
			return
		}
		segments = p.segments(p.advance())
	}
	p.expect(")", `")"`)
	return a, distinct, segments
}

// segments reads a path whose first name was read.
func (p *parser) segments(first token) []segment {
	list := []segment{{first.value, first.kind == tokenQuoted, first.at}}
	for p.accept(".") {
		t := p.tok
		switch {
		case t.kind == tokenQuoted, t.kind == tokenWord && !isReserved(t.value):
			list = append(list, segment{t.value, t.kind == tokenQuoted, t.at})
		case t.kind == tokenWord:
			p.fail(t.at, "the reserved word "+quoted(t.value), "a name, quoted if it is this one: "+append(Path(texts(list)), t.value).String())
		case t.kind == tokenNumber || t.kind == tokenDuration:
			p.fail(t.at, quoted(t.value), "a name, quoted if it begins with a digit: "+append(Path(texts(list)), t.value).String())
		default:
			p.unexpected("a name behind the dot")
		}
		p.advance()
	}
	if p.tok.is("[") {
		p.fail(p.tok.at, `"["`, "an operator; elements of an array have no path: see ARRAY_CONTAINS")
	}
	return list
}

// sources are those that there are, in words.
func (p *parser) sources() string {
	if p.strict {
		return "devices, devices.modules or devices.jobs"
	}
	return "devices, devices.modules, devices.jobs or devices.runs"
}

// source reads what stands behind FROM.
func (p *parser) source() Source {
	expected := p.sources()
	first := p.tok
	if !p.tok.is("devices") {
		p.unexpected(expected, "devices")
		return Devices
	}
	p.advance()
	if !p.accept(".") {
		if p.tok.is("AS") || p.tok.kind == tokenWord && len(p.tok.value) == 1 {
			p.fail(p.tok.at, p.tok.describe(), "no other name for "+first.value+": paths begin with attributes, or with devices.")
		}
		return Devices
	}
	switch {
	case p.accept("modules"):
		return Modules
	case p.accept("jobs"):
		return Jobs
	case p.tok.is("runs"):
		p.extension(p.tok.at, "devices.runs")
		p.advance()
		return Runs
	}
	p.unexpected(expected, "modules", "jobs", "runs")
	return Devices
}

// resolveItems finds the paths of what is selected. Two items with the same key
// would be one member of a row; strictly the last one counts, as in a JSON object
// that is written twice.
func (p *parser) resolveItems(q *Query, list []selected) {
	if q.source == Jobs && len(list) > 0 {
		p.fail(list[0].at, "a selection", "SELECT *: jobs are selected whole")
		return
	}
	for _, s := range list {
		if len(s.segments) > 0 {
			path, connected := p.resolve(p.scope, s.segments)
			if connected {
				p.fail(s.segments[0].at, "the condition connected", "connectionState")
			}
			s.path = path
		}
		if p.err != nil {
			return
		}
		if !s.named {
			s.key = s.unnamed()
		}
		same := func(i item) bool { return i.key == s.key }
		if !p.strict && slices.ContainsFunc(q.items, same) {
			p.fail(s.at, "a second item with the name "+quoted(s.key), "another name behind AS: an item before has this one")
			return
		}
		q.items = slices.DeleteFunc(q.items, same)
		q.items = append(q.items, s.item)
	}
}

// unnamed returns the key of an item without an alias: the last name of a path;
// count, or avg_n of AVG(properties.reported.n), of an aggregate.
func (s selected) unnamed() string {
	name := strings.ToLower(s.aggregate.String())
	if len(s.path) == 0 {
		return name
	}
	last := s.path[len(s.path)-1]
	if s.aggregate == notAggregated {
		return last
	}
	return name + "_" + last
}

func (q *Query) aggregates() bool {
	return slices.ContainsFunc(q.items, func(i item) bool { return i.aggregate != notAggregated })
}

// group reads what stands behind GROUP.
func (p *parser) group(q *Query, at int) {
	p.expect("BY", "BY behind GROUP")
	switch q.source {
	case Jobs:
		p.fail(at, "GROUP BY", "no groups: jobs are selected whole")
	case Modules:
		p.extension(at, "GROUP BY on modules")
	}
	if q.star {
		p.fail(at, "GROUP BY", "paths and aggregates behind SELECT: a group is no twin")
	}
	for {
		start := p.tok
		if path := p.groupKey(); path != nil {
			if len(q.group) > 0 {
				p.extension(start.at, "a second path in GROUP BY")
			}
			q.group = append(q.group, path)
		}
		if len(q.group) > maxItems {
			p.fail(p.tok.at, "more than "+count(maxItems, "path"), "fewer")
		}
		if !p.accept(",") {
			return
		}
	}
}

// groupKey reads a path of GROUP BY; nil after an error.
func (p *parser) groupKey() Path {
	const expected = "a path behind GROUP BY"
	if p.tok.kind != tokenQuoted && (p.tok.kind != tokenWord || isReserved(p.tok.value)) {
		p.unexpected(expected)
		return nil
	}
	first := p.advance()
	if p.tok.is("(") && first.kind == tokenWord {
		if isAggregate(first.value) {
			p.fail(first.at, "the aggregate "+strings.ToUpper(first.value), expected+"; aggregates stand behind SELECT, and in HAVING")
		} else {
			p.fail(first.at, "the function "+quoted(first.value), expected+"; functions stand behind WHERE")
		}
		return nil
	}
	path, connected := p.resolve(p.scope, p.segments(first))
	if connected {
		p.fail(first.at, "the condition connected", "connectionState")
	}
	if p.err != nil {
		return nil
	}
	return path
}

// checkItems looks for what is selected beside aggregates without being grouped by.
func (p *parser) checkItems(q *Query) {
	if len(q.group) == 0 && !q.aggregates() {
		return
	}
	for _, i := range q.items {
		if i.aggregate == notAggregated && !q.groupedBy(i.path) {
			p.fail(i.at, "a path that differs within a group", "an aggregate of it, or GROUP BY with this path")
			return
		}
	}
}

func (q *Query) groupedBy(path Path) bool {
	return slices.ContainsFunc(q.group, func(g Path) bool { return slices.Equal(g, path) })
}

// havingOf reads what stands behind HAVING.
func (p *parser) havingOf(q *Query, at int) {
	if len(q.group) == 0 && !q.aggregates() {
		p.fail(at, "HAVING", "WHERE: there are no groups and no aggregates")
		return
	}
	p.having = q
	q.having = p.condition()
	p.having = nil
	if hasNow(q.having) {
		p.fail(at, "now() behind HAVING", "it behind WHERE")
	}
}

// orderBy reads the keys behind ORDER.
func (p *parser) orderBy(q *Query) {
	p.expect("BY", "BY behind ORDER")
	for {
		o := p.orderKey(q)
		p.directed = p.tok.isAny("ASC", "DESC")
		if p.directed {
			o.descending = p.advance().is("DESC")
		}
		q.order = append(q.order, o)
		if len(q.order) > maxItems {
			p.fail(p.tok.at, "more than "+count(maxItems, "key"), "fewer")
		}
		if !p.accept(",") {
			return
		}
	}
}

// orderKey reads one key: a path, an alias, or an aggregate that is selected.
func (p *parser) orderKey(q *Query) order {
	const expected = "a path or the name of what is selected"
	if p.tok.kind != tokenQuoted && (p.tok.kind != tokenWord || isReserved(p.tok.value)) {
		p.unexpected(expected)
		return order{}
	}
	grouped := len(q.group) > 0 || q.aggregates()
	first := p.advance()
	if p.tok.is("(") && first.kind == tokenWord {
		return p.orderAggregate(q, first)
	}
	segments := p.segments(first)
	if len(segments) == 1 {
		for _, i := range q.items {
			if i.key == segments[0].text && (i.aggregate != notAggregated || grouped) {
				return order{key: i.key}
			}
			if i.key == segments[0].text {
				return order{path: i.path}
			}
		}
	}
	path, connected := p.resolve(p.scope, segments)
	if connected {
		p.fail(first.at, "the condition connected", "connectionState")
	}
	if grouped && p.err == nil && !q.groupedBy(path) {
		p.fail(first.at, "a path that differs within a group", "the name of an aggregate, or a path of GROUP BY")
	}
	return order{path: path}
}

func (p *parser) orderAggregate(q *Query, name token) order {
	a, distinct, segments := p.aggregate(name)
	var path Path
	if len(segments) > 0 {
		path, _ = p.resolve(p.scope, segments)
	}
	for _, i := range q.items {
		if i.aggregate == a && i.distinct == distinct && slices.Equal(i.path, path) {
			return order{key: i.key}
		}
	}
	p.fail(name.at, "an aggregate that is not selected", "it behind SELECT, too")
	return order{}
}

// limit reads LIMIT and OFFSET, in either order; top is where TOP would stand. It
// returns the last that was there.
func (p *parser) limit(q *Query, top token) (last string) {
	seen := map[string]bool{}
	for {
		at := p.tok.at
		switch {
		case !seen["LIMIT"] && p.accept("LIMIT"):
			last = "LIMIT"
			p.extension(at, last)
			if top.is("TOP") {
				p.fail(at, "LIMIT beside TOP", "one of both")
			}
			q.top = p.number(last)
		case !seen["OFFSET"] && p.accept("OFFSET"):
			last = "OFFSET"
			p.extension(at, last)
			q.offset = p.number(last)
		default:
			return last
		}
		seen[last] = true
	}
}
