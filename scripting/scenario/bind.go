package scenario

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// bind makes t, what a test gets.
func (a *attempt) bind() *lua.LUserData {
	m := &methods{name: "t", calls: map[string]lua.LGFunction{
		"device": a.tDevice, "fleet": a.tFleet, "run": a.tRun, "start": a.tStart, "finish": a.tFinish, "advance": a.tAdvance, "at": a.tAt, "now": a.tNow,
		"approve": a.tApprove, "deny": a.tDeny, "cancel": a.tCancel, "undo": a.tUndo, "gate": a.tGate, "check": a.tCheck, "applies": a.tApplies,
		"http": a.tHTTP, "kv": a.tKV, "secret": a.tSecret, "pattern": a.tPattern, "grant": a.tGrant, "deny_need": a.tDenyNeed, "events": a.tEvents, "runs": a.tRuns,
		"equal": a.tEqual, "ok": a.tOK, "matches": a.tMatches, "took_less_than": a.tTookLess, "took_more_than": a.tTookMore, "logs": a.tLogs, "phases": a.tPhases,
		"uncertain": a.tUncertain, "skip": a.tSkip, "fail": a.tFail,
	}}
	return m.value(a.lua, a)
}

// value reads an argument as JSON.
func (a *attempt) value(l *lua.LState, n int) json.RawMessage {
	v, err := toJSON(l.Get(n))
	if err != nil {
		l.ArgError(n, err.Error())
	}
	return v
}

// span reads an argument as a duration.
func (a *attempt) span(l *lua.LState, n int) time.Duration {
	d, err := span(l.CheckString(n), 0)
	if err != nil {
		l.ArgError(n, err.Error())
	}
	return d
}

// option reads a member of a table of options.
func option(l *lua.LState, n int, name string) lua.LValue {
	if t, ok := l.Get(n).(*lua.LTable); ok {
		return t.RawGetString(name)
	}
	return lua.LNil
}

// spanOption reads a duration there.
func spanOption(l *lua.LState, n int, name string) time.Duration {
	v := option(l, n, name)
	if v == lua.LNil {
		return 0
	}
	d, err := span(v.String(), 0)
	if err != nil {
		l.ArgError(n, name+": "+err.Error())
	}
	return d
}

// runOf is the run of an argument, by default the one that was started last.
func (a *attempt) runOf(l *lua.LState, n int) *run {
	id := a.last
	switch v := l.Get(n).(type) {
	case *lua.LUserData:
		r, ok := v.Value.(runHandle)
		if !ok {
			l.ArgError(n, "expected a run, as t:run and t:start give it")
		}
		id = string(r)
	case *lua.LNilType:
	default:
		l.ArgError(n, "expected a run, as t:run and t:start give it")
	}
	r := a.hub.memory.run(id)
	if r == nil {
		l.RaiseError("there is no run yet: t:run or t:start makes one")
	}
	return r
}

// begin starts a run of the pattern under test for t:run and t:start.
func (a *attempt) begin(l *lua.LState, on string, params, options int) *run {
	if v, ok := option(l, options, "device").(*lua.LUserData); ok {
		if d, ok := v.Value.(*device); ok {
			on = d.id
		}
	}
	p := a.programs[a.main]
	if p.manifest.Scope == pattern.ScopeFleet {
		on = ""
	} else if on == "" {
		if len(a.devices) == 0 {
			a.must(l, "device-1", [3]json.RawMessage{}, true)
		}
		on = a.devices[0].id
	}
	text := a.value(l, params)
	if string(text) == "[]" {
		text = nil
	}
	r, f := a.hub.start(a.main, on, text)
	if f != nil {
		a.fail(l, 1, "the run can't be started: "+f.Message, "")
	}
	a.hub.begin(r)
	a.last = r.ID
	return r
}

func (a *attempt) tRun(l *lua.LState) int { return a.runOn(l, "") }

func (a *attempt) runOn(l *lua.LState, on string) int {
	id := a.begin(l, on, 2, 3).ID
	a.check(l, a.await(id))
	l.Push(a.bindRun(id))
	return 1
}

func (a *attempt) tStart(l *lua.LState) int { return a.startOn(l, "") }

func (a *attempt) startOn(l *lua.LState, on string) int {
	id := a.begin(l, on, 2, 3).ID
	a.check(l, a.advance(a.now, nil))
	l.Push(a.bindRun(id))
	return 1
}

func (a *attempt) tFinish(l *lua.LState) int {
	id := a.runOf(l, 2).ID
	a.check(l, a.await(id))
	l.Push(a.bindRun(id))
	return 1
}

func (a *attempt) tAdvance(l *lua.LState) int {
	a.check(l, a.advance(a.now.Add(a.span(l, 2)), nil))
	return 0
}

func (a *attempt) tAt(l *lua.LState) int {
	when, err := time.Parse(time.RFC3339, l.CheckString(2))
	if err != nil {
		l.ArgError(2, "expected a time such as 2026-03-02T08:00:00Z")
	}
	if len(a.hub.memory.Runs) == 0 && len(a.devices) == 0 {
		a.now, a.began = when, when
		return 0
	}
	if when.Before(a.now) {
		l.ArgError(2, "time does not go back: it is "+a.now.Format(time.RFC3339))
	}
	a.check(l, a.advance(when, nil))
	return 0
}

func (a *attempt) tNow(l *lua.LState) int {
	l.Push(lua.LString(a.now.Format(time.RFC3339)))
	return 1
}

func (a *attempt) tApprove(l *lua.LState) int { return a.answer(l, true) }

func (a *attempt) tDeny(l *lua.LState) int { return a.answer(l, false) }

// answer answers the question that is open, else the next one.
func (a *attempt) answer(l *lua.LState, approve bool) int {
	d := decision{approve: approve, after: spanOption(l, 2, "after")}
	switch v := l.Get(2).(type) {
	case lua.LString:
		if approve {
			d.by = string(v)
		} else {
			d.reason = string(v)
		}
	case *lua.LTable:
		for name, place := range map[string]*string{"by": &d.by, "reason": &d.reason, "of": &d.of} {
			if s := v.RawGetString(name); s != lua.LNil {
				*place = s.String()
			}
		}
	}
	for _, r := range a.hub.memory.Runs {
		s := r.State.Open()
		var asked pattern.ApproveArgs
		if s == nil || s.Op != "ctx.approve" || json.Unmarshal(s.Args, &asked) != nil || d.of != "" && !containsText(asked.Question, d.of) {
			continue
		}
		id, ref := r.ID, s.Ref
		a.at(a.now.Add(d.after), 0, func() error { return a.decide(id, ref, d) })
		a.check(l, a.advance(a.now, nil))
		return 0
	}
	a.answers = append(a.answers, d)
	return 0
}

func (a *attempt) tCancel(l *lua.LState) int {
	if _, ok := l.Get(2).(*lua.LUserData); !ok && l.Get(2) != lua.LNil { // the run was left out
		l.Insert(lua.LNil, 2)
	}
	r := a.runOf(l, 2)
	a.check(l, a.hub.stop(r, l.OptString(3, "canceled by an operator"), lua.LVAsBool(option(l, 4, "undo"))))
	a.check(l, a.advance(a.now, nil))
	return 0
}

func (a *attempt) tUndo(l *lua.LState) int {
	r := a.runOf(l, 2)
	if !a.programs[r.Pattern].manifest.HasUndo {
		a.fail(l, 1, "the pattern has no undo", "")
	}
	a.check(l, r.State.BeginUndo())
	a.check(l, a.hub.stored(r, "the beginning of an undo"))
	id := r.ID
	a.check(l, a.await(id))
	l.Push(a.bindRun(id))
	return 1
}

// aside runs an entry that is never stored and returns how it ended.
func (a *attempt) aside(l *lua.LState, entry pattern.Entry, device string, params, wave json.RawMessage) *run {
	r, f := a.hub.start(a.main, device, params)
	if f != nil {
		a.fail(l, 1, "it can't be started: "+f.Message, "")
	}
	r.ID, r.State = "r-0", pattern.Run{State: pattern.Ready, Entry: entry}
	p := a.programs[a.main]
	for range pattern.MaxSteps {
		act := a.hub.activation(r)
		act.Wave = wave
		o := a.execute(p.program, act)
		a.cover(o.Lines)
		a.check(l, r.State.Take(&o, &world{a.hub, r}, r.Grants, a.now))
		if r.State.State.Final() {
			break
		}
		if r.State.State != pattern.Ready {
			a.fail(l, 1, fmt.Sprintf("%s waits for %s, which it may not", entry, r.State.Open().Op), "")
		}
	}
	if f := r.State.Fault; f != nil {
		a.fail(l, 1, fmt.Sprintf("%s failed with %s: %s", entry, f.Code, f.Message), "")
	}
	return r
}

func (a *attempt) tGate(l *lua.LState) int {
	if !a.programs[a.main].manifest.HasGate {
		a.fail(l, 1, "the pattern has no gate", "")
	}
	r := a.aside(l, pattern.EntryGate, "", a.value(l, 3), a.value(l, 2))
	var d struct {
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
	}
	if err := json.Unmarshal(r.State.Result, &d); err != nil {
		a.fail(l, 1, fmt.Sprintf("gate gave %s, expected go, pause, undo or abort, and a reason", r.State.Result), "")
	}
	l.Push(lua.LString(d.Decision))
	l.Push(lua.LString(d.Reason))
	return 2
}

func (a *attempt) tCheck(l *lua.LState) int {
	if !a.programs[a.main].manifest.HasCheck {
		a.fail(l, 1, "the pattern has no check", "")
	}
	device := a.deviceOption(l, 3)
	r := a.aside(l, pattern.EntryCheck, device.id, a.value(l, 2), nil)
	if v := must(l, r.State.Result); v == nullOf(l) {
		l.Push(lua.LNil)
	} else {
		l.Push(v)
	}
	return 1
}

// deviceOption is the device of options, by default the first.
func (a *attempt) deviceOption(l *lua.LState, n int) *device {
	for _, v := range []lua.LValue{option(l, n, "device"), l.Get(n)} {
		if ud, ok := v.(*lua.LUserData); ok {
			if d, ok := ud.Value.(*device); ok {
				return d
			}
		}
	}
	if len(a.devices) == 0 {
		a.must(l, "device-1", [3]json.RawMessage{}, true)
	}
	return a.devices[0]
}

func (a *attempt) tApplies(l *lua.LState) int {
	d := a.deviceOption(l, 2)
	m := a.programs[a.main].manifest
	if m.Applies == "" {
		l.Push(lua.LTrue)
		return 1
	}
	list, err := (&world{a.hub, &run{}}).selected(m.Applies)
	a.check(l, err)
	l.Push(lua.LBool(slices.ContainsFunc(list, func(i *identity) bool { return i.ID == d.id })))
	return 1
}

func (a *attempt) tKV(l *lua.LState) int {
	scope := l.CheckString(2)
	prefix := "pattern:" + a.main + "\x00"
	if scope != "pattern" {
		r := a.runOf(l, 4)
		prefix = r.ID + "\x00"
	}
	if t, ok := l.Get(3).(*lua.LTable); ok {
		t.ForEach(func(k, v lua.LValue) {
			text, err := toJSON(v)
			if err != nil {
				l.ArgError(3, err.Error())
			}
			a.hub.memory.Values[prefix+k.String()] = text
		})
		return 0
	}
	out := l.NewTable()
	for _, key := range sortedKeys(a.hub.memory.Values) {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			out.RawSetString(name, must(l, a.hub.memory.Values[key]))
		}
	}
	l.Push(out)
	return 1
}

func (a *attempt) tSecret(l *lua.LState) int {
	a.secrets[l.CheckString(2)] = l.CheckString(3)
	return 0
}

func (a *attempt) tPattern(l *lua.LState) int {
	name := l.CheckString(2)
	if l.Get(3) == lua.LNil {
		p, err := a.find(name)
		a.check(l, err)
		a.programs[name] = p
		return 0
	}
	answer := l.Get(3)
	a.programs[name] = &loaded{name: name, stub: func(device string, params json.RawMessage) (json.RawMessage, *pattern.Fault, error) {
		f, ok := answer.(*lua.LFunction)
		if !ok {
			v, err := toJSON(answer)
			return v, nil, err
		}
		list, err := protect(a.lua, f, 1, must(a.lua, params), lua.LString(device))
		if err != nil {
			if f := faultOf(err); f != nil {
				return nil, f, nil
			}
			return nil, nil, failed{a.failureOf(err)}
		}
		v, err := toJSON(list[0])
		return v, nil, err
	}}
	return 0
}

// faultOf is the fault that a function of a test raised as a table with a code;
// nil if it raised anything else.
func faultOf(err error) *pattern.Fault {
	api, ok := err.(*lua.ApiError) //nolint:errorlint // Lua gives just this type
	if !ok {
		return nil
	}
	t, ok := api.Object.(*lua.LTable)
	if !ok || t.RawGetString("code") == lua.LNil {
		return nil
	}
	f := &pattern.Fault{}
	text, err := toJSON(t)
	if err != nil || json.Unmarshal(text, f) != nil {
		return nil
	}
	return f
}

func (a *attempt) tGrant(l *lua.LState) int {
	need, before := pattern.Need(l.CheckString(2)), a.grants
	a.grants = func(list pattern.Needs) pattern.Needs { return append(before(list), need) }
	return 0
}

func (a *attempt) tDenyNeed(l *lua.LState) int {
	need, before := pattern.Need(l.CheckString(2)), a.grants
	if m := a.programs[a.main].manifest; !slices.Contains(m.Needs, need) {
		a.fail(l, 1, fmt.Sprintf("the manifest does not need %q", need), "")
	}
	a.grants = func(list pattern.Needs) pattern.Needs {
		return slices.DeleteFunc(before(list), func(n pattern.Need) bool { return n == need })
	}
	return 0
}

func (a *attempt) tEvents(l *lua.LState) int {
	l.Push(a.eventsOf(l, ""))
	return 1
}

// eventsOf lists events, of one device or of all.
func (a *attempt) eventsOf(l *lua.LState, device string) lua.LValue {
	out := l.NewTable()
	for _, e := range a.hub.memory.Events {
		if device != "" && e.Device != device {
			continue
		}
		t := l.NewTable()
		t.RawSetString("type", lua.LString(e.Type))
		t.RawSetString("data", must(l, e.Data))
		if device == "" {
			t.RawSetString("device", lua.LString(e.Device))
		}
		out.Append(t)
	}
	return out
}

func (a *attempt) tRuns(l *lua.LState) int {
	out := l.NewTable()
	for _, r := range a.hub.memory.Runs {
		out.Append(a.bindRun(r.ID))
	}
	l.Push(out)
	return 1
}

func (a *attempt) tEqual(l *lua.LState) int {
	got, err := shown(l.Get(2))
	if err != nil {
		l.ArgError(1, err.Error())
	}
	want, err := shown(l.Get(3))
	if err != nil {
		l.ArgError(2, err.Error())
	}
	if got == want {
		return 0
	}
	message, diff := fmt.Sprintf("found %s, expected %s", got, want), ""
	if strings.Contains(got+want, "\n") {
		message, diff = "found something else than expected (- expected, + found)", diffText(want, got)
	}
	if why := l.OptString(4, ""); why != "" {
		message = why + ": " + message
	}
	a.fail(l, 1, message, diff)
	return 0
}

func (a *attempt) tOK(l *lua.LState) int {
	if lua.LVIsFalse(l.Get(2)) {
		a.fail(l, 1, l.OptString(3, "found "+l.Get(2).String()+", expected a value that is true"), "")
	}
	return 0
}

func (a *attempt) tMatches(l *lua.LState) int {
	re, err := regexp.Compile(l.CheckString(3))
	if err != nil {
		l.ArgError(2, err.Error())
	}
	text := l.Get(2)
	if s, ok := text.(lua.LString); !ok || !re.MatchString(string(s)) {
		a.fail(l, 1, fmt.Sprintf("found %q, expected what matches %q", text.String(), re), "")
	}
	return 0
}

// took is how long a run took; until now, if it has not ended.
func (a *attempt) took(r *run) time.Duration {
	if r.Ended.IsZero() {
		return a.now.Sub(r.Started)
	}
	return r.Ended.Sub(r.Started)
}

func (a *attempt) tTookLess(l *lua.LState) int {
	if took, most := a.took(a.runOf(l, 3)), a.span(l, 2); took >= most {
		a.fail(l, 1, fmt.Sprintf("the run took %s, expected less than %s", took, most), "")
	}
	return 0
}

func (a *attempt) tTookMore(l *lua.LState) int {
	if took, least := a.took(a.runOf(l, 3)), a.span(l, 2); took <= least {
		a.fail(l, 1, fmt.Sprintf("the run took %s, expected more than %s", took, least), "")
	}
	return 0
}

func (a *attempt) tLogs(l *lua.LState) int {
	l.Push(logsOf(l, a.runOf(l, 2)))
	return 1
}

func logsOf(l *lua.LState, r *run) lua.LValue {
	var list []string
	for _, line := range r.State.Logs {
		list = append(list, line.Text)
	}
	return texts(l, list)
}

func (a *attempt) tPhases(l *lua.LState) int {
	l.Push(texts(l, a.runOf(l, 2).Phases))
	return 1
}

func (a *attempt) tUncertain(l *lua.LState) int {
	e := &ending{}
	for n := 2; n <= l.GetTop(); n++ {
		switch v := l.Get(n).(type) {
		case *lua.LFunction:
			e.check = v
		case lua.LString:
			if !slices.Contains(pattern.States(), pattern.State(v)) {
				l.ArgError(n, fmt.Sprintf("%q is no state of a run", v))
			}
			e.states = append(e.states, string(v))
		default:
			l.ArgError(n, "expected a state of a run, or a function that gets the run")
		}
	}
	a.ends = e
	return 0
}

func (a *attempt) tSkip(l *lua.LState) int {
	raised(l, skipped(l.OptString(2, "skipped")))
	return 0
}

func (a *attempt) tFail(l *lua.LState) int {
	a.fail(l, 1, l.OptString(2, "the test says so"), "")
	return 0
}
