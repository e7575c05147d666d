package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// liveOptions are the flags of the benchmark of live queries.
type liveOptions struct {
	hub         hubOptions
	devices     int
	connections int
	queries     int
	rounds      int
	duration    time.Duration
	form        string
	profiles    string
	other       string // a program whose hub has subscribers, too, instead of none
}

// liveSetting is what the queries ask.
type liveSetting struct {
	name, text string
	query      func(i, of int) string // of subscriber i
	events     func(of int) float64   // of all subscribers, by one update; nil when that depends on the values
	common     bool                   // what users have: the target is for these
}

// liveSites is how many sites the devices are in, and liveFloors how many
// floors. What is shown of a device changes with each update.
const (
	liveSites  = 100
	liveFloors = 10
	liveShown  = "SELECT deviceId, properties.reported.battery AS battery, properties.reported.uptime AS uptime FROM devices"
)

// liveSettings are the settings in the order in which they run. Batteries are
// at 10 to 99.
func liveSettings() []liveSetting {
	below := func(n int) string { return fmt.Sprintf("properties.reported.battery < %d", n) }
	site := func(i int) string { return fmt.Sprintf("tags.site = 'site-%03d'", i%liveSites) }
	events := func(each float64) func(of int) float64 { return func(of int) float64 { return each * float64(of) } }
	return []liveSetting{
		{"silent", "alarms that no update sets off", func(i, _ int) string {
			return liveShown + " WHERE " + below(-i)
		}, events(0), true},
		{"sites", "each follows a site: an update is an event of one of them", func(i, _ int) string {
			return liveShown + " WHERE " + site(i)
		}, events(1. / liveSites), true},
		{"mixed", "of a hundred, 60 follow a site, 20 what is low in a site, 15 what is low anywhere, 5 everything", func(i, of int) string {
			switch at := i * 100 / of; {
			case at < 60:
				return liveShown + " WHERE " + site(i)
			case at < 80:
				return liveShown + " WHERE " + site(i) + " AND " + below(20)
			case at < 95:
				return liveShown + " WHERE " + below(12+i%15)
			}
			return liveShown + " WHERE " + below(1000+i)
		}, nil, true},
		{"tenth", "each follows a floor: an update is an event of a tenth of them", func(i, _ int) string {
			return fmt.Sprintf("%s WHERE tags.floor = %d AND %s", liveShown, i%liveFloors, below(1000+i))
		}, events(1. / liveFloors), false},
		{"levels", "a level of the battery each: an update moves the device in, out, or within two thirds of them", func(i, _ int) string {
			return "SELECT properties.reported.battery AS battery FROM devices WHERE " + below(i)
		}, nil, false},
		{"all", "an update is an event of each of them", func(i, _ int) string {
			return liveShown + " WHERE " + below(1000+i)
		}, events(1), false},
		{"same", "all follow the same query, and an update is an event of it", func(int, int) string {
			return liveShown
		}, events(1), false},
	}
}

// liveCommand measures what live queries cost the updates of twins: devices
// report over MQTT as fast as two hubs take it, one without anybody who follows,
// and one with subscribers, in turns. What counts is the hub's processor time
// of an update: the load and the readers share the machine with it.
func liveCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o liveOptions
	f := flag.NewFlagSet("live", flag.ContinueOnError)
	o.hub.flags(f)
	f.IntVar(&o.devices, "devices", 10_000, "devices of each hub")
	f.IntVar(&o.connections, "connections", 256, "of them, devices that report")
	f.IntVar(&o.queries, "queries", 100, "live queries, each with a subscriber")
	f.IntVar(&o.rounds, "rounds", 3, "how often each setting is measured; medians count")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long the load of one measurement is")
	f.StringVar(&o.form, "form", "sse", "how subscribers read: sse, sse-gzip, websocket or websocket-deflate")
	f.StringVar(&o.other, "other", "", "another muster binary, of which the hub without subscribers is, which then has them, too: what a change of Muster makes of them")
	f.StringVar(&o.profiles, "profiles", "", "directory for a profile of the hub with subscribers in each setting")
	var names []string
	for _, s := range liveSettings() {
		names = append(names, s.name)
	}
	asked := f.String("settings", strings.Join(names, ","), "what the queries ask, each measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.rounds < 1 || o.queries < 1 || o.connections < 1 || o.connections > o.devices {
		return errors.New("-rounds, -queries and -connections must be at least 1, and -devices as many as -connections")
	}
	for name := range strings.SplitSeq(*asked, ",") {
		if !slices.Contains(names, name) {
			return fmt.Errorf("setting %q is not known, expected some of %s", name, strings.Join(names, ","))
		}
	}
	var hubs [2]*liveHub // without subscribers, and with them
	for i := range hubs {
		with := o.hub
		if i == 0 && o.other != "" {
			with.binary = o.other
		}
		h, err := o.open(ctx, with)
		if err != nil {
			return err
		}
		defer h.close()
		hubs[i] = h
	}
	fmt.Fprintln(stdout, "machine:", machine(filepath.Dir(hubs[0].hub.data)))
	fmt.Fprintf(stdout, "%d devices, %d of them report battery, uptime and temperature as fast as the hub takes it; %d live queries over TLS as %s\n",
		o.devices, o.connections, o.queries, o.form)
	fmt.Fprintln(stdout, "                       without               with     more  of one update")
	fmt.Fprintln(stdout, "setting    round  updates/s   us CPU  updates/s   us CPU   us CPU         events          bytes          reads  resets  missing  load us CPU")
	type figure struct {
		setting liveSetting
		rate    float64
	}
	var figures []figure
	for _, s := range liveSettings() {
		if !slices.Contains(strings.Split(*asked, ","), s.name) {
			continue
		}
		var without, with []float64
		for round := range o.rounds {
			a, b, err := o.round(ctx, hubs, s, round)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			without, with = append(without, a.each(a.cpu)), append(with, b.each(b.cpu))
			fmt.Fprintf(stdout, "%-8s %7d %9.0f %8.1f %9.0f %8.1f %8.1f %14.2f %14.0f %14.2f %7d %8d %12.1f\n", s.name, round+1,
				float64(a.updates)/a.took.Seconds(), a.each(a.cpu), float64(b.updates)/b.took.Seconds(), b.each(b.cpu), b.each(b.cpu)-a.each(a.cpu),
				b.perUpdate(b.counts.events), b.perUpdate(b.counts.bytes), b.perUpdate(b.counts.reads), b.counts.resets, b.missing, b.each(b.load))
		}
		figures = append(figures, figure{s, 100 * middle(without) / middle(with)})
	}
	fmt.Fprintf(stdout, "\ntargets, medians of %d: the update rate with the queries that a processor gives, in percent of that without\n", o.rounds)
	for _, r := range figures {
		if r.setting.common {
			target(stdout, r.setting.name, r.rate, 90, true, "%")
		}
	}
	for _, r := range figures {
		if !r.setting.common {
			fmt.Fprintf(stdout, "  %-34s %8.2f %%, no target: worse than what the target is for\n", r.setting.name, r.rate)
		}
	}
	for _, r := range figures {
		fmt.Fprintf(stdout, "  %s: %s\n", r.setting.name, r.setting.text)
	}
	return nil
}

// liveHub is a hub whose devices report.
type liveHub struct {
	hub     *hub
	remove  func()
	devices []*device
	cpu     time.Duration // that its process had used when used was called last
}

// open starts a hub and fills it.
func (o *liveOptions) open(ctx context.Context, with hubOptions) (*liveHub, error) {
	h, remove, err := newHub(with)
	if err != nil {
		return nil, err
	}
	l := &liveHub{hub: h, remove: remove}
	_, err = h.start(ctx)
	if err == nil {
		_, err = h.create(ctx, o.devices, 4, liveDevice)
	}
	if err == nil {
		err = h.signal(syscall.SIGTERM)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func liveDevice(i int) client.BulkItem {
	item := twinItem(i)
	item.ID = deviceName("device", i)
	item.Tags = fmt.Appendf(nil, `{"site":"site-%03d","floor":%d,"n":%d}`, i%liveSites, i%liveFloors, i)
	return item
}

func (l *liveHub) close() {
	for _, d := range l.devices {
		d.close()
	}
	_ = l.hub.signal(syscall.SIGKILL) // the data is thrown away
	l.remove()
}

// restart ends what a hub follows: it goes on for a while after its readers
// have left.
func (l *liveHub) restart(ctx context.Context, connections int) (err error) {
	for _, d := range l.devices {
		d.close()
	}
	l.devices = nil
	if err := l.hub.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := l.hub.start(ctx); err != nil {
		return err
	}
	l.cpu = 0
	l.devices, err = connectAll(ctx, l.hub, connections)
	return err
}

// used is the processor time since the last call, or the hub's start.
func (l *liveHub) used() (time.Duration, error) {
	now, err := cpuOf(l.hub.pid())
	before := l.cpu
	l.cpu = now
	return now - before, err
}

// liveFigures are what was measured of a hub.
type liveFigures struct {
	updates int64
	took    time.Duration // of the updates
	cpu     time.Duration // of the hub
	load    time.Duration // of a processor in the load and the readers
	counts  liveCounts
	missing int64 // events
}

// each is what one update took of the processor, in microseconds.
func (f *liveFigures) each(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1000 / float64(max(1, f.updates))
}

func (f *liveFigures) perUpdate(n int64) float64 { return float64(n) / float64(max(1, f.updates)) }

// round measures both hubs, in changing order.
func (o *liveOptions) round(ctx context.Context, hubs [2]*liveHub, s liveSetting, round int) (without, with liveFigures, err error) {
	for _, h := range hubs {
		if err := h.restart(ctx, o.connections); err != nil {
			return without, with, err
		}
	}
	var followers [2]*liveReaders
	for i, h := range hubs {
		if i == 0 && o.other == "" {
			continue
		}
		if followers[i], err = o.follow(ctx, h.hub, s); err != nil {
			return without, with, err
		}
		defer followers[i].close()
	}
	// After a second each that is not counted they take turns of a second, so
	// that both have the same of what else the machine does. What a hub does in the
	// turns of the other is its own: the store's work goes on for a while.
	turns := int(o.duration / time.Second)
	for i := range 1 + turns {
		for _, which := range [...]int{i % 2, 1 - i%2} {
			f, err := o.measure(ctx, hubs[which], followers[which], s)
			switch {
			case err != nil:
				return without, with, err
			case i == 0:
			case which == 0:
				without.add(f)
			default:
				with.add(f)
			}
		}
	}
	pause(ctx, time.Second)
	for i, f := range [...]*liveFigures{&without, &with} {
		cpu, err := hubs[i].used()
		if err != nil {
			return without, with, err
		}
		late := followers[i].settle(ctx, 0)
		f.cpu += cpu
		f.counts.add(late)
		if s.events != nil {
			f.missing -= late.events
		}
	}
	if o.profiles != "" && round == 0 {
		err = o.profile(ctx, hubs[1], followers[1], s)
	}
	return without, with, err
}

// profile stores a profile of the hub with subscribers.
func (o *liveOptions) profile(ctx context.Context, l *liveHub, readers *liveReaders, s liveSetting) error {
	done := make(chan error, 1)
	go func() { done <- l.hub.profile(ctx, o.duration, filepath.Join(o.profiles, s.name+".pprof")) }()
	for {
		select {
		case err := <-done:
			return err
		default:
			if _, err := o.measure(ctx, l, readers, s); err != nil {
				return errors.Join(err, <-done)
			}
		}
	}
}

// add adds what another turn gave.
func (f *liveFigures) add(g liveFigures) {
	f.updates += g.updates
	f.took += g.took
	f.cpu += g.cpu
	f.load += g.load
	f.counts.add(g.counts)
	f.missing += g.missing
}

// measure has the devices report for a second, and waits until those who follow
// have all of it.
func (o *liveOptions) measure(ctx context.Context, l *liveHub, readers *liveReaders, s liveSetting) (f liveFigures, err error) {
	own := ownCPU()
	plan := loadPlan{workers: len(l.devices), duration: time.Second}
	r, err := plan.run(ctx, func(_ context.Context, i int) error {
		c := randomChange(1)
		return l.devices[i].patch(fmt.Appendf(nil, `{"battery":%d,"uptime":%d,"temperature":%d.5,"status":"ok"}`, c.battery, c.uptime, c.reading))
	})
	if err != nil {
		return f, err
	}
	f.updates, f.took = int64(r.Latency.Count), r.Elapsed
	expected := int64(-1)
	if readers != nil && s.events != nil {
		expected = int64(math.Round(s.events(len(readers.list)) * float64(f.updates)))
	}
	f.counts = readers.settle(ctx, expected)
	f.load = ownCPU() - own
	f.cpu, err = l.used()
	if expected >= 0 {
		f.missing = expected - f.counts.events
	}
	return f, err
}
