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
// megabytes of what their handshakes left behind; while they talk, a small one
// would stretch the slowest answers. So p follows the rate of allocation: at
// allocationFull and above it is gcMost, at half of that half as much, and never
// below gcLeast. The collector's own cost stays about constant, between one and
// two percent of a core, until gcMost is reached.
const (
	gcLeast        = gcMost / 16
	allocationFull = 128 << 20 // bytes a second

	// So many goroutines more than at the look before are a fleet that arrives.
	arrivals   = 64
	gcArrivals = gcMost / 4

	// What the heap may grow by at most, whatever the percentage: a large hub lives on a
	// machine that others use, too, and its collections are rare all the same.
	growthMost = 256 << 20

	collectorLook = time.Second
	// The rate that counts is the highest of so many looks: up at once, down when
	// it has been quiet for a while.
	collectorMemory = 10
	// Arrivals that pause for less than so many looks are still the same ones.
	arrivingMemory = 3
)

// collectorPace chooses the percentage.
type collectorPace struct {
	rates      [collectorMemory]float64 // bytes a second, newest overwrites oldest
	next       int
	goroutines uint64 // at the look before
	arriving   int    // looks for which the fleet still counts as arriving
}

// percent takes what was allocated since the look before, how many goroutines
// there are now and how many bytes lived after the last collection, and returns
// the percentage: gcMost or a half, a quarter ... of it, so that it seldom
// changes.
func (p *collectorPace) percent(allocated, goroutines, live uint64, passed time.Duration) int {
	p.rates[p.next%collectorMemory] = float64(allocated) / passed.Seconds()
	p.next++
	most := 0.0
	for _, r := range p.rates {
		most = max(most, r)
	}
	percent := gcMost
	for percent/2 >= gcLeast && most < allocationFull*float64(percent)/2/gcMost {
		percent /= 2
	}
	for percent/2 >= gcLeast && live > growthMost*100/uint64(percent) {
		percent /= 2
	}
	p.arriving = max(0, p.arriving-1)
	if goroutines >= p.goroutines+arrivals {
		p.arriving = arrivingMemory
	}
	p.goroutines = goroutines
	if p.arriving > 0 {
		percent = min(percent, gcArrivals)
	}
	return percent
}

// paceCollector sets the percentage until ctx ends. The memory limit goes above
// it: near that the runtime collects more often.
func paceCollector(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/sched/goroutines:goroutines"}, {Name: "/gc/heap/live:bytes"}}
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
		next := pace.percent(total-before, sample[1].Value.Uint64(), sample[2].Value.Uint64(), moment.Sub(at))
		before, at = total, moment
		if next != now { // each change stops the world for a moment
			debug.SetGCPercent(next)
			now = next
		}
	}
}
