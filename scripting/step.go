package scripting

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// step takes a step and gives its result as JSON; nil: nothing. It raises what
// the step failed with. One that has no answer yet ends the activation.
func (x *execution) step(l *lua.LState, op string, args []byte) []byte {
	if x.over != "" {
		x.unwind(l)
	}
	x.calls++
	x.charge(l, stepCost+len(args)/bytesPerInstruction)
	info, ok := x.lib.ops[op]
	if !ok {
		x.raisef(l, pattern.FaultUnavailable, "there is no operation %s", op)
	}
	number := x.taken + 1
	if x.a.Cancel != nil && number >= x.a.CancelAt && !x.deferring {
		x.raise(l, x.a.Cancel)
	}
	if len(args) > pattern.MaxValue {
		x.raisef(l, pattern.FaultTooBig, "the arguments of %s have %d bytes as JSON, at most %d", op, len(args), pattern.MaxValue)
	}
	if x.taken < len(x.a.Steps) {
		return x.replay(l, op, args)
	}
	switch {
	case x.a.Entry == pattern.EntryCheck && info.Way != pattern.Local:
		x.raisef(l, pattern.FaultDenied, "check only looks at the device: %s is not for it", op)
	case x.a.Entry == pattern.EntryGate && info.Way != pattern.Local && info.Scope != "gate":
		x.raisef(l, pattern.FaultDenied, "gate only counts and decides: %s is not for it", op)
	case x.a.Entry == entryLoad:
		x.raisef(l, pattern.FaultDenied, "%s is for run and what it calls: the file itself only declares", op)
	}
	s := pattern.Step{Op: op, Args: args, Line: x.line(l), Deferred: x.deferring}
	if info.Way == pattern.Local {
		s.Result, s.Fault = x.local(op, args, number)
	}
	x.steps = append(x.steps, s)
	x.taken++
	x.bytes += len(s.Args) + len(s.Result)
	if info.Way != pattern.Local && info.Way != pattern.Assumed || len(x.steps) >= pattern.MaxBatch || x.bytes >= pattern.MaxJournal {
		x.over = overSuspended
		x.unwind(l)
	}
	if s.Fault != nil {
		x.raise(l, s.Fault)
	}
	return s.Result
}

// replay answers a step from the journal, if it is the one that is there.
func (x *execution) replay(l *lua.LState, op string, args []byte) []byte {
	s := &x.a.Steps[x.taken]
	if s.Op != op || s.Deferred != x.deferring || !bytes.Equal(s.Args, args) && !x.same(s.Args, args) {
		now := pattern.Step{Op: op, Args: args, Line: x.line(l), Deferred: x.deferring}
		x.diverged(fmt.Sprintf("step %d was %s, and is now %s", x.taken+1, told(s), told(&now)), now.Line)
		x.unwind(l)
	}
	x.taken++
	if s.Fault != nil {
		x.raise(l, s.Fault)
	}
	return s.Result
}

// same compares arguments that have crossed a store which writes JSON in another
// way.
func (x *execution) same(a, b []byte) bool {
	v, err := x.lib.decode(string(a))
	if err != nil {
		return false
	}
	text, err := encode(v, len(b))
	return err == nil && bytes.Equal(text, b)
}

func (x *execution) diverged(message, line string) {
	x.over = overDiverged
	x.fault = &pattern.Fault{Code: pattern.FaultNondeterministic, Message: clip(message, faultTextMost), Line: line}
}

// leftOver says that the program has ended before its journal.
func (x *execution) leftOver() {
	s := &x.a.Steps[x.taken]
	x.diverged(fmt.Sprintf("step %d was %s, and the program has now ended before it", x.taken+1, told(s)), s.Line)
}

// told shows a step in a message.
func told(s *pattern.Step) string {
	text := s.Op
	if s.Deferred {
		text = "the deferred " + text
	}
	if len(s.Args) > 2 {
		text += " " + clip(string(s.Args), 200)
	}
	if s.Line != "" {
		text += " at " + s.Line
	}
	return text
}

// local answers a step that needs nothing but the activation.
func (x *execution) local(op string, args []byte, number int) (json.RawMessage, *pattern.Fault) {
	switch op {
	case "dev.get", "dev.twin":
		if x.a.Twin == nil {
			return nil, &pattern.Fault{Code: pattern.FaultDenied, Message: op + ` needs "twin:read": add it to needs in the manifest, and have it granted`}
		}
		if op == "dev.twin" {
			return x.a.Twin, nil
		}
		return x.get(args)
	case "ctx.now":
		return appendString(nil, x.a.Now.UTC().Format(timeLayout)), nil
	case "ctx.uuid":
		high, low := x.chance(number, 0), x.chance(number, 1)
		var u [16]byte
		binary.BigEndian.PutUint64(u[:8], high)
		binary.BigEndian.PutUint64(u[8:], low)
		u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
		return fmt.Appendf(nil, `"%x-%x-%x-%x-%x"`, u[0:4], u[4:6], u[6:8], u[8:10], u[10:]), nil
	case "ctx.random":
		var a pattern.RandomArgs
		if err := json.Unmarshal(args, &a); err != nil || a.Low > a.High {
			return nil, &pattern.Fault{Code: pattern.FaultInvalid, Message: fmt.Sprintf("ctx.random: %d to %d is no range", a.Low, a.High)}
		}
		n := a.Low
		if span := uint64(a.High-a.Low) + 1; span != 0 {
			high, _ := bits.Mul64(x.chance(number, 0), span)
			n += int64(high)
		}
		return fmt.Append(nil, n), nil
	}
	return nil, &pattern.Fault{Code: pattern.FaultUnavailable, Message: "this worker does not know the operation " + op}
}

// timeLayout is how ctx:now() and the library time write a time.
const timeLayout = "2006-01-02T15:04:05.999Z07:00"

// chance is a number of a step, by its run's seed.
func (x *execution) chance(step, part int) uint64 {
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], x.a.Seed)
	binary.BigEndian.PutUint64(b[8:], uint64(step))
	binary.BigEndian.PutUint64(b[16:], uint64(part))
	sum := sha256.Sum256(append(b[:], x.a.Entry...))
	return binary.BigEndian.Uint64(sum[:])
}

// get answers dev.get.
func (x *execution) get(args []byte) (json.RawMessage, *pattern.Fault) {
	var a pattern.GetArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return nil, &pattern.Fault{Code: pattern.FaultInvalid, Message: "dev.get: " + err.Error()}
	}
	parts, err := twinPath(a.Path)
	if err != nil {
		return nil, &pattern.Fault{Code: pattern.FaultInvalid, Message: "dev.get: " + err.Error()}
	}
	if v, ok := find(x.a.Twin, parts); ok {
		return v, nil
	}
	return a.Default, nil
}

// log keeps a line, if the code was not run before.
func (x *execution) log(line, text string) {
	if x.taken < len(x.a.Steps) {
		return
	}
	if len(x.logs) >= pattern.MaxLogs {
		x.logs = append(x.logs[:0], x.logs[1:]...)
	}
	x.logs = append(x.logs, pattern.LogLine{Step: x.taken, Line: line, Text: clip(text, pattern.MaxLogLine)})
}

// mark notes the line of the next instruction.
func (x *execution) mark() {
	source, line := x.next()
	if source == "" {
		return
	}
	file := x.lines[source]
	if file == nil {
		file = map[int]bool{}
		x.lines[source] = file
	}
	file[line] = true
}

// next is where the next instruction is; an empty source: in no file.
func (x *execution) next() (source string, line int) {
	d, ok := x.running.GetStack(0)
	if !ok {
		return "", 0
	}
	if _, err := x.running.GetInfo("Sl", d, lua.LNil); err != nil || d.CurrentLine <= 0 {
		return "", 0
	}
	return d.Source, d.CurrentLine
}

// linesRun are the lines that were run, in order; nil when nobody asked.
func (x *execution) linesRun() map[string][]int {
	if x.lines == nil {
		return nil
	}
	out := make(map[string][]int, len(x.lines))
	for file, set := range x.lines {
		list := make([]int, 0, len(set))
		for n := range set {
			list = append(list, n)
		}
		sortInts(list)
		out[file] = list
	}
	return out
}
