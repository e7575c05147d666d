package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/rollout"
)

// configurationsSweep are two configurations of the same paths over all devices:
// one spreads at once and is deleted in the end, the other in waves, is changed
// on top and taken back.
const sweepConfiguredDevices = 5

var configurationsSweep = sweepWork{
	devices: sweepConfiguredDevices, begin: beginSweepConfigurations, done: sweepConfigurationsDone,
	state: sweepConfigurationsState, check: checkSweepConfigurations,
}

func sweepConfiguration(id string, priority int, desired string, waves ...rollout.Wave) engine.Configuration {
	g := engine.Configuration{
		ID: id, TargetCondition: "*", Priority: priority,
		Content: engine.ConfigurationContent{Device: json.RawMessage(`{"properties.desired":` + desired + `}`)},
	}
	if waves != nil {
		g.Rollout = &rollout.Policy{Waves: waves}
	}
	return g
}

func beginSweepConfigurations(ctx context.Context, h *engine.Hub) error {
	_, err := h.PutConfiguration(ctx, enginetest.Owner(), sweepConfiguration("base", 1, `{"level":1,"base":true}`), engine.IfMatch{})
	if code := engine.AsError(err); err != nil && code.Code != engine.CodeConfigurationAlreadyExists {
		return err
	}
	return nil
}

// sweepConfigurationsDone does what is next, once what came before has settled.
func sweepConfigurationsDone(ctx context.Context, h *engine.Hub) (bool, error) {
	owner := enginetest.Owner()
	settled := func(id string) (bool, error) {
		p, err := h.ConfigurationProgress(ctx, owner, id)
		if e := engine.AsError(err); e != nil {
			if e.Code == engine.CodeUnavailable || e.Code == engine.CodeConfigurationNotFound {
				return e.Code == engine.CodeConfigurationNotFound, nil
			}
			return false, err
		}
		return !p.Working && p.Pending == 0 && p.Settled == sweepConfiguredDevices, nil
	}
	if ok, err := settled("base"); err != nil || !ok {
		return false, err
	}
	top := sweepConfiguration("top", 2, `{"level":2,"top":{"a":1}}`, rollout.Wave{Size: rollout.Count(1)}, rollout.Wave{Size: rollout.Percent(100)})
	g, err := h.Configuration(ctx, owner, "top")
	if e := engine.AsError(err); e != nil {
		if e.Code != engine.CodeConfigurationNotFound {
			return false, err
		}
		_, err = h.Configuration(ctx, owner, "base")
		if e := engine.AsError(err); e != nil {
			return false, fmt.Errorf("base is gone before top came: %w", e)
		}
		_, err = h.PutConfiguration(ctx, owner, top, engine.IfMatch{})
		return false, err
	}
	if ok, err := settled("top"); err != nil || !ok || g.RolloutJob != "" {
		return false, err
	}
	switch g.Revision {
	case 1:
		next := sweepConfiguration("top", 2, `{"level":3,"top":null}`, top.Rollout.Waves...)
		_, err = h.PutConfiguration(ctx, owner, next, engine.ParseIfMatch("*"))
		return false, err
	case 2:
		_, err = h.RollbackConfiguration(ctx, owner, "top", 1, engine.ParseIfMatch("*"))
		return false, err
	}
	err = h.DeleteConfiguration(ctx, owner, "base", engine.IfMatch{})
	if e := engine.AsError(err); e != nil && e.Code != engine.CodeConfigurationNotFound {
		return false, err
	}
	for i := range sweepConfiguredDevices {
		t, err := h.Twin(ctx, owner, engine.TwinID{DeviceID: sweepDevice(i)})
		if err != nil {
			return false, err
		}
		if _, has := t.Configurations["base"]; has {
			return false, nil
		}
	}
	return true, nil
}

func sweepConfigurationsState(ctx context.Context, h *engine.Hub) (map[string]string, error) {
	state := map[string]string{}
	for i := range sweepConfiguredDevices {
		t, err := h.Twin(ctx, enginetest.Owner(), engine.TwinID{DeviceID: sweepDevice(i)})
		if err != nil {
			return nil, err
		}
		var desired map[string]json.RawMessage
		if err := json.Unmarshal(t.Desired.JSON(nil, false), &desired); err != nil {
			return nil, err
		}
		delete(desired, "$version") // one step or two may take a twin there
		b, err := json.Marshal(desired)
		if err != nil {
			return nil, err
		}
		state[sweepDevice(i)] = fmt.Sprintf("%s %v", b, t.Configurations)
	}
	list, _, err := h.Configurations(ctx, enginetest.Owner(), "", 0)
	for _, g := range list {
		state["configuration "+g.ID] = fmt.Sprint(g.Revision)
	}
	return state, err
}

func checkSweepConfigurations(t *testing.T, want, got map[string]string, _ map[string][]string) {
	if w, g := fmt.Sprint(want), fmt.Sprint(got); w != g {
		t.Errorf("it ended as\n%s\nwant\n%s", g, w)
	}
	for i := range sweepConfiguredDevices {
		if is := want[sweepDevice(i)]; is != `{"base":true,"level":2,"top":{"a":1}} map[top:Applied]` {
			t.Errorf("%s has %s", sweepDevice(i), is)
		}
	}
}
