package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/rollout"
)

// jobsSweep are jobs of each kind at once, over the same devices: twins in waves,
// which is paused, resumed and approved on its way, a method without retries
// whose effect devices report, one with retries, one that devices join while it
// runs, and one that is canceled.
const sweepJobsDevices = 6

var jobsSweep = sweepWork{devices: sweepJobsDevices, begin: beginSweepJobs, done: sweepJobsDone, state: sweepJobsState, check: checkSweepJobs}

func sweepJobs() []engine.JobSpec {
	all := engine.JobTargets{Where: "*"}
	// An attempt's time goes on while nobody runs the hub, and on a busy machine a child
	// takes seconds to come back: those that were told get so long to say so. Only those
	// that were killed between the store and the wire take all of it.
	short := rollout.Policy{AttemptTimeout: rollout.Duration(15 * time.Second), Timeout: rollout.Duration(time.Minute)}
	once, again, never := short, short, short
	again.Retry = &rollout.Retry{
		Attempts: 5, Backoff: rollout.Duration(100 * time.Millisecond),
		On: []rollout.AttemptOutcome{rollout.AttemptUncertain, rollout.AttemptTimedOut},
	}
	never.Waves = []rollout.Wave{{Size: rollout.Percent(100), Approval: true}}
	waves := []rollout.Wave{{Size: rollout.Count(1)}, {Size: rollout.Percent(50), Approval: true}, {Size: rollout.Percent(100)}}
	return []engine.JobSpec{
		{ID: "twin", Targets: all, Action: engine.JobAction{Twin: &engine.JobTwinPatch{Desired: json.RawMessage(`{"level":3}`), Tags: json.RawMessage(`{"done":true}`)}}, Policy: rollout.Policy{Waves: waves}},
		{ID: "once", Targets: all, Action: engine.JobAction{Method: &engine.JobMethodCall{Name: "once"}, Confirm: "reported.once == 'done'"}, Policy: once},
		{ID: "again", Targets: all, Action: engine.JobAction{Method: &engine.JobMethodCall{Name: "again"}}, Policy: again},
		{ID: "grows", Targets: engine.JobTargets{Where: "tags.in == true", Dynamic: true}, AllowEmpty: true, Action: engine.JobAction{Twin: &engine.JobTwinPatch{Desired: json.RawMessage(`{"grown":1}`)}}},
		{ID: "never", Targets: all, Action: engine.JobAction{Method: &engine.JobMethodCall{Name: "never"}}, Policy: never},
	}
}

func beginSweepJobs(ctx context.Context, h *engine.Hub) error {
	for _, s := range sweepJobs() {
		if _, err := h.CreateJob(ctx, enginetest.Owner(), s, ""); err != nil && engine.AsError(err).Code != engine.CodeJobAlreadyExists {
			return err
		}
	}
	return nil
}

// sweepJobsDone does what operators do: each time, whatever is next.
func sweepJobsDone(ctx context.Context, h *engine.Hub) (bool, error) {
	done := true
	for _, s := range sweepJobs() {
		j, err := h.Job(ctx, enginetest.Owner(), s.ID)
		if err != nil {
			return false, err
		}
		state := &j.State
		total := state.Total()
		switch {
		case s.ID == "never" && state.WaitsFor == rollout.WaitsForApproval, s.ID == "grows" && total.Succeeded == sweepJobsDevices:
			_, err = h.CancelJob(ctx, enginetest.Owner(), s.ID, "test", "")
		case s.ID == "twin" && state.WaitsFor == rollout.WaitsForApproval:
			_, err = h.PauseJob(ctx, enginetest.Owner(), s.ID, "test", "")
		case s.ID == "twin" && state.Status == rollout.JobPaused && len(state.Approvals) == 0:
			_, err = h.ApproveJob(ctx, enginetest.Owner(), s.ID, 1, "")
		case s.ID == "twin" && state.Status == rollout.JobPaused:
			_, err = h.ResumeJob(ctx, enginetest.Owner(), s.ID, "")
		case s.ID == "grows" && state.Status == rollout.JobRunning && total.Size == total.Succeeded:
			id := engine.TwinID{DeviceID: sweepDevice(total.Size)}
			_, err = h.PatchTwin(ctx, enginetest.Owner(), id, engine.TwinUpdate{Tags: []byte(`{"in":true}`)}, engine.IfMatch{})
			<-time.After(5 * time.Millisecond)
		}
		if err != nil && engine.AsError(err).Code != engine.CodeJobState {
			return false, err
		}
		done = done && state.Status.Final()
	}
	return done, nil
}

func sweepJobsState(ctx context.Context, h *engine.Hub) (map[string]string, error) {
	state := map[string]string{}
	for _, s := range sweepJobs() {
		j, err := h.Job(ctx, enginetest.Owner(), s.ID)
		if err != nil {
			return nil, err
		}
		total := j.State.Total()
		tally := rollout.Tally{}
		state["job "+s.ID] = fmt.Sprintf("%s of %d", j.State.Status, total.Size)
		list, _, err := h.Executions(ctx, enginetest.Owner(), s.ID, engine.ExecutionFilter{}, "", 100)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			state["execution "+s.ID+" "+e.Target.String()] = string(e.Status)
			state["attempts "+s.ID+" "+e.Target.String()] = fmt.Sprint(e.Attempts)
			switch e.Status {
			case rollout.ExecutionSucceeded:
				tally.Succeeded++
			case rollout.ExecutionUncertain:
				tally.Uncertain++
			case rollout.ExecutionCanceled:
				tally.Canceled++
			}
		}
		if tally.Succeeded != total.Succeeded || tally.Uncertain != total.Uncertain || tally.Canceled != total.Canceled {
			state["counters "+s.ID] = fmt.Sprintf("the job counts %+v, its executions are %+v", total, tally)
		}
	}
	for i := range sweepJobsDevices {
		tw, err := h.Twin(ctx, enginetest.Owner(), engine.TwinID{DeviceID: sweepDevice(i)})
		if err != nil {
			return nil, err
		}
		// Jobs change a twin in one order or another, and once each.
		var values [2]map[string]json.RawMessage
		err = errors.Join(json.Unmarshal(tw.Desired.JSON(nil, false), &values[0]), json.Unmarshal(tw.Tags.JSON(nil, false), &values[1]))
		if err != nil {
			return nil, err
		}
		delete(values[0], "$version")
		b, err := json.Marshal(values)
		if err != nil {
			return nil, err
		}
		state["twin "+sweepDevice(i)] = string(b)
		state["changes "+sweepDevice(i)] = fmt.Sprint(tw.Desired.Version())
	}
	return state, nil
}

func checkSweepJobs(t *testing.T, want, got map[string]string, log map[string][]string) {
	for key, is := range got {
		kind, rest, _ := strings.Cut(key, " ")
		job, device, _ := strings.Cut(rest, " ")
		told := 0
		for _, name := range log[device] {
			if name == job {
				told++
			}
		}
		switch kind {
		case "attempts":
			if attempts := 0; told > 0 {
				if fmt.Sscan(is, &attempts); attempts < told {
					t.Errorf("%s was told %q %d times, and %s attempts are stored", device, job, told, is)
				}
			}
			if job == "once" && told > 1 || job == "never" && told > 0 {
				t.Errorf("%s was told %q %d times", device, job, told)
			}
		case "execution":
			// One that was not sent, for all that anybody knows, stays uncertain when
			// there are no retries; what was done is found out.
			if job == "once" && told == 0 && is == string(rollout.ExecutionUncertain) {
				continue
			}
			fallthrough
		default:
			if want[key] != is {
				t.Errorf("%s is %s, want %s", key, is, want[key])
			}
		}
	}
	for key := range want {
		if _, is := got[key]; !is {
			t.Errorf("there is no %s", key)
		}
	}
}
