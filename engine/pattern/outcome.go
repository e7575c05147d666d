package pattern

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Bounds of what programs say of themselves. Workers keep to them; what comes
// from one that does not is cut.
const (
	lineMost     = 256 // bytes of "pattern.lua:44"
	faultMost    = 2 << 10
	codeMost     = 64
	causeMost    = 16 << 10
	traceMost    = 32 // lines
	phaseMost    = 64
	progressMost = 256
)

// senseless says that an outcome is none that a program could have: whatever
// made it is out of order, and the run can't go on by it.
func (r *Run) senseless(o *Outcome) *Fault {
	wrong := func(format string, args ...any) *Fault {
		return &Fault{Code: FaultUnavailable, Message: "the worker's answer makes no sense: " + fmt.Sprintf(format, args...)}
	}
	switch {
	case o.Ending == EndSuspended && len(o.Steps) == 0:
		return wrong("it was suspended without a step")
	case o.Ending != EndSuspended && o.Ending != EndReturned && o.Ending != EndSkipped && o.Ending != EndFailed && o.Ending != EndDiverged:
		return wrong("an ending %s", quote(string(o.Ending)))
	case len(o.Steps) > MaxBatch:
		return wrong("%d new steps, at most %d", len(o.Steps), MaxBatch)
	case len(o.Result) > MaxValue:
		return tooBig("the result", len(o.Result), MaxValue)
	case !isJSON(o.Result):
		return wrong("its result is not JSON")
	case keptSize(o.Kept) > MaxKept:
		return tooBig("what the run keeps", keptSize(o.Kept), MaxKept)
	}
	for _, hot := range o.Hot {
		if len(o.Hot) > HotMost || len(hot.Line) > lineMost || !utf8.ValidString(hot.Line) || hot.Instructions < 0 {
			return wrong("its hot lines")
		}
	}
	for _, value := range o.Kept {
		if !isJSON(value) {
			return wrong("what it keeps is not JSON")
		}
	}
	own := r.Of(r.entry())
	deferred := len(own) > 0 && own[len(own)-1].Deferred || r.entry() == EntryRun && r.Cancel != nil
	for i := range o.Steps {
		switch s := &o.Steps[i]; {
		case deferred && !s.Deferred:
			return &Fault{Code: FaultNondeterministic, Message: fmt.Sprintf("step %d, %s, was taken although the run was to end", len(own)+i+1, clip(s.Op)), Line: cut(s.Line, lineMost)}
		case len(s.Op) > nameMost || len(s.Line) > lineMost || !utf8.ValidString(s.Op+s.Line):
			return wrong("step %d has no name or line", len(own)+i+1)
		case len(s.Args) > MaxValue:
			return tooBig("the arguments of "+s.Op, len(s.Args), MaxValue)
		case !isJSON(s.Args) || !isJSON(s.Result):
			return wrong("step %d, %s, is not JSON", len(own)+i+1, clip(s.Op))
		default:
			deferred = s.Deferred
		}
	}
	return nil
}

func isJSON(text json.RawMessage) bool { return len(text) == 0 || json.Valid(text) }

// bounded cuts what is too long in a fault; nil stays nil. A fault within the
// bounds is returned as it is.
func (f *Fault) bounded() *Fault {
	if f == nil || f.Code != "" && len(f.Code) <= codeMost && len(f.Message) <= faultMost && len(f.Line) <= lineMost &&
		len(f.Cause) <= causeMost && len(f.Payload) <= MaxValue && len(f.Trace) <= traceMost && isJSON(f.Cause) && isJSON(f.Payload) && f.fits() {
		return f
	}
	out := *f
	out.Code = FaultCode(cut(string(f.Code), codeMost))
	if out.Code == "" {
		out.Code = FaultLua
	}
	out.Message, out.Line = cut(f.Message, faultMost), cut(f.Line, lineMost)
	if len(f.Cause) > causeMost || !isJSON(f.Cause) {
		out.Cause = nil
	}
	if len(f.Payload) > MaxValue || !isJSON(f.Payload) {
		out.Payload = nil
	}
	out.Trace = nil
	for _, line := range f.Trace[:min(len(f.Trace), traceMost)] {
		out.Trace = append(out.Trace, cut(line, lineMost))
	}
	return &out
}

// fits reports whether the lines of the trace do.
func (f *Fault) fits() bool {
	for _, line := range f.Trace {
		if len(line) > lineMost {
			return false
		}
	}
	return true
}

// size is how many bytes the fault has as JSON, about.
func (f *Fault) size() int {
	n := len(f.Code) + len(f.Message) + len(f.Cause) + len(f.Payload) + len(f.Line) + 40
	for _, line := range f.Trace {
		n += len(line) + 3
	}
	return n
}

// bounded cuts what is too long in a report.
func (p Report) bounded() Report {
	return Report{Phase: cut(p.Phase, phaseMost), Progress: min(max(p.Progress, 0), 1), Text: cut(p.Text, progressMost), Follow: cut(p.Follow, pathMost)}
}

// cut cuts a text to so many bytes, at the end of a character.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
