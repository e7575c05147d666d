package query

import "time"

// Predicate is a condition on a twin, immutable and safe for concurrent use.
type Predicate struct {
	text    string
	where   expr     // nil: everything matches
	program *program // nil, too, then
	paths   []Path
}

// Predicate returns the query's WHERE as a predicate of its own. What the query
// selects, groups or orders by is no part of it.
func (q *Query) Predicate() *Predicate {
	p, err := newPredicate(q.text, q.where)
	if err != nil { // a query that was parsed always compiles
		return &Predicate{text: q.text, where: &literal{value: BoolValue(false)}, program: &program{test: matchesNothing}}
	}
	return p
}

func matchesNothing(row, time.Time) truth { return truthNo }

func newPredicate(text string, where expr) (*Predicate, error) {
	p := &Predicate{text: text, where: where, paths: paths(where)}
	if where == nil {
		return p, nil
	}
	var err error
	p.program, err = compile(where)
	return p, err
}

// Match reports whether the twin v is selected at the time now.
func (p *Predicate) Match(v Value, now time.Time) bool {
	return p.program == nil || p.program.truth(v, now) == truthYes
}

// Text returns the predicate as it was given; for a query's, the whole query.
func (p *Predicate) Text() string { return p.text }

// Paths returns the paths that the predicate reads, each once, in order; not to
// be changed.
func (p *Predicate) Paths() []Path { return p.paths }

// Query returns a query that selects the twins of a source, Devices or Modules,
// that the predicate matches.
func (p *Predicate) Query(source Source) *Query {
	return &Query{text: p.text, source: source, star: true, where: p.where, top: -1}
}

// ReadsTime reports whether the predicate looks at the time: what it selects may
// change though no twin does.
func (p *Predicate) ReadsTime() bool {
	found := false
	walk(p.where, func(e expr) {
		c, is := e.(*call)
		found = found || is && isNow(c)
	})
	return found
}
