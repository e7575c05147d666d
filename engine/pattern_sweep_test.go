package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// patternsSweep are jobs of runs and triggers: one job that a gate lets go on, one
// that a gate has undone, one that is undone by an operator while runs are under
// way, one that is canceled, a trigger on a condition and one on time, of a pattern
// that is installed in two versions, disabled and enabled, and whose first version
// is removed.
const sweepPatternDevices = 4

var patternsSweep = sweepWork{
	devices: sweepPatternDevices, begin: beginSweepPatterns, done: sweepPatternsDone, state: sweepPatternsState, check: checkSweepPatterns,
	options: func(o *engine.Options, _ func(l sweepLine)) {
		o.Scripts = sweepPatternScripts()
	},
}

func sweepPatternScripts() *enginetest.Scripts {
	touch := func(name, decision string, waits bool) enginetest.Script {
		s := enginetest.Script{
			Manifest: pattern.Manifest{Name: name, Conflicts: pattern.ConflictShare, Needs: pattern.Needs{"twin:read", "twin:tags"}},
			Run: func(p *enginetest.Play) (any, error) {
				if err := errors.Join(p.Tag(`{"`+name+`":true}`), p.Sleep(2*time.Millisecond)); err != nil {
					return nil, err
				}
				if waits && p.Device >= sweepDevice(2) {
					return p.Wait("reported.never == true", nil, "1d")
				}
				return nil, nil
			},
			Undo: func(p *enginetest.Play) (any, error) {
				return nil, errors.Join(p.Tag(`{"`+name+`":null}`), p.Sleep(2*time.Millisecond))
			},
		}
		if decision != "" {
			s.Gate = func(p *enginetest.Play) (any, error) {
				n, err := p.Step("run.count", pattern.FleetArgs{Where: "tags." + name + " == true"})
				return map[string]string{"decision": decision, "reason": string(n)}, err
			}
		}
		return s
	}
	scripts := enginetest.NewScripts(touch("goes", "go", false), touch("turns", "undo", false), touch("back", "", true), touch("stops", "", true))
	for _, version := range []string{"1.0.0", "1.1.0"} {
		s := triggered("react", version,
			pattern.Trigger{When: "tags.goes == true"}, pattern.Trigger{Event: pattern.EventCreated}, pattern.Trigger{Cron: "0 3 * * *"})
		s.Manifest.Needs = pattern.Needs{"twin:tags"}
		scripts.Add(s)
	}
	return scripts
}

func sweepPatternJobs() []engine.JobSpec {
	all := engine.JobTargets{Where: "deviceId != 'later'"}
	waves := rollout.Policy{Waves: []rollout.Wave{{Size: rollout.Count(1)}, {Size: rollout.Percent(100)}}}
	return []engine.JobSpec{
		{ID: "goes", Targets: all, Action: runs("goes", ""), Policy: waves},
		{ID: "turns", Targets: all, Action: runs("turns", ""), Policy: waves},
		{ID: "back", Targets: all, Action: runs("back", "")},
		{ID: "stops", Targets: all, Action: runs("stops", "")},
	}
}

func installSweep(ctx context.Context, h *engine.Hub, name, version string) error {
	s := sweepPatternScripts()
	_, err := h.InstallPattern(ctx, enginetest.Owner(), engine.PatternInstall{Bundle: s.Bundle(name, version), Unsigned: true, Grant: pattern.Needs{"twin:read", "twin:tags"}})
	return err
}

func beginSweepPatterns(ctx context.Context, h *engine.Hub) error {
	if p, err := h.Pattern(ctx, enginetest.Owner(), "react", ""); err == nil && p.Manifest.Version == "1.1.0" {
		return nil // it was begun, and came that far
	}
	for _, name := range []string{"react", "goes", "turns", "back", "stops"} {
		if err := installSweep(ctx, h, name, "1.0.0"); err != nil {
			return err
		}
	}
	for { // the triggers work before anything happens
		p, err := h.Pattern(ctx, enginetest.Owner(), "react", "")
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.Triggers, func(s engine.TriggerState) bool { return !s.Active || s.Marking }) {
			break
		}
		<-time.After(2 * time.Millisecond)
	}
	for _, s := range sweepPatternJobs() {
		if _, err := h.CreateJob(ctx, enginetest.Owner(), s, ""); err != nil && engine.AsError(err).Code != engine.CodeJobAlreadyExists {
			return err
		}
	}
	if _, err := h.CreateIdentity(ctx, enginetest.Owner(), engine.Identity{DeviceID: "later"}); err != nil && engine.AsError(err).Code != engine.CodeDeviceAlreadyExists {
		return err
	}
	return installSweep(ctx, h, "react", "1.1.0")
}

// sweepPatternsDone does what operators do: each time, whatever is next.
func sweepPatternsDone(ctx context.Context, h *engine.Hub) (bool, error) {
	done := true
	for _, s := range sweepPatternJobs() {
		j, err := h.Job(ctx, enginetest.Owner(), s.ID)
		if err != nil {
			return false, err
		}
		total := j.State.Total()
		half := total.Active == sweepPatternDevices/2 && total.Succeeded == sweepPatternDevices/2
		switch {
		case s.ID == "back" && j.Undo == nil && half:
			_, err = h.UndoJob(ctx, enginetest.Owner(), s.ID, "test", "")
		case s.ID == "stops" && half:
			_, err = h.CancelJob(ctx, enginetest.Owner(), s.ID, "test", "")
		}
		if err != nil && engine.AsError(err).Code != engine.CodeJobState {
			return false, err
		}
		done = done && j.Status().Final() && (s.ID != "turns" && s.ID != "back" || j.Undo != nil && j.Undo.Told && j.Undo.Undone+j.Undo.Failed == j.Undo.Begun)
	}
	p, err := h.Pattern(ctx, enginetest.Owner(), "react", "1.1.0")
	if err != nil {
		return false, err
	}
	if !p.Triggers[2].Active || p.Triggers[2].Job == "" {
		return false, nil
	}
	list, _, err := h.Runs(ctx, enginetest.Owner(), engine.RunFilter{Pattern: "react"}, 100, "")
	if err != nil || len(list) < sweepPatternDevices+1 || slices.ContainsFunc(list, func(r engine.Run) bool { return !r.State.Final() }) {
		return false, err
	}
	if done {
		err = h.RemovePattern(ctx, enginetest.Owner(), "react", "1.0.0", "")
		if err != nil && engine.AsError(err).Code == engine.CodePatternNotFound {
			err = nil
		}
	}
	return done, err
}

func sweepPatternsState(ctx context.Context, h *engine.Hub) (map[string]string, error) {
	state := map[string]string{}
	for _, s := range sweepPatternJobs() {
		j, err := h.Job(ctx, enginetest.Owner(), s.ID)
		if err != nil {
			return nil, err
		}
		total := j.State.Total()
		state["job "+s.ID] = fmt.Sprintf("%s: %d succeeded, %d canceled of %d", j.Status(), total.Succeeded, total.Canceled, total.Size)
		for _, g := range j.State.Gates {
			state["gate "+s.ID] += string(g.Verdict) + " " + g.Reason
		}
		if u := j.Undo; u != nil {
			state["undo "+s.ID] = fmt.Sprintf("%d begun, %d undone, %d failed, %d left", u.Begun, u.Undone, u.Failed, u.Left)
		}
		list, _, err := h.Executions(ctx, enginetest.Owner(), s.ID, engine.ExecutionFilter{}, "", 100)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if s.ID != "turns" { // its first wave may be any of the devices
				state["execution "+s.ID+" "+e.Target.String()] = fmt.Sprintf("%s after %d", e.Status, e.Attempts)
			}
		}
	}
	patterns, err := h.Patterns(ctx, enginetest.Owner())
	if err != nil {
		return nil, err
	}
	for _, p := range patterns {
		state["pattern "+p.Manifest.Name+" "+p.Manifest.Version] = fmt.Sprintf("enabled %t, default %t, %d active", p.Enabled, p.Default, p.Active)
	}
	list, _, err := h.Runs(ctx, enginetest.Owner(), engine.RunFilter{Pattern: "react"}, 1000, "")
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		state["trigger "+r.Device.String()] += r.Trigger + " " + string(r.State) + ";"
	}
	jobs, _, err := h.Jobs(ctx, enginetest.Owner(), engine.JobFilter{Kind: engine.JobRunPattern}, "", 100)
	if err != nil {
		return nil, err
	}
	recurring := 0
	for _, j := range jobs {
		if j.Policy.Repeat != "" && !j.Status().Final() {
			recurring++
		}
	}
	state["recurring"] = fmt.Sprint(recurring)
	for i := range sweepPatternDevices {
		tw, err := h.Twin(ctx, enginetest.Owner(), engine.TwinID{DeviceID: sweepDevice(i)})
		if err != nil {
			return nil, err
		}
		var tags map[string]any
		if err := json.Unmarshal(tw.Tags.JSON(nil, false), &tags); err != nil {
			return nil, err
		}
		state["tags "+sweepDevice(i)] = fmt.Sprint(tags)
	}
	return state, nil
}

func checkSweepPatterns(t *testing.T, want, got map[string]string, _ map[string][]string) {
	for key, is := range got {
		if want[key] != is {
			t.Errorf("%s is %s, want %s", key, is, want[key])
		}
	}
	for key := range want {
		if _, is := got[key]; !is {
			t.Errorf("there is no %s", key)
		}
	}
}
