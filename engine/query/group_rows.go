package query

import (
	"slices"
	"strings"
	"time"
)

// Groups computes the groups of a query over rows that have no columns, such as
// those of runs. It is for one goroutine at a time.
type Groups struct{ grouping *grouping }

// NewGroups begins to answer a query for which Grouped is true, as Columns.Run
// does. Of Ask, After and Documents count for nothing.
func NewGroups(q *Query, a Ask) (*Groups, error) {
	c := NewColumns(ColumnOptions{})
	r := &run{columns: c, store: c.store, query: q, ask: a, plan: &Plan{}, began: time.Now(), bindings: newBindings(c.store)}
	r.ask.After = ""
	g := &grouping{run: r, byKey: map[string]int32{}, numbers: map[cell]int32{}, tuples: map[string]int32{}, step: &Step{Kind: "aggregate", Estimate: -1}}
	names := make([]string, len(q.group))
	for i, p := range q.group {
		g.keys = append(g.keys, r.bindings.of(p))
		names[i] = p.String()
	}
	for _, i := range q.items {
		if i.aggregate != notAggregated {
			g.call(i.aggregate, i.distinct, i.path, r.bindings.of)
		}
	}
	walk(q.having, func(e expr) {
		if a, is := e.(*aggregated); is {
			g.call(a.aggregate, a.distinct, a.path, r.bindings.of)
		}
	})
	if len(g.keys) > 0 {
		g.step.Kind, g.step.Path = "group", strings.Join(names, ", ")
	} else if _, err := g.find(nil); err != nil {
		return nil, err // the one group there is, even of no rows
	}
	r.plan.Steps = append(r.plan.Steps, g.step)
	return &Groups{g}, nil
}

// Add takes a row that the query's WHERE selects. The error is *BudgetError.
func (g *Groups) Add(doc Value) error { return g.grouping.document("", doc) }

// Page returns the groups.
func (g *Groups) Page() (*Page, error) {
	g.grouping.step.Selected = int64(len(g.grouping.groups))
	page, err := g.grouping.page()
	if err != nil {
		return nil, err
	}
	plan := g.grouping.run.plan
	plan.Rows, plan.Time = g.grouping.step.Rows, time.Since(g.grouping.run.began)
	page.Plan = plan
	return page, nil
}

// Grouped reports whether the query's rows are groups.
func (q *Query) Grouped() bool { return len(q.group) > 0 || q.aggregates() }

// Project returns a row as the query selects it, JSON. Star is the row as a whole.
func (q *Query) Project(doc Value) []byte {
	if q.star {
		return doc.AppendJSON(nil)
	}
	return renderRow(q.items, func(i int) Value { return doc.Value(q.items[i].path) })
}

// columnless reports whether the source has no columns: whoever keeps its rows goes
// through them.
func (s Source) columnless() bool { return slices.Contains([]Source{Jobs, Runs}, s) }
