package query

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/query/querytest"
)

// rewrite writes what errors say now into the scenarios. Rows are never
// written: whoever adds a case says what must come out.
var rewrite = flag.Bool("rewrite", false, "write the texts of errors into the scenario files")

// TestScenarios runs every case of the scenario files: from columns, row by row,
// and with the naive evaluator.
func TestScenarios(t *testing.T) {
	t.Parallel()
	subjects := loadScenarios(t)
	cases := 0
	for _, s := range subjects {
		twins := scenarioTwins(t, s)
		for _, c := range s.Cases {
			cases++
			t.Run(fmt.Sprintf("%s:%d", s.File, c.Line), func(t *testing.T) {
				if !*rewrite { // which is done one after the other
					t.Parallel()
				}
				runScenario(t, s, c, twins)
			})
		}
	}
	if cases < 220 {
		t.Errorf("only %d cases were found", cases)
	}
}

// TestContractCases finds every case of the contract's list by its number.
func TestContractCases(t *testing.T) {
	t.Parallel()
	found := map[int]bool{
		30: true, 45: true, 46: true, // they read configurations and jobs
		50: true, // TestLongQueries
	}
	for _, s := range loadScenarios(t) {
		for _, c := range s.Cases {
			found[c.Contract] = true
		}
	}
	for n := 1; n <= 50; n++ {
		if !found[n] {
			t.Errorf("no scenario has the number %d of the contract", n)
		}
	}
}

// TestLongQueries is the contract's case 50.
func TestLongQueries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		length int
		strict bool
		ok     bool
	}{{8192, true, true}, {8193, true, false}, {8200, false, true}, {65536, false, true}, {65537, false, false}, {10 << 20, false, false}} {
		text := "SELECT * FROM devices WHERE status = '"
		text += strings.Repeat("é", (c.length-len(text)-1)/2)
		if !c.strict { // characters there, bytes here
			text += strings.Repeat("x", c.length-len(text)-1)
		} else {
			text += strings.Repeat("x", c.length-len([]rune(text))-1)
		}
		text += "'"
		if _, err := Parse(text, Options{Strict: c.strict}); (err == nil) != c.ok {
			t.Errorf("%d long, strict %t: %v", c.length, c.strict, err)
		} else if e, is := errors.AsType[*Error](err); err != nil && (!is || len(e.Text) > 70_000) {
			t.Errorf("%d long, strict %t: the error is no *Error of bounded size", c.length, c.strict)
		}
	}
}

func loadScenarios(t *testing.T) []querytest.Subject {
	t.Helper()
	subjects, err := querytest.Load(os.DirFS("testdata"))
	if err != nil {
		t.Fatal(err)
	}
	return subjects
}

// scenarioRows is a collection of twins in each form.
type scenarioRows struct {
	rows    []naiveRow
	columns *Columns
}

// Documents makes the rows what columns load from.
func (s scenarioRows) Documents(_ context.Context, ids []string) ([]Value, error) {
	list := make([]Value, len(ids))
	for i, id := range ids {
		if at := slices.IndexFunc(s.rows, func(r naiveRow) bool { return r.id == id }); at >= 0 {
			list[i] = s.rows[at].document
		}
	}
	return list, nil
}

func scenarioTwins(t *testing.T, s querytest.Subject) map[Source]scenarioRows {
	t.Helper()
	all := map[Source]scenarioRows{}
	for _, source := range []Source{Devices, Modules, Jobs} {
		c := scenarioRows{columns: NewColumns(ColumnOptions{})}
		for _, twin := range s.Twins {
			if twin.Module() != (source == Modules) || source == Jobs {
				continue
			}
			document, err := ParseValue(withDefaults(t, twin.Document))
			if err != nil {
				t.Fatal(err)
			}
			c.rows = append(c.rows, naiveRow{twin.ID, document})
			var fields []Field
			for _, m := range document.Members() {
				fields = append(fields, Field{Path: Path{m.Key}, Value: m.Value})
			}
			c.columns.Apply([]Change{{ID: twin.ID, Replace: true, Fields: fields}})
		}
		all[source] = c
	}
	return all
}

// withDefaults gives a twin the attributes that all twins have.
func withDefaults(t *testing.T, document []byte) []byte {
	t.Helper()
	members := map[string]json.RawMessage{}
	for _, data := range []string{querytest.Defaults(), string(document)} {
		if err := json.Unmarshal([]byte(data), &members); err != nil {
			t.Fatal(err)
		}
	}
	out, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func runScenario(t *testing.T, s querytest.Subject, c querytest.Case, twins map[Source]scenarioRows) {
	var q *Query
	var err error
	if c.Bare {
		var p *Predicate
		if p, err = ParsePredicate(c.Query); err == nil {
			q = &Query{text: c.Query, star: true, where: p.where, top: -1}
		}
	} else {
		q, err = Parse(c.Query, Options{Strict: c.Strict})
	}
	if err != nil || c.Error != "" {
		checkScenarioError(t, s, c, err)
		return
	}
	on := twins[q.Source()]

	ids, rows := naiveRun(q, on.rows, c.Now)
	checkRows(t, c, "the naive evaluator", ids, rows)

	if p := q.Predicate(); !slices.ContainsFunc(q.items, func(i item) bool { return i.aggregate != notAggregated }) {
		for _, r := range on.rows {
			want := q.where == nil || naive{document: r.document, now: c.Now}.eval(q.where).True()
			if got := p.Match(r.document, c.Now); got != want {
				t.Errorf("%s\nthe evaluator selects %s: %t, want %t", c.Query, r.id, got, want)
			}
		}
	}

	page, err := on.columns.Run(t.Context(), q, Ask{Limit: 1000, Now: c.Now, Documents: on})
	if err != nil {
		t.Fatalf("%s\nfrom columns: %v", c.Query, err)
	}
	rows = nil
	for _, r := range page.Rows {
		rows = append(rows, string(r))
	}
	checkRows(t, c, "from columns", page.IDs, rows)
	if page.More {
		t.Errorf("%s\nfrom columns: there is said to be more behind the last row", c.Query)
	}
}

func checkRows(t *testing.T, c querytest.Case, by string, ids, rows []string) {
	t.Helper()
	wantRows := slices.Clone(c.Rows)
	if c.AnyOrder {
		slices.Sort(rows)
		slices.Sort(wantRows)
	}
	if !slices.Equal(ids, c.IDs) || !slices.Equal(rows, wantRows) {
		t.Errorf("%s\n%s: %s\n%s\nwant: %s\n%s", c.Query, by, strings.Join(ids, " "), strings.Join(rows, "\n"), strings.Join(c.IDs, " "), strings.Join(wantRows, "\n"))
	}
}

func checkScenarioError(t *testing.T, s querytest.Subject, c querytest.Case, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Errorf("%s\nerror: %v, want column %d: %s", c.Query, err, c.At, c.Error)
		return
	}
	text := "found " + e.Found + ", expected " + e.Expected
	if c.Error != "" && text == c.Error && e.Column() == c.At {
		return
	}
	t.Errorf("%s\nerror at column %d: %s\nwant   at column %d: %s", c.Query, e.Column(), text, c.At, c.Error)
	if !*rewrite || c.Error == "" {
		return
	}
	file := filepath.Join("testdata", s.File)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := 0 // of lines above the query's last
	if i := strings.LastIndexByte(c.Query, '\n'); i >= 0 {
		before = len([]rune(c.Query[:i+1]))
	}
	lines := strings.Split(string(data), "\n")
	for i := c.Line; i < len(lines); i++ {
		if strings.HasPrefix(strings.TrimLeft(lines[i], " "), "^ ") {
			lines[i] = strings.Repeat(" ", max(0, e.Column()-1-before)) + "^ " + text
			break
		}
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
