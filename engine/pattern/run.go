package pattern

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// State says how far a run is.
type State string

// The states. Those from Succeeded on are final, but an undo may follow them.
const (
	Queued    State = "queued"    // an earlier run on the device goes first
	Ready     State = "ready"     // to be activated
	Waiting   State = "waiting"   // for its open step
	Succeeded State = "succeeded" // returned
	Skipped   State = "skipped"   // the program found nothing to do
	Failed    State = "failed"    // of an undo too, when Run.Entry says so
	Uncertain State = "uncertain" // it failed since nobody knows what came of a command
	Canceled  State = "canceled"
	Undone    State = "undone"
)

// States are all of them, in the order in which a run may pass through them.
func States() []State {
	return []State{Queued, Ready, Waiting, Succeeded, Skipped, Failed, Uncertain, Canceled, Undone}
}

// Final reports whether nothing more happens by itself.
func (s State) Final() bool { return s != Queued && s != Ready && s != Waiting }

// Run is the state of one run of a program. It is the whole of it: what is not
// here is forgotten between two activations. It is for one goroutine at a time.
type Run struct {
	State State `json:"s"`
	Entry Entry `json:"e,omitempty"` // empty: EntryRun
	// Steps are the journal: those of EntryRun, then those of EntryUndo.
	Steps  []Step                     `json:"j,omitempty"`
	Kept   map[string]json.RawMessage `json:"k,omitempty"`
	Report Report                     `json:"p,omitzero"`
	Logs   []LogLine                  `json:"l,omitempty"`
	Cost   Cost                       `json:"c,omitzero"`
	Hot    []HotLine                  `json:"h,omitempty"` // of all its activations
	Result json.RawMessage            `json:"r,omitempty"`
	Fault  *Fault                     `json:"f,omitempty"` // why it is not Succeeded; of an undone one, why it was not before

	// Cancel is raised by each step of run from number CancelAt on that no deferred
	// function makes: somebody wants the run to end, or its journal is full.
	Cancel   *Fault `json:"x,omitempty"`
	CancelAt int    `json:"xn,omitempty"`
	Undo     bool   `json:"u,omitempty"` // an undo follows the end

	bytes int // of Steps as JSON, known once it was counted
}

// Answer is what a World gives for a step.
type Answer struct {
	Result json.RawMessage
	Fault  *Fault
	Open   bool      // neither yet: Run.Settle brings it
	Due    time.Time // with Open: when the step ends by itself; zero: never
	Ref    string    // with Open: what the World calls it
}

// World is what the steps of a run act on: a transaction of the engine, or fake
// devices. An error of its methods is the World's own and ends Take, whose
// changes must then be dropped; what a program is to know comes as a Fault.
type World interface {
	// Begin performs a step, or begins it.
	Begin(r *Run, s *Step) (Answer, error)
	// Withdraw takes back what Begin began, as far as that is possible: the run
	// waits for it no more. It may set the step's Fault to what is known of it, such
	// as FaultUncertain when it was sent already; the program finds that then.
	Withdraw(r *Run, s *Step) error
}

// entry is the entry of the run.
func (r *Run) entry() Entry {
	if r.Entry == "" {
		return EntryRun
	}
	return r.Entry
}

// Open returns the step that the run waits for, nil when it waits for none.
func (r *Run) Open() *Step {
	if r.State != Waiting || len(r.Steps) == 0 || !r.Steps[len(r.Steps)-1].Open {
		return nil
	}
	return &r.Steps[len(r.Steps)-1]
}

// Due is when the run goes on by itself; zero: not before something is told to
// it.
func (r *Run) Due() time.Time {
	if s := r.Open(); s != nil {
		return s.Due
	}
	return time.Time{}
}

// Of returns the steps of an entry, oldest first.
func (r *Run) Of(e Entry) []Step {
	first := slices.IndexFunc(r.Steps, func(s Step) bool { return s.entry() == e })
	if first < 0 {
		return nil
	}
	last := first
	for last < len(r.Steps) && r.Steps[last].entry() == e {
		last++
	}
	return r.Steps[first:last]
}

// Fill puts into an activation what it must know of the run. It shares memory
// with the run. What run kept is for undo: run itself keeps it again each time
// that it is replayed, and must not find what it will keep later.
func (r *Run) Fill(a *Activation) {
	a.Entry, a.Steps = r.entry(), r.Of(r.entry())
	if r.entry() == EntryRun {
		a.Cancel, a.CancelAt = r.Cancel, r.CancelAt
	} else {
		a.Kept = r.Kept
	}
}

// Settle brings the answer of the open step with this Ref; it reports whether
// the run waited for it.
func (r *Run) Settle(ref string, result json.RawMessage, f *Fault, now time.Time) bool {
	s := r.Open()
	if s == nil || ref == "" || s.Ref != ref {
		return false
	}
	r.close(s, result, f, now)
	return true
}

// close ends the open step.
func (r *Run) close(s *Step, result json.RawMessage, f *Fault, now time.Time) {
	r.bytes = r.Size() - sizeOf(s)
	s.Open, s.Ended, s.Due = false, now, time.Time{}
	s.answer(result, f)
	r.bytes += sizeOf(s)
	r.State = Ready
}

// withdraw ends the open step, if there is one, since the run waits for it no
// more.
func (r *Run) withdraw(w World, f *Fault, now time.Time) error {
	s := r.Open()
	if s == nil {
		return nil
	}
	if err := w.Withdraw(r, s); err != nil {
		return err
	}
	if s.Fault != nil {
		f, s.Fault = s.Fault, nil
	}
	r.close(s, nil, f, now)
	return nil
}

// Expire ends the open step if its time has come; it reports whether it did. For
// some that is how they end; for others it is a fault, and w takes back what was
// begun.
func (r *Run) Expire(w World, now time.Time) (bool, error) {
	s := r.Open()
	if s == nil || s.Due.IsZero() || now.Before(s.Due) {
		return false, nil
	}
	op, _ := Find(s.Op)
	if op.Timer {
		r.close(s, nil, nil, now)
		return true, nil
	}
	late := &Fault{Code: FaultTimeout, Message: fmt.Sprintf("%s: not within %s", s.Op, s.Due.Sub(s.Begun).Round(time.Second))}
	return true, r.withdraw(w, late, now)
}
