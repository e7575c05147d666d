package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startCommand measures how long a hub takes until it serves.
func startCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("start", flag.ContinueOnError)
	o.flags(f)
	twins := f.Int("twins", 1_000_000, "twins of the large hub, made through the bulk API; 0: leave it out")
	rounds := f.Int("rounds", 5, "how often each start is measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	var first, second, large, killed durations
	for i := range *rounds {
		h, clean, err := newHub(o)
		if err != nil {
			return err
		}
		if i == 0 {
			fmt.Fprintln(stdout, "machine:", machine(filepath.Dir(h.data)))
		}
		err = func() error {
			defer func() { _ = h.signal(syscall.SIGKILL) }() // when something fails
			for _, list := range []*durations{&first, &second} {
				took, err := h.start(ctx)
				if err != nil {
					return err
				}
				*list = append(*list, took)
				if err := h.signal(syscall.SIGTERM); err != nil {
					return err
				}
			}
			return nil
		}()
		clean()
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "first start, until /readyz says so: %s\nsecond start: %s\n", first, second)
	if *twins > 0 {
		if err := startLarge(ctx, o, *twins, *rounds, &large, &killed, stdout); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%d twins, start after an orderly stop, until a device's CONNACK 0: %s\n", *twins, large)
		fmt.Fprintf(stdout, "%d twins, start after kill -9 under 64 writers, until a device's CONNACK 0: %s\n", *twins, killed)
	}
	fmt.Fprintln(stdout, "\ntargets, medians")
	target(stdout, "first start", first.median(), 2000, false, "ms")
	target(stdout, "second start", second.median(), 300, false, "ms")
	if *twins > 0 {
		target(stdout, "device served", large.median(), 5000, false, "ms")
		target(stdout, "device served after kill -9", killed.median(), 5000, false, "ms")
	}
	return nil
}

// durations are the times of several starts.
type durations []time.Duration

// String lists them in milliseconds.
func (l durations) String() string {
	var s strings.Builder
	for i, d := range l {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString(fmt.Sprintf("%.0f", milliseconds(d)))
	}
	return s.String() + " ms"
}

func (l durations) median() float64 {
	var h []outcome
	for _, d := range l {
		h = append(h, outcome{PerSecond: milliseconds(d)})
	}
	return medianOf(h).PerSecond
}

// startLarge fills a hub, then starts it again and again: after an orderly stop,
// and after a kill while devices write.
func startLarge(ctx context.Context, o hubOptions, twins, rounds int, large, killed *durations, stdout io.Writer) error {
	h, clean, err := newHub(o)
	if err != nil {
		return err
	}
	defer clean()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	defer func() { _ = h.signal(syscall.SIGKILL) }()
	var most peak
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { most.watch(watching, h.pid()) })
	took, err := h.fill(ctx, "device", twins, 16)
	stop()
	watcher.Wait()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d identities with twins through the bulk API: %.0f s, %.0f/s; hub: anonymous memory at most %s, resident %s; disk %s\n", twins,
		took.Seconds(), float64(twins)/took.Seconds(), mib(most.anonymous.Load()), mib(most.resident.Load()), mib(diskUse(h.data)))
	for range rounds {
		if err := h.signal(syscall.SIGTERM); err != nil {
			return err
		}
		took, err := h.served(ctx, twins)
		if err != nil {
			return err
		}
		*large = append(*large, took)
	}
	for range rounds {
		if err := h.killUnderLoad(ctx); err != nil {
			return err
		}
		took, err := h.served(ctx, twins)
		if err != nil {
			return err
		}
		*killed = append(*killed, took)
	}
	return nil
}

// served starts the hub and returns how long it took until a device was let in
// and could read its twin.
func (h *hub) served(ctx context.Context, twins int) (time.Duration, error) {
	p := newPool()
	began := time.Now()
	if err := h.launch(); err != nil {
		return 0, err
	}
	var d *device
	err := h.until(ctx, "a device's CONNACK", func(ctx context.Context) (err error) {
		d, err = p.connect(ctx, h, deviceName("device", twins/2), false)
		return err
	})
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	defer d.close()
	if err := d.subscribe(filterAnswers); err != nil {
		return took, err
	}
	return took, d.patch([]byte(`{"started":true}`))
}

// killUnderLoad has devices write for some seconds, then kills the hub.
func (h *hub) killUnderLoad(ctx context.Context) error {
	devices, err := connectAll(ctx, h, 64)
	if err != nil {
		return err
	}
	defer func() {
		for _, d := range devices {
			d.close()
		}
	}()
	plan := loadPlan{workers: len(devices), duration: time.Minute}
	loading, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	writers.Go(func() {
		_, _ = plan.run(loading, func(_ context.Context, i int) error { // ends when the hub is gone
			return devices[i].patch(fmt.Appendf(nil, `{"battery":%d}`, randomChange(1).battery))
		})
	})
	pause(ctx, 7*time.Second) // past a checkpoint, so that the journal has something to replay behind it
	err = h.signal(syscall.SIGKILL)
	stop()
	writers.Wait()
	return err
}
