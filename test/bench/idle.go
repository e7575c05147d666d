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

const (
	// The bare server takes its turns between those of the hub, since the machine
	// is seldom as fast as it was a moment ago.
	bareTurns   = 10
	bareAccepts = 300 // in each; its first turn, when it is cold, is not counted

	judged = 60 // seconds after the last connect
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
	beside, err := startBare(ctx, h)
	if err != nil {
		return err
	}
	defer beside.stop()
	before, err := memoryOf(h.pid())
	if err != nil {
		return err
	}
	cpu, err := cpuOf(h.pid())
	if err != nil {
		return err
	}
	began := time.Now()
	devices, bare, err := connectIdle(ctx, h, beside, *n, !*plain)
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
	each := float64((after - cpu).Microseconds()) / float64(*n)
	fmt.Fprintf(stdout, "%d %s connections in %.1f s (both ends on this machine, and the bare server's turns); hub: %.0f us of CPU for each (TLS handshake, CONNECT, 3 subscriptions stored)\n",
		*n, kind, took.Seconds(), each)
	fmt.Fprintf(stdout, "bare crypto/tls server in between, the same certificate: %d us of CPU for each of %d accepts\n", bare.Microseconds(), bareTurns*bareAccepts)
	target(stdout, "CPU per accept, hub / bare TLS", each/float64(bare.Microseconds()), 1.7, false, "x")
	for _, wait := range []time.Duration{2, 30, 60, 120} {
		pause(ctx, wait*time.Second-time.Since(began.Add(took)))
		now, err := memoryOf(h.pid())
		if err != nil {
			return err
		}
		growth := func(a, b int64) float64 { return float64(b-a) / 1024 / float64(*n) }
		fmt.Fprintf(stdout, "after %3d s: resident %s (before %s), %.1f KiB a connection; anonymous %s (before %s), %.1f KiB a connection\n", int(wait),
			mib(now.resident), mib(before.resident), growth(before.resident, now.resident), mib(now.anonymous), mib(before.anonymous), growth(before.anonymous, now.anonymous))
		if wait == judged {
			target(stdout, "resident growth of a connection", growth(before.resident, now.resident), 24, false, "KiB")
		}
	}
	return ctx.Err()
}

// connectIdle connects n devices, and in turns with them clients of the bare
// server. It returns what one of those costs.
func connectIdle(ctx context.Context, h *hub, beside *bare, n int, websocket bool) ([]*device, time.Duration, error) {
	p := newPool()
	devices := make([]*device, n)
	if _, err := beside.perAccept(ctx, h, bareAccepts); err != nil {
		return devices, 0, err
	}
	var alone time.Duration
	for turn := range bareTurns {
		from, to := turn*n/bareTurns, (turn+1)*n/bareTurns
		err := inParallel(ctx, to-from, func(ctx context.Context, i int) error {
			d, err := p.connect(ctx, h, deviceName("device", from+i), websocket)
			if err != nil {
				return fmt.Errorf("%w; the hub printed: %s", err, strings.TrimSpace(h.printed()))
			}
			devices[from+i] = d
			return d.subscribe(filterMethods, filterDesired, filterAnswers)
		})
		if err != nil {
			return devices, 0, err
		}
		each, err := beside.perAccept(ctx, h, bareAccepts)
		if err != nil {
			return devices, 0, err
		}
		alone += each / bareTurns
	}
	return devices, alone, nil
}

// inParallel calls f for 0 to n-1, sixteen at a time, until one fails.
func inParallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(fmt.Errorf("connection %d: %w", i, err))
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}
