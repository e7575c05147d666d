package scripting

import (
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// store is the value of a ctx:kv: its scope.
type store string

const (
	phaseMost = 64 // bytes
	nameMost  = 128
)

// contextFunctions are those of ctx.
func contextFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"phase": contextPhase, "progress": contextProgress, "follow": contextFollow, "log": contextLog,
		"now": contextNow, "sleep": contextSleep, "until_": contextUntil, "random": contextRandom, "uuid": contextUUID,
		"approve": contextApprove, "event": contextEvent, "alert": contextAlert, "release": contextRelease, "http": contextHTTP,
		"secret": contextSecret, "kv": contextKV, "keep": contextKeep, "kept": contextKept, "skip": contextSkip, "defer": contextDefer,
	}
}

// contextMember gives ctx.id, ctx.key and ctx.attempt.
func contextMember(l *lua.LState) int {
	x := of(l)
	switch s, _ := l.Get(2).(lua.LString); s {
	case "id":
		l.Push(lua.LString(x.a.Run))
		return 1
	case "key":
		key := x.a.Key
		if key == "" {
			key = x.a.Run
		}
		l.Push(lua.LString(key))
		return 1
	case "attempt":
		l.Push(lua.LNumber(x.a.Attempt))
		return 1
	}
	return missingMethod(l)
}

func contextPhase(l *lua.LState) int {
	c := method(l, "ctx", "phase")
	name := c.text(2, "the phase")
	if len(name) > phaseMost {
		c.invalid("the phase has %d bytes, at most %d", len(name), phaseMost)
	}
	c.x.report.Phase, c.x.report.Text = name, ""
	return 0
}

func contextProgress(l *lua.LState) int {
	c := method(l, "ctx", "progress")
	share, ok := l.Get(2).(lua.LNumber)
	if !ok || math.IsNaN(float64(share)) {
		c.invalid("the share is %s, expected a number from 0 to 1", clip(show(l.Get(2)), 40))
	}
	c.x.report.Progress = min(max(float64(share), 0), 1)
	c.x.report.Text = ""
	if c.given(3) {
		c.x.report.Text = clip(c.text(3, "the text"), 256)
	}
	return 0
}

func contextFollow(l *lua.LState) int {
	c := method(l, "ctx", "follow")
	path := c.text(2, "the path")
	if _, err := twinPath(path); err != nil || len(path) > 256 {
		c.invalid("%s is no path of a reported property", quote(path))
	}
	c.x.report.Follow = path
	return 0
}

func contextLog(l *lua.LState) int {
	c := method(l, "ctx", "log")
	c.x.charge(l, logsCost)
	if c.x.taken < len(c.x.a.Steps) {
		return 0 // it was written when the code ran first
	}
	var b strings.Builder
	for i := 2; i <= l.GetTop() && b.Len() <= pattern.MaxLogLine; i++ {
		if i > 2 {
			b.WriteByte(' ')
		}
		b.WriteString(clip(tostring(l, l.Get(i)), pattern.MaxLogLine))
	}
	c.x.log(c.x.line(l), valid(b.String()))
	return 0
}

func contextNow(l *lua.LState) int {
	c := method(l, "ctx", "now")
	return c.give("ctx.now", args{})
}

func contextSleep(l *lua.LState) int {
	c := method(l, "ctx", "sleep")
	var a args
	a.text("for", c.durationOf(l.Get(2), "the duration"))
	c.take("ctx.sleep", a)
	return 0
}

func contextUntil(l *lua.LState) int {
	c := method(l, "ctx", "until_")
	var a args
	a.text("until", c.text(2, "the time"))
	c.take("ctx.until_", a)
	return 0
}

func contextRandom(l *lua.LState) int {
	c := method(l, "ctx", "random")
	low, high := c.wholeOf(l.Get(2), "the low end"), c.wholeOf(l.Get(3), "the high end")
	if low > high {
		c.invalid("%d to %d is no range", low, high)
	}
	var a args
	a.whole("hi", high)
	a.whole("lo", low)
	return c.give("ctx.random", a)
}

func contextUUID(l *lua.LState) int {
	c := method(l, "ctx", "uuid")
	return c.give("ctx.uuid", args{})
}

func contextApprove(l *lua.LState) int {
	c := method(l, "ctx", "approve")
	o := c.options(3, false, "timeout", "by")
	var a args
	if v := o.get("by"); v != lua.LNil {
		a.text("by", c.textOf(v, "by"))
	}
	a.text("question", c.text(2, "the question"))
	if v := o.get("timeout"); v != lua.LNil {
		a.text("timeout", c.durationOf(v, "timeout"))
	}
	return c.give("ctx.approve", a)
}

func contextEvent(l *lua.LState) int {
	c := method(l, "ctx", "event")
	var a args
	if c.given(3) {
		a.raw("data", c.json(l.Get(3), "the data"))
	}
	a.text("type", c.text(2, "the type"))
	c.take("ctx.event", a)
	return 0
}

func contextAlert(l *lua.LState) int {
	c := method(l, "ctx", "alert")
	c.table(2, "the alert")
	o := c.options(2, false, "severity", "title", "detail")
	var a args
	if v := o.get("detail"); v != lua.LNil {
		a.text("detail", c.textOf(v, "detail"))
	}
	a.text("severity", c.textOf(o.get("severity"), "severity"))
	a.text("title", c.textOf(o.get("title"), "title"))
	c.take("ctx.alert", a)
	return 0
}

func contextRelease(l *lua.LState) int {
	c := method(l, "ctx", "release")
	var a args
	a.text("id", c.text(2, "the id"))
	return c.give("ctx.release", a)
}

func contextHTTP(l *lua.LState) int {
	c := method(l, "ctx", "http")
	c.table(2, "the request")
	o := c.options(2, false, "url", "method", "headers", "json", "body", "timeout", "idempotent")
	var a args
	if v := o.get("body"); v != lua.LNil {
		s, ok := v.(lua.LString)
		if !ok {
			c.invalid("body is %s, expected a text; json takes other values", article(typeName(v)))
		}
		if s != "" {
			a.raw("body", c.json(s, "body"))
		}
	}
	if v := o.get("headers"); v != lua.LNil {
		t, ok := v.(*lua.LTable)
		if !ok {
			c.invalid("headers is %s, expected a table", article(typeName(v)))
		}
		a.raw("headers", c.json(t, "headers"))
	}
	if v := o.get("idempotent"); v != lua.LNil {
		a.yes("idempotent", c.boolOf(v, "idempotent"))
	}
	if v := o.get("json"); v != lua.LNil {
		a.raw("json", c.json(v, "json"))
	}
	if v := o.get("method"); v != lua.LNil {
		a.text("method", c.textOf(v, "method"))
	}
	if v := o.get("timeout"); v != lua.LNil {
		a.text("timeout", c.durationOf(v, "timeout"))
	}
	a.text("url", c.textOf(o.get("url"), "url"))
	return c.give("ctx.http", a)
}

func contextSecret(l *lua.LState) int {
	c := method(l, "ctx", "secret")
	name := c.text(2, "the name")
	if len(name) > nameMost {
		c.invalid("the name has %d bytes, at most %d", len(name), nameMost)
	}
	l.Push(c.x.lib.secret(name))
	return 1
}

// secret makes the value that stands for a secret.
func (lib *library) secret(name string) *lua.LUserData {
	return &lua.LUserData{Value: secret(name), Env: lib.env, Metatable: lib.secretMeta}
}

func contextKV(l *lua.LState) int {
	c := method(l, "ctx", "kv")
	scope := "run"
	if c.given(2) {
		scope = c.text(2, "the scope")
	}
	kv, ok := c.x.lib.kvs[scope]
	if !ok {
		c.invalid("the scope is %s, expected run or pattern", quote(scope))
	}
	l.Push(kv)
	return 1
}

// contextKeep keeps a value. Only run does: what undo reads must not change under
// it from one activation to the next.
func contextKeep(l *lua.LState) int {
	c := method(l, "ctx", "keep")
	name := c.text(2, "the name")
	if len(name) > nameMost {
		c.invalid("the name has %d bytes, at most %d", len(name), nameMost)
	}
	if entry := c.x.a.Entry; entry != pattern.EntryRun && entry != "" {
		c.invalid("only run keeps values, and %s reads them", entry)
	}
	text := c.json(l.Get(3), "the value")
	size := len(name) + len(text)
	for n, v := range c.x.kept {
		if n != name {
			size += len(n) + len(v)
		}
	}
	if size > pattern.MaxKept {
		return c.x.raisef(l, pattern.FaultTooBig, "ctx:keep: the run would keep %d bytes, at most %d", size, pattern.MaxKept)
	}
	if c.x.kept == nil {
		c.x.kept = map[string][]byte{}
	}
	c.x.kept[name] = text
	return 0
}

// contextKept gives a value that was kept: in run what this activation has kept,
// since it runs from the top each time; else what run has left.
func contextKept(l *lua.LState) int {
	c := method(l, "ctx", "kept")
	name := c.text(2, "the name")
	text := c.x.kept[name]
	if entry := c.x.a.Entry; entry != pattern.EntryRun && entry != "" {
		text = c.x.a.Kept[name]
	}
	if text == nil {
		l.Push(lua.LNil)
		return 1
	}
	v, err := c.x.lib.decode(string(text))
	if err != nil {
		c.invalid("the value %s", err)
	}
	if v == lua.LValue(c.x.lib.null) && string(text) == "null" {
		v = c.x.lib.null
	}
	l.Push(v)
	return 1
}

func contextSkip(l *lua.LState) int {
	c := method(l, "ctx", "skip")
	if entry := c.x.a.Entry; entry == pattern.EntryGate || entry == pattern.EntryCheck {
		c.invalid("%s can't skip", entry)
	}
	if c.given(2) {
		c.x.result = appendString(nil, clip(c.text(2, "the reason"), faultTextMost))
	}
	c.x.over = overSkipped
	return c.x.unwind(l)
}

func contextDefer(l *lua.LState) int {
	c := method(l, "ctx", "defer")
	f, ok := l.Get(2).(*lua.LFunction)
	switch entry := c.x.a.Entry; {
	case !ok:
		c.invalid("expected a function, got %s", article(typeName(l.Get(2))))
	case entry == pattern.EntryGate || entry == pattern.EntryCheck:
		c.invalid("%s can't defer", entry)
	case c.x.deferring:
		c.invalid("a deferred function can't defer another")
	case len(c.x.defers) >= defersMost:
		c.invalid("more than %d functions", defersMost)
	}
	c.x.defers = append(c.x.defers, f)
	return 0
}

// kvFunctions are those of ctx:kv(scope).
func kvFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"get": func(l *lua.LState) int {
			c := method(l, "kv", "get")
			return c.give("kv.get", c.keyArgs(nil, nil, nil))
		},
		"set": func(l *lua.LState) int {
			c := method(l, "kv", "set")
			c.take("kv.set", c.keyArgs(nil, nil, c.json(l.Get(3), "the value")))
			return 0
		},
		"incr": func(l *lua.LState) int {
			c := method(l, "kv", "incr")
			var by []byte
			if c.given(3) {
				if _, ok := l.Get(3).(lua.LNumber); !ok {
					c.invalid("expected a number to add, got %s", article(typeName(l.Get(3))))
				}
				by = c.json(l.Get(3), "the number")
			}
			return c.give("kv.incr", c.keyArgs(by, nil, nil))
		},
		"cas": func(l *lua.LState) int {
			c := method(l, "kv", "cas")
			var old []byte
			if c.given(3) {
				old = c.json(l.Get(3), "the old value")
			}
			return c.give("kv.cas", c.keyArgs(nil, old, c.json(l.Get(4), "the new value")))
		},
	}
}

// keyArgs are the arguments of the operations of kv, whose key is the first.
func (c caller) keyArgs(by, old, value []byte) (a args) {
	key := c.text(2, "the key")
	if len(key) > nameMost {
		c.invalid("the key has %d bytes, at most %d", len(key), nameMost)
	}
	a.raw("by", by)
	a.text("key", key)
	a.raw("old", old)
	ud, _ := c.l.Get(1).(*lua.LUserData)
	scope, _ := ud.Value.(store)
	a.text("scope", string(scope))
	a.raw("value", value)
	return a
}
