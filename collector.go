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
//
// A busy hub of whose memory little is in use goes beyond gcMost: each
// collection makes those wait who are served meanwhile, and with few things
// alive there would be one every second. The heap may then grow to gcRoom of
// what serve divides before it is collected.
const (
	gcLeast        = gcMost / 16
	gcRoomy        = 8 * gcMost
	gcRoomShare    = 8         // of the memory limit
	gcRoomMost     = 512 * mib // more would not be noticed
	allocationFull = 128 << 20 // bytes a second

	collectorLook = time.Second
	// The rate that counts is the highest of so many looks: up at once, down when
	// it has been quiet for a while.
	collectorMemory = 10
)

// collectorPace chooses the percentage.
type collectorPace struct {
	room  int64                    // bytes that the heap of a busy hub may have before it is collected
	rates [collectorMemory]float64 // bytes a second, newest overwrites oldest
	next  int
}

// percent takes what was allocated since the look before and what lives, and
// returns the percentage: gcMost, or a half, a quarter ..., or twice, four times
// ... of it, so that it seldom changes.
func (p *collectorPace) percent(allocated uint64, passed time.Duration, live uint64) int {
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
	for percent >= gcMost && percent < gcRoomy && int64(live)*int64(100+2*percent)/100 <= p.room {
		percent *= 2
	}
	return percent
}

// paceCollector sets the percentage until ctx ends. The memory limit goes above
// it: near that the runtime collects more often.
func paceCollector(ctx context.Context, limit int64) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	pace := collectorPace{room: min(limit/gcRoomShare, gcRoomMost)}
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
		next := pace.percent(total-before, moment.Sub(at), sample[1].Value.Uint64())
		before, at = total, moment
		if next != now { // each change stops the world for a moment
			debug.SetGCPercent(next)
			now = next
		}
	}
}
