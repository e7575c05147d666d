package pattern

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// end ends the run as its last activation did.
func (r *Run) end(o *Outcome) {
	undo := r.entry() == EntryUndo
	fault := o.Fault.bounded()
	switch o.Ending {
	case EndReturned:
		if r.State = Undone; !undo {
			r.State, r.Result, r.Fault = Succeeded, o.Result, nil
		}
	case EndSkipped:
		if r.State = Undone; !undo {
			r.State, r.Result, r.Fault = Skipped, o.Result, nil
		}
	default:
		if fault == nil {
			fault = &Fault{Code: FaultLua, Message: "the program failed without a word"}
		}
		r.State, r.Fault = Failed, fault
		if fault.Code == FaultUncertain && !undo {
			r.State = Uncertain
		}
	}
	if undo {
		return
	}
	if r.Cancel != nil && r.State != Skipped && o.Ending != EndDiverged {
		r.canceled()
	}
	if r.Undo && len(r.Steps) > 0 {
		r.beginUndo()
	}
	r.Undo = false
}

// canceled is the end of a run that was to end.
func (r *Run) canceled() {
	if r.State, r.Fault = Canceled, r.Cancel; r.Cancel.Code != FaultCanceled {
		r.State = Failed // of its own fault, such as a full journal
	}
}

// Fail ends the run: the program can't be run any further. What it waits for, if
// it does, is not withdrawn.
func (r *Run) Fail(f *Fault) {
	f = f.bounded()
	if s := r.Open(); s != nil {
		r.close(s, nil, f, s.Begun)
	}
	r.State, r.Fault, r.Undo = Failed, f, false
}

// Stop asks a run to end: what it waits for is withdrawn, and the program finds
// the fault FaultCanceled there, and at each further step; deferred functions
// run. One that never began ends at once, and one whose deferred functions run
// already is left to them: [Run.Kill] ends it. undo has an undo follow, if the
// program has one. A run that has ended, or is being undone, is left as it is.
func (r *Run) Stop(w World, why string, undo bool, now time.Time) error {
	fault := &Fault{Code: FaultCanceled, Message: why}
	if r.State.Final() || r.entry() == EntryUndo {
		return nil
	}
	if r.State == Queued || r.Cost.Activations == 0 && len(r.Steps) == 0 {
		r.State, r.Fault = Canceled, fault
		return nil
	}
	r.Undo = r.Undo || undo
	if n := len(r.Steps); r.Cancel != nil || n > 0 && r.Steps[n-1].Deferred {
		return nil // it ends already
	}
	if err := r.withdraw(w, fault, now); err != nil {
		return err
	}
	r.Cancel, r.CancelAt = fault, len(r.Of(EntryRun))+1
	return nil
}

// Kill ends a run at once: no deferred function runs, and no undo.
func (r *Run) Kill(w World, why string, now time.Time) error {
	if r.State.Final() {
		return nil
	}
	fault := &Fault{Code: FaultCanceled, Message: why}
	if err := r.withdraw(w, fault, now); err != nil {
		return err
	}
	r.State, r.Fault, r.Undo = Canceled, fault, false
	return nil
}

// ErrUndo says that a run can't be undone now.
var ErrUndo = errors.New("only a run that has ended, took a step and was not undone can be undone")

// BeginUndo has the program's undo run, which the caller knows it has. One that
// failed before begins again from its top.
func (r *Run) BeginUndo() error {
	if !r.State.Final() || r.State == Undone || r.State == Skipped || len(r.Of(EntryRun)) == 0 {
		return ErrUndo
	}
	if r.entry() == EntryUndo {
		r.Steps, r.bytes = slices.Clone(r.Of(EntryRun)), 0
	}
	r.beginUndo()
	return nil
}

func (r *Run) beginUndo() { r.State, r.Entry, r.Undo, r.Report = Ready, EntryUndo, false, Report{} }

// Again returns a new run that goes on from a step of this one, as if that and
// those behind it had not been taken: 1 is from the start. The run must have
// ended, and steps of deferred functions are none to go on from.
func (r *Run) Again(from int) (Run, error) {
	if !r.State.Final() {
		return Run{}, fmt.Errorf("the run is %s: it has not ended", r.State)
	}
	steps := r.Of(EntryRun)
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Deferred }); i >= 0 {
		steps = steps[:i]
	}
	if from < 1 || from > len(steps)+1 {
		return Run{}, fmt.Errorf("the run can go on from steps 1 to %d, not %d", len(steps)+1, from)
	}
	return Run{State: Ready, Steps: slices.Clone(steps[:from-1])}, nil
}
