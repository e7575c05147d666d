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
		tidy  int    // the look at which memory is given back, 0 when at none
	}{
		{1, 1 << 20, gcLeast, 0},
		{1, allocationFull, gcMost, 0}, // at once
		{collectorMemory - 1, 1 << 20, gcMost, 0},
		{1, 1 << 20, gcLeast, 1}, // the busy second has been forgotten
		{collectorMemory, 1 << 20, gcLeast, 0},
		{collectorMemory, allocationFull/2 - 1, gcMost / 2, 0},
		{collectorMemory, allocationFull / 2, gcMost, 0},
		{collectorMemory, allocationFull / 8, gcMost / 4, 0},
		{tidyEvery, 0, gcLeast, tidyEvery - 4*collectorMemory}, // not so soon again
		{tidyEvery, 0, gcLeast, 0},
		{1, allocationFull, gcMost, 0},
		{collectorMemory, 0, gcLeast, collectorMemory},
	} {
		got, tidied := 0, 0
		for look := range step.looks {
			got = p.percent(heapLook{allocated: step.rate * 2, live: 64 << 20, scanned: 64 << 20}, 2*time.Second)
			if p.tidy() {
				if tidied > 0 {
					t.Errorf("memory is given back at looks %d and %d", tidied, look+1)
				}
				tidied = look + 1
			}
		}
		if got != step.want || tidied != step.tidy {
			t.Errorf("after %d looks at %d MiB/s: %d %%, want %d; memory was given back at look %d, want %d", step.looks, step.rate>>20, got, step.want, tidied, step.tidy)
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
		got := p.percent(heapLook{allocated: allocationFull, live: size.live, scanned: size.scanned, importing: size.importing}, time.Second)
		if d := got - size.want; d > 1 || d < -1 {
			t.Errorf("%d MiB live, %d scanned: %d %%, want %d", size.live>>20, size.scanned>>20, got, size.want)
		} else if grows := size.live / 100 * uint64(got); grows > growthMost+1<<20 && got > gcLeast {
			t.Errorf("%d MiB live may grow by %d MiB", size.live>>20, grows>>20)
		}
	}
}
