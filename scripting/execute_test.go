package scripting

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

func program(t *testing.T, text string) *Program {
	t.Helper()
	p, err := Compile(&pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// body is a program whose run has this body.
func body(t *testing.T, text string) *Program {
	t.Helper()
	p, err := Compile(bundleOf(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func execute(p *Program, change func(*pattern.Activation)) pattern.Outcome {
	a := activationOf()
	a.Now, a.Seed = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), 7
	a.Twin = json.RawMessage(`{"deviceId":"d1","connected":true,"tags":{"site":"A","a b":1},"properties":{"desired":{"x":1},"reported":{"boot":{"count":3},"none":null}}}`)
	if change != nil {
		change(&a)
	}
	return Execute(p, &a)
}

func done(op, args, result string) pattern.Step {
	return pattern.Step{Op: op, Args: raw(args), Result: raw(result), Line: "pattern.lua:9"}
}

func raw(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// TestResults are bodies of run, and what comes of them.
func TestResults(t *testing.T) {
	for text, want := range map[string]string{
		`return 1 .. "a" .. 2.5`: `returned "1a2.5"`,
		`return { a = 1, b = { 1, 2 }, c = json.null, d = {}, e = json.array {} }`: `returned {"a":1,"b":[1,2],"c":null,"d":{},"e":[]}`,
		`return nil`: `returned `,
		`return dev.id .. "/" .. ctx.id .. "/" .. ctx.attempt`: `returned "d1/r-1/1"`,
		`return ctx.key`: `returned "r-1"`,
		`return dev:get("reported.boot.count") + dev:get("reported.boot.nothing", 40)`:                                                  `returned 43`,
		`return { dev:get("connected"), dev:get("tags.site"), dev:get("tags['a b']"), dev:get("desired.x"), dev:get("reported.none") }`: `returned [true,"A",1,1,null]`,
		`return dev:twin().properties.reported.boot`:                                                                                    `returned {"count":3}`,
		`return ctx:now()`:                    `returned "2026-11-30T12:00:00Z"`,
		`return time.add(ctx:now(), "1d12h")`: `returned "2026-12-02T00:00:00Z"`,
		`return time.diff("2026-11-30T12:00:00Z", "2026-11-30T11:00:00Z")`: `returned 3600`,
		`local a = ctx:random(1, 6) return a >= 1 and a <= 6`:              `returned true`,
		`return #ctx:uuid()`:                          `returned 36`,
		`ctx:skip("enough")`:                          `skipped "enough"`,
		`pcall(function() ctx:skip() end) error("x")`: `skipped `,
		`error("boom")`:                               `failed lua: boom at pattern.lua:1`,
		"\nlocal function f()\n error { code = 'bad', message = 'no', cause = { 1 } }\nend\nf()": `failed bad: no at pattern.lua:3`,
		`local x return x.y`:                    `failed lua: attempt to take the member "y" of a nil at pattern.lua:1`,
		`local x x()`:                           `failed lua: attempt to call what is no function at pattern.lua:1`,
		`count = 1`:                             `failed lua: assignment to global "count": write 'local count' instead at pattern.lua:1`,
		`return os.time()`:                      `failed lua: global "os" does not exist here: ctx:now() gives the time, and a program has no files and no environment at pattern.lua:1`,
		`return string.dump(f)`:                 `failed lua: function "string.dump" does not exist here: a program is its files: use require "lib.name" at pattern.lua:1`,
		`dev.call("x")`:                         `failed invalid: dev:call: call it with a colon: dev:call(...) at pattern.lua:1`,
		`dev:cal("x")`:                          `failed lua: dev has no "cal": did you mean dev:call? at pattern.lua:1`,
		`dev:call("x", nil, { timout = "5s" })`: `failed invalid: dev:call: there is no option "timout": did you mean timeout? at pattern.lua:1`,
		`dev:call()`:                            `failed invalid: dev:call: the method is nil, expected a text at pattern.lua:1`,
		`string.x = 1`:                          `failed lua: string can't be changed at pattern.lua:1`,
		`return { 1, nil, 3 }`:                  `failed invalid: what run returned: it has a list of 2 items that ends at 3: nil can't be in a list, use json.null`,
		`return { 1, a = 2 }`:                   `failed invalid: what run returned: it has a table with both the key "a" and items, expected an object or a list`,
		`return 0 / 0`:                          `failed invalid: what run returned: it has the number nan in it, which JSON does not know`,
		`return function() end`:                 `failed invalid: what run returned: it has a function in it, which can't leave the program`,
		`return "\255"`:                         `failed invalid: what run returned: it has a text that is not UTF-8: use base64.encode`,
		`local s = ctx:secret("smtp") return tostring(s)`:                                                                         `returned "secret:smtp"`,
		`return { key = ctx:secret("smtp") }`:                                                                                     `returned {"key":{"$secret":"smtp"}}`,
		`return "x" .. ctx:secret("smtp")`:                                                                                        `failed invalid: a secret can't be joined with a text: give it whole, as a header, a member of json or of a payload at pattern.lua:1`,
		`local ok, e = pcall(error, "x") return { ok, e.code, e.message, tostring(e), "!" .. e }`:                                 `returned [false,"lua","x","lua: x","!lua: x"]`,
		`local ok, e = pcall(error, { code = "c", message = "m" }) return { e.code, tostring(e) }`:                                `returned ["c","c: m"]`,
		`local _, e = xpcall(function() error("a") end, function(e) return e.message .. "b" end) return e`:                        `returned "ab"`,
		`local n = 0 local function f() n = n + 1 error("x") end for i = 1, 3 do pcall(f) end return n`:                           `returned 3`,
		`local keep pcall(function() local v = 5 keep = function() v = v + 1 return v end error("x") end) return keep() + keep()`: `returned 13`,
		`local a, b = 1, 2 local function f(a, b) a, b = b, tostring(a) return a .. b end return f(a, b)`:                         `returned "21"`,
		`local t = { 1, 2 } local i = 1 i, t[i] = i + 1, 20 return { i, t[1], t[2] }`:                                             `returned [2,20,2]`,
		`return tostring({}) .. tostring(print_ or pcall) .. tostring(dev)`:                                                       `failed lua: global "print_" does not exist here at pattern.lua:1`,
		`return tostring({}) .. tostring(pcall) .. tostring(dev)`:                                                                 `returned "tablefunctiondev"`,
		`return getmetatable("")`:              `returned false`,
		`return (pcall(setmetatable, "", {}))`: `returned false`,
		`local t = {} for k, v in pairs(json.decode('{"b":1,"a":2,"c":[]}')) do t[#t + 1] = k end return t`:                                                                       `returned ["a","b","c"]`,
		`return json.encode(json.decode('{"b":[],"a":{},"n":null,"f":1.5,"e":1e30}'))`:                                                                                            `returned "{\"a\":{},\"b\":[],\"e\":1e+30,\"f\":1.5,\"n\":null}"`,
		`return version.satisfies("1.4.0", "^1.2")`:                                                                                                                               `returned true`,
		`return text.template("{n} of {a.b} {{", { n = 3, a = { b = "x" } })`:                                                                                                     `returned "3 of x {"`,
		`return hash.sha256("") .. hex.encode("a") .. base64.decode(base64.encode("b"))`:                                                                                          `returned "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` + `61b"`,
		`return { ("abc"):upper(), ("a-b"):gsub("%-", "+"), ("k = v"):match("(%w+) = (%w+)") }`:                                                                                   `returned ["ABC","a+b","k","v"]`,
		`return string.format("%5.1f|%-4s|%04d|%x|%g|%q|%s", 3.14159, "a", 42, 255, 1e20, "a\nb", json.null)`:                                                                     `returned "  3.1|a   |0042|ff|1e+20|\"a\\\nb\"|null"`,
		`return { tonumber("0x10"), tonumber("1e3"), tonumber("z", 36), tonumber("x") or "no", 10 / 2, 2 ^ 53, 0.1 }`:                                                             `returned [16,1000,35,"no",5,9007199254740992,0.1]`,
		`local t = { 3, 1, 2 } table.sort(t, function(a, b) return a > b end) return table.concat(t, ",")`:                                                                        `returned "3,2,1"`,
		`return select("#", unpack({ 1, 2, 3 })) + select(-1, 1, 2)`:                                                                                                              `returned 5`,
		`local a = {} for w in ("a b c"):gmatch("%a") do a[#a + 1] = w end return a`:                                                                                              `returned ["a","b","c"]`,
		`return "a" < "b" and "b" >= "a" and not ("a" > "b") and 1 <= 2`:                                                                                                          `returned true`,
		`local mt = { __lt = function(a, b) return a.n < b.n end } local a, b = setmetatable({ n = 1 }, mt), setmetatable({ n = 2 }, mt) return { a < b, a > b, a <= b, a >= b }`: `returned [true,false,true,false]`,
		`ctx:defer(function() ctx:log("cleaned") end) return 1`:                                                                                                                   `returned 1`,
		`local t = {} t.t = t return t`: `failed invalid: what run returned: it nests deeper than 32 levels`,
	} {
		o := execute(body(t, text), nil)
		got := string(o.Ending) + " " + string(o.Result)
		if o.Fault != nil {
			got = string(o.Ending) + " " + o.Fault.Error()
			if o.Fault.Line != "" {
				got += " at " + o.Fault.Line
			}
		}
		if got != want {
			t.Errorf("%s\n     got %s\nexpected %s", text, got, want)
		}
	}
}

// TestSteps looks at the arguments that calls make of theirs.
func TestSteps(t *testing.T) {
	for text, want := range map[string]string{
		`dev:call("reboot", { delay = 0 }, { timeout = 30, online = "1h", retry = 2, idempotent = true })`: `dev.call {"idempotent":true,"method":"reboot","online":"1h","payload":{"delay":0},"retry":2,"timeout":"30s"}`,
		`dev:desire { a = json.null, b = { 1 } }`:                                                          `dev.desire {"patch":{"a":null,"b":[1]}}`,
		`dev:send("hi", { k = "v" })`:                                                                      `dev.send {"body":"hi","props":{"k":"v"}}`,
		`dev:wait("reported.n > before and x", { before = 1, x = true, timeout = "10m" })`:                 `dev.wait {"timeout":"10m","vars":{"before":1,"x":true},"where":"reported.n \u003e before and x"}`,
		`dev:wait_online { timeout = "1h" }`:                                                               `dev.wait {"timeout":"1h","where":"connected"}`,
		`dev:rotate_key()`:                                                                                 `dev.rotate_key `,
		`dev:run("reboot", { delay = 1 }, { timeout = "5m" })`:                                             `dev.run {"params":{"delay":1},"pattern":"reboot","timeout":"5m"}`,
		`dev:quarantine("odd")`:                                                                            `dev.quarantine {"reason":"odd"}`,
		`ctx:sleep(90)`:                                                                                    `ctx.sleep {"for":"1m30s"}`,
		`ctx:until_("2026-12-01T00:00:00Z")`:                                                               `ctx.until_ {"until":"2026-12-01T00:00:00Z"}`,
		`ctx:approve("Go on?", { by = "ops" })`:                                                            `ctx.approve {"by":"ops","question":"Go on?"}`,
		`ctx:http { url = "https://x", method = "POST", json = { a = 1 }, headers = { authorization = ctx:secret("k") } }`: `ctx.http {"headers":{"authorization":{"$secret":"k"}},"json":{"a":1},"method":"POST","url":"https://x"}`,
		`ctx:kv("pattern"):cas("k", nil, { 1 })`: `kv.cas {"key":"k","scope":"pattern","value":[1]}`,
		`ctx:kv():incr("k", 2)`:                  `kv.incr {"by":2,"key":"k","scope":"run"}`,
	} {
		o := execute(body(t, text), nil)
		if len(o.Steps) == 0 {
			t.Errorf("%s: %s %v", text, o.Ending, o.Fault)
			continue
		}
		s := o.Steps[0]
		if got := s.Op + " " + string(s.Args); got != want || s.Line != "pattern.lua:1" {
			t.Errorf("%s\n     got %s at %s\nexpected %s", text, got, s.Line, want)
		}
		if again, err := json.Marshal(s.Args); len(s.Args) > 0 && (err != nil || string(again) != string(s.Args)) {
			t.Errorf("%s: a store makes %s of %s", text, again, s.Args)
		}
	}
	for _, op := range pattern.Operations() {
		if !strings.Contains(op.Name, ".") {
			t.Errorf("the operation %q", op.Name)
		}
	}
}

// TestReplay answers steps from a journal, and finds what differs.
func TestReplay(t *testing.T) {
	p := body(t, `
		ctx:log("first")
		local payload, status = dev:call("a", { n = 1 })
		ctx:log("second", status)
		local ok, e = pcall(dev.call, dev, "b")
		ctx:log(ok, e.code, e.status, e.payload.x)
		return dev:wait("connected").n`)
	first := done("dev.call", `{"method":"a","payload":{"n":1}}`, `{"payload":{"x":1},"status":200}`)
	second := done("dev.call", `{"method":"b"}`, "")
	second.Fault = &pattern.Fault{Code: pattern.FaultStatus, Message: "500", Status: 500, Payload: raw(`{"x":2}`)}
	third := done("dev.wait", `{"where":"connected"}`, `{"n":7}`)
	logs := func(o pattern.Outcome) (list []string) {
		for _, l := range o.Logs {
			list = append(list, l.Line+" "+l.Text)
		}
		return list
	}
	for _, test := range []struct {
		steps []pattern.Step
		end   pattern.Ending
		new   string
		logs  []string
		fault string
	}{
		{nil, pattern.EndSuspended, `dev.call {"method":"a","payload":{"n":1}} pattern.lua:3`, []string{"pattern.lua:2 first"}, ""},
		{[]pattern.Step{first}, pattern.EndSuspended, `dev.call {"method":"b"} pattern.lua:5`, []string{"pattern.lua:4 second 200"}, ""},
		{[]pattern.Step{first, second}, pattern.EndSuspended, `dev.wait {"where":"connected"} pattern.lua:7`, []string{"pattern.lua:6 false status 500 2"}, ""},
		{[]pattern.Step{first, second, third}, pattern.EndReturned, "", nil, ""},
		{[]pattern.Step{first, second, third, first}, pattern.EndDiverged, "", nil, `step 4 was dev.call {"method":"a","payload":{"n":1}} at pattern.lua:9, and the program has now ended before it`},
		{[]pattern.Step{second}, pattern.EndDiverged, "", []string{}, `step 1 was dev.call {"method":"b"} at pattern.lua:9, and is now dev.call {"method":"a","payload":{"n":1}} at pattern.lua:3`},
		{[]pattern.Step{third}, pattern.EndDiverged, "", []string{}, `step 1 was dev.wait {"where":"connected"} at pattern.lua:9, and is now dev.call {"method":"a","payload":{"n":1}} at pattern.lua:3`},
		{[]pattern.Step{done("dev.call", `{ "payload": {"n": 1}, "method": "a" }`, `{"status":200}`)}, pattern.EndSuspended, `dev.call {"method":"b"} pattern.lua:5`, []string{"pattern.lua:4 second 200"}, ""},
	} {
		o := execute(p, func(a *pattern.Activation) { a.Steps = test.steps })
		var got strings.Builder
		for _, s := range o.Steps {
			got.WriteString(s.Op + " " + string(s.Args) + " " + s.Line)
		}
		fault := ""
		if o.Fault != nil {
			fault = o.Fault.Message
		}
		if o.Ending != test.end || got.String() != test.new || fault != test.fault || !slices.Equal(logs(o), test.logs) {
			t.Errorf("%d steps: %s %q %q %q\nexpected %s %q %q %q", len(test.steps), o.Ending, got.String(), fault, logs(o), test.end, test.new, test.fault, test.logs)
		}
		if test.end == pattern.EndDiverged && o.Fault.Code != pattern.FaultNondeterministic {
			t.Error(o.Fault)
		}
	}
}

// TestBatchOfSteps goes on behind local and assumed steps, and not for ever.
func TestBatchOfSteps(t *testing.T) {
	o := execute(body(t, `local n = ctx:random(1, 1) dev:tag { a = n } ctx:event("x") local v = dev:desire { a = n } return v`), nil)
	if o.Ending != pattern.EndSuspended || len(o.Steps) != 4 || string(o.Steps[0].Result) != "1" || o.Steps[3].Op != "dev.desire" {
		t.Errorf("%s %+v", o.Ending, o.Steps)
	}
	o = execute(body(t, `for i = 1, 100 do ctx:random(1, 6) end return 1`), nil)
	if o.Ending != pattern.EndSuspended || len(o.Steps) != pattern.MaxBatch || o.Steps[pattern.MaxBatch-1].Result == nil {
		t.Errorf("%s with %d steps", o.Ending, len(o.Steps))
	}
	steps := o.Steps
	o = execute(body(t, `for i = 1, 100 do ctx:random(1, 6) end return 1`), func(a *pattern.Activation) { a.Steps = steps })
	if o.Ending != pattern.EndReturned || len(o.Steps) != 100-pattern.MaxBatch {
		t.Errorf("%s with %d steps: %v", o.Ending, len(o.Steps), o.Fault)
	}
}

// TestCancel raises the fault at each step from CancelAt on, and runs what was
// deferred, whose steps go on behind.
func TestCancel(t *testing.T) {
	p := body(t, `
		ctx:defer(function() dev:tag { a = 1 } ctx:sleep("1s") ctx:log("cleaned") end)
		ctx:defer(function() error("broken") end)
		dev:call("a")
		local ok, e = pcall(ctx.sleep, ctx, "1h")
		if ok then return 1 end
		ctx:log(e.code)
		ctx:sleep("1h")
		ctx:log("never")`)
	canceled := &pattern.Fault{Code: pattern.FaultCanceled, Message: "enough"}
	steps := []pattern.Step{done("dev.call", `{"method":"a"}`, `{"status":200}`)}
	cancel := func(a *pattern.Activation) { a.Steps, a.Cancel, a.CancelAt = steps, canceled, 2 }
	o := execute(p, cancel)
	if o.Ending != pattern.EndSuspended || len(o.Steps) != 2 || !o.Steps[0].Deferred || !o.Steps[1].Deferred || o.Steps[1].Op != "ctx.sleep" {
		t.Fatalf("%s %+v %v", o.Ending, o.Steps, o.Fault)
	}
	if len(o.Logs) != 2 || o.Logs[0].Text != "canceled" || !strings.Contains(o.Logs[1].Text, "broken") {
		t.Errorf("%+v", o.Logs)
	}
	steps = append(steps, o.Steps...)
	o = execute(p, cancel)
	if o.Ending != pattern.EndFailed || o.Fault.Code != pattern.FaultCanceled || len(o.Steps) != 0 || len(o.Logs) != 1 || o.Logs[0].Text != "cleaned" {
		t.Errorf("%s %v %+v %+v", o.Ending, o.Fault, o.Steps, o.Logs)
	}
	// A failed run does the same without a cancel, and one that was canceled while
	// deferred functions ran goes on with them.
	p = body(t, `ctx:defer(function() ctx:sleep("1s") dev:tag { a = 1 } end) error("x")`)
	o = execute(p, nil)
	if o.Ending != pattern.EndSuspended || len(o.Steps) != 1 || !o.Steps[0].Deferred {
		t.Fatalf("%s %+v", o.Ending, o.Steps)
	}
	o = execute(p, func(a *pattern.Activation) {
		a.Steps = []pattern.Step{{Op: "ctx.sleep", Args: raw(`{"for":"1s"}`), Deferred: true}}
		a.Cancel, a.CancelAt = canceled, 2
	})
	if o.Ending != pattern.EndFailed || len(o.Steps) != 1 || o.Steps[0].Op != "dev.tag" || o.Fault.Message != "x" {
		t.Errorf("%s %+v %v", o.Ending, o.Steps, o.Fault)
	}
}

// TestDeferredAfterBudget still cleans up, also after a stack that was full.
func TestDeferredAfterBudget(t *testing.T) {
	for _, text := range []string{`while true do end`, `local function f() return 1 + f() end f()`, `pcall(function() while true do end end)`} {
		o := execute(body(t, `local what = "x" ctx:defer(function() dev:tag { [what] = dev.id } end) `+text), nil)
		if o.Ending != pattern.EndFailed || o.Fault.Code != pattern.FaultBudget || len(o.Steps) != 1 || string(o.Steps[0].Args) != `{"patch":{"x":"d1"}}` || o.Fault.Line != "pattern.lua:1" {
			t.Errorf("%s: %s %v %+v %v", text, o.Ending, o.Fault, o.Steps, o.Logs)
		}
	}
}

func TestEntries(t *testing.T) {
	p := program(t, `return pattern { name = "x", version = "1.0.0",
		run = function(dev, p, ctx) ctx:keep("old", { 1 }) return ctx:kept("old")[1] end,
		undo = function(dev, p, ctx) dev:desire { x = ctx:kept("old") } end,
		gate = function(run, wave, ctx) if run:count("reported.bad") > wave.failed then return "undo", "bad" end return "go" end,
		check = function(dev, p) if dev:get("tags.site") ~= "A" then return "elsewhere" end dev:tag { a = 1 } end,
	}`)
	o := execute(p, nil)
	if string(o.Result) != "1" || string(o.Kept["old"]) != "[1]" {
		t.Errorf("%+v", o)
	}
	o = execute(p, func(a *pattern.Activation) { a.Entry, a.Kept = pattern.EntryUndo, o.Kept })
	if o.Ending != pattern.EndSuspended || string(o.Steps[0].Args) != `{"patch":{"x":[1]}}` || o.Kept != nil {
		t.Errorf("%+v", o)
	}
	gate := func(count string) pattern.Outcome {
		return execute(p, func(a *pattern.Activation) {
			a.Entry, a.Wave, a.Steps = pattern.EntryGate, raw(`{"failed":1}`), []pattern.Step{done("run.count", `{"where":"reported.bad"}`, count)}
		})
	}
	if o := gate("2"); string(o.Result) != `{"decision":"undo","reason":"bad"}` {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
	if o := gate("1"); string(o.Result) != `{"decision":"go","reason":""}` {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
	if o := execute(p, func(a *pattern.Activation) { a.Entry, a.Twin = pattern.EntryCheck, raw(`{"tags":{"site":"B"}}`) }); string(o.Result) != `"elsewhere"` {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
	if o := execute(p, func(a *pattern.Activation) { a.Entry = pattern.EntryCheck }); o.Fault == nil || o.Fault.Code != pattern.FaultDenied {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
	if o := execute(body(t, ""), func(a *pattern.Activation) { a.Entry = pattern.EntryUndo }); o.Fault == nil || o.Fault.Code != pattern.FaultUnavailable {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
}

// TestRequire loads files of the bundle, once each, and nothing else.
func TestRequire(t *testing.T) {
	b := bundleOf(`local lib = require "lib.a" return { lib.n, require("lib.a").n, lib.deep }`)
	b.Files["lib/a.lua"] = []byte("local n = 0\nn = n + 1\nreturn { n = n, deep = require 'lib.b' }")
	b.Files["lib/b.lua"] = []byte(`return "b"`)
	b.Files["test/x_test.lua"] = []byte(`this is no Lua`)
	p, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	if o := execute(p, nil); string(o.Result) != `[1,1,"b"]` {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
	b.Files["lib/b.lua"] = []byte(`return require "lib.a"`)
	if p, err = Compile(b); err != nil {
		t.Fatal(err)
	}
	if o := execute(p, nil); o.Fault == nil || !strings.Contains(o.Fault.Message, "circle") {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
	for _, name := range []string{"os", "../x", "pattern", "test.x_test", "/etc/passwd"} {
		if o := execute(body(t, fmt.Sprintf("require %q", name)), nil); o.Fault == nil || !strings.Contains(o.Fault.Message, "has no file") {
			t.Errorf("%s: %s %v", name, o.Result, o.Fault)
		}
	}
}

func TestTrace(t *testing.T) {
	p := body(t, "\nif p.x then\n  dev:tag { a = 1 }\nelse\n  ctx:log('no')\nend")
	o := execute(p, func(a *pattern.Activation) { a.Trace = true })
	if want := map[string][]int{"pattern.lua": {1, 2, 5, 6}}; !reflect.DeepEqual(o.Lines, want) {
		t.Errorf("%v, expected %v", o.Lines, want)
	}
	o2 := execute(p, nil)
	if o2.Lines != nil || o2.Cost.Instructions != o.Cost.Instructions {
		t.Errorf("%v, %d and %d instructions", o2.Lines, o2.Cost.Instructions, o.Cost.Instructions)
	}
}

// TestIsolation has one run try to leave something for the next, through all that
// is shared.
func TestIsolation(t *testing.T) {
	b := bundleOf(`
		local seen = {}
		for _, try in ipairs {
			function() string.format = 1 end, function() getmetatable("").__index.rep = nil end, function() json.null.x = 1 end,
			function() dev.id = "x" end, function() ctx.mine = 1 end, function() setmetatable(dev, {}) end, function() table.insert(string, 1) end,
			function() table.insert(dev, 1) end, function() getmetatable(dev).x = 1 end, function() getmetatable(json.array {}).x = 1 end,
			function() setmetatable(json.array {}, {}) end, function() local _, e = pcall(error, "x") getmetatable(e).x = 1 end,
			function() require("lib.a").n = 2 end, function() ("x").y = 1 end, function() ctx:kv().x = 1 end,
		} do seen[#seen + 1] = (pcall(try)) end
		return { seen, require("lib.a").n, mine = nil }`)
	b.Files["lib/a.lua"] = []byte(`return { n = 1 }`)
	p, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	want := `[[` + strings.Repeat("false,", 12) + `true,false,false],2]`
	for range 2 {
		if o := execute(p, nil); string(o.Result) != want {
			t.Fatalf("%s %v, expected %s", o.Result, o.Fault, want)
		}
	}
	q := body(t, `return { string.format("%d", 1), ("x"):rep(2), dev.id, tostring(json.null) }`)
	if o := execute(q, nil); string(o.Result) != `["1","xx","d1","null"]` {
		t.Errorf("%s %v", o.Result, o.Fault)
	}
}

// TestHost compares what programs see with the table of the host API.
func TestHost(t *testing.T) {
	lib := newLibrary()
	functions := map[string]map[string]bool{}
	for name, names := range lib.names {
		functions[name] = map[string]bool{}
		for _, n := range names {
			functions[name][n] = true
		}
	}
	functions[""] = map[string]bool{}
	for name := range baseFunctions() {
		functions[""][name] = true
	}
	for _, object := range pattern.Host() {
		for _, f := range object.Functions {
			if !functions[object.Name][f.Name] {
				t.Errorf("%s.%s is in the table and not there", object.Name, f.Name)
			}
			delete(functions[object.Name], f.Name)
			if _, ok := lib.ops[f.Op]; f.Op != "" && !ok {
				t.Errorf("%s.%s is the operation %s, which there is not", object.Name, f.Name, f.Op)
			}
		}
	}
	for name, left := range functions {
		if len(left) > 0 {
			t.Errorf("%s has %v, which the table has not", name, slices.Sorted(maps.Keys(left)))
		}
	}
	for _, r := range pattern.RemovedNames() {
		if o := execute(body(t, "return "+r.Name), nil); o.Fault == nil || !strings.Contains(o.Fault.Message, "does not exist here") {
			t.Errorf("%s: %s %v", r.Name, o.Result, o.Fault)
		}
	}
}
