package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	Result json.RawMessage            `json:"r,omitempty"`
	Fault  *Fault                     `json:"f,omitempty"` // why it is not Succeeded

	Cancel   *Fault `json:"x,omitempty"` // somebody wants it to end
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
	// waits for it no more.
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
// with the run.
func (r *Run) Fill(a *Activation) {
	a.Entry, a.Steps, a.Kept = r.entry(), r.Of(r.entry()), r.Kept
	if r.entry() == EntryRun {
		a.Cancel, a.CancelAt = r.Cancel, r.CancelAt
	}
}

// Take takes over what an activation of the run did. Each new step is performed
// or begun on w, if grants allow it; what the manifest does not declare is a
// fault that the program finds where the call is. Only a run that is Ready may
// be taken further: an error otherwise.
func (r *Run) Take(o *Outcome, w World, grants Needs, now time.Time) error {
	if r.State != Ready {
		return fmt.Errorf("the run is %s, not ready", r.State)
	}
	if o.Ending == EndSuspended && len(o.Steps) == 0 {
		return errors.New("an activation was suspended without a step")
	}
	r.Cost.add(o.Cost)
	for i := range o.Steps {
		goesOn, err := r.take(&o.Steps[i], w, grants, now)
		if err != nil {
			return err
		}
		if goesOn || i == len(o.Steps)-1 && o.Ending == EndSuspended {
			continue
		}
		return nil // the steps behind it, and the end, are found again
	}
	r.Report = o.Report
	if o.Kept != nil {
		r.Kept = maps.Clone(o.Kept)
	}
	r.log(o.Logs, now)
	if o.Ending != EndSuspended {
		return r.end(o)
	}
	return nil
}

// take puts one new step into the journal; goesOn says that what the program did
// behind it counts.
func (r *Run) take(s *Step, w World, grants Needs, now time.Time) (goesOn bool, err error) {
	step := *s
	step.Entry, step.Open, step.Begun, step.Ended, step.Tries = r.Entry, false, now, now, 1
	op, known := Find(step.Op)
	answer := Answer{}
	switch full := r.full(&step); {
	case full != nil:
		answer.Fault = full
	case !known:
		answer.Fault = &Fault{Code: FaultUnavailable, Message: fmt.Sprintf("this hub has no operation %q", step.Op)}
	default:
		if answer.Fault = grants.refuse(op, step.Args); answer.Fault != nil {
			break
		}
		if op.Way == Local {
			answer.Result, answer.Fault = s.Result, s.Fault
			break
		}
		if answer, err = w.Begin(r, &step); err != nil {
			return false, err
		}
	}
	step.Result, step.Fault, step.Open, step.Due, step.Ref = answer.Result, answer.Fault, answer.Open, answer.Due, answer.Ref
	if len(step.Result) > MaxValue {
		step.Result, step.Fault = nil, tooBig(op.Name, len(step.Result))
	}
	if step.Open {
		step.Ended = time.Time{}
		r.State = Waiting
	}
	r.push(step)
	// Behind a local step the program went on with the very answer that it gave.
	return op.Way == Local && step.Fault == s.Fault || op.Way == Assumed && step.Fault == nil, nil
}

func tooBig(op string, n int) *Fault {
	return &Fault{Code: FaultTooBig, Message: fmt.Sprintf("what %s gave has %d bytes, at most %d are kept", op, n, MaxValue)}
}

func (r *Run) push(s Step) {
	size := r.Size()
	r.Steps = append(r.Steps, s)
	r.bytes = size + sizeOf(&s)
}

// Size is how many bytes the journal has, about.
func (r *Run) Size() int {
	if r.bytes == 0 {
		for i := range r.Steps {
			r.bytes += sizeOf(&r.Steps[i])
		}
	}
	return r.bytes
}

func sizeOf(s *Step) int { return len(s.Args) + len(s.Result) + len(s.Op) + len(s.Line) + 80 }

// full says why the journal can't take a step; nil: it can. The last step of a
// full journal is the fault itself, so that a program may still clean up after
// it: deferred functions have a tenth more.
func (r *Run) full(s *Step) *Fault {
	steps, bytes := MaxSteps, MaxJournal
	if s.Deferred || r.entry() == EntryUndo {
		steps, bytes = steps+steps/10, bytes+bytes/10
	}
	switch {
	case len(r.Of(r.entry())) >= steps:
		return &Fault{Code: FaultJournalFull, Message: fmt.Sprintf("the run has taken %d steps, as many as it may (budget: steps)", steps)}
	case r.Size()+sizeOf(s) > bytes:
		return &Fault{Code: FaultJournalFull, Message: fmt.Sprintf("the run's journal would have more than %d bytes (budget: journal)", bytes)}
	}
	return nil
}

func (r *Run) log(lines []LogLine, now time.Time) {
	for _, l := range lines {
		l.Time = now
		r.Logs = append(r.Logs, l)
	}
	if n := len(r.Logs) - MaxLogs; n > 0 {
		r.Logs = slices.Delete(r.Logs, 0, n)
	}
}

// end ends the run as its last activation did.
func (r *Run) end(o *Outcome) error {
	undo := r.entry() == EntryUndo
	switch o.Ending {
	case EndReturned:
		r.State = Succeeded
		if undo {
			r.State = Undone
		} else {
			r.Result = o.Result
		}
	case EndSkipped:
		r.State, r.Result = Skipped, o.Result
	case EndFailed, EndDiverged:
		r.State, r.Fault = Failed, o.Fault
		if r.Fault == nil {
			r.Fault = &Fault{Code: FaultLua, Message: "the program failed without a word"}
		}
		if r.Fault.Code == FaultUncertain && !undo {
			r.State = Uncertain
		}
	default:
		return fmt.Errorf("an activation ended as %q", o.Ending)
	}
	if undo {
		return nil
	}
	if r.Cancel != nil && r.State != Skipped {
		r.State, r.Fault = Canceled, r.Cancel
	}
	if r.Undo {
		r.beginUndo()
	}
	return nil
}

// Fail ends the run: the program can't be run any further.
func (r *Run) Fail(f *Fault) {
	r.State, r.Fault = Failed, f
}

// Settle brings the answer of the open step with this Ref; it reports whether
// the run waited for it.
func (r *Run) Settle(ref string, result json.RawMessage, f *Fault, now time.Time) bool {
	s := r.Open()
	if s == nil || s.Ref != ref {
		return false
	}
	if len(result) > MaxValue {
		result, f = nil, tooBig(s.Op, len(result))
	}
	r.close(s, result, f, now)
	return true
}

func (r *Run) close(s *Step, result json.RawMessage, f *Fault, now time.Time) {
	r.Size()
	s.Open, s.Result, s.Fault, s.Ended, s.Due = false, result, f, now, time.Time{}
	r.bytes += len(result)
	r.State = Ready
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
	if err := w.Withdraw(r, s); err != nil {
		return false, err
	}
	r.close(s, nil, &Fault{Code: FaultTimeout, Message: fmt.Sprintf("%s: not within %s", s.Op, s.Due.Sub(s.Begun).Round(time.Second))}, now)
	return true, nil
}

// Stop asks a run to end: what it waits for is withdrawn, and the program finds
// the fault FaultCanceled there, and at each further step; deferred functions
// run. One that never began ends at once. undo has an undo follow, if the
// program has one. A run that has ended is left as it is.
func (r *Run) Stop(w World, why string, undo bool, now time.Time) error {
	switch {
	case r.State.Final() || r.Cancel != nil || r.entry() == EntryUndo:
		return nil
	case r.State == Queued || r.Cost.Activations == 0:
		r.State, r.Fault = Canceled, &Fault{Code: FaultCanceled, Message: why}
		return nil
	}
	fault := &Fault{Code: FaultCanceled, Message: why}
	if s := r.Open(); s != nil {
		if err := w.Withdraw(r, s); err != nil {
			return err
		}
		r.close(s, nil, fault, now)
	}
	r.Cancel, r.CancelAt, r.Undo = fault, len(r.Of(EntryRun))+1, undo
	return nil
}

// Kill ends a run at once: no deferred function runs.
func (r *Run) Kill(w World, why string, now time.Time) error {
	if r.State.Final() {
		return nil
	}
	if s := r.Open(); s != nil {
		if err := w.Withdraw(r, s); err != nil {
			return err
		}
		r.close(s, nil, &Fault{Code: FaultCanceled, Message: why}, now)
	}
	r.State, r.Fault = Canceled, &Fault{Code: FaultCanceled, Message: why}
	return nil
}

// ErrUndo says that a run can't be undone now.
var ErrUndo = errors.New("only a run that has ended, took a step and was not undone can be undone")

// BeginUndo has the program's undo run, which the caller knows it has.
func (r *Run) BeginUndo() error {
	if !r.State.Final() || r.State == Undone || r.State == Skipped || len(r.Steps) == 0 {
		return ErrUndo
	}
	if r.entry() == EntryUndo { // it failed: again, from its top
		r.Steps, r.bytes = slices.Clone(r.Of(EntryRun)), 0
	}
	r.beginUndo()
	return nil
}

func (r *Run) beginUndo() {
	r.State, r.Entry, r.Undo, r.Fault, r.Report = Ready, EntryUndo, false, nil, Report{}
}

// Again returns a new run that goes on from a step of this one, as if that and
// those behind it had not been taken: 1 is from the start.
func (r *Run) Again(from int) (Run, error) {
	steps := r.Of(EntryRun)
	if from < 1 || from > len(steps)+1 {
		return Run{}, fmt.Errorf("the run has steps 1 to %d, not %d", len(steps), from)
	}
	return Run{State: Ready, Steps: slices.Clone(steps[:from-1]), Kept: maps.Clone(r.Kept)}, nil
}
