package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// mqttCommand measures updates of twins through sessions: each connection has
// one PATCH of reported properties under way, and waits until the hub says it
// is stored. PostgreSQL does its work in the same rounds.
func mqttCommand(ctx context.Context, args []string, stdout io.Writer) (err error) {
	var o hubOptions
	f := flag.NewFlagSet("mqtt", flag.ContinueOnError)
	o.flags(f)
	connections := f.Int("connections", 256, "device connections")
	duration := f.Duration("duration", time.Minute, "length of one measurement")
	rounds := f.Int("rounds", 3, "how often each is measured; medians are shown")
	clients := intList{16, 32, 64}
	f.Var(&clients, "clients", "numbers of PostgreSQL clients; the best counts; 0: leave PostgreSQL out")
	documents := f.Int("documents", 100_000, "PostgreSQL's documents, and devices of the hub")
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
	took, err := h.fill(ctx, "device", max(*documents, *connections), 8)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d devices made in %.1f s\n", max(*documents, *connections), took.Seconds())
	devices, err := connectAll(ctx, h, *connections)
	if err != nil {
		return err
	}
	defer func() {
		for _, d := range devices {
			d.close()
		}
	}()

	var pg *postgres
	if clients[0] > 0 {
		dir, remove, err := workDirectory(filepath.Dir(h.data))
		if err != nil {
			return err
		}
		defer remove()
		if pg, err = startPostgres(ctx, dir, *documents, postgresTuned); err != nil {
			return err
		}
		defer func() { _ = pg.stop() }()
		if _, err := pg.measure(ctx, 32, *duration/2); err != nil { // not counted
			return err
		}
	}
	hubs, peers := []outcome{}, map[int][]outcome{}
	fmt.Fprintln(stdout, heading)
	for range *rounds {
		syscall.Sync()
		r, err := mqttRound(ctx, h, devices, *duration)
		if err != nil {
			return err
		}
		hubs = append(hubs, r)
		fmt.Fprintln(stdout, line(r))
		if pg == nil {
			continue
		}
		for _, n := range clients {
			syscall.Sync()
			r, err := pg.measure(ctx, n, *duration)
			if err != nil {
				return err
			}
			peers[n] = append(peers[n], r)
			fmt.Fprintln(stdout, line(r))
		}
	}
	m := medianOf(hubs)
	fmt.Fprintf(stdout, "\nmedians of %d\n%s\n%s\n", *rounds, heading, line(m))
	var best []outcome
	for _, n := range clients {
		if list := peers[n]; len(list) > 0 {
			best = append(best, medianOf(list))
			fmt.Fprintln(stdout, line(medianOf(list)))
		}
	}
	fmt.Fprintln(stdout, "\ntargets")
	if len(best) > 0 {
		target(stdout, "sessions / PostgreSQL's best", m.PerSecond/bestOf(best).PerSecond, 2.5, true, "x")
	}
	fmt.Fprintf(stdout, "  hub: anonymous memory at most %s, resident at most %s, --memory %s\n", mib(m.Anonymous), mib(m.Resident), o.memory)
	return nil
}

// connectAll connects devices, a few at a time, and gives each a twin of about
// a kilobyte.
func connectAll(ctx context.Context, h *hub, n int) ([]*device, error) {
	p := newPool()
	devices := make([]*device, n)
	errs := make(chan error, n)
	turn := make(chan struct{}, 8)
	first := fmt.Appendf(nil, `{"battery":50,"uptime":1,"temperature":20.5,"rssi":-60,"status":"ok","fw":{"version":"1.2.3","slot":"a","sha256":"%s"},"network":{"mac":"0123456789ab","ip":"10.1.2.3"},"note":"%s"}`,
		strings.Repeat("0123456789abcdef", 4), randomText(280))
	for i := range n {
		go func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			d, err := p.connect(ctx, h, deviceName("device", i), false)
			if err == nil {
				err = d.subscribe(filterAnswers)
			}
			if err == nil {
				err = d.patch(first)
			}
			devices[i] = d
			errs <- err
		}()
	}
	var failed error
	for range n {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return devices, failed
}

func randomText(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz"[rand.IntN(26)]
	}
	return string(b)
}

func mqttRound(ctx context.Context, h *hub, devices []*device, d time.Duration) (outcome, error) {
	o := outcome{Store: "muster mqtt", Writers: len(devices)}
	before, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	var most peak
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { most.watch(watching, h.pid()) })
	own := ownCPU()
	plan := loadPlan{workers: len(devices), duration: d}
	r, err := plan.run(ctx, func(_ context.Context, i int) error {
		c := randomChange(1)
		return devices[i].patch(fmt.Appendf(nil, `{"battery":%d,"uptime":%d,"temperature":%d.5,"status":"ok"}`, c.battery, c.uptime, c.reading))
	})
	own = ownCPU() - own
	stop()
	watcher.Wait()
	if err != nil {
		return o, err
	}
	after, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	o.PerSecond, o.Latency = r.perSecond(), r.Latency
	count := float64(max(1, r.Latency.Count))
	o.CPUMicros = float64((after - before).Microseconds()) / count
	o.Resident, o.Anonymous = most.resident.Load(), most.anonymous.Load()
	o.Stats = map[string]any{"generator_us_cpu": int(float64(own.Microseconds()) / count)}
	return o, nil
}
