package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// play is what happens to a run from outside: people answer what it asks and cancel
// it, or have it undone.
type play struct {
	answers []worldsAnswer // to its questions, one after the other; then nobody answers
	cancel  time.Duration  // so long after its start it is canceled, unless it has ended; 0: never
	undo    bool           // what it did is taken back when it is canceled, and when it has ended
}

// worldsAnswer is a person's.
type worldsAnswer struct {
	approve bool
	after   time.Duration
}

// lua is the play as the end of a test. Servers and the other pattern are there, too.
func (p *play) lua() string {
	by := enginetest.Owner().Principal.String()
	var b strings.Builder
	b.WriteString(`t:http("GET https://a.example.net/ok", { status = 200, json = { a = { 1, "x" } } })
  t:http("GET https://a.example.net/text", { status = 404, body = "none" })
  t:http("https://a.example.net/late", { status = 201, json = { late = true }, after = "10s" })
  t:http("https://a.example.net/never", { never = true })
  t:pattern("child", function(p)
    if p.fail then error({ code = "small", message = "it fails", status = 3 }) end
    return { twice = p.x * 2 }
  end)
`)
	for _, a := range p.answers {
		if a.approve {
			fmt.Fprintf(&b, "  t:approve { by = %q, after = %q }\n", by, a.after)
		} else {
			fmt.Fprintf(&b, "  t:deny { by = %q, reason = \"not now\", after = %q }\n", by, a.after)
		}
	}
	b.WriteString("  local r = t:start()\n")
	if p.cancel > 0 {
		fmt.Fprintf(&b, "  t:advance(%q)\n  if r.state == \"waiting\" then t:cancel(r, %q, { undo = %v }) end\n", p.cancel, "canceled by "+by, p.undo)
	}
	b.WriteString("  t:finish(r)\n")
	if p.undo {
		b.WriteString("  if r.state ~= \"undone\" and r.state ~= \"skipped\" and r.entry == \"run\" and #r.steps > 0 then t:undo(r) end\n")
	}
	return b.String()
}

// perform does it to a run of a hub, and returns the run when it has ended.
func (p *play) perform(t *testing.T, h *engine.Hub, id string) engine.RunTrace {
	ctx, owner, answers := context.Background(), enginetest.Owner(), p.answers
	var open string // the step that asks
	var answer worldsAnswer
	var due time.Time // of the answer to it; zero: none comes
	see := func() engine.RunTrace {
		trace, err := h.RunTrace(ctx, owner, id)
		if err != nil {
			t.Fatal(err)
		}
		return trace
	}
	undone := !p.undo
	const look = 250 * time.Millisecond // on which all moments of a play lie
	for since := time.Duration(0); since < time.Hour; since += look {
		trace := see()
		if trace.State.Final() {
			if undone || trace.State == pattern.Undone || trace.State == pattern.Skipped || trace.Entry == pattern.EntryUndo || len(trace.Steps) == 0 {
				return trace
			}
			if since >= p.cancel {
				undone = true
				if trace.Run, _ = h.UndoRun(ctx, owner, id); trace.Entry != pattern.EntryUndo {
					t.Fatal("the undo does not begin")
				}
			}
		}
		if asks := fmt.Sprint(trace.Entry, len(trace.Steps)); trace.Question == "" {
			open, due = "", time.Time{}
		} else if asks != open && len(answers) > 0 { // who answers has heard of it, even if it is over by then
			open, answer, answers = asks, answers[0], answers[1:]
			due = trace.Steps[len(trace.Steps)-1].Begun.Add(answer.after)
		} else if asks != open {
			open, due = asks, time.Time{}
		}
		if !due.IsZero() && !time.Now().Before(due) {
			if _, err := h.DecideRun(ctx, owner, id, answer.approve, "not now"); err != nil {
				t.Fatal(err)
			}
			due = time.Time{}
		}
		if p.cancel > 0 && since == p.cancel && trace.Entry == pattern.EntryRun && !trace.State.Final() {
			if _, err := h.CancelRun(ctx, owner, id, engine.CancelRunOptions{Undo: p.undo}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(look)
	}
	t.Fatal("the run does not end")
	return engine.RunTrace{}
}

// worldsChild is the pattern that programs start on their device.
const worldsChild = `return pattern {
  name = "child", version = "1.0.0", api = 1,
  params = { x = { type = "integer" }, fail = { type = "boolean" } },
  run = function(dev, p, ctx)
    if p.fail then error({ code = "small", message = "it fails", status = 3 }) end
    return { twice = p.x * 2 }
  end,
}
`

// worldsServer is the server of both worlds.
func worldsServer(ctx context.Context, r engine.FetchRequest) (engine.FetchAnswer, bool, error) {
	switch r.URL {
	case "https://a.example.net/ok":
		return engine.FetchAnswer{Status: 200, Type: "application/json", Body: []byte(`{"a":[1,"x"]}`)}, true, nil
	case "https://a.example.net/text":
		return engine.FetchAnswer{Status: 404, Type: "text/plain", Body: []byte("none")}, true, nil
	case "https://a.example.net/late":
		select {
		case <-time.After(10 * time.Second):
			return engine.FetchAnswer{Status: 201, Type: "application/json", Body: []byte(`{"late":true}`)}, true, nil
		case <-ctx.Done():
		}
	default:
		<-ctx.Done()
	}
	return engine.FetchAnswer{}, true, ctx.Err()
}

// playedProgram is a program to which something happens from outside. All that it
// waits for comes at moments that are the same in both worlds, so that what cuts it
// short finds it at the same step.
//
// A hub gives a device one call after the other, also behind one that a run waits
// for no more; a fake device takes them side by side. So what is canceled makes no
// call that takes long.
func playedProgram(r *rand.Rand, canceled bool) string {
	slow := "slow"
	if canceled {
		slow = "ok"
	}
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	steps := func(n int) {
		for range n {
			switch r.IntN(9) {
			case 0:
				fmt.Fprintf(&b, "    try(dev.desire, dev, { n = %d })\n", r.IntN(5))
			case 1:
				fmt.Fprintf(&b, "    try(dev.call, dev, %q, { x = %d }, { timeout = \"1m\"%s })\n", pick("ok", "bad", slow, "count", "unknown"), r.IntN(5), pick("", ", idempotent = true"))
			case 2:
				fmt.Fprintf(&b, "    try(dev.wait, dev, %q, { timeout = %q, n = %d })\n", pick("reported.count > n", "connected", "desired.n == n", "reported.none > 1"), pick("6s", "40s"), r.IntN(5))
			case 3:
				fmt.Fprintf(&b, "    try(ctx.sleep, ctx, %q)\n", pick("0s", "1s", "12s", "50s"))
			case 4, 5:
				fmt.Fprintf(&b, "    try(ctx.approve, ctx, %q, { timeout = %q })\n", pick("go on?", "really?", ""), pick("20s", "2m"))
			case 6:
				fmt.Fprintf(&b, "    try(dev.run, dev, \"child\", { x = %d, fail = %s })\n", r.IntN(5), pick("false", "false", "true"))
			case 7:
				fmt.Fprintf(&b, "    try(ctx.http, ctx, { method = %q, url = \"https://%s\", timeout = %q%s })\n",
					pick("GET", "GET", "POST"), pick("a.example.net/late", "a.example.net/never", "a.example.net/late", "b.example.net/"), pick("5s", "20s"), pick("", ", idempotent = true"))
			case 8:
				fmt.Fprintf(&b, "    try(ctx.http, ctx, { url = \"https://a.example.net/%s\" })\n", pick("ok", "text"))
			}
		}
	}
	b.WriteString(`return pattern {
  name = "it", version = "1.0.0", api = 1, timeout = "30m",
  needs = { "twin:read", "twin:desired", "twin:tags", "method:ok", "method:bad", "method:slow", "method:count", "method:unknown", "run:start", "http:a.example.net" },
`)
	for _, entry := range []string{"run", "undo"} {
		fmt.Fprintf(&b, `  %s = function(dev, p, ctx)
    local out = { ctx:kept("k") or "nothing kept" }
    local function try(f, ...)
      local ok, v = pcall(f, ...)
      out[#out + 1] = ok and { v == nil and "nothing" or v } or { v.code, v.status }
    end
`, entry)
		if entry == "run" {
			steps(r.IntN(3))
			fmt.Fprintf(&b, "    ctx:keep(\"k\", %d)\n", r.IntN(9))
			if r.IntN(2) == 0 {
				b.WriteString("    ctx:defer(function()\n")
				steps(1 + r.IntN(2))
				b.WriteString("      dev:tag { cleaned = true }\n    end)\n")
			}
			steps(1 + r.IntN(4))
			if r.IntN(3) == 0 {
				fmt.Fprintf(&b, "    dev:call(%q, {}, { timeout = \"1m\" })\n    ctx:approve(\"the last one?\", { timeout = \"30s\" })\n", slow)
			}
			b.WriteString(pickEnd(r))
		} else {
			steps(1 + r.IntN(3))
		}
		b.WriteString("    dev:tag { out = #out }\n    return out\n  end,\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// randomPlay is a play whose moments are none at which something happens by itself,
// and an answer comes at another one than a cancellation.
func randomPlay(r *rand.Rand) *play {
	p := &play{undo: r.IntN(3) == 0}
	for range r.IntN(4) {
		p.answers = append(p.answers, worldsAnswer{r.IntN(3) > 0, time.Duration(1+r.IntN(30))*time.Second + 500*time.Millisecond})
	}
	if r.IntN(2) == 0 {
		p.cancel = []time.Duration{3250 * time.Millisecond, 7250 * time.Millisecond, 23250 * time.Millisecond}[r.IntN(3)]
	}
	return p
}

// TestWorldsAgreeAboutPlays is TestWorldsAgree for what happens to a run from
// outside: answers of people and servers, runs of another pattern, cancellation with
// deferred functions, and undo.
func TestWorldsAgreeAboutPlays(t *testing.T) {
	for seed := range worldsCases(t) {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		p := randomPlay(r)
		program := playedProgram(r, p.cancel > 0)
		if fake, hub := inScenario(t, program, p), inEngine(t, program, p); !fake.about(hub) {
			t.Errorf("program %d\n%s\n%s\n%s\n%v in a test\n%v in a hub", seed, program, p.lua(), differing(fake.text, hub.text), fake.times, hub.times)
		}
	}
}
