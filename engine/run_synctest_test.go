package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// withRuns runs a test on a hub in a bubble, with a device for each name.
func withRuns(t *testing.T, scripts *enginetest.Scripts, f func(t *testing.T, f *fleet)) {
	t.Helper()
	withFleet(t, func(t *testing.T, k *fleet) {
		if err := scripts.Install(context.Background(), k.hub); err != nil {
			t.Fatal(err)
		}
		k.device("a", "{}")
		f(t, k)
	}, enginetest.WithScripts(scripts))
}

func (f *fleet) startRun(name, device string) string {
	f.Helper()
	r, err := f.hub.StartRun(context.Background(), enginetest.Owner(), engine.RunSpec{Pattern: name, Device: twinID(device)})
	if err != nil {
		f.Fatal(err)
	}
	return r.ID
}

func (f *fleet) run(id string) engine.Run {
	f.Helper()
	synctest.Wait()
	r, err := f.hub.ReadRun(context.Background(), enginetest.Owner(), id)
	if err != nil {
		f.Fatal(err)
	}
	return r
}

// TestRunHour sleeps an hour, to the second.
func TestRunHour(t *testing.T) {
	withRuns(t, enginetest.NewScripts(script("hour", nil, func(p *enginetest.Play) (any, error) {
		return nil, p.Sleep(time.Hour)
	})), func(t *testing.T, f *fleet) {
		id := f.startRun("hour", "a")
		<-time.After(59 * time.Minute)
		if r := f.run(id); r.State != pattern.Waiting {
			t.Errorf("a minute before it is due the run is %s", r.State)
		}
		<-time.After(time.Minute + 100*time.Millisecond)
		if r := f.run(id); r.State != pattern.Succeeded {
			t.Errorf("when it is due the run is %s", r.State)
		}
	})
}

// TestRunWakesWhoFollows: who tells runs of changes looks once a second while there is
// no run. One that begins wakes it, so that what happens next is not told a second
// late.
func TestRunWakesWhoFollows(t *testing.T) {
	withRuns(t, enginetest.NewScripts(script("waits", pattern.Needs{"twin:read"}, func(p *enginetest.Play) (any, error) {
		return p.Wait("tags.go == true", nil, "1d")
	})), func(t *testing.T, f *fleet) {
		for i := range 3 { // the cursor is stored behind the first; then it rests
			f.patch("a", fmt.Sprintf(`{"n":%d}`, i), "")
			synctest.Wait()
		}
		begun := time.Now()
		id := f.startRun("waits", "a")
		if r := f.run(id); r.State != pattern.Waiting {
			t.Fatalf("the run is %s", r.State)
		}
		f.patch("a", `{"go":true}`, "")
		if r := f.run(id); r.State != pattern.Succeeded || time.Since(begun) > 100*time.Millisecond {
			t.Errorf("%s after it began, right after what it waits for, the run is %s", time.Since(begun), r.State)
		}
	})
}

// TestRunTimeout lets the time of runs pass: their deferred functions run, and who
// does not end is ended.
func TestRunTimeout(t *testing.T) {
	timed := func(s enginetest.Script) enginetest.Script {
		s.Manifest.Timeout = rollout.Duration(time.Hour)
		s.Manifest.Conflicts = pattern.ConflictShare
		return s
	}
	never := func(p *enginetest.Play) error {
		_, err := p.Wait("reported.never == 1", nil, "20d")
		return err
	}
	needs := pattern.Needs{"twin:read", "twin:tags"}
	withRuns(t, enginetest.NewScripts(
		timed(script("cleans", needs, func(p *enginetest.Play) (any, error) {
			p.Defer(func(p *enginetest.Play) { _ = p.Tag(`{"cleaned":true}`) })
			return nil, never(p)
		})),
		timed(script("stubborn", needs, func(p *enginetest.Play) (any, error) {
			p.Defer(func(p *enginetest.Play) { _ = never(p) })
			return nil, never(p)
		})),
	), func(t *testing.T, f *fleet) {
		cleans, stubborn := f.startRun("cleans", "a"), f.startRun("stubborn", "a")
		<-time.After(59 * time.Minute)
		if r := f.run(cleans); r.State != pattern.Waiting {
			t.Errorf("the run is %s", r.State)
		}
		<-time.After(2 * time.Minute)
		if r := f.run(cleans); r.State != pattern.Failed || r.Fault.Code != pattern.FaultTimeout {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
		tw, err := f.hub.Twin(context.Background(), enginetest.Owner(), twinID("a"))
		if err != nil || string(tw.Tags.Plain(nil)) != `{"cleaned":true}` {
			t.Errorf("tags are %s %v", tw.Tags.Plain(nil), err)
		}
		if r := f.run(stubborn); r.State != pattern.Waiting || !r.Canceling {
			t.Errorf("the other run is %s", r.State)
		}
		<-time.After(12 * time.Minute)
		if r := f.run(stubborn); r.State != pattern.Failed || r.Fault.Code != pattern.FaultTimeout {
			t.Errorf("the other run is %s %+v", r.State, r.Fault)
		}
	})
}

// TestRunInterpreterFails tries again with pauses, and gives up with a fault.
func TestRunInterpreterFails(t *testing.T) {
	scripts := enginetest.NewScripts(script("x", nil, func(*enginetest.Play) (any, error) { return "fine", nil }))
	tries, most := 0, 3
	scripts.Fail = func([]pattern.Activation) error {
		if tries++; tries <= most {
			return errors.New("the worker is gone")
		}
		return nil
	}
	withRuns(t, scripts, func(t *testing.T, f *fleet) {
		id := f.startRun("x", "a")
		<-time.After(time.Minute)
		if r := f.run(id); r.State != pattern.Succeeded || tries != 4 {
			t.Errorf("the run is %s %+v after %d tries", r.State, r.Fault, tries)
		}
		most = 1000
		id = f.startRun("x", "a")
		<-time.After(10 * time.Minute)
		if r := f.run(id); r.State != pattern.Failed || r.Fault.Code != pattern.FaultUnavailable || !strings.Contains(r.Fault.Message, "the worker is gone") {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
		if tries > 20 {
			t.Errorf("it was tried %d times", tries)
		}
	})
}

// TestRunJournal takes many steps with large values and lines: the record stays
// small, and the trace shows all of it.
func TestRunJournal(t *testing.T) {
	const steps = 300
	value, err := json.Marshal(strings.Repeat("v", 500))
	if err != nil {
		t.Fatal(err)
	}
	many := func(p *enginetest.Play) (any, error) {
		for i := range steps {
			p.Log("line %d %s", i, strings.Repeat("l", 100))
			if _, err := p.Step("kv.set", pattern.KeyValueArgs{Scope: "run", Key: fmt.Sprint(i % 50), Value: value}); err != nil {
				return nil, err
			}
			if i%100 == 50 {
				if err := p.Sleep(time.Second); err != nil {
					return nil, err
				}
			}
		}
		return p.Step("kv.get", pattern.KeyValueArgs{Scope: "run", Key: "7"})
	}
	s := script("many", nil, many)
	s.Undo = func(p *enginetest.Play) (any, error) {
		if p.Attempt > 0 {
			if _, err := p.Step("kv.set", pattern.KeyValueArgs{Scope: "run", Key: "7"}); err != nil {
				return nil, err
			}
		}
		return nil, p.Sleep(time.Second)
	}
	endless := script("endless", nil, func(p *enginetest.Play) (any, error) {
		for {
			if _, err := p.Step("kv.set", pattern.KeyValueArgs{Scope: "run", Key: "k", Value: json.RawMessage("1")}); err != nil {
				return nil, err
			}
		}
	})
	withRuns(t, enginetest.NewScripts(s, endless), func(t *testing.T, f *fleet) {
		id := f.startRun("many", "a")
		<-time.After(30 * time.Second)
		r := f.run(id)
		if r.State != pattern.Succeeded || string(r.Result) != string(value) || r.Step != steps+4 {
			t.Fatalf("the run is %s %+v after %d steps", r.State, r.Fault, r.Step)
		}
		trace, err := f.hub.RunTrace(context.Background(), enginetest.Owner(), id)
		if err != nil {
			t.Fatal(err)
		}
		if len(trace.Steps) != steps+4 || len(trace.Logs) != pattern.MaxLogs || !strings.HasPrefix(trace.Logs[pattern.MaxLogs-1].Text, "line 299 ") {
			t.Errorf("the trace has %d steps and %d lines", len(trace.Steps), len(trace.Logs))
		}
		for range 2 { // the second time it is taken again from the top of the undo
			_, err = f.hub.UndoRun(context.Background(), enginetest.Owner(), id)
			if err != nil {
				break
			}
			<-time.After(5 * time.Second)
			if r = f.run(id); r.State != pattern.Undone || r.Step != steps+6 {
				t.Errorf("the run is %s %+v after %d steps", r.State, r.Fault, r.Step)
			}
		}
		if e := engine.AsError(err); e == nil || e.Code != engine.CodeRunState {
			t.Errorf("a second undo: %v", err)
		}
		id = f.startRun("endless", "a")
		<-time.After(time.Minute)
		if r := f.run(id); r.State != pattern.Failed || r.Fault.Code != pattern.FaultJournalFull {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
}

// TestRunHostile starts more runs than a device takes, with what is too large or
// is not there.
func TestRunHostile(t *testing.T) {
	ask := script("ask", nil, func(p *enginetest.Play) (any, error) { return p.Approve("?") })
	ask.Manifest.Params = json.RawMessage(`{"x":{"type":"string"}}`)
	nested := script("nested", pattern.Needs{"run:start"}, func(p *enginetest.Play) (any, error) {
		return p.Step("dev.run", pattern.RunArgs{Pattern: "nested"})
	})
	huge := script("huge", pattern.Needs{"twin:read"}, func(p *enginetest.Play) (any, error) {
		return nil, p.Tag(`{"x":"` + strings.Repeat("x", 300<<10) + `"}`)
	})
	huge.Manifest.Needs = append(huge.Manifest.Needs, "twin:tags")
	withRuns(t, enginetest.NewScripts(ask, nested, huge), func(t *testing.T, f *fleet) {
		owner := enginetest.Owner()
		for what, c := range map[string]struct {
			spec engine.RunSpec
			code engine.Code
		}{
			"params": {engine.RunSpec{Pattern: "ask", Device: twinID("a"), Params: json.RawMessage(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)}, engine.CodeArgumentInvalid},
			"wrong":  {engine.RunSpec{Pattern: "ask", Device: twinID("a"), Params: json.RawMessage(`{"y":1}`)}, engine.CodeArgumentInvalid},
			"json":   {engine.RunSpec{Pattern: "ask", Device: twinID("a"), Params: json.RawMessage(`{"x":`)}, engine.CodeArgumentInvalid},
			"device": {engine.RunSpec{Pattern: "ask", Device: twinID("b")}, engine.CodeDeviceNotFound},
			"none":   {engine.RunSpec{Pattern: "ask"}, engine.CodeArgumentNull},
			"name":   {engine.RunSpec{Pattern: "other", Device: twinID("a")}, engine.CodePatternNotFound},
		} {
			if _, err := f.hub.StartRun(context.Background(), owner, c.spec); engine.AsError(err).Code != c.code {
				t.Errorf("%s: %v", what, err)
			}
		}
		var ids []string
		all := 1200
		if raceDetector {
			all = 100
		}
		for range all {
			ids = append(ids, f.startRun("ask", "a"))
		}
		<-time.After(time.Second)
		states := map[pattern.State]int{}
		for _, id := range ids {
			states[f.run(id).State]++
		}
		queued := min(all-1, 1000)
		if states[pattern.Waiting] != 1 || states[pattern.Queued] != queued || states[pattern.Failed] != all-1-queued {
			t.Errorf("runs are %v", states)
		}
		n, err := f.hub.CancelRuns(context.Background(), owner, engine.RunFilter{Pattern: "ask"}, engine.CancelRunOptions{})
		if err != nil || n != queued+1 {
			t.Errorf("%d were canceled: %v", n, err)
		}
		<-time.After(time.Second)
		id := f.startRun("nested", "a")
		<-time.After(time.Second)
		if r := f.run(id); r.State != pattern.Failed || r.Fault.Code != pattern.FaultInvalid || !strings.Contains(r.Fault.Message, "stand above") {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
		id = f.startRun("huge", "a")
		<-time.After(time.Second)
		if r := f.run(id); r.State != pattern.Failed || r.Fault.Code != pattern.FaultInvalid && r.Fault.Code != pattern.FaultTooBig && r.Fault.Code != pattern.FaultJournalFull {
			t.Errorf("the run is %s %+v", r.State, r.Fault)
		}
	})
}

// TestRunFlood lets many conditions wait on a device whose twin changes all the
// time: each comes true once, and none is missed.
func TestRunFlood(t *testing.T) {
	const waits = 300
	s := script("level", pattern.Needs{"twin:read"}, func(p *enginetest.Play) (any, error) {
		var params struct{ At int }
		if err := json.Unmarshal(p.Params, &params); err != nil {
			return nil, err
		}
		return p.Wait("tags.level >= at", map[string]json.RawMessage{"at": json.RawMessage(fmt.Sprint(params.At))}, "1h")
	})
	s.Manifest.Conflicts = pattern.ConflictShare
	s.Manifest.Params = json.RawMessage(`{"at":{"type":"integer"}}`)
	withRuns(t, enginetest.NewScripts(s), func(t *testing.T, f *fleet) {
		owner := enginetest.Owner()
		var ids []string
		for i := range waits {
			r, err := f.hub.StartRun(context.Background(), owner, engine.RunSpec{Pattern: "level", Device: twinID("a"), Params: json.RawMessage(fmt.Sprintf(`{"at":%d}`, i+1))})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		<-time.After(time.Second)
		if n := f.hub.RunStats().Waiting; n != waits {
			t.Fatalf("%d conditions are followed", n)
		}
		patch := func(level int) {
			t.Helper()
			_, err := f.hub.PatchTwin(context.Background(), owner, twinID("a"), engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"level":%d}`, level)}, engine.IfMatch{})
			if err != nil {
				t.Fatal(err)
			}
		}
		for level := 1; level <= waits/2; level++ {
			patch(level)
		}
		<-time.After(time.Second)
		for i, id := range ids {
			want := pattern.Waiting
			if i < waits/2 {
				want = pattern.Succeeded
			}
			if r := f.run(id); r.State != want {
				t.Errorf("the run for %d is %s, want %s", i+1, r.State, want)
			}
		}
		patch(waits)
		<-time.After(time.Second)
		if s := f.hub.RunStats(); s.Waiting != 0 || s.Ended[pattern.Succeeded] != waits {
			t.Errorf("figures are %+v", s)
		}
	})
}
