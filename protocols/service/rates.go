package service

import (
	"sync"
	"time"

	"github.com/muster-hub/muster/engine"
)

// A rate is an average over the newest samples, which are taken when somebody
// asks: no goroutine runs for a page that nobody looks at.
const (
	sampleEvery = time.Second
	sampleSpan  = 10 // samples kept
)

// rates turns counters into rates per second.
type rates struct {
	mu      sync.Mutex
	samples []sample // oldest first
}

type sample struct {
	at     time.Time
	totals engine.Totals
}

// newRates takes the start of the process as the first sample, all zero.
func newRates() *rates { return &rates{samples: []sample{{at: time.Now()}}} }

// at returns the rates between the oldest sample and now.
func (r *rates) at(now time.Time, t engine.Totals) map[string]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.samples[len(r.samples)-1].at) >= sampleEvery {
		r.samples = append(r.samples, sample{now, t})
		if len(r.samples) > sampleSpan {
			r.samples = r.samples[1:]
		}
	}
	first := r.samples[0]
	seconds := max(now.Sub(first.at).Seconds(), sampleEvery.Seconds())
	per := func(now, before int64) float64 { return float64(max(now-before, 0)) / seconds }
	return map[string]float64{
		"telemetry": per(t.Messages, first.totals.Messages),
		"twin":      per(t.ReportedUpdates+t.DesiredUpdates, first.totals.ReportedUpdates+first.totals.DesiredUpdates),
		"methods":   per(t.Methods, first.totals.Methods),
	}
}
