package engine

import (
	"context"

	"github.com/muster-hub/muster/engine/pattern"
)

// RunCount says how many runs stand alike: the fleet's view of a pattern.
type RunCount struct {
	Pattern string
	Version string
	State   pattern.State
	Phase   string // that the program told; empty: none
	Step    string // operation for which they wait, such as "dev.call"; empty: none
	Count   int64
}

// RunCounts counts the runs of a filter by how they stand. It needs
// ServiceConnect.
func (h *Hub) RunCounts(ctx context.Context, c Caller, f RunFilter) ([]RunCount, error) {
	return nil, errf(CodeInternal, "not yet")
}
