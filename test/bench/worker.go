package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

// point is one measurement of one store: a process of its own, so that memory
// and processor time are the store's.
type point struct {
	Store     string
	Dir       string
	Documents int
	Memory    int64
	Writers   int
	Duration  time.Duration
	Updates   int64 // ends the measurement before its time; 0: no bound
	Rate      float64
	Every     time.Duration // progress lines; 0: none
	Readable  bool          // count readable rows at the end
	Profile   string        // file for a CPU profile; "": none
}

// outcome is what a measurement found.
type outcome struct {
	Store     string
	Writers   int
	Rate      float64 `json:",omitempty"`
	PerSecond float64
	Latency   summary
	CPUMicros float64 // processor time for an update
	Lost      int     // acknowledged updates that cannot be read
	Resident  int64   // most bytes seen
	Anonymous int64
	Disk      int64 // bytes of blocks after close
	Rows      int64 `json:",omitempty"`
	RowBytes  int64 `json:",omitempty"`
	Stats     map[string]any
}

// measure runs a point in a child process.
func measure(ctx context.Context, p point, progress io.Writer) (outcome, error) {
	var o outcome
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	c := exec.CommandContext(ctx, self, "worker", "-store", p.Store, "-dir", p.Dir, "-documents", strconv.Itoa(p.Documents),
		"-memory", strconv.FormatInt(p.Memory, 10), "-writers", strconv.Itoa(p.Writers), "-duration", p.Duration.String(), "-updates", strconv.FormatInt(p.Updates, 10),
		"-rate", strconv.FormatFloat(p.Rate, 'f', -1, 64), "-every", p.Every.String(), "-readable="+strconv.FormatBool(p.Readable),
		"-cpuprofile", p.Profile)
	c.Stderr = progress
	out, err := c.Output()
	if err != nil {
		return o, fmt.Errorf("measure %s with %d writers: %w", p.Store, p.Writers, err)
	}
	return o, json.Unmarshal(out, &o)
}

// workerCommand is the child's side of measure.
func workerCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var p point
	f := flag.NewFlagSet("worker", flag.ContinueOnError)
	f.StringVar(&p.Store, "store", "muster", "")
	f.StringVar(&p.Dir, "dir", "", "")
	f.IntVar(&p.Documents, "documents", 100_000, "")
	f.Int64Var(&p.Memory, "memory", 256<<20, "")
	f.IntVar(&p.Writers, "writers", 1, "")
	f.DurationVar(&p.Duration, "duration", 10*time.Second, "")
	f.Int64Var(&p.Updates, "updates", 0, "")
	f.Float64Var(&p.Rate, "rate", 0, "")
	f.DurationVar(&p.Every, "every", 0, "")
	f.BoolVar(&p.Readable, "readable", false, "")
	f.StringVar(&p.Profile, "cpuprofile", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	o, err := p.run(ctx, stderr)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(o)
}

func (p point) run(ctx context.Context, progress io.Writer) (outcome, error) {
	threads := 0
	if os.Getenv("GOMAXPROCS") == "" {
		threads = 2 * runtime.GOMAXPROCS(0) // as `muster serve` does; the peers gain by it too
		runtime.GOMAXPROCS(threads)
	}
	o := outcome{Store: p.Store, Writers: p.Writers, Rate: p.Rate}
	s, err := openStore(p.Store, p.Dir, p.Memory, threads)
	if err != nil {
		return o, err
	}
	before, err := s.versions()
	if err == nil && before == 0 {
		if err = s.load(p.Documents); err == nil {
			before, err = s.versions()
		}
	}
	if err != nil {
		return o, err
	}
	if p.Duration > 0 {
		if err := p.load(ctx, s, &o, progress); err != nil {
			return o, err
		}
	}
	after, err := s.versions()
	if err != nil {
		return o, err
	}
	o.Lost = before + int(o.Latency.Count) - after
	if p.Readable {
		if o.Rows, o.RowBytes, err = s.readable(); err != nil {
			return o, err
		}
	}
	if err := s.close(); err != nil {
		return o, err
	}
	o.Disk = diskUse(p.Dir)
	return o, nil
}

// load offers the updates and fills in what they cost.
func (p point) load(ctx context.Context, s store, o *outcome, progress io.Writer) error {
	if p.Profile != "" {
		file, err := os.Create(p.Profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var most peak
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { most.watch(watching, os.Getpid()) })
	plan := loadPlan{workers: p.Writers, duration: p.Duration, operations: p.Updates, rate: p.Rate, every: p.Every}
	plan.tick = func(elapsed time.Duration, s summary) {
		m, err := memoryOf(os.Getpid())
		if err != nil {
			return
		}
		fmt.Fprintf(progress, "  %6.0f s  %8.0f/s  p50 %7.2f ms  p99 %7.2f ms  p99.9 %7.2f ms  resident %s, anonymous %s\n", elapsed.Seconds(),
			float64(s.Count)/p.Every.Seconds(), milliseconds(s.P50), milliseconds(s.P99), milliseconds(s.P999), mib(m.resident), mib(m.anonymous))
	}
	cpu := ownCPU()
	r, err := plan.run(ctx, func(ctx context.Context, _ int) error { return s.update(ctx, randomChange(p.Documents)) })
	cpu = ownCPU() - cpu
	stop()
	watcher.Wait()
	if err != nil {
		return err
	}
	o.PerSecond, o.Latency = r.perSecond(), r.Latency
	o.CPUMicros = float64(cpu.Microseconds()) / float64(max(1, r.Latency.Count))
	o.Resident, o.Anonymous = most.resident.Load(), most.anonymous.Load()
	o.Stats = s.stats()
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
