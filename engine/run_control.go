package engine

import (
	"context"

	"github.com/muster-hub/muster/storage"
)

// CancelRunOptions say how a run is canceled.
type CancelRunOptions struct {
	Reason string
	Undo   bool // its undo follows, if it has one
	Now    bool // at once: nothing of the program runs any more, deferred functions neither
}

// RetryRunOptions say how a run is begun again.
type RetryRunOptions struct {
	From    int    // the step that is taken again, and those behind it; 0: from the start
	Version string // of the pattern; empty: the run's own
}

// CancelRun asks a run to end: the program finds the fault "canceled" where it
// waits, and deferred functions run. CodeRunState when it has ended. It needs
// ServiceConnect.
func (h *Hub) CancelRun(ctx context.Context, c Caller, id string, o CancelRunOptions) (Run, error) {
	return Run{}, errf(CodeInternal, "not yet")
}

// CancelRuns is CancelRun for all that a filter selects and that have not ended;
// it returns how many there were. An error may come after some were canceled.
func (h *Hub) CancelRuns(ctx context.Context, c Caller, f RunFilter, o CancelRunOptions) (int, error) {
	return 0, errf(CodeInternal, "not yet")
}

// UndoRun has the program's undo run, after the end of a run. CodeRunState. It
// needs ServiceConnect.
func (h *Hub) UndoRun(ctx context.Context, c Caller, id string) (Run, error) {
	return Run{}, errf(CodeInternal, "not yet")
}

// RetryRun begins a run again that has ended, as a new run: from its start, or
// from a step if its pattern is resumable. CodeRunState. It needs ServiceConnect.
func (h *Hub) RetryRun(ctx context.Context, c Caller, id string, o RetryRunOptions) (Run, error) {
	return Run{}, errf(CodeInternal, "not yet")
}

// DecideRun answers what a run asks. CodeRunState when it asks nothing,
// CodeForbidden when somebody else is to decide. It needs ServiceConnect.
func (h *Hub) DecideRun(ctx context.Context, c Caller, id string, approve bool, reason string) (Run, error) {
	return Run{}, errf(CodeInternal, "not yet")
}

// DecideRuns is DecideRun for all that a filter selects and that ask something
// which the caller may decide; it returns how many there were. An error may come
// after some were decided.
func (h *Hub) DecideRuns(ctx context.Context, c Caller, f RunFilter, approve bool, reason string) (int, error) {
	return 0, errf(CodeInternal, "not yet")
}

// stopRunTx asks a run to end, as CancelRun does, once the transaction is
// durable. A run that has ended, or is gone, is left as it is.
func (h *Hub) stopRunTx(tx *storage.Tx, id, why string, undo bool) error {
	return errf(CodeInternal, "not yet")
}

// undoRunTx has the undo of a run that has ended run, once the transaction is
// durable; CodeRunState when it can't.
func (h *Hub) undoRunTx(tx *storage.Tx, id string) error {
	return errf(CodeInternal, "not yet")
}
