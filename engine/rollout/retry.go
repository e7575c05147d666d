package rollout

import (
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// Next is what follows from an attempt's end.
type Next struct {
	// Phase is the phase to which the execution goes: PhaseRetrying, or a final
	// one.
	Phase Phase
	// At is when the next attempt is due if it goes to PhaseRetrying. In a
	// closed window it may have to wait for longer.
	At time.Time
}

// jitter is by which part a back-off varies, either way.
const jitter = 0.2

// AfterAttempt says what follows when attempt number n (from 1) of an execution
// ended. Taken is when the execution was, target the device's id, by which the
// back-off varies. An attempt that could only begin after the execution's time
// is not waited for.
func (p *Policy) AfterAttempt(outcome AttemptOutcome, n int, taken, now time.Time, target string) Next {
	if outcome == AttemptSucceeded {
		return Next{Phase: PhaseSucceeded}
	}
	if r := p.Retry; r != nil && n < r.Attempts && slices.Contains(r.On, outcome) {
		at := now.Add(r.wait(n, target))
		if due := p.Due(taken); due.IsZero() || at.Before(due) {
			return Next{Phase: PhaseRetrying, At: at}
		}
	}
	return Next{Phase: outcome.phase()}
}

// phase is how an execution ends whose last attempt ended so.
func (o AttemptOutcome) phase() Phase {
	switch o {
	case AttemptSucceeded:
		return PhaseSucceeded
	case AttemptTimedOut:
		return PhaseTimedOut
	case AttemptRejected:
		return PhaseRejected
	case AttemptUncertain:
		return PhaseUncertain
	}
	return PhaseFailed
}

// wait is the back-off after attempt number n on a target.
func (r *Retry) wait(n int, target string) time.Duration {
	h := fnv.New64a()
	io.WriteString(h, target+"/"+strconv.Itoa(n))
	part := float64(h.Sum64()%100_000)/100_000*2 - 1
	wait := min(float64(r.Backoff)*math.Pow(r.Factor, float64(n-1)), float64(r.Most))
	return time.Duration(wait * (1 + jitter*part))
}

// Due is when an execution that was taken then times out; zero if it never does.
func (p *Policy) Due(taken time.Time) time.Time {
	if p.Timeout <= 0 {
		return time.Time{}
	}
	return taken.Add(time.Duration(p.Timeout))
}

// AttemptDue is when an attempt that was sent then times out: its own time or
// the execution's, whichever is earlier; zero if it never does.
func (p *Policy) AttemptDue(taken, sent time.Time) time.Time {
	due := p.Due(taken)
	if p.AttemptTimeout <= 0 {
		return due
	}
	if own := sent.Add(time.Duration(p.AttemptTimeout)); due.IsZero() || own.Before(due) {
		return own
	}
	return due
}
