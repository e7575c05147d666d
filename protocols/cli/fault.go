package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type faultGroup struct {
	Add    faultAddCmd    `cmd:"" help:"Lose, delay or cut what goes over a device's connection, for a while."`
	List   faultListCmd   `cmd:"" help:"List the injected faults."`
	Remove faultRemoveCmd `cmd:"" help:"End an injected fault."`
}

type faultAddCmd struct {
	HubFlags
	OutputFlags
	Drop            string        `help:"Share of messages lost in each direction, such as 10%; of requests over HTTPS." default:"0%" placeholder:"PERCENT"`
	Delay           time.Duration `help:"How long what the device sends is held back, up to 30s." default:"0s"`
	DisconnectEvery time.Duration `help:"How old an MQTT connection gets before it is cut." default:"0s"`
	For             time.Duration `help:"How long the fault lasts, up to 24h." default:"10m"`
	ID              string        `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run adds a fault.
func (c *faultAddCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	percent, ok := strings.CutSuffix(c.Drop, "%")
	drop, err := strconv.ParseFloat(percent, 64)
	if !ok || err != nil || !(drop >= 0 && drop <= 100) {
		return usage("--drop "+strconv.Quote(c.Drop)+" is not a share", "Give a number with a percent sign, such as --drop 10%.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	f, err := s.AddFault(ctx, client.Fault{
		DeviceID: device, ModuleID: module, Drop: drop / 100, Delay: c.Delay.Seconds(), DisconnectEvery: c.DisconnectEvery.Seconds(), For: c.For.Seconds(),
	})
	if err != nil {
		return err
	}
	return a.printFaults(c.OutputFlags, f)
}

func (a *app) printFaults(o OutputFlags, list ...client.Fault) error {
	sh := &sheet{columns: []string{"FOR", "DROP", "DELAY", "DISCONNECT EVERY", "EXPIRES", "BY"}, empty: "No fault is injected."}
	span := func(seconds float64) string { return time.Duration(seconds * float64(time.Second)).String() }
	for _, f := range list {
		id := f.DeviceID
		if f.ModuleID != "" {
			id += "/" + f.ModuleID
		}
		sh.add(f, id, strconv.FormatFloat(f.Drop*100, 'g', 4, 64)+"%", span(f.Delay), span(f.DisconnectEvery), f.Expires, f.Principal)
	}
	return a.print(o, sh)
}

type faultListCmd struct {
	HubFlags
	OutputFlags
}

// Run lists the faults.
func (c *faultListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	var list []client.Fault
	for f, err := range s.Faults(ctx) {
		if err != nil {
			return err
		}
		list = append(list, f)
	}
	return a.printFaults(c.OutputFlags, list...)
}

type faultRemoveCmd struct {
	HubFlags
	ID string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run ends a fault.
func (c *faultRemoveCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	return s.RemoveFault(ctx, device, module)
}

// noteFault says when a device's connection is bad on purpose, so that nobody
// looks for another cause. Who may not list faults is told nothing.
func (a *app) noteFault(ctx context.Context, s *client.Service, id string) {
	for f, err := range s.Faults(ctx) {
		if err != nil {
			return
		}
		if f.DeviceID == id {
			a.note("A fault is injected into the connection of %s until %s: `muster fault list` shows it.", printable(id), a.cell(f.Expires))
			return
		}
	}
}
