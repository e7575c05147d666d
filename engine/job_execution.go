package engine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// Execution is how a job stands with one device or module.
type Execution struct {
	Job       string
	Kind      JobKind
	Run       uint64
	Target    TwinID
	Wave      int                     // from 0
	Status    rollout.ExecutionStatus // rollout.ExecutionUncertain is final once Ended is set
	BlockedBy string                  // the job that is in progress on the device
	Attempts  int                     // ever begun
	Last      []Attempt
	Code      string // of the error, of what ended otherwise than well
	Message   string
	Result    *MethodResult // the device's answer
	Created   time.Time     // when its turn came; of a pending one, when its job was made
	Started   time.Time     // of the first attempt; zero: none
	Updated   time.Time
	Ended     time.Time // zero: not final
	Due       time.Time // when time alone moves it on; zero: never
}

// Attempt is one try of an execution.
type Attempt struct {
	ID      string    // on the wire there is at most one command with it
	Sent    time.Time // when sending was committed, before the wire
	Ended   time.Time // zero: it is under way
	Outcome rollout.ExecutionStatus
	Code    string
	Message string
	Status  int // of the device's answer; 0: none
}

// executionRecord is a stored execution. None exists before the target's turn
// comes; until then it is part of a block (see targetBlock).
type executionRecord struct {
	Status     rollout.ExecutionStatus
	Generation string // of the identity when its turn came
	Wave       int
	BlockedBy  string
	Attempts   int
	Last       []attemptRecord // the newest last, at most executionAttempts
	Code       string
	Message    string
	Answered   bool // Answer and AnswerCode count
	AnswerCode int
	Answer     json.RawMessage
	Created    time.Time
	Started    time.Time
	Updated    time.Time
	Ended      time.Time
	Due        time.Time
}

// attemptRecord is a stored Attempt.
type attemptRecord struct {
	ID      string
	Sent    time.Time
	Ended   time.Time
	Outcome rollout.ExecutionStatus
	Code    string
	Message string
	Status  int
}

// executionAttempts is how many attempts of an execution are kept; all are counted.
const executionAttempts = 10

// final reports whether nothing moves the execution any more.
func (r *executionRecord) final() bool { return !r.Ended.IsZero() }

// ExecutionFilter selects executions; what is empty, or negative of Wave, selects all.
type ExecutionFilter struct {
	Run    uint64 // 0: the newest
	Status rollout.ExecutionStatus
	Wave   int
}

// Executions lists the executions of a job by device, those that have begun
// before those that are pending. A page may hold fewer than limit; next is empty
// at the end. It needs ServiceConnect.
func (h *Hub) Executions(ctx context.Context, c Caller, job string, f ExecutionFilter, cursor string, limit int) (list []Execution, next string, err error) {
	return nil, "", errf(CodeInternal, "not built")
}

// Execution returns how a job stands with one device or module. It needs
// ServiceConnect.
func (h *Hub) Execution(ctx context.Context, c Caller, job string, run uint64, id TwinID) (Execution, error) {
	return Execution{}, errf(CodeInternal, "not built")
}

// DeviceJobs lists the executions of all jobs on a device or module, by job. It
// needs ServiceConnect.
func (h *Hub) DeviceJobs(ctx context.Context, c Caller, id TwinID, cursor string, limit int) (list []Execution, next string, err error) {
	return nil, "", errf(CodeInternal, "not built")
}
