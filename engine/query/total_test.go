package query

import (
	"fmt"
	"slices"
	"testing"
)

// TestTotalTooLarge: a sum that is no number any more is undefined, in the answer and in HAVING, by
// whichever way it was computed.
func TestTotalTooLarge(t *testing.T) {
	f := newFleet(ColumnOptions{MaxColumns: 20})
	for i := range 4 {
		f.apply(Change{ID: fmt.Sprint("d", i), Fields: []Field{field(NumberValue(1.7e308), "tags", "n"), field(NumberValue(1), "tags", "g")}})
	}
	const from = " FROM devices GROUP BY tags.g"
	for text, want := range map[string][]string{
		"SELECT SUM(tags.n) AS s, AVG(tags.n) AS a, MAX(tags.n) AS m, COUNT() AS c FROM devices": {`{"m":1.7e+308,"c":4}`},
		"SELECT SUM(tags.n) AS s, COUNT() AS c" + from:                                           {`{"c":4}`},
		"SELECT COUNT() AS c" + from + " HAVING NOT (SUM(tags.n) > 5)":                           nil,
		"SELECT COUNT() AS c" + from + " HAVING NOT (SUM(tags.n) <= 5)":                          nil,
		"SELECT COUNT() AS c" + from + " HAVING SUM(tags.n) != 5":                                nil,
		"SELECT COUNT() AS c" + from + " HAVING IS_NUMBER(AVG(tags.n))":                          nil,
	} {
		if rows, _ := f.all(t, text, 10); !slices.Equal(rows, want) {
			t.Errorf("%s: %q, want %q", text, rows, want)
		}
	}
}

// TestSchemaHasTheID: the path that is each row's id is among those that rows have.
func TestSchemaHasTheID(t *testing.T) {
	f := newFleet(ColumnOptions{MaxColumns: 20})
	for i := range 3 {
		f.apply(Change{ID: fmt.Sprint("d", i), Fields: []Field{field(NumberValue(1), "tags", "n")}})
	}
	s := f.columns.Schema(50)
	at := slices.IndexFunc(s.Paths, func(p SchemaPath) bool { return p.Path == "deviceId" })
	if at < 0 || s.Paths[at].Rows != 3 || s.Paths[at].Types["string"] != 3 || s.Paths[at].Why != "" {
		t.Errorf("%+v", s.Paths)
	}
}
