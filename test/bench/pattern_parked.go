package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

// parkedSource waits for what does not come while it is looked at.
const parkedSource = `
return pattern {
  name = "bench-parked", version = "1.0.0", title = "Parked", needs = { "twin:read" },
  params = { condition = { type = "boolean", default = false } },
  run = function(dev, p, ctx)
    if p.condition then dev:wait("tags.never == 'yes'", { timeout = "20d" }) end
    ctx:sleep("20d")
  end,
}`

// park measures what the hub's heap grows by for each run that waits. The hub is
// started anew before each look: its cache of records, which has a size of its
// own, is cold then, and whatever waiting runs need in memory was built again.
func (o *patternOptions) park(ctx context.Context, h *hub, stdout io.Writer) error {
	q, err := o.prepare(ctx, h, o.parked, parkedSource)
	if err != nil {
		return err
	}
	defer q.close()
	// A few warm up what is there however many runs there are.
	some := min(1000, o.parked/10)
	condition := func(i int) map[string]any { return map[string]any{"condition": i%2 == 1} }
	if _, err := q.startRuns(ctx, "bench-parked", some, condition); err != nil {
		return err
	}
	if err := q.untilRuns(ctx, "bench-parked", "waiting", some, 100*time.Millisecond); err != nil {
		return err
	}
	before, _, err := o.anew(ctx, h)
	if err != nil {
		return err
	}
	began := time.Now()
	err = inParallel(ctx, o.parked-some, func(ctx context.Context, i int) error {
		_, err := q.post(ctx, "/api/v1/runs", map[string]any{"pattern": "bench-parked", "deviceId": deviceName("device", some+i), "params": condition(i)})
		return err
	})
	if err == nil {
		err = q.untilRuns(ctx, "bench-parked", "waiting", o.parked, 200*time.Millisecond)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	warm, err := o.atRest(ctx, h)
	if err != nil {
		return err
	}
	after, ready, err := o.anew(ctx, h)
	if err == nil { // and they wait still
		err = q.untilRuns(ctx, "bench-parked", "waiting", o.parked, 200*time.Millisecond)
	}
	if err != nil {
		return err
	}
	each := (after.heap - before.heap) / float64(o.parked-some)
	fmt.Fprintf(stdout, "%d runs wait, half of them for a time and half for a condition; made in %.1f s; started anew with them, the hub is ready after %.1f s\n", o.parked, took.Seconds(), ready.Seconds())
	fmt.Fprintf(stdout, "%-18s %18s %18s\n", "", "live heap, MiB", "anonymous, MiB")
	for _, l := range []struct {
		name string
		sample
	}{{"before", before}, {"with a warm cache", warm}, {"after", after}} {
		fmt.Fprintf(stdout, "%-18s %18.1f %18.1f\n", l.name, l.heap/mebi, l.anonymous/mebi)
	}
	fmt.Fprintf(stdout, "\ntargets\n")
	target(stdout, "heap of a run that waits", each, 400, false, "bytes")
	return nil
}

// prepare starts a hub with devices and a pattern.
func (o *patternOptions) prepare(ctx context.Context, h *hub, devices int, source string) (*queryHub, error) {
	if _, err := h.start(ctx); err != nil {
		return nil, err
	}
	if _, err := h.fill(ctx, "device", devices, 8); err != nil {
		return nil, err
	}
	q, err := newQueryHub(h, o.clients)
	if err != nil {
		return nil, err
	}
	return q, q.install(ctx, source)
}

// anew stops the hub, starts it again and looks at it at rest.
func (o *patternOptions) anew(ctx context.Context, h *hub) (l sample, ready time.Duration, err error) {
	if err := h.signal(syscall.SIGTERM); err != nil {
		return l, 0, err
	}
	if ready, err = h.start(ctx); err != nil {
		return l, ready, err
	}
	l, err = o.atRest(ctx, h)
	return l, ready, err
}

// atRest looks at the hub after a collection of its heap that began when all had
// been done. The runtime collects every two minutes, whatever there is to do.
func (o *patternOptions) atRest(ctx context.Context, h *hub) (l sample, err error) {
	pause(ctx, settleTime)
	rest := float64(time.Now().UnixNano()) / 1e9
	for wait := time.Now().Add(o.collected); ; {
		f, err := h.metrics(ctx)
		if err != nil {
			return l, err
		}
		if f["go_memstats_last_gc_time_seconds"] > rest {
			m, err := memoryOf(h.pid())
			return sample{heap: f["go_memstats_next_gc_bytes"] / (1 + f["go_gc_gogc_percent"]/100), anonymous: float64(m.anonymous)}, err
		}
		if time.Now().After(wait) {
			return l, fmt.Errorf("the hub has not collected its heap for %s", o.collected)
		}
		if pause(ctx, time.Second); ctx.Err() != nil {
			return l, ctx.Err()
		}
	}
}

// resumeSource waits again and again: first for a moment that is the same for all
// runs, then for times that pass at once, then for a tag.
const resumeSource = `
return pattern {
  name = "bench-resume", version = "1.0.0", title = "Resume", needs = { "twin:read" },
  params = { at = { type = "string", format = "date-time" }, awaits = { type = "integer" } },
  required = { "at", "awaits" },
  run = function(dev, p, ctx)
    ctx:until_(p.at)
    for i = 1, p.awaits do ctx:sleep("1ms") end
    ctx:phase("timed")
    dev:wait("tags.go == 'yes'", { timeout = "20d" })
    return { awaits = p.awaits }
  end,
}`

// resume measures how many waits are resumed a second: each is an activation of
// its program, and stored before the next one.
func (o *patternOptions) resume(ctx context.Context, h *hub, stdout io.Writer) error {
	q, err := o.prepare(ctx, h, o.resumed, resumeSource)
	if err != nil {
		return err
	}
	defer q.close()
	at := time.Now().Add(o.ahead).UTC().Truncate(time.Second)
	params := map[string]any{"at": at.Format(time.RFC3339), "awaits": o.awaits}
	made, err := q.startRuns(ctx, "bench-resume", o.resumed, func(int) map[string]any { return params })
	if err != nil {
		return err
	}
	if err := q.untilRuns(ctx, "bench-resume", "waiting", o.resumed, 100*time.Millisecond); err != nil {
		return err
	}
	if !time.Now().Before(at) {
		return fmt.Errorf("making %d runs took until after they went on; use a longer -ahead", o.resumed)
	}
	pause(ctx, time.Until(at))
	before, err := cpuOf(h.pid())
	if err != nil {
		return err
	}
	if err := q.untilPhase(ctx, "bench-resume", "timed", o.resumed); err != nil {
		return err
	}
	took := time.Since(at)
	after, err := cpuOf(h.pid())
	if err != nil {
		return err
	}
	n := o.resumed * (1 + o.awaits)
	timed := float64(n) / took.Seconds()
	fmt.Fprintf(stdout, "%d runs made in %.1f s; %d waits for a time resumed in %.1f s: %.0f a second, %.0f us of the hub's CPU each (its workers' not)\n",
		o.resumed, made.Seconds(), n, took.Seconds(), timed, float64((after-before).Microseconds())/float64(n))
	began := time.Now()
	j, err := q.startJob(ctx, "true", map[string]any{"twin": map[string]any{"tags": map[string]any{"go": "yes"}}})
	if err == nil {
		j, err = q.awaitJob(ctx, j.ID, o.resumed)
	}
	if err == nil {
		err = q.untilRuns(ctx, "bench-resume", "succeeded", o.resumed, 20*time.Millisecond)
	}
	if err != nil {
		return err
	}
	took = time.Since(began)
	fmt.Fprintf(stdout, "%d waits for a condition resumed in %.1f s, the %.1f s of the job that changes the twins included: %.0f a second\n\ntargets\n",
		o.resumed, took.Seconds(), j.Ended.Sub(j.Created).Seconds(), float64(o.resumed)/took.Seconds())
	target(stdout, "waits for a time, resumed", timed, 5000, true, "a second")
	return nil
}

// untilPhase waits until n runs of a pattern wait at a phase.
func (q *queryHub) untilPhase(ctx context.Context, pattern, phase string, n int) error {
	for {
		var list struct {
			Items []struct {
				State, Phase string
				Count        int
			}
		}
		if err := q.into(ctx, &list, http.MethodGet, "/api/v1/patterns/"+pattern+"/counts", nil); err != nil {
			return err
		}
		there := 0
		for _, c := range list.Items {
			switch {
			case c.State == "waiting" && c.Phase == phase:
				there += c.Count
			case c.State != "waiting" && c.State != "ready":
				return fmt.Errorf("%d runs are %s: %s", c.Count, c.State, q.fault(ctx, pattern))
			}
		}
		if there == n {
			return nil
		}
		if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
