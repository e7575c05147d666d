package scenario

import (
	"encoding/json"
	"fmt"
	"strconv"

	lua "github.com/yuin/gopher-lua"
)

// must adds a device, or ends the test.
func (a *attempt) must(l *lua.LState, id string, sections [3]json.RawMessage, online bool) *device {
	d, err := a.addDevice(id, sections, online)
	a.check(l, err)
	return d
}

func (a *attempt) tDevice(l *lua.LState) int {
	l.Push(a.bindDevice(a.deviceOf(l, l.Get(2), "device-"+strconv.Itoa(len(a.devices)+1))))
	return 1
}

// deviceOf makes a device of a table {id, tags, desired, reported, connected}.
func (a *attempt) deviceOf(l *lua.LState, v lua.LValue, id string) *device {
	t, ok := v.(*lua.LTable)
	if !ok && v != lua.LNil {
		a.fail(l, 1, "a device is a table with id, tags, desired, reported and connected", "")
	}
	var sections [3]json.RawMessage
	online := true
	if ok {
		t.ForEach(func(key, value lua.LValue) {
			var err error
			switch key.String() {
			case "id":
				id = value.String()
			case "connected":
				online = lua.LVAsBool(value)
			case "tags":
				sections[tags], err = toJSON(value)
			case "desired":
				sections[desired], err = toJSON(value)
			case "reported":
				sections[reported], err = toJSON(value)
			default:
				err = fmt.Errorf("a device has id, tags, desired, reported and connected, but no %q", key.String())
			}
			a.check(l, err)
		})
	}
	return a.must(l, id, sections, online)
}

func (a *attempt) tFleet(l *lua.LState) int {
	out := l.NewTable()
	add := func(v lua.LValue) {
		out.Append(a.bindDevice(a.deviceOf(l, v, "device-"+strconv.Itoa(len(a.devices)+1))))
	}
	switch v := l.Get(2).(type) {
	case lua.LNumber:
		for n := range int(v) {
			template := l.Get(3)
			if f, ok := template.(*lua.LFunction); ok {
				list, err := protect(l, f, 1, lua.LNumber(n+1))
				a.check(l, err)
				template = list[0]
			}
			add(template)
		}
	case *lua.LTable:
		if list, ok := v.RawGetString("devices").(*lua.LTable); ok {
			v = list
		}
		for n := 1; n <= v.Len(); n++ {
			add(v.RawGetInt(n))
		}
	default:
		l.ArgError(2, "expected a list of devices, or how many and what each is like")
	}
	l.Push(out)
	return 1
}

// bindDevice makes a device a value of Lua.
func (a *attempt) bindDevice(d *device) *lua.LUserData {
	plain := func(n int) func(l *lua.LState) lua.LValue {
		return func(l *lua.LState) lua.LValue {
			if d.identity() == nil {
				return lua.LNil
			}
			return must(l, d.identity().plain(n))
		}
	}
	var self *lua.LUserData
	m := &methods{
		name: "a device",
		fields: map[string]func(l *lua.LState) lua.LValue{
			"id":       func(*lua.LState) lua.LValue { return lua.LString(d.id) },
			"calls":    func(l *lua.LState) lua.LValue { return texts(l, d.methodsCalled()) },
			"tags":     plain(tags),
			"desired":  plain(desired),
			"reported": plain(reported),
			"connected": func(*lua.LState) lua.LValue {
				return lua.LBool(d.online && d.identity() != nil && d.identity().Connected)
			},
			"status": func(*lua.LState) lua.LValue { return lua.LString(d.identity().Status) },
			"events": func(l *lua.LState) lua.LValue { return a.eventsOf(l, d.id) },
			"messages": func(l *lua.LState) lua.LValue {
				out := l.NewTable()
				for _, m := range d.identity().Messages {
					out.Append(must(l, m))
				}
				return out
			},
		},
		calls: map[string]lua.LGFunction{
			"on_method":  func(l *lua.LState) int { return a.onMethod(l, d, self) },
			"on_desired": func(l *lua.LState) int { return a.onDesired(l, d) },
			"report": func(l *lua.LState) int {
				a.check(l, d.report(a.value(l, 2)))
				return 0
			},
			"desire": func(l *lua.LState) int { a.check(l, d.changedBy(desired, a.value(l, 2))); return 0 },
			"tag":    func(l *lua.LState) int { a.check(l, d.changedBy(tags, a.value(l, 2))); return 0 },
			"after": func(l *lua.LState) int {
				f := l.CheckFunction(3)
				a.at(a.now.Add(a.span(l, 2)), 0, func() error { return a.callBack(f) })
				return 0
			},
			"drop": func(l *lua.LState) int {
				away := a.span(l, 2)
				a.check(l, d.disconnect())
				a.at(a.now.Add(away), 0, d.connect)
				return 0
			},
			"offline": func(l *lua.LState) int { a.check(l, d.disconnect()); return 0 },
			"online":  func(l *lua.LState) int { a.check(l, d.connect()); return 0 },
			"called": func(l *lua.LState) int {
				out := l.NewTable()
				for _, c := range d.calls {
					if c.method == l.CheckString(2) {
						out.Append(must(l, c.payload))
					}
				}
				l.Push(out)
				return 1
			},
			"run":   func(l *lua.LState) int { return a.runOn(l, d.id) },
			"start": func(l *lua.LState) int { return a.startOn(l, d.id) },
		},
	}
	self = m.value(a.lua, d)
	return self
}

// callBack calls a function of the test.
func (a *attempt) callBack(f *lua.LFunction, args ...lua.LValue) error {
	if _, err := protect(a.lua, f, 0, args...); err != nil {
		return failed{a.failureOf(err)}
	}
	return nil
}

func (a *attempt) onMethod(l *lua.LState, d *device, _ *lua.LUserData) int {
	name, answer := l.CheckString(2), l.Get(3)
	after, never := spanOption(l, 4, "after"), lua.LVAsBool(option(l, 4, "never"))
	d.methods[name] = func(payload json.RawMessage) (reply, error) {
		r := reply{status: 200, after: after, never: never}
		list := []lua.LValue{answer, lua.LNil}
		if f, ok := answer.(*lua.LFunction); ok {
			var err error
			if list, err = protect(a.lua, f, 2, must(a.lua, payload)); err != nil {
				return r, failed{a.failureOf(err)}
			}
		}
		status, ok := list[0].(lua.LNumber)
		if ok && list[1] == lua.LNil { // return 404
			r.status = int(status)
			return r, nil
		}
		if status, ok := list[1].(lua.LNumber); ok {
			r.status = int(status)
		}
		var err error
		if r.payload, err = toJSON(list[0]); err != nil {
			return r, fmt.Errorf("what on_method(%q) returned: %w", name, err)
		}
		return r, nil
	}
	return 0
}

func (a *attempt) onDesired(l *lua.LState, d *device) int {
	path, n := "", 2
	if s, ok := l.Get(2).(lua.LString); ok {
		path, n = string(s), 3
	}
	f := l.CheckFunction(n)
	d.watch(path, func(value json.RawMessage, version int64) error {
		v := must(a.lua, value)
		if v == nullOf(a.lua) {
			v = lua.LNil
		}
		return a.callBack(f, v, lua.LNumber(version))
	})
	return 0
}

func (a *attempt) tHTTP(l *lua.LState) int {
	s := &server{}
	switch v := l.Get(2).(type) {
	case lua.LString:
		s.url = string(v)
		if method, address, ok := cutMethod(s.url); ok {
			s.method, s.url = method, address
		}
	case *lua.LTable:
		if m := v.RawGetString("method"); m != lua.LNil {
			s.method = m.String()
		}
		s.url = v.RawGetString("url").String()
	default:
		l.ArgError(2, `expected "POST https://host/path", where * stands for anything`)
	}
	answer := l.Get(3)
	s.do = func(request json.RawMessage) (served, error) {
		v := answer
		if f, ok := answer.(*lua.LFunction); ok {
			list, err := protect(a.lua, f, 1, must(a.lua, request))
			if err != nil {
				return served{}, failed{a.failureOf(err)}
			}
			v = list[0]
		}
		return servedOf(v)
	}
	a.servers = append(a.servers, s)
	m := &methods{name: "a server", fields: map[string]func(l *lua.LState) lua.LValue{
		"requests": func(l *lua.LState) lua.LValue {
			out := l.NewTable()
			for _, text := range s.got {
				out.Append(must(l, text))
			}
			return out
		},
	}}
	l.Push(m.value(l, s))
	return 1
}

// servedOf reads an answer: a status, or {status, json, body, after, never}.
func servedOf(v lua.LValue) (served, error) {
	s := served{Status: 200}
	switch v := v.(type) {
	case lua.LNumber:
		s.Status = int(v)
	case *lua.LNilType:
	case *lua.LTable:
		if n, ok := v.RawGetString("status").(lua.LNumber); ok {
			s.Status = int(n)
		}
		if b, ok := v.RawGetString("body").(lua.LString); ok {
			s.Body = string(b)
		}
		var err error
		if s.JSON, err = toJSON(v.RawGetString("json")); err != nil {
			return s, err
		}
		s.never = lua.LVAsBool(v.RawGetString("never"))
		if d := v.RawGetString("after"); d != lua.LNil {
			if s.after, err = span(d.String(), 0); err != nil {
				return s, err
			}
		}
	default:
		return s, fmt.Errorf("a server answers with a status or a table, not with a %s", v.Type())
	}
	return s, nil
}

// cutMethod splits "POST https://..." in two.
func cutMethod(text string) (method, address string, ok bool) {
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"} {
		if len(text) > len(m) && text[:len(m)] == m && text[len(m)] == ' ' {
			return m, text[len(m)+1:], true
		}
	}
	return "", "", false
}
