package engine_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// TestRunStopsWaitingForJob has a run of the fleet wait for a job that does not
// end: its time passes, or the run is canceled.
func TestRunStopsWaitingForJob(t *testing.T) {
	fleetRun := func(name, timeout string, wait bool) enginetest.Script {
		s := script(name, pattern.Needs{"run:start"}, func(p *enginetest.Play) (any, error) {
			if _, err := p.Step("fleet.run", pattern.RunArgs{Pattern: "idle", Where: "*", Wait: wait, Timeout: timeout}); err != nil {
				return nil, err
			}
			return nil, p.Sleep(time.Hour)
		})
		s.Manifest.Scope = pattern.ScopeFleet
		return s
	}
	scripts := enginetest.NewScripts(
		script("idle", pattern.Needs{"twin:read"}, func(p *enginetest.Play) (any, error) {
			return p.Wait("reported.never == true", nil, "20d")
		}),
		fleetRun("minute", "1m", true), fleetRun("patient", "", true), fleetRun("wrong", "soon", true), fleetRun("starts", "1m", false),
	)
	withRuns(t, scripts, func(t *testing.T, f *fleet) {
		ctx, owner := context.Background(), enginetest.Owner()
		start := func(name string) (id, job string) {
			id = f.startRun(name, "")
			<-time.After(30 * time.Second)
			synctest.Wait()
			jobs, _, err := f.hub.Jobs(ctx, owner, engine.JobFilter{}, "", 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range jobs {
				if strings.HasPrefix(j.ID, id) {
					job = j.ID
				}
			}
			return id, job
		}
		canceled := func(id, job string) {
			t.Helper()
			<-time.After(time.Minute)
			synctest.Wait()
			j, err := f.hub.Job(ctx, owner, job)
			if err != nil || j.Status() != rollout.JobCanceled || !strings.Contains(j.State.Reason, id) {
				t.Errorf("the job is %s since %q, %v", j.Status(), j.State.Reason, err)
			}
			list, _, err := f.hub.Runs(ctx, owner, engine.RunFilter{Job: job}, 10, "")
			if err != nil || len(list) != 1 || list[0].State != pattern.Canceled {
				t.Errorf("its runs are %+v, %v", list, err)
			}
			trace, err := f.hub.RunTrace(ctx, owner, id)
			if err != nil || len(trace.Logs) != 1 || !strings.Contains(trace.Logs[0].Text, job+" was canceled") {
				t.Errorf("the log is %+v, %v", trace.Logs, err)
			}
		}
		id, job := start("minute")
		if r := f.run(id); r.State != pattern.Waiting || r.Due.IsZero() {
			t.Errorf("before its time the run is %s until %s", r.State, r.Due)
		}
		<-time.After(31 * time.Second)
		if r := f.run(id); r.State != pattern.Failed || r.Fault.Code != pattern.FaultTimeout {
			t.Errorf("behind its time the run is %s %+v", r.State, r.Fault)
		}
		canceled(id, job)

		id, job = start("patient")
		if _, err := f.hub.CancelRun(ctx, owner, id, engine.CancelRunOptions{}); err != nil {
			t.Fatal(err)
		}
		canceled(id, job)

		id, job = start("wrong")
		if r := f.run(id); job != "" || r.State != pattern.Failed || r.Fault.Code != pattern.FaultInvalid {
			t.Errorf("the run is %s %+v, its job is %q", r.State, r.Fault, job)
		}
		// A job for which nobody waits is left alone.
		id, job = start("starts")
		if _, err := f.hub.CancelRun(ctx, owner, id, engine.CancelRunOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if j, err := f.hub.Job(ctx, owner, job); err != nil || j.Status() != rollout.JobRunning {
			t.Errorf("the job is %s, %v", j.Status(), err)
		}
	})
}
