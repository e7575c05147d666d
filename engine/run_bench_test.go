package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// benchRuns is a hub with devices, and its loop.
func benchRuns(b *testing.B, scripts *enginetest.Scripts, devices int) *engine.Hub {
	b.Helper()
	h := enginetest.New(b, enginetest.WithScripts(scripts), func(o *engine.Options) { o.Storage = storage.Options{Memory: 256 << 20} })
	enginetest.InstallScripts(b, h, scripts)
	for i := range devices {
		if _, err := h.CreateIdentity(b.Context(), enginetest.Owner(), engine.Identity{DeviceID: fmt.Sprint("d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return h
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // of this process it never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func untilEnded(b *testing.B, h *engine.Hub, n int64) {
	b.Helper()
	for {
		s := h.RunStats()
		sum := int64(0)
		for _, k := range s.Ended {
			sum += k
		}
		if sum >= n {
			if bad := sum - s.Ended[pattern.Succeeded]; bad > 0 {
				b.Fatalf("%d runs did not succeed: %v", bad, s.Ended)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// BenchmarkRunAwaits counts how many awaits of runs are resumed a second, each of
// them durable: moments, and conditions that devices make true.
func BenchmarkRunAwaits(b *testing.B) {
	const devices, awaits = 500, 20
	b.Run("sleep", func(b *testing.B) {
		scripts := enginetest.NewScripts(script("sleep", nil, func(p *enginetest.Play) (any, error) {
			for range awaits {
				if err := p.Sleep(time.Millisecond); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}))
		h := benchRuns(b, scripts, devices)
		var took, cpu time.Duration
		n := int64(0)
		for b.Loop() {
			for i := range devices {
				if _, err := h.StartRun(b.Context(), enginetest.Owner(), engine.RunSpec{Pattern: "sleep", Device: engine.TwinID{DeviceID: fmt.Sprint("d", i)}}); err != nil {
					b.Fatal(err)
				}
			}
			n += devices
			begun, used := time.Now(), cpuTime()
			before := h.RunStats().Steps
			untilEnded(b, h, n)
			steps := h.RunStats().Steps - before
			took += time.Since(begun) * time.Duration(devices*awaits) / time.Duration(max(1, steps))
			cpu += (cpuTime() - used) * time.Duration(devices*awaits) / time.Duration(max(1, steps))
		}
		all := float64(n * awaits)
		b.ReportMetric(all/took.Seconds(), "awaits/s")
		b.ReportMetric(float64(cpu.Microseconds())/all, "µs-CPU/await")
	})
	b.Run("call", func(b *testing.B) {
		scripts := enginetest.NewScripts(script("call", pattern.Needs{"method:m"}, func(p *enginetest.Play) (any, error) {
			for range awaits {
				if _, err := p.Call(pattern.CallArgs{Method: "m"}); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}))
		h := benchRuns(b, scripts, devices)
		for i := range devices {
			d := enginetest.Connect(b, h, engine.TwinID{DeviceID: fmt.Sprint("d", i)}, engine.EndpointMethod)
			d.Answer(func(enginetest.Method) (int, []byte) { return 200, nil })
		}
		var took, cpu time.Duration
		n := int64(0)
		for b.Loop() {
			begun, used := time.Now(), cpuTime()
			for i := range devices {
				if _, err := h.StartRun(b.Context(), enginetest.Owner(), engine.RunSpec{Pattern: "call", Device: engine.TwinID{DeviceID: fmt.Sprint("d", i)}}); err != nil {
					b.Fatal(err)
				}
			}
			n += devices
			untilEnded(b, h, n)
			took += time.Since(begun)
			cpu += cpuTime() - used
		}
		b.ReportMetric(float64(n*awaits)/took.Seconds(), "calls/s")
		b.ReportMetric(float64(cpu.Microseconds())/float64(n*awaits), "µs-CPU/call")
	})
}

// BenchmarkRunsWaiting says what runs cost that wait: memory each, and bytes on
// disk.
func BenchmarkRunsWaiting(b *testing.B) {
	const devices, each = 1000, 100
	s := script("wait", pattern.Needs{"twin:read"}, func(p *enginetest.Play) (any, error) {
		before, err := p.Get("reported.boot.count")
		if err != nil {
			return nil, err
		}
		return p.Wait("reported.boot.count > 5", map[string]json.RawMessage{"before": before}, "1d")
	})
	s.Manifest.Conflicts = pattern.ConflictShare
	h := benchRuns(b, enginetest.NewScripts(s), devices)
	for b.Loop() {
		before := heap()
		for i := range devices {
			for range each {
				if _, err := h.StartRun(b.Context(), enginetest.Owner(), engine.RunSpec{Pattern: "wait", Device: engine.TwinID{DeviceID: fmt.Sprint("d", i)}}); err != nil {
					b.Fatal(err)
				}
			}
		}
		for h.RunStats().Waiting < devices*each {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric(float64(heap()-before)/(devices*each), "B/run")
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
