package engine_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// BenchmarkPatchReported measures durable updates of reported properties: a
// twin of about 1 KB, with history and change log, from many sessions.
func BenchmarkPatchReported(b *testing.B) {
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			h := enginetest.New(b)
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
		})
	}
}
