package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/wire"
)

const (
	operationTimeout = 20 * time.Second
	reportEvery      = 3 // messages between two reports of the changing properties
	maxLog           = 50
)

// Device is one simulated device. run owns it; what methods touch from other
// goroutines is behind mu.
type Device struct {
	profile     profile
	fleet       *Fleet
	credentials auth.ConnectionString
	transport   client.Transport
	address     string
	buffers     *wire.Buffers

	mu       sync.Mutex
	rng      *rand.Rand
	interval time.Duration
	state    state
	log      []string
}

// state is what changes in a device's life.
type state struct {
	booted      time.Time
	boots       int
	boot        boot
	battery     float64 // percent
	temperature float64 // degrees Celsius
	rssi        float64 // dBm
	firmware    string
	desired     int64 // $version that was acted upon
	messages    int
}

// boot is what a device reports of its last start. Its count only grows, also
// through a factory reset.
type boot struct {
	Count  int    `json:"count"`
	Reason string `json:"reason"`
}

// order is something that a method or a desired property wants done by the
// session's own goroutine.
type order struct {
	desired json.RawMessage // a patch to follow
	version int64
	reboot  time.Duration // how long to stay away; 0 = no reboot
	reset   bool          // wipe the reported properties first
	id      string        // of the command that wants it reset
	report  map[string]any
}

// absence is how a session ended: how long the device stays away, and why it
// boots when it comes back; empty when only the network was lost.
type absence struct {
	time   time.Duration
	reboot string
}

// run is the device's life: sessions with absences between them.
func (d *Device) run(ctx context.Context) {
	d.mu.Lock()
	d.state.battery = 60 + 40*d.rng.Float64()
	d.state.temperature, d.state.rssi = d.profile.warm, -50-25*d.rng.Float64()
	d.state.firmware = currentFirmware
	switch d.profile.trouble {
	case OldFirmware:
		d.state.firmware = oldFirmware
	case Cold:
		d.state.temperature, d.state.battery = -19, 15+20*d.rng.Float64()
	}
	d.mu.Unlock()
	d.boot("power on")
	for ctx.Err() == nil {
		a := d.session(ctx)
		if a.time == 0 {
			continue
		}
		d.fleet.totals.away.Add(1)
		wait(ctx, a.time)
		d.fleet.totals.away.Add(-1)
		if a.reboot != "" {
			d.boot(a.reboot)
		}
	}
}

func (d *Device) boot(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.booted = time.Now()
	d.state.boots++
	d.state.boot = boot{d.state.boot.Count + 1, why}
	d.noteLocked("boot " + fmt.Sprint(d.state.boots) + ": " + why + ", firmware " + d.state.firmware)
}

func (d *Device) noteLocked(text string) {
	d.log = append(d.log, time.Now().UTC().Format(time.RFC3339)+" "+text)
	if len(d.log) > maxLog {
		d.log = d.log[len(d.log)-maxLog:]
	}
}

// span is a duration of the story: between least and most seconds.
func (d *Device) span(least, most float64) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := least + (most-least)*d.rng.Float64()
	if d.fleet.o.Shortened {
		s /= 10
	}
	return time.Duration(s * float64(time.Second))
}

// session connects and lives until ctx ends or the device goes away.
func (d *Device) session(ctx context.Context) absence {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	orders := make(chan order, 16)
	c, err := client.NewDevice(client.DeviceOptions{
		ConnectionString: d.credentials, Transport: d.transport, Address: d.address,
		RootCAs: d.fleet.o.RootCAs, Buffers: d.buffers, Product: "muster-simulator/" + d.profile.model,
		ModelID: "dtmi:muster:demo:" + d.profile.kind + ";1",
		OnDesired: func(version int64, patch json.RawMessage) {
			give(orders, order{desired: patch, version: version})
		},
		OnMethod: func(ctx context.Context, name string, payload json.RawMessage) (int, any) {
			d.fleet.totals.methods.Add(1)
			return d.method(ctx, orders, name, payload)
		},
		OnState: d.counter(),
		Logger:  d.fleet.o.Logger,
	})
	if err != nil {
		d.fleet.totals.failures.Add(1)
		d.fleet.o.Logger.Error("simulated device cannot start", "device", d.profile.id, "error", err)
		<-ctx.Done()
		return absence{}
	}
	var work sync.WaitGroup
	work.Go(func() { _ = c.Run(ctx) }) // ends with ctx, which is what it returns
	away := d.live(ctx, c, orders)
	stop()
	work.Wait()
	return away
}

// give hands an order over; a device that is too busy loses it, as real ones do.
func give(orders chan<- order, o order) bool {
	select {
	case orders <- o:
		return true
	default:
		return false
	}
}

// counter returns a callback that keeps the fleet's counts of connections. It
// belongs to one session, whose Run calls it from one goroutine.
func (d *Device) counter() func(connected bool, err error) {
	t, up := &d.fleet.totals, false
	return func(connected bool, err error) {
		_, refused := errors.AsType[*client.RefusedError](err)
		switch {
		case connected:
			t.connects.Add(1)
			t.online.Add(1)
		case up:
			t.online.Add(-1)
		case refused:
			t.refused.Add(1)
		default:
			t.failures.Add(1)
		}
		up = connected
	}
}

// live is the connected part of a session.
func (d *Device) live(ctx context.Context, c *client.Device, orders chan order) absence {
	if !d.start(ctx, c, orders) {
		return absence{time: d.span(1, 3)}
	}
	d.mu.Lock()
	interval := d.interval
	d.mu.Unlock()
	tick := time.NewTimer(d.span(0, interval.Seconds()))
	defer tick.Stop()
	var drop <-chan time.Time
	if d.profile.trouble == Flaky {
		t := time.NewTimer(d.span(20, 60))
		defer t.Stop()
		drop = t.C
	}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return absence{}
		case <-drop:
			d.mu.Lock()
			d.noteLocked("network lost")
			d.mu.Unlock()
			c.Drop()
			return absence{time: d.span(5, 15)}
		case o := <-orders:
			if a := d.obey(ctx, c, o); a.time > 0 {
				return a
			}
		case <-tick.C:
			d.step()
			d.send(ctx, c)
			if n%reportEvery == 0 {
				d.report(ctx, c, d.changing())
			}
			d.mu.Lock()
			interval = d.interval
			d.mu.Unlock()
			tick.Reset(interval)
		}
	}
}

// start waits for the connection, reads the twin, reports what the device is,
// and orders itself to follow desired properties that changed meanwhile.
func (d *Device) start(ctx context.Context, c *client.Device, orders chan order) bool {
	if err := c.WaitConnected(ctx); err != nil {
		return false
	}
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	t, err := c.Twin(octx)
	if err != nil {
		d.failed(ctx, "read twin", err)
		return false
	}
	d.report(ctx, c, d.all())
	var v struct {
		Version int64 `json:"$version"`
	}
	if json.Unmarshal(t.Desired, &v) == nil {
		give(orders, order{desired: t.Desired, version: v.Version})
	}
	return true
}

func (d *Device) failed(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	d.fleet.totals.failures.Add(1)
	d.fleet.o.Logger.Debug("simulated device", "device", d.profile.id, "operation", what, "error", err)
}

// step lets time pass in the device.
func (d *Device) step() {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.state
	s.messages++
	home, drain := d.profile.warm, 0.01
	if d.profile.trouble == Cold {
		home, drain = -19, 0.05
	}
	s.temperature += 0.2*(home-s.temperature) + d.rng.NormFloat64()*0.3
	s.rssi = math.Max(-92, math.Min(-45, s.rssi+d.rng.NormFloat64()))
	if s.battery -= drain * d.rng.Float64(); s.battery < 3 {
		s.battery = 100 // somebody changed it
		d.noteLocked("battery changed")
	}
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// send sends one message with QoS 1.
func (d *Device) send(ctx context.Context, c *client.Device) {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	body, err := json.Marshal(map[string]any{
		"temperature": round(s.temperature), "battery": round(s.battery), "rssi": math.Round(s.rssi),
		"uptime": int(time.Since(s.booted).Seconds()), "seq": s.messages,
	})
	if err != nil {
		d.failed(ctx, "encode message", err)
		return
	}
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	properties := map[string]string{"kind": d.profile.kind}
	if s.battery < 20 {
		properties["alert"] = "battery"
	}
	err = c.Send(octx, client.Message{Body: body, ContentType: "application/json", Encoding: "utf-8", Properties: properties, QoS: 1})
	if err != nil {
		d.failed(ctx, "send message", err)
		return
	}
	d.fleet.totals.messages.Add(1)
}

func (d *Device) report(ctx context.Context, c *client.Device, patch map[string]any) {
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	if _, err := c.PatchReported(octx, patch); err != nil {
		d.failed(ctx, "report properties", err)
		return
	}
	d.fleet.totals.twins.Add(1)
}

// changing are the reported properties that move.
func (d *Device) changing() map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.state
	return map[string]any{
		"battery": round(s.battery), "temperature": round(s.temperature), "rssi": math.Round(s.rssi),
		"uptime": int(time.Since(s.booted).Seconds()),
	}
}

// all are the reported properties of a device that has started.
func (d *Device) all() map[string]any {
	m := d.changing()
	d.mu.Lock()
	defer d.mu.Unlock()
	m["firmware"] = map[string]any{"version": d.state.firmware}
	m["deviceInfo"] = map[string]any{"manufacturer": "Muster Demo", "model": d.profile.model, "serialNumber": d.profile.serial}
	m["boots"] = d.state.boots
	m["boot"] = d.state.boot
	m["lastBoot"] = d.state.booted.UTC().Format(time.RFC3339)
	m["transport"] = string(d.transport)
	return m
}
