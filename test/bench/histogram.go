package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets that are at most 3 % wide. It is safe
// for concurrent use.
type histogram struct {
	counts [60 * 32]atomic.Uint64
	most   atomic.Int64
}

// bucketOf keeps the six leading bits of a duration in nanoseconds.
func bucketOf(ns uint64) int {
	shift := max(0, bits.Len64(ns)-6)
	return shift*32 + int(ns>>shift)
}

// bucketEnd is the largest duration of a bucket.
func bucketEnd(i int) uint64 {
	if i < 64 {
		return uint64(i)
	}
	shift := i/32 - 1
	return uint64(i-32*shift+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(uint64(max(0, d)))].Add(1)
	for {
		most := h.most.Load()
		if int64(d) <= most || h.most.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

// summary is what is reported of a set of durations.
// It travels between processes as JSON, in nanoseconds.
type summary struct {
	Count               uint64
	P50, P99, P999, Max time.Duration
}

// summary returns the quantiles of what was added so far.
func (h *histogram) summary() summary { return h.since(nil) }

// snapshot copies the counts, for since.
func (h *histogram) snapshot() []uint64 {
	s := make([]uint64, len(h.counts))
	for i := range h.counts {
		s[i] = h.counts[i].Load()
	}
	return s
}

// since returns the quantiles of what was added after a snapshot; nil is the
// beginning. Max is that of the whole time.
func (h *histogram) since(before []uint64) summary {
	now := h.snapshot()
	s := summary{Max: time.Duration(h.most.Load())}
	for i := range now {
		if before != nil {
			now[i] -= before[i]
		}
		s.Count += now[i]
	}
	at := func(q float64) time.Duration {
		rank, sum := uint64(q*float64(s.Count)), uint64(0)
		for i, n := range now {
			if sum += n; sum > rank {
				return min(time.Duration(bucketEnd(i)), s.Max)
			}
		}
		return s.Max
	}
	s.P50, s.P99, s.P999 = at(0.5), at(0.99), at(0.999)
	return s
}
