package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// attempt is one attempt at one test: its Lua and its lab.
type attempt struct {
	*lab
	lua     *lua.LState
	find    func(name string) (*loaded, error)
	last    string   // the run that was started last
	failure *Failure // the first one
	skip    string
	// ends is what a test says of its runs when a command has come to be uncertain.
	ends *ending
}

// ending is how the runs of a test may end.
type ending struct {
	states []string
	check  *lua.LFunction
}

// failed is a failure on its way through Lua.
type failed struct{ *Failure }

// Error implements error.
func (f failed) Error() string { return f.Message }

// skipped ends a test that is not to be run.
type skipped string

// Error implements error.
func (s skipped) Error() string { return string(s) }

// fail ends the test.
func (a *attempt) fail(l *lua.LState, level int, message, diff string) {
	f := &Failure{Message: message, Place: where(l, level), Diff: diff}
	if a.failure == nil {
		a.failure = f
	}
	raised(l, failed{f})
}

// check ends the test if there was an error.
func (a *attempt) check(l *lua.LState, err error) {
	if err != nil {
		f := a.failureOf(err)
		if f.Place == "" {
			f.Place = where(l, 1)
		}
		if a.failure == nil {
			a.failure = f
		}
		raised(l, failed{f})
	}
}

// failureOf makes a failure of any error.
func (a *attempt) failureOf(err error) *Failure {
	if f, ok := errors.AsType[failed](err); ok {
		return f.Failure
	}
	if d, ok := errors.AsType[*divergence](err); ok {
		text, diff, _ := strings.Cut(d.text, "\n")
		return &Failure{Message: text, Place: d.place, Diff: diff}
	}
	if api, ok := errors.AsType[*lua.ApiError](err); ok {
		text, trace, cause := unraised(api)
		if cause != nil {
			return a.failureOf(cause)
		}
		place, message := splitPlace(text)
		return &Failure{Message: message, Place: place, Trace: trace}
	}
	return &Failure{Message: err.Error()}
}

// splitPlace takes the place from before a message of Lua.
func splitPlace(text string) (place, message string) {
	first, rest, ok := strings.Cut(text, ": ")
	file, line, numbered := strings.Cut(first, ":")
	if !ok || !numbered || !strings.HasSuffix(file, ".lua") || strings.Trim(line, "0123456789") != "" {
		return "", text
	}
	return first, rest
}

// script is a file of tests.
type script struct {
	path  string
	proto *lua.FunctionProto
}

// declared is a test that a file declares.
type declared struct {
	name string
	file string
	line int
	fn   *lua.LFunction
}

// load runs a file of tests and returns those that it declares.
func load(ctx context.Context, s *script) (*lua.LState, []declared, error) {
	l := newState(ctx)
	openJSON(l)
	var list []declared
	l.SetGlobal("test", l.NewFunction(func(l *lua.LState) int {
		d := declared{name: l.CheckString(1), file: s.path, fn: l.CheckFunction(2)}
		if slices.ContainsFunc(list, func(o declared) bool { return o.name == d.name }) {
			l.RaiseError("there are two tests %q", d.name)
		}
		_, _ = fmt.Sscanf(strings.TrimPrefix(where(l, 1), s.path+":"), "%d", &d.line) // 0 if Lua does not know
		list = append(list, d)
		return 0
	}))
	lockGlobals(l)
	if _, err := protect(l, l.NewFunctionFromProto(s.proto), 0); err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, list, nil
}

// lockGlobals has reads of names that nobody has set, and new globals, be errors.
func lockGlobals(l *lua.LState) {
	meta := l.NewTable()
	meta.RawSetString("__index", l.NewFunction(func(l *lua.LState) int {
		l.RaiseError("%s", orElse(pattern.MissingGlobal(l.CheckAny(2).String()), fmt.Sprintf("global %q does not exist here", l.CheckAny(2).String())))
		return 0
	}))
	meta.RawSetString("__newindex", l.NewFunction(func(l *lua.LState) int {
		l.RaiseError("%s", orElse(pattern.AssignedGlobal(l.CheckAny(2).String()), fmt.Sprintf("assignment to global %q: write 'local %s' instead", l.CheckAny(2).String(), l.CheckAny(2).String())))
		return 0
	}))
	if g, ok := l.Get(lua.GlobalsIndex).(*lua.LTable); ok {
		g.Metatable = meta
	}
}

func orElse(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// perform runs the n-th test of a file once, in a lab of its own. An error has
// nothing to do with the test.
func perform(ctx context.Context, s *script, n int, lab *lab, find func(string) (*loaded, error)) (*attempt, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTime, fmt.Errorf("the test took longer than %s", attemptTime))
	defer cancel()
	lab.ctx = ctx
	l, list, err := load(ctx, s)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	a := &attempt{lab: lab, lua: l, find: find}
	_, err = protect(l, list[n].fn, 0, a.bind())
	var skip skipped
	switch {
	case err != nil && isSkipped(err, &skip):
		a.skip = string(skip)
		return a, nil
	case err != nil && a.failure == nil:
		a.failure = a.failureOf(err)
	}
	if a.unsure != nil || a.repeated {
		a.settle()
	}
	return a, nil
}

func isSkipped(err error, skip *skipped) bool {
	_, _, cause := unraised(err)
	s, ok := errors.AsType[skipped](cause)
	*skip = s
	return ok
}

// settle judges an attempt in which the crash has left a command uncertain, or
// had the hub send again what may be: what the test says of the usual way does
// not count then. Its runs must come to an end. After an uncertain command they
// must not give that again, and end as the test allows.
func (a *attempt) settle() {
	if f := a.failure; f != nil && strings.Contains(f.Message, "did not do the same") {
		return
	}
	a.failure = nil
	err := a.advance(a.now.Add(pattern.MaxRun), func() bool {
		return !slices.ContainsFunc(a.hub.memory.Runs, func(r *run) bool { return !r.State.State.Final() })
	})
	if err != nil && !errors.Is(err, errStuck) {
		a.failure = a.failureOf(err)
		return
	}
	if a.unsure == nil {
		return
	}
	if a.twice != "" && !a.unsure.idempotent {
		a.failure = &Failure{
			Message: fmt.Sprintf("the program gives a command again of which nobody knows whether it took effect: %s\nLook first at what the device reports, or say idempotent = true if a repetition does no harm.", a.unsure.what),
			Place:   a.twice,
		}
		return
	}
	r := a.hub.memory.run(a.unsure.run)
	if f := r.State.Fault; f != nil && (f.Code == pattern.FaultLua || f.Code == pattern.FaultNondeterministic) && r.State.State == pattern.Failed {
		a.failure = &Failure{Message: fmt.Sprintf("after %s was uncertain the program failed by an error of its own: %s", a.unsure.what, f.Message), Place: f.Line, Trace: f.Trace}
		return
	}
	if a.ends == nil {
		return
	}
	if len(a.ends.states) > 0 && !slices.Contains(a.ends.states, string(r.State.State)) {
		a.failure = &Failure{Message: fmt.Sprintf("after %s was uncertain the run ended as %s%s; t:uncertain says %s", a.unsure.what, r.State.State, because(r.State.Fault), strings.Join(a.ends.states, " or "))}
	}
	if a.ends.check != nil {
		if _, err := protect(a.lua, a.ends.check, 0, a.bindRun(r.ID)); err != nil && a.failure == nil {
			a.failure = a.failureOf(err)
		}
	}
}

func because(f *pattern.Fault) string {
	if f == nil {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", f.Code, f.Message)
}

// await does what is due until a run has ended.
func (a *attempt) await(id string) error {
	err := a.advance(time.Time{}, func() bool { return a.hub.memory.run(id).State.State.Final() })
	if errors.Is(err, errStuck) {
		r := a.hub.memory.run(id)
		what := string(r.State.State)
		if s := r.State.Open(); s != nil {
			what = "waits in " + describe(len(r.State.Steps), s)
		}
		return fmt.Errorf("the run %s %s, and nothing is left to happen", id, what)
	}
	if err == nil { // what happens at the very moment of the end
		err = a.advance(a.now, nil)
	}
	return err
}

// traces tells of all runs of the attempt.
func (a *attempt) traces() []Trace {
	var list []Trace
	for _, r := range a.hub.memory.Runs {
		list = append(list, Trace{
			ID: r.ID, Pattern: r.Pattern, Device: r.Device, State: r.State.State, Report: r.State.Report, Steps: r.State.Steps, Logs: r.State.Logs,
			Result: r.State.Result, Fault: r.State.Fault, Cost: r.State.Cost, Hot: r.State.Hot, Started: r.Started, Ended: r.Ended,
		})
	}
	return list
}
