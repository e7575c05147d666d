package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// fleet makes devices d00, d01, ...
func (f *runFixture) fleet(n int) []engine.TwinID {
	f.t.Helper()
	ids := make([]engine.TwinID, n)
	for i := range ids {
		ids[i] = f.device(fmt.Sprintf("d%02d", i))
	}
	return ids
}

// job makes a job that runs a pattern on all devices.
func (f *runFixture) job(spec engine.JobSpec, token string) engine.Job {
	f.t.Helper()
	if spec.Targets.Where == "" && len(spec.Targets.IDs) == 0 {
		spec.Targets.Where = "*"
	}
	j, err := f.CreateJob(f.t.Context(), enginetest.Owner(), spec, token)
	if err != nil {
		f.t.Fatal(err)
	}
	return j
}

func runs(name, params string) engine.JobAction {
	return engine.JobAction{Run: &engine.JobRun{Pattern: name, Params: json.RawMessage(params)}}
}

// jobUntil waits until a job stands as wanted.
func (f *runFixture) jobUntil(id, what string, is func(j engine.Job) bool) engine.Job {
	f.t.Helper()
	var j engine.Job
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if j, err = f.Job(f.t.Context(), enginetest.Owner(), id); err != nil {
			f.t.Fatal(err)
		}
		if is(j) {
			return j
		}
	}
	list, _, err := f.Runs(f.t.Context(), enginetest.Owner(), engine.RunFilter{Job: id, Active: true}, 5, "")
	f.t.Fatalf("the job did not come to %s: %+v, undo %+v, runs under way %+v %v", what, j.State, j.Undo, list, err)
	return j
}

func (f *runFixture) jobEnded(id string) engine.Job {
	f.t.Helper()
	return f.jobUntil(id, "an end", func(j engine.Job) bool { return j.Status().Final() })
}

func (f *runFixture) executions(id string) map[string]engine.Execution {
	f.t.Helper()
	list, _, err := f.Executions(f.t.Context(), enginetest.Owner(), id, engine.ExecutionFilter{}, "", 1000)
	if err != nil {
		f.t.Fatal(err)
	}
	out := map[string]engine.Execution{}
	for _, e := range list {
		out[e.Target.DeviceID] = e
	}
	return out
}

// rows asks a query and returns its rows.
func (f *runFixture) rows(text string) []string {
	f.t.Helper()
	var rows []string
	token := ""
	for {
		page, err := f.Query(f.t.Context(), enginetest.Owner(), engine.QueryRequest{Text: text, Token: token, Max: 3})
		if err != nil {
			f.t.Fatalf("%s: %v", text, err)
		}
		for _, r := range page.Rows {
			rows = append(rows, string(r))
		}
		if token = page.Token; token == "" {
			return rows
		}
	}
}

// TestJobOfRuns runs a pattern on devices of which some fail, and one is left out.
func TestJobOfRuns(t *testing.T) {
	t.Parallel()
	var flaky atomic.Int64
	scripts := enginetest.NewScripts(enginetest.Script{
		Manifest: pattern.Manifest{
			Name: "touch", Needs: pattern.Needs{"twin:read", "twin:tags"}, Applies: "deviceId != 'd05'",
			Params:  json.RawMessage(`{"level":{"type":"integer","default":7}}`),
			Rollout: &rollout.Policy{Parallel: 2, Retry: &rollout.Retry{Attempts: 2, On: []rollout.AttemptOutcome{rollout.AttemptFailed}, Backoff: rollout.Duration(time.Millisecond), Most: rollout.Duration(time.Second), Factor: 1}},
		},
		Run: func(p *enginetest.Play) (any, error) {
			if err := p.Tag(`{"level":` + paramOf(p, "level") + `}`); err != nil {
				return nil, err
			}
			if err := p.Sleep(time.Millisecond); err != nil {
				return nil, err
			}
			switch {
			case p.Device == "d01":
				return nil, &pattern.Fault{Code: "broken", Message: "this one is broken"}
			case p.Device == "d02" && p.Attempt == 1:
				flaky.Add(1)
				return nil, &pattern.Fault{Code: "flaky", Message: "not at once"}
			}
			return nil, nil
		},
	})
	f := newRunFixture(t, scripts)
	f.fleet(6)
	preview, err := f.PreviewJob(t.Context(), enginetest.Owner(), engine.JobSpec{Targets: engine.JobTargets{Where: "*"}, Action: runs("touch", "")}, 0)
	if err != nil || preview.Kind != engine.JobRunPattern || preview.Count != 5 || len(preview.Excluded) != 1 || preview.Excluded[0].Reason != "the pattern does not apply" ||
		preview.Confirm != "" || preview.Spec.Policy.Parallel != 2 || preview.Sample[0].Effect.Pattern != "touch 1.0.0" {
		t.Errorf("%+v, %v", preview, err)
	}
	j := f.job(engine.JobSpec{ID: "j", Action: runs("touch", "")}, "")
	if string(j.Action.Run.Params) != `{"level":7}` || j.Action.Run.Version != "1.0.0" || j.Policy.Timeout != rollout.DurationMost {
		t.Errorf("%+v, %+v", j.Action.Run, j.Policy)
	}
	j = f.jobEnded("j")
	total := j.State.Total()
	if j.Status() != rollout.JobCompleted || total.Size != 5 || total.Succeeded != 4 || total.Failed != 1 {
		t.Errorf("%s: %+v", j.Status(), total)
	}
	e := f.executions("j")
	if one := e["d01"]; one.Status != rollout.ExecutionFailed || one.Code != "broken" || one.Attempts != 2 || !strings.HasPrefix(one.Last[0].ID, "r-") || one.Last[0].ID == one.Last[1].ID {
		t.Errorf("%+v", one)
	}
	if one := e["d02"]; one.Status != rollout.ExecutionSucceeded || one.Attempts != 2 || flaky.Load() == 0 {
		t.Errorf("%+v", one)
	}
	r, err := f.ReadRun(t.Context(), enginetest.Owner(), e["d02"].Last[1].ID)
	if err != nil || r.Job != "j" || r.Attempt != 2 || r.Of != e["d02"].Last[0].ID {
		t.Errorf("%+v, %v", r, err)
	}
	if got := f.rows("SELECT state, COUNT() AS n FROM devices.runs WHERE jobId = 'j' GROUP BY state"); strings.Join(got, " ") != `{"state":"failed","n":3} {"state":"succeeded","n":4}` {
		t.Errorf("%v", got)
	}
	if got := f.rows("SELECT deviceId FROM devices.runs WHERE pattern = 'touch' AND code = 'broken'"); len(got) != 2 || got[0] != `{"deviceId":"d01"}` {
		t.Errorf("%v", got)
	}
	if got := f.rows("SELECT * FROM devices.runs WHERE jobId = 'j'"); len(got) != 7 {
		t.Errorf("%d rows: %v", len(got), got)
	}
	counts, err := f.RunCounts(t.Context(), enginetest.Owner(), engine.RunFilter{Job: "j"})
	if err != nil || len(counts) != 2 || counts[0].State != pattern.Succeeded || counts[0].Count != 4 || counts[1].Count != 3 {
		t.Errorf("%+v, %v", counts, err)
	}
	if n := f.JobStats().InFlight; n != 0 {
		t.Errorf("%d are in flight", n)
	}
}

// paramOf is a parameter of a run as JSON.
func paramOf(p *enginetest.Play, name string) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(p.Params, &m) != nil {
		return "null"
	}
	return string(m[name])
}

func TestJobOfRunsIsRefused(t *testing.T) {
	t.Parallel()
	nothing := func(*enginetest.Play) (any, error) { return nil, nil }
	scripts := enginetest.NewScripts(
		enginetest.Script{Manifest: pattern.Manifest{Name: "plain", Params: json.RawMessage(`{"n":{"type":"integer"}}`)}, Run: nothing},
		enginetest.Script{Manifest: pattern.Manifest{Name: "wipe", Danger: true}, Run: nothing},
		enginetest.Script{Manifest: pattern.Manifest{Name: "few", Most: 2}, Run: nothing},
		enginetest.Script{Manifest: pattern.Manifest{Name: "whole", Scope: pattern.ScopeFleet}, Run: nothing},
		enginetest.Script{Manifest: pattern.Manifest{Name: "none", Applies: "tags.x == 1"}, Run: nothing},
		enginetest.Script{Manifest: pattern.Manifest{Name: "off"}, Run: nothing},
	)
	f := newRunFixture(t, scripts)
	f.fleet(3)
	owner := enginetest.Owner()
	if _, err := f.DisablePattern(t.Context(), owner, "off", "", ""); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		action engine.JobAction
		code   engine.Code
		part   string
	}{
		"no name":         {engine.JobAction{Run: &engine.JobRun{}}, engine.CodeArgumentNull, "action.run.pattern"},
		"unknown":         {runs("ghost", ""), engine.CodePatternNotFound, "ghost"},
		"unknown version": {engine.JobAction{Run: &engine.JobRun{Pattern: "plain", Version: "9.0.0"}}, engine.CodePatternNotFound, "9.0.0"},
		"bad parameters":  {runs("plain", `{"n":"x"}`), engine.CodeArgumentInvalid, "n"},
		"twice":           {engine.JobAction{Run: &engine.JobRun{Pattern: "plain"}, Method: &engine.JobMethodCall{Name: "m"}}, engine.CodeArgumentInvalid, "one of them"},
		"offline":         {engine.JobAction{Run: &engine.JobRun{Pattern: "plain"}, Offline: engine.JobOfflineFail}, engine.CodeArgumentInvalid, "offline"},
		"danger":          {runs("wipe", ""), engine.CodeArgumentNull, "dangerous"},
		"many":            {runs("few", ""), engine.CodeArgumentNull, "2 devices"},
		"fleet":           {runs("whole", ""), engine.CodeArgumentInvalid, "as a whole"},
		"applies to none": {runs("none", ""), engine.CodeArgumentInvalid, "applies to none of the 3 devices"},
		"disabled":        {runs("off", ""), engine.CodePatternState, "disabled"},
	} {
		_, err := f.CreateJob(t.Context(), owner, engine.JobSpec{Targets: engine.JobTargets{Where: "*"}, Action: c.action}, "")
		wantCode(t, err, c.code)
		if err != nil && !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for name, most := range map[string]string{"wipe": "*", "few": "*"} {
		spec := engine.JobSpec{Targets: engine.JobTargets{Where: most}, Action: runs(name, "")}
		p, err := f.PreviewJob(t.Context(), owner, spec, 0)
		if err != nil || p.Confirm != name {
			t.Fatalf("%+v, %v", p, err)
		}
		j := f.job(spec, p.Token)
		f.jobEnded(j.ID)
	}
	f.jobEnded(f.job(engine.JobSpec{Targets: engine.JobTargets{Where: "deviceId != 'd00'"}, Action: runs("few", "")}, "").ID)
}

// TestJobOfRunsPreview shows what is in the way, and what the pattern says itself.
func TestJobOfRunsPreview(t *testing.T) {
	t.Parallel()
	scripts := enginetest.NewScripts(idle("idle", "1.0.0"), enginetest.Script{
		Manifest: pattern.Manifest{Name: "careful", Needs: pattern.Needs{"twin:read"}, Conflicts: pattern.ConflictSkip},
		Run:      func(p *enginetest.Play) (any, error) { return nil, nil },
		Check: func(p *enginetest.Play) (any, error) {
			at, err := p.Get("tags.site")
			switch {
			case err != nil:
				return nil, err
			case string(at) == `"north"`:
				return "the north is closed", nil
			case p.Device == "d03":
				return p.Desire(`{"a":1}`)
			}
			return nil, nil
		},
	})
	f := newRunFixture(t, scripts)
	ids := f.fleet(4)
	if _, err := f.PatchTwin(t.Context(), enginetest.Owner(), ids[1], engine.TwinUpdate{Tags: []byte(`{"site":"north"}`)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
	r := f.start("idle", ids[2], "")
	f.state(r.ID, pattern.Waiting)
	effects := map[string]engine.JobEffect{}
	for _, name := range []string{"careful", "idle"} {
		p, err := f.PreviewJob(t.Context(), enginetest.Owner(), engine.JobSpec{Targets: engine.JobTargets{Where: "*"}, Action: runs(name, "")}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Sample {
			effects[name+" "+s.ID.DeviceID] = s.Effect
		}
	}
	for key, want := range map[string]engine.JobEffect{
		"careful d00": {},
		"careful d01": {Fault: "its check leaves it out: the north is closed"},
		"careful d02": {Behind: r.ID, Conflict: "would be skipped: run " + r.ID + " is under way"},
		"careful d03": {Fault: "its check takes a step that is more than a look"},
		"idle d02":    {Behind: r.ID, Conflict: "would wait behind run " + r.ID},
	} {
		if got := effects[key]; got.Fault != want.Fault || got.Behind != want.Behind || got.Conflict != want.Conflict {
			t.Errorf("%s: %+v, want %+v", key, got, want)
		}
	}
	if list, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{}, 10, ""); err != nil || len(list) != 1 {
		t.Errorf("a preview has left runs: %d, %v", len(list), err)
	}
}

// TestJobOfRunsIsCanceled: its runs that have begun are called back; one whose time
// is over, too.
func TestJobOfRunsIsCanceled(t *testing.T) {
	t.Parallel()
	var cleaned sync.Map
	scripts := enginetest.NewScripts(enginetest.Script{
		Manifest: pattern.Manifest{Name: "idle", Needs: pattern.Needs{"twin:read", "twin:tags"}},
		Run: func(p *enginetest.Play) (any, error) {
			p.Defer(func(p *enginetest.Play) { cleaned.Store(p.Device, true); _ = p.Tag(`{"cleaned":true}`) })
			return p.Wait("reported.never == true", nil, "")
		},
	})
	f := newRunFixture(t, scripts)
	ids := f.fleet(5)
	j := f.job(engine.JobSpec{ID: "j", Action: runs("idle", ""), Policy: rollout.Policy{Parallel: 3}}, "")
	f.jobUntil(j.ID, "three runs", func(j engine.Job) bool { return j.State.Total().Active == 3 })
	if _, err := f.CancelJob(t.Context(), enginetest.Owner(), "j", "enough", ""); err != nil {
		t.Fatal(err)
	}
	j = f.jobEnded("j")
	if total := j.State.Total(); j.Status() != rollout.JobCanceled || total.Canceled != 5 {
		t.Errorf("%s: %+v", j.Status(), total)
	}
	n := 0
	for _, e := range f.executions("j") {
		if e.Attempts == 0 {
			continue
		}
		n++
		r, err := f.ReadRun(t.Context(), enginetest.Owner(), e.Last[0].ID)
		if err != nil || r.State != pattern.Canceled || e.Message != "enough" {
			t.Errorf("%+v, %+v, %v", e, r, err)
		}
	}
	if n != 3 {
		t.Errorf("%d had begun", n)
	}
	f.job(engine.JobSpec{ID: "late", Targets: engine.JobTargets{IDs: ids[:1]}, Action: runs("idle", ""), Policy: rollout.Policy{Timeout: rollout.Duration(time.Second)}}, "")
	j = f.jobEnded("late")
	e := f.executions("late")["d00"]
	r, err := f.ReadRun(t.Context(), enginetest.Owner(), e.Last[0].ID)
	if err != nil || e.Status != rollout.ExecutionTimedOut || r.State != pattern.Canceled || j.Status() != rollout.JobCompleted {
		t.Errorf("%+v, %+v, %v", e, r, err)
	}
	// Its identity is deleted: the run ends, and the execution is removed.
	j = f.job(engine.JobSpec{ID: "gone", Targets: engine.JobTargets{IDs: ids[1:2]}, Action: runs("idle", "")}, "")
	f.jobUntil(j.ID, "a run", func(j engine.Job) bool { return j.State.Total().Active == 1 })
	if err := f.DeleteIdentity(t.Context(), enginetest.Owner(), ids[1], engine.IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	f.jobEnded("gone")
}

// gated is a pattern whose gate says what a test wants behind its first wave.
func gated(says func(p *enginetest.Play) (any, error)) *enginetest.Scripts {
	return enginetest.NewScripts(enginetest.Script{
		Manifest: pattern.Manifest{Name: "gated", Needs: pattern.Needs{"twin:read", "twin:tags"}},
		Run: func(p *enginetest.Play) (any, error) {
			return nil, errors.Join(p.Tag(`{"touched":true}`), p.Sleep(time.Millisecond))
		},
		Undo: func(p *enginetest.Play) (any, error) {
			return nil, errors.Join(p.Tag(`{"touched":null}`), p.Sleep(time.Millisecond))
		},
		Gate: says,
	})
}

func TestGateOfPattern(t *testing.T) {
	t.Parallel()
	waves := rollout.Policy{Waves: []rollout.Wave{{Size: rollout.Count(2)}, {Size: rollout.Percent(100)}}}
	count := func(p *enginetest.Play, where string) (string, error) {
		n, err := p.Step("run.count", pattern.FleetArgs{Where: where})
		return string(n), err
	}
	say := func(decision, reason string) any {
		return map[string]string{"decision": decision, "reason": reason}
	}
	for name, c := range map[string]struct {
		gate func(p *enginetest.Play) (any, error)
		want func(t *testing.T, f *runFixture, j engine.Job)
	}{
		"go": {
			func(p *enginetest.Play) (any, error) {
				n, err := count(p, "tags.touched == true")
				if err != nil || n != "2" || paramOf(&enginetest.Play{Activation: pattern.Activation{Params: p.Wave}}, "size") != "2" {
					return say("abort", "it counts "+n+string(p.Wave)), err
				}
				return say("go", "two of two"), nil
			},
			func(t *testing.T, f *runFixture, j engine.Job) {
				if j.Status() != rollout.JobCompleted || len(j.State.Gates) != 1 || j.State.Gates[0].Verdict != rollout.GateGo || j.State.Gates[0].Reason != "two of two" {
					t.Errorf("%+v", j.State)
				}
			},
		},
		"pause": {
			func(p *enginetest.Play) (any, error) { return say("pause", "look at it"), nil },
			func(t *testing.T, f *runFixture, j engine.Job) {
				if j.Status() != rollout.JobPaused || j.State.PausedBy != rollout.PausedByGate || !strings.Contains(j.State.Reason, "look at it") {
					t.Errorf("%+v", j.State)
				}
				if _, err := f.ResumeJob(t.Context(), enginetest.Owner(), j.ID, ""); err != nil {
					t.Fatal(err)
				}
				if j = f.jobEnded(j.ID); j.Status() != rollout.JobCompleted || j.State.Total().Succeeded != 5 {
					t.Errorf("%+v", j.State)
				}
			},
		},
		"abort": {
			func(p *enginetest.Play) (any, error) { return say("abort", "bad"), nil },
			func(t *testing.T, f *runFixture, j engine.Job) {
				if total := j.State.Total(); j.Status() != rollout.JobFailed || total.Succeeded != 2 || total.Canceled != 3 || j.Undo != nil {
					t.Errorf("%+v", j.State)
				}
			},
		},
		"undo": {
			func(p *enginetest.Play) (any, error) { return say("undo", "sick"), nil },
			func(t *testing.T, f *runFixture, j engine.Job) {
				j = f.jobUntil(j.ID, "its undo", func(j engine.Job) bool { return j.Undo != nil && j.Undo.Told && j.Undo.Undone == 2 })
				if j.Status() != rollout.JobFailed || j.Undo.By != "gate" || !strings.Contains(j.Undo.Reason, "sick") || j.Undo.Begun != 2 {
					t.Errorf("%+v, %+v", j.State, j.Undo)
				}
			},
		},
		"nonsense": {
			func(p *enginetest.Play) (any, error) { return say("perhaps", ""), nil },
			func(t *testing.T, f *runFixture, j engine.Job) {
				if j.Status() != rollout.JobPaused || !strings.Contains(j.State.Reason, "perhaps") {
					t.Errorf("%+v", j.State)
				}
			},
		},
		"too much": {
			func(p *enginetest.Play) (any, error) { return p.Desire(`{"a":1}`) },
			func(t *testing.T, f *runFixture, j engine.Job) {
				if j.Status() != rollout.JobPaused || !strings.Contains(j.State.Reason, "dev.desire") {
					t.Errorf("%+v", j.State)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRunFixture(t, gated(c.gate))
			f.fleet(5)
			j := f.job(engine.JobSpec{Action: runs("gated", ""), Policy: waves}, "")
			j = f.jobUntil(j.ID, "what follows the gate", func(j engine.Job) bool { return j.Status().Final() || j.Status() == rollout.JobPaused })
			c.want(t, f, j)
			touched := 0
			for i := range 5 {
				tw, err := f.Twin(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: fmt.Sprintf("d%02d", i)})
				if err != nil {
					t.Fatal(err)
				}
				if !tw.Tags.Empty() {
					touched++
				}
			}
			if want := map[string]int{"go": 5, "pause": 5, "abort": 2, "undo": 0, "nonsense": 2, "too much": 2}[name]; touched != want {
				t.Errorf("%d devices were touched, want %d", touched, want)
			}
		})
	}
}

// TestUndoJob takes back what a job did, under way and done.
func TestUndoJob(t *testing.T) {
	t.Parallel()
	var stuck atomic.Bool
	stuck.Store(true)
	scripts := enginetest.NewScripts(idle("idle", "1.0.0"), enginetest.Script{
		Manifest: pattern.Manifest{Name: "set", Needs: pattern.Needs{"twin:read", "twin:tags"}},
		Run: func(p *enginetest.Play) (any, error) {
			if err := p.Tag(`{"set":true}`); err != nil {
				return nil, err
			}
			if p.Device >= "d40" {
				return p.Wait("reported.never == true", nil, "")
			}
			return nil, p.Sleep(time.Millisecond)
		},
		Undo: func(p *enginetest.Play) (any, error) {
			if p.Device == "d07" && stuck.Load() {
				return nil, &pattern.Fault{Code: "stuck", Message: "it does not come off"}
			}
			return nil, errors.Join(p.Tag(`{"set":null}`), p.Sleep(time.Millisecond))
		},
	})
	f := newRunFixture(t, scripts)
	f.fleet(80)
	j := f.job(engine.JobSpec{ID: "j", Action: runs("set", "")}, "")
	f.jobUntil("j", "forty that wait", func(j engine.Job) bool {
		counts, err := f.RunCounts(t.Context(), enginetest.Owner(), engine.RunFilter{Job: "j", States: []pattern.State{pattern.Waiting}})
		return err == nil && len(counts) == 1 && counts[0].Count == 40 && counts[0].Step == "dev.wait" && j.State.Total().Succeeded == 40
	})
	if _, err := f.UndoJob(t.Context(), enginetest.Owner(), "j", "take it back", ""); err != nil {
		t.Fatal(err)
	}
	_, err := f.UndoJob(t.Context(), enginetest.Owner(), "j", "", "")
	wantCode(t, err, engine.CodeJobState)
	j = f.jobUntil("j", "its undo", func(j engine.Job) bool { return j.Status().Final() && j.Undo.Undone+j.Undo.Failed == 80 })
	if u := j.Undo; !u.Told || u.Begun != 80 || u.Undone != 79 || u.Failed != 1 || u.Left != 0 || u.Reason != "take it back" || j.Status() != rollout.JobCanceled {
		t.Errorf("%s: %+v", j.Status(), u)
	}
	e := f.executions("j")
	if one := e["d07"]; one.Status != rollout.ExecutionSucceeded || !strings.Contains(one.Message, "does not come off") {
		t.Errorf("%+v", one)
	}
	if one := e["d50"]; one.Status != rollout.ExecutionCanceled {
		t.Errorf("%+v", one)
	}
	if got := f.rows("SELECT COUNT() AS n FROM devices WHERE tags.set = true"); got[0] != `{"n":1}` {
		t.Errorf("%v", got)
	}
	// Again: what failed is tried once more, until nothing is left.
	first := *j.Undo
	again := func() {
		t.Helper()
		if _, err := f.UndoJob(t.Context(), enginetest.Owner(), "j", "more", ""); err != nil {
			t.Fatal(err)
		}
		j = f.jobUntil("j", "its next undo", func(j engine.Job) bool {
			return j.Status().Final() && j.Undo.Told && j.Undo.Undone+j.Undo.Failed == j.Undo.Begun
		})
	}
	if again(); *j.Undo != first {
		t.Errorf("it is %+v, and was %+v", *j.Undo, first)
	}
	stuck.Store(false)
	want := first
	want.Undone, want.Failed = 80, 0
	if again(); *j.Undo != want {
		t.Errorf("it is %+v, want %+v", *j.Undo, want)
	}
	_, err = f.UndoJob(t.Context(), enginetest.Owner(), "j", "", "")
	wantCode(t, err, engine.CodeJobState)
	if err == nil || !strings.Contains(err.Error(), "undone already") {
		t.Errorf("it says %v", err)
	}
	// Those that were canceled run again, and are new to the undo.
	if _, n, err := f.RetryFailedJob(t.Context(), enginetest.Owner(), "j", []rollout.ExecutionStatus{rollout.ExecutionCanceled}, ""); err != nil || n != 40 {
		t.Fatal(n, err)
	}
	f.jobUntil("j", "forty that wait again", func(engine.Job) bool {
		counts, err := f.RunCounts(t.Context(), enginetest.Owner(), engine.RunFilter{Job: "j", States: []pattern.State{pattern.Waiting}})
		return err == nil && len(counts) == 1 && counts[0].Count == 40
	})
	want.Begun, want.Undone = 120, 120
	if again(); *j.Undo != want {
		t.Errorf("it is %+v, want %+v", *j.Undo, want)
	}
	other := f.job(engine.JobSpec{ID: "none", Action: runs("idle", "")}, "")
	_, err = f.UndoJob(t.Context(), enginetest.Owner(), other.ID, "", "")
	wantCode(t, err, engine.CodeJobState)
}

// TestJobListsRunsInOrder looks at runs that were begun in one transaction.
func TestJobListsRunsInOrder(t *testing.T) {
	t.Parallel()
	f := newRunFixture(t, enginetest.NewScripts(script("none", nil, func(*enginetest.Play) (any, error) { return nil, nil })))
	ids := f.fleet(30)
	f.job(engine.JobSpec{ID: "j", Action: runs("none", "")}, "")
	f.jobEnded("j")
	list, _, err := f.Runs(t.Context(), enginetest.Owner(), engine.RunFilter{Job: "j"}, 0, "")
	if err != nil || len(list) != len(ids) {
		t.Fatalf("%d runs, %v", len(list), err)
	}
	for i, r := range list {
		if want := ids[len(ids)-1-i]; r.Device != want {
			t.Fatalf("the run %d from the newest is of %s, want %s", i, r.Device, want)
		}
	}
}
