package engine

import (
	"context"

	"github.com/muster-hub/muster/engine/pattern"
)

// Patterns lists every installed version of every pattern, by name, the newest
// version first. It needs ServiceConnect.
func (h *Hub) Patterns(ctx context.Context, c Caller) ([]Pattern, error) {
	return nil, errf(CodeInternal, "not yet")
}

// Pattern returns an installed version of a pattern, the default one when version
// is empty. CodePatternNotFound. It needs ServiceConnect.
func (h *Hub) Pattern(ctx context.Context, c Caller, name, version string) (Pattern, error) {
	return Pattern{}, errf(CodeInternal, "not yet")
}

// PatternBundle returns the files of an installed version. The caller may not
// change them. Errors and permission are those of Pattern.
func (h *Hub) PatternBundle(ctx context.Context, c Caller, name, version string) (*pattern.Bundle, error) {
	return nil, errf(CodeInternal, "not yet")
}
