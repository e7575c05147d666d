package rollout

// JobStatus is where a job stands, in the words that people and programs read.
type JobStatus string

// The statuses of a job.
const (
	JobQueued    JobStatus = "queued"    // its targets are being laid out
	JobScheduled JobStatus = "scheduled" // waits for its start
	JobRunning   JobStatus = "running"
	JobPaused    JobStatus = "paused"    // nothing starts; attempts on their way go on
	JobCanceling JobStatus = "canceling" // nothing starts any more; attempts on their way go on to their end
	JobCompleted JobStatus = "completed" // each execution ended by itself
	JobFailed    JobStatus = "failed"    // aborted by a threshold, a health check or a fault
	JobCanceled  JobStatus = "canceled"  // by an operator, or its end came first
)

// Final reports whether a job in this status does nothing more unless its
// failed executions are retried.
func (s JobStatus) Final() bool {
	return s == JobCompleted || s == JobFailed || s == JobCanceled
}

// JobStatuses are all of them in the order in which a job goes through them.
func JobStatuses() []JobStatus {
	return []JobStatus{JobQueued, JobScheduled, JobRunning, JobPaused, JobCanceling, JobCompleted, JobFailed, JobCanceled}
}

// WaitsFor says what keeps a running job from starting more.
type WaitsFor string

// What a running job waits for.
const (
	WaitsForNothing  WaitsFor = ""
	WaitsForApproval WaitsFor = "approval" // of its next wave
	WaitsForSoak     WaitsFor = "soak"     // the time after a wave
	WaitsForHealth   WaitsFor = "health"   // the answer to a health check
	WaitsForGate     WaitsFor = "gate"     // what the action itself says of the next wave
	WaitsForWindow   WaitsFor = "window"   // no device that is left has its window open
	WaitsForRate     WaitsFor = "rate"
	WaitsForDevices  WaitsFor = "devices" // all that may be under way is under way, or targets that join
	WaitsForTurn     WaitsFor = "turn"    // the hub's budget is taken by other jobs
)

// ExecutionStatus is where the execution of a job on one device stands, in the
// words that people and programs read.
type ExecutionStatus string

// The statuses of an execution. Uncertain is two: an attempt whose outcome is
// not known is uncertain while evidence may still settle it, and ends so when
// the policy's time is over without.
const (
	ExecutionPending    ExecutionStatus = "pending" // never taken
	ExecutionWaiting    ExecutionStatus = "waiting" // for its device, or for another job that is busy with it
	ExecutionRunning    ExecutionStatus = "running" // an attempt is on its way
	ExecutionConfirming ExecutionStatus = "confirming"
	ExecutionRetrying   ExecutionStatus = "retrying" // until its back-off is over
	ExecutionUncertain  ExecutionStatus = "uncertain"
	ExecutionSucceeded  ExecutionStatus = "succeeded"
	ExecutionFailed     ExecutionStatus = "failed"
	ExecutionTimedOut   ExecutionStatus = "timedOut"
	ExecutionRejected   ExecutionStatus = "rejected" // by the device's answer
	ExecutionCanceled   ExecutionStatus = "canceled"
	ExecutionRemoved    ExecutionStatus = "removed" // the identity was deleted
)

// ExecutionStatuses are all of them in the order in which an execution goes
// through them.
func ExecutionStatuses() []ExecutionStatus {
	return []ExecutionStatus{
		ExecutionPending, ExecutionWaiting, ExecutionRunning, ExecutionConfirming, ExecutionRetrying, ExecutionUncertain,
		ExecutionSucceeded, ExecutionFailed, ExecutionTimedOut, ExecutionRejected, ExecutionCanceled, ExecutionRemoved,
	}
}

// Phase is the counter of a [Tally] in which an execution of this status is.
// Ended tells the two uncertain ones apart; it says nothing of the others.
func (s ExecutionStatus) Phase(ended bool) Phase {
	switch s {
	case ExecutionRunning, ExecutionConfirming:
		return PhaseActive
	case ExecutionUncertain:
		if !ended {
			return PhaseActive
		}
	}
	return Phase(s)
}

// Phase is one of the counters in which executions are counted. Each execution
// is in exactly one.
type Phase string

// The phases. From succeeded on they are final, and their text is that of the
// execution's status.
const (
	PhasePending   Phase = "pending"  // never taken; no record of it exists
	PhaseWaiting   Phase = "waiting"  // taken, nothing on its way: its device or another job is waited for
	PhaseActive    Phase = "active"   // an attempt is on its way or awaits evidence
	PhaseRetrying  Phase = "retrying" // between two attempts
	PhaseSucceeded Phase = "succeeded"
	PhaseFailed    Phase = "failed"
	PhaseTimedOut  Phase = "timedOut"
	PhaseRejected  Phase = "rejected"
	PhaseUncertain Phase = "uncertain" // ended without evidence
	PhaseCanceled  Phase = "canceled"
	PhaseRemoved   Phase = "removed"
)

// Phases are all phases in their order.
func Phases() []Phase {
	return []Phase{
		PhasePending, PhaseWaiting, PhaseActive, PhaseRetrying,
		PhaseSucceeded, PhaseFailed, PhaseTimedOut, PhaseRejected, PhaseUncertain, PhaseCanceled, PhaseRemoved,
	}
}

// Final reports whether an execution in this phase has ended.
func (p Phase) Final() bool {
	switch p {
	case PhasePending, PhaseWaiting, PhaseActive, PhaseRetrying:
		return false
	}
	return true
}
