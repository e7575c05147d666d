package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// BenchmarkPatchReported measures durable updates of reported properties: a
// twin of about 1 KB, with history and change log, from many sessions.
func BenchmarkPatchReported(b *testing.B) {
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { patchReported(b, enginetest.New(b), writers) })
	}
}

// BenchmarkLiveQueries measures the same while a hundred queries are followed
// and read: all ask about what is patched and none turns, ten show it and the
// others ask about something else, or all show it, so that each update is some
// seventy events.
func BenchmarkLiveQueries(b *testing.B) {
	for _, c := range []struct {
		name  string
		every int // which queries ask about what is patched; 0: there are none
		show  string
		step  float64 // of the constants
	}{
		{"none", 0, "", 0},
		{"100 conditions do not turn", 1, "tags.site", -1},
		{"10 of 100 show each update", 10, "reported.battery", 1},
		{"100 show each update", 1, "reported.battery", 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := enginetest.New(b)
			ctx, stop := context.WithCancel(b.Context())
			var readers sync.WaitGroup
			for i := range 100 {
				if c.every == 0 {
					break
				}
				show, path := "tags.site", fmt.Sprint("tags.t", i%7)
				if i%c.every == 0 {
					show, path = c.show, "reported.battery"
				}
				s := follow(b, h, fmt.Sprintf("SELECT deviceId, %s FROM devices WHERE %s < %g", show, path, float64(i)*c.step), "")
				readers.Go(func() {
					defer s.Close()
					for {
						if _, err := s.Next(ctx, time.Minute); err != nil {
							return
						}
					}
				})
			}
			patchReported(b, h, 256)
			stop()
			readers.Wait()
		})
	}
}

func patchReported(b *testing.B, h *engine.Hub, writers int) {
	body := []byte(`{"text":"` + strings.Repeat("x", 700) + `","battery":50,"status":"ok","fw":{"version":"1.2.3","slot":"a"}}`)
	devices := make([]*enginetest.Device, writers)
	var wg sync.WaitGroup
	for i := range devices {
		wg.Go(func() {
			devices[i] = enginetest.Connect(b, h, engine.TwinID{DeviceID: fmt.Sprint("device-", i)})
			if _, err := devices[i].Session.PatchReported(b.Context(), body, -1); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	used := processorTime()
	for _, d := range devices {
		wg.Go(func() {
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				if _, err := d.Session.PatchReported(b.Context(), fmt.Appendf(nil, `{"battery":%d,"status":"ok"}`, n%100), -1); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric(float64(processorTime()-used)/float64(time.Microsecond)/float64(b.N), "cpu-us/op")
}

// processorTime is what this process has used: on a machine with other work
// it says more than the time that has passed.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
