package scripting

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// Options configure a pool.
type Options struct {
	// Command starts a worker: a program and its arguments, which must call [Worker]
	// on its standard input and output.
	Command []string
	Workers int          // how many at most; 0: two, or one where there is one processor
	Logger  *slog.Logger // nil: none
}

// Pool runs programs in worker processes. It is safe for concurrent use.
type Pool struct{}

// Stats is what a pool has done since it was made.
type Stats struct {
	Workers     int              // processes that are alive
	Busy        int              // of them, at work
	Waiting     int              // requests that wait for a worker
	Activations int64            // that came back
	Starts      int64            // of workers
	Kills       map[string]int64 // workers that were killed, by the budget: "time", "memory"
	Crashes     int64            // workers that died by themselves
	Queued      time.Duration    // that requests have waited for a worker, together
}

// NewPool makes a pool. Its workers start when they are first needed. The caller
// closes it.
func NewPool(o Options) (*Pool, error) { return nil, errors.New("not yet") }

// Load is what [Load] does, in a worker.
func (p *Pool) Load(ctx context.Context, b *pattern.Bundle) (*pattern.Manifest, error) {
	return nil, errors.New("not yet")
}

// Activate runs activations of one program, each by itself, and returns their
// outcomes in the same order. One that took too long or too much memory has an
// outcome that failed with FaultBudget. An error has nothing to do with the
// program: it may be tried again.
func (p *Pool) Activate(ctx context.Context, b *pattern.Bundle, list []pattern.Activation) ([]pattern.Outcome, error) {
	return nil, errors.New("not yet")
}

// Stats tells what the pool does.
func (p *Pool) Stats() Stats { return Stats{} }

// Close ends the workers and waits for them. Requests under way fail.
func (p *Pool) Close() error { return nil }
