package engine

import (
	"context"
)

// InspectPattern says what InstallPattern would install, and what it needs,
// without a change. What stands against it is an error, except for grants and a
// signature that are missing.
func (h *Hub) InspectPattern(ctx context.Context, c Caller, p PatternInstall) (Pattern, error) {
	return Pattern{}, errf(CodeInternal, "not yet")
}

// InstallPattern installs a version of a pattern beside those that there are.
func (h *Hub) InstallPattern(ctx context.Context, c Caller, p PatternInstall) (Pattern, error) {
	return Pattern{}, errf(CodeInternal, "not yet")
}
