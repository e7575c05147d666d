package rollout

import (
	"fmt"
	"slices"
	"time"
)

// State is where a job stands. It is stored in the job's record, in JSON, and
// is small: some hundred bytes and as much for each wave. Its counters are exact
// if each move of an execution is told in the transaction that makes it.
//
// A method that returns an error has changed nothing. A State is a plain value:
// no method may be called at the same time as another; Clone before a
// transaction's function that may run twice.
type State struct {
	Status   JobStatus `json:"status"`
	WaitsFor WaitsFor  `json:"waitsFor,omitempty"`
	Reason   string    `json:"reason,omitempty"` // of the status, for people
	// PausedBy is set while the job is paused.
	PausedBy PauseCause `json:"pausedBy,omitempty"`

	// Dynamic jobs take devices that begin to match later, and end only at their
	// end or when they are canceled.
	Dynamic bool `json:"dynamic,omitempty"`
	// LaidOut is set when all targets have their wave.
	LaidOut bool `json:"laidOut,omitempty"`
	// Wave is the index of the wave that is under way, or that is next. Opened
	// says which of the two.
	Wave   int     `json:"wave"`
	Opened bool    `json:"opened,omitempty"`
	Waves  []Tally `json:"waves,omitempty"`

	// SoakSince is when the wave under way had nothing left to do; zero before.
	SoakSince time.Time `json:"soakSince,omitzero"`
	// Healthy is set when the check after the wave under way was passed, or an
	// operator accepted what it found.
	Healthy bool `json:"healthy,omitempty"`
	// Passed is set when the action's gate behind the wave under way said go, or an
	// operator accepted what it said. Gates are all that it said, in the order of
	// time, at most gatesMost.
	Passed bool         `json:"passed,omitempty"`
	Gates  []GateResult `json:"gates,omitempty"`
	// Undo is set when a gate wants what was done to be taken back; whoever runs the
	// job does that.
	Undo bool `json:"undo,omitempty"`
	// Approvals are those given, in the order of time.
	Approvals []Approval `json:"approvals,omitempty"`
	// Ended is set once, when the policy's end came.
	Ended bool `json:"ended,omitempty"`
	// Verdict is what a job that is canceling, or whose end came, will be.
	Verdict JobStatus `json:"verdict,omitempty"`

	// Started counts the targets that were ever taken, for the rate's growth.
	Started int `json:"started,omitempty"`
	// Tokens and TokensAt are the rate's bucket.
	Tokens   float64   `json:"tokens,omitempty"`
	TokensAt time.Time `json:"tokensAt,omitzero"`
	// Noted is what would have paused the job if anything had been left to be held
	// back: a job that completes gives it as its reason.
	Noted string `json:"noted,omitempty"`
	// Accepted are the outcomes per wave that an operator has accepted by
	// resuming after a threshold; thresholds that pause count from there.
	Accepted []Tally `json:"accepted,omitempty"`
}

// PauseCause is who or what paused a job.
type PauseCause string

// What may pause a job.
const (
	PausedByOperator  PauseCause = "operator"
	PausedByThreshold PauseCause = "threshold"
	PausedByHealth    PauseCause = "health"
	PausedByGate      PauseCause = "gate" // the action itself said so
	PausedByHub       PauseCause = "hub"  // such as a restored backup, or an owner who lost the permission
)

// itself reports whether the job has paused itself, for what it found.
func (c PauseCause) itself() bool {
	return c == PausedByThreshold || c == PausedByHealth || c == PausedByGate
}

// Approval is that of one wave.
type Approval struct {
	Wave int       `json:"wave"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// NewState is that of a job, or of the next run of a recurring one, whose
// targets are not laid out yet.
func NewState(dynamic bool) State { return State{Status: JobQueued, Dynamic: dynamic} }

// Clone is a copy that shares nothing.
func (s *State) Clone() State {
	c := *s
	c.Waves, c.Approvals, c.Accepted, c.Gates = slices.Clone(s.Waves), slices.Clone(s.Approvals), slices.Clone(s.Accepted), slices.Clone(s.Gates)
	return c
}

// Total adds the waves up.
func (s *State) Total() Tally {
	var total Tally
	for i := range s.Waves {
		w := &s.Waves[i]
		total.Size += w.Size
		for _, p := range Phases() {
			*total.of(p) += w.Get(p)
		}
	}
	return total
}

// LayOut says that the job's targets are known and have their waves: sizes[i]
// of wave i, as [Policy.WaveSizes] has it. A paused job stays paused; else the
// job is scheduled and the next Advance starts it.
func (s *State) LayOut(sizes []int) error {
	switch {
	case s.LaidOut:
		return fmt.Errorf("the job's targets are laid out already")
	case s.Status != JobQueued && s.Status != JobPaused:
		return fmt.Errorf("the job is %s", s.Status)
	case len(sizes) == 0 || slices.Min(sizes) < 0:
		return fmt.Errorf("the sizes of waves are %v", sizes)
	}
	s.Waves = make([]Tally, len(sizes))
	for i, n := range sizes {
		s.Waves[i] = Tally{Size: n, Pending: n}
	}
	s.LaidOut = true
	if s.Status == JobQueued {
		s.Status = JobScheduled
	}
	return nil
}

// moves are the phases to which an execution may go from another. From those
// without a row nothing moves but by Retry.
var moves = map[Phase][]Phase{
	PhasePending: {
		PhaseWaiting, PhaseActive, PhaseRetrying, PhaseSucceeded, PhaseFailed, PhaseRejected, // a start
		PhaseCanceled, PhaseRemoved,
	},
	PhaseWaiting: {
		PhaseActive, PhaseRetrying,
		PhaseSucceeded, PhaseFailed, PhaseTimedOut, PhaseRejected, PhaseUncertain, PhaseCanceled, PhaseRemoved,
	},
	PhaseActive: {
		PhaseWaiting, PhaseRetrying,
		PhaseSucceeded, PhaseFailed, PhaseTimedOut, PhaseRejected, PhaseUncertain, PhaseCanceled, PhaseRemoved,
	},
	PhaseRetrying: {
		PhaseWaiting, PhaseActive,
		PhaseSucceeded, PhaseFailed, PhaseTimedOut, PhaseRejected, PhaseUncertain, PhaseCanceled, PhaseRemoved,
	},
	PhaseUncertain: {PhaseSucceeded, PhaseFailed, PhaseRejected}, // by late evidence
	PhaseTimedOut:  {PhaseSucceeded, PhaseFailed, PhaseRejected},
}

// Move says that n executions of a wave went from one phase to another. Which
// moves there are is a table; an impossible one, or one of more executions than
// are there, is an error. A move from pending to another phase than canceled and
// removed is a start: it must be of the wave under way, in a running job whose
// end has not come. Nothing becomes active unless the job runs.
//
// After an execution has ended only evidence moves it: from uncertain or timed
// out to succeeded, failed or rejected.
func (s *State) Move(wave int, from, to Phase, n int) error {
	if wave < 0 || wave >= len(s.Waves) {
		return fmt.Errorf("there is no wave %d", wave)
	}
	if !slices.Contains(moves[from], to) {
		return fmt.Errorf("an execution that is %s can't become %s", from, to)
	}
	t := &s.Waves[wave]
	if n < 0 || n > t.Get(from) {
		return fmt.Errorf("%d executions of wave %d are %s, not %d", t.Get(from), wave, from, n)
	}
	start := from == PhasePending && to != PhaseCanceled && to != PhaseRemoved
	if (start || to == PhaseActive) && s.Status != JobRunning {
		return fmt.Errorf("nothing starts in a job that is %s", s.Status)
	}
	if start && (s.Ended || wave != s.Wave) || (start || to == PhaseActive) && wave >= s.Reach() {
		return fmt.Errorf("wave %d is not open", wave)
	}
	*t.of(from) -= n
	*t.of(to) += n
	if start {
		s.Started += n
		s.Tokens = max(0, s.Tokens-float64(n))
	}
	return nil
}

// idle reports whether nothing is left that could start, now or later.
func (s *State) idle() bool {
	total := s.Total()
	return total.Open() == 0 && (!s.Dynamic || s.Ended)
}

// note keeps what would have paused the job.
func (s *State) note(reason string) {
	if s.Noted != "" {
		reason = s.Noted + "; " + reason
	}
	s.Noted = reason
}

// Join adds n targets of a dynamic job that began to match after it was laid
// out. They belong to the last wave, so that the waves before it protect them;
// the index of that wave is returned. Join on a job that is not laid out, not
// dynamic, ended or canceling is an error.
func (s *State) Join(n int) (wave int, err error) {
	if !s.Dynamic || !s.LaidOut || n < 0 {
		return 0, fmt.Errorf("only jobs with dynamic targets, once these are laid out, take more")
	}
	if s.over() {
		return 0, fmt.Errorf("the job takes no more targets: it is %s", s.Status)
	}
	wave = len(s.Waves) - 1
	s.Waves[wave].Size += n
	s.Waves[wave].Pending += n
	s.again(wave)
	return wave, nil
}

// again says that a wave has something to do: if it was under way or before, its
// soak and its check are for after that.
func (s *State) again(wave int) {
	if wave < s.Reach() {
		s.soakAgain()
	}
}

// soakAgain forgets what was found behind the wave under way.
func (s *State) soakAgain() {
	s.SoakSince, s.Healthy, s.Passed = time.Time{}, false, false
}

// over reports whether no target is taken any more.
func (s *State) over() bool { return s.Ended || s.Status == JobCanceling || s.Status.Final() }

// Retry puts n executions of a wave that ended in phase from (failed, timedOut,
// rejected, uncertain or canceled) back: they are PhaseRetrying, due at once. A
// job that had ended runs again; a paused one stays paused. After the policy's
// end, and while the job is canceling, it is an error.
func (s *State) Retry(wave int, from Phase, n int) error {
	switch {
	case wave < 0 || wave >= len(s.Waves):
		return fmt.Errorf("there is no wave %d", wave)
	case from != PhaseCanceled && !slices.Contains(BadPhases(), from):
		return fmt.Errorf("an execution that is %s can't be retried", from)
	case s.Ended || s.Status == JobCanceling:
		return fmt.Errorf("nothing can be retried: the job's end has come, or it is canceling")
	}
	t := &s.Waves[wave]
	if n < 0 || n > t.Get(from) {
		return fmt.Errorf("%d executions of wave %d are %s, not %d", t.Get(from), wave, from, n)
	}
	if n == 0 {
		return nil
	}
	*t.of(from) -= n
	t.Retrying += n
	s.again(wave)
	if s.Status.Final() {
		s.Status, s.Verdict, s.Reason = s.ready(), "", ""
	}
	return nil
}

// Approve lets a wave that asks for it begin. It may be said before it is the
// wave's turn, once, and not after the wave has begun.
func (s *State) Approve(p *Policy, wave int, by string, now time.Time) error {
	switch {
	case wave < 0 || wave >= len(p.Waves):
		return fmt.Errorf("there is no wave %d", wave+1) // as people count them
	case !p.Waves[wave].Approval:
		return fmt.Errorf("wave %d needs no approval", wave+1)
	case s.over():
		return fmt.Errorf("the job is %s", s.Status)
	case wave < s.Wave || wave == s.Wave && s.Opened:
		return fmt.Errorf("wave %d has begun", wave+1)
	case s.approved(wave):
		return fmt.Errorf("wave %d is approved already", wave+1)
	}
	s.Approvals = append(s.Approvals, Approval{wave, by, now})
	if wave == s.Wave && s.WaitsFor == WaitsForApproval { // it waits no longer, as whoever looks now shall see
		s.WaitsFor, s.Reason = WaitsForNothing, ""
	}
	return nil
}

func (s *State) approved(wave int) bool {
	return slices.ContainsFunc(s.Approvals, func(a Approval) bool { return a.Wave == wave })
}

// Pause stops the job from starting anything; reason is for people. A job that
// is paused, canceling or final can't be paused.
func (s *State) Pause(by PauseCause, reason string) error {
	switch s.Status {
	case JobQueued, JobScheduled, JobRunning:
		s.pause(by, reason)
		return nil
	}
	return fmt.Errorf("the job is %s", s.Status)
}

func (s *State) pause(by PauseCause, reason string) {
	s.Status, s.PausedBy, s.WaitsFor, s.Reason = JobPaused, by, WaitsForNothing, reason
}

// Resume lets a paused job go on. Whoever resumes accepts the outcomes or the
// health that made it pause.
func (s *State) Resume() error {
	if s.Status != JobPaused {
		return fmt.Errorf("the job is %s", s.Status)
	}
	switch s.PausedBy {
	case PausedByThreshold:
		s.Accepted = slices.Clone(s.Waves)
	case PausedByHealth:
		s.Healthy = true
	case PausedByGate:
		s.Passed = true
	}
	s.Status, s.PausedBy, s.Reason = s.ready(), "", ""
	return nil
}

// ready is the status of a job that nothing stops.
func (s *State) ready() JobStatus {
	switch {
	case !s.LaidOut:
		return JobQueued
	case s.Wave == 0 && !s.Opened: // its start may be ahead
		return JobScheduled
	}
	return JobRunning
}

// Cancel ends the job: nothing starts any more, what waits is canceled, attempts
// on their way go on to their end. A job whose targets are not laid out is
// canceled at once. Final jobs can't be canceled; canceling again changes
// nothing.
func (s *State) Cancel(reason string) error { return s.stop(JobCanceled, reason) }

// Fail is Cancel for a fault that the hub found, such as a condition that can't
// be evaluated: the job will be JobFailed.
func (s *State) Fail(reason string) error { return s.stop(JobFailed, reason) }

func (s *State) stop(verdict JobStatus, reason string) error {
	if s.Status.Final() {
		return fmt.Errorf("the job is %s", s.Status)
	}
	if s.Status != JobCanceling {
		s.halt(verdict, reason)
	}
	return nil
}

// halt ends a job that is neither final nor canceling.
func (s *State) halt(verdict JobStatus, reason string) {
	s.Status, s.Verdict, s.PausedBy, s.WaitsFor, s.Reason = JobCanceling, verdict, "", WaitsForNothing, reason
	if !s.LaidOut {
		s.Status = verdict
	}
}
