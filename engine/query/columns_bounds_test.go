package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func field(v Value, p ...string) Field { return Field{p, v} }

// TestDictionaryForgets: a device that reports a new text each time must not make
// a dictionary grow.
func TestDictionaryForgets(t *testing.T) {
	f := newFleet(ColumnOptions{})
	for i := range 20 {
		f.apply(Change{ID: fmt.Sprint("d", i), Fields: []Field{field(StringValue("x"), "tags", "t")}})
	}
	before := f.columns.Stats().Bytes
	for i := range 20_000 {
		f.apply(Change{ID: fmt.Sprint("d", i%20), Fields: []Field{
			field(StringValue(fmt.Sprint("text number ", i)), "tags", "t"), field(ArrayValue([]Value{NumberValue(float64(i))}), "tags", "list"),
		}})
	}
	s := f.columns.Stats()
	if s.Entries > 100 || s.Bytes > before+20_000 {
		t.Errorf("%+v, before it were %d bytes", s, before)
	}
	f.check(t)
}

// TestRowsAreForgotten: devices that come and go leave nothing.
func TestRowsAreForgotten(t *testing.T) {
	f := newFleet(ColumnOptions{})
	f.apply(Change{ID: "stays", Fields: []Field{field(NumberValue(1), "tags", "n")}})
	for i := range 5000 {
		id := fmt.Sprint("device ", i)
		f.apply(Change{ID: id, Fields: []Field{field(StringValue(id), "tags", id), field(StringValue(id), "tags", "t")}})
		f.apply(Change{ID: id, Gone: true})
	}
	f.columns.Apply(nil)
	s := f.columns.Stats()
	if s.Rows != 1 || s.Columns != 2 || s.Entries != 1 || f.columns.store.ids.len() > 3 || len(f.columns.store.root.children["tags"].children) != 1 {
		t.Errorf("%+v, %d ordinals", s, f.columns.store.ids.len())
	}
	f.check(t)
}

// TestManyKeys: devices with a million keys between them must not take the columns
// of paths that many rows have, and queries for their keys are answered all the same.
func TestManyKeys(t *testing.T) {
	f := newFleet(ColumnOptions{MaxColumns: 100})
	for i := range 50 {
		f.apply(Change{ID: fmt.Sprintf("good%03d", i), Fields: []Field{field(NumberValue(float64(i)), "tags", "n")}})
	}
	const bad = 20
	for d := range bad {
		members := make([]Member, 5000)
		for k := range members {
			members[k] = Member{fmt.Sprintf("k%d_%d", d, k), NumberValue(float64(k))}
		}
		f.apply(Change{ID: fmt.Sprint("bad", d), Fields: []Field{field(ObjectValue(members), "properties", "reported")}})
	}
	// A path that comes later gets a column, though all are taken.
	for i := range 50 {
		f.apply(Change{ID: fmt.Sprintf("good%03d", i), Fields: []Field{field(NumberValue(float64(i)), "properties", "reported", "late")}})
	}
	f.check(t)
	for _, one := range []struct {
		text  string
		rows  int
		loads bool
	}{
		{"SELECT * FROM devices WHERE tags.n < 10", 10, false},
		{"SELECT * FROM devices WHERE reported.late < 10", 10, false},
		{"SELECT * FROM devices WHERE reported.k3_4999 = 4999", 1, true},
		{"SELECT COUNT() AS n FROM devices WHERE IS_DEFINED(reported.k3_4999)", 1, true},
		{"SELECT * FROM devices WHERE tags.n = 3 AND IS_DEFINED(reported.k3_4999)", 0, true},
	} {
		f.loads = 0
		rows, plan := f.all(t, one.text, 1000)
		if len(rows) != one.rows || f.loads > 0 != one.loads || len(plan.Missing) > 0 != one.loads {
			t.Errorf("%s: %d rows, %d documents\n%s", one.text, len(rows), f.loads, plan)
		}
	}
	if s := f.columns.Schema(50); !s.Truncated || len(s.Paths) != 50 {
		t.Errorf("a schema of %d paths, truncated: %v", len(s.Paths), s.Truncated)
	}
}

// TestPathsOfOneFleet: twins that are alike have as many columns as there are paths,
// whichever of them came first.
func TestPathsOfOneFleet(t *testing.T) {
	f := newFleet(ColumnOptions{MaxColumns: 100})
	for i := range 3 {
		for k := range 90 {
			f.apply(Change{ID: fmt.Sprint("d", i), Fields: []Field{field(NumberValue(float64(k)), "tags", fmt.Sprint("p", k))}})
		}
	}
	if s := f.columns.Stats(); s.Columns != 91 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	f.check(t)
}

// TestBuildPrefersCommonPaths: when there are more paths than columns, a build gives
// them to those that most rows have, though the others came first.
func TestBuildPrefersCommonPaths(t *testing.T) {
	f := newFleet(ColumnOptions{MaxColumns: 20})
	for i := range 10 {
		for k := range 4 {
			for d := range 2 { // pairs, so that nobody's path is his alone
				f.apply(Change{ID: fmt.Sprintf("a%02d-%d", i, d), Fields: []Field{field(NumberValue(1), "tags", fmt.Sprintf("k%d_%d", i, k))}})
			}
		}
	}
	for i := range 5 {
		f.apply(Change{ID: fmt.Sprint("b", i), Fields: []Field{field(NumberValue(1), "properties", "desired", "interval")}})
	}
	const text = "SELECT * FROM devices WHERE desired.interval = 1"
	if _, plan := f.all(t, text, 10); len(plan.Missing) != 1 {
		t.Errorf("no column is missing: the test shows nothing\n%s", plan)
	}
	f.rebuild(2)
	f.loads = 0
	if rows, plan := f.all(t, text, 10); len(rows) != 5 || len(plan.Missing) != 0 {
		t.Errorf("%d rows\n%s", len(rows), plan)
	}
	f.check(t)
}

// TestMemoryBound: the columns that take most and that nobody asks for go first.
func TestMemoryBound(t *testing.T) {
	f := newFleet(ColumnOptions{Memory: 1 << 20})
	for i := range 20_000 {
		f.apply(Change{ID: fmt.Sprintf("d%06d", i), Fields: []Field{
			field(StringValue(fmt.Sprintf("a rather long text, of which there is one for each device: %d", i)), "tags", "wide"),
			field(NumberValue(float64(i%10)), "tags", "n"),
		}})
		if i == 100 {
			f.all(t, "SELECT * FROM devices WHERE tags.n = 3", 10)
		}
	}
	if s := f.columns.Stats(); f.columns.store.bytes > 1<<20 || len(s.Missing) != 3 {
		t.Errorf("%+v", s)
	}
	f.check(t)
	rows, plan := f.all(t, "SELECT * FROM devices WHERE tags.n = 3 AND ENDSWITH(tags.wide, '33')", 1000)
	if len(rows) != 200 || plan.Documents < 200 || plan.Documents > 4000 || len(plan.Missing) != 1 || !strings.Contains(plan.String(), "no column: tags.wide") {
		t.Errorf("%d rows\n%s", len(rows), plan)
	}
}

func TestBudgets(t *testing.T) {
	f := newFleet(ColumnOptions{})
	for i := range 5000 {
		f.apply(Change{ID: fmt.Sprintf("d%06d", i), Fields: []Field{field(StringValue(fmt.Sprint("text ", i)), "tags", "t")}})
	}
	for _, one := range []struct {
		text, exceeded string
		budget         Budget
	}{
		{"SELECT * FROM devices WHERE etag = 'none'", "rows", Budget{Rows: 1000}},
		{"SELECT COUNT() AS n FROM devices WHERE etag = 'none'", "rows", Budget{Rows: 1000}},
		{"SELECT tags FROM devices", "rows", Budget{Rows: 50}},
		{"SELECT tags.t, COUNT() AS n FROM devices GROUP BY tags.t", "memory", Budget{Memory: 100_000}},
		{"SELECT COUNT(DISTINCT tags.t) AS n FROM devices", "memory", Budget{Memory: 100_000}},
		{"SELECT * FROM devices ORDER BY tags.t", "memory", Budget{Memory: 100_000}},
		{"SELECT deviceId FROM devices", "memory", Budget{Memory: 1000}},
		{"SELECT * FROM devices WHERE tags.t = 'text 1'", "time", Budget{Time: 1}},
	} {
		q, err := Parse(one.text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.columns.Run(t.Context(), q, Ask{Limit: 5000, Now: testNow, Documents: f, Budget: one.budget})
		var over *BudgetError
		if !errors.As(err, &over) || over.Exceeded != one.exceeded {
			t.Errorf("%s: %v", one.text, err)
			continue
		}
		t.Log(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q, _ := Parse("SELECT * FROM devices WHERE tags.t != 'x'", Options{})
	if _, err := f.columns.Run(ctx, q, Ask{Limit: 5000, Documents: f}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestDocumentsFail: what Documents returns comes through.
func TestDocumentsFail(t *testing.T) {
	f := newFleet(ColumnOptions{})
	f.apply(Change{ID: "d1"})
	q, _ := Parse("SELECT etag FROM devices", Options{})
	want := errors.New("broken")
	if _, err := f.columns.Run(t.Context(), q, Ask{Limit: 5, Documents: failing{want}}); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

// Documents implements Documents.
func (f failing) Documents(context.Context, []string) ([]Value, error) { return nil, f.err }

func TestBuildKeepsWhatChangesMeanwhile(t *testing.T) {
	c := NewColumns(ColumnOptions{ID: Path{"deviceId"}})
	b := c.Build()
	l := b.Loader()
	l.Add("a", 0, []Field{field(NumberValue(1), "tags", "n")})
	l.Add("b", 0, []Field{field(NumberValue(1), "tags", "n")})
	c.Apply([]Change{{ID: "a", Fields: []Field{field(NumberValue(2), "tags", "n")}}, {ID: "b", Gone: true}, {ID: "c"}})
	b.Done()
	if v, ok := c.Value("a", Path{"tags", "n"}); !ok || v.Number() != 2 {
		t.Errorf("%v", v)
	}
	if s := c.Stats(); s.Rows != 2 {
		t.Errorf("%+v", s)
	}
}

// TestPlanText fixes what a plan looks like.
func TestPlanText(t *testing.T) {
	p := Plan{Rows: 10, Selected: 2, Time: 1234567, Memory: 2048, Missing: []Missing{{"etag", whyOutside}}, Steps: []*Step{
		{Kind: "bitmap and", Estimate: 0.1, Rows: 10, Selected: 2, Time: time.Microsecond, Steps: []*Step{
			{Kind: "column lookup", Path: "tags.n", Text: "tags.n = 1", Estimate: 0.5, Rows: 10, Selected: 5, Note: "note"},
		}},
		{Kind: "sort", Path: "tags.n", Estimate: -1, Memory: 10},
		{Kind: "projection", Estimate: -1},
	}}
	want := `10 rows, 2 selected, 0 documents, 1.234ms, 2.0 KiB
bitmap and (10 rows, 2 pass, 10% expected, 1µs)
  column lookup: tags.n = 1 (10 rows, 5 pass, 50% expected, 0s) - note
sort: tags.n (10 B)
projection
no column: etag: it is kept in documents only
`
	if got := p.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
