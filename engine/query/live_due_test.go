package query

import (
	"fmt"
	"testing"
	"time"
)

// A device that takes its times back again and again, or removes and sets them,
// leaves no trail of what its row once waited for.
func TestLiveDueIsBounded(t *testing.T) {
	l := NewLive(NewColumns(ColumnOptions{ID: Path{"deviceId"}}), LiveOptions{Queries: 1, Bytes: 1 << 20, Linger: time.Minute, Instance: "i"})
	q, err := Parse("SELECT deviceId FROM devices WHERE reported.seen < now() - 1h", Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	l.Tell(now)
	r, err := l.Open(q, "")
	if err != nil {
		t.Fatal(err)
	}
	for list, more, err := r.Next(10, nil); len(list) > 0 || more == l.ready; list, more, err = r.Next(10, nil) {
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := Path{"properties", "reported", "seen"}
	const devices = 10
	for i := range 20 * liveTidy {
		f := Field{Path: seen, Value: StringValue(now.Add(-time.Duration(i) * time.Millisecond).UTC().Format(time.RFC3339Nano))}
		if i%3 == 0 {
			f.Value = Value{}
		}
		l.Apply(uint64(i), now, []Change{{ID: fmt.Sprint("d", i%devices), Fields: []Field{f}}})
	}
	if n := len(l.due); n > 2*liveTidy {
		t.Errorf("%d rows wait for their time, of %d devices", n, devices)
	}
	if n := len(r.query.pending); n > devices {
		t.Errorf("%d rows are noted, of %d devices", n, devices)
	}
	l.Tell(now.Add(2 * time.Hour))
	if n := r.query.ring.count; n == 0 || n > devices {
		t.Errorf("%d events when the time has come, of %d devices", n, devices)
	}
	if len(l.due) != 0 {
		t.Errorf("%d rows still wait", len(l.due))
	}
	r.Close()
	l.Tell(now.Add(3 * time.Hour))
	if len(l.queries) != 0 || len(l.projections) != 0 || len(l.index.root.children) != 0 {
		t.Error("a query that nobody reads is still there")
	}
}
