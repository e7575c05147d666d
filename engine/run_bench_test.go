package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
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

// BenchmarkRunsWaiting says what memory runs take that wait, each on a device of
// its own, in a hub that was started with them.
func BenchmarkRunsWaiting(b *testing.B) {
	const waits = 20_000
	scripts := enginetest.NewScripts(script("wait", pattern.Needs{"twin:read"}, func(p *enginetest.Play) (any, error) {
		before, err := p.Get("reported.boot.count")
		if err != nil {
			return nil, err
		}
		return p.Wait("reported.boot.count > 5", map[string]json.RawMessage{"before": before}, "1d")
	}))
	dir := b.TempDir()
	parallel := func(f func(id string) error) {
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for i := w; i < waits; i += 32 {
					if err := f(fmt.Sprint("d", i)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	with := func(f func(h *engine.Hub)) {
		h, err := engine.Open(b.Context(), engine.Options{Storage: storage.Options{Dir: dir, Memory: 128 << 20}, Scripts: scripts})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = h.Run(ctx) })
		f(h)
		cancel()
		wg.Wait()
		if err := h.Close(); err != nil {
			b.Fatal(err)
		}
	}
	rest := func(h *engine.Hub) int64 {
		for !h.QueryProgress().Ready {
			time.Sleep(10 * time.Millisecond)
		}
		return heap()
	}
	with(func(h *engine.Hub) {
		enginetest.InstallScripts(b, h, scripts)
		parallel(func(id string) error {
			_, err := h.CreateIdentity(b.Context(), enginetest.Owner(), engine.Identity{DeviceID: id})
			return err
		})
	})
	var before, after int64
	with(func(h *engine.Hub) { before = rest(h) })
	for b.Loop() {
		with(func(h *engine.Hub) {
			parallel(func(id string) error {
				_, err := h.StartRun(b.Context(), enginetest.Owner(), engine.RunSpec{Pattern: "wait", Device: engine.TwinID{DeviceID: id}})
				return err
			})
			for h.RunStats().Waiting < waits {
				time.Sleep(10 * time.Millisecond)
			}
		})
		with(func(h *engine.Hub) { after = rest(h) })
	}
	b.ReportMetric(float64(after-before)/waits, "B/run")
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
