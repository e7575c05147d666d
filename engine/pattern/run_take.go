package pattern

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Take takes over what an activation of the run did. Each new step is performed
// or begun on w, if grants allow it; what the manifest does not declare is a
// fault that the program finds where the call is. Only a run that is Ready may
// be taken further: an error otherwise. An outcome that no program could have
// ends the run.
func (r *Run) Take(o *Outcome, w World, grants Needs, now time.Time) error {
	if r.State != Ready {
		return fmt.Errorf("the run is %s, not ready", r.State)
	}
	r.Cost.add(o.Cost)
	if f := r.senseless(o); f != nil {
		r.Fail(f)
		return nil
	}
	r.Hot = AddHot(r.Hot, o.Hot, HotMost)
	r.keep(o.Kept)
	for i := range o.Steps {
		next, err := r.take(&o.Steps[i], w, grants, now)
		if err != nil {
			return err
		}
		if next == goesOn || next == stops && i == len(o.Steps)-1 && o.Ending == EndSuspended {
			continue
		}
		// The steps behind it, and the end, are found again, and so are lines that
		// were written behind the last step.
		most := len(r.Of(r.entry()))
		if !r.State.Final() {
			most--
		}
		r.log(o.Logs, most, now)
		return nil
	}
	r.Report = o.Report.bounded()
	r.log(o.Logs, len(r.Of(r.entry())), now)
	if o.Ending != EndSuspended {
		r.end(o)
	}
	return nil
}

// afterStep is how an activation goes on behind a step that was taken.
type afterStep uint8

const (
	goesOn  afterStep = iota // with what the program did
	stops                    // it is to be activated again, or the run waits
	refused                  // the step was not taken: the run is canceled or has ended
)

// take puts one new step into the journal.
func (r *Run) take(s *Step, w World, grants Needs, now time.Time) (afterStep, error) {
	step := *s
	step.Entry, step.Open, step.Begun, step.Ended, step.Tries = r.Entry, false, now, now, 1
	step.Due, step.Ref, step.Result, step.Fault = time.Time{}, "", nil, nil
	if full := r.full(&step); full != nil {
		r.overflow(full, step.Deferred)
		return refused, nil
	}
	op, known := Find(step.Op)
	answer := Answer{}
	var err error
	if !known {
		answer.Fault = &Fault{Code: FaultUnavailable, Message: fmt.Sprintf("this hub has no operation %q", step.Op)}
	} else if answer.Fault = grants.refuse(op, step.Args); answer.Fault == nil {
		if op.Way == Local {
			answer.Result, answer.Fault = s.Result, s.Fault
		} else if answer, err = w.Begin(r, &step); err != nil {
			return stops, err
		}
	}
	if answer.Open {
		step.Open, step.Due, step.Ref, step.Ended = true, answer.Due, answer.Ref, time.Time{}
		r.State = Waiting
	} else {
		step.answer(answer.Result, answer.Fault)
	}
	size := r.Size()
	r.Steps = append(r.Steps, step)
	r.bytes = size + sizeOf(&step)
	// Behind a local step the program went on with the very answer that it gave.
	if op.Way == Local && step.Fault == s.Fault || op.Way == Assumed && !step.Open && step.Fault == nil {
		return goesOn, nil
	}
	return stops, nil
}

// answer is what the step gave, bounded.
func (s *Step) answer(result json.RawMessage, f *Fault) {
	if len(result) > MaxValue {
		result, f = nil, tooBig("what "+s.Op+" gave", len(result), MaxValue)
	}
	s.Result, s.Fault = result, f.bounded()
}

func tooBig(what string, n, most int) *Fault {
	return &Fault{Code: FaultTooBig, Message: fmt.Sprintf("%s has %d bytes, at most %d are kept", what, n, most)}
}

// Size is how many bytes the journal has, about.
func (r *Run) Size() int {
	if r.bytes == 0 {
		r.bytes = sizeOfAll(r.Steps)
	}
	return r.bytes
}

func sizeOfAll(steps []Step) int {
	n := 0
	for i := range steps {
		n += sizeOf(&steps[i])
	}
	return n
}

func sizeOf(s *Step) int {
	n := len(s.Args) + len(s.Result) + len(s.Op) + len(s.Line) + len(s.Ref) + 80
	if s.Fault != nil {
		n += s.Fault.size()
	}
	return n
}

// full says why the journal can't take a step; nil: it can. Deferred functions
// have a tenth more, to clean up, and undo has a journal of its own.
func (r *Run) full(s *Step) *Fault {
	steps, bytes := MaxSteps, MaxJournal
	if s.Deferred {
		steps, bytes = steps+steps/10, bytes+bytes/10
	}
	own, size := r.Of(r.entry()), r.Size()
	if len(own) < len(r.Steps) {
		size = sizeOfAll(own)
	}
	switch {
	case len(own) >= steps:
		return &Fault{Code: FaultJournalFull, Message: fmt.Sprintf("the run has taken %d steps, as many as it may (budget: steps)", steps)}
	case size+sizeOf(s) > bytes:
		return &Fault{Code: FaultJournalFull, Message: fmt.Sprintf("the run's journal would have more than %d bytes (budget: journal)", bytes)}
	}
	return nil
}

// overflow has the program find that its journal is full: at this step, which is
// not taken, and at each further one, so that nothing grows while it ends.
// Deferred functions may still clean up. Where they or an undo need too much,
// the run ends.
func (r *Run) overflow(full *Fault, deferred bool) {
	if deferred || r.entry() == EntryUndo {
		r.Fail(full)
		return
	}
	r.Cancel, r.CancelAt = full, len(r.Of(EntryRun))+1
}

// keep takes over what the program keeps. What it kept before stays: undo may
// need it whatever an activation was cut off by.
func (r *Run) keep(kept map[string]json.RawMessage) {
	if len(kept) == 0 || r.entry() == EntryUndo {
		return // an undo keeps again what it kept when it is replayed
	}
	all := make(map[string]json.RawMessage, len(r.Kept)+len(kept))
	maps.Copy(all, r.Kept)
	maps.Copy(all, kept)
	if keptSize(all) > MaxKept {
		all = maps.Clone(kept)
	}
	r.Kept = all
}

func keptSize(kept map[string]json.RawMessage) int {
	n := 0
	for name, value := range kept {
		n += len(name) + len(value)
	}
	return n
}

// log appends the lines that were written when at most so many steps had been
// taken: those behind them are written again.
func (r *Run) log(lines []LogLine, most int, now time.Time) {
	for _, l := range lines[max(0, len(lines)-MaxLogs):] {
		if l.Step <= most {
			r.Logs = append(r.Logs, LogLine{Time: now, Step: l.Step, Line: cut(l.Line, lineMost), Text: cut(l.Text, MaxLogLine)})
		}
	}
	if n := len(r.Logs) - MaxLogs; n > 0 {
		r.Logs = slices.Delete(r.Logs, 0, n)
	}
}
