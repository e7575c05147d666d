package engine

import (
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
	Attempts   int // ever begun: their ids are never used again
	// Retried is how many of them were made before somebody had the execution
	// retried: the policy counts from there on, and from Created, which is then.
	Retried    int
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
	Rank       *executionRank // of one that waits; nil of those that an older hub stored
}

// executionRank is what says who is first of those that wait for a device.
type executionRank struct {
	Priority int       // of the job
	Created  time.Time // the job
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

// show returns the record as callers see it.
func (r *executionRecord) show(job string, run uint64, kind JobKind, id TwinID) Execution {
	e := Execution{
		Job: job, Kind: kind, Run: run, Target: id, Wave: r.Wave, Status: r.Status, BlockedBy: r.BlockedBy, Attempts: r.Attempts,
		Code: r.Code, Message: r.Message, Created: r.Created, Started: r.Started, Updated: r.Updated, Ended: r.Ended, Due: r.Due,
	}
	for _, a := range r.Last {
		e.Last = append(e.Last, Attempt(a))
	}
	if r.Answered {
		e.Result = &MethodResult{Status: r.AnswerCode, Payload: r.Answer}
	}
	return e
}

// pendingExecution is that of a target whose turn has not come.
func pendingExecution(job string, record *jobRecord, wave int, id TwinID) Execution {
	return Execution{Job: job, Kind: record.Kind, Run: record.Run, Target: id, Wave: wave, Status: rollout.ExecutionPending, Created: record.Created.UTC(), Updated: record.Created.UTC()}
}
