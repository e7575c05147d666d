package engine

import (
	"testing"
	"time"
)

// TestRunIDsAreInOrder makes more than a millisecond has room for, at one time, at
// a later one and at an earlier one.
func TestRunIDsAreInOrder(t *testing.T) {
	t.Parallel()
	var g runIDs
	now := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	last := ""
	for _, at := range []time.Time{now, now.Add(time.Hour), now} {
		for range runIDsMost + 100 {
			id := g.next(at)
			if id <= last || !isRunID(id) || len(id) != len("r-")+8+len("-")+13 {
				t.Fatalf("%s follows %s", id, last)
			}
			last = id
		}
	}
}
