package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// loadPlan says how operations are offered.
type loadPlan struct {
	workers  int
	duration time.Duration
	// operations ends the run after so many, before its time; 0: no bound.
	// Processor time is compared best over the same work.
	operations int64
	// rate is how many operations a second are due in all, whether or not
	// the ones before are done; 0: each worker begins the next one when its
	// last is done. With a rate, a latency counts from when the operation was
	// due, so that waiting for a stalled one is not left out.
	rate float64
	// every is how often tick is called with what happened since the call
	// before.
	every time.Duration
	tick  func(elapsed time.Duration, s summary)
}

// loadResult is what came of it.
type loadResult struct {
	Elapsed time.Duration
	Latency summary
}

func (r loadResult) perSecond() float64 { return float64(r.Latency.Count) / r.Elapsed.Seconds() }

// run offers operations until the plan's time is over or one fails.
func (p loadPlan) run(ctx context.Context, operation func(ctx context.Context, worker int) error) (loadResult, error) {
	var h histogram
	var due, begun atomic.Int64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	end := began.Add(p.duration)
	one := func(worker int) (more bool) {
		from := time.Now()
		if p.rate > 0 {
			from = began.Add(time.Duration(float64(due.Add(1)-1) / p.rate * float64(time.Second)))
			pause(ctx, time.Until(from))
		}
		if from.After(end) || ctx.Err() != nil || p.operations > 0 && begun.Add(1) > p.operations {
			return false
		}
		if err := operation(ctx, worker); err != nil {
			cancel(err)
			return false
		}
		h.add(time.Since(from))
		return true
	}
	var workers, ticker sync.WaitGroup
	done := make(chan struct{})
	if p.every > 0 {
		ticker.Go(func() { p.follow(&h, began, done) })
	}
	for w := range p.workers {
		workers.Go(func() {
			for one(w) {
			}
		})
	}
	workers.Wait()
	r := loadResult{time.Since(began), h.summary()}
	close(done)
	ticker.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return r, err
	}
	return r, nil
}

func (p loadPlan) follow(h *histogram, began time.Time, done <-chan struct{}) {
	t := time.NewTicker(p.every)
	defer t.Stop()
	before := h.snapshot()
	for {
		select {
		case <-done:
			return
		case <-t.C:
		}
		s := h.since(before)
		before = h.snapshot()
		p.tick(time.Since(began), s)
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
