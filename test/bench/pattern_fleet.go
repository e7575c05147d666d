package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/protocols/wire"
)

// rebootSource is the procedure that the plain program has, too.
const rebootSource = `
return pattern {
  name = "bench-reboot", version = "1.0.0", title = "Reboot", needs = { "method:reboot", "twin:read" },
  run = function(dev, p, ctx)
    local before = dev:get("reported.boot.count", 0)
    ctx:phase("asking")
    dev:call("reboot", { delay = 0 }, { timeout = "2m", online = "2m" })
    ctx:phase("rebooting")
    local after = dev:wait("connected and reported.boot.count > before", { before = before, timeout = "5m" })
    return { boots = after.boot.count }
  end,
}`

// fleet measures a procedure over connected devices: as a pattern, started by one
// job, and as a program in plain Go that takes the same steps through REST.
func (o *patternOptions) fleet(ctx context.Context, h *hub, stdout io.Writer) error {
	q, err := o.prepare(ctx, h, o.devices, rebootSource)
	if err != nil {
		return err
	}
	defer q.close()
	f, err := o.bootFleet(ctx, h)
	defer f.close()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d devices answer at once; they connect anew: %t\n%-34s %10s %12s\n", o.devices, o.reconnect, "round", "seconds", "devices/s")
	boots, all := 0, map[string][]float64{}
	for range o.rounds {
		for _, m := range []struct {
			name string
			run  func(context.Context, *queryHub) error
		}{{"plain Go through REST", o.plainReboots}, {"pattern, one job", o.patternReboots}} {
			began := time.Now()
			if err := errors.Join(m.run(ctx, q), f.failure()); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			took := time.Since(began).Seconds()
			boots++
			n, err := q.count(ctx, fmt.Sprintf("properties.reported.boot.count = %d", boots))
			if err == nil && n != o.devices {
				err = fmt.Errorf("%d devices rebooted %d times, not %d", n, boots, o.devices)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			all[m.name] = append(all[m.name], took)
			fmt.Fprintf(stdout, "%-34s %10.1f %12.0f\n", m.name, took, float64(o.devices)/took)
			pause(ctx, time.Second)
		}
	}
	middle := func(name string) float64 {
		list := slices.Sorted(slices.Values(all[name]))
		return list[(len(list)-1)/2]
	}
	fmt.Fprintf(stdout, "\ntargets, medians of %d\n", o.rounds)
	target(stdout, "pattern / plain Go, time", middle("pattern, one job")/middle("plain Go through REST"), 3, false, "times")
	return nil
}

func (o *patternOptions) patternReboots(ctx context.Context, q *queryHub) error {
	j, err := q.startJob(ctx, "true", map[string]any{"run": map[string]any{"pattern": "bench-reboot"}})
	if err == nil {
		_, err = q.awaitJob(ctx, j.ID, o.devices)
	}
	if err != nil {
		return errors.Join(err, errors.New(q.fault(ctx, "bench-reboot")))
	}
	return nil
}

// plainReboots takes the steps of rebootSource for every device, some at once.
func (o *patternOptions) plainReboots(ctx context.Context, q *queryHub) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var workers sync.WaitGroup
	for range o.clients {
		workers.Go(func() {
			for i := range next {
				if err := q.reboot(ctx, deviceName("device", i)); err != nil {
					cancel(fmt.Errorf("device %d: %w", i, err))
				}
			}
		})
	}
	for i := 0; i < o.devices && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// bootTwin is what is read of a twin.
type bootTwin struct {
	ConnectionState string
	Properties      struct {
		Reported struct{ Boot struct{ Count int } }
	}
}

func (q *queryHub) reboot(ctx context.Context, id string) error {
	const version = "?api-version=2021-04-12"
	var before, now bootTwin
	if err := q.into(ctx, &before, http.MethodGet, "/twins/"+id+version, nil); err != nil {
		return err
	}
	call := map[string]any{"methodName": "reboot", "payload": map[string]int{"delay": 0}, "responseTimeoutInSeconds": 120, "connectTimeoutInSeconds": 120}
	if _, err := q.post(ctx, "/twins/"+id+"/methods"+version, call); err != nil {
		return err
	}
	for wait := time.Now().Add(5 * time.Minute); ctx.Err() == nil; {
		if now = (bootTwin{}); time.Now().After(wait) {
			return errors.New("it has not come back")
		}
		if err := q.into(ctx, &now, http.MethodGet, "/twins/"+id+version, nil); err != nil {
			return err
		}
		if now.ConnectionState == "Connected" && now.Properties.Reported.Boot.Count > before.Properties.Reported.Boot.Count {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
	return ctx.Err()
}

// bootingFleet are devices that reboot when they are told to.
type bootingFleet struct {
	lives     sync.WaitGroup
	cancel    context.CancelFunc
	reconnect bool
	away      time.Duration

	mu      sync.Mutex
	streams map[string]*device
	failed  error
}

// bootFleet connects devices, each of which then lives until the fleet is closed.
func (o *patternOptions) bootFleet(ctx context.Context, h *hub) (*bootingFleet, error) {
	f := &bootingFleet{streams: map[string]*device{}, reconnect: o.reconnect, away: o.away}
	lives, cancel := context.WithCancel(ctx) // longer than the connecting
	f.cancel = cancel
	p := newPool()
	err := inParallel(ctx, o.devices, func(ctx context.Context, i int) error {
		d, err := f.connect(ctx, p, h, deviceName("device", i))
		if err != nil {
			return err
		}
		f.lives.Go(func() { f.live(lives, p, h, d) })
		return nil
	})
	return f, err
}

func (f *bootingFleet) connect(ctx context.Context, p *pool, h *hub, id string) (*device, error) {
	d, err := p.connect(ctx, h, id, false)
	if err != nil {
		return nil, err
	}
	if err := d.subscribe(filterMethods); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams[id] = d
	if ctx.Err() != nil { // the fleet was closed meanwhile
		_ = d.stream.Close()
	}
	return d, nil
}

func (f *bootingFleet) live(ctx context.Context, p *pool, h *hub, d *device) {
	for boots := 1; ; boots++ {
		err := d.untilCalled()
		if err == nil && f.reconnect {
			// A connection that is taken over is not read to its end: what was answered
			// must have arrived before.
			if err = d.flush(); err == nil {
				d.close()
				pause(ctx, f.away)
				d, err = f.connect(ctx, p, h, d.id)
			}
		}
		if err == nil {
			err = d.report(boots)
		}
		if err != nil {
			if ctx.Err() == nil {
				f.mu.Lock()
				f.failed = errors.Join(f.failed, err)
				f.mu.Unlock()
			}
			return
		}
	}
}

func (f *bootingFleet) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *bootingFleet) close() {
	f.cancel()
	f.mu.Lock()
	for _, d := range f.streams {
		_ = d.stream.Close()
	}
	f.mu.Unlock()
	f.lives.Wait()
}

// untilCalled answers the next direct method.
func (d *device) untilCalled() error {
	var p wire.Packet
	for {
		if err := d.reader.ReadPacket(&p); err != nil {
			return err
		}
		if p.Type != wire.TypePublish || !strings.HasPrefix(p.Topic, methodTopic) {
			continue // answers to reports
		}
		_, rid, ok := strings.Cut(p.Topic, "$rid=")
		if !ok {
			return fmt.Errorf("a method call without $rid: %s", p.Topic)
		}
		b, err := wire.AppendPublish(d.packet[:0], wire.Message{Topic: resultTopic + rid, Payload: []byte("{}")})
		if err != nil {
			return err
		}
		d.packet = b
		_, err = d.stream.Write(b)
		return err
	}
}

// flush waits until the hub has read what was written.
func (d *device) flush() error {
	if _, err := d.stream.Write(wire.AppendPingreq(nil)); err != nil {
		return err
	}
	var p wire.Packet
	for p.Type != wire.TypePingresp {
		if err := d.reader.ReadPacket(&p); err != nil {
			return err
		}
	}
	return nil
}

// report reports a boot, and does not wait for the answer.
func (d *device) report(boots int) error {
	d.rid++
	if d.mid++; d.mid == 0 {
		d.mid = 1
	}
	m := wire.Message{Topic: patchTopic + strconv.FormatUint(d.rid, 10), Payload: fmt.Appendf(nil, `{"boot":{"count":%d}}`, boots), QoS: 1, ID: d.mid}
	b, err := wire.AppendPublish(d.packet[:0], m)
	if err != nil {
		return err
	}
	d.packet = b
	_, err = d.stream.Write(b)
	return err
}
