package query

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestLiveSlots: a query that takes the place of one that was dropped selects what
// it selects itself, whatever the other one did, and as many as come and go take no
// more slots than there were at once.
func TestLiveSlots(t *testing.T) {
	const queries = 70 // more than one word of bits
	l := NewLive(NewColumns(ColumnOptions{ID: Path{"deviceId"}}), LiveOptions{Queries: queries, Bytes: 1 << 20, Linger: time.Minute, Instance: "i"})
	level, now := Path{"properties", "reported", "level"}, time.Unix(1000, 0)
	const devices = 100
	set := func(i, to int) {
		l.Apply(l.position+1, now, []Change{{ID: fmt.Sprintf("d%02d", i), Fields: []Field{{level, NumberValue(float64(to))}}}})
	}
	for i := range devices {
		set(i, i)
	}
	for round := range 3 {
		var readers []*LiveReader
		for i := range queries {
			most := (i*7 + round*13) % devices
			q, err := Parse(fmt.Sprintf("SELECT reported.level FROM devices WHERE reported.level < %d", most), Options{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Open(q, "")
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for more := (<-chan struct{})(l.ready); more == l.ready; {
				var list []LiveEvent
				if list, more, err = r.Next(1000, nil); err != nil {
					t.Fatal(err)
				}
				for _, e := range list {
					if e.Kind == LiveRow {
						got = append(got, e.ID())
					}
				}
			}
			for d := range most {
				want = append(want, fmt.Sprintf("d%02d", d))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("round %d, level below %d: got %v, want %v", round, most, got, want)
			}
			readers = append(readers, r)
		}
		// Rows that go while nobody may know of them, and come again.
		l.Apply(l.position+1, now, []Change{{ID: "d07", Gone: true}})
		for _, r := range readers {
			r.Close()
		}
		now = now.Add(time.Hour)
		l.Tell(now)
		l.Apply(l.position+1, now, []Change{{ID: "d03", Gone: true}})
		set(3, 3)
		set(7, 7)
		if n := len(l.members.slots); n > queries {
			t.Errorf("%d slots for %d queries at once", n, queries)
		}
		for _, rows := range l.members.rows {
			if rows != nil {
				t.Error("what no query selects any more is still noted")
			}
		}
	}
}
