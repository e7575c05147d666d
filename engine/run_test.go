package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// runFixture is a hub that runs scripts.
type runFixture struct {
	*engine.Hub
	t       *testing.T
	scripts *enginetest.Scripts
}

func newRunFixture(t *testing.T, scripts *enginetest.Scripts, options ...enginetest.Option) *runFixture {
	t.Helper()
	f := &runFixture{t: t, scripts: scripts}
	f.Hub = enginetest.New(t, append(options, enginetest.WithScripts(scripts))...)
	enginetest.InstallScripts(t, f.Hub, scripts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Hub.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *runFixture) device(id string) engine.TwinID {
	f.t.Helper()
	tid := engine.TwinID{DeviceID: id}
	if _, err := f.CreateIdentity(f.t.Context(), enginetest.Owner(), engine.Identity{DeviceID: id}); err != nil {
		f.t.Fatal(err)
	}
	return tid
}

// connect connects a device that answers methods with answer.
func (f *runFixture) connect(id engine.TwinID, answer func(enginetest.Method) (int, []byte)) *enginetest.Device {
	f.t.Helper()
	d := enginetest.Connect(f.t, f.Hub, id)
	d.Answer(answer)
	set := engine.NoSubscriptions()
	set[engine.EndpointMethod] = 0
	if err := d.Session.Subscribe(f.t.Context(), set); err != nil {
		f.t.Fatal(err)
	}
	return d
}

func (f *runFixture) start(name string, id engine.TwinID, params string) engine.Run {
	f.t.Helper()
	r, err := f.StartRun(f.t.Context(), enginetest.Owner(), engine.RunSpec{Pattern: name, Device: id, Params: json.RawMessage(params)})
	if err != nil {
		f.t.Fatalf("start %s: %v", name, err)
	}
	return r
}

// until follows a run until it stands as wanted.
func (f *runFixture) until(id string, what string, is func(engine.Run) bool) engine.Run {
	f.t.Helper()
	s, err := f.FollowRun(f.t.Context(), enginetest.Owner(), id, "")
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.Close()
	end := time.Now().Add(20 * time.Second)
	var last engine.Run
	for time.Now().Before(end) {
		r, changed, err := s.Next(f.t.Context(), time.Until(end))
		if err != nil {
			f.t.Fatal(err)
		}
		if changed {
			if last = r; is(r) {
				return r
			}
		}
	}
	trace, err := f.RunTrace(f.t.Context(), enginetest.Owner(), id)
	f.t.Fatalf("the run did not come to %s: it is %s (%+v), waits for %q, steps %+v %v", what, last.State, last.Fault, last.Waits, trace.Steps, err)
	return last
}

func (f *runFixture) state(id string, want pattern.State) engine.Run {
	f.t.Helper()
	return f.until(id, string(want), func(r engine.Run) bool { return r.State == want })
}

func (f *runFixture) ended(id string) engine.Run {
	f.t.Helper()
	return f.until(id, "an end", func(r engine.Run) bool { return r.State.Final() })
}

func script(name string, needs pattern.Needs, run func(p *enginetest.Play) (any, error)) enginetest.Script {
	return enginetest.Script{Manifest: pattern.Manifest{Name: name, Needs: needs}, Run: run}
}

func TestRunEachStep(t *testing.T) {
	needs := pattern.Needs{"twin:read", "twin:desired", "twin:tags", "method:reboot", "message"}
	f := newRunFixture(t, enginetest.NewScripts(
		script("reboot", needs, func(p *enginetest.Play) (any, error) {
			before, err := p.Get("reported.boot.count")
			if err != nil {
				return nil, err
			}
			p.Report("asking", 0.2)
			p.Log("the count is %s", before)
			answer, err := p.Call(pattern.CallArgs{Method: "reboot", Payload: json.RawMessage(`{"delay":1}`)})
			if err != nil {
				return nil, err
			}
			p.Report("waiting", 0.5)
			shown, err := p.Wait("reported.boot.count > before", map[string]json.RawMessage{"before": before}, "1m")
			if err != nil {
				return nil, err
			}
			if err := p.Tag(`{"rebooted":true}`); err != nil {
				return nil, err
			}
			version, err := p.Desire(`{"x":{"y":1}}`)
			if err != nil {
				return nil, err
			}
			if _, err := p.Step("dev.send", pattern.SendArgs{Body: json.RawMessage(`"hello"`)}); err != nil {
				return nil, err
			}
			if _, err := p.Step("ctx.event", pattern.EventArgs{Type: "rebooted", Data: json.RawMessage(`{"a":1}`)}); err != nil {
				return nil, err
			}
			if err := p.Sleep(time.Millisecond); err != nil {
				return nil, err
			}
			return map[string]json.RawMessage{"answer": answer, "shown": shown, "version": version}, nil
		}),
	))
	id := f.device("a")
	d := f.connect(id, func(m enginetest.Method) (int, []byte) { return 200, []byte(`{"got":` + string(m.Payload) + `}`) })
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"boot":{"count":1}}`), -1); err != nil {
		t.Fatal(err)
	}
	r := f.start("reboot", id, "")
	f.until(r.ID, "its wait", func(r engine.Run) bool { return r.Waits == "reported.boot.count > before" })
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"boot":{"count":2}}`), -1); err != nil {
		t.Fatal(err)
	}
	r = f.ended(r.ID)
	if want := `{"answer":{"status":200,"payload":{"got":{"delay":1}}},"shown":{"boot":{"count":2}},"version":{"version":2}}`; r.State != pattern.Succeeded || string(r.Result) != want {
		t.Errorf("the run is %s with %s (%+v), want %s", r.State, r.Result, r.Fault, want)
	}
	tw, err := f.Twin(t.Context(), enginetest.Owner(), id)
	if err != nil {
		t.Fatal(err)
	}
	if tags := string(tw.Tags.Plain(nil)); tags != `{"rebooted":true}` {
		t.Errorf("tags are %s", tags)
	}
	if desired := string(tw.Desired.Plain(nil)); desired != `{"x":{"y":1}}` {
		t.Errorf("desired properties are %s", desired)
	}
	list, _, err := f.TwinHistory(t.Context(), enginetest.Owner(), id, engine.HistoryDesired, "", 100)
	if err != nil || len(list) != 1 || list[0].Cause != "run:"+r.ID || !strings.Contains(list[0].Principal, "uid=0") {
		t.Errorf("the history is %+v %v", list, err)
	}
	messages, n, err := f.Messages(t.Context(), enginetest.Owner(), "a", 0, 10)
	if err != nil || n != 1 || string(messages[0].Body) != "hello" {
		t.Errorf("messages are %+v %v", messages, err)
	}
	trace, err := f.RunTrace(t.Context(), enginetest.Owner(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, s := range trace.Steps {
		ops = append(ops, s.Op)
		if s.Open || s.Ended.IsZero() || s.Begun.IsZero() || s.Line == "" {
			t.Errorf("step %+v", s)
		}
	}
	if got := strings.Join(ops, " "); got != "dev.get dev.call dev.wait dev.tag dev.desire dev.send ctx.event ctx.sleep" {
		t.Errorf("steps are %s", got)
	}
	if len(trace.Logs) != 1 || trace.Logs[0].Text != "the count is 1" {
		t.Errorf("logs are %+v", trace.Logs)
	}
	if got := len(d.Methods()); got != 1 {
		t.Errorf("the device got %d calls", got)
	}
}

// TestRunHot: a run shows at which lines it was slow, over all its activations.
func TestRunHot(t *testing.T) {
	f := newRunFixture(t, enginetest.NewScripts(script("slow", nil, func(p *enginetest.Play) (any, error) {
		p.Hot("pattern.lua:3", 1024)
		if err := p.Sleep(time.Millisecond); err != nil {
			return nil, err
		}
		p.Hot("pattern.lua:9", 5120)
		return nil, nil
	})))
	r := f.ended(f.start("slow", f.device("d1"), "").ID)
	trace, err := f.RunTrace(t.Context(), enginetest.Owner(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := []pattern.HotLine{{Line: "pattern.lua:9", Instructions: 5120}, {Line: "pattern.lua:3", Instructions: 2048}}
	if !reflect.DeepEqual(r.Hot, want) || !reflect.DeepEqual(trace.Hot, want) {
		t.Errorf("the run is hot at %v, its trace at %v, want %v", r.Hot, trace.Hot, want)
	}
	p, err := f.Pattern(t.Context(), enginetest.Owner(), "slow", "")
	if err != nil || !reflect.DeepEqual(p.Cost.Hot, want) {
		t.Errorf("its version is hot at %v, %v, want %v", p.Cost.Hot, err, want)
	}
}

func TestRunFaults(t *testing.T) {
	call := func(a pattern.CallArgs) func(p *enginetest.Play) (any, error) {
		return func(p *enginetest.Play) (any, error) {
			_, err := p.Call(a)
			return nil, err
		}
	}
	needs := pattern.Needs{"twin:read", "twin:desired", "method:m", "http:b.example"}
	step := func(op string, args any) func(p *enginetest.Play) (any, error) {
		return func(p *enginetest.Play) (any, error) {
			_, err := p.Step(op, args)
			return nil, err
		}
	}
	cases := []struct {
		name string
		run  func(p *enginetest.Play) (any, error)
		code pattern.FaultCode
		text string
	}{
		{"offline", call(pattern.CallArgs{Method: "m"}), pattern.FaultOffline, "not connected"},
		{"denied", call(pattern.CallArgs{Method: "other"}), pattern.FaultDenied, "method:other"},
		{"no-method", step("dev.call", pattern.CallArgs{Method: "m m"}), pattern.FaultDenied, "method:m m"},
		{"bad-timeout", call(pattern.CallArgs{Method: "m", Timeout: "soon"}), pattern.FaultInvalid, "soon"},
		{"bad-wait", step("dev.wait", pattern.WaitArgs{Where: "reported.x >"}), pattern.FaultInvalid, "^"},
		{"now-wait", step("dev.wait", pattern.WaitArgs{Where: "lastActivityTime < now()"}), pattern.FaultInvalid, "now()"},
		{"late-wait", step("dev.wait", pattern.WaitArgs{Where: "reported.x == 5", Timeout: "50ms"}), pattern.FaultTimeout, "not within"},
		{"bad-patch", step("dev.desire", pattern.PatchArgs{Patch: json.RawMessage(`{"$bad":{"a.b":1}}`)}), pattern.FaultInvalid, ""},
		{"no-child", step("dev.run", pattern.RunArgs{Pattern: "nothing"}), pattern.FaultDenied, "run:start"},
		{"no-alert", step("ctx.alert", map[string]string{}), pattern.FaultDenied, "alert"},
		{"unknown", step("dev.fly", map[string]string{}), pattern.FaultUnavailable, "dev.fly"},
		{"fleet", step("fleet.count", pattern.FleetArgs{}), pattern.FaultDenied, "query"},
		{"sleep", step("ctx.sleep", pattern.SleepArgs{For: "400d"}), pattern.FaultInvalid, "400d"},
		{"http", step("ctx.http", pattern.HTTPArgs{URL: "https://a.example/"}), pattern.FaultDenied, "http:a.example"},
		{"http-plain", step("ctx.http", pattern.HTTPArgs{URL: "http://b.example/"}), pattern.FaultInvalid, "only https"},
		{"kv-scope", step("kv.get", pattern.KeyValueArgs{Scope: "hub", Key: "k"}), pattern.FaultInvalid, "scope"},
	}
	scripts := enginetest.NewScripts()
	for _, c := range cases {
		scripts.Add(script(c.name, needs, c.run))
	}
	f := newRunFixture(t, scripts)
	for _, c := range cases {
		r := f.start(c.name, f.device("d-"+c.name), "")
		r = f.ended(r.ID)
		if r.State != pattern.Failed || r.Fault == nil || r.Fault.Code != c.code || !strings.Contains(r.Fault.Message, c.text) {
			t.Errorf("%s: %s %+v, want %s with %q", c.name, r.State, r.Fault, c.code, c.text)
		}
	}
}

func TestRunCalls(t *testing.T) {
	one := func(a pattern.CallArgs) func(p *enginetest.Play) (any, error) {
		return func(p *enginetest.Play) (any, error) { return p.Call(a) }
	}
	needs := pattern.Needs{"twin:read", "method:m", "secret:token", "identity:rotate"}
	f := newRunFixture(t, enginetest.NewScripts(
		script("plain", needs, one(pattern.CallArgs{Method: "m", Timeout: "100ms"})),
		script("again", needs, one(pattern.CallArgs{Method: "m", Timeout: "100ms", Retry: 2, Idempotent: true})),
		script("once", needs, one(pattern.CallArgs{Method: "m", Timeout: "100ms", Retry: 2})),
		script("online", needs, one(pattern.CallArgs{Method: "m", Online: "20s"})),
		script("secret", needs, one(pattern.CallArgs{Method: "m", Payload: json.RawMessage(`{"n":12345678901234567890,"t":{"$secret":"token"}}`)})),
		script("rotate", needs, func(p *enginetest.Play) (any, error) {
			key, err := p.Step("dev.rotate_key", pattern.RotateArgs{})
			if err != nil {
				return nil, err
			}
			return p.Call(pattern.CallArgs{Method: "m", Payload: json.RawMessage(`{"key":` + string(key) + `}`), Online: "10s"})
		}),
		script("lost-secret", pattern.Needs{"method:m", "secret:nothing"}, one(pattern.CallArgs{Method: "m", Payload: json.RawMessage(`{"t":{"$secret":"nothing"}}`)})),
	))
	if err := f.SetPatternSecret(t.Context(), enginetest.Owner(), "token", []byte("s3cr3t")); err != nil {
		t.Fatal(err)
	}
	t.Run("status", func(t *testing.T) {
		id := f.device("status")
		f.connect(id, func(enginetest.Method) (int, []byte) { return 409, []byte(`{"busy":true}`) })
		r := f.ended(f.start("plain", id, "").ID)
		if r.State != pattern.Failed || r.Fault.Code != pattern.FaultStatus || r.Fault.Status != 409 || string(r.Fault.Payload) != `{"busy":true}` {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
	t.Run("uncertain", func(t *testing.T) {
		for _, name := range []string{"plain", "once"} {
			id := f.device("uncertain-" + name)
			d := enginetest.Connect(t, f.Hub, id, engine.EndpointMethod) // it does not answer
			r := f.ended(f.start(name, id, "").ID)
			if r.State != pattern.Uncertain || r.Fault.Code != pattern.FaultUncertain || len(d.Methods()) != 1 {
				t.Errorf("%s: the run is %s %+v, and %d calls were sent", name, r.State, r.Fault, len(d.Methods()))
			}
		}
	})
	t.Run("retry", func(t *testing.T) {
		id := f.device("retry")
		d := enginetest.Connect(t, f.Hub, id, engine.EndpointMethod)
		r := f.ended(f.start("again", id, "").ID)
		if r.State != pattern.Failed || r.Fault.Code != pattern.FaultTimeout || len(d.Methods()) != 3 {
			t.Errorf("the run is %s %+v, and %d calls were sent", r.State, r.Fault, len(d.Methods()))
		}
		trace, err := f.RunTrace(t.Context(), enginetest.Owner(), r.ID)
		if err != nil || trace.Steps[0].Tries != 3 {
			t.Errorf("tries are %+v %v", trace.Steps, err)
		}
	})
	t.Run("online", func(t *testing.T) {
		id := f.device("online")
		r := f.start("online", id, "")
		const waits = "the device to connect, for method m"
		r = f.until(r.ID, "its call", func(r engine.Run) bool { return r.Waits == waits })
		if in := r.Due.Sub(r.Started); in < 19*time.Second || in > 21*time.Second {
			t.Errorf("it waits until %s, from %s", r.Due, r.Started)
		}
		list, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{Device: id}, 10, "")
		if err != nil || len(list) != 1 || list[0].Waits != waits || !list[0].Due.Equal(r.Due) {
			t.Errorf("the list is %+v, %v", list, err)
		}
		trace, err := f.RunTrace(t.Context(), enginetest.Owner(), r.ID)
		if err != nil || trace.Waits != waits || len(trace.Steps) != 1 || !trace.Steps[0].Due.Equal(r.Due) {
			t.Errorf("the trace is %+v, %v", trace, err)
		}
		counts, err := f.RunCounts(t.Context(), enginetest.Owner(), engine.RunFilter{Device: id})
		if err != nil || len(counts) != 1 || counts[0].Step != engine.StepConnect {
			t.Errorf("the counts are %+v, %v", counts, err)
		}
		f.connect(id, func(enginetest.Method) (int, []byte) { return 200, []byte(`1`) })
		if r = f.ended(r.ID); r.State != pattern.Succeeded || string(r.Result) != `{"status":200,"payload":1}` {
			t.Errorf("the run is %s %+v %s", r.State, r.Fault, r.Result)
		}
	})
	t.Run("secret", func(t *testing.T) {
		id := f.device("secret")
		d := f.connect(id, func(enginetest.Method) (int, []byte) { return 200, nil })
		r := f.ended(f.start("secret", id, "").ID)
		got := d.Methods()
		if r.State != pattern.Succeeded || len(got) != 1 || string(got[0].Payload) != `{"n":12345678901234567890,"t":"s3cr3t"}` {
			t.Errorf("the run is %s %+v, the device got %+v", r.State, r.Fault, got)
		}
		trace, err := f.RunTrace(t.Context(), enginetest.Owner(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := json.Marshal(trace); strings.Contains(string(text), "s3cr3t") {
			t.Errorf("the secret is in the trace: %s", text)
		}
	})
	t.Run("lost secret", func(t *testing.T) {
		id := f.device("lost")
		d := f.connect(id, func(enginetest.Method) (int, []byte) { return 200, nil })
		r := f.ended(f.start("lost-secret", id, "").ID)
		if r.State != pattern.Failed || r.Fault.Code != pattern.FaultGone || len(d.Methods()) != 0 {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
	t.Run("rotate", func(t *testing.T) {
		id := f.device("rotate")
		r := f.start("rotate", id, "")
		f.until(r.ID, "its call", func(r engine.Run) bool { return r.Waits == "the device to connect, for method m" })
		d := f.connect(id, func(enginetest.Method) (int, []byte) { return 200, nil })
		if r = f.ended(r.ID); r.State != pattern.Succeeded {
			t.Fatalf("the run is %s %+v", r.State, r.Fault)
		}
		s, err := f.IdentityConnectionString(t.Context(), enginetest.Owner(), id, engine.KeySecondary)
		if err != nil {
			t.Fatal(err)
		}
		var payload struct{ Key string }
		if err := json.Unmarshal(d.Methods()[0].Payload, &payload); err != nil || payload.Key != s.SharedAccessKey.Reveal() {
			t.Errorf("the device got another key: %v", err)
		}
	})
}

func TestRunConflicts(t *testing.T) {
	scripts := enginetest.NewScripts()
	var mu sync.Mutex
	for _, c := range []pattern.Conflict{pattern.ConflictQueue, pattern.ConflictSkip, pattern.ConflictReject, pattern.ConflictReplace, pattern.ConflictShare} {
		s := script(string(c), nil, func(p *enginetest.Play) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			_, err := p.Approve("go on?")
			return "done", err
		})
		s.Manifest.Conflicts = c
		scripts.Add(s)
	}
	f := newRunFixture(t, scripts)
	id := f.device("a")
	asks := func(r engine.Run) engine.Run {
		t.Helper()
		return f.until(r.ID, "its question", func(r engine.Run) bool { return r.Question != "" })
	}
	approve := func(r engine.Run) {
		t.Helper()
		if _, err := f.DecideRun(t.Context(), enginetest.Owner(), r.ID, true, ""); err != nil {
			t.Fatal(err)
		}
		if r = f.ended(r.ID); r.State != pattern.Succeeded {
			t.Fatalf("the run is %s %+v", r.State, r.Fault)
		}
	}
	first := asks(f.start("queue", id, ""))
	second := f.start("queue", id, "")
	third := f.start("queue", id, "")
	f.until(second.ID, "its place", func(r engine.Run) bool { return r.Waits == "the run "+first.ID+" on the device" })
	f.until(third.ID, "its place", func(r engine.Run) bool { return r.Waits == "the run "+first.ID+" on the device" })
	if r := f.ended(f.start("skip", id, "").ID); r.State != pattern.Skipped {
		t.Errorf("skip: %s %+v", r.State, r.Fault)
	}
	if r := f.ended(f.start("reject", id, "").ID); r.State != pattern.Failed || r.Fault.Code != pattern.FaultConflict {
		t.Errorf("reject: %s %+v", r.State, r.Fault)
	}
	approve(asks(f.start("share", id, "")))
	replacing := f.start("replace", id, "")
	if r := f.ended(first.ID); r.State != pattern.Canceled || !strings.Contains(r.Fault.Message, replacing.ID) {
		t.Errorf("the run that was replaced is %s %+v", r.State, r.Fault)
	}
	approve(asks(replacing))
	// Whoever waited goes on in order, but for one that was canceled.
	if _, err := f.CancelRun(t.Context(), enginetest.Owner(), third.ID, engine.CancelRunOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := f.ended(third.ID); r.State != pattern.Canceled {
		t.Errorf("the run is %s", r.State)
	}
	approve(asks(second))
	approve(asks(f.start("queue", id, "")))
	if s := f.RunStats(); s.Active[pattern.Waiting]+s.Active[pattern.Queued]+s.Active[pattern.Ready] != 0 {
		t.Errorf("figures are %+v", s)
	}
}

func TestRunControl(t *testing.T) {
	var undone sync.Map
	with := func(name string, run func(p *enginetest.Play) (any, error)) enginetest.Script {
		s := script(name, pattern.Needs{"twin:tags"}, run)
		s.Manifest.Resumable = true
		s.Undo = func(p *enginetest.Play) (any, error) {
			undone.Store(p.Activation.Run, string(p.Kept["before"]))
			return nil, p.Tag(`{"mark":null}`)
		}
		return s
	}
	f := newRunFixture(t, enginetest.NewScripts(
		with("ask", func(p *enginetest.Play) (any, error) {
			p.Defer(func(p *enginetest.Play) { _ = p.Tag(`{"cleaned":true}`) })
			p.Keep("before", 7)
			if err := p.Tag(`{"mark":1}`); err != nil {
				return nil, err
			}
			who, err := p.Approve("reset it?")
			if err != nil {
				return nil, err
			}
			return who, nil
		}),
	))
	tags := func(id engine.TwinID) string {
		t.Helper()
		tw, err := f.Twin(t.Context(), enginetest.Owner(), id)
		if err != nil {
			t.Fatal(err)
		}
		return string(tw.Tags.Plain(nil))
	}
	asked := func(name string) (engine.TwinID, engine.Run) {
		t.Helper()
		id := f.device(name)
		r := f.start("ask", id, "")
		return id, f.until(r.ID, "its question", func(r engine.Run) bool { return r.Question == "reset it?" })
	}
	t.Run("approve", func(t *testing.T) {
		id, r := asked("approve")
		list, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{Asks: true}, 10, "")
		if err != nil || len(list) != 1 || list[0].ID != r.ID {
			t.Errorf("those that ask are %+v %v", list, err)
		}
		if n, err := f.DecideRuns(t.Context(), enginetest.Owner(), engine.RunFilter{Pattern: "ask"}, true, "fine"); n != 1 || err != nil {
			t.Errorf("%d were decided: %v", n, err)
		}
		if r = f.ended(r.ID); r.State != pattern.Succeeded || !strings.Contains(string(r.Result), "uid=0") {
			t.Errorf("the run is %s %s", r.State, r.Result)
		}
		if _, err := f.DecideRun(t.Context(), enginetest.Owner(), r.ID, true, ""); engine.AsError(err).Code != engine.CodeRunState {
			t.Errorf("a second decision: %v", err)
		}
		if _, err := f.UndoRun(t.Context(), enginetest.Owner(), r.ID); err != nil {
			t.Fatal(err)
		}
		if r = f.state(r.ID, pattern.Undone); tags(id) != "{}" {
			t.Errorf("after the undo tags are %s", tags(id))
		}
		if kept, _ := undone.Load(r.ID); kept != "7" {
			t.Errorf("the undo found %v", kept)
		}
	})
	t.Run("decline", func(t *testing.T) {
		id, r := asked("decline")
		if _, err := f.DecideRun(t.Context(), enginetest.Owner(), r.ID, false, "not now"); err != nil {
			t.Fatal(err)
		}
		if r = f.ended(r.ID); r.State != pattern.Failed || r.Fault.Code != pattern.FaultRejected || !strings.Contains(r.Fault.Message, "not now") {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
		if tags(id) != `{"mark":1,"cleaned":true}` {
			t.Errorf("tags are %s", tags(id))
		}
		again, err := f.RetryRun(t.Context(), enginetest.Owner(), r.ID, engine.RetryRunOptions{From: 2})
		if err != nil {
			t.Fatal(err)
		}
		if again.Attempt != 2 || again.Of != r.ID {
			t.Errorf("the new run is %+v", again)
		}
		f.until(again.ID, "its question", func(r engine.Run) bool { return r.Question != "" })
		if trace, err := f.RunTrace(t.Context(), enginetest.Owner(), again.ID); err != nil || len(trace.Steps) != 2 {
			t.Errorf("its steps are %+v %v", trace.Steps, err)
		}
		if n, err := f.CancelRuns(t.Context(), enginetest.Owner(), engine.RunFilter{Device: id}, engine.CancelRunOptions{Reason: "enough", Undo: true}); n != 1 || err != nil {
			t.Errorf("%d were canceled: %v", n, err)
		}
		if r = f.ended(again.ID); r.State != pattern.Undone {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
	t.Run("now", func(t *testing.T) {
		id, r := asked("now")
		r, err := f.CancelRun(t.Context(), enginetest.Owner(), r.ID, engine.CancelRunOptions{Now: true})
		if err != nil || r.State != pattern.Canceled || tags(id) != `{"mark":1}` {
			t.Errorf("the run is %s, tags are %s: %v", r.State, tags(id), err)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		id, r := asked("deleted")
		if err := f.DeleteIdentity(t.Context(), enginetest.Owner(), id, engine.IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
		if r = f.ended(r.ID); r.State != pattern.Failed || r.Fault.Code != pattern.FaultGone {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
	t.Run("disabled", func(t *testing.T) {
		_, r := asked("disabled")
		if _, err := f.DisablePattern(t.Context(), enginetest.Owner(), "ask", "1.0.0", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := f.StartRun(t.Context(), enginetest.Owner(), engine.RunSpec{Pattern: "ask", Device: r.Device}); engine.AsError(err).Code != engine.CodePatternState {
			t.Errorf("a run of a disabled pattern: %v", err)
		}
		if _, err := f.DecideRun(t.Context(), enginetest.Owner(), r.ID, true, ""); err != nil {
			t.Fatal(err)
		}
		if r = f.ended(r.ID); r.State != pattern.Succeeded {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
}

func TestRunList(t *testing.T) {
	f := newRunFixture(t, enginetest.NewScripts(script("done", nil, func(*enginetest.Play) (any, error) { return nil, nil }),
		script("bad", nil, func(*enginetest.Play) (any, error) { return nil, errors.New("no") })))
	var ids []string
	for i := range 5 {
		name := "done"
		if i%2 == 1 {
			name = "bad"
		}
		r := f.start(name, f.device(fmt.Sprint("d", i)), "")
		f.ended(r.ID)
		ids = append([]string{r.ID}, ids...)
	}
	for _, c := range []struct {
		filter engine.RunFilter
		want   []int // of ids
	}{
		{engine.RunFilter{}, []int{0, 1, 2, 3, 4}},
		{engine.RunFilter{Pattern: "bad"}, []int{1, 3}},
		{engine.RunFilter{Device: engine.TwinID{DeviceID: "d4"}}, []int{0}},
		{engine.RunFilter{States: []pattern.State{pattern.Failed}}, []int{1, 3}},
		{engine.RunFilter{Pattern: "done", States: []pattern.State{pattern.Failed, pattern.Succeeded}}, []int{0, 2, 4}},
		{engine.RunFilter{Active: true}, nil},
		{engine.RunFilter{Asks: true}, nil},
		{engine.RunFilter{Job: "none"}, nil},
	} {
		var got []string
		for cursor, pages := "", 0; pages < 10; pages++ {
			list, next, err := f.Runs(t.Context(), enginetest.Owner(), c.filter, 2, cursor)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				got = append(got, r.ID)
			}
			if cursor = next; next == "" {
				break
			}
		}
		var want []string
		for _, i := range c.want {
			want = append(want, ids[i])
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: %v, want %v", c.filter, got, want)
		}
	}
	if _, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{}, 2, "zz"); engine.AsError(err).Code != engine.CodeArgumentInvalid {
		t.Errorf("a cursor of nobody's: %v", err)
	}
	if _, err := f.ReadRun(t.Context(), enginetest.Owner(), "r-none"); engine.AsError(err).Code != engine.CodeRunNotFound {
		t.Errorf("a run that is not there: %v", err)
	}
}

// TestRunIdentities puts a device into quarantine and takes it back, exactly, and
// replaces it.
func TestRunIdentities(t *testing.T) {
	one := func(op string, args any) func(p *enginetest.Play) (any, error) {
		return func(p *enginetest.Play) (any, error) {
			r, err := p.Step(op, args)
			return r, err
		}
	}
	needs := pattern.Needs{"identity:disable", "identity:replace", "twin:read"}
	f := newRunFixture(t, enginetest.NewScripts(
		script("quarantine", needs, one("dev.quarantine", pattern.ReasonArgs{Reason: "odd traffic"})),
		script("release", needs, one("dev.release", nil)),
		script("replace", needs, one("dev.replace", pattern.ReplaceArgs{ID: "new"})),
		script("online", needs, func(p *enginetest.Play) (any, error) { return p.Wait("connected", nil, "20s") }),
	))
	owner := enginetest.Owner()
	id := f.device("old")
	i, err := f.Identity(t.Context(), owner, id)
	if err != nil {
		t.Fatal(err)
	}
	i.StatusReason = "as it was"
	if _, err := f.UpdateIdentity(t.Context(), owner, i, engine.IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PatchTwin(t.Context(), owner, id, engine.TwinUpdate{Tags: []byte(`{"site":"A"}`), Desired: []byte(`{"level":{"a":1}}`)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
	stands := func(id engine.TwinID) string {
		t.Helper()
		i, err := f.Identity(t.Context(), owner, id)
		if err != nil {
			t.Fatal(err)
		}
		tw, err := f.Twin(t.Context(), owner, id)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%t %q %s %s", i.Disabled, i.StatusReason, tw.Tags.Plain(nil), tw.Desired.Plain(nil))
	}
	before := stands(id)
	online := f.start("online", id, "")
	f.until(online.ID, "its wait", func(r engine.Run) bool { return r.Waits == "connected" })
	f.connect(id, func(enginetest.Method) (int, []byte) { return 200, nil })
	if r := f.ended(online.ID); r.State != pattern.Succeeded {
		t.Errorf("the run that waited for the device is %s %+v", r.State, r.Fault)
	}
	run := func(name string, want pattern.FaultCode) {
		t.Helper()
		r := f.ended(f.start(name, id, "").ID)
		got := pattern.FaultCode("")
		if r.Fault != nil {
			got = r.Fault.Code
		}
		if got != want {
			t.Errorf("%s: %s %+v", name, r.State, r.Fault)
		}
	}
	run("release", pattern.FaultConflict)
	run("quarantine", "")
	if is := stands(id); !strings.HasPrefix(is, `true "odd traffic" `) || !strings.Contains(is, `"quarantine":{"reason":"odd traffic"`) {
		t.Errorf("in quarantine it is %s", is)
	}
	run("quarantine", pattern.FaultConflict)
	run("release", "")
	if is := stands(id); is != before {
		t.Errorf("after its release it is %s, want %s", is, before)
	}
	run("replace", "")
	if is := stands(engine.TwinID{DeviceID: "new"}); is != `false "" {"replaces":"old","site":"A"} {"level":{"a":1}}` {
		t.Errorf("the new device is %s", is)
	}
	if is := stands(id); is != `true "replaced by new" {"site":"A","replacedBy":"new"} {"level":{"a":1}}` {
		t.Errorf("the old device is %s", is)
	}
	run("replace", pattern.FaultConflict)
	if is := stands(id); !strings.Contains(is, `"replacedBy":"new"`) {
		t.Errorf("after a refusal the old device is %s", is)
	}
}

func TestRunValues(t *testing.T) {
	kv := func(p *enginetest.Play, op string, a pattern.KeyValueArgs) string {
		if a.Scope == "" {
			a.Scope = "run"
		}
		r, err := p.Step(op, a)
		if err != nil {
			return "fault " + err.Error()
		}
		return string(r)
	}
	f := newRunFixture(t, enginetest.NewScripts(script("kv", nil, func(p *enginetest.Play) (any, error) {
		raw := func(s string) json.RawMessage { return json.RawMessage(s) }
		return []string{
			kv(p, "kv.get", pattern.KeyValueArgs{Key: "a"}),
			kv(p, "kv.set", pattern.KeyValueArgs{Key: "a", Value: raw(`{"x":1}`)}),
			kv(p, "kv.get", pattern.KeyValueArgs{Key: "a"}),
			kv(p, "kv.cas", pattern.KeyValueArgs{Key: "a", Old: raw(`{"x": 1.0}`), Value: raw("2")}),
			kv(p, "kv.cas", pattern.KeyValueArgs{Key: "a", Old: raw("3"), Value: raw("4")}),
			kv(p, "kv.incr", pattern.KeyValueArgs{Key: "a"}),
			kv(p, "kv.incr", pattern.KeyValueArgs{Key: "a", By: -0.5}),
			kv(p, "kv.set", pattern.KeyValueArgs{Key: "a"}),
			kv(p, "kv.get", pattern.KeyValueArgs{Key: "a"}),
			kv(p, "kv.incr", pattern.KeyValueArgs{Key: "all", Scope: "pattern"}),
		}, nil
	}), script("full", nil, func(p *enginetest.Play) (any, error) {
		for i := range 101 {
			if _, err := p.Step("kv.incr", pattern.KeyValueArgs{Scope: "run", Key: fmt.Sprint(i)}); err != nil {
				return i, nil
			}
		}
		return "all", nil
	})))
	for n := 1; n <= 2; n++ {
		r := f.ended(f.start("kv", f.device(fmt.Sprint("d", n)), "").ID)
		want := fmt.Sprintf(`["","","{\"x\":1}","true","false","3","2.5","","","%d"]`, n)
		if string(r.Result) != want {
			t.Errorf("the pairs were %s %+v, want %s", r.Result, r.Fault, want)
		}
	}
	if r := f.ended(f.start("full", f.device("full"), "").ID); string(r.Result) != "100" {
		t.Errorf("a run kept %s pairs (%+v)", r.Result, r.Fault)
	}
}

// TestRunFleetAndRequests asks of the fleet, and of a server that may have got a
// request and may not.
func TestRunFleetAndRequests(t *testing.T) {
	fleet := script("fleet", pattern.Needs{"query"}, func(p *enginetest.Play) (any, error) {
		var out []json.RawMessage
		for _, s := range []struct {
			op   string
			args pattern.FleetArgs
		}{
			{"fleet.count", pattern.FleetArgs{Where: `tags.site == "A"`}},
			{"fleet.query", pattern.FleetArgs{Where: `tags.site == "A"`, Select: []string{"deviceId", "tags.n", "connected"}, Limit: 2}},
			{"fleet.group_by", pattern.FleetArgs{Path: "tags.site"}},
		} {
			r, err := p.Step(s.op, s.args)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
		_, err := p.Step("fleet.count", pattern.FleetArgs{Where: "tags.site =="})
		out = append(out, json.RawMessage(fmt.Sprintf("%q", strings.Split(err.Error(), ":")[0])))
		return out, nil
	})
	fleet.Manifest.Scope = pattern.ScopeFleet
	http := func(a pattern.HTTPArgs) func(p *enginetest.Play) (any, error) {
		return func(p *enginetest.Play) (any, error) { return p.Step("ctx.http", a) }
	}
	needs := pattern.Needs{"http:a.example", "secret:token"}
	header := map[string]json.RawMessage{"Authorization": json.RawMessage(`{"$secret":"token"}`), "X-Plain": json.RawMessage(`"p"`)}
	var mu sync.Mutex
	var got []engine.FetchRequest
	f := newRunFixture(t, enginetest.NewScripts(
		fleet,
		script("get", needs, http(pattern.HTTPArgs{URL: "https://a.example/json", Headers: header})),
		script("text", needs, http(pattern.HTTPArgs{Method: "POST", URL: "https://a.example/text", JSON: json.RawMessage(`{"k":{"$secret":"token"}}`)})),
		script("sent", needs, http(pattern.HTTPArgs{Method: "POST", URL: "https://a.example/sent"})),
		script("again", needs, http(pattern.HTTPArgs{Method: "POST", URL: "https://a.example/sent", Idempotent: true})),
		script("unsent", needs, http(pattern.HTTPArgs{Method: "POST", URL: "https://a.example/unsent"})),
	), func(o *engine.Options) {
		o.Fetch = func(_ context.Context, r engine.FetchRequest) (engine.FetchAnswer, bool, error) {
			mu.Lock()
			got = append(got, r)
			mu.Unlock()
			switch path := strings.TrimPrefix(r.URL, "https://a.example/"); path {
			case "json":
				return engine.FetchAnswer{Status: 200, Type: "application/json", Body: []byte(`{"ok":1}`)}, true, nil
			case "text":
				return engine.FetchAnswer{Status: 503, Type: "text/plain", Body: []byte("busy")}, true, nil
			default:
				return engine.FetchAnswer{}, path == "sent", errors.New("the connection broke")
			}
		}
	})
	if err := f.SetPatternSecret(t.Context(), enginetest.Owner(), "token", []byte("s3cr3t")); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		id := f.device(fmt.Sprint("d", i))
		if _, err := f.PatchTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"site":%q,"n":%d}`, []string{"A", "A", "A", "B"}[i], i)}, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
	}
	r := f.ended(f.start("fleet", engine.TwinID{}, "").ID)
	want := `[3,[{"deviceId":"d0","tags.n":0,"connected":false},{"deviceId":"d1","tags.n":1,"connected":false}],{"groups":{"A":3,"B":1},"total":4},"invalid"]`
	if string(r.Result) != want {
		t.Errorf("the fleet is %s %+v\nwant %s", r.Result, r.Fault, want)
	}
	for name, want := range map[string]string{
		"get": `succeeded {"status":200,"json":{"ok":1}}`, "text": `succeeded {"status":503,"body":"busy"}`,
		"sent": "uncertain uncertain", "again": "failed timeout", "unsent": "failed offline",
	} {
		r := f.ended(f.start(name, engine.TwinID{DeviceID: "d0"}, "").ID)
		is := string(r.State) + " " + string(r.Result)
		if r.Fault != nil {
			is = string(r.State) + " " + string(r.Fault.Code)
		}
		if is != want {
			t.Errorf("%s: %s, want %s (%+v)", name, is, want, r.Fault)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, r := range got {
		switch r.URL {
		case "https://a.example/json":
			if r.Header["Authorization"] != "s3cr3t" || r.Header["X-Plain"] != "p" {
				t.Errorf("the headers were %v", r.Header)
			}
		case "https://a.example/text":
			if string(r.Body) != `{"k":"s3cr3t"}` || r.Header["Content-Type"] != "application/json" {
				t.Errorf("the request was %+v", r)
			}
		}
	}
	if len(got) != 5 {
		t.Errorf("%d requests were sent", len(got))
	}
}
