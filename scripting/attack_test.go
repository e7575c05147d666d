package scripting

import (
	"runtime"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

// attack is a body of run that means no good.
type attack struct {
	name string
	body string
	// ends says that the attack is over by itself, without any harm: the sandbox
	// lets it, or what it needs is not there.
	ends bool
	// outside says that only the walls of a worker stop it.
	outside bool
}

func attacks() []attack {
	return []attack{
		{name: "endless loop", body: `while true do end`},
		{name: "endless goto", body: `::a:: goto a`},
		{name: "pcall swallows", body: `while true do pcall(function() while true do end end) end`},
		{name: "xpcall swallows", body: `while true do xpcall(function() error("x") end, function() while true do end end) end`},
		{name: "pattern bomb of stars", body: `return string.find(("a"):rep(40), ("a*"):rep(14) .. "b")`},
		{name: "pattern bomb of lazy dots", body: `return string.find(("x"):rep(3000), ".-.-.-.-b")`},
		{name: "pattern bomb, short text", body: `return string.find(("a"):rep(200), (".-"):rep(4) .. "b")`},
		{name: "pattern bombs, caught", body: `while true do pcall(string.find, ("a"):rep(200), (".-"):rep(4) .. "b") end`},
		{name: "pattern that recurses", body: `while true do string.find(("a"):rep(1000000), "^(.-)*b") string.match(("a"):rep(1000000), ".-b") end`},
		{name: "gmatch bomb", body: `for _ in string.gmatch(("a"):rep(300), (".-"):rep(4) .. "b") do end while true do end`},
		{name: "string.rep", body: `local t = {} for i = 1, 64 do t[i] = ("x"):rep(3e9) end`},
		{name: "string.rep, caught", body: `local t, i = {}, 0 while true do i = i + 1 pcall(function() t[i] = ("x"):rep(1048576) end) end`},
		{name: "doubling with ..", body: `local s = "x" while true do s = s .. s end`},
		{name: "many texts", body: `local t, s = {}, ("x"):rep(1000000) while true do t[#t + 1] = s .. #t end`},
		{name: "nested gsub", body: `local s = ("a"):rep(3000) while true do s:gsub("a", function() return (s:gsub("a", s)) end) end`},
		{name: "gsub that grows", body: `local s = ("a"):rep(1000) while true do s = s:gsub("a", "aaaa") end`},
		{name: "unpack", body: `local t = {} for i = 1, 100 do t[i] = { unpack({}, 1, 1e8) } end`},
		{name: "table.concat", body: `local t = {} for i = 1, 1000 do t[i] = ("x"):rep(1000000) end for i = 1, 100 do t[i] = table.concat(t) end`},
		{name: "string.format widths", body: `local t = {} for i = 1, 1000 do t[i] = string.format("%0999999999d%999999999s", i, "x") end while true do end`},
		{name: "tables in tables", body: `local t = {} while true do t[#t + 1] = { t, {}, {} } end`},
		{name: "tables of texts", body: `local t, i = {}, 0 while true do i = i + 1 t["k" .. i] = ("v"):rep(1000) .. i end`},
		{name: "an index far away", body: `local all = {} for i = 1, 1000 do local t = {} t[60000000 + i] = 1 t[130000] = 1 all[i] = t end while true do end`, outside: true},
		{name: "insert at the front", body: `local t = {} while true do table.insert(t, 1, t) end`},
		{name: "deleted keys", body: `local t = {} for i = 1, 20000 do t[i + 0.5] = 1 t[i + 0.5] = nil end t.x = 1 while true do next(t) end`},
		{name: "deep recursion", body: `local function f(n) return 1 + f(n + 1) end while true do pcall(f, 1) end`},
		{name: "deep recursion through pcall", body: `local function f() pcall(f) return 1 end while true do f() end`},
		{name: "tail calls", body: `local function f() return f() end return f()`},
		{name: "__index loop", body: `local t = setmetatable({}, { __index = function(t, k) return t[k] end }) while true do pcall(function() return t.x end) end`},
		{name: "__index chain", body: `local t = {} for i = 1, 90 do t = setmetatable({}, { __index = t }) end while true do local x = t.y end`},
		{name: "__tostring loop", body: `local t t = setmetatable({}, { __tostring = function() return tostring(t) end }) while true do pcall(tostring, t) end`},
		{name: "__concat loop", body: `local t t = setmetatable({}, { __concat = function(a, b) return a .. b end }) while true do pcall(function() return t .. "x" end) end`},
		{name: "__call, __eq and __lt", body: `local mt = {} mt.__call = function(t) return t() end mt.__lt = function(a, b) return a < b end
			local a, b = setmetatable({}, mt), setmetatable({}, mt) while true do pcall(a) pcall(function() return a < b end) end`},
		{name: "__gc", body: `for i = 1, 100 do setmetatable({}, { __gc = function() while true do end end }) end while true do end`},
		{name: "coroutine storm", body: `while true do coroutine.wrap(function() while true do coroutine.yield(1) end end)() end`},
		{name: "sort that never agrees", body: `local t = {} for i = 1, 2000 do t[i] = i % 7 end while true do pcall(table.sort, t, function(a, b) return true end) end`},
		{name: "sort that loops", body: `table.sort({ 3, 2, 1 }, function() while true do end end)`},
		{name: "json bombs", body: `while true do pcall(json.decode, ("["):rep(100000)) local t = {} for i = 1, 30 do t = { t, t } end pcall(json.encode, t) end`},
		{name: "comparison of huge texts", body: `local a = ("x"):rep(1048575) local b = a .. "y" a = a .. "x" while true do if a < b then end if a >= b then end table.sort({ a, b }) end`},
		{name: "huge keys, and whether they are equal", body: `local t, a = {}, ("x"):rep(1048575) local b = a .. "x" a = a .. "x" while true do t[a] = a == b end`, outside: true},
		{name: "locals of strings", body: `getmetatable("").__index = nil while true do end`},
		{name: "string metatable", body: `getmetatable("").rep = nil while true do end`},
		{name: "changed library", body: `string.format = nil while true do end`},
		{name: "loaded code", body: `while true do loadstring("while true do end")() end`},
		{name: "an error that loops", body: `error(setmetatable({}, { __tostring = function() while true do end end }))`},
		{name: "a huge error", body: `error(("x"):rep(1000000))`},
		{name: "an error that holds itself", body: `local e = { code = "x", message = "y" } e.cause = e e.payload = e error(e)`},
		{name: "huge effects", body: `while true do dev:tag { x = ("y"):rep(60000) } end`, ends: true},
		{name: "too large an effect", body: `dev:call("x", { x = ("y"):rep(1000000) })`},
		{name: "many effects", body: `while true do pcall(function() ctx:event("x", 1) end) end`, ends: true},
		{name: "many local steps", body: `while true do ctx:random(1, 2) end`, ends: true},
		{name: "huge logs", body: `while true do ctx:log(("x"):rep(100000)) end`},
		{name: "many logs", body: `while true do ctx:log("x") end`},
		{name: "a huge kept value", body: `ctx:keep("a", ("x"):rep(20000))`},
		{name: "many kept values", body: `local i = 0 while true do i = i + 1 ctx:keep("k" .. i, ("x"):rep(1000)) end`},
		{name: "a huge result", body: `return ("x"):rep(1000000)`},
		{name: "a huge skip", body: `ctx:skip(("x"):rep(60000))`, ends: true},
		{name: "a wait that is swallowed", body: `while true do pcall(dev.call, dev, "x") end`, ends: true},
		{name: "deferred loops", body: `for i = 1, 30 do ctx:defer(function() while true do end end) end error("x")`},
		{name: "the process", body: `os.exit(1)`},
		{name: "files", body: `io.open("/etc/passwd"):read("*a") while true do end`},
	}
}

func bundleOf(body string) *pattern.Bundle {
	return &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(`return pattern { name = "x", version = "1.0.0", run = function(dev, p, ctx) ` + body + ` end }`)}}
}

func activationOf() pattern.Activation {
	return pattern.Activation{Run: "r-1", Attempt: 1, Device: "d1", Entry: pattern.EntryRun}
}

// TestAttacksInside lets the sandbox alone stop each attack.
func TestAttacksInside(t *testing.T) {
	for _, a := range attacks() {
		if a.outside {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			p, err := Compile(bundleOf(a.body))
			if err != nil {
				t.Fatal(err)
			}
			in := activationOf()
			o := Execute(p, &in)
			if most := insideMost; o.Cost.Time > most {
				t.Errorf("took %s, at most %s", o.Cost.Time, most)
			}
			if a.ends == (o.Ending == pattern.EndFailed) {
				t.Errorf("ended %s: %v", o.Ending, o.Fault)
			}
			if most := int64(pattern.MaxInstructions) * 4; o.Cost.Instructions > most {
				t.Errorf("ran %d instructions, at most %d", o.Cost.Instructions, most)
			}
			size := len(o.Result)
			for _, s := range o.Steps {
				size += len(s.Args) + len(s.Result)
			}
			for _, l := range o.Logs {
				size += len(l.Text)
			}
			for _, k := range o.Kept {
				size += len(k)
			}
			if o.Fault != nil {
				size += len(o.Fault.Message) + len(o.Fault.Cause) + len(o.Fault.Payload)
				for _, line := range o.Fault.Trace {
					size += len(line)
				}
			}
			if most := pattern.MaxJournal + pattern.MaxValue + pattern.MaxLogs*(pattern.MaxLogLine+3); size > most {
				t.Errorf("the outcome has %d bytes, at most %d", size, most)
			}
		})
	}
}

// TestAttacksOutside takes the sandbox away: gopher-lua's own libraries, no
// budget. The worker's walls alone must stop each attack, and the next activation
// must not notice.
func TestAttacksOutside(t *testing.T) {
	p := testPool(t, "__worker-open", 2)
	good := bundleOf(`return 1`)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i, a := range attacks() {
		if raceDetector && i%10 != 0 { // most take their whole second
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			o := activateOne(t, p, bundleOf(a.body))
			if o.Fault != nil {
				o.Fault.Message = clip(o.Fault.Message, 100)
			}
			t.Logf("%s %v", o.Ending, o.Fault)
			if o := activateOne(t, p, good); o.Ending != pattern.EndReturned {
				t.Errorf("the next one: %v", o)
			}
		})
	}
	t.Cleanup(func() {
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20<<20 {
			t.Errorf("the pool's process has %d bytes more in its heap", grown)
		}
		t.Logf("%+v", p.Stats())
	})
}

// activateOne runs an activation, again when the machine had no time for it.
func activateOne(t *testing.T, p *Pool, b *pattern.Bundle) pattern.Outcome {
	t.Helper()
	for try := 1; ; try++ {
		o, err := p.Activate(t.Context(), b, []pattern.Activation{activationOf()})
		if err == nil {
			return o[0]
		}
		if try == 10 {
			t.Fatal(err)
		}
	}
}
