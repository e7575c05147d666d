package query

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// page makes the groups' rows.
func (g *grouping) page() (*Page, error) {
	r, q := g.run, g.run.query
	skip, want := r.bounds()
	groups := g.groups
	if q.having != nil {
		program, err := compile(g.rewrite(q.having))
		if err != nil {
			return nil, err
		}
		step := &Step{Kind: "having", Text: format(q.having), Estimate: -1, Rows: int64(len(groups))}
		groups = slices.DeleteFunc(groups, func(one *group) bool {
			return !program.eval(&groupRow{g, one}, r.ask.Now).True()
		})
		step.Selected = int64(len(groups))
		r.plan.Steps = append(r.plan.Steps, step)
	}
	g.sort(groups)
	if len(q.order) == 0 && r.ask.After != "" {
		after, ok := parseTuple(strings.TrimPrefix(r.ask.After, "="), len(g.keys))
		if !ok {
			return &Page{}, nil
		}
		at, found := slices.BinarySearchFunc(groups, after, func(one *group, key []Value) int { return compareTuples(one.key, key) })
		if found {
			at++
		}
		groups = groups[at:]
	}
	groups = groups[min(skip, len(groups)):]
	page := &Page{}
	if len(groups) > want {
		page.More = !r.last(want)
		groups = groups[:want]
	}
	for _, one := range groups {
		row := renderRow(q.items, func(i int) Value { return g.item(one, &q.items[i]) })
		page.Rows = append(page.Rows, row)
		if err := r.hold(int64(len(row)), "rows"); err != nil {
			return nil, err
		}
	}
	if page.More {
		page.Last = "=" + string(canonicalTuple(nil, groups[len(groups)-1].key)) // never empty
	}
	return page, nil
}

// sort orders groups by ORDER BY, and by their keys.
func (g *grouping) sort(groups []*group) {
	q := g.run.query
	if len(q.order) > 0 {
		begin := time.Now()
		defer func() {
			n := int64(len(groups))
			g.run.plan.Steps = append(g.run.plan.Steps, &Step{Kind: "sort", Estimate: -1, Rows: n, Selected: n, Time: time.Since(begin)})
		}()
	}
	if len(q.order) == 0 {
		slices.SortFunc(groups, func(a, b *group) int { return compareTuples(a.key, b.key) })
		return
	}
	for _, one := range groups {
		for _, o := range q.order {
			one.order = append(one.order, g.orderValue(one, o))
		}
	}
	slices.SortFunc(groups, func(a, b *group) int {
		return cmp.Or(q.compareOrder(a.order, b.order), compareTuples(a.key, b.key))
	})
}

// compareOrder compares the values of ORDER BY's keys.
func (q *Query) compareOrder(a, b []Value) int {
	for i, o := range q.order {
		c := compareValues(a[i], b[i])
		if o.descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func (g *grouping) orderValue(one *group, o order) Value {
	if o.key != "" {
		for i := range g.run.query.items {
			if it := &g.run.query.items[i]; it.key == o.key {
				return g.item(one, it)
			}
		}
	}
	return g.keyValue(one, o.path)
}

// item returns the value of what is selected.
func (g *grouping) item(one *group, it *item) Value {
	if it.aggregate == notAggregated {
		return g.keyValue(one, it.path)
	}
	return g.aggregate(one, it.aggregate, it.distinct, it.path)
}

func (g *grouping) aggregate(one *group, a aggregate, distinct bool, p Path) Value {
	i := g.call(a, distinct, p, g.run.bindings.of)
	return one.totals[i].result(a)
}

func (g *grouping) keyValue(one *group, p Path) Value {
	for i, k := range g.run.query.group {
		if samePath(k, p) {
			return one.key[i]
		}
	}
	return Value{}
}

// groupRow is a group as HAVING reads it.
type groupRow struct {
	grouping *grouping
	group    *group
}

// aggregatePath is the first key of the paths that stand for aggregates in a
// rewritten HAVING. No path of a query begins with it.
const aggregatePath = "\x00"

// Value returns a path of GROUP BY, or an aggregate.
func (r *groupRow) Value(p Path) Value {
	if len(p) >= 3 && p[0] == aggregatePath {
		a := aggregate(p[1][0])
		return r.grouping.aggregate(r.group, a, p[2] == "distinct", p[3:])
	}
	return r.grouping.keyValue(r.group, p)
}

// rewrite returns HAVING's expression with a path in place of each aggregate.
func (g *grouping) rewrite(e expr) expr {
	switch n := e.(type) {
	case *aggregated:
		p := Path{aggregatePath, string([]byte{byte(n.aggregate)}), ""}
		if n.distinct {
			p[2] = "distinct"
		}
		return &ref{n.at, append(p, n.path...)}
	case *unary:
		return &unary{n.at, n.op, g.rewrite(n.x)}
	case *binary:
		return &binary{n.at, n.op, g.rewrite(n.left), g.rewrite(n.right)}
	case *list:
		l := &list{at: n.at}
		for _, i := range n.items {
			l.items = append(l.items, g.rewrite(i))
		}
		return l
	case *call:
		c := &call{at: n.at, name: n.name}
		for _, a := range n.args {
			c.args = append(c.args, g.rewrite(a))
		}
		return c
	}
	return e
}
