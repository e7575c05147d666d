package scripting

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

type jsonText = json.RawMessage

// raise raises a fault as the table that programs see. It does not return.
func (x *execution) raise(l *lua.LState, f *pattern.Fault) int {
	l.Error(x.lib.faultTable(f), 0)
	return 0
}

// raisef raises a fault of a code.
func (x *execution) raisef(l *lua.LState, code pattern.FaultCode, format string, args ...any) int {
	return x.raise(l, &pattern.Fault{Code: code, Message: fmt.Sprintf(format, args...)})
}

// codeOf is the code of an error of encode.
func codeOf(err error) pattern.FaultCode {
	if _, ok := errors.AsType[tooBig](err); ok {
		return pattern.FaultTooBig
	}
	return pattern.FaultInvalid
}

// faultTable makes the table {code, message, status, cause, payload}.
func (lib *library) faultTable(f *pattern.Fault) *lua.LTable {
	t := newTable(5)
	t.Metatable = lib.faultMeta
	t.RawSetString("code", lua.LString(f.Code))
	t.RawSetString("message", lua.LString(f.Message))
	if f.Status != 0 {
		t.RawSetString("status", lua.LNumber(f.Status))
	}
	for name, text := range map[string][]byte{"cause": f.Cause, "payload": f.Payload} {
		if len(text) > 0 {
			if v, err := lib.decode(string(text)); err == nil {
				t.RawSetString(name, v)
			}
		}
	}
	return t
}

// failure is an error that nothing in the program has caught.
type failure struct {
	object lua.LValue
	trace  []string // "pattern.lua:44 in try", the innermost first
}

// protected calls a function of the program where nothing else runs; name is what
// a trace calls it.
func (x *execution) protected(fn *lua.LFunction, name string, args ...lua.LValue) (lua.LValue, *failure) {
	l := x.state
	x.running, x.nested = l, 0
	l.SetTop(0)
	l.Push(fn)
	for _, a := range args {
		l.Push(a)
	}
	if err := l.PCall(len(args), 2, nil); err != nil {
		f := x.failed(err, name)
		if x.over == overBudget && x.fault.Line == "" {
			if x.trace == nil {
				x.trace = f.trace
			}
			x.fault.Trace = x.trace
			x.fault.Line = lineOf(x.trace)
		}
		return lua.LNil, f
	}
	v := l.Get(1)
	x.second = l.Get(2)
	l.SetTop(0)
	return v, nil
}

// failed is what came out of a protected call of gopher-lua.
func (x *execution) failed(err error, name string) *failure {
	e, ok := err.(*lua.ApiError)
	if !ok {
		return &failure{object: lua.LString(err.Error())}
	}
	f := &failure{object: e.Object, trace: traceOf(e.StackTrace, name)}
	if e.Type == lua.ApiErrorPanic {
		f.object = lua.LString("the interpreter failed: " + e.Object.String())
	}
	if t, ok := f.object.(*lua.LTable); ok && x.origins[t] != nil {
		f.trace = x.origins[t] // it was caught and raised again
	}
	return f
}

// caught is what pcall gives for a failure: a table, whatever was raised.
func (f *failure) caught(x *execution) lua.LValue {
	if t, ok := f.object.(*lua.LTable); ok {
		if x.origins == nil {
			x.origins = map[*lua.LTable][]string{}
		}
		if x.origins[t] == nil && len(x.origins) < originsMost {
			x.origins[t] = f.trace
		}
		return t
	}
	t := x.lib.faultTable(f.fault(x))
	if x.origins == nil {
		x.origins = map[*lua.LTable][]string{}
	}
	if len(x.origins) < originsMost {
		x.origins[t] = f.trace
	}
	return t
}

const originsMost = 100 // errors that were caught, of which the line is remembered

// fault is a failure as it ends a run.
func (f *failure) fault(x *execution) *pattern.Fault {
	if x.over == overBudget && x.fault != nil {
		return x.fault
	}
	out := &pattern.Fault{Code: pattern.FaultLua, Trace: f.trace, Line: lineOf(f.trace)}
	switch v := f.object.(type) {
	case *lua.LTable:
		if code, ok := v.RawGetString("code").(lua.LString); ok && code != "" {
			out.Code = pattern.FaultCode(clip(valid(string(code)), 64))
		}
		if message := v.RawGetString("message"); message != lua.LNil {
			out.Message = clip(valid(show(message)), faultTextMost)
		}
		if status, ok := v.RawGetString("status").(lua.LNumber); ok && status >= 0 && status < 1<<31 {
			out.Status = int(status)
		}
		for name, to := range map[string]*json.RawMessage{"cause": &out.Cause, "payload": &out.Payload} {
			if member := v.RawGetString(name); member != lua.LNil {
				if text, err := encode(member, faultValueMost); err == nil {
					*to = text
				}
			}
		}
	case lua.LString:
		out.Code, out.Message = plain(string(v))
	default:
		out.Message = clip(show(v), faultTextMost)
	}
	if out.Message == "" {
		out.Message = "the program raised an error without a message"
	}
	return out
}

var (
	positionBefore = regexp.MustCompile(`^[\w./-]+\.lua:\d+: `)
	indexOf        = regexp.MustCompile(`^attempt to index a non-table object\((\w+)\) with key '(.*)'$`)
)

// plain makes what the interpreter says into a code and a message for people: its
// position stands in the fault's line.
func plain(text string) (pattern.FaultCode, string) {
	text = strings.TrimSpace(positionBefore.ReplaceAllString(clip(valid(text), faultTextMost), ""))
	switch {
	case text == "stack overflow": // of the interpreter's own
		return pattern.FaultBudget, fmt.Sprintf("calls nest deeper than %d (budget: frames)", pattern.MaxFrames)
	case text == "registry overflow":
		return pattern.FaultBudget, "too many values at once (budget: registers)"
	case text == "attempt to call a non-function object":
		return pattern.FaultLua, "attempt to call what is no function"
	case strings.HasPrefix(text, "the interpreter failed: "):
		return pattern.FaultLua, text
	}
	if m := indexOf.FindStringSubmatch(text); m != nil {
		return pattern.FaultLua, fmt.Sprintf("attempt to take the member %q of a %s", m[2], m[1])
	}
	return pattern.FaultLua, text
}

// traceOf reads gopher-lua's trace: "pattern.lua:44 in try", the innermost
// first.
func traceOf(text, name string) []string {
	var trace []string
	for line := range strings.SplitSeq(text, "\n") {
		where, what, ok := strings.Cut(strings.TrimSpace(line), ": in ")
		if !ok || !strings.Contains(where, ".lua:") {
			continue
		}
		what = strings.Trim(strings.TrimPrefix(what, "function "), "'")
		if what == "main chunk" {
			what = name
		}
		trace = append(trace, where+" in "+clip(what, 60))
	}
	return trace
}

func lineOf(trace []string) string {
	if len(trace) == 0 {
		return ""
	}
	line, _, _ := strings.Cut(trace[0], " in ")
	return line
}

// line is where the program is: "pattern.lua:44", the call that it makes.
func (x *execution) line(l *lua.LState) string {
	for level := 1; level < 8; level++ {
		d, ok := l.GetStack(level)
		if !ok {
			break
		}
		if _, err := l.GetInfo("Sl", d, lua.LNil); err == nil && d.CurrentLine > 0 && d.Source != "" {
			return d.Source + ":" + strconv.Itoa(d.CurrentLine)
		}
	}
	if len(x.outer) > 0 && l == x.running { // pcall(dev.call, ...): the line is that of pcall
		outer := x.outer[len(x.outer)-1]
		return x.line(outer)
	}
	return ""
}

// clip cuts a text to at most so many bytes.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && cut > most-4 && s[cut]&0xc0 == 0x80 {
		cut--
	}
	return s[:cut] + "..."
}
