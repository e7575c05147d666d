package query

import "time"

// Predicate is a condition on a twin, immutable and safe for concurrent use.
type Predicate struct {
	text    string
	where   expr // nil: everything matches
	program *program
	paths   []Path
}

// Predicate returns the query's WHERE as a predicate of its own. What the query
// selects, groups or orders by is no part of it.
func (q *Query) Predicate() *Predicate { return newPredicate(q.text, q.where) }

func newPredicate(text string, where expr) *Predicate { return &Predicate{text: text, where: where} }

// Match reports whether the twin v is selected at the time now.
func (p *Predicate) Match(v Value, now time.Time) bool {
	return p.program == nil || p.program.eval(v, now).True()
}

// Text returns the predicate as it was given.
func (p *Predicate) Text() string { return p.text }

// Paths returns the paths that the predicate reads, each once, in order.
func (p *Predicate) Paths() []Path { return p.paths }
