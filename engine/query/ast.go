package query

// Source is the collection that a query reads.
type Source uint8

// The sources.
const (
	Devices Source = iota // a device twin each
	Modules               // a module twin each, those of the system included
	Jobs                  // a device of a job each, which have no columns
	Runs                  // a run of a pattern each, which have none either
)

// String returns the name as it stands behind FROM.
func (s Source) String() string {
	return [...]string{"devices", "devices.modules", "devices.jobs", "devices.runs"}[s]
}

// Query is a parsed query, immutable.
type Query struct {
	text   string // as it was given
	source Source
	star   bool   // SELECT *
	items  []item // else what is selected
	where  expr   // nil: all rows
	group  []Path
	having expr    // over groups; nil: all of them
	order  []order // empty: by id
	top    int     // TOP or LIMIT; -1: no bound
	offset int
}

// Text returns the query as it was given.
func (q *Query) Text() string { return q.text }

// Source returns what the query reads.
func (q *Query) Source() Source { return q.source }

// item is one thing that is selected.
type item struct {
	key       string    // of the row's member: the alias, or the path's last segment
	path      Path      // of a projection, or what is aggregated; empty in COUNT()
	aggregate aggregate // notAggregated for a projection
	distinct  bool      // COUNT(DISTINCT path)
	at        int       // byte offset in the text
}

// aggregate is a function over a group's rows.
type aggregate uint8

// The aggregates.
const (
	notAggregated aggregate = iota
	aggregateCount
	aggregateAvg
	aggregateSum
	aggregateMin
	aggregateMax
)

// String returns the aggregate's name, upper-case.
func (a aggregate) String() string { return [...]string{"", "COUNT", "AVG", "SUM", "MIN", "MAX"}[a] }

// order is one key of ORDER BY.
type order struct {
	path       Path   // or, when key is not empty,
	key        string // of an item
	descending bool
}

// Path addresses a value in a twin: its root attribute in canonical spelling
// ("deviceId", "tags", "properties", ...), then keys as they are. Aliases such as
// reported.x are resolved: ["properties", "reported", "x"].
type Path []string

// operator joins expressions.
type operator uint8

// The operators.
const (
	opAnd    operator = iota + 1
	opOr              // three-valued, as opAnd
	opNot             // unary
	opNegate          // unary
	opEqual
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opAdd
	opSubtract
	opMultiply
	opDivide
	opModulo
	opIn    // right is a *list
	opNotIn // NIN
	opLike  // right is a *literal: % and _ stand for any characters, and for one
	opMatch // right is a *literal: a regular expression in RE2's syntax
)

// expr is a node of a predicate: *literal, *ref, *unary, *binary, *list, *call
// or, in HAVING, *aggregated.
type expr interface {
	offset() int // where the node stands in the text, in bytes
}

type at int

func (a at) offset() int { return int(a) }

// literal is a constant.
type literal struct {
	at
	value Value
}

// ref is the value at a path.
type ref struct {
	at
	path Path
}

// unary is opNot or opNegate.
type unary struct {
	at
	op operator
	x  expr
}

// binary is every other operator. BETWEEN becomes two comparisons.
type binary struct {
	at
	op          operator
	left, right expr
}

// list is what stands in brackets.
type list struct {
	at
	items []expr
}

// call is a function of arguments. The name is upper-case and known.
type call struct {
	at
	name string
	args []expr
}

// aggregated is an aggregate in HAVING.
type aggregated struct {
	at
	aggregate aggregate
	distinct  bool
	path      Path
}

// row is what an expression is evaluated on: a document, or a row of columns.
type row interface {
	// Value returns the value at a path, undefined when there is none.
	Value(p Path) Value
}
