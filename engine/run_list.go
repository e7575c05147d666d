package engine

import "context"

// ReadRun returns a run. CodeRunNotFound. It needs ServiceConnect.
func (h *Hub) ReadRun(ctx context.Context, c Caller, id string) (Run, error) {
	return Run{}, errf(CodeInternal, "not yet")
}

// RunTrace returns a run with what it did. It needs ServiceConnect.
func (h *Hub) RunTrace(ctx context.Context, c Caller, id string) (RunTrace, error) {
	return RunTrace{}, errf(CodeInternal, "not yet")
}

// Runs lists runs, the newest first. A page may hold fewer than limit; next is
// empty at the end. It needs ServiceConnect.
func (h *Hub) Runs(ctx context.Context, c Caller, f RunFilter, limit int, cursor string) (list []Run, next string, err error) {
	return nil, "", errf(CodeInternal, "not yet")
}
