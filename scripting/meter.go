package scripting

import (
	"context"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// An execution is the context of its Lua state: gopher-lua asks a context for
// Done at each instruction, which makes an exact budget that is the same on each
// replay. Functions of the library find the execution in the same place.
//
// Once the budget is used up, or the activation has ended otherwise, each further
// instruction raises: no pcall gets past that.
var _ context.Context = (*execution)(nil)

// of returns the execution whose state calls a function.
func of(l *lua.LState) *execution { return l.Context().(*execution) }

// Done counts an instruction.
func (x *execution) Done() <-chan struct{} {
	if x.lines != nil {
		x.mark()
	}
	if x.left&(hotEvery-1) == 0 {
		x.sample()
	}
	if x.left--; x.left >= 0 && x.over == "" {
		return nil
	}
	x.exhausted()
	return x.lib.closed
}

// exhausted ends the activation for its budget, unless it has ended already.
func (x *execution) exhausted() {
	if x.over == "" {
		x.over, x.fault = overBudget, &pattern.Fault{
			Code: pattern.FaultBudget, Message: "the activation has run " + thousands(x.budget) + " instructions, as many as it may (budget: instructions)",
		}
	}
}

// charge takes what a function of the library costs from the budget.
func (x *execution) charge(l *lua.LState, instructions int) {
	if x.walls().open {
		return
	}
	x.sampleCall(l, int64(instructions))
	if x.left -= int64(instructions); x.left >= 0 {
		return
	}
	x.exhausted()
	x.unwind(l)
}

// chargeBytes takes what it costs to make a text or a table of so many bytes.
// Short ones cost no more than their call.
func (x *execution) chargeBytes(l *lua.LState, n int) { x.charge(l, n/bytesPerInstruction) }

// bytesPerInstruction bounds what an activation makes in all: 50 MB of text.
const bytesPerInstruction = 256

// Deadline says that there is none: time is bounded from outside.
func (x *execution) Deadline() (time.Time, bool) { return time.Time{}, false }

// Err says why Done was closed. Nobody reads it but gopher-lua, which makes a
// message of it that is replaced.
func (x *execution) Err() error { return context.Canceled }

// Value gives nothing.
func (x *execution) Value(any) any { return nil }

// used is how many instructions the activation has run.
func (x *execution) used() int64 { return min(x.budget-x.left, x.budget) + x.before }
