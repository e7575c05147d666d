package query

import (
	"errors"
	"testing"
)

func TestParseCondition(t *testing.T) {
	for _, c := range []struct {
		text   string
		strict bool
		column int // of the error; 0: it is taken
	}{
		{text: "*"}, {text: " * "}, {text: "tags.site = 'A'"}, {text: "tags.a = 1 OR (tags.b > 2)"},
		{text: "tags.site = 'A", column: 13},
		{text: "tags.site ==", column: 11},
		{text: "", column: 1},
		{text: "tags.a = 1 LIMIT 5", column: 19},
		{text: "tags.a = 1 GROUP BY tags.b", column: 12},
		{text: "tags.a = 1 LIMIT 5", strict: true, column: 12},
		{text: "nonsense ~", column: 10},
	} {
		q, err := ParseCondition(Devices, c.text, Options{Strict: c.strict})
		e, is := errors.AsType[*Error](err)
		switch {
		case c.column == 0 && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.column == 0 && (!q.Plain() || !q.Star()):
			t.Errorf("%q is not a query for whole twins", c.text)
		case c.column > 0 && (!is || e.Column() != c.column || e.Text != c.text):
			t.Errorf("%q: %v, expected an error at column %d", c.text, err, c.column)
		}
	}
}
