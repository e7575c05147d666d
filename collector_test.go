package main

import (
	"testing"
	"time"
)

// TestCollectorPace follows a hub that becomes busy and quiet again.
func TestCollectorPace(t *testing.T) {
	var p collectorPace
	goroutines := uint64(0)
	for _, step := range []struct {
		looks int
		rate  uint64 // bytes a second
		come  uint64 // goroutines that began since the look before
		want  int    // after the last look
	}{
		{1, 1 << 20, 0, gcLeast},
		{1, allocationFull, 0, gcMost}, // at once
		{collectorMemory - 1, 1 << 20, 0, gcMost},
		{1, 1 << 20, 0, gcLeast}, // the busy second has been forgotten
		{collectorMemory, allocationFull/2 - 1, 0, gcMost / 2},
		{collectorMemory, allocationFull / 2, 0, gcMost},
		{collectorMemory, allocationFull / 8, 0, gcMost / 4},
		{collectorMemory, 0, 0, gcLeast},
		{1, allocationFull, arrivals, gcArrivals}, // a fleet comes, however much is allocated
		{1, allocationFull, arrivals - 1, gcArrivals},
		{arrivingMemory - 2, allocationFull, 0, gcArrivals},
		{1, allocationFull, 0, gcMost}, // all are here
		{1, 1 << 20, arrivals, gcArrivals},
		{collectorMemory + 1, 0, 0, gcLeast},
	} {
		got := 0
		for range step.looks {
			goroutines += step.come
			got = p.percent(step.rate*2, goroutines, 64<<20, 2*time.Second)
		}
		if got != step.want {
			t.Errorf("after %d looks at %d MiB/s: %d %%, want %d", step.looks, step.rate>>20, got, step.want)
		}
	}
}

// TestCollectorBoundsGrowth gives a busy hub heaps of several sizes.
func TestCollectorBoundsGrowth(t *testing.T) {
	for _, size := range []struct {
		live uint64
		want int
	}{
		{0, gcMost},
		{growthMost / 2, gcMost},
		{growthMost/2 + 1<<20, gcMost / 2},
		{growthMost, gcMost / 2},
		{2 * growthMost, gcMost / 4},
		{100 * growthMost, gcMost / 16},
	} {
		var p collectorPace
		if got := p.percent(allocationFull, 1, size.live, time.Second); got != size.want {
			t.Errorf("%d MiB live: %d %%, want %d", size.live>>20, got, size.want)
		} else if grows := size.live * uint64(got) / 100; grows > growthMost && got > gcLeast {
			t.Errorf("%d MiB live may grow by %d MiB", size.live>>20, grows>>20)
		}
	}
}
