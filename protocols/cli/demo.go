package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/simulator"
)

type demoGroup struct {
	Start demoStartCmd `cmd:"" default:"withargs" help:"Connect fifty simulated devices and keep them going until Ctrl-C."`
	Clean demoCleanCmd `cmd:"" help:"Remove the demo's devices."`
}

type demoStartCmd struct {
	HubFlags
	Devices      int           `help:"How many devices." default:"50"`
	Seed         uint64        `help:"Same seed, same course of values." default:"1"`
	Interval     time.Duration `help:"Time between two messages of a device." default:"2s"`
	Duration     time.Duration `help:"End after this time; 0 runs until Ctrl-C." default:"0s"`
	HTTPSAddress string        `name:"https-address" help:"Where the devices reach WebSocket; the hub tells it by default." placeholder:"ADDR"`
	MQTTSAddress string        `name:"mqtts-address" help:"Where the devices reach MQTT over TLS; the hub tells it by default." placeholder:"ADDR"`
	Force        bool          `help:"Start although the demo's devices are connected already."`
	Quiet        bool          `help:"Print no status lines."`
}

// Run runs the demo.
func (c *demoStartCmd) Run(a *app) error {
	if c.Devices < 1 || c.Devices > 10000 {
		return usage(fmt.Sprintf("--devices is %d", c.Devices), "Give 1 to 10000.")
	}
	if c.Interval < 10*time.Millisecond {
		return usage(fmt.Sprintf("--interval is %s", c.Interval), "Give 10ms or more.")
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	fleet, err := c.fleet(a, s)
	if err != nil {
		return err
	}
	ctx, stop := a.with(HubFlags{Timeout: 5 * time.Minute})
	defer stop()
	began := time.Now()
	made, err := fleet.Prepare(ctx)
	others := func() bool { return made.Connected > c.Devices/2 && !c.Force }
	for wait := demoLeaves; err == nil && others() && wait > 0; wait -= demoLook {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(demoLook):
		}
		made, err = fleet.Prepare(ctx)
	}
	if err != nil {
		return err
	}
	if others() {
		return &problem{
			exit: ExitConflict, what: fmt.Sprintf("%d of the demo's devices are connected already", made.Connected),
			why: "two demos would take each other's connections over", next: "Stop the other `muster demo`, or add --force.",
		}
	}
	a.printf("  made %d identities, found %d       %d ms\n", made.Created, made.Existing, time.Since(began).Milliseconds())
	a.printf("  starting %d simulated devices     %s\n\n", fleet.Stats().Devices, story(fleet.Story()))
	a.printf("  Try:  muster device list --prefix %s --limit 10\n", simulator.DefaultPrefix)
	a.printf("        muster twin show demo-pump-001\n")
	a.printf("        muster twin patch demo-pump-001 desired.telemetryInterval=5\n")
	a.printf("        muster method invoke demo-pump-001 reboot\n")
	a.printf("  Ctrl-C stops the devices; `muster demo clean` removes them.\n\n")
	return c.watch(a, fleet)
}

// A demo that was stopped a moment ago may still be leaving: a new one waits for it.
const (
	demoLeaves = 2 * time.Second
	demoLook   = 100 * time.Millisecond
)

// printf writes to standard output; when it is gone the next status line says
// so.
func (a *app) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.io.Out, format, args...)
}

// fleet finds out where the devices connect to.
func (c *demoStartCmd) fleet(a *app, s *client.Service) (*simulator.Fleet, error) {
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	hub, err := s.Hub(ctx)
	if err != nil {
		return nil, err
	}
	a.printf("Hub %s by %s\n", hub.Name, s.Target())
	o := simulator.Options{
		Service: s, Hub: hub.Name, Devices: c.Devices, Seed: c.Seed, Interval: c.Interval,
		MQTTS: c.MQTTSAddress, HTTPS: c.HTTPSAddress,
	}
	if c.Hub == "" {
		o.RootCAs, err = localCA(c.HubFlags)
	} else {
		o.RootCAs, err = loadCA(c.CA)
	}
	if err != nil {
		return nil, err
	}
	if o.MQTTS == "" && o.HTTPS == "" {
		o.MQTTS = dialAddress(hub, "mqtts", c.Hub != "")
		o.HTTPS = dialAddress(hub, "https", c.Hub != "")
	}
	f, err := simulator.NewFleet(o)
	if err != nil {
		return nil, &problem{exit: ExitConnect, what: "the devices have nowhere to connect to", why: err.Error(), next: "Start the hub with --mqtts or --https, or give --mqtts-address or --https-address."}
	}
	return f, nil
}

// dialAddress is where to reach the hub's first listener of a kind; a remote
// hub is dialled by its name.
func dialAddress(hub client.HubInfo, kind string, remote bool) string {
	for _, l := range hub.Listeners {
		if l.Kind != kind {
			continue
		}
		if !remote {
			return loopback(l.Address)
		}
		if _, port, err := net.SplitHostPort(l.Address); err == nil {
			return net.JoinHostPort(hub.Name, port)
		}
	}
	return ""
}

func story(m map[simulator.Trouble]int) string {
	text := ""
	for _, t := range []simulator.Trouble{simulator.Cold, simulator.Flaky, simulator.Slow, simulator.OldFirmware, simulator.Steady} {
		if m[t] == 0 {
			continue
		}
		if text != "" {
			text += ", "
		}
		name := string(t)
		if t == simulator.OldFirmware {
			name = "with old firmware"
		}
		text += fmt.Sprintf("%d %s", m[t], name)
	}
	return text
}

// watch runs the fleet and shows what it does: one line that is rewritten on
// a terminal, a line every five seconds elsewhere.
func (c *demoStartCmd) watch(a *app, fleet *simulator.Fleet) error {
	ctx, stop := context.WithCancel(a.ctx)
	if c.Duration > 0 {
		ctx, stop = context.WithTimeout(a.ctx, c.Duration)
	}
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { _ = fleet.Run(ctx) }) // ends with ctx, which is what it returns
	live := a.width > 0
	every := 5 * time.Second
	if live {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	began, lastTime, last := time.Now(), time.Now(), fleet.Stats()
	for {
		select {
		case now := <-tick.C:
			s := fleet.Stats()
			line := statusLine(s, last, now.Sub(lastTime), now.Sub(began))
			lastTime, last = now, s
			if c.Quiet {
				continue
			}
			if err := a.showLine(line, live); err != nil {
				return err
			}
		case <-ctx.Done():
			s := fleet.Stats()
			if live && !c.Quiet {
				a.printf("\n")
			}
			a.printf("  stopped after %s: %d messages, %d twin updates, %d methods\n", since(time.Since(began)), s.Messages, s.TwinUpdates, s.Methods)
			return nil
		}
	}
}

func (a *app) showLine(line string, live bool) error {
	text := line + "\n"
	if live {
		text = "\r" + cut(line, a.width-1) + "\x1b[K"
	}
	if _, err := io.WriteString(a.io.Out, text); err != nil {
		return errors.Join(errors.New("show the status"), err)
	}
	return nil
}

// statusLine says what the fleet does, with rates over the last span.
func statusLine(s, last simulator.Stats, span, total time.Duration) string {
	rate := func(now, before int64) float64 { return float64(now-before) / max(span.Seconds(), 0.001) }
	line := fmt.Sprintf("  %s  devices %d  online %d  telemetry %.0f/s  twin updates %.0f/s  methods %d",
		since(total), s.Devices, s.Online, rate(s.Messages, last.Messages), rate(s.TwinUpdates, last.TwinUpdates), s.Methods)
	if s.Away > 0 {
		line += fmt.Sprintf("  away %d", s.Away)
	}
	if n := s.Refused - last.Refused; n > 0 {
		line += fmt.Sprintf("  refused %d", n)
	}
	if n := s.Failures - last.Failures; n > 0 {
		line += fmt.Sprintf("  failures %d", n)
	}
	return line
}

type demoCleanCmd struct {
	HubFlags
	Yes bool `short:"y" help:"Don't ask."`
}

// Run removes the demo's devices.
func (c *demoCleanCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := a.confirm(c.Yes, "Delete the devices whose id begins with "+simulator.DefaultPrefix+" and whose tags say demo?"); err != nil {
		return err
	}
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	return a.clean(ctx, s, simulator.DefaultPrefix, simulator.DemoTag)
}

// clean removes simulated devices, and tells every five seconds how far it is.
func (a *app) clean(ctx context.Context, s *client.Service, prefix, tag string) error {
	told := time.Now()
	n, err := simulator.Clean(ctx, s, prefix, tag, func(removed, all int) {
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			a.note("  removed %d of %d", removed, all)
		}
	})
	if err != nil {
		return err
	}
	a.note("Removed %d devices.", n)
	return nil
}
