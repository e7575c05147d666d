package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// storageOptions are the flags of the storage command.
type storageOptions struct {
	duration  time.Duration
	updates   int64
	rounds    int
	writers   intList
	clients   intList
	stores    stringList
	documents int
	memory    int64
	dir       string
	rate      float64
	profile   string
}

// intList and stringList are flags that take a list with commas.
type intList []int

func (l *intList) String() string { return fmt.Sprint([]int(*l)) }

// Set implements flag.Value.
func (l *intList) Set(s string) error {
	*l = nil
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return err
		}
		*l = append(*l, n)
	}
	return nil
}

type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *stringList) Set(s string) error {
	*l = strings.Split(s, ",")
	return nil
}

func (l *stringList) has(s string) bool { return slices.Contains(*l, s) }

// allStores are what can be measured.
var allStores = stringList{"muster", "pebble", "badger", "packaged", "postgresql"}

// storageCommand compares the stores. The points of a round follow one another
// (each store with each number of writers), and rounds repeat that, so that a
// slow minute of the machine hits all of them.
func storageCommand(ctx context.Context, args []string, stdout io.Writer) error {
	o := storageOptions{writers: intList{1, 16, 64, 256}, clients: intList{16, 32, 64}, stores: allStores}
	f := flag.NewFlagSet("storage", flag.ContinueOnError)
	f.DurationVar(&o.duration, "duration", time.Minute, "length of one measurement")
	f.Int64Var(&o.updates, "updates", 0, "end a measurement of an embedded store after so many updates, before its time; 0: no bound")
	f.IntVar(&o.rounds, "rounds", 3, "how often each is measured; medians are shown")
	f.Var(&o.writers, "writers", "numbers of concurrent writers of the embedded stores")
	f.Var(&o.clients, "clients", "numbers of PostgreSQL clients; the best counts")
	f.Var(&o.stores, "stores", "which of muster,pebble,badger, packaged (PostgreSQL as its package sets it up) and postgresql (with 2 GB of buffers)")
	f.IntVar(&o.documents, "documents", 100_000, "documents")
	f.Int64Var(&o.memory, "memory", 1<<30, "bytes for memtables and caches of Muster and Pebble: what muster serve gives its store where there are 6 GB or more, and half of PostgreSQL's buffers")
	f.StringVar(&o.dir, "dir", "", "directory for the data, on the disk to measure; default a temporary one")
	f.Float64Var(&o.rate, "rate", 5000, "updates a second of the open-loop measurement of Muster; 0: none")
	f.StringVar(&o.profile, "cpuprofile", "", "file for a CPU profile of Muster's largest measurement")
	if err := f.Parse(args); err != nil {
		return err
	}
	for _, name := range o.stores {
		if !slices.Contains(allStores, name) {
			return fmt.Errorf("-stores: %q is none of %s", name, &allStores)
		}
	}
	dir, clean, err := workDirectory(o.dir)
	if err != nil {
		return err
	}
	defer clean()
	o.dir = dir
	fmt.Fprintln(stdout, "machine:", machine(dir))
	return o.run(ctx, stdout)
}

// workDirectory makes a directory for a command's data, and returns how to
// remove it.
func workDirectory(parent string) (string, func(), error) {
	dir, err := os.MkdirTemp(parent, "muster-bench-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

func (o *storageOptions) run(ctx context.Context, stdout io.Writer) (err error) {
	var servers []*postgres
	for _, s := range postgresKinds {
		if !o.stores.has(s.name) {
			continue
		}
		pg, err := o.openPostgres(ctx, s.name, s.settings)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "peer: %s: %s, %s\n", s.name, s.text, pg.about)
		servers = append(servers, pg)
	}
	results := map[string][]outcome{}
	note := func(key string, r outcome) {
		results[key] = append(results[key], r)
		fmt.Fprintln(stdout, line(r))
	}
	for round := range o.rounds {
		fmt.Fprintf(stdout, "\nround %d, %s each, %s\n%s\n", round+1, o.duration, time.Now().UTC().Format(time.RFC3339), heading)
		for _, n := range o.writers {
			for _, name := range []string{"muster", "pebble", "badger"} {
				if !o.stores.has(name) {
					continue
				}
				last := round == o.rounds-1 && n == o.writers[len(o.writers)-1]
				p := point{Store: name, Dir: filepath.Join(o.dir, name), Documents: o.documents, Memory: o.memory, Writers: n, Duration: o.duration, Updates: o.updates, Readable: last}
				if p.Duration >= 2*time.Minute {
					p.Every = 10 * time.Second
				}
				if last && name == "muster" {
					p.Profile = o.profile
				}
				syscall.Sync() // what one left behind shall not slow the next
				r, err := measure(ctx, p, stdout)
				if err != nil {
					return err
				}
				note(fmt.Sprintf("%s %d", name, n), r)
			}
		}
		if o.stores.has("muster") && o.rate > 0 {
			r, err := measure(ctx, point{Store: "muster", Dir: filepath.Join(o.dir, "muster"), Documents: o.documents, Memory: o.memory,
				Writers: 256, Duration: o.duration, Rate: o.rate}, stdout)
			if err != nil {
				return err
			}
			note("offered", r)
		}
		for _, pg := range servers {
			list, err := o.measurePostgres(ctx, pg)
			if err != nil {
				return err
			}
			for _, r := range list {
				note(fmt.Sprintf("%s %d", r.Store, r.Writers), r)
			}
		}
	}
	return o.report(stdout, results)
}

// postgresKinds are the servers by their names among the stores.
var postgresKinds = []struct{ name, settings, text string }{
	{"packaged", postgresPackaged, "PostgreSQL as its package sets it up"},
	{"postgresql", postgresTuned, "PostgreSQL with 2 GB of buffers and rare checkpoints"},
}

// openPostgres fills a cluster of its own and warms it: the first run after filling
// is slow. The server is left stopped, so that it does nothing while others are
// measured.
func (o *storageOptions) openPostgres(ctx context.Context, name, settings string) (*postgres, error) {
	dir := filepath.Join(o.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	pg, err := startPostgres(ctx, dir, o.documents, settings)
	if err != nil {
		return nil, err
	}
	pg.about = pg.version(ctx)
	_, err = pg.measure(ctx, 32, min(o.duration/2, time.Minute))
	return pg, errors.Join(err, pg.stop())
}

// measurePostgres starts a server and measures it with each number of clients.
func (o *storageOptions) measurePostgres(ctx context.Context, pg *postgres) (list []outcome, err error) {
	if err := pg.start(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.stop()) }()
	for _, n := range o.clients {
		syscall.Sync() // what one left behind shall not slow the next
		r, err := pg.measure(ctx, n, o.duration)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

const heading = `store       writers  offered   updates/s      p50 ms     p99 ms   p99.9 ms     max ms  us CPU  anon MiB  lost`

func line(r outcome) string {
	offered := "-"
	if r.Rate > 0 {
		offered = strconv.FormatFloat(r.Rate, 'f', 0, 64)
	}
	s := fmt.Sprintf("%-11s %7d %8s %11.0f  %10.2f %10.2f %10.2f %10.2f  %6.1f  %8d  %4d", r.Store, r.Writers, offered, r.PerSecond,
		milliseconds(r.Latency.P50), milliseconds(r.Latency.P99), milliseconds(r.Latency.P999), milliseconds(r.Latency.Max), r.CPUMicros, r.Anonymous>>20, r.Lost)
	if len(r.Stats) > 0 {
		s += "  " + strings.ReplaceAll(strings.TrimPrefix(fmt.Sprint(r.Stats), "map"), "\n", " ")
	}
	return s
}

// medianOf returns the outcome whose rate is the median (the lower one of two).
func medianOf(list []outcome) outcome {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b outcome) int {
		switch {
		case a.PerSecond < b.PerSecond:
			return -1
		case a.PerSecond > b.PerSecond:
			return 1
		}
		return 0
	})
	return sorted[(len(sorted)-1)/2]
}

// report prints medians, ratios and what became of the targets.
func (o *storageOptions) report(w io.Writer, results map[string][]outcome) error {
	fmt.Fprintf(w, "\nmedians of %d\n%s\n", o.rounds, heading)
	median := map[string]outcome{}
	var order []string
	for _, name := range []string{"muster", "pebble", "badger"} {
		for _, n := range o.writers {
			order = append(order, fmt.Sprintf("%s %d", name, n))
		}
	}
	order = append(order, "offered")
	for _, s := range postgresKinds {
		for _, n := range o.clients {
			order = append(order, fmt.Sprintf("%s %d", s.name, n))
		}
	}
	servers := map[string][]outcome{}
	lost := 0
	for _, key := range order {
		list := results[key]
		if len(list) == 0 {
			continue
		}
		for _, r := range list {
			lost += max(r.Lost, -r.Lost)
		}
		m := medianOf(list)
		median[key] = m
		m.Stats = nil
		fmt.Fprintln(w, line(m))
		servers[m.Store] = append(servers[m.Store], m)
	}
	fmt.Fprintln(w, "\ntargets")
	most := o.writers[len(o.writers)-1]
	ratio := func(what, a, b string, least float64) {
		x, y := median[a], median[b]
		if x.PerSecond > 0 && y.PerSecond > 0 {
			target(w, what, x.PerSecond/y.PerSecond, least, true, "x")
		}
	}
	at := func(name string, n int) string { return fmt.Sprintf("%s %d", name, n) }
	for _, s := range postgresKinds {
		if len(servers[s.name]) > 0 {
			best := bestOf(servers[s.name])
			median[s.name] = best
			fmt.Fprintf(w, "  %s: its best %.0f/s with %d clients\n", s.text, best.PerSecond, best.Writers)
			ratio(s.name+"'s best", at("muster", most), s.name, 4)
		}
	}
	ratio(fmt.Sprintf("Pebble, %d writers", most), at("muster", most), at("pebble", most), 0.5)
	ratio(fmt.Sprintf("naive Badger, %d writers", most), at("muster", most), at("badger", most), 10)
	ratio("naive Badger, 1 writer", at("muster", 1), at("badger", 1), 1.2)
	if m, ok := median["offered"]; ok {
		target(w, fmt.Sprintf("p99 at %.0f/s offered", m.Rate), milliseconds(m.Latency.P99), 20, false, "ms")
	}
	if list := results[at("muster", most)]; len(list) > 0 {
		m := list[len(list)-1]
		bound := 3*m.RowBytes + 2<<30
		fmt.Fprintf(w, "  disk %s for %d readable rows of %s (%.2f x): ", mib(m.Disk), m.Rows, mib(m.RowBytes), float64(m.Disk)/float64(max(1, m.RowBytes)))
		fmt.Fprintf(w, "bound 3 x + 2 GiB = %s: %s\n", mib(bound), verdict(m.Disk < bound))
		fmt.Fprintf(w, "  anonymous memory at most %s, Options.Memory %s\n", mib(m.Anonymous), mib(o.memory))
	}
	fmt.Fprintf(w, "  acknowledged updates missing, over all runs: %d: %s\n", lost, verdict(lost == 0))
	return nil
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

// target prints one figure beside what it should be.
func target(w io.Writer, what string, got, want float64, atLeast bool, unit string) {
	word, met := "at most", got <= want
	if atLeast {
		word, met = "at least", got >= want
	}
	fmt.Fprintf(w, "  %-34s %8.2f %s, %s %g: %s\n", what, got, unit, word, want, verdict(met))
}
