package engine

import (
	"context"
	"encoding/json"

	"github.com/muster-hub/muster/storage"
)

// runStart is a run that is to begin.
type runStart struct {
	Pattern patternRecord
	Device  TwinID          // zero: of scope fleet
	Params  json.RawMessage // checked, with defaults
	Job     *queuedJob      // whose execution it is; nil: none
	Parent  string          // the run that starts it; empty: none
	Of      string          // the run of which it is a retry; empty: none
	Trigger string
	Attempt int // 0: the first
}

// StartRun starts a run of a pattern without a job and returns it, durable and
// about to begin. It needs ServiceConnect. Errors: CodePatternNotFound,
// CodePatternState when the pattern is disabled, CodeArgumentInvalid,
// CodeDeviceNotFound, CodeTooManyRuns.
func (h *Hub) StartRun(ctx context.Context, c Caller, s RunSpec) (Run, error) {
	return Run{}, errf(CodeInternal, "not yet")
}

// startRunTx makes a run, which the loop begins once that is durable; whether its
// device is free is found then, too. CodeTooManyRuns, CodeDeviceNotFound.
func (h *Hub) startRunTx(tx *storage.Tx, c Caller, s runStart) (id string, err error) {
	return "", errf(CodeInternal, "not yet")
}
