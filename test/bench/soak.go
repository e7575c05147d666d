package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/simulator"
)

// What "flat" means. A hub's memory moves up and down with its collector and
// its tables, so that a short run sees a slope where there is none: what counts
// is how much the median slope makes over what was measured.
const (
	soakWarm       = 0.25 // of the duration, before what is measured
	soakMemoryRise = 10.0 // percent of the median, anonymous memory and what lives in the heap
	soakCountRise  = 2.0  // percent of the median and five more, goroutines and descriptors
	soakDiskEach   = 4.0  // KiB of tables and journal for each transaction; messages are counted apart
)

// soakCommand keeps a hub at steady work and looks whether anything grows that
// should not.
func soakCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	o.flags(f)
	o.memory = "512MiB" // so that memtables and caches are full when the warm-up ends
	f.Lookup("memory").DefValue = o.memory
	duration := f.Duration("duration", 10*time.Minute, "length, the warm-up included")
	devices := f.Int("devices", 200, "devices")
	rate := f.Float64("rate", 500, "messages per second; a third as many reports")
	every := f.Duration("sample", 5*time.Second, "time between two looks")
	calls := f.Float64("calls", 10, "methods, and changes of desired properties, per second")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *duration < 20**every || *devices < 1 || *rate <= 0 || *calls <= 0 {
		return errors.New("-duration must be at least twenty times -sample, and -devices, -rate and -calls above 0")
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
	s := soak{h: h, devices: *devices, rate: *rate, calls: *calls, every: *every}
	return s.run(ctx, *duration, stdout)
}

type soak struct {
	h           *hub
	devices     int
	rate, calls float64
	every       time.Duration

	methods, patches, failed atomic.Int64
}

// sample is one look. heap is what the newest collection left, as the goal of the
// next one tells.
type sample struct {
	at                                          float64 // seconds
	resident, anonymous, heap, routines, files  float64
	disk, messages, commits, checkpoints, taken float64
}

func (s *soak) run(ctx context.Context, duration time.Duration, stdout io.Writer) error {
	service, err := s.h.registry()
	if err != nil {
		return err
	}
	defer service.Close()
	name := filepath.Join(filepath.Dir(s.h.data), "acks.jsonl")
	log, err := simulator.OpenAckLog(name)
	if err != nil {
		return err
	}
	closeLog := sync.OnceValue(log.Close)
	defer func() { _ = closeLog() }()
	behaviour, err := simulator.ParseBehaviour([]byte("drop_every: 5m\naway: 2s\n")) // some come and go
	if err != nil {
		return err
	}
	behaviour.Interval = time.Duration(float64(s.devices) / s.rate * float64(time.Second))
	load, err := simulator.NewLoad(simulator.LoadOptions{
		Service: service, Hub: hostName, Transport: client.WebSocket, Address: s.h.https, RootCAs: s.h.roots, Prefix: "soak-", Devices: s.devices, Seed: 1,
		Spread: time.Duration(s.devices) * 4 * time.Millisecond, Behaviour: behaviour, Acks: log,
	})
	if err != nil {
		return err
	}
	if _, err := load.Prepare(ctx); err != nil {
		return err
	}
	running, stop := context.WithTimeout(ctx, duration)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { _ = load.Run(running) }) // ends with its context
	work.Go(func() { s.callSomebody(running, service) })
	list, err := s.watch(running, duration, stdout)
	if err != nil {
		return err
	}
	stop()
	work.Wait()
	r := load.Report()
	fmt.Fprintf(stdout, "fleet: %d messages and %d reports acknowledged, %d without an answer, %d reconnects; %d methods answered, %d changes of desired properties, %d of both failed; errors: %v\n",
		r.Messages, r.TwinPatches, r.Unknown, r.Reconnects, s.methods.Load(), s.patches.Load(), s.failed.Load(), r.ErrorReasons)
	if err := closeLog(); err != nil {
		return err
	}
	missing, err := verifyAcks(ctx, s.h, stdout, name)
	if err != nil {
		return err
	}
	s.judge(list, stdout)
	target(stdout, "messages/s, of those asked for", float64(r.Messages)/duration.Seconds()/s.rate*100, 90, true, "%")
	target(stdout, "acknowledged and missing", float64(missing), 0, false, "")
	return ctx.Err()
}

// callSomebody calls a method of one device and changes another's desired
// properties, again and again.
func (s *soak) callSomebody(ctx context.Context, service *client.Service) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / s.calls))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		name := func() string { return fmt.Sprintf("soak-%06d", 1+rand.IntN(s.devices)) }
		_, err := service.InvokeMethod(ctx, name(), "", client.MethodCall{Name: "ping", Payload: json.RawMessage(`{"n":1}`), ResponseTimeout: 10 * time.Second})
		s.done(ctx, &s.methods, err)
		_, err = service.PatchTwin(ctx, name(), "", fmt.Appendf(nil, `{"properties":{"desired":{"interval":%d}}}`, n), "")
		s.done(ctx, &s.patches, err)
	}
}

func (s *soak) done(ctx context.Context, count *atomic.Int64, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.failed.Add(1) // a device that is away answers no method
		return
	}
	count.Add(1)
}

// watch samples until ctx ends.
func (s *soak) watch(ctx context.Context, duration time.Duration, stdout io.Writer) ([]sample, error) {
	began := time.Now()
	var list []sample
	fmt.Fprintln(stdout, "     s  resident  anonymous    live heap  goroutines  descriptors  disk MiB  of that messages  checkpoints  messages taken  load average")
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	show := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return list, nil
		case <-tick.C:
		}
		l, err := s.look(ctx)
		if ctx.Err() != nil {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		l.at = time.Since(began).Seconds()
		list = append(list, l)
		if time.Since(began) >= show {
			show += duration / 20
			fmt.Fprintf(stdout, "%6.0f  %8.1f  %9.1f  %11.1f  %10.0f  %11.0f  %8.1f  %16.1f  %11.0f  %14.0f  %s\n", l.at, l.resident/mebi, l.anonymous/mebi, l.heap/mebi, l.routines, l.files,
				l.disk/mebi, l.messages/mebi, l.checkpoints, l.taken, loadAverage())
		}
	}
}

const mebi = 1 << 20

func (s *soak) look(ctx context.Context) (l sample, err error) {
	m, err := memoryOf(s.h.pid())
	if err != nil {
		return l, err
	}
	files, err := descriptorsOf(s.h.pid(), s.h.data)
	if err != nil {
		return l, err
	}
	f, err := s.h.metrics(ctx)
	return sample{
		resident: float64(m.resident), anonymous: float64(m.anonymous), files: float64(files), disk: float64(diskUse(s.h.data)),
		heap: f["go_memstats_next_gc_bytes"] / (1 + f["go_gc_gogc_percent"]/100), routines: f["go_goroutines"], messages: f["muster_store_message_bytes"],
		commits: f["muster_store_commits_total"], checkpoints: f["muster_store_checkpoints_total"], taken: f["muster_messages_total"],
	}, err
}

// descriptorsOf counts a process's open files, without those below a directory:
// a store has some for each GiB that it keeps.
func descriptorsOf(pid int, without string) (n int, err error) {
	if without, err = filepath.Abs(without); err != nil {
		return 0, err
	}
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if to, err := os.Readlink(dir + e.Name()); err == nil && !strings.HasPrefix(to, without+"/") {
			n++
		}
	}
	return n, err
}

// judge fits a line to each series after the warm-up.
func (s *soak) judge(list []sample, stdout io.Writer) {
	list = list[int(soakWarm*float64(len(list))):]
	if len(list) < 3 {
		fmt.Fprintln(stdout, "too few samples to judge")
		return
	}
	first, last := list[0], list[len(list)-1]
	span := last.at - first.at
	fmt.Fprintf(stdout, "\n%d samples over %.0f s after the warm-up; slopes are medians over all pairs, with their quartiles\n", len(list), span)
	rises := map[string]float64{}
	for _, series := range []struct {
		name, unit string
		scale      float64
		of         func(sample) float64
	}{
		{"resident", "MiB", mebi, func(l sample) float64 { return l.resident }},
		{"anonymous", "MiB", mebi, func(l sample) float64 { return l.anonymous }},
		{"live heap", "MiB", mebi, func(l sample) float64 { return l.heap }},
		{"goroutines", "", 1, func(l sample) float64 { return l.routines }},
		{"descriptors", "", 1, func(l sample) float64 { return l.files }},
		{"disk", "MiB", mebi, func(l sample) float64 { return l.disk }},
	} {
		middle, slope, low, high := fit(list, series.of)
		rises[series.name] = 100 * slope * span / middle
		fmt.Fprintf(stdout, "  %-12s median %8.1f %-3s slope %+9.2f (%+.2f to %+.2f) %s an hour, %+.1f %% over what was measured\n",
			series.name, middle/series.scale, series.unit, slope*3600/series.scale, low*3600/series.scale, high*3600/series.scale, series.unit, rises[series.name])
	}
	perTransaction := (last.disk - first.disk - (last.messages - first.messages)) / (last.commits - first.commits)
	fmt.Fprintf(stdout, "  disk beside messages: %.2f KiB for each of %.0f transactions; messages: %.0f bytes each; %.0f checkpoints\n\ntargets\n",
		perTransaction/1024, last.commits-first.commits, (last.messages-first.messages)/(last.taken-first.taken), last.checkpoints-first.checkpoints)
	target(stdout, "rise of anonymous memory", rises["anonymous"], soakMemoryRise, false, "%")
	target(stdout, "rise of the live heap", rises["live heap"], soakMemoryRise, false, "%")
	middle, _, _, _ := fit(list, func(l sample) float64 { return l.routines })
	target(stdout, "rise of goroutines", rises["goroutines"], math.Round(10*(soakCountRise+500/middle))/10, false, "%")
	middle, _, _, _ = fit(list, func(l sample) float64 { return l.files })
	target(stdout, "rise of descriptors", rises["descriptors"], math.Round(10*(soakCountRise+500/middle))/10, false, "%")
	target(stdout, "disk for a transaction", perTransaction/1024, soakDiskEach, false, "KiB")
}

// fit returns the median of a series, and the median and the quartiles of the
// slopes between any two of its samples, a second: what a compaction or a
// collection does to single samples does not move them.
func fit(list []sample, of func(sample) float64) (middle, slope, low, high float64) {
	var values, slopes []float64
	for i, l := range list {
		values = append(values, of(l))
		for _, before := range list[:i] {
			slopes = append(slopes, (of(l)-of(before))/(l.at-before.at))
		}
	}
	slices.Sort(values)
	slices.Sort(slopes)
	n := len(slopes)
	return values[len(values)/2], slopes[n/2], slopes[n/4], slopes[3*n/4]
}
