package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// benchFleet is a hub of which the columns have n rows and the store the twins
// of every hundredth: a preview reads no more of them than its sample, and to
// store them all would take minutes.
func benchFleet(b *testing.B, n int) *Hub {
	h, err := Open(b.Context(), Options{Storage: storage.Options{Dir: b.TempDir(), Memory: 256 << 20}, Columns: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = h.Close() })
	<-h.queries.ready
	fillHub(b, h, 10)
	build := h.queries.columns[query.Devices].Build()
	l := build.Loader()
	for i := range n {
		l.Add(fmt.Sprintf("device-%07d", i), 0, []query.Field{
			{Path: query.Path{"tags", "site"}, Value: query.StringValue(fmt.Sprintf("site-%d", i%1000))},
			{Path: query.Path{"tags", "ring"}, Value: query.NumberValue(float64(i % 10))},
			{Path: query.Path{"tags", "model"}, Value: query.StringValue(fmt.Sprintf("m%d", i%20))},
			{Path: query.Path{"properties", "reported", "battery"}, Value: query.NumberValue(float64(i % 101))},
			{Path: query.Path{"properties", "reported", "fw", "version"}, Value: query.StringValue(fmt.Sprintf("1.%d.%d", i%10, i%7))},
		})
	}
	build.Done()
	return h
}

// BenchmarkJobPreview measures the exact count and the differences of 100
// devices over a million.
func BenchmarkJobPreview(b *testing.B) {
	h := benchFleet(b, benchDevices(b, 1_000_000))
	for _, c := range []struct {
		name  string
		where string
		waves bool
	}{
		{"a tenth", "tags.ring == 3 and reported.battery < 90", false},
		{"half", "tags.ring < 5", false},
		{"all", "*", false},
		{"all in waves with a diverse canary", "*", true},
	} {
		s := twinJob(c.where)
		if c.waves {
			s.Policy.Waves = waves(b, "10", "10%", "100%")
			s.Policy.Waves[0].Diverse = true
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := h.PreviewJob(b.Context(), everybody(), s, 100)
				if err != nil || p.Count == 0 {
					b.Fatal(p.Count, err)
				}
			}
		})
	}
}

// BenchmarkLayOut measures how soon a million targets are in their waves.
func BenchmarkLayOut(b *testing.B) {
	n := benchDevices(b, 200_000)
	h := benchFleet(b, n)
	for name, sizes := range map[string][]string{"one wave": {"100%"}, "three waves": {"1", "10%", "100%"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := twinJob("*")
				s.Policy.Waves = waves(b, sizes...)
				j := createJob(b, h, s)
				begun := time.Now()
				layOutAll(b, h, j.ID)
				b.ReportMetric(float64(n)/time.Since(begun).Seconds(), "targets/s")
			}
		})
	}
}
