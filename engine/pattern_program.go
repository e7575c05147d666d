package engine

import (
	"context"

	"github.com/muster-hub/muster/engine/pattern"
)

// patternState is the state of patterns in memory. It is safe for concurrent use.
type patternState struct {
	shipped []*pattern.Bundle
}

// program returns the bundle of a hash, from the store or from those that were
// used last. Nobody may change it. CodePatternNotFound.
func (h *Hub) program(ctx context.Context, hash string) (*pattern.Bundle, error) {
	return nil, errf(CodeInternal, "not yet")
}
