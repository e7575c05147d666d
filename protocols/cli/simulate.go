package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/simulator"
)

type simulateCmd struct {
	HubFlags
	OutputFlags
	Devices   int           `help:"How many devices." default:"100"`
	Transport string        `help:"ws (MQTT over WebSocket) or mqtts." enum:"ws,mqtts" default:"mqtts"`
	Behaviour string        `help:"Name of a built-in behaviour, or a YAML file." default:"steady" placeholder:"NAME|FILE"`
	Seed      uint64        `help:"Same seed, same spread of times." default:"1"`
	AckLog    string        `help:"Append what the hub acknowledged to this file, for muster verify --acks." placeholder:"FILE"`
	Commands  string        `name:"command-log" help:"Append each command that a managed device took to this file." placeholder:"FILE"`
	Prefix    string        `help:"Begins the devices' ids." default:"sim-"`
	Duration  time.Duration `help:"End after this time; 0 runs until Ctrl-C." default:"0s"`
	Spread    time.Duration `help:"Time over which the devices start; 0 takes 4 ms each." default:"0s"`
	Rate      float64       `help:"Messages per second of the whole fleet, instead of the behaviour's interval." default:"0"`
	Quiet     bool          `help:"Print no status lines."`
	Force     bool          `help:"Start although devices of the prefix are connected already."`
	Clean     bool          `help:"Remove the identities that runs with this --prefix have made, instead of a run."`
	Yes       bool          `short:"y" help:"Don't ask, with --clean."`
	List      bool          `help:"List the built-in behaviours."`
	Show      string        `help:"Print a behaviour." placeholder:"NAME"`
}

// Run runs a fleet and reports.
func (c *simulateCmd) Run(a *app) error {
	if c.List {
		return c.list(a)
	}
	if c.Show != "" {
		text, err := simulator.BehaviourText(c.Show)
		if err != nil {
			return usage(err.Error(), "`muster simulate --list` shows the names.")
		}
		_, err = a.io.Out.Write(text)
		return err
	}
	if c.Clean {
		return c.clean(a)
	}
	b, err := c.behaviour()
	if err != nil {
		return err
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	return c.simulate(a, s, b)
}

// clean removes what runs with the prefix have made.
func (c *simulateCmd) clean(a *app) error {
	if c.Prefix == "" {
		return usage("--prefix is empty", "Leave it out, or give the one that the run had.")
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := a.confirm(c.Yes, "Delete the devices whose id begins with "+printable(c.Prefix)+" and whose tags say "+simulator.LoadTag+"?"); err != nil {
		return err
	}
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	return a.clean(ctx, s, c.Prefix, simulator.LoadTag)
}

func (c *simulateCmd) list(a *app) error {
	sh := &sheet{columns: []string{"NAME", "DESCRIPTION"}}
	for _, name := range simulator.BehaviourNames() {
		text, err := simulator.BehaviourText(name)
		if err != nil {
			return err
		}
		b, err := simulator.ParseBehaviour(text)
		if err != nil {
			return err
		}
		sh.add(map[string]string{"name": name, "description": b.Description}, name, b.Description)
	}
	return a.print(c.OutputFlags, sh)
}

func (c *simulateCmd) behaviour() (simulator.Behaviour, error) {
	var none simulator.Behaviour
	if c.Devices < 1 || c.Devices > 100_000 {
		return none, usage(fmt.Sprintf("--devices is %d", c.Devices), "Give 1 to 100000.")
	}
	if c.Rate < 0 || c.Duration < 0 || c.Spread < 0 || c.Prefix == "" {
		return none, usage("--rate, --duration and --spread must not be negative, nor --prefix empty", "Leave them out for the defaults.")
	}
	text, err := simulator.BehaviourText(c.Behaviour)
	if err != nil {
		return none, usage(err.Error(), "`muster simulate --list` shows the built-in ones.")
	}
	b, err := simulator.ParseBehaviour(text)
	if err != nil {
		return none, usage("the behaviour "+c.Behaviour+" is not valid: "+err.Error(), "`muster simulate --show steady` shows one.")
	}
	if c.Rate > 0 {
		b.Interval = max(time.Duration(float64(c.Devices)/c.Rate*float64(time.Second)), time.Millisecond)
	}
	return b, nil
}

func (c *simulateCmd) simulate(a *app, s *client.Service, b simulator.Behaviour) (err error) {
	ctx, stop := a.with(HubFlags{Timeout: 5 * time.Minute})
	defer stop()
	hub, err := s.Hub(ctx)
	if err != nil {
		return err
	}
	o := simulator.LoadOptions{
		Service: s, Hub: hub.Name, Transport: client.MQTT, Address: dialAddress(hub, "mqtts", c.Hub != ""),
		Prefix: c.Prefix, Devices: c.Devices, Seed: c.Seed, Spread: c.Spread, Behaviour: b,
	}
	o.HTTPS = dialAddress(hub, "https", c.Hub != "")
	if c.Transport == "ws" {
		o.Transport, o.Address = client.WebSocket, o.HTTPS
	}
	if o.Spread == 0 {
		o.Spread = time.Duration(c.Devices) * 4 * time.Millisecond
	}
	if c.Hub == "" {
		o.RootCAs, err = localCA(c.HubFlags)
	} else {
		o.RootCAs, err = loadCA(c.CA)
	}
	if err != nil {
		return err
	}
	if c.AckLog != "" {
		if o.Acks, err = simulator.OpenAckLog(c.AckLog); err != nil {
			return &problem{exit: ExitUsage, what: "the acknowledgement log cannot be opened", why: pathError(err), next: "Give a file that you can write with --ack-log."}
		}
		defer func() { err = errors.Join(err, o.Acks.Close()) }()
	}
	if c.Commands != "" {
		if o.Commands, err = simulator.OpenCommandLog(c.Commands); err != nil {
			return &problem{exit: ExitUsage, what: "the command log cannot be opened", why: pathError(err), next: "Give a file that you can write with --command-log."}
		}
		defer func() { err = errors.Join(err, o.Commands.Close()) }()
	}
	load, err := simulator.NewLoad(o)
	if err != nil {
		return &problem{exit: ExitConnect, what: "the devices cannot connect", why: err.Error(), next: "Start the hub with the listener of --transport."}
	}
	made, err := c.prepare(ctx, load)
	if err != nil {
		return err
	}
	a.note("%d devices, %d identities made, by %s at %s.", c.Devices, made, c.Transport, o.Address)
	cohorts := load.Cohorts()
	for i := range b.Cohorts {
		name := b.Cohorts[i].Name
		a.note("  %d of them are %s.", len(cohorts[name]), printable(name))
	}
	c.watch(a, load)
	if err := c.print(a, load.Report()); err != nil {
		return err
	}
	if !c.Quiet {
		a.note("The identities stay for the next run; `muster simulate --clean%s` removes them.", c.otherPrefix())
	}
	return nil
}

// otherPrefix is the flag that names the run's devices; empty for the usual ones.
func (c *simulateCmd) otherPrefix() string {
	if c.Prefix == "sim-" {
		return ""
	}
	return " --prefix " + shellWord(printable(c.Prefix))
}

// prepare makes the identities. Two runs with the same devices would take each
// other's connections over for ever; one that was stopped a moment ago may still
// be leaving, and is waited for.
func (c *simulateCmd) prepare(ctx context.Context, load *simulator.Load) (made int, err error) {
	made, err = load.Prepare(ctx)
	others := func() bool { return load.Connected() > 0 && !c.Force }
	for wait := demoLeaves; err == nil && others() && wait > 0; wait -= demoLook {
		select {
		case <-ctx.Done():
			return made, ctx.Err()
		case <-time.After(demoLook):
		}
		_, err = load.Prepare(ctx)
	}
	if err == nil && others() {
		err = &problem{
			exit: ExitConflict, what: fmt.Sprintf("%d of the devices are connected already", load.Connected()),
			why: "two runs with the same ids would take each other's connections over", next: "Give another --prefix, stop the other `muster simulate`, or add --force.",
		}
	}
	return made, err
}

// tellFight says once that another run has the same devices; it began at the
// same moment, or with --force.
func (c *simulateCmd) tellFight(a *app, load *simulator.Load, told *bool) {
	if *told || load.Report().Reconnects == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(a.ctx), 2*time.Second)
	defer stop()
	if fought, err := load.Fought(ctx); err == nil && fought { // a hub that is away is told elsewhere
		*told = true
		a.note("Another program connects as the same devices, so that they lose their connections again and again: stop it, or give one of the two another --prefix.")
	}
}

// collectAt is the growth of the heap in percent at which garbage is collected:
// thousands of connections hold little each, and the handshakes of a fleet that
// comes back leave a lot behind.
const collectAt = 50

// watch runs the load, with a status line on standard error.
func (c *simulateCmd) watch(a *app, load *simulator.Load) {
	if a.io.Env("GOGC") == "" { // else whoever starts it knows better
		defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	}
	ctx, stop := context.WithCancel(a.ctx)
	if c.Duration > 0 {
		ctx, stop = context.WithTimeout(a.ctx, c.Duration)
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() {
		if err := load.Run(ctx); ctx.Err() == nil {
			a.note("%v", err)
			stop()
		}
	})
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-tick.C:
			c.tellFight(a, load, &told)
			if r := load.Report(); !c.Quiet {
				a.note("  online %d of %d  messages %d  twin patches %d  methods %d  reconnects %d  unanswered %d",
					r.Online, r.Devices, r.Messages, r.TwinPatches, r.Methods, r.Reconnects, r.Unknown)
			}
		case <-ctx.Done():
			c.tellFight(a, load, &told)
			return
		}
	}
}

func (c *simulateCmd) print(a *app, r simulator.LoadReport) error {
	fields := []field{
		{"Devices", r.Devices}, {"Online at the end", r.Online}, {"Connects", r.Connects}, {"Reconnects", r.Reconnects},
		{"Time to return", fmt.Sprintf("p50 %d ms, p99 %d ms, max %d ms", r.ReturnP50, r.ReturnP99, r.ReturnMax)},
		{"Messages", r.Messages}, {"Twin patches", r.TwinPatches}, {"Methods", r.Methods}, {"Unanswered", r.Unknown},
	}
	for _, reason := range slices.Sorted(maps.Keys(r.ErrorReasons)) {
		fields = append(fields, field{"Error: " + reason, r.ErrorReasons[reason]})
	}
	return a.printRecord(c.OutputFlags, r, fields)
}
