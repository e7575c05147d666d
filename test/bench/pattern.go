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

// patternOptions are the flags of the patterns benchmark.
type patternOptions struct {
	hub         hubOptions
	parts       []string
	parked      int // runs that wait
	collected   time.Duration
	resumed     int // runs that are resumed
	awaits      int // of each of them
	ahead       time.Duration
	activations int
	steps       int // of the journal of an activation
	starts      int // of workers
	devices     int // of the fleet
	clients     int // of the plain program
	rounds      int
	reconnect   bool
	away        time.Duration
}

// patternParts are the parts of the benchmark in the order in which they run.
var patternParts = []string{"worker", "parked", "resume", "fleet"}

// patternsCommand measures patterns: what an activation and a worker's start
// cost, what a run takes while it waits, how many waits are resumed a second,
// durably, and a procedure over a fleet beside the same steps in plain Go
// through the API. What each part did is counted afterwards.
func patternsCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o patternOptions
	f := flag.NewFlagSet("patterns", flag.ContinueOnError)
	o.hub.flags(f)
	parts := f.String("parts", strings.Join(patternParts, ","), "which parts run")
	f.IntVar(&o.activations, "activations", 5000, "worker: activations, one after the other")
	f.IntVar(&o.steps, "steps", 50, "worker: steps of the journal of each")
	f.IntVar(&o.starts, "starts", 20, "worker: starts")
	f.IntVar(&o.parked, "parked", 100_000, "parked: runs that wait, half of them for a time and half for a condition")
	f.DurationVar(&o.collected, "collected", 150*time.Second, "parked: how long a collection of the hub's heap is waited for")
	f.IntVar(&o.resumed, "runs", 20_000, "resume: runs")
	f.IntVar(&o.awaits, "awaits", 10, "resume: waits of each run, one after the other")
	f.DurationVar(&o.ahead, "ahead", 60*time.Second, "resume: how long before the first of them the runs are made")
	f.IntVar(&o.devices, "devices", 10_000, "fleet: connected devices")
	f.IntVar(&o.clients, "clients", 256, "fleet: devices that the plain program is at work on at once")
	f.IntVar(&o.rounds, "rounds", 3, "fleet: how often each is measured")
	f.BoolVar(&o.reconnect, "reconnect", true, "fleet: devices drop their connection and make another one")
	f.DurationVar(&o.away, "away", 0, "fleet: between the old connection and the new one")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.parts = strings.Split(*parts, ",")
	run := map[string]benchPart{
		"worker": o.worker, "parked": o.park, "resume": o.resume, "fleet": o.fleet,
	}
	return runParts(ctx, o.hub, patternParts, o.parts, run, stdout)
}

// install installs a pattern of one file, with all that it needs.
func (q *queryHub) install(ctx context.Context, source string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+q.hub.https+"/api/v1/patterns?unsigned=true&grant=all", strings.NewReader(source))
	if err != nil {
		return err
	}
	req.Host = hostName
	req.Header.Set("Authorization", q.token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := q.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("the pattern was answered with %d: %s", resp.StatusCode, answer)
	}
	return err
}

// startRuns starts a run on each of the first n devices.
func (q *queryHub) startRuns(ctx context.Context, pattern string, n int, params func(i int) map[string]any) (time.Duration, error) {
	began := time.Now()
	err := inParallel(ctx, n, func(ctx context.Context, i int) error {
		_, err := q.post(ctx, "/api/v1/runs", map[string]any{"pattern": pattern, "deviceId": deviceName("device", i), "params": params(i)})
		return err
	})
	return time.Since(began), err
}

// runStates counts the runs of a pattern by state.
func (q *queryHub) runStates(ctx context.Context, pattern string) (map[string]int, error) {
	var list struct {
		Items []struct {
			State string
			Count int
		}
	}
	answer, err := q.call(ctx, http.MethodGet, "/api/v1/patterns/"+pattern+"/counts", nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, err
	}
	states := map[string]int{}
	for _, c := range list.Items {
		states[c.State] += c.Count
	}
	return states, nil
}

// untilRuns waits until n runs of a pattern are in a state. Those that ended
// otherwise are an error.
func (q *queryHub) untilRuns(ctx context.Context, pattern, state string, n int, rest time.Duration) error {
	for {
		states, err := q.runStates(ctx, pattern)
		if err != nil {
			return err
		}
		if states[state] == n {
			return nil
		}
		if bad := states["failed"] + states["uncertain"] + states["canceled"]; bad > 0 {
			return fmt.Errorf("%d runs ended badly: %s", bad, q.fault(ctx, pattern))
		}
		if pause(ctx, rest); ctx.Err() != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("the runs are %v", states))
		}
	}
}

// fault tells of a run that failed.
func (q *queryHub) fault(ctx context.Context, pattern string) string {
	answer, err := q.call(ctx, http.MethodGet, "/api/v1/runs?limit=1&state=failed,uncertain,canceled&pattern="+pattern, nil)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}
