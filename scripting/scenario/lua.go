package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/wording"
	"github.com/muster-hub/muster/scripting"
)

// Bounds of the Lua of tests: it is the author's own, and is still kept from
// running for ever by mistake.
const (
	testInstructions = 2_000_000
	testFrames       = 200
	testRegistry     = 64 << 10
	testText         = 1 << 20 // bytes that string.rep and the like make
)

// fuel is a context that is done after so many looks at it: Lua looks once for
// each instruction.
type fuel struct {
	context.Context
	left int64
	dry  chan struct{}
	err  error
}

func newFuel(ctx context.Context, n int64) *fuel {
	dry := make(chan struct{})
	close(dry)
	return &fuel{Context: ctx, left: n, dry: dry}
}

// Done implements context.Context.
func (f *fuel) Done() <-chan struct{} {
	f.left--
	switch {
	case f.left < 0:
		f.err = fmt.Errorf("the test ran more than %d instructions: does a loop not end?", testInstructions)
		return f.dry
	case f.left&1023 == 0 && f.Context.Err() != nil:
		f.err = context.Cause(f.Context)
		return f.dry
	}
	return nil
}

// Err implements context.Context.
func (f *fuel) Err() error { return f.err }

// newState makes the Lua of a test, with what programs have of the standard
// library.
func newState(ctx context.Context) *lua.LState {
	l := lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: testFrames, RegistrySize: 1024, RegistryMaxSize: testRegistry, RegistryGrowStep: 1024, MinimizeStackMemory: true})
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString, lua.MathLibName: lua.OpenMath} {
		l.Push(l.NewFunction(open))
		l.Push(lua.LString(name))
		l.Call(1, 0)
	}
	for _, name := range []string{"dofile", "loadfile", "load", "loadstring", "print", "collectgarbage", "module", "require", "newproxy", "getfenv", "setfenv", "_printregs"} {
		l.SetGlobal(name, lua.LNil)
	}
	for lib, names := range map[string][]string{"string": {"dump"}, "math": {"random", "randomseed"}} {
		if t, ok := l.GetGlobal(lib).(*lua.LTable); ok {
			for _, name := range names {
				t.RawSetString(name, lua.LNil)
			}
		}
	}
	if t, ok := l.GetGlobal("string").(*lua.LTable); ok {
		t.RawSetString("rep", l.NewFunction(repeat))
		t.RawSetString("gsub", l.NewFunction(within(t.RawGetString("gsub"), gsubSize)))
		t.RawSetString("format", l.NewFunction(within(t.RawGetString("format"), formatSize)))
	}
	if t, ok := l.GetGlobal("table").(*lua.LTable); ok {
		t.RawSetString("concat", l.NewFunction(within(t.RawGetString("concat"), joinedSize)))
	}
	l.SetGlobal(scripting.Concat, l.NewFunction(concat))
	l.SetContext(newFuel(ctx, testInstructions))
	return l
}

// concat is the operator ".." within bounds.
func concat(l *lua.LState) int {
	list := make([]lua.LValue, l.GetTop())
	bytes := 0
	for i := range list {
		list[i] = l.Get(i + 1)
		if s, ok := list[i].(lua.LString); ok {
			bytes += len(s)
		}
	}
	if bytes > testText {
		l.RaiseError("the text would have more than %d bytes", testText)
	}
	for i, v := range list {
		if v.Type() != lua.LTString && v.Type() != lua.LTNumber && l.GetMetaField(v, "__concat") == lua.LNil {
			l.RaiseError("attempt to join a %s to a text (operand %d)", v.Type(), i+1)
		}
	}
	l.Push(lua.LString(l.Concat(list...)))
	return 1
}

// within is a function of the standard library that is not called if what it
// gives could be larger than a text may be.
func within(f lua.LValue, size func(l *lua.LState) int) lua.LGFunction {
	standard, _ := f.(*lua.LFunction)
	return func(l *lua.LState) int {
		if size(l) > testText {
			l.RaiseError("the text could have more than %d bytes", testText)
		}
		return standard.GFunction(l)
	}
}

// gsubSize is how large the result of string.gsub with a text can be.
func gsubSize(l *lua.LState) int {
	with, ok := l.Get(3).(lua.LString)
	if !ok {
		return 0 // what a function or a table gives is bounded by instructions
	}
	return (len(lua.LVAsString(l.Get(1))) + 1) * (len(with) + 1)
}

// formatSize is how wide string.format can make something.
func formatSize(l *lua.LState) int {
	size, n := 0, 0
	for _, c := range []byte(lua.LVAsString(l.Get(1))) {
		if c < '0' || c > '9' {
			n = 0
			continue
		}
		n = min(n*10+int(c-'0'), testText)
		size = max(size, n)
	}
	return size * l.GetTop()
}

// joinedSize is how large the result of table.concat is.
func joinedSize(l *lua.LState) int {
	t, ok := l.Get(1).(*lua.LTable)
	if !ok {
		return 0
	}
	size, between := 0, len(lua.LVAsString(l.Get(2)))
	for n := 1; n <= t.Len(); n++ {
		size += len(lua.LVAsString(t.RawGetInt(n))) + between
	}
	return size
}

// repeat is string.rep within bounds.
func repeat(l *lua.LState) int {
	s, n := l.CheckString(1), l.CheckInt(2)
	if n < 0 {
		n = 0
	}
	if len(s) > 0 && n > testText/len(s) {
		l.RaiseError("string.rep would make more than %d bytes", testText)
	}
	l.Push(lua.LString(strings.Repeat(s, n)))
	return 1
}

// protect has Lua call a function and returns what it gave, or the error.
func protect(l *lua.LState, f *lua.LFunction, results int, args ...lua.LValue) ([]lua.LValue, error) {
	top := l.GetTop()
	err := l.CallByParam(lua.P{Fn: f, NRet: results, Protect: true}, args...)
	if err != nil {
		l.SetTop(top)
		return nil, err
	}
	list := make([]lua.LValue, 0, results)
	for n := top + 1; n <= l.GetTop(); n++ {
		list = append(list, l.Get(n))
	}
	l.SetTop(top)
	return list, nil
}

// raised is an error of Go on its way through Lua: nothing that Lua does with it
// makes another error of it.
func raised(l *lua.LState, err error) {
	ud := l.NewUserData()
	ud.Value = err
	l.Error(ud, 0)
}

// unraised finds the error of Go in one of Lua, and the place that Lua names.
func unraised(err error) (text string, trace []string, cause error) {
	api, ok := errors.AsType[*lua.ApiError](err)
	if !ok {
		return err.Error(), nil, nil
	}
	if ud, ok := api.Object.(*lua.LUserData); ok {
		if inner, ok := ud.Value.(error); ok {
			return inner.Error(), nil, inner
		}
	}
	text = api.Object.String()
	if t, ok := api.Object.(*lua.LTable); ok {
		if m, err := toJSON(t); err == nil {
			text = string(m)
		}
	}
	if api.Type == lua.ApiErrorRun && api.Cause != nil && text == "" {
		text = api.Cause.Error()
	}
	for line := range strings.SplitSeq(api.StackTrace, "\n") {
		if line = strings.TrimSpace(line); line != "" && line != "stack traceback:" && !strings.Contains(line, "[G]") {
			trace = append(trace, line)
		}
	}
	return text, trace, nil
}

// where is the file and line of the caller in a test: "test/x_test.lua:12".
func where(l *lua.LState, level int) string {
	return strings.TrimSuffix(strings.TrimSpace(l.Where(level)), ":")
}

// methods is an object of a test: fields that are looked up when they are read,
// and methods.
type methods struct {
	name   string
	fields map[string]func(l *lua.LState) lua.LValue
	calls  map[string]lua.LGFunction
}

// value makes the object a value of Lua that stands for something of Go.
func (m *methods) value(l *lua.LState, v any) *lua.LUserData {
	ud := l.NewUserData()
	ud.Value = v
	meta := l.NewTable()
	functions := map[string]*lua.LFunction{}
	meta.RawSetString("__index", l.NewFunction(func(l *lua.LState) int {
		key := l.CheckString(2)
		if f := m.fields[key]; f != nil {
			l.Push(f(l))
			return 1
		}
		call := m.calls[key]
		if call == nil {
			l.RaiseError("%s has no %q: %s", m.name, key, m.near(key))
		}
		if functions[key] == nil {
			functions[key] = l.NewFunction(call)
		}
		l.Push(functions[key])
		return 1
	}))
	meta.RawSetString("__newindex", l.NewFunction(func(l *lua.LState) int {
		l.RaiseError("%s can't be changed", m.name)
		return 0
	}))
	meta.RawSetString("__metatable", lua.LString("locked"))
	names := l.NewUserData()
	names.Value = m.names()
	meta.RawSetString("names", names)
	ud.Metatable = meta
	return ud
}

// names lists what the object has.
func (m *methods) names() []string {
	all := append(sortedKeys(m.fields), sortedKeys(m.calls)...)
	slices.Sort(all)
	return all
}

// near says what may be meant by a name.
func (m *methods) near(name string) string {
	all := m.names()
	if best := wording.Nearest(name, all); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "it has " + strings.Join(all, ", ")
}
