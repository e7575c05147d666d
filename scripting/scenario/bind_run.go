package scenario

import (
	"encoding/json"

	lua "github.com/yuin/gopher-lua"
)

// runHandle is a run as a test holds it: by its name, since a crash makes
// another record of it.
type runHandle string

// bindRun makes a run a value of Lua.
func (a *attempt) bindRun(id string) *lua.LUserData {
	of := func(f func(l *lua.LState, r *run) lua.LValue) func(l *lua.LState) lua.LValue {
		return func(l *lua.LState) lua.LValue { return f(l, a.hub.memory.run(id)) }
	}
	m := &methods{name: "a run", fields: map[string]func(l *lua.LState) lua.LValue{
		"id":    of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.ID) }),
		"state": of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.State.State) }),
		"entry": of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(entryOf(r)) }),
		"result": of(func(l *lua.LState, r *run) lua.LValue {
			return must(l, r.State.Result)
		}),
		"error": of(func(l *lua.LState, r *run) lua.LValue {
			if r.State.Fault == nil {
				return lua.LNil
			}
			text, err := json.Marshal(r.State.Fault)
			a.check(l, err)
			return must(l, text)
		}),
		"phase":    of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.State.Report.Phase) }),
		"progress": of(func(_ *lua.LState, r *run) lua.LValue { return lua.LNumber(r.State.Report.Progress) }),
		"text":     of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.State.Report.Text) }),
		"follow":   of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.State.Report.Follow) }),
		"phases":   of(func(l *lua.LState, r *run) lua.LValue { return texts(l, r.Phases) }),
		"logs":     of(func(l *lua.LState, r *run) lua.LValue { return logsOf(l, r) }),
		"device":   of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.Device) }),
		"pattern":  of(func(_ *lua.LState, r *run) lua.LValue { return lua.LString(r.Pattern) }),
		"params":   of(func(l *lua.LState, r *run) lua.LValue { return must(l, r.Params) }),
		"steps": of(func(l *lua.LState, r *run) lua.LValue {
			var ops []string
			for _, s := range r.State.Steps {
				ops = append(ops, s.Op)
			}
			return texts(l, ops)
		}),
		"waits": of(func(_ *lua.LState, r *run) lua.LValue {
			if s := r.State.Open(); s != nil {
				return lua.LString(s.Op)
			}
			return lua.LNil
		}),
		"took": of(func(_ *lua.LState, r *run) lua.LValue { return lua.LNumber(a.took(r).Seconds()) }),
		"kept": of(func(l *lua.LState, r *run) lua.LValue {
			out := l.NewTable()
			for _, name := range sortedKeys(r.State.Kept) {
				out.RawSetString(name, must(l, r.State.Kept[name]))
			}
			return out
		}),
	}}
	return m.value(a.lua, runHandle(id))
}
