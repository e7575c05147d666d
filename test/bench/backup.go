package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// backupCommand measures what a backup of a running hub costs those who wait
// for it: devices report at a given rate over TLS, and a latency counts from
// when the update was due. Each round measures without a backup and then for as
// long as `muster backup create` takes, reading the file back included.
func backupCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("backup", flag.ContinueOnError)
	o.flags(f)
	devices := f.Int("devices", 1_000_000, "devices with twins")
	connections := f.Int("connections", 64, "devices that report")
	rate := f.Float64("rate", 500, "updates a second in all; 0: as many as are answered")
	duration := f.Duration("duration", time.Minute, "length of a measurement without a backup")
	rounds := f.Int("rounds", 5, "how often each is measured; medians count")
	if err := f.Parse(args); err != nil {
		return err
	}
	h, clean, err := newHub(o)
	if err != nil {
		return err
	}
	defer clean()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	defer func() { _ = h.signal(syscall.SIGTERM) }()
	fmt.Fprintln(stdout, "machine:", machine(h.data))
	took, err := h.fill(ctx, "device", max(*devices, *connections), 8)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d devices made in %.1f s\n", max(*devices, *connections), took.Seconds())
	list, err := connectAll(ctx, h, *connections)
	if err != nil {
		return err
	}
	defer func() {
		for _, d := range list {
			d.close()
		}
	}()
	b := &backupBench{hub: h, devices: list, rate: *rate}
	if _, err := b.measure(ctx, *duration/4); err != nil { // not counted
		return err
	}
	fmt.Fprintln(stdout, "round  backup    seconds  updates/s     p50 ms     p99 ms   p99.9 ms     max ms   ratio  hub MiB  file MiB    entries")
	var quiet, busy, ratios []float64
	for round := range *rounds {
		without, err := b.measure(ctx, *duration)
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, without.line(round+1, "without", 0))
		with, err := b.during(ctx)
		if err != nil {
			return err
		}
		p, q := milliseconds(without.latency.P99), milliseconds(with.latency.P99)
		fmt.Fprintln(stdout, with.line(round+1, "with", q/p))
		quiet, busy, ratios = append(quiet, p), append(busy, q), append(ratios, q/p)
	}
	fmt.Fprintf(stdout, "\ntargets, medians of %d\n", *rounds)
	// A busy machine drifts from round to round: what is compared is compared within one.
	fmt.Fprintf(stdout, "  p99 without a backup %.2f ms, with one %.2f ms, as medians over the rounds: %.2f x\n", middle(quiet), middle(busy), middle(busy)/middle(quiet))
	target(stdout, "p99 with / without, within a round", middle(ratios), 3, false, "x")
	return nil
}

func middle(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

type backupBench struct {
	hub     *hub
	devices []*device
	rate    float64
}

type backupRound struct {
	seconds   float64
	perSecond float64
	latency   summary
	anonymous int64
	bytes     int64
	entries   uint64
}

func (r backupRound) line(round int, kind string, ratio float64) string {
	s := fmt.Sprintf("%5d  %-7s %9.1f %10.0f %10.2f %10.2f %10.2f %10.2f", round, kind, r.seconds, r.perSecond,
		milliseconds(r.latency.P50), milliseconds(r.latency.P99), milliseconds(r.latency.P999), milliseconds(r.latency.Max))
	if kind == "without" {
		return s + fmt.Sprintf(" %7s %8d", "", r.anonymous>>20)
	}
	return s + fmt.Sprintf(" %7.2f %8d %9d %10d", ratio, r.anonymous>>20, r.bytes>>20, r.entries)
}

// measure reports for a time, or until ctx is canceled.
func (b *backupBench) measure(ctx context.Context, d time.Duration) (backupRound, error) {
	var most peak
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { most.watch(watching, b.hub.pid()) })
	plan := loadPlan{workers: len(b.devices), duration: d, rate: b.rate}
	r, err := plan.run(ctx, func(_ context.Context, i int) error {
		c := randomChange(1)
		return b.devices[i].patch(fmt.Appendf(nil, `{"battery":%d,"uptime":%d,"temperature":%d.5,"status":"ok"}`, c.battery, c.uptime, c.reading))
	})
	stop()
	watcher.Wait()
	return backupRound{seconds: r.Elapsed.Seconds(), perSecond: r.perSecond(), latency: r.Latency, anonymous: most.anonymous.Load()}, err
}

// during reports while a backup is made, and removes it.
func (b *backupBench) during(ctx context.Context) (backupRound, error) {
	file := filepath.Join(filepath.Dir(b.hub.data), "bench.mbk")
	defer os.Remove(file)
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, b.hub.options.binary, "backup", "create", file, "--data", b.hub.data, "-o", "json")
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Start(); err != nil {
		return backupRound{}, err
	}
	running, ended := context.WithCancel(ctx)
	defer ended()
	done := make(chan error, 1)
	go func() {
		done <- cmd.Wait()
		ended()
	}()
	r, err := b.measure(running, 2*time.Hour)
	if werr := <-done; werr != nil {
		return r, fmt.Errorf("muster backup create: %w: %s", werr, complaint.String())
	}
	if err != nil {
		return r, err
	}
	var made []struct {
		Bytes   int64  `json:"bytes"`
		Entries uint64 `json:"entries"`
	}
	if err := json.Unmarshal(out.Bytes(), &made); err != nil || len(made) != 1 {
		return r, fmt.Errorf("muster backup create printed %q: %w", out.String(), err)
	}
	r.bytes, r.entries = made[0].Bytes, made[0].Entries
	return r, nil
}
