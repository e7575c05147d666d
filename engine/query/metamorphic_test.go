package query

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestColumnsAgree compares what columns answer to random queries with the
// naive evaluator: columns that took every change, columns that may be two and
// so load documents, columns that were loaded anew as at a restart; before and
// after changes; in one page and in many.
//
// MUSTER_QUERY_COMPARISONS asks for more than CI's 20,000 (nightly: a million),
// MUSTER_QUERY_SEED for other twins and queries.
func TestColumnsAgree(t *testing.T) {
	t.Parallel()
	want := fromEnvironment(t, "MUSTER_QUERY_COMPARISONS", scaled(20_000))
	seed := fromEnvironment(t, "MUSTER_QUERY_SEED", 1)
	if testing.Short() {
		want = min(want, 2000)
	}
	t.Logf("%d comparisons from seed %d", want, seed)
	var seen queryCoverage
	for seen.comparisons < want && !t.Failed() {
		fleetOf(t, uint64(seed), &seen)
		seed++
	}
	if !t.Failed() {
		seen.check(t)
	}
}

func fromEnvironment(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// queryCoverage counts what the comparisons consisted of.
type queryCoverage struct {
	comparisons int
	queries     int
	selected    int // queries that selected something
	paged       int
	uses        map[string]int // queries that have an operator, a function, a clause
}

// check fails when the random queries don't ask enough.
func (c *queryCoverage) check(t *testing.T) {
	t.Helper()
	share := func(n int) float64 { return 100 * float64(n) / float64(max(1, c.queries)) }
	t.Logf("%d comparisons of %d queries; %.0f %% selected something, %.0f %% were read in several pages", c.comparisons, c.queries, share(c.selected), share(c.paged))
	if share(c.selected) < 30 {
		t.Errorf("only %.1f %% of the queries selected something", share(c.selected))
	}
	names := []string{"TOP or LIMIT", "OFFSET", "ORDER BY", "DESC", "GROUP BY", "HAVING", "DISTINCT", "projection", "SELECT *"}
	for _, f := range Functions() {
		names = append(names, f.Name)
	}
	for op := opAnd; op <= opMatch; op++ {
		names = append(names, operatorName(op))
	}
	for a := aggregateCount; a <= aggregateMax; a++ {
		names = append(names, a.String())
	}
	for _, name := range names {
		if share(c.uses[name]) < 1 {
			t.Errorf("only %.2f %% of the queries have %s", share(c.uses[name]), name)
		}
	}
}

func operatorName(op operator) string {
	return "operator " + symbols[op].text + " " + strconv.Itoa(int(op))
}

// note counts what a query has.
func (c *queryCoverage) note(q *Query, selected bool) {
	uses := map[string]bool{
		"TOP or LIMIT": q.top >= 0, "OFFSET": q.offset > 0, "ORDER BY": len(q.order) > 0, "GROUP BY": len(q.group) > 0,
		"HAVING": q.having != nil, "SELECT *": q.star, "projection": !q.star && !naiveAggregates(q),
	}
	for _, o := range q.order {
		uses["DESC"] = uses["DESC"] || o.descending
	}
	for _, i := range q.items {
		uses[i.aggregate.String()] = true
		uses["DISTINCT"] = uses["DISTINCT"] || i.distinct
	}
	for _, e := range []expr{q.where, q.having} {
		walk(e, func(e expr) {
			switch e := e.(type) {
			case *unary:
				uses[operatorName(e.op)] = true
			case *binary:
				uses[operatorName(e.op)] = true
			case *call:
				uses[e.name] = true
			}
		})
	}
	if c.uses == nil {
		c.uses = map[string]int{}
	}
	for name, used := range uses {
		if used {
			c.uses[name]++
		}
	}
	c.queries++
	if selected {
		c.selected++
	}
}

// randomFleet is a collection in the forms that must answer alike.
type randomFleet struct {
	randomQueries
	source  Source
	now     time.Time
	rows    map[string]Value
	known   []string // ids, also of rows that are gone
	full    *Columns // took every change
	few     *Columns // has two columns at most
	rebuilt *Columns // loaded anew now and then
}

// Documents makes the rows what columns load from.
func (f *randomFleet) Documents(_ context.Context, ids []string) ([]Value, error) {
	list := make([]Value, len(ids))
	for i, id := range ids {
		list[i] = f.rows[id]
	}
	return list, nil
}

// untold are paths that the columns are not told of.
func untold() []Path { return []Path{{"properties", "reported", "name"}, {"tags", "ключ"}} }

func fleetOf(t *testing.T, seed uint64, seen *queryCoverage) {
	t.Helper()
	f := &randomFleet{randomQueries: newRandomQueries(seed), now: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), rows: map[string]Value{}}
	f.source = pick(f.randomQueries, Devices, Devices, Modules)
	f.full = NewColumns(ColumnOptions{})
	f.few = NewColumns(ColumnOptions{MaxColumns: 2, Outside: untold()})
	size := 5 + f.IntN(40)
	rounds := 6
	switch n := f.IntN(100); {
	case n < 4:
		size = 300 + f.IntN(400) // more values than a byte tells apart
	case n < 12:
		size, rounds = 1300+f.IntN(1000), 4 // more than a sparse part of a column has
	}
	for len(f.rows) < size {
		f.change(0)
	}
	f.restart()
	for range rounds {
		for range 10 {
			if !f.compare(t, seed, seen) {
				return
			}
		}
		for range f.IntN(20) {
			f.change(20)
		}
		if f.chance(30) {
			f.restart()
		}
	}
}

// TestColumnsAgreeOnManyRows does the same with more rows than a part of a
// column has, more values than two bytes can tell apart, and few queries.
func TestColumnsAgreeOnManyRows(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	f := &randomFleet{randomQueries: newRandomQueries(99), now: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), rows: map[string]Value{}}
	f.full = NewColumns(ColumnOptions{})
	for i := range scaled(70_000) {
		id := "d" + strconv.Itoa(i)
		fields := f.twin(f.source, id)
		if i%4 > 0 { // which is quicker
			fields = fields[:min(len(fields), 14)]
		}
		fields = append(fields, Field{Path{"properties", "reported", "name"}, StringValue("name-" + strconv.Itoa(i))})
		v := ObjectValue(nil)
		for _, x := range fields {
			v = naiveSet(v, x.Path, x.Value)
		}
		f.rows[id] = v
		f.known = append(f.known, id)
		f.full.Apply([]Change{{ID: id, Replace: true, Fields: fields}})
	}
	f.restart()
	var seen queryCoverage
	for range max(5, fromEnvironment(t, "MUSTER_QUERY_COMPARISONS", 20_000)/4000) {
		if !f.compare(t, 99, &seen) {
			return
		}
		for range 10 {
			f.change(20)
		}
	}
	t.Logf("%d comparisons of %d rows", seen.comparisons, len(f.rows))
}

// id returns a name that may be in use already.
func (f *randomFleet) id() string {
	id := pick(f.randomQueries, "d", "D", "é", "d-") + strconv.Itoa(f.IntN(60))
	if len(f.rows) > 100 {
		id += strconv.Itoa(f.IntN(1000))
	}
	if f.source == Modules {
		id += "/" + pick(f.randomQueries, "m1", "$edgeAgent")
	}
	return id
}

// change makes, changes or removes a twin; gone is the chance of the last.
func (f *randomFleet) change(gone int) {
	id := f.id()
	if len(f.known) > 0 && f.chance(50) {
		id = pick(f.randomQueries, f.known...)
	}
	c := Change{ID: id}
	_, exists := f.rows[id]
	document := f.rows[id]
	switch {
	case exists && f.chance(gone):
		c.Gone = true
		delete(f.rows, id)
	case !exists || f.chance(10):
		c.Replace = true
		c.Fields = f.twin(f.source, id)
		f.known = append(f.known, id)
		document = ObjectValue(nil)
	default:
		for range 1 + f.IntN(4) {
			c.Fields = append(c.Fields, f.field())
		}
	}
	if !c.Gone {
		for _, x := range c.Fields {
			document = naiveSet(document, x.Path, x.Value)
		}
		f.rows[id] = document
	}
	for _, columns := range []*Columns{f.full, f.few, f.rebuilt} {
		if columns != nil { // a fleet has not all of them
			columns.Apply([]Change{f.seenBy(columns, c)})
		}
	}
}

// seenBy returns a change without the fields outside of the columns. Changes
// belong to the columns they were given to, so each gets its own.
func (f *randomFleet) seenBy(columns *Columns, c Change) Change {
	c.Fields = slices.Clone(c.Fields)
	if columns == f.few {
		c.Fields = slices.DeleteFunc(c.Fields, func(x Field) bool {
			return slices.ContainsFunc(untold(), func(p Path) bool { return slices.Equal(p, x.Path) })
		})
	}
	return c
}

// told returns a document as fields of its roots, without what is outside of
// the columns.
func (f *randomFleet) told(columns *Columns, v Value) []Field {
	if columns == f.few {
		for _, p := range untold() {
			v = naiveSet(v, p, Value{})
		}
	}
	var fields []Field
	for _, m := range v.Members() {
		fields = append(fields, Field{Path{m.Key}, m.Value})
	}
	return fields
}

// restart loads columns from the documents, with a change meanwhile.
func (f *randomFleet) restart() {
	f.rebuilt = NewColumns(ColumnOptions{})
	b := f.rebuilt.Build()
	loaders := []*Loader{b.Loader(), b.Loader()}
	late := f.change
	ids := slices.Sorted(maps.Keys(f.rows))
	f.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	rows := maps.Clone(f.rows) // the snapshot
	late(20)
	for i, id := range ids {
		loaders[i%2].Add(id, 0, f.told(f.rebuilt, rows[id]))
	}
	b.Done()
}

// naiveAnswer is what a query gave.
type naiveAnswer struct {
	ids, rows []string
	pages     int
	plan      string // of the last page
	err       error
}

func (a naiveAnswer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	lines := append(slices.Clone(a.ids), a.rows...)
	if n := len(lines); n > 10 {
		lines = append(lines[:10], fmt.Sprintf("and %d rows more", n-10))
	}
	return strings.Join(lines, "\n")
}

func (a naiveAnswer) equal(b naiveAnswer) bool {
	return a.err == nil && b.err == nil && slices.Equal(a.ids, b.ids) && slices.Equal(a.rows, b.rows)
}

// run reads all pages of a query.
func (f *randomFleet) run(q *Query, columns *Columns, limit int) (a naiveAnswer) {
	ask := Ask{Limit: limit, Now: f.now, Documents: f}
	for {
		page, err := columns.Run(context.Background(), q, ask)
		if err != nil {
			a.err = err
			return a
		}
		a.pages++
		a.plan = page.Plan.String()
		a.ids = append(a.ids, page.IDs...)
		for _, r := range page.Rows {
			a.rows = append(a.rows, string(r))
		}
		ask.Given = len(a.ids) + len(a.rows)
		if !page.More {
			return a
		}
		if page.Last == ask.After || a.pages > 2000 {
			a.err = fmt.Errorf("page %d ends at %q as the one before and says that there is more", a.pages, page.Last)
			return a
		}
		ask.After = page.Last
	}
}

// naive answers a query with the naive evaluator.
func (f *randomFleet) naive(q *Query) (a naiveAnswer) {
	rows := make([]naiveRow, 0, len(f.rows))
	for id, v := range f.rows {
		rows = append(rows, naiveRow{id, v})
	}
	a.ids, a.rows = naiveRun(q, rows, f.now)
	return a
}

// compare asks one random query of all columns.
func (f *randomFleet) compare(t *testing.T, seed uint64, seen *queryCoverage) bool {
	t.Helper()
	text := f.query(f.source)
	q, err := Parse(text, Options{})
	if err != nil {
		t.Errorf("seed %d: %s\n%v", seed, text, err)
		return false
	}
	want := f.naive(q)
	seen.note(q, len(want.ids)+len(want.rows) > 0)
	seen.comparisons++
	if len(f.rows) < 10_000 && !f.rowByRow(t, seed, q) {
		return false
	}
	limit := 1_000_000
	if f.chance(30) && len(q.order) == 0 {
		limit = 1 + f.IntN(6) + len(f.rows)/100
		seen.paged++
	}
	for _, c := range []struct {
		name    string
		columns *Columns
	}{{"with columns", f.full}, {"with two columns", f.few}, {"after a restart", f.rebuilt}} {
		if c.columns == nil {
			continue
		}
		seen.comparisons++
		if got := f.run(q, c.columns, limit); !got.equal(want) {
			f.report(t, seed, q, c.name, limit, got, want)
			return false
		}
	}
	return true
}

// rowByRow compares the evaluator with the naive one.
func (f *randomFleet) rowByRow(t *testing.T, seed uint64, q *Query) bool {
	t.Helper()
	predicate := q.Predicate()
	for id, v := range f.rows {
		want := q.where == nil || naive{document: v, now: f.now}.eval(q.where).True()
		if got := predicate.Match(v, f.now); got != want {
			t.Errorf("seed %d, row by row: %s\n%s %s\ngot %t, want %t", seed, q.Text(), id, v.AppendJSON(nil), got, want)
			return false
		}
	}
	return true
}

// report prints a failure, with the fewest twins and the shortest condition
// that still fail.
func (f *randomFleet) report(t *testing.T, seed uint64, q *Query, name string, limit int, got, want naiveAnswer) {
	t.Helper()
	small := &randomFleet{randomQueries: f.randomQueries, source: f.source, now: f.now, rows: maps.Clone(f.rows)}
	options := ColumnOptions{}
	if name == "with two columns" {
		options = ColumnOptions{MaxColumns: 2, Outside: untold()}
	}
	fails := func(q *Query) bool {
		small.few = NewColumns(options)
		columns := small.few
		if options.MaxColumns == 0 {
			small.few = nil
		}
		for id, v := range small.rows {
			c := Change{ID: id, Replace: true}
			c.Fields = small.told(columns, v)
			columns.Apply([]Change{c})
		}
		got, want = small.run(q, columns, limit), small.naive(q)
		return !got.equal(want)
	}
	first := fmt.Sprintf("got:\n%s\nwant:\n%s", got, want)
	if !fails(q) {
		t.Errorf("seed %d, %s, pages of %d: %s\n%s\nonly with the changes before: not with the same twins in new columns", seed, name, limit, q.Text(), first)
		return
	}
	effort := 200_000 // rows that may be put into columns to find a shorter case
	tries := func(q *Query) bool {
		effort -= len(small.rows) + 1
		return effort > 0 && fails(q)
	}
	for again := true; again; {
		again = false
		ids := slices.Sorted(maps.Keys(small.rows))
		for n := (len(ids) + 1) / 2; n > 0; n /= 2 {
			for part := range slices.Chunk(ids, n) {
				kept := map[string]Value{}
				for _, id := range part {
					if v, ok := small.rows[id]; ok {
						kept[id] = v
						delete(small.rows, id)
					}
				}
				if len(kept) > 0 && tries(q) {
					again = true
				} else {
					maps.Copy(small.rows, kept)
				}
			}
		}
		for _, shorter := range shorterQueries(q) {
			if tries(shorter) {
				q, again = shorter, true
				break
			}
		}
	}
	fails(q)
	var twins strings.Builder
	for i, id := range slices.Sorted(maps.Keys(small.rows)) {
		if i == 5 {
			fmt.Fprintf(&twins, "and %d twins more\n", len(small.rows)-i)
			break
		}
		fmt.Fprintf(&twins, "%s %s\n", id, small.rows[id].AppendJSON(nil))
	}
	shown := "all"
	if q.where != nil {
		shown = format(q.where)
	}
	if q.having != nil {
		shown += " HAVING " + format(q.having)
	}
	t.Errorf("seed %d, %s, pages of %d: %s\nfails with WHERE %s\n%s%s\ngot:\n%s\nwant:\n%s", seed, name, limit, q.Text(), shown, twins.String(), got.plan, got, want)
}

// shorterQueries returns the query with parts of its conditions in place of the
// whole.
func shorterQueries(q *Query) (list []*Query) {
	for _, e := range operandsOf(q.where) {
		c := *q
		c.where = e
		list = append(list, &c)
	}
	for _, e := range operandsOf(q.having) {
		c := *q
		c.having = e
		list = append(list, &c)
	}
	if len(q.order) > 0 {
		c := *q
		c.order = nil
		list = append(list, &c)
	}
	return list
}

func operandsOf(e expr) []expr {
	switch e := e.(type) {
	case *unary:
		return []expr{e.x}
	case *binary:
		if e.op == opAnd || e.op == opOr {
			return []expr{e.left, e.right}
		}
	}
	return nil
}

// TestNaiveSet checks the checker.
func TestNaiveSet(t *testing.T) {
	t.Parallel()
	v, err := ParseValue([]byte(`{"a":{"b":1,"c":"x"},"d":2}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path Path
		to   Value
		want string
	}{
		{Path{"a", "b"}, Value{}, `{"a":{"c":"x"},"d":2}`},
		{Path{"a"}, Value{}, `{"d":2}`},
		{Path{"a", "b"}, NullValue(), `{"a":{"b":null,"c":"x"},"d":2}`},
		{Path{"d", "e"}, NumberValue(1), `{"a":{"b":1,"c":"x"},"d":{"e":1}}`},
		{Path{"d", "e"}, Value{}, `{"a":{"b":1,"c":"x"},"d":2}`},
		{Path{"e", "f", "g"}, NumberValue(1), `{"a":{"b":1,"c":"x"},"d":2,"e":{"f":{"g":1}}}`},
		{Path{"a"}, ObjectValue(nil), `{"a":{},"d":2}`},
	} {
		if got := string(naiveSet(v, c.path, c.to).AppendJSON(nil)); got != c.want {
			t.Errorf("%v to %s: %s, want %s", c.path, c.to.AppendJSON(nil), got, c.want)
		}
	}
}
