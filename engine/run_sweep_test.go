package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// runsSweep are runs of each kind over the same devices: one that takes every step
// that may be taken again, one with a call and one with a request that may not,
// one that is approved and then undone, one that is canceled, one that fails and
// is begun again, and one of the fleet that waits for a job.
const sweepRunDevices = 4

var runsSweep = sweepWork{
	devices: sweepRunDevices, begin: beginSweepRuns, done: sweepRunsDone, state: sweepRunsState, check: checkSweepRuns,
	options: func(o *engine.Options, tell func(l sweepLine)) {
		o.Scripts = sweepScripts()
		o.Fetch = func(_ context.Context, r engine.FetchRequest) (engine.FetchAnswer, bool, error) {
			tell(sweepLine{Kind: "call", Device: "server", Name: r.Method + " " + r.URL})
			return engine.FetchAnswer{Status: 200, Type: "application/json", Body: []byte(`{"ok":true}`)}, true, nil
		}
	},
}

// sweepRunPatterns are those of which each device has a run.
var sweepRunPatterns = []string{"each", "once", "post", "ask", "stop", "bad"}

func sweepScripts() *enginetest.Scripts {
	share := func(s enginetest.Script) enginetest.Script {
		s.Manifest.Conflicts = pattern.ConflictShare
		return s
	}
	undoTag := func(name string) func(p *enginetest.Play) (any, error) {
		return func(p *enginetest.Play) (any, error) { return nil, p.Tag(`{"` + name + `":null}`) }
	}
	ask := share(script("ask", pattern.Needs{"twin:tags"}, func(p *enginetest.Play) (any, error) {
		if err := p.Tag(`{"ask":1}`); err != nil {
			return nil, err
		}
		_, err := p.Approve("go on?")
		return nil, err
	}))
	ask.Undo = undoTag("ask")
	stop := share(script("stop", pattern.Needs{"twin:tags", "twin:read"}, func(p *enginetest.Play) (any, error) {
		p.Defer(func(p *enginetest.Play) { _ = p.Tag(`{"cleaned":true}`) })
		if err := p.Tag(`{"stop":1}`); err != nil {
			return nil, err
		}
		return p.Wait("reported.never == true", nil, "1d")
	}))
	stop.Undo = undoTag("stop")
	each := script("each", pattern.Needs{"twin:read", "twin:desired", "twin:tags", "method:again", "run:start", "http:a.example", "message"}, sweepEach)
	fleet := script("fleet", pattern.Needs{"query", "run:start"}, func(p *enginetest.Play) (any, error) {
		n, err := p.Step("fleet.count", pattern.FleetArgs{Where: "*"})
		if err != nil {
			return nil, err
		}
		done, err := p.Step("fleet.run", pattern.RunArgs{Pattern: "mark", Where: "*", Wait: true})
		if err != nil {
			return nil, err
		}
		var job struct{ Succeeded, Total int }
		err = json.Unmarshal(done, &job)
		return fmt.Sprintf("%s %d of %d", n, job.Succeeded, job.Total), err
	})
	fleet.Manifest.Scope = pattern.ScopeFleet
	return enginetest.NewScripts(
		each, ask, stop, fleet,
		share(script("once", pattern.Needs{"twin:read", "method:once"}, func(p *enginetest.Play) (any, error) {
			if _, err := p.Call(pattern.CallArgs{Method: "once", Online: "30s", Timeout: "2s"}); err != nil {
				return nil, err
			}
			_, err := p.Wait("reported.once == 'done'", nil, "20s")
			return nil, err
		})),
		share(script("post", pattern.Needs{"http:a.example"}, func(p *enginetest.Play) (any, error) {
			return p.Step("ctx.http", pattern.HTTPArgs{Method: "POST", URL: "https://a.example/" + p.Device, Body: "x"})
		})),
		share(script("bad", nil, func(p *enginetest.Play) (any, error) {
			if err := p.Sleep(5 * time.Millisecond); err != nil {
				return nil, err
			}
			return nil, &pattern.Fault{Code: "broken", Message: "it is broken"}
		})),
		script("child", pattern.Needs{"twin:tags"}, func(p *enginetest.Play) (any, error) {
			if err := p.Sleep(5 * time.Millisecond); err != nil {
				return nil, err
			}
			return "child", p.Tag(`{"child":true}`)
		}),
		share(script("mark", pattern.Needs{"twin:tags"}, func(p *enginetest.Play) (any, error) { return nil, p.Tag(`{"mark":true}`) })),
	)
}

func sweepEach(p *enginetest.Play) (any, error) {
	steps := []func() (json.RawMessage, error){
		func() (json.RawMessage, error) {
			return p.Step("kv.incr", pattern.KeyValueArgs{Scope: "pattern", Key: "n"})
		},
		func() (json.RawMessage, error) { return p.Desire(`{"level":3}`) },
		func() (json.RawMessage, error) { return nil, p.Tag(`{"each":true}`) },
		func() (json.RawMessage, error) { return nil, p.Sleep(10 * time.Millisecond) },
		func() (json.RawMessage, error) {
			return p.Call(pattern.CallArgs{Method: "again", Online: "30s", Timeout: "500ms", Retry: 20, Idempotent: true})
		},
		func() (json.RawMessage, error) { return p.Wait("reported.again == 'done'", nil, "30s") },
		func() (json.RawMessage, error) { return p.Step("dev.run", pattern.RunArgs{Pattern: "child"}) },
		func() (json.RawMessage, error) {
			return p.Step("ctx.http", pattern.HTTPArgs{URL: "https://a.example/"})
		},
		func() (json.RawMessage, error) {
			return p.Step("dev.send", pattern.SendArgs{Body: json.RawMessage(`"hello"`)})
		},
	}
	var n json.RawMessage
	for i, step := range steps {
		p.Report(fmt.Sprintf("step %d", i), float64(i)/10)
		p.Log("step %d", i)
		r, err := step()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			n = r
		}
	}
	return n, nil
}

func beginSweepRuns(ctx context.Context, h *engine.Hub) error {
	if err := sweepScripts().Install(ctx, h); err != nil {
		return err
	}
	have := map[string]bool{}
	list, _, err := h.Runs(ctx, enginetest.Owner(), engine.RunFilter{}, 1000, "")
	if err != nil {
		return err
	}
	for _, r := range list {
		have[r.Pattern+" "+r.Device.DeviceID] = true
	}
	for _, name := range sweepRunPatterns {
		for i := range sweepRunDevices {
			if have[name+" "+sweepDevice(i)] {
				continue
			}
			if _, err := h.StartRun(ctx, enginetest.Owner(), engine.RunSpec{Pattern: name, Device: engine.TwinID{DeviceID: sweepDevice(i)}}); err != nil {
				return err
			}
		}
	}
	if !have["fleet "] {
		_, err = h.StartRun(ctx, enginetest.Owner(), engine.RunSpec{Pattern: "fleet"})
	}
	return err
}

// sweepRunsDone does what operators do.
func sweepRunsDone(ctx context.Context, h *engine.Hub) (bool, error) {
	owner := enginetest.Owner()
	list, _, err := h.Runs(ctx, owner, engine.RunFilter{}, 1000, "")
	if err != nil {
		return false, err
	}
	retried := map[string]bool{}
	for _, r := range list {
		retried[r.Of] = true
	}
	done := true
	for _, r := range list {
		switch {
		case r.Pattern == "ask" && r.Question != "":
			_, err = h.DecideRun(ctx, owner, r.ID, true, "")
		case r.Pattern == "ask" && r.State == pattern.Succeeded:
			_, err = h.UndoRun(ctx, owner, r.ID)
		case r.Pattern == "stop" && r.State == pattern.Waiting && !r.Canceling:
			_, err = h.CancelRun(ctx, owner, r.ID, engine.CancelRunOptions{Undo: true})
		case r.Pattern == "bad" && r.State == pattern.Failed && r.Of == "" && !retried[r.ID]:
			_, err = h.RetryRun(ctx, owner, r.ID, engine.RetryRunOptions{})
		default:
			done = done && r.State.Final()
			continue
		}
		done = false
		if err != nil && engine.AsError(err).Code != engine.CodeRunState {
			return false, err
		}
	}
	return done, nil
}

func sweepRunsState(ctx context.Context, h *engine.Hub) (map[string]string, error) {
	state := map[string]string{}
	list, _, err := h.Runs(ctx, enginetest.Owner(), engine.RunFilter{}, 1000, "")
	if err != nil {
		return nil, err
	}
	highest := ""
	for _, r := range list {
		key := strings.TrimSpace(r.Pattern + " " + r.Device.DeviceID)
		if r.Of != "" {
			key += " again"
		}
		state["run "+key] = string(r.State)
		if r.Fault != nil && r.State != pattern.Uncertain {
			state["fault "+key] = string(r.Fault.Code)
		}
		if r.Pattern == "each" {
			highest = max(highest, string(r.Result))
		}
		if r.Pattern == "fleet" {
			state["fleet"] = string(r.Result)
		}
		state["count "+r.Pattern] += "."
	}
	state["kv"] = highest
	for i := range sweepRunDevices {
		id := engine.TwinID{DeviceID: sweepDevice(i)}
		tw, err := h.Twin(ctx, enginetest.Owner(), id)
		if err != nil {
			return nil, err
		}
		var tags map[string]any
		if err := json.Unmarshal(tw.Tags.Plain(nil), &tags); err != nil {
			return nil, err
		}
		text, err := json.Marshal(tags) // in the order of names
		if err != nil {
			return nil, err
		}
		state["tags "+id.DeviceID] = string(text)
		state["desired "+id.DeviceID] = fmt.Sprintf("%s version %d", tw.Desired.Plain(nil), tw.Desired.Version())
		_, n, err := h.Messages(ctx, enginetest.Owner(), id.DeviceID, 0, 10)
		if err != nil {
			return nil, err
		}
		state["messages "+id.DeviceID] = fmt.Sprint(n)
	}
	for s, n := range h.RunStats().Active {
		if n != 0 {
			state["active "+string(s)] = fmt.Sprint(n)
		}
	}
	return state, nil
}

func checkSweepRuns(t *testing.T, want, got map[string]string, log map[string][]string) {
	told := func(device, name string) (n int) {
		for _, is := range log[device] {
			if is == name {
				n++
			}
		}
		return n
	}
	for i := range sweepRunDevices {
		id := sweepDevice(i)
		if n := told(id, "once"); n > 1 {
			t.Errorf("%s was told once %d times", id, n)
		}
		if n := told("server", "POST https://a.example/"+id); n > 1 {
			t.Errorf("the server got the request of %s %d times", id, n)
		}
	}
	for key, is := range got {
		// Where it was killed at the wire nobody knows what came of it.
		if is == string(pattern.Uncertain) && (strings.HasPrefix(key, "run once ") || strings.HasPrefix(key, "run post ")) {
			continue
		}
		if want[key] != is {
			t.Errorf("%s is %q, want %q", key, is, want[key])
		}
	}
	for key := range want {
		if _, is := got[key]; !is && !slices.Contains([]string{"fault"}, strings.Fields(key)[0]) {
			t.Errorf("there is no %s", key)
		}
	}
}
