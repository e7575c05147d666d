package query

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// planDocuments are twins by id.
type planDocuments map[string]Value

func (d planDocuments) Documents(_ context.Context, ids []string) ([]Value, error) {
	list := make([]Value, len(ids))
	for i, id := range ids {
		list[i] = d[id]
	}
	return list, nil
}

// TestPlanNumbers: a step says what it has looked at, or nothing.
func TestPlanNumbers(t *testing.T) {
	t.Parallel()
	c := NewColumns(ColumnOptions{Outside: []Path{{"etag"}}})
	documents := planDocuments{}
	for i := range 1000 {
		id, n := fmt.Sprintf("d%03d", i), NumberValue(float64(i%4))
		c.Apply([]Change{{ID: id, Replace: true, Fields: []Field{{Path{"tags", "n"}, n}}}})
		documents[id] = ObjectValue([]Member{{"etag", n}, {"tags", ObjectValue([]Member{{"n", n}})}})
	}
	for _, s := range []struct {
		text           string
		kind           string // of the step
		selected       int64  // of the plan
		rows, passed   int64  // of the step
		withoutNumbers string // a step in the text
	}{
		{"SELECT * FROM devices WHERE etag >= 1", "walk by id", 12, 64, 12, "documents: etag >= 1 - "},
		{"SELECT * FROM devices WHERE tags.n >= 0", "walk by id", 11, 11, 11, "column lookup: tags.n >= 0 (100% expected"},
		{"SELECT * FROM devices WHERE tags.n = 1 AND etag = 1", "scan", 12, 1000, 250, ""},
		{"SELECT * FROM devices WHERE tags.n < 3 ORDER BY tags.n", "sort", 750, 750, 10, ""},
	} {
		q, err := Parse(s.text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		page, err := c.Run(t.Context(), q, Ask{Limit: 10, Documents: documents})
		if err != nil {
			t.Fatal(err)
		}
		p := page.Plan
		found := false
		for _, step := range p.Steps {
			if step.Kind == s.kind {
				found = true
				if step.Rows != s.rows || step.Selected != s.passed {
					t.Errorf("%s: %s looked at %d rows and let %d pass, want %d and %d", s.text, s.kind, step.Rows, step.Selected, s.rows, s.passed)
				}
			}
		}
		if !found || p.Selected != s.selected || strings.Contains(p.String(), "(0 rows") || !strings.Contains(p.String(), s.withoutNumbers) {
			t.Errorf("%s: not the plan that was expected, of %d selected:\n%s", s.text, s.selected, p)
		}
	}
}

// TestPlanJSON: what is not known is not there, and nought is.
func TestPlanJSON(t *testing.T) {
	t.Parallel()
	for share, want := range map[Share]string{-1: `{"kind":"x","rows":0,"selected":0,"time":0}`, 0: `{"kind":"x","estimate":0,"rows":0,"selected":0,"time":0}`, 0.5: `{"kind":"x","estimate":0.5,"rows":0,"selected":0,"time":0}`} {
		if got, err := json.Marshal(&Step{Kind: "x", Estimate: share}); err != nil || string(got) != want {
			t.Errorf("%g: %s, %v", float64(share), got, err)
		}
	}
}
