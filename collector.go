package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The garbage collector works for memory or for speed: with a percentage p it
// lets the heap grow by p percent of what lives, and then costs processor time in
// proportion to what is allocated a second, divided by p. A hub has both kinds of
// hours. While thousands of devices are silent, a large p would keep hundreds of
// megabytes of what came before; while they talk or come back, a small one would
// stretch the slowest answers. So p follows the rate of allocation: at
// allocationFull and above it is gcMost, at half of that half as much, and never
// below gcLeast. The collector's own cost stays about constant, between one and
// two percent of a core, until gcMost is reached. When it has become quiet, what
// the busy hour has left is collected and given back to the system at once: with
// little to do, the next collection is minutes away.
const (
	gcLeast        = gcMost / 16
	allocationFull = 128 << 20 // bytes a second

	// What the heap may grow by, whatever the percentage. A collection costs what it looks through
	// for pointers, and most of a large heap holds none: memtables, tables that are being built,
	// columns, caches. So gcMost is of that part, within these bounds: below the first,
	// collections of a small hub would come too often for its answers; above the second, a large
	// hub would take memory that others on its machine use, too, and its collections are rare all
	// the same.
	growthLeast = 128 << 20
	growthMost  = 256 << 20
	// A heap of which more lives may grow by half of that while identities are imported: nobody waits
	// for a line, and when the store merges its tables meanwhile, these take as much as all else.
	importLarge = 256 << 20

	collectorLook = time.Second
	// The rate that counts is the highest of so many looks: up at once, down when
	// it has been quiet for a while.
	collectorMemory = 10
	// Memory is given back once in so many looks at most: that collects the whole heap.
	tidyEvery = 60
)

// collectorPace chooses the percentage.
type collectorPace struct {
	rates  [collectorMemory]float64 // bytes a second, newest overwrites oldest
	looks  int
	untidy bool // it has been busy since memory was given back
	quiet  bool // and is no more
	tidied int  // the look at which that was done
}

// heapLook is what the runtime says of the heap.
type heapLook struct {
	allocated uint64 // bytes, since the look before
	live      uint64 // bytes after the last collection
	scanned   uint64 // bytes that a collection looks through
	importing bool   // identities are imported
}

// percent returns the percentage: gcMost or a half, a quarter ... of it, so that it
// seldom changes, or what bounds the growth of a large heap.
func (p *collectorPace) percent(now heapLook, passed time.Duration) int {
	p.rates[p.looks%collectorMemory] = float64(now.allocated) / passed.Seconds()
	p.looks++
	most := 0.0
	for _, r := range p.rates {
		most = max(most, r)
	}
	percent := gcMost
	for percent/2 >= gcLeast && most < allocationFull*float64(percent)/2/gcMost {
		percent /= 2
	}
	p.quiet = percent/2 < gcLeast
	p.untidy = p.untidy || !p.quiet
	growth := min(max(now.scanned/100*gcMost, growthLeast), growthMost)
	if now.importing && now.live > importLarge {
		growth /= 2
	}
	if now.live/100*uint64(percent) > growth {
		percent = max(gcLeast, int(growth*100/now.live))
	}
	return percent
}

// tidy reports whether it is time to give memory back, and takes it that this is done.
func (p *collectorPace) tidy() bool {
	if !p.untidy || !p.quiet || p.tidied > 0 && p.looks-p.tidied < tidyEvery {
		return false
	}
	p.untidy, p.tidied = false, p.looks
	return true
}

// paceCollector sets the percentage until ctx ends. The memory limit goes above
// it: near that the runtime collects more often.
func paceCollector(ctx context.Context, importing func() bool) {
	sample := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/total:bytes"},
	}
	var pace collectorPace
	metrics.Read(sample)
	before, at, now := sample[0].Value.Uint64(), time.Now(), gcMost
	t := time.NewTicker(collectorLook)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		metrics.Read(sample)
		total, moment := sample[0].Value.Uint64(), time.Now()
		next := pace.percent(heapLook{
			allocated: total - before, live: sample[1].Value.Uint64(), scanned: sample[2].Value.Uint64(), importing: importing(),
		}, moment.Sub(at))
		before, at = total, moment
		if d := next - now; d > now/8 || d < -now/8 { // each change stops the world for a moment
			debug.SetGCPercent(next)
			now = next
		}
		if pace.tidy() {
			debug.FreeOSMemory()
		}
	}
}
