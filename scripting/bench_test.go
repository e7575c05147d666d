package scripting

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

const benchSource = `
-- a pattern as they are: a manifest with parameters, and steps
local function settled(dev, want)
  return dev:wait("reported.firmware.job == job and reported.firmware.state in ['good', 'failed']", { job = want, timeout = "45m" })
end
return pattern {
  name = "bench", version = "1.0.0", title = "Bench", summary = "Ask the device to reboot and wait until it reports a new boot.",
  needs = { "method:reboot", "twin:read" },
  params = {
    delay   = { type = "integer", minimum = 0, maximum = 3600, default = 0, title = "Delay (s)" },
    timeout = { type = "string", format = "duration", default = "10m", title = "Back online within" },
  },
  rollout = { waves = { { size = 1, soak = "10m" }, { size = "100%" } } },
  run = function(dev, p, ctx)
    for i = 1, p.steps do
      ctx:phase("step " .. i)
      local r = dev:call("reboot", { delay = p.delay, n = i }, { timeout = "30s", online = "1h" })
      if r.count ~= i then error("wrong") end
    end
    return { steps = p.steps }
  end,
}`

// journal is an activation of benchSource whose first steps are answered.
func journal(steps int) pattern.Activation {
	a := pattern.Activation{
		Run: "r-1", Attempt: 1, Device: "device-1", Entry: pattern.EntryRun, Params: json.RawMessage(fmt.Sprintf(`{"delay":0,"steps":%d}`, steps+1)),
		Twin: json.RawMessage(`{"connected":true,"deviceId":"device-1","properties":{"desired":{"a":1},"reported":{"boot":{"count":3,"reason":"reboot"},"firmware":{"version":"1.0"}}},"tags":{"site":"A"}}`),
	}
	for i := 1; i <= steps; i++ {
		a.Steps = append(a.Steps, pattern.Step{
			Op: "dev.call", Args: json.RawMessage(fmt.Sprintf(`{"method":"reboot","online":"1h","payload":{"delay":0,"n":%d},"timeout":"30s"}`, i)), Line: "pattern.lua:17",
			Result: json.RawMessage(fmt.Sprintf(`{"payload":{"count":%d,"reason":"reboot"},"status":200}`, i)),
		})
	}
	return a
}

func BenchmarkExecute(b *testing.B) {
	p, err := Compile(&pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(benchSource)}})
	if err != nil {
		b.Fatal(err)
	}
	for _, steps := range []int{0, 1, 10, 50, 200} {
		a := journal(steps)
		b.Run(fmt.Sprint(steps), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if o := Execute(p, &a); o.Ending != pattern.EndSuspended {
					b.Fatal(o.Ending, o.Fault)
				}
			}
		})
	}
}
