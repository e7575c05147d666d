package main

import (
	"testing"
	"time"
)

// TestCollectorPace follows a hub that becomes busy and quiet again.
func TestCollectorPace(t *testing.T) {
	const room = 256 << 20
	p := collectorPace{room: room}
	for _, step := range []struct {
		looks int
		rate  uint64 // bytes a second
		live  uint64
		want  int // after the last look
	}{
		{1, 1 << 20, room, gcLeast},
		{1, allocationFull, room, gcMost}, // at once
		{collectorMemory - 1, 1 << 20, room, gcMost},
		{1, 1 << 20, room, gcLeast}, // the busy second has been forgotten
		{collectorMemory, allocationFull/2 - 1, 0, gcMost / 2},
		{collectorMemory, allocationFull / 2, room, gcMost},
		{1, allocationFull, room/5 + 1, gcMost},
		{1, allocationFull, room / 5, 2 * gcMost}, // grows to five times what lives
		{1, allocationFull, room / 20, 8 * gcMost},
		{1, allocationFull, 0, gcRoomy},
		{collectorMemory, allocationFull / 8, 0, gcMost / 4},
		{collectorMemory, 0, 0, gcLeast},
	} {
		got := 0
		for range step.looks {
			got = p.percent(step.rate*2, 2*time.Second, step.live)
		}
		if got != step.want {
			t.Errorf("after %d looks at %d MiB/s: %d %%, want %d", step.looks, step.rate>>20, got, step.want)
		}
	}
}
