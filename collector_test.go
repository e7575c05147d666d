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
			got = p.percent(heapLook{allocated: step.rate * 2, goroutines: goroutines, live: 64 << 20, scanned: 64 << 20}, 2*time.Second)
		}
		if got != step.want {
			t.Errorf("after %d looks at %d MiB/s: %d %%, want %d", step.looks, step.rate>>20, got, step.want)
		}
	}
}

// TestCollectorBoundsGrowth gives a busy hub heaps of several sizes, of which more or less has to
// be looked through.
func TestCollectorBoundsGrowth(t *testing.T) {
	for _, size := range []struct {
		live, scanned uint64
		want          int
		importing     bool
	}{
		{0, 0, gcMost, false},
		{growthLeast / 2, 0, gcMost, false}, // small
		{growthLeast, 0, gcMost / 2, false},
		{growthMost / 2, growthMost / 2, gcMost, false},
		{growthMost, growthMost, gcMost / 2, false},
		{2 * growthMost, 2 * growthMost, gcMost / 4, false},
		{400 << 20, 100 << 20, 50, false}, // three quarters hold no pointers
		{400 << 20, 10 << 20, 32, false},
		{100 * growthMost, growthMost, gcLeast, false},
		{growthLeast / 2, 0, gcMost, true}, // small
		{growthLeast, 0, gcMost / 2, true},
		{importLarge, 0, gcMost / 4, true},
		{400 << 20, 10 << 20, 16, true},
		{400 << 20, 100 << 20, 25, true},
	} {
		var p collectorPace
		got := p.percent(heapLook{allocated: allocationFull, goroutines: 1, live: size.live, scanned: size.scanned, importing: size.importing}, time.Second)
		if d := got - size.want; d > 1 || d < -1 {
			t.Errorf("%d MiB live, %d scanned: %d %%, want %d", size.live>>20, size.scanned>>20, got, size.want)
		} else if grows := size.live / 100 * uint64(got); grows > growthMost+1<<20 && got > gcLeast {
			t.Errorf("%d MiB live may grow by %d MiB", size.live>>20, grows>>20)
		}
	}
}
