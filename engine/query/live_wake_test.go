package query

import (
	"fmt"
	"testing"
	"time"
)

// TestLiveWake: readers of a query of which little comes are woken at once, those
// of one of which much comes when events have gathered, or are many.
func TestLiveWake(t *testing.T) {
	l := NewLive(NewColumns(ColumnOptions{ID: Path{"deviceId"}}), LiveOptions{Queries: 2, Bytes: 1 << 20, Linger: time.Minute, Instance: "i"})
	now, position := time.Unix(1000, 0), uint64(0)
	battery, gather := Path{"properties", "reported", "battery"}, 100*time.Millisecond
	apply := func(n int) {
		for range n {
			position++
			l.Apply(position, now, []Change{{ID: "d", Fields: []Field{{battery, NumberValue(float64(position))}}}})
		}
	}
	apply(1)
	reader := func(below float64) func() bool {
		r, err := l.Open(&Query{text: fmt.Sprint(below), top: -1, items: []item{{key: "battery", path: battery}}, where: &binary{op: opLess, left: &ref{path: battery}, right: &literal{value: NumberValue(below)}}}, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		var wait <-chan struct{}
		read := func() {
			for wait = l.ready; wait == l.ready; {
				if _, wait, err = r.Next(100, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		read()
		return func() bool { // whether it was woken: then it reads all there is
			select {
			case <-wait:
				read()
				return true
			default:
				return false
			}
		}
	}
	all, few := reader(1e6), reader(1)
	for i, step := range []struct {
		after  time.Duration // of the last step
		events int
		woken  bool
		next   time.Duration // of the call; 0: none is needed
	}{
		{0, 1, true, 0},
		{40 * time.Millisecond, 1, false, 60 * time.Millisecond},
		{50 * time.Millisecond, 5, false, 10 * time.Millisecond},
		{10 * time.Millisecond, 0, true, 0},
		{10 * time.Millisecond, 0, false, 0},
		{10 * time.Millisecond, liveMany - 1, false, 80 * time.Millisecond},
		{10 * time.Millisecond, 1, true, 0},
		{10 * time.Millisecond, 1, false, 85 * time.Millisecond}, // at a moment of many
		{85 * time.Millisecond, 1, true, 0},
		{time.Hour, 1, true, 0},
	} {
		now = now.Add(step.after)
		apply(step.events)
		var want time.Time
		if step.next > 0 {
			want = now.Add(step.next)
		}
		if next := l.Wake(now, gather); !next.Equal(want) {
			t.Errorf("step %d: to be called again at %v, want %v", i, next, want)
		}
		if got := all(); got != step.woken {
			t.Errorf("step %d: woken %t, want %t", i, got, step.woken)
		}
		if few() {
			t.Errorf("step %d: a query of which nothing comes was woken", i)
		}
	}
}
