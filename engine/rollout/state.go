package rollout

import (
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

	// Dynamic jobs take devices that begin to match later, and end only at their
	// end or when they are canceled.
	Dynamic bool `json:"dynamic,omitempty"`
	// LaidOut is set when all targets have their wave.
	LaidOut bool `json:"laidOut,omitempty"`
	// Wave is the index of the wave that is under way, or for which an approval
	// is waited. Opened says which of the two.
	Wave   int     `json:"wave"`
	Opened bool    `json:"opened,omitempty"`
	Waves  []Tally `json:"waves,omitempty"`

	// SoakSince is when the wave under way had nothing left to do; zero before.
	SoakSince time.Time `json:"soakSince,omitzero"`
	// Healthy is set when the check after the wave under way was passed, or an
	// operator accepted what it found.
	Healthy bool `json:"healthy,omitempty"`
	// Approvals are those given, in the order of time.
	Approvals []Approval `json:"approvals,omitempty"`
	// Ended is set once, when the policy's end came.
	Ended bool `json:"ended,omitempty"`
	// Verdict is what a job that is canceling will be.
	Verdict JobStatus `json:"verdict,omitempty"`

	// Started counts the targets that were ever taken, for the rate's growth.
	Started int `json:"started,omitempty"`
	// Tokens and TokensAt are the rate's bucket.
	Tokens   float64   `json:"tokens,omitempty"`
	TokensAt time.Time `json:"tokensAt,omitzero"`
	// Accepted are the outcomes per wave that an operator has accepted by
	// resuming.
	Accepted []Tally `json:"accepted,omitempty"`
}

// Tally counts the executions of one wave by phase. Size is the sum of the
// others, always.
type Tally struct {
	Size      int `json:"size"`
	Pending   int `json:"pending,omitempty"`
	Waiting   int `json:"waiting,omitempty"`
	Active    int `json:"active,omitempty"`
	Retrying  int `json:"retrying,omitempty"`
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	TimedOut  int `json:"timedOut,omitempty"`
	Rejected  int `json:"rejected,omitempty"`
	Uncertain int `json:"uncertain,omitempty"`
	Canceled  int `json:"canceled,omitempty"`
	Removed   int `json:"removed,omitempty"`
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
func (s *State) Clone() State { return *s }

// Total adds the waves up.
func (s *State) Total() Tally { return Tally{} }

// Get is the counter of one phase.
func (t *Tally) Get(p Phase) int { return 0 }

// Open counts the executions that have not ended.
func (t *Tally) Open() int { return t.Pending + t.Waiting + t.Active + t.Retrying }

// LayOut says that the job's targets are known and have their waves: sizes[i]
// of wave i, as [Policy.WaveSizes] has it. A paused job stays paused; else the
// job is scheduled and the next Advance starts it.
func (s *State) LayOut(sizes []int) error { return nil }

// Move says that n executions of a wave went from one phase to another. Which
// moves there are is a table; an impossible one, or one of more executions than
// are there, is an error. A first start is from PhasePending, and only of a wave
// that is open.
//
// After an execution has ended only evidence moves it: from uncertain or timed
// out to succeeded, failed or rejected.
func (s *State) Move(wave int, from, to Phase, n int) error { return nil }

// Join adds n targets of a dynamic job that began to match after it was laid
// out. They belong to the last wave, so that the waves before it protect them;
// the index of that wave is returned. Join on a job that is not laid out, not
// dynamic, ended or canceling is an error.
func (s *State) Join(n int) (wave int, err error) { return 0, nil }

// Retry puts n executions of a wave that ended in phase from (failed, timedOut,
// rejected, uncertain or canceled) back: they are PhaseRetrying, due at once. A
// job that had ended runs again; a paused one stays paused.
func (s *State) Retry(wave int, from Phase, n int) error { return nil }

// Approve lets a wave that asks for it begin. It may be said before it is the
// wave's turn, once, and not after the wave has begun.
func (s *State) Approve(p *Policy, wave int, by string, now time.Time) error { return nil }

// Pause stops the job from starting anything; reason is for people. A job that
// is paused, canceling or final can't be paused.
func (s *State) Pause(reason string) error { return nil }

// Resume lets a paused job go on. Whoever resumes accepts the outcomes and the
// health that made it pause.
func (s *State) Resume(p *Policy, now time.Time) error { return nil }

// Cancel ends the job: nothing starts any more, what waits is canceled, attempts
// on their way go on to their end. Final jobs can't be canceled; canceling again
// changes nothing.
func (s *State) Cancel(reason string) error { return nil }

// Fail is Cancel for a fault that the hub found, such as a condition that can't
// be evaluated: the job will be JobFailed.
func (s *State) Fail(reason string) error { return nil }
