package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"
)

// idleCommand measures what idle connections cost the hub: MQTT over WebSocket
// over TLS, each with the subscriptions of an SDK that uses methods and twins.
func idleCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("idle", flag.ContinueOnError)
	o.flags(f)
	n := f.Int("connections", 10_000, "connections")
	plain := f.Bool("mqtts", false, "MQTT over TLS instead of WebSocket")
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
	defer func() { _ = h.signal(syscall.SIGKILL) }()
	fmt.Fprintln(stdout, "machine:", machine(h.data))
	if _, err := h.fill(ctx, "device", *n, 8); err != nil {
		return err
	}
	// A restart, so that what making the devices left behind is not counted.
	if err := h.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := h.start(ctx); err != nil {
		return err
	}
	pause(ctx, 3*time.Second)
	before, err := memoryOf(h.pid())
	if err != nil {
		return err
	}
	cpu, err := cpuOf(h.pid())
	if err != nil {
		return err
	}
	began := time.Now()
	devices, err := connectIdle(ctx, h, *n, !*plain)
	defer func() {
		for _, d := range devices {
			if d != nil {
				d.close()
			}
		}
	}()
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuOf(h.pid())
	if err != nil {
		return err
	}
	kind := "TLS WebSocket"
	if *plain {
		kind = "MQTT/TLS"
	}
	fmt.Fprintf(stdout, "%d %s connections in %.1f s (%.0f/s, both ends on this machine); hub: %.0f us of CPU for each (TLS handshake, CONNECT, 3 subscriptions stored)\n",
		*n, kind, took.Seconds(), float64(*n)/took.Seconds(), float64((after-cpu).Microseconds())/float64(*n))
	for _, wait := range []time.Duration{2, 30, 60, 120} {
		pause(ctx, wait*time.Second-time.Since(began.Add(took)))
		now, err := memoryOf(h.pid())
		if err != nil {
			return err
		}
		each := func(a, b int64) float64 { return float64(b-a) / 1024 / float64(*n) }
		fmt.Fprintf(stdout, "after %3d s: resident %s (before %s), %.1f KiB a connection; anonymous %s (before %s), %.1f KiB a connection\n", int(wait),
			mib(now.resident), mib(before.resident), each(before.resident, now.resident), mib(now.anonymous), mib(before.anonymous), each(before.anonymous, now.anonymous))
	}
	return ctx.Err()
}

func connectIdle(ctx context.Context, h *hub, n int, websocket bool) ([]*device, error) {
	p := newPool()
	devices := make([]*device, n)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for i := range next {
				d, err := p.connect(ctx, h, deviceName("device", i), websocket)
				if err == nil {
					devices[i] = d
					err = d.subscribe(filterMethods, filterDesired, filterAnswers)
				}
				if err != nil {
					cancel(fmt.Errorf("connection %d: %w; the hub printed: %s", i, err, strings.TrimSpace(h.printed())))
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	workers.Wait()
	return devices, context.Cause(ctx)
}
