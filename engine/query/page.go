package query

import (
	"context"
	"fmt"
	"time"
)

// Ask is what Run needs besides the query.
type Ask struct {
	After     string // Page.Last of the page before; empty for the first
	Given     int    // rows of all pages before, for TOP and LIMIT
	Limit     int    // rows of the page, at most
	Now       time.Time
	Budget    Budget
	Documents Documents
}

// Budget bounds what one query may cost. Zero means no bound.
type Budget struct {
	Rows   int64 // documents that may be loaded
	Time   time.Duration
	Memory int64 // bytes of what is kept for the answer: bitmaps, groups, sorted rows
}

// BudgetError says that a query costs more than it may.
type BudgetError struct {
	Exceeded string // "rows", "time" or "memory"
	Limit    string // how much there was of it
	Step     string // which step of the plan exceeded it
	Advice   string // how to narrow the query
}

// Error says what was exceeded, where, and what to do.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("the query needs more than its budget of %s (%s) in the step %q; %s", e.Exceeded, e.Limit, e.Step, e.Advice)
}

// Documents loads whole documents, for what columns do not have.
type Documents interface {
	// Documents returns a document for each id, in their order; the zero Value
	// stands for one that is no more. Safe for concurrent use.
	Documents(ctx context.Context, ids []string) ([]Value, error)
}

// Page is a part of a query's answer.
type Page struct {
	IDs  []string // of SELECT *: whose documents they are
	Rows [][]byte // else: a JSON object each
	More bool     // whether there may be rows behind these
	Last string   // for Ask.After; empty when nothing more comes
	Plan *Plan
}
