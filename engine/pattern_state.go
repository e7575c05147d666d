package engine

import "context"

// EnablePattern lets runs of an installed version begin, and its triggers work:
// with the caller's permissions.
func (h *Hub) EnablePattern(ctx context.Context, c Caller, name, version, ifMatch string) (Pattern, error) {
	return Pattern{}, errf(CodeInternal, "not yet")
}

// DisablePattern lets none begin any more; those under way go on to their end.
func (h *Hub) DisablePattern(ctx context.Context, c Caller, name, version, ifMatch string) (Pattern, error) {
	return Pattern{}, errf(CodeInternal, "not yet")
}

// DefaultPattern makes a version the one that is run when none is named.
func (h *Hub) DefaultPattern(ctx context.Context, c Caller, name, version, ifMatch string) (Pattern, error) {
	return Pattern{}, errf(CodeInternal, "not yet")
}

// RemovePattern removes an installed version of which no run is under way.
func (h *Hub) RemovePattern(ctx context.Context, c Caller, name, version, ifMatch string) error {
	return errf(CodeInternal, "not yet")
}
