package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// runsKill are runs on many devices, each of which writes desired properties, and
// calls two methods without retries.
var runsKill = sweepWork{
	devices: killRunDevices, begin: beginKillRuns, done: killRunsDone, state: killRunsState,
	options: func(o *engine.Options, _ func(sweepLine)) { o.Scripts = killScripts() },
}

func killScripts() *enginetest.Scripts {
	return enginetest.NewScripts(script("two", pattern.Needs{"twin:desired", "twin:read", "method:first", "method:second"}, func(p *enginetest.Play) (any, error) {
		if _, err := p.Desire(`{"job":"` + p.Activation.Run + `"}`); err != nil {
			return nil, err
		}
		for _, m := range []string{"first", "second"} {
			if _, err := p.Call(pattern.CallArgs{Method: m, Online: "60s", Timeout: "5s"}); err != nil {
				return nil, err
			}
			if _, err := p.Wait("reported."+m+` == "done"`, nil, "60s"); err != nil {
				return nil, err
			}
		}
		return "done", nil
	}))
}

func beginKillRuns(ctx context.Context, h *engine.Hub) error {
	if err := killScripts().Install(ctx, h); err != nil {
		return err
	}
	have := map[string]bool{}
	for cursor := ""; ; {
		list, next, err := h.Runs(ctx, enginetest.Owner(), engine.RunFilter{}, 1000, cursor)
		if err != nil {
			return err
		}
		for _, r := range list {
			have[r.Device.DeviceID] = true
		}
		if cursor = next; next == "" {
			break
		}
	}
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < killRunDevices; i += 16 {
				if have[sweepDevice(i)] {
					continue
				}
				if _, err := h.StartRun(ctx, enginetest.Owner(), engine.RunSpec{Pattern: "two", Device: engine.TwinID{DeviceID: sweepDevice(i)}}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func killRunsDone(_ context.Context, h *engine.Hub) (bool, error) {
	n := int64(0)
	for _, k := range h.RunStats().Active {
		n += k
	}
	return n == 0, nil
}

func killRunsState(ctx context.Context, h *engine.Hub) (map[string]string, error) {
	state := map[string]string{}
	for i := range killRunDevices {
		id := engine.TwinID{DeviceID: sweepDevice(i)}
		list, _, err := h.Runs(ctx, enginetest.Owner(), engine.RunFilter{Device: id}, 10, "")
		if err != nil {
			return nil, err
		}
		if len(list) != 1 {
			state[id.DeviceID] = fmt.Sprintf("%d runs", len(list))
			continue
		}
		tw, err := h.Twin(ctx, enginetest.Owner(), id)
		if err != nil {
			return nil, err
		}
		state[id.DeviceID] = fmt.Sprintf("%s %d", list[0].State, tw.Desired.Version())
	}
	return state, nil
}

// TestRunsKilled kills the hub at random while many runs are under way: with
// retries off no device sees a step's command twice, every run ends, and one of
// whose command nobody knows what came is uncertain.
func TestRunsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	r := newSweepRun(t, "many", runsKill)
	for range 3 {
		r.after = time.Duration(200+random.IntN(1800)) * time.Millisecond
		if _, _, err := r.once(t, "", 0); err == nil {
			t.Log("all was done before the hub was killed")
		}
	}
	r.after = 0
	state, _, err := r.once(t, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]int{}
	for i := range killRunDevices {
		id := sweepDevice(i)
		is, version, _ := strings.Cut(state[id], " ")
		states[is]++
		told := map[string]int{}
		for _, name := range r.log[id] {
			if told[name]++; told[name] > 1 {
				t.Errorf("%s was told %s %d times", id, name, told[name])
			}
		}
		switch {
		case version != "2":
			t.Errorf("the desired properties of %s have version %s", id, version)
		case is == string(pattern.Succeeded) && len(r.log[id]) != 2:
			t.Errorf("the run on %s succeeded, and it was told %v", id, r.log[id])
		case is != string(pattern.Succeeded) && is != string(pattern.Uncertain):
			t.Errorf("the run on %s is %s", id, state[id])
		}
	}
	t.Logf("%v", states)
	if states[string(pattern.Uncertain)] == killRunDevices {
		t.Error("no run succeeded")
	}
}
