package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// queryOptions are the flags of the query benchmark.
type queryOptions struct {
	hub              hubOptions
	twins            int
	seconds          float64
	postgres, sqlite bool
}

// queryEngine answers questions.
type queryEngine interface {
	name() string
	text(t texts) string
	// ask runs each text once, as a client that keeps its connection sees it,
	// and returns how long each took and what the first one answered: a row a
	// line, values separated by |.
	ask(ctx context.Context, list []string) ([]time.Duration, []string, error)
	explain(ctx context.Context, text string) (string, error)
}

// queryTimes are the medians of a question, by engine.
type queryTimes map[string]time.Duration

const (
	engineMuster   = "Muster"
	enginePostgres = "PostgreSQL"
	engineSQLite   = "SQLite"
)

// queryCommand measures queries over many twins: a hub through REST, and in the
// same minutes PostgreSQL and SQLite with the indexes of query_*.sql. Every
// answer is compared with that of the others.
func queryCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o queryOptions
	f := flag.NewFlagSet("query", flag.ContinueOnError)
	o.hub.flags(f)
	f.IntVar(&o.twins, "twins", 1_000_000, "twins in each engine")
	f.Float64Var(&o.seconds, "seconds", 10, "how long each query of an engine is repeated, about")
	f.BoolVar(&o.postgres, "postgres", true, "measure PostgreSQL, too")
	f.BoolVar(&o.sqlite, "sqlite", true, "measure SQLite, too, by Python's sqlite3")
	if err := f.Parse(args); err != nil {
		return err
	}
	h, clean, err := newHub(o.hub)
	if err != nil {
		return err
	}
	defer clean()
	defer func() { _ = h.signal(syscall.SIGKILL) }() // when something fails
	dir := filepath.Dir(h.data)
	fmt.Fprintln(stdout, "machine:", machine(dir))
	fmt.Fprintf(stdout, "twins: %d, the first one has %d bytes with metadata\n", o.twins, len(twinDocument(0)))

	muster, ready, err := o.fillHub(ctx, h, stdout)
	if err != nil {
		return err
	}
	defer muster.close()
	engines := []queryEngine{muster}
	if o.postgres {
		pg, err := newQueryPostgres(ctx, filepath.Join(dir, "postgresql"), o.twins, stdout)
		if err != nil {
			return err
		}
		defer func() { _ = pg.cluster.stop() }()
		engines = append(engines, pg)
	}
	if o.sqlite {
		lite, err := newQuerySQLite(ctx, dir, o.twins, stdout)
		if err != nil {
			return err
		}
		defer lite.close()
		engines = append(engines, lite)
	}
	medians, err := o.measure(ctx, engines, stdout)
	if err != nil {
		return err
	}
	if err := h.signal(syscall.SIGTERM); err != nil { // the columns in process need the memory
		return err
	}
	columns, err := measureColumns(ctx, o.twins, stdout)
	if err != nil {
		return err
	}
	o.targets(stdout, medians, columns, ready)
	return nil
}

// fillHub makes the twins, restarts the hub, and returns how long queries took
// to be ready.
func (o *queryOptions) fillHub(ctx context.Context, h *hub, stdout io.Writer) (*queryHub, time.Duration, error) {
	if _, err := h.start(ctx); err != nil {
		return nil, 0, err
	}
	took, err := h.create(ctx, o.twins, 16, twinItem)
	if err != nil {
		return nil, 0, err
	}
	fmt.Fprintf(stdout, "Muster: %d twins through the bulk API in %.0f s, disk %s\n", o.twins, took.Seconds(), mib(diskUse(h.data)))
	if err := h.signal(syscall.SIGTERM); err != nil {
		return nil, 0, err
	}
	began := time.Now()
	if _, err := h.start(ctx); err != nil {
		return nil, 0, err
	}
	served := time.Since(began)
	q, err := newQueryHub(h, 1)
	if err != nil {
		return nil, 0, err
	}
	err = h.until(ctx, "queries", func(ctx context.Context) error {
		_, rows, err := q.ask(ctx, []string{"SELECT COUNT() AS n FROM devices"})
		if err == nil && rows[0] != fmt.Sprint(o.twins) {
			err = fmt.Errorf("there are %s twins, not %d", rows[0], o.twins)
		}
		return err
	})
	ready := time.Since(began)
	if err != nil {
		return nil, 0, err
	}
	m, err := memoryOf(h.pid())
	fmt.Fprintf(stdout, "Muster, restart: served after %.2f s, queries ready after %.2f s; anonymous memory %s, resident %s\n",
		served.Seconds(), ready.Seconds(), mib(m.anonymous), mib(m.resident))
	return q, ready, err
}

// measure asks every question of every engine, and prints times and plans.
func (o *queryOptions) measure(ctx context.Context, engines []queryEngine, stdout io.Writer) ([]queryTimes, error) {
	fmt.Fprintf(stdout, "\n%-38s %-12s %6s %10s %10s %10s  %s\n", "query", "engine", "runs", "p50 ms", "p99 ms", "max ms", "answer")
	var plans strings.Builder
	var medians []queryTimes
	for _, q := range questions() {
		times := queryTimes{}
		var first []string
		for _, e := range engines {
			list, rows, err := o.variants(ctx, e, q)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", q.name, e.name(), err)
			}
			s, err := timed(ctx, e, list)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", q.name, e.name(), err)
			}
			note := answerNote(rows)
			if first == nil {
				first = rows
			} else if !slices.Equal(first, rows) {
				note += " DIFFERS"
			}
			fmt.Fprintf(stdout, "%-38s %-12s %6d %10.2f %10.2f %10.2f  %s\n", q.name, e.name(), s.Count, milliseconds(s.P50), milliseconds(s.P99), milliseconds(s.Max), note)
			times[e.name()] = s.P50
			if q.documents {
				if s, err = timed(ctx, e, list); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", q.name, e.name(), err)
				}
				fmt.Fprintf(stdout, "%-38s %-12s %6d %10.2f %10.2f %10.2f\n", "  the same ones again", e.name(), s.Count, milliseconds(s.P50), milliseconds(s.P99), milliseconds(s.Max))
			}
			text := e.text(q.texts(0))
			plan, err := e.explain(ctx, text)
			if err != nil {
				return nil, fmt.Errorf("explain %s, %s: %w", q.name, e.name(), err)
			}
			fmt.Fprintf(&plans, "\n%s, %s\n%s\n%s\n", q.name, e.name(), text, strings.TrimSpace(plan))
		}
		medians = append(medians, times)
	}
	fmt.Fprintf(stdout, "\nplans\n%s", plans.String())
	return medians, nil
}

// variants are as many texts of a question as take about the time that there is, and
// at least five, and what one that warms up was answered.
func (o *queryOptions) variants(ctx context.Context, e queryEngine, q question) (list, rows []string, err error) {
	warm, rows, err := e.ask(ctx, []string{e.text(q.texts(0))})
	if err != nil {
		return nil, nil, err
	}
	most := 2000
	if q.documents {
		most = distinctDocuments - 1
	}
	list = make([]string, min(most, max(5, int(o.seconds/max(warm[0].Seconds(), 1e-4)))))
	for k := range list {
		list[k] = e.text(q.texts(k + 1))
	}
	return list, rows, nil
}

// timed asks each text once.
func timed(ctx context.Context, e queryEngine, list []string) (summary, error) {
	times, _, err := e.ask(ctx, list)
	var h histogram
	for _, t := range times {
		h.add(t)
	}
	return h.summary(), err
}

// answerNote shows an answer in a few words.
func answerNote(rows []string) string {
	if len(rows) == 1 && len(rows[0]) < 20 {
		return rows[0]
	}
	return fmt.Sprintf("%d rows", len(rows))
}

// targets prints what was asked for and whether it was met.
func (o *queryOptions) targets(stdout io.Writer, medians []queryTimes, columns columnFigures, ready time.Duration) {
	fmt.Fprintf(stdout, "\ntargets, for 1,000,000 twins; measured with %d\n", o.twins)
	ratio := func(i int) float64 {
		return float64(medians[i][enginePostgres]) / float64(max(1, medians[i][engineMuster]))
	}
	target(stdout, "equality and range, p50", milliseconds(medians[0][engineMuster]), 5, false, "ms")
	if o.postgres {
		target(stdout, "count by group, PostgreSQL/Muster", ratio(1), 50, true, "times")
		target(stdout, "function, 900 values, the same", ratio(2), 50, true, "times")
		target(stdout, "function, unique values, the same", ratio(3), 2, true, "times")
	}
	target(stdout, "two paths of all twins, p50", milliseconds(medians[5][engineMuster]), 800, false, "ms")
	target(stdout, "columns of 20 properties", float64(columns.bytes)/1e6, 150, false, "MB")
	target(stdout, "columns' part of a patch", columns.patch.Seconds()*1e6, 2, false, "us")
	target(stdout, "queries ready after a restart", ready.Seconds(), 10, false, "s")
}
