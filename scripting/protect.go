package scripting

import (
	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// unwind ends the activation from inside a function of the library: it tears
// down the Lua stack, and each pcall on the way passes it on.
func (x *execution) unwind(l *lua.LState) int {
	if x.over == overBudget { // deferred functions will want the variables that they have captured
		l.Error(x.lib.sentinel, 0)
	}
	// Nothing runs behind this, and nobody reads a trace of it, which gopher-lua
	// would make.
	panic(&lua.ApiError{Type: lua.ApiErrorRun, Object: x.lib.sentinel, StackTrace: "-"})
}

// caughtCost is what it costs, in instructions, to catch an error: its trace is
// written.
const caughtCost = 100

// Each protected call has a state of its own, which shares everything but the
// stack: when an error is raised, gopher-lua detaches the captured variables of
// all functions on the stack, also of those that go on, whose closures then see
// a variable of their own. On a stack of its own only those end that are left.

// protect calls a function with the arguments behind it and gives its results,
// with true before them, or the failure.
func (x *execution) protect(l *lua.LState, fn lua.LValue, args []lua.LValue) (results []lua.LValue, f *failure) {
	if x.nested >= protectedMost {
		x.raisef(l, pattern.FaultBudget, "calls of pcall nest deeper than %d (budget: frames)", protectedMost)
	}
	inner := x.stack(l)
	x.outer, x.running = append(x.outer, l), inner
	x.nested++
	inner.Push(fn)
	for _, a := range args {
		inner.Push(a)
	}
	err := inner.PCall(len(args), lua.MultRet, nil)
	x.nested--
	x.outer, x.running = x.outer[:len(x.outer)-1], l
	if err != nil {
		f = x.failed(err, "protected call")
		if x.over == overBudget && x.trace == nil {
			x.trace = f.trace
		}
	} else {
		for i := 1; i <= inner.GetTop(); i++ {
			results = append(results, inner.Get(i))
		}
	}
	if e, ok := err.(*lua.ApiError); !ok || e.Type != lua.ApiErrorPanic {
		inner.SetTop(0)
		x.idle = append(x.idle, inner)
	}
	if x.over != "" {
		x.unwind(l)
	}
	if f != nil {
		x.charge(l, caughtCost)
	}
	return results, f
}

// stack gives a state to call something in.
func (x *execution) stack(l *lua.LState) *lua.LState {
	if n := len(x.idle); n > 0 {
		inner := x.idle[n-1]
		x.idle = x.idle[:n-1]
		return inner
	}
	x.chargeBytes(l, 16<<10)
	inner, cancel := x.state.NewThread()
	if cancel != nil {
		cancel() // of a context that is replaced
	}
	inner.SetContext(x)
	return inner
}

func basePCall(l *lua.LState) int {
	fn := l.CheckAny(1)
	results, f := of(l).protect(l, fn, arguments(l, 2))
	return pushProtected(l, results, f)
}

func baseXPCall(l *lua.LState) int {
	x := of(l)
	fn, handler := l.CheckAny(1), l.CheckFunction(2)
	results, f := x.protect(l, fn, arguments(l, 3))
	if f == nil {
		return pushProtected(l, results, nil)
	}
	handled, again := x.protect(l, handler, []lua.LValue{f.caught(x)})
	if again != nil { // an error in the handler is what comes out
		return pushProtected(l, nil, again)
	}
	l.Push(lua.LFalse)
	for _, v := range handled {
		l.Push(v)
	}
	return len(handled) + 1
}

func pushProtected(l *lua.LState, results []lua.LValue, f *failure) int {
	if f != nil {
		l.Push(lua.LFalse)
		l.Push(f.caught(of(l)))
		return 2
	}
	l.Push(lua.LTrue)
	for _, v := range results {
		l.Push(v)
	}
	return len(results) + 1
}

// arguments are those from number n on.
func arguments(l *lua.LState, n int) []lua.LValue {
	var list []lua.LValue
	for i := n; i <= l.GetTop(); i++ {
		list = append(list, l.Get(i))
	}
	return list
}

func baseError(l *lua.LState) int {
	x := of(l)
	v := l.Get(1)
	t, ok := v.(*lua.LTable)
	if !ok {
		message := valid(show(v))
		if ud, ok := v.(*lua.LUserData); ok && ud == x.lib.sentinel {
			message = "error"
		}
		return x.raise(l, &pattern.Fault{Code: pattern.FaultLua, Message: clip(message, faultTextMost)})
	}
	if t.RawGetString("code") == lua.LNil && x.lib.free(t) {
		t.RawSetString("code", lua.LString(pattern.FaultLua))
	}
	l.Error(t, 0)
	return 0
}

func baseAssert(l *lua.LState) int {
	if lua.LVAsBool(l.CheckAny(1)) {
		return l.GetTop()
	}
	if l.GetTop() < 2 || l.Get(2) == lua.LNil {
		return of(l).raisef(l, pattern.FaultLua, "assertion failed")
	}
	l.Remove(1)
	return baseError(l)
}
