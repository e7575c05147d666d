package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
)

// manySteps is a program of as many steps as one likes.
const manySteps = `
return pattern {
  name = "bench-steps", version = "1.0.0", title = "Steps",
  needs = { "method:step", "twin:read" },
  params = { steps = { type = "integer", minimum = 1, maximum = 900, title = "Steps" } },
  run = function(dev, p, ctx)
    for i = 1, p.steps do
      ctx:phase("step " .. i)
      local r = dev:call("step", { n = i }, { timeout = "30s", online = "1h" })
      if r.count ~= i then error { code = "wrong", message = "step " .. i } end
    end
    return { steps = p.steps }
  end,
}`

// activation is one of manySteps whose first steps are answered.
func activation(steps int) pattern.Activation {
	a := pattern.Activation{
		Run: "r-1", Attempt: 1, Device: "device-1", Entry: pattern.EntryRun, Params: fmt.Appendf(nil, `{"steps":%d}`, steps+1), Now: time.Now(), Seed: 1,
		Twin: json.RawMessage(`{"connected":true,"deviceId":"device-1","properties":{"desired":{"interval":30},"reported":{"boot":{"count":3},"firmware":{"version":"1.0"}}},"tags":{"site":"A"}}`),
	}
	for i := 1; i <= steps; i++ {
		a.Steps = append(a.Steps, pattern.Step{
			Op: "dev.call", Line: "pattern.lua:9",
			Args:   fmt.Appendf(nil, `{"method":"step","online":"1h","payload":{"n":%d},"timeout":"30s"}`, i),
			Result: fmt.Appendf(nil, `{"payload":{"count":%d,"state":"good"},"status":200}`, i),
		})
	}
	return a
}

// worker measures worker processes as the hub uses them: how soon one is there,
// and what an activation costs, the call included.
func (o *patternOptions) worker(ctx context.Context, _ *hub, stdout io.Writer) error {
	bundle := &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(manySteps)}}
	options := scripting.Options{Command: []string{o.hub.binary, "__worker"}, Workers: 1}
	var starts, first histogram
	for range o.starts {
		p, err := scripting.NewPool(options)
		if err != nil {
			return err
		}
		began := time.Now()
		_, err = p.Load(ctx, bundle)
		starts.add(time.Since(began))
		again := time.Now()
		if err == nil {
			_, err = p.Load(ctx, bundle)
		}
		first.add(time.Since(again))
		if err = errors.Join(err, p.Close()); err != nil {
			return err
		}
	}
	p, err := scripting.NewPool(options)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	s, l := starts.summary(), first.summary()
	fmt.Fprintf(stdout, "%d starts of a worker: until it has loaded a pattern p50 %.2f ms, p99 %.2f ms; loading alone p50 %.2f ms\n", s.Count, milliseconds(s.P50), milliseconds(s.P99), milliseconds(l.P50))
	var fifty summary
	for _, steps := range []int{0, 10, o.steps, 4 * o.steps} {
		a := activation(steps)
		var times histogram
		for i := range o.activations + 100 {
			began := time.Now()
			list, err := p.Activate(ctx, bundle, []pattern.Activation{a})
			if err != nil {
				return err
			}
			if got := list[0]; got.Ending != pattern.EndSuspended || len(got.Steps) != 1 {
				return fmt.Errorf("an activation ended as %s with %d steps: %v", got.Ending, len(got.Steps), got.Fault)
			}
			if i >= 100 { // it is warm
				times.add(time.Since(began))
			}
		}
		m := times.summary()
		fmt.Fprintf(stdout, "%d activations of a run with %3d steps, one after the other: p50 %.3f ms, p99 %.3f ms\n", m.Count, steps, milliseconds(m.P50), milliseconds(m.P99))
		if steps == o.steps {
			fifty = m
		}
	}
	fmt.Fprintf(stdout, "\ntargets\n")
	target(stdout, fmt.Sprintf("activation with %d steps, p50", o.steps), milliseconds(fifty.P50), 0.5, false, "ms")
	target(stdout, "start of a worker, p50", milliseconds(s.P50), 20, false, "ms")
	return nil
}
