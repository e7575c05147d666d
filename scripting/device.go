package scripting

import (
	"maps"
	"slices"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// deviceFunctions are those of dev. Their names, arguments and results are
// pattern.Host's, and the JSON of each is a type of package pattern.
func deviceFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"get": deviceGet, "twin": deviceTwin, "desire": deviceDesire, "tag": deviceTag, "call": deviceCall, "send": deviceSend,
		"wait": deviceWait, "wait_online": deviceWaitOnline, "rotate_key": deviceRotateKey, "quarantine": deviceQuarantine,
		"release": deviceRelease, "replace": deviceReplace, "run": deviceRun, "sign": deviceSign, "revoke": deviceRevoke,
	}
}

// deviceMember gives dev.id and dev.module.
func deviceMember(l *lua.LState) int {
	x := of(l)
	switch s, _ := l.Get(2).(lua.LString); s {
	case "id":
		l.Push(lua.LString(x.a.Device))
		return 1
	case "module":
		if x.a.Module == "" {
			l.Push(lua.LNil)
		} else {
			l.Push(lua.LString(x.a.Module))
		}
		return 1
	}
	return missingMethod(l)
}

func deviceGet(l *lua.LState) int {
	c := method(l, "dev", "get")
	var a args
	if c.given(3) {
		a.raw("default", c.json(l.Get(3), "the default"))
	}
	a.text("path", c.text(2, "the path"))
	return c.give("dev.get", a)
}

func deviceTwin(l *lua.LState) int {
	c := method(l, "dev", "twin")
	return c.give("dev.twin", args{})
}

// patch are the arguments of dev.desire and dev.tag.
func (c caller) patch() (a args) {
	a.raw("patch", c.json(c.table(2, "the patch"), "the patch"))
	return a
}

func deviceDesire(l *lua.LState) int {
	c := method(l, "dev", "desire")
	return c.giveMembers("dev.desire", c.patch(), "version")
}

func deviceTag(l *lua.LState) int {
	c := method(l, "dev", "tag")
	c.take("dev.tag", c.patch())
	return 0
}

func deviceCall(l *lua.LState) int {
	c := method(l, "dev", "call")
	o := c.options(4, false, "timeout", "online", "retry", "idempotent")
	var a args
	if v := o.get("idempotent"); v != lua.LNil {
		a.yes("idempotent", c.boolOf(v, "idempotent"))
	}
	a.text("method", c.text(2, "the method"))
	if v := o.get("online"); v != lua.LNil {
		a.text("online", c.durationOf(v, "online"))
	}
	if c.given(3) {
		a.raw("payload", c.json(l.Get(3), "the payload"))
	}
	if v := o.get("retry"); v != lua.LNil {
		if n := c.wholeOf(v, "retry"); n != 0 {
			a.whole("retry", n)
		}
	}
	if v := o.get("timeout"); v != lua.LNil {
		a.text("timeout", c.durationOf(v, "timeout"))
	}
	return c.giveMembers("dev.call", a, "payload", "status")
}

func deviceSend(l *lua.LState) int {
	c := method(l, "dev", "send")
	var a args
	a.raw("body", c.json(l.Get(2), "the body"))
	if c.given(3) {
		t := c.table(3, "the properties")
		t.ForEach(func(k, v lua.LValue) {
			c.textOf(k, "the name of a property")
			if _, ok := v.(lua.LString); !ok {
				c.invalid("the property %s is %s, expected a text", quote(show(k)), article(typeName(v)))
			}
		})
		a.raw("props", c.json(t, "the properties"))
	}
	c.take("dev.send", a)
	return 0
}

func deviceWait(l *lua.LState) int {
	c := method(l, "dev", "wait")
	return c.wait(c.text(2, "the condition"), c.options(3, true))
}

func deviceWaitOnline(l *lua.LState) int {
	c := method(l, "dev", "wait_online")
	return c.wait("connected", c.options(2, false, "timeout"))
}

// wait takes the step dev.wait. Each option but timeout is a variable of the
// condition.
func (c caller) wait(where string, o options) int {
	var a args
	vars := map[string]lua.LValue{}
	if o.t != nil {
		o.t.ForEach(func(k, v lua.LValue) {
			if name := c.textOf(k, "the name of a variable"); name != "timeout" {
				vars[name] = v
			}
		})
	}
	if v := o.get("timeout"); v != lua.LNil {
		a.text("timeout", c.durationOf(v, "timeout"))
	}
	if len(vars) > 0 {
		var list args
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			quoted := appendString(nil, name)
			list.raw(string(quoted[1:len(quoted)-1]), c.json(vars[name], "the variable "+quote(name)))
		}
		a.raw("vars", list.end())
	}
	a.text("where", where)
	return c.give("dev.wait", a)
}

func deviceRotateKey(l *lua.LState) int {
	c := method(l, "dev", "rotate_key")
	var a args
	if c.given(2) {
		slot := c.text(2, "the slot")
		if slot != "primary" && slot != "secondary" {
			c.invalid("the slot is %s, expected primary or secondary", quote(slot))
		}
		a.text("slot", slot)
	}
	return c.give("dev.rotate_key", a)
}

func deviceQuarantine(l *lua.LState) int {
	c := method(l, "dev", "quarantine")
	var a args
	a.text("reason", c.text(2, "the reason"))
	c.take("dev.quarantine", a)
	return 0
}

func deviceRelease(l *lua.LState) int {
	method(l, "dev", "release").take("dev.release", args{})
	return 0
}

func deviceReplace(l *lua.LState) int {
	c := method(l, "dev", "replace")
	var a args
	a.text("id", c.text(2, "the id"))
	return c.give("dev.replace", a)
}

func deviceRun(l *lua.LState) int {
	c := method(l, "dev", "run")
	o := c.options(4, false, "timeout")
	var a args
	if c.given(3) {
		a.raw("params", c.json(c.table(3, "the parameters"), "the parameters"))
	}
	a.text("pattern", c.text(2, "the pattern"))
	if v := o.get("timeout"); v != lua.LNil {
		a.text("timeout", c.durationOf(v, "timeout"))
	}
	return c.give("dev.run", a)
}

func deviceSign(l *lua.LState) int {
	c := method(l, "dev", "sign")
	o := c.options(3, false, "days")
	var a args
	a.text("csr", c.text(2, "the request"))
	if v := o.get("days"); v != lua.LNil {
		a.whole("days", c.wholeOf(v, "days"))
	}
	return c.give("dev.sign", a)
}

func deviceRevoke(l *lua.LState) int {
	c := method(l, "dev", "revoke")
	var a args
	a.text("serial", c.text(2, "the serial number"))
	c.take("dev.revoke", a)
	return 0
}

// fleetFunctions are those of fleet.
func fleetFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"query": fleetQuery, "count": fleetCount, "group_by": fleetGroupBy, "run": fleetRun}
}

func fleetQuery(l *lua.LState) int {
	c := method(l, "fleet", "query")
	o := c.options(3, false, "select", "limit")
	var a args
	if v := o.get("limit"); v != lua.LNil {
		n := c.wholeOf(v, "limit")
		if n < 1 || n > pattern.MaxRows {
			c.invalid("limit is %d, expected 1 to %d", n, pattern.MaxRows)
		}
		a.whole("limit", n)
	}
	if v := o.get("select"); v != lua.LNil {
		t, ok := v.(*lua.LTable)
		if !ok {
			c.invalid("select is %s, expected a list of paths", article(typeName(v)))
		}
		for i := 1; i <= t.Len(); i++ {
			c.textOf(t.RawGetInt(i), "a path of select")
		}
		if t.Len() > 0 {
			a.raw("select", c.json(t, "select"))
		}
	}
	a.text("where", c.text(2, "the condition"))
	return c.give("fleet.query", a)
}

func fleetCount(l *lua.LState) int {
	c := method(l, "fleet", "count")
	var a args
	a.text("where", c.text(2, "the condition"))
	return c.give("fleet.count", a)
}

func fleetGroupBy(l *lua.LState) int {
	c := method(l, "fleet", "group_by")
	var a args
	a.text("path", c.text(2, "the path"))
	if c.given(3) {
		a.text("where", c.text(3, "the condition"))
	}
	return c.giveMembers("fleet.group_by", a, "groups", "total")
}

func fleetRun(l *lua.LState) int {
	c := method(l, "fleet", "run")
	o := c.options(4, false, "where", "wait", "timeout")
	var a args
	if c.given(3) {
		a.raw("params", c.json(c.table(3, "the parameters"), "the parameters"))
	}
	a.text("pattern", c.text(2, "the pattern"))
	if v := o.get("timeout"); v != lua.LNil {
		a.text("timeout", c.durationOf(v, "timeout"))
	}
	if v := o.get("wait"); v != lua.LNil {
		a.yes("wait", c.boolOf(v, "wait"))
	}
	a.text("where", c.textOf(o.get("where"), "where"))
	return c.give("fleet.run", a)
}

// gateFunctions are those of the first argument of gate.
func gateFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"count": func(l *lua.LState) int {
		c := method(l, "run", "count")
		var a args
		a.text("where", c.text(2, "the condition"))
		return c.give("run.count", a)
	}}
}
