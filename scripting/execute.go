package scripting

import (
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

const (
	entryLoad = pattern.Entry("load") // no function at all: the main file itself

	registersLeast = 256
	registersMost  = 1 << 16
	protectedMost  = 30 // nested calls of pcall
	defersMost     = 32 // functions
	deferredShare  = 10 // a deferred function has a tenth of the budget
	stepCost       = 20 // instructions, beside its bytes
	logsCost       = 10 // instructions of one ctx:log
	faultTextMost  = 2 << 10
	faultValueMost = 16 << 10
)

// over says that an activation goes no further.
type over string

const (
	overSuspended over = "suspended"
	overSkipped   over = "skipped"
	overDiverged  over = "diverged"
	overBudget    over = "budget"
)

// execution is one activation of a program. It is for one goroutine.
type execution struct {
	prog *Program
	lib  *library
	a    *pattern.Activation

	state   *lua.LState   // where the entry runs
	running *lua.LState   // where code runs now: in a pcall, a state of its own
	outer   []*lua.LState // those that wait for a pcall, the innermost last
	idle    []*lua.LState // of calls of pcall that have ended
	nested  int           // calls of pcall under way

	budget, left int64 // instructions
	before       int64 // of budgets that ended before
	over         over  // empty: it goes on
	fault        *pattern.Fault
	trace        []string // of fault, where it was raised

	taken     int // steps of the journal that were answered, and new ones
	steps     []pattern.Step
	bytes     int // of steps
	deferring bool
	defers    []*lua.LFunction
	calls     int64

	kept    map[string][]byte
	report  pattern.Report
	logs    []pattern.LogLine
	result  []byte
	second  lua.LValue            // what the function returned behind its first value
	loaded  map[string]lua.LValue // what files have given; nil while they run
	table   *lua.LTable           // the argument of pattern{}
	origins map[*lua.LTable][]string
	lines   map[string]map[int]bool // nil: nobody asked
	hot     map[string]int64        // samples by line
}

// Execute runs one activation of a program in this process, within the sandbox's
// own bounds. It never fails: what goes wrong is in the outcome. It is safe for
// concurrent use.
func Execute(p *Program, a *pattern.Activation) pattern.Outcome {
	started := time.Now()
	x := newExecution(p, a)
	o := x.run()
	o.Cost = pattern.Cost{Instructions: x.used(), Calls: x.calls, Time: time.Since(started)}
	o.Lines, o.Hot = x.linesRun(), x.hotLines()
	return o
}

func newExecution(p *Program, a *pattern.Activation) *execution {
	x := &execution{prog: p, lib: p.lib, a: a, budget: pattern.MaxInstructions}
	if p.walls.open {
		x.budget = 1 << 62
	}
	x.left = x.budget
	if a.Trace {
		x.lines = map[string]map[int]bool{}
	}
	x.state = lua.NewState(lua.Options{
		CallStackSize: pattern.MaxFrames, RegistrySize: registersLeast, RegistryMaxSize: registersMost, RegistryGrowStep: registersLeast,
		SkipOpenLibs: true,
	})
	x.running = x.state
	x.state.Env = x.lib.env
	x.state.SetMetatable(lua.LString(""), x.lib.stringMeta)
	if p.walls.open {
		x.state.Env = openEnv(x)
	}
	x.state.SetContext(x)
	return x
}

func (x *execution) walls() walls { return x.prog.walls }

// load runs the main file and gives the argument of pattern{}.
func (x *execution) load() (*lua.LTable, *pattern.Fault) {
	v, failed := x.protected(x.state.NewFunctionFromProto(x.prog.files[pattern.MainFile]), "main chunk")
	switch {
	case failed != nil:
		return nil, failed.fault(x)
	case x.table == nil || v != x.table:
		return nil, &pattern.Fault{Code: pattern.FaultLua, Message: "the file returns no pattern: it must end with return pattern { ... }", Line: place(pattern.MainFile, 1)}
	}
	return x.table, nil
}

// run calls the entry of the activation and makes the outcome of what came of it.
func (x *execution) run() pattern.Outcome {
	entry := x.a.Entry
	if entry == "" {
		entry = pattern.EntryRun
	}
	table, fault := x.load()
	if fault != nil {
		return x.ended(pattern.EndFailed, fault)
	}
	fn, ok := table.RawGetString(string(entry)).(*lua.LFunction)
	if !ok {
		return x.ended(pattern.EndFailed, &pattern.Fault{Code: pattern.FaultUnavailable, Message: fmt.Sprintf("the pattern has no function %s", entry)})
	}
	args, fault := x.arguments(entry)
	if fault != nil {
		return x.ended(pattern.EndFailed, fault)
	}
	v, failed := x.protected(fn, string(entry), args...)
	var end pattern.Ending
	switch {
	case x.over == overBudget:
		end, fault = pattern.EndFailed, x.fault
	case x.over != "":
		return x.ended(pattern.Ending(x.over), x.fault)
	case failed != nil:
		end, fault = pattern.EndFailed, failed.fault(x)
	default:
		end = pattern.EndReturned
		if fault = x.returned(entry, v); fault != nil {
			end = pattern.EndFailed
		}
	}
	if len(x.defers) > 0 && (end == pattern.EndFailed || x.a.Cancel != nil) {
		if x.runDeferred(); x.over != "" {
			return x.ended(pattern.Ending(x.over), x.fault)
		}
	}
	if x.taken < len(x.a.Steps) {
		x.leftOver()
		return x.ended(pattern.EndDiverged, x.fault)
	}
	return x.ended(end, fault)
}

// ended makes the outcome.
func (x *execution) ended(end pattern.Ending, fault *pattern.Fault) pattern.Outcome {
	o := pattern.Outcome{Ending: end, Steps: x.steps, Report: x.report, Logs: x.logs}
	switch end {
	case pattern.EndFailed, pattern.EndDiverged:
		o.Fault = fault
	case pattern.EndReturned, pattern.EndSkipped:
		o.Result = x.result
	}
	if end == pattern.EndDiverged {
		o.Steps = nil
	}
	if x.kept != nil {
		o.Kept = make(map[string]jsonText, len(x.kept))
		for name, value := range x.kept {
			o.Kept[name] = value
		}
	}
	return o
}

// arguments are those of an entry.
func (x *execution) arguments(entry pattern.Entry) ([]lua.LValue, *pattern.Fault) {
	params, err := lua.LValue(x.state.NewTable()), error(nil)
	if len(x.a.Params) > 0 {
		if params, err = x.lib.decode(string(x.a.Params)); err != nil {
			return nil, &pattern.Fault{Code: pattern.FaultInvalid, Message: "the parameters: the text " + err.Error()}
		}
	}
	subject := lua.LValue(x.lib.dev)
	if x.a.Device == "" {
		subject = x.lib.fleet
	}
	switch entry {
	case pattern.EntryCheck:
		return []lua.LValue{subject, params}, nil
	case pattern.EntryGate:
		wave := lua.LValue(x.state.NewTable())
		if len(x.a.Wave) > 0 {
			if wave, err = x.lib.decode(string(x.a.Wave)); err != nil {
				return nil, &pattern.Fault{Code: pattern.FaultInvalid, Message: "the wave: the text " + err.Error()}
			}
		}
		return []lua.LValue{x.lib.gate, wave, x.lib.ctx}, nil
	}
	return []lua.LValue{subject, params, x.lib.ctx}, nil
}

// returned keeps what an entry returned.
func (x *execution) returned(entry pattern.Entry, v lua.LValue) *pattern.Fault {
	if entry == pattern.EntryGate {
		return x.decided(v)
	}
	if v == lua.LNil {
		return nil
	}
	text, err := encode(v, pattern.MaxValue)
	if err != nil {
		return &pattern.Fault{Code: codeOf(err), Message: "what " + string(entry) + " returned: it " + err.Error()}
	}
	if _, ok := v.(lua.LString); entry == pattern.EntryCheck && !ok && v != x.lib.null {
		return &pattern.Fault{Code: pattern.FaultInvalid, Message: "check returned a " + typeName(v) + ", expected nil or a text"}
	}
	x.result = text
	return nil
}

// decided keeps what gate returned: a decision, and why.
func (x *execution) decided(v lua.LValue) *pattern.Fault {
	decision, _ := v.(lua.LString)
	switch decision {
	case "go", "pause", "undo", "abort":
	default:
		return &pattern.Fault{Code: pattern.FaultInvalid, Message: fmt.Sprintf(`gate returned %s, expected "go", "pause", "undo" or "abort"`, clip(show(v), 40))}
	}
	b := append(appendString([]byte(`{"decision":`), string(decision)), `,"reason":`...)
	reason := ""
	if second, ok := x.second.(lua.LString); ok {
		reason = clip(valid(string(second)), faultTextMost)
	}
	x.result = append(appendString(b, reason), '}')
	return nil
}

// runDeferred runs what was handed to ctx:defer, the last first. What is wrong
// with one does not keep the next from running.
func (x *execution) runDeferred() {
	x.deferring = true
	for i := len(x.defers) - 1; i >= 0; i-- {
		x.before, x.over = x.used(), ""
		x.budget = pattern.MaxInstructions / deferredShare
		x.left = x.budget
		_, failed := x.protected(x.defers[i], "deferred function")
		switch x.over {
		case overSuspended, overDiverged:
			return
		case overBudget:
			x.log(x.fault.Line, "a deferred function failed: "+x.fault.Message)
		case "":
			if failed != nil {
				f := failed.fault(x)
				x.log(f.Line, "a deferred function failed: "+f.Error())
			}
		}
		x.over = ""
	}
}
