package main

import (
	"testing"
	"time"
)

// TestCollectorPace follows a hub that becomes busy and quiet again.
func TestCollectorPace(t *testing.T) {
	var p collectorPace
	for _, step := range []struct {
		looks int
		rate  uint64 // bytes a second
		want  int    // after the last look
	}{
		{1, 1 << 20, gcLeast},
		{1, allocationFull, gcMost}, // at once
		{collectorMemory - 1, 1 << 20, gcMost},
		{1, 1 << 20, gcLeast}, // the busy second has been forgotten
		{collectorMemory, allocationFull/2 - 1, gcMost / 2},
		{collectorMemory, allocationFull / 2, gcMost},
		{collectorMemory, allocationFull / 8, gcMost / 4},
		{collectorMemory, 0, gcLeast},
	} {
		got := 0
		for range step.looks {
			got = p.percent(step.rate*2, 2*time.Second)
		}
		if got != step.want {
			t.Errorf("after %d looks at %d MiB/s: %d %%, want %d", step.looks, step.rate>>20, got, step.want)
		}
	}
}
