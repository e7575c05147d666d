package scripting

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// processorTime is what this process and the pool's workers have used of
// processors: on a machine that does other things it says more than the clock.
func processorTime(p *Pool) time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	total := time.Duration(r.Utime.Nano() + r.Stime.Nano())
	for _, w := range p.alive() {
		total += w.usage.processor()
	}
	return total
}

// BenchmarkPool has activations of a run of so many steps go through workers, in
// batches.
func BenchmarkPool(b *testing.B) {
	p := testPool(b, "__worker", 2)
	bundle := &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(benchSource)}}
	for _, batch := range []int{1, 64} {
		for _, steps := range []int{0, 1, 10, 50, 200} {
			list := make([]pattern.Activation, batch)
			for i := range list {
				list[i] = journal(steps)
			}
			b.Run(fmt.Sprintf("batch=%d/steps=%d", batch, steps), func(b *testing.B) {
				b.ReportAllocs()
				if _, err := p.Activate(b.Context(), bundle, list); err != nil { // workers and programs are there
					b.Fatal(err)
				}
				used, n := processorTime(p), 0
				for b.Loop() {
					n += batch
					out, err := p.Activate(b.Context(), bundle, list)
					if err != nil || out[0].Ending != pattern.EndSuspended {
						b.Fatal(out, err)
					}
				}
				b.ReportMetric(float64((processorTime(p)-used).Nanoseconds())/1e3/float64(n), "cpu-us/activation")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(n), "us/activation")
			})
		}
	}
}

// BenchmarkStart starts workers.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p := testPool(b, "__worker", 1)
		s := <-p.seats
		if err := p.start(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		p.seats <- s
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
