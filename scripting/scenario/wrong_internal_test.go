package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
)

// bundleOf is a pattern with one test.
func bundleOf(run, test string) *pattern.Bundle {
	return &pattern.Bundle{Files: map[string][]byte{
		"pattern.lua": []byte(`return pattern { name = "x", version = "1.0.0", api = 1,
  needs = { "twin:read", "twin:desired:settings", "method:go" },
  run = function(dev, p, ctx)
` + run + `
  end }
`),
		"test/x_test.lua": []byte("test(\"x\", function(t)\n" + test + "\nend)\n"),
	}}
}

// canary is the pattern whose old value must not become the new one.
func canary() *pattern.Bundle {
	return bundleOf(`
    local old = dev:get("desired.settings.level")
    dev:desire { settings = { level = 2 } }
    dev:call("go", {}, { timeout = "30s", idempotent = true, retry = 2 })
    dev:desire { settings = { level = old } }
    return old`, `
  local d = t:device { desired = { settings = { level = 1 } } }
  d:on_method("go", 200)
  t:run()`)
}

// failureOf runs a bundle's test with a hub whose programs run as x has it, and
// returns its failure.
func failureOf(t *testing.T, b *pattern.Bundle, o Options, x execute) *Failure {
	t.Helper()
	r, err := testWith(context.Background(), b, o, x)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Tests) != 1 {
		t.Fatalf("%d tests", len(r.Tests))
	}
	return r.Tests[0].Failure
}

func TestRightProgramPasses(t *testing.T) {
	if f := failureOf(t, canary(), Options{CrashEverywhere: true}, scripting.Execute); f != nil {
		t.Errorf("%+v", f)
	}
}

// A program that reads something that is not in its journal does not do the same
// twice.
func TestNondeterminismIsFound(t *testing.T) {
	n := 0
	f := failureOf(t, canary(), Options{}, func(p *scripting.Program, a *pattern.Activation) pattern.Outcome {
		o := scripting.Execute(p, a)
		for i := range o.Steps {
			if o.Steps[i].Op == "dev.call" {
				n++
				o.Steps[i].Args = json.RawMessage(fmt.Sprintf(`{"idempotent":true,"method":"go","payload":{"n":%d}}`, n))
			}
		}
		return o
	})
	if f == nil || !strings.Contains(f.Message, "did not do the same") || f.Place != "pattern.lua:7" || !strings.Contains(f.Diff, `"n": 1`) || len(f.Source) == 0 {
		t.Errorf("%+v", f)
	}
}

// The journal of a hub once held a reference into the twin: a later patch
// changed what had been read before. A replay finds that, since it reads what
// was stored.
func TestReferenceIntoTheTwinIsFound(t *testing.T) {
	f := failureOf(t, canary(), Options{}, func(p *scripting.Program, a *pattern.Activation) pattern.Outcome {
		b := *a
		b.Steps = append([]pattern.Step(nil), a.Steps...)
		for i := range b.Steps {
			if b.Steps[i].Op == "dev.get" {
				b.Steps[i].Result = liveLevel(t, a.Twin)
			}
		}
		return scripting.Execute(p, &b)
	})
	if f == nil || !strings.Contains(f.Message, "come to the same end") || !strings.Contains(f.Diff, `-   "result": 2`) {
		t.Errorf("%+v", f)
	}
}

func liveLevel(t *testing.T, twin json.RawMessage) json.RawMessage {
	t.Helper()
	var doc struct {
		Properties struct {
			Desired struct {
				Settings struct {
					Level json.RawMessage `json:"level"`
				} `json:"settings"`
			} `json:"desired"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(twin, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Properties.Desired.Settings.Level
}

// What a hub keeps in its memory alone is lost in a crash: a hub that answers
// from there, and not from the journal, comes to something else with one.
func TestMemoryThatIsLostIsFound(t *testing.T) {
	r := rawRunner(t, canary())
	r.made = func(l *lab) {
		epoch, first := l.hub.epoch, json.RawMessage(nil)
		l.execute = func(p *scripting.Program, a *pattern.Activation) pattern.Outcome {
			b := *a
			b.Steps = append([]pattern.Step(nil), a.Steps...)
			if l.hub.epoch != epoch || len(a.Steps) == 0 {
				first, epoch = nil, l.hub.epoch
			}
			if first == nil {
				first = liveLevel(t, a.Twin)
			}
			for i := range b.Steps {
				if b.Steps[i].Op == "dev.get" {
					b.Steps[i].Result = first
				}
			}
			return scripting.Execute(p, &b)
		}
	}
	s, err := compileScript("test/x_test.lua", r.bundle.Files["test/x_test.lua"])
	if err != nil {
		t.Fatal(err)
	}
	result, err := r.test(context.Background(), s, 0, declared{name: "x", file: "test/x_test.lua", line: 1})
	if err != nil {
		t.Fatal(err)
	}
	if f := result.Failure; f == nil || f.Crash == "" || !strings.Contains(f.Diff, `+ device-1: desired {"settings":{"level":2}}, version 4`) {
		t.Errorf("%+v", f)
	}
}

// A hub that sends what it has stored once more after a crash is found by what
// the device got.
func TestSendingTwiceIsFound(t *testing.T) {
	b := bundleOf(`dev:call("go", {}, { timeout = "30s" }) ctx:sleep("1s")`, `
  t:device():on_method("go", 200)
  t:run()`)
	if f := failureOf(t, b, Options{CrashEverywhere: true}, scripting.Execute); f != nil {
		t.Fatalf("it is right as it is: %+v", f)
	}
	r := rawRunner(t, b)
	r.made = func(l *lab) {
		l.recovered = func(h *hub) { // the fault: what was answered is forgotten
			for _, run := range h.memory.Runs {
				if s := run.State.Open(); s != nil && s.Op == "ctx.sleep" {
					h.memory.Calls = append(h.memory.Calls, &call{Ref: "again", Run: run.ID, Device: run.Device, Method: "go", Payload: json.RawMessage(`{}`), Timeout: defaultAnswer, Deadline: l.now.Add(defaultAnswer)})
				}
			}
		}
	}
	s, err := compileScript("test/x_test.lua", r.bundle.Files["test/x_test.lua"])
	if err != nil {
		t.Fatal(err)
	}
	result, err := r.test(context.Background(), s, 0, declared{name: "x", file: "test/x_test.lua", line: 1})
	if err != nil {
		t.Fatal(err)
	}
	f := result.Failure
	if f == nil || !strings.Contains(f.Diff, "+ device-1: method go {}") || !strings.Contains(f.Crash, "ctx.sleep") {
		t.Errorf("%+v", f)
	}
}

func rawRunner(t *testing.T, b *pattern.Bundle) *runner {
	t.Helper()
	main, err := loadPattern("", b)
	if err != nil {
		t.Fatal(err)
	}
	return &runner{options: Options{CrashEverywhere: true}, execute: scripting.Execute, main: main, bundle: b, lines: map[string]map[int]bool{}, others: map[string]*loaded{}}
}
