package scenario

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// crash repeats a test once for each point at which a crash of the hub makes a
// difference, with a crash there. These points are:
//
//   - an activation has ended, and what it did is not stored: it is lost, and the
//     program runs again;
//   - it was stored, and nothing was sent: what is to be sent is sent once, by the
//     hub that comes after;
//   - a call or a request was about to be sent, or the device had taken it and
//     the answer was lost: nobody knows, and the step ends as uncertain unless it
//     may be repeated;
//   - an answer was stored, and the program has not run again.
//
// A repetition must come to the same as the test without a crash: the same
// results, the same twins, and the same calls, requests and messages, each once.
// Where the crash has made a step uncertain, or a command that may be repeated
// was taken twice, that can't be asked for; see attempt.settle.
//
// The repetitions know nothing of one another, and are done side by side. The
// failure is that of the first point that has one.
func (r *runner) crash(ctx context.Context, s *script, n int, plain *attempt) (*Failure, int, error) {
	wanted, ends := plain.observed(), plain.runEnds()
	attempts := make([]*attempt, len(plain.points))
	failures := make([]*Failure, len(plain.points))
	errs := make([]error, len(plain.points))
	var next, last atomic.Int64
	last.Store(int64(len(plain.points))) // from there on nothing is of interest
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(plain.points)) {
		workers.Go(func() {
			for {
				at := next.Add(1) - 1
				if at >= last.Load() || ctx.Err() != nil {
					return
				}
				l := r.lab(ctx)
				l.crashAt = int(at)
				a, err := perform(ctx, s, n, l, r.find)
				if err == nil {
					attempts[at] = a
					failures[at] = a.judge(plain.points[at], wanted, ends)
				}
				if errs[at] = err; err == nil && failures[at] == nil {
					continue
				}
				for old := last.Load(); at < old && !last.CompareAndSwap(old, at); old = last.Load() {
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	for at, a := range attempts {
		if errs[at] != nil {
			return nil, at, errs[at]
		}
		r.cover(a)
		if f := failures[at]; f != nil {
			f.Crash, f.Runs = plain.points[at], a.traces()
			return f, at + 1, nil
		}
	}
	return nil, len(plain.points), nil
}

// judge says what is wrong with an attempt that crashed; nil: nothing.
func (a *attempt) judge(point string, wanted, wantedEnds []string) *Failure {
	switch {
	case a.failure != nil:
		return a.failure
	case a.crashed == "":
		return &Failure{Message: fmt.Sprintf("the test does not do the same each time: it did not come to %s again", point)}
	case a.unsure != nil:
		return nil
	case a.repeated:
		return a.judgeEnds(wantedEnds)
	}
	got := a.observed()
	if d := diffLines(wanted, got); strings.Join(wanted, "\n") != strings.Join(got, "\n") {
		return &Failure{Message: "with a crash the test comes to something else (- without, + with it)", Diff: strings.Join(d, "\n"), Place: a.placeOfLast()}
	}
	return nil
}

// judgeEnds looks only at how the runs ended.
func (a *attempt) judgeEnds(wanted []string) *Failure {
	got := a.runEnds()
	if strings.Join(wanted, "\n") == strings.Join(got, "\n") {
		return nil
	}
	return &Failure{
		Message: "with a crash after which a command was repeated, as it may be, the runs end in another way (- without, + with it)",
		Diff:    strings.Join(diffLines(wanted, got), "\n"), Place: a.placeOfLast(),
	}
}

// runEnds is how each run ended.
func (a *attempt) runEnds() []string {
	var list []string
	for _, r := range a.hub.memory.Runs {
		line := fmt.Sprintf("run %s of %s on %q: %s %s", r.ID, r.Pattern, r.Device, r.State.State, canonical(r.State.Result))
		if f := r.State.Fault; f != nil {
			line += fmt.Sprintf(" %s: %s", f.Code, f.Message)
		}
		list = append(list, line)
	}
	return list
}

// placeOfLast is the line of the last step of the run that was started last.
func (a *attempt) placeOfLast() string {
	r := a.hub.memory.run(a.last)
	if r == nil || len(r.State.Steps) == 0 {
		return ""
	}
	return r.State.Steps[len(r.State.Steps)-1].Line
}

// observed is all that a test came to, a line for each thing.
func (a *attempt) observed() []string {
	list := append([]string(nil), a.effects...)
	for _, r := range a.hub.memory.Runs {
		end := fmt.Sprintf("run %s of %s on %q: %s, phase %q, after %s", r.ID, r.Pattern, r.Device, r.State.State, r.State.Report.Phase, a.took(r))
		list = append(list, end)
		if len(r.State.Result) > 0 {
			list = append(list, "  result "+canonical(r.State.Result))
		}
		if f := r.State.Fault; f != nil {
			list = append(list, fmt.Sprintf("  fault %s: %s (%s)", f.Code, f.Message, f.Line))
		}
		for n := range r.State.Steps {
			s := &r.State.Steps[n]
			line := fmt.Sprintf("  step %d %s %s (%s)", n+1, s.Op, canonical(s.Args), s.Line)
			switch {
			case s.Fault != nil:
				line += fmt.Sprintf(" -> %s: %s", s.Fault.Code, s.Fault.Message)
			case s.Open:
				line += " is open"
			default:
				line += " -> " + canonical(s.Result)
			}
			list = append(list, line)
		}
	}
	for _, id := range sortedKeys(a.hub.memory.Twins) {
		i := a.hub.memory.Twins[id]
		list = append(list, fmt.Sprintf("device %s is %s %q", id, i.Status, i.Reason))
		for n := range i.sections {
			list = append(list, fmt.Sprintf("  %s, version %d: %s", section(n), i.sections[n].Version(), canonical(i.plain(n))))
		}
	}
	for _, key := range sortedKeys(a.hub.memory.Values) {
		list = append(list, fmt.Sprintf("value %q: %s", key, canonical(a.hub.memory.Values[key])))
	}
	return list
}
