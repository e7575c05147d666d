package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// preview measures previews: the exact count and the first hundred changes of a
// job whose condition changes from preview to preview.
func (o *jobOptions) preview(ctx context.Context, h *hub, stdout io.Writer) error {
	fill := queryOptions{hub: o.hub, twins: o.twins}
	q, _, err := fill.fillHub(ctx, h, stdout)
	if err != nil {
		return err
	}
	defer q.close()
	const shown = 100
	var times histogram
	for i := range o.previews + 1 {
		where := fmt.Sprintf(`tags.site == "site-%03d" && desired.battery < %d`, i%200, 20+i%50)
		began := time.Now()
		answer, err := q.post(ctx, "/api/v1/jobs/preview", map[string]any{
			"targets": map[string]any{"where": where},
			"action":  map[string]any{"twin": map[string]any{"desired": map[string]any{"interval": 7}, "tags": map[string]any{"slot": "c"}}},
			"sample":  shown,
		})
		took := time.Since(began)
		if err != nil {
			return err
		}
		if i == 0 { // warms up, and is looked at
			if err := o.checkPreview(ctx, q, i, answer, shown); err != nil {
				return err
			}
			continue
		}
		times.add(took)
	}
	s := times.summary()
	fmt.Fprintf(stdout, "%d previews, one after the other: p50 %.2f ms, p99 %.2f ms, at most %.2f ms\n", s.Count, milliseconds(s.P50), milliseconds(s.P99), milliseconds(s.Max))
	fmt.Fprintf(stdout, "\ntargets, for 1,000,000 twins; measured with %d\n", o.twins)
	target(stdout, "preview with 100 diffs, p50", milliseconds(s.P50), 100, false, "ms")
	target(stdout, "preview with 100 diffs, p99", milliseconds(s.P99), 100, false, "ms")
	return nil
}

// checkPreview compares a preview with what a query counts.
func (o *jobOptions) checkPreview(ctx context.Context, q *queryHub, i int, answer []byte, shown int) error {
	var p struct {
		Count  int
		Sample []struct{ Changes []json.RawMessage }
	}
	if err := json.Unmarshal(answer, &p); err != nil {
		return err
	}
	n, err := q.count(ctx, fmt.Sprintf("tags.site = 'site-%03d' AND properties.desired.battery < %d", i%200, 20+i%50))
	if err != nil {
		return err
	}
	if p.Count != n || len(p.Sample) != min(n, shown) {
		return fmt.Errorf("the preview counts %d and shows %d, a query counts %d", p.Count, len(p.Sample), n)
	}
	for _, t := range p.Sample {
		if len(t.Changes) != 2 {
			return fmt.Errorf("a device has %d changes in the preview, not 2", len(t.Changes))
		}
	}
	return nil
}

// concurrent measures many jobs at once over a fleet whose devices are each in
// the targets of many of them, and what the hub does when they have ended.
func (o *jobOptions) concurrent(ctx context.Context, h *hub, stdout io.Writer) error {
	if _, err := h.start(ctx); err != nil {
		return err
	}
	if _, err := h.fill(ctx, "device", o.jobDevices, 8); err != nil {
		return err
	}
	q, err := newQueryHub(h, 16)
	if err != nil {
		return err
	}
	defer q.close()
	pause(ctx, settleTime)
	rest, err := h.cores(ctx, o.idle)
	if err != nil {
		return err
	}
	const buildings = 20 // of fill
	jobs := make([]jobView, o.jobs)
	began := time.Now()
	err = inParallel(ctx, o.jobs, func(ctx context.Context, i int) (err error) {
		jobs[i], err = q.startJob(ctx, fmt.Sprintf(`tags.building == "B%d"`, i%buildings), map[string]any{
			"twin": map[string]any{"desired": map[string]any{fmt.Sprintf("job%d", i): i}},
		})
		return err
	})
	if err != nil {
		return err
	}
	made := time.Since(began)
	executions, last := 0, began
	for i, j := range jobs {
		building := i % buildings
		want := (o.jobDevices - building + buildings - 1) / buildings
		if j, err = q.awaitJob(ctx, j.ID, want); err != nil {
			return err
		}
		executions += want
		if j.Ended.After(last) {
			last = j.Ended
		}
	}
	for i := range jobs { // each has changed its devices, whatever the others did
		n, err := q.count(ctx, fmt.Sprintf("properties.desired.job%d = %d", i, i))
		if want := (o.jobDevices - i%buildings + buildings - 1) / buildings; err == nil && n != want {
			err = fmt.Errorf("the job %d changed %d devices, not %d", i, n, want)
		}
		if err != nil {
			return err
		}
	}
	took := last.Sub(began)
	m, err := memoryOf(h.pid())
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d jobs made in %.1f s; all of them ended after %.1f s: %d executions over %d devices, %.0f a second; anonymous memory %s\n",
		o.jobs, made.Seconds(), took.Seconds(), executions, o.jobDevices, float64(executions)/took.Seconds(), mib(m.anonymous))
	pause(ctx, settleTime)
	after, err := h.cores(ctx, o.idle)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "the hub at rest uses %.2f %% of a core before the jobs, and %.2f %% after them, over %s each\n\ntargets\n", 100*rest, 100*after, o.idle)
	target(stdout, "processor time of the hub at rest", 100*after, 1, false, "% of a core")
	target(stdout, "more than before the jobs", 100*(after-rest), 1, false, "% of a core")
	return nil
}

// settleTime is for what a hub does in the background after much work:
// checkpoints, columns, collections.
const settleTime = 10 * time.Second
