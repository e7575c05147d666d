package rollout

import "time"

// Next is what follows from an attempt's end.
type Next struct {
	// Phase is the phase to which the execution goes: PhaseRetrying, or a final
	// one.
	Phase Phase
	// At is when the next attempt is due if it goes to PhaseRetrying. In a
	// closed window it may have to wait for longer.
	At time.Time
}

// AfterAttempt says what follows when attempt number n (from 1) of an execution
// ended. Taken is when the execution was, target the device's id, by which the
// back-off varies.
func (p *Policy) AfterAttempt(outcome AttemptOutcome, n int, taken, now time.Time, target string) Next {
	return Next{}
}

// Due is when an execution that was taken then times out; zero if it never does.
func (p *Policy) Due(taken time.Time) time.Time { return time.Time{} }

// AttemptDue is when an attempt that was sent then times out: its own time or
// the execution's, whichever is earlier; zero if it never does.
func (p *Policy) AttemptDue(taken, sent time.Time) time.Time { return time.Time{} }
