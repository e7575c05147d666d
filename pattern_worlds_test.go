package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
	"github.com/muster-hub/muster/scripting/scenario"
	"github.com/muster-hub/muster/storage"
)

// inProcess runs programs in the process of a test.
type inProcess struct{}

// Load implements engine.Interpreter.
func (inProcess) Load(_ context.Context, b *pattern.Bundle) (*pattern.Manifest, error) {
	return scripting.Load(b)
}

// Activate implements engine.Interpreter.
func (inProcess) Activate(_ context.Context, b *pattern.Bundle, list []pattern.Activation) ([]pattern.Outcome, error) {
	p, err := scripting.Compile(b)
	if err != nil {
		return nil, err
	}
	out := make([]pattern.Outcome, len(list))
	for i := range list {
		out[i] = scripting.Execute(p, &list[i])
	}
	return out, nil
}

// worldsDevice is the device of both worlds: what its methods do. At its end stands
// what happens to the run.
const worldsDevice = `test("it", function(t)
  local d = t:device { reported = { count = 3 }, tags = { a = 1 } }
  d:on_method("ok", function(p) return { got = p }, 200 end)
  d:on_method("bad", function() return { why = "no" }, 404 end)
  d:on_method("slow", function() return { slow = true } end, { after = "10s" })
  d:on_method("silent", function() return {} end, { never = true })
  d:on_method("count", function()
    d:after("3s", function() if d.connected then d:report { count = d.reported.count + 1 } end end)
    return { counting = true }
  end)
  d:on_method("drop", function()
    d:after("2s", function() d:drop("20s") end)
    return { dropping = true }
  end)
  %s
end)
`

// realDevice does the same over a session of the engine.
type realDevice struct {
	t  *testing.T
	h  *engine.Hub
	id engine.TwinID

	mu    sync.Mutex
	now   *enginetest.Device
	up    bool
	count int
}

func (d *realDevice) connect() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up {
		return
	}
	d.up = true
	d.now = enginetest.Connect(d.t, d.h, d.id, engine.EndpointMethod)
	s := d.now.Session
	d.now.Forward(func(m enginetest.Method) { go d.perform(s, m) })
}

func (d *realDevice) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up {
		d.up = false
		d.now.Session.Close(errors.New("left"))
	}
}

func (d *realDevice) perform(s *engine.Session, m enginetest.Method) {
	answer := func(status int, text string) { s.CompleteMethod(m.RequestID, status, []byte(text)) }
	switch m.Name {
	case "ok":
		answer(200, `{"got":`+string(m.Payload)+`}`)
	case "bad":
		answer(404, `{"why":"no"}`)
	case "slow":
		time.Sleep(10 * time.Second)
		answer(200, `{"slow":true}`)
	case "silent":
	case "count":
		answer(200, `{"counting":true}`)
		time.Sleep(3 * time.Second)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.up {
			d.count++
			_, _ = d.now.Session.PatchReported(context.Background(), fmt.Appendf(nil, `{"count":%d}`, d.count), -1)
		}
	case "drop":
		answer(200, `{"dropping":true}`)
		time.Sleep(2 * time.Second)
		d.leave()
		time.Sleep(20 * time.Second)
		d.connect()
	default:
		answer(501, `{"message":"the device of the test has no on_method(\"unknown\")"}`)
	}
}

// randomProgram is a program of some steps, each of which may fail.
func randomProgram(r *rand.Rand) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	b.WriteString(`return pattern {
  name = "it", version = "1.0.0", api = 1, timeout = "30m",
  needs = { "twin:read", "twin:desired", "twin:tags", "message", "method:ok", "method:bad", "method:slow", "method:silent", "method:count", "method:drop", "method:unknown" },
  run = function(dev, p, ctx)
    local out, kv, all = {}, ctx:kv("run"), ctx:kv("pattern")
    local function try(f, ...)
      local ok, v = pcall(f, ...)
      out[#out + 1] = ok and { v == nil and "nothing" or v } or { v.code, v.status }
    end
`)
	for range 2 + r.IntN(7) {
		n := r.IntN(5)
		switch r.IntN(13) {
		case 0:
			fmt.Fprintf(&b, "    try(dev.get, dev, %q, 0)\n", pick("reported.count", "tags.a", "desired.n", "connected", "status", "tags.none.x", "deviceId"))
		case 1:
			fmt.Fprintf(&b, "    try(dev.desire, dev, %s)\n", pick(fmt.Sprintf("{ n = %d }", n), "{ n = json.null }", `{ ["a.b"] = 1 }`, `{ list = { 1, 2 } }`, `{ deep = { a = { b = { c = { d = { e = { f = { g = { h = { i = { j = 1 } } } } } } } } } } }`))
		case 2:
			fmt.Fprintf(&b, "    try(dev.tag, dev, %s)\n", pick(fmt.Sprintf("{ a = %d }", n), "{ a = json.null }", `{ ["$x"] = 1 }`))
		case 3, 4, 5, 6:
			fmt.Fprintf(&b, "    try(dev.call, dev, %q, { x = %d }, { timeout = %q%s%s%s })\n", pick("ok", "bad", "slow", "silent", "count", "drop", "drop", "unknown"), n,
				pick("5s", "15s", "30s"), pick("", "", `, online = "10s"`, `, online = "1m"`), pick("", "", ", retry = 1"), pick("", ", idempotent = true"))
		case 7, 8:
			fmt.Fprintf(&b, "    try(dev.wait, dev, %q, { timeout = %q, n = %d })\n",
				pick("reported.count > n", "reported.count >= 3", "connected", "not connected", "tags.a == n", "desired.n == n", "reported.none > 1", "reported.count >"), pick("5s", "40s", "x"), n)
		case 9:
			fmt.Fprintf(&b, "    try(ctx.sleep, ctx, %q)\n", pick("0s", "1s", "25s", "-1s", "400d", "x"))
		case 10:
			fmt.Fprintf(&b, "    try(dev.wait_online, dev, { timeout = %q })\n", pick("5s", "40s"))
		case 11:
			store := pick("kv", "all")
			b.WriteString("    " + pick(
				fmt.Sprintf("try(%s.set, %s, \"k\", %d)", store, store, n), fmt.Sprintf("try(%s.set, %s, \"k\", \"text\")", store, store), fmt.Sprintf("try(%s.set, %s, \"k\", nil)", store, store),
				fmt.Sprintf("try(%s.get, %s, \"k\")", store, store), fmt.Sprintf("try(%s.incr, %s, \"k\", %d)", store, store, n), fmt.Sprintf("try(%s.cas, %s, \"k\", %d, %d)", store, store, n, n+1)) + "\n")
		case 12:
			b.WriteString("    " + pick(`ctx:phase("here")`, `ctx:log("line")`, `try(ctx.event, ctx, "seen", { n = 1 })`, `try(dev.send, dev, { n = 1 })`, `ctx:keep("k", 1)`, `ctx:progress(0.5)`) + "\n")
		}
	}
	b.WriteString(pickEnd(r))
	b.WriteString("    return out\n  end,\n}\n")
	return b.String()
}

func pickEnd(r *rand.Rand) string {
	return []string{"", "", "", `    error({ code = "mine", message = "enough" })` + "\n", `    ctx:skip("nothing to do")` + "\n", `    dev:call("bad", {})` + "\n"}[r.IntN(6)]
}

// story is what a run did, without what must differ: names and the time of day.
type story struct {
	text  string
	times []time.Duration // since it began, of each step's begin and end
}

// about reports whether two stories are the same. A hub looks for calls whose time
// is up now and then, which makes it later by that.
func (s story) about(o story) bool {
	const late = 4 * time.Second
	for i := range min(len(s.times), len(o.times)) {
		if d := s.times[i] - o.times[i]; d > late || d < -late {
			return false
		}
	}
	return s.text == o.text && len(s.times) == len(o.times)
}

func told(steps []pattern.Step, state pattern.State, result json.RawMessage, f *pattern.Fault, began time.Time) (out story) {
	compact := func(text json.RawMessage) string { // the order of members is nothing that a program sees
		var v any
		if len(text) == 0 || json.Unmarshal(text, &v) != nil {
			return string(text)
		}
		out, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		return string(out)
	}
	fault := func(f *pattern.Fault) string {
		if f == nil {
			return ""
		}
		return fmt.Sprintf(" !! %s %d %s %s", f.Code, f.Status, compact(f.Payload), f.Message)
	}
	var b strings.Builder
	for i := range steps {
		s := &steps[i]
		out.times = append(out.times, s.Begun.Sub(began), s.Ended.Sub(began))
		fmt.Fprintf(&b, "%s %s at %s, open %v: %s%s\n", s.Op, compact(s.Args), s.Line, s.Open, compact(s.Result), fault(s.Fault))
	}
	fmt.Fprintf(&b, "%s %s%s\n", state, compact(result), fault(f))
	out.text = b.String()
	return out
}

// inScenario runs a program as `muster pattern test` does.
func inScenario(t *testing.T, program string, p *play) story {
	b := &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(program), "test/it.lua": fmt.Appendf(nil, worldsDevice, p.lua())}}
	report, err := scenario.Test(t.Context(), b, scenario.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, program)
	}
	if f := report.Tests[0].Failure; f != nil {
		t.Fatalf("%s\n%s", f.Message, program)
	}
	r := &report.Tests[0].Runs[0] // those of other patterns come behind it
	return told(r.Steps, r.State, r.Result, r.Fault, r.Started)
}

// inEngine runs it in a hub, in a bubble.
func inEngine(t *testing.T, program string, p *play) (found story) {
	synctest.Test(t, func(t *testing.T) {
		h, err := engine.Open(context.Background(), engine.Options{
			Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20, Reserve: 1}, Hosts: []string{enginetest.HostName}, Scripts: inProcess{}, Fetch: worldsServer,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = h.Run(ctx) }()
		defer func() {
			cancel()
			<-done
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}()
		owner := enginetest.Owner()
		d := &realDevice{t: t, h: h, id: engine.TwinID{DeviceID: "device-1"}, count: 3}
		_, err = h.CreateIdentity(ctx, owner, engine.Identity{DeviceID: "device-1"})
		if err == nil {
			_, err = h.PatchTwin(ctx, owner, d.id, engine.TwinUpdate{Tags: []byte(`{"a":1}`)}, engine.IfMatch{})
		}
		for _, program := range []string{program, worldsChild} {
			b := &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(program)}}
			m, load := scripting.Load(b)
			if err = errors.Join(err, load); err == nil {
				_, err = h.InstallPattern(ctx, owner, engine.PatternInstall{Bundle: b, Unsigned: true, Grant: m.Needs})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		d.connect()
		if _, err := d.now.Session.PatchReported(ctx, []byte(`{"count":3}`), -1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		run, err := h.StartRun(ctx, owner, engine.RunSpec{Pattern: "it", Device: d.id})
		if err != nil {
			t.Fatal(err)
		}
		trace := p.perform(t, h, run.ID)
		time.Sleep(30 * time.Second) // a device that has left comes back
		found = told(trace.Steps, trace.State, trace.Result, trace.Fault, trace.Started)
	})
	return found
}

// differing shows the lines of two stories, where they differ one below the other.
func differing(fake, hub string) string {
	var b strings.Builder
	a, z := strings.Split(fake, "\n"), strings.Split(hub, "\n")
	for i := range max(len(a), len(z)) {
		switch {
		case i < len(a) && i < len(z) && a[i] == z[i]:
			fmt.Fprintf(&b, "          %s\n", a[i])
		default:
			if i < len(a) {
				fmt.Fprintf(&b, "  a test: %s\n", a[i])
			}
			if i < len(z) {
				fmt.Fprintf(&b, "  a hub:  %s\n", z[i])
			}
		}
	}
	return b.String()
}

func worldsCases(t *testing.T) int {
	text := os.Getenv("MUSTER_WORLDS_CASES")
	if text == "" {
		return 40
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWorldsAgree runs random programs over the fake devices of tests and over a
// hub, with a device that does the same: each step must be the same, with its
// answer, its fault and about its time. MUSTER_WORLDS_CASES asks for
// another number of programs.
func TestWorldsAgree(t *testing.T) {
	for seed := range worldsCases(t) {
		program := randomProgram(rand.New(rand.NewPCG(uint64(seed), 7)))
		if fake, hub := inScenario(t, program, &play{}), inEngine(t, program, &play{}); !fake.about(hub) {
			t.Errorf("program %d\n%s\n%s\n%v in a test\n%v in a hub", seed, program, differing(fake.text, hub.text), fake.times, hub.times)
		}
	}
}
