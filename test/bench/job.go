package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// jobOptions are the flags of the jobs benchmark.
type jobOptions struct {
	hub            hubOptions
	parts          []string
	devices        int // of the fleet that a job changes
	connected      int // of them
	duration       time.Duration
	rounds         int
	twins          int // of the previews
	previews       int
	jobs           int // at once
	jobDevices     int // of the fleet of those
	idle           time.Duration
	configurations int
	changes        int // of a tag, one after the other
	imported       int // identities
}

// jobParts are the parts of the benchmark in the order in which they run.
var jobParts = []string{"rate", "preview", "concurrent", "configuration", "import"}

// jobsCommand measures jobs and configurations: how fast a job changes a fleet
// beside what changes it by hand, previews over many twins, many jobs at once
// and what is left of them, what a change of a tag costs when there are many
// configurations, and imports. What each part did is counted afterwards, by a query.
func jobsCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o jobOptions
	f := flag.NewFlagSet("jobs", flag.ContinueOnError)
	o.hub.flags(f)
	parts := f.String("parts", strings.Join(jobParts, ","), "which parts run")
	f.IntVar(&o.devices, "devices", 100_000, "rate: registered devices")
	f.IntVar(&o.connected, "connected", 5000, "rate: connected ones of them")
	f.DurationVar(&o.duration, "duration", 20*time.Second, "rate: length of one measurement of plain updates")
	f.IntVar(&o.rounds, "rounds", 3, "rate: how often each is measured")
	f.IntVar(&o.twins, "twins", 1_000_000, "preview: twins")
	f.IntVar(&o.previews, "previews", 500, "preview: how many")
	f.IntVar(&o.jobs, "jobs", 200, "concurrent: jobs at once")
	f.IntVar(&o.jobDevices, "job-devices", 10_000, "concurrent: devices; each job is for a twentieth of them")
	f.DurationVar(&o.idle, "idle", 30*time.Second, "concurrent: how long the hub's rest is watched")
	f.IntVar(&o.configurations, "configurations", 100, "configuration: how many there are")
	f.IntVar(&o.changes, "changes", 2000, "configuration: changes of a tag in each measurement")
	f.IntVar(&o.imported, "imported", 200_000, "import: identities")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.parts = strings.Split(*parts, ",")
	run := map[string]benchPart{
		"rate": o.rate, "preview": o.preview, "concurrent": o.concurrent, "configuration": o.configuration,
		"import": o.imports,
	}
	return runParts(ctx, o.hub, jobParts, o.parts, run, stdout)
}

// jobView is what is read of a job.
type jobView struct {
	ID      string    `json:"id"`
	Status  string    `json:"status"`
	Reason  string    `json:"reason"`
	Created time.Time `json:"createdTime"`
	Ended   time.Time `json:"endedTime"`
	Total   struct {
		Targets   int64 `json:"targets"`
		Succeeded int64 `json:"succeeded"`
	} `json:"total"`
}

func (j *jobView) over() bool {
	return j.Status == "completed" || j.Status == "failed" || j.Status == "canceled"
}

// startJob makes a job.
func (q *queryHub) startJob(ctx context.Context, where string, action map[string]any) (j jobView, err error) {
	return j, q.into(ctx, &j, http.MethodPost, "/api/v1/jobs", map[string]any{"targets": map[string]any{"where": where}, "action": action})
}

// awaitJob waits for the end of a job, which must succeed for so many devices.
func (q *queryHub) awaitJob(ctx context.Context, id string, want int) (j jobView, err error) {
	for {
		if err := q.into(ctx, &j, http.MethodGet, "/api/v1/jobs/"+id, nil); err != nil {
			return j, err
		}
		if j.over() {
			break
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return j, ctx.Err()
		}
	}
	if j.Status != "completed" || j.Total.Succeeded != int64(want) {
		return j, fmt.Errorf("the job %s is %s and succeeded for %d devices, not %d: %s", id, j.Status, j.Total.Succeeded, want, j.Reason)
	}
	return j, nil
}

func (q *queryHub) into(ctx context.Context, to any, method, path string, body any) error {
	answer, err := q.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, to)
}

// count asks how many devices a condition selects.
func (q *queryHub) count(ctx context.Context, where string) (int, error) {
	var rows []struct{ N int }
	err := q.into(ctx, &rows, http.MethodPost, "/devices/query?api-version=2021-04-12", map[string]string{"query": "SELECT COUNT() AS n FROM devices WHERE " + where})
	if err == nil && len(rows) != 1 {
		err = errors.New("a count is not one row")
	}
	if err != nil {
		return 0, err
	}
	return rows[0].N, nil
}

// cores returns how much of a processor the hub uses in d.
func (h *hub) cores(ctx context.Context, d time.Duration) (float64, error) {
	before, err := cpuOf(h.pid())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	pause(ctx, d)
	after, err := cpuOf(h.pid())
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}
