package query

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLiveTellsPartialRows: what a live query shows of a row with properties that
// got no column says that it is not all, and each change of them is told; rows that
// have their columns are not concerned.
func TestLiveTellsPartialRows(t *testing.T) {
	reported := func(key string) Path { return Path{"properties", "reported", key} }
	for name, text := range map[string]string{
		"all":  "SELECT * FROM devices",
		"item": "SELECT deviceId, properties.reported FROM devices",
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			l := NewLive(NewColumns(ColumnOptions{ID: Path{"deviceId"}, MaxColumns: 8}), LiveOptions{
				Queries: 2, Bytes: 1 << 20, Linger: time.Minute, Instance: "i",
				Text: func(b []byte, id string, _ uint64, _ time.Time, row LiveRowText) []byte {
					return append(b, map[LiveRowText]string{NoRow: "none", WholeRow: "whole ", PartialRow: "partial "}[row]...)
				},
			})
			apply := func(c Change) { l.Apply(l.position+1, now, []Change{c}) }
			set := func(id, key string, n float64) {
				apply(Change{ID: id, Fields: []Field{{reported(key), NumberValue(n)}}})
			}
			for i := range 3 {
				set(fmt.Sprint("good", i), "n", 1)
			}
			var members []Member
			for i := range 20 {
				members = append(members, Member{fmt.Sprintf("k%02d", i), NumberValue(0)})
			}
			apply(Change{ID: "large", Fields: []Field{{Path{"properties", "reported"}, ObjectValue(members)}}})
			q, err := Parse(text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Open(q, "")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// expect compares kinds, ids, and what is said of the rows that come now.
			expect := func(want ...string) {
				t.Helper()
				var got []string
				for range 100 {
					list, _, err := r.Next(100, nil)
					if err != nil {
						t.Fatal(err)
					}
					for i := range list {
						said, _, _ := strings.Cut(list[i].Text(), " ")
						got = append(got, strings.TrimSpace(fmt.Sprint(list[i].Kind, " ", list[i].ID(), " ", said)))
					}
				}
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("%q is told, expected %q", got, want)
				}
			}
			expect("row good0 whole", "row good1 whole", "row good2 whole", "row large partial", "current  none")
			set("large", "k19", 7)
			expect("change large partial")
			set("good1", "n", 2)
			set("good1", "n", 2)
			expect("change good1 whole")
			set("good2", "k19", 1) // a path that is known to have no column
			expect("change good2 partial")
			apply(Change{ID: "large", Replace: true, Fields: []Field{{reported("n"), NumberValue(1)}}})
			expect("change large whole")
			apply(Change{ID: "good2", Gone: true})
			set("good2", "n", 3)
			expect("leave good2 none", "enter good2 whole")
		})
	}
}

// TestLiveTellsLostRows: so it is when a row had its column to itself and another's
// path took it, and when columns were dropped for want of memory.
func TestLiveTellsLostRows(t *testing.T) {
	whole := func(c *Columns, id string) bool {
		rows, release := columnsTable{c, c.mu.RUnlock}.look()
		defer release()
		n, ok := rows.ordinal(id)
		if !ok {
			t.Fatalf("there is no row %q", id)
		}
		_, all := rows.whole(n, nil)
		return all
	}
	f := newFleet(ColumnOptions{MaxColumns: 20})
	for d := range 2 {
		for k := range 30 {
			f.apply(Change{ID: fmt.Sprint("bad", d), Fields: []Field{field(NumberValue(1), "tags", fmt.Sprintf("k%d_%d", d, k))}})
		}
		f.apply(Change{ID: fmt.Sprint("good", d), Fields: []Field{field(NumberValue(1), "tags", "n")}})
	}
	for id, want := range map[string]bool{"good0": true, "good1": true, "bad0": false, "bad1": false} {
		if whole(f.columns, id) != want {
			t.Errorf("of %s all is told: %t", id, !want)
		}
	}
	if err := f.restart(t); err == nil {
		t.Error("columns with paths without a column are kept")
	}
	f.rebuild(3)
	for id, want := range map[string]bool{"good0": true, "good1": true, "bad0": false} {
		if whole(f.columns, id) != want {
			t.Errorf("after a build all of %s is told: %t", id, !want)
		}
	}
	f = newFleet(ColumnOptions{Memory: 1 << 18})
	for i := range 5000 {
		f.apply(Change{ID: fmt.Sprint("d", i), Fields: []Field{field(StringValue(strings.Repeat("x", 50)+fmt.Sprint(i)), "tags", "wide")}})
	}
	if whole(f.columns, "d0") {
		t.Error("all of a row is told whose column was dropped")
	}
}
