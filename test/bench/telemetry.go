package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/wire"
)

// telemetryCommand measures messages at QoS 1 over TLS, each acknowledged by
// Muster when it is durable, and by Mosquitto when it has it in memory: it
// keeps nothing without subscribers, and syncs nothing.
func telemetryCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("telemetry", flag.ContinueOnError)
	o.flags(f)
	connections := f.Int("connections", 50, "device connections")
	window := f.Int("window", 20, "messages that a connection has under way")
	size := f.Int("bytes", 256, "bytes of a message's body")
	duration := f.Duration("duration", 20*time.Second, "length of one measurement")
	rounds := f.Int("rounds", 3, "how often each is measured; medians are shown")
	peer := f.Bool("mosquitto", true, "measure Mosquitto in the same rounds")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *connections < 1 || *window < 1 || *window > 1000 || *rounds < 1 {
		return errors.New("-connections and -rounds must be at least 1, -window 1 to 1000")
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
	if _, err := h.fill(ctx, "device", *connections, 2); err != nil {
		return err
	}
	load := messageLoad{connections: *connections, window: *window, body: []byte(randomText(*size)), duration: *duration}
	var m *mosquitto
	if *peer {
		if m, err = startMosquitto(ctx, h); err != nil {
			return err
		}
		defer m.stop()
		fmt.Fprintln(stdout, "peer: Mosquitto", m.version)
	}
	const heading = "server     connections  messages/s  us CPU/message  generator us CPU"
	show := func(r outcome) {
		fmt.Fprintf(stdout, "%-10s %11d %11.0f %15.1f %17v\n", r.Store, r.Writers, r.PerSecond, r.CPUMicros, r.Stats["generator_us_cpu"])
	}
	var hubs, peers []outcome
	fmt.Fprintln(stdout, heading)
	for range *rounds {
		syscall.Sync()
		r, err := load.run(ctx, h, "muster", h.pid())
		if err != nil {
			return err
		}
		hubs = append(hubs, r)
		show(r)
		if m == nil {
			continue
		}
		if r, err = load.run(ctx, m.as(h), "mosquitto", m.process.Process.Pid); err != nil {
			return err
		}
		peers = append(peers, r)
		show(r)
	}
	fmt.Fprintf(stdout, "\nmedians of %d\n%s\n", *rounds, heading)
	best := medianOf(hubs)
	show(best)
	if len(peers) > 0 {
		other := medianOf(peers)
		show(other)
		fmt.Fprintln(stdout, "\ntargets")
		target(stdout, "durable QoS 1 / Mosquitto's", best.PerSecond/other.PerSecond, 1, true, "x")
	}
	return nil
}

// messageLoad keeps a window of messages under way on each connection.
type messageLoad struct {
	connections, window int
	body                []byte
	duration            time.Duration
}

func (l messageLoad) run(ctx context.Context, h *hub, name string, pid int) (outcome, error) {
	o := outcome{Store: name, Writers: l.connections}
	p := newPool()
	devices := make([]*device, l.connections)
	defer func() {
		for _, d := range devices {
			if d != nil {
				d.close()
			}
		}
	}()
	for i := range devices {
		var err error
		if devices[i], err = p.connect(ctx, h, deviceName("device", i), false); err != nil {
			return o, err
		}
	}
	before, err := cpuOf(pid)
	if err != nil {
		return o, err
	}
	own, began := ownCPU(), time.Now()
	var total atomic.Int64
	errs := make([]error, len(devices))
	var all sync.WaitGroup
	for i, d := range devices {
		all.Go(func() {
			n, err := l.send(ctx, d, began.Add(l.duration))
			total.Add(int64(n))
			errs[i] = err
		})
	}
	all.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return o, err
	}
	after, err := cpuOf(pid)
	if err != nil {
		return o, err
	}
	count := float64(max(1, total.Load()))
	o.PerSecond = count / took.Seconds()
	o.CPUMicros = float64((after - before).Microseconds()) / count
	o.Stats = map[string]any{"generator_us_cpu": fmt.Sprintf("%.1f", float64((ownCPU()-own).Microseconds())/count)}
	return o, nil
}

// send publishes until then, and waits for what is under way. It returns how
// many messages were acknowledged, which must come in order.
func (l messageLoad) send(ctx context.Context, d *device, until time.Time) (acknowledged int, err error) {
	if err := d.stream.SetReadDeadline(until.Add(30 * time.Second)); err != nil {
		return 0, err
	}
	topic := "devices/" + d.id + "/messages/events/"
	var next, expected uint16 = 1, 1
	under, due := 0, l.window
	var p wire.Packet
	for {
		if ctx.Err() != nil {
			return acknowledged, ctx.Err()
		}
		if time.Now().After(until) {
			due = 0
		}
		b := d.packet[:0]
		for range due {
			if b, err = wire.AppendPublish(b, wire.Message{Topic: topic, Payload: l.body, QoS: 1, ID: next}); err != nil {
				return acknowledged, err
			}
			if next++; next == 0 {
				next = 1
			}
		}
		d.packet = b
		under += due
		if under == 0 {
			return acknowledged, nil
		}
		if due > 0 {
			if _, err := d.stream.Write(b); err != nil {
				return acknowledged, err
			}
		}
		due = 0
		for due == 0 {
			if err := d.reader.Fill(); err != nil {
				return acknowledged, fmt.Errorf("%s waits for PUBACK: %w", d.id, err)
			}
			for {
				ok, err := d.reader.Next(&p)
				if err != nil {
					return acknowledged, err
				}
				if !ok {
					break
				}
				if p.Type != wire.TypePuback || p.ID != expected {
					return acknowledged, fmt.Errorf("%s got %s %d, PUBACK %d was expected", d.id, strings.ToUpper(p.Type.String()), p.ID, expected)
				}
				if expected++; expected == 0 {
					expected = 1
				}
				due++
			}
		}
		acknowledged += due
		under -= due
	}
}
