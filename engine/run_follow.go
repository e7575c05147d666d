package engine

import (
	"context"
	"time"
)

// RunFollower tells how one run stands, again whenever that has changed, for
// one goroutine at a time. It skips what passed while nobody asked.
type RunFollower struct{}

// FollowRun follows a run. cursor is that of a RunFollower that told how the run
// stood: Next returns at once unless that is still so; empty, and one of another
// epoch, is never so. Close must be called. CodeThrottled means that as many
// streams as allowed are open. It needs ServiceConnect.
func (h *Hub) FollowRun(ctx context.Context, c Caller, id, cursor string) (*RunFollower, error) {
	return nil, errf(CodeInternal, "not yet")
}

// Close ends the following.
func (f *RunFollower) Close() {}

// Cursor names what Next returned last, to follow from there.
func (f *RunFollower) Cursor() string { return "" }

// Next waits until the run stands otherwise than it was told last. changed is
// false when nothing came for idle. Errors: ctx's, CodeClosed when the hub shuts
// down, CodeRunNotFound when the run is gone, and those of reading.
func (f *RunFollower) Next(ctx context.Context, idle time.Duration) (r Run, changed bool, err error) {
	return Run{}, false, errf(CodeInternal, "not yet")
}
