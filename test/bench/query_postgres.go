package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed query_postgres.sql
var queryPostgresSchema string

// queryPostgres asks a cluster of its own through psql, which measures each
// statement itself: without its own start.
type queryPostgres struct{ cluster *postgres }

func newQueryPostgres(ctx context.Context, dir string, twins int, stdout io.Writer) (*queryPostgres, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	p, err := emptyPostgres(ctx, dir, postgresTuned)
	if err != nil {
		return nil, err
	}
	q := &queryPostgres{p}
	began := time.Now()
	if err := q.load(ctx, twins); err != nil {
		_ = p.stop()
		return nil, err
	}
	loaded := time.Since(began)
	if _, err := p.sql(ctx, queryPostgresSchema); err != nil {
		_ = p.stop()
		return nil, err
	}
	sizes, err := p.sql(ctx, "SELECT pg_size_pretty(pg_table_size('twin')) || ', indexes ' || pg_size_pretty(pg_indexes_size('twin'));")
	if err != nil {
		_ = p.stop()
		return nil, err
	}
	fmt.Fprintf(stdout, "%s: %d twins in %.0f s, indexes of query_postgres.sql in %.0f s; table %s\n", p.version(ctx), twins, loaded.Seconds(), (time.Since(began) - loaded).Seconds(), sizes)
	return q, nil
}

func (q *queryPostgres) load(ctx context.Context, twins int) error {
	r, w := io.Pipe()
	go func() { // ends when psql has read all, or has ended
		_, err := io.WriteString(w, "CREATE TABLE twin (id text PRIMARY KEY, doc jsonb NOT NULL);\nCOPY twin FROM STDIN;\n")
		for i := 0; i < twins && err == nil; i++ {
			_, err = fmt.Fprintf(w, "%s\t%s\n", twinID(i), twinDocument(i)) // no backslash, tab or newline in a document
		}
		if err == nil {
			_, err = io.WriteString(w, "\\.\n")
		}
		w.CloseWithError(err)
	}()
	defer r.Close()
	c := q.cluster.command(ctx, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1")
	c.Stdin = r
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %w: %s", err, out)
	}
	return nil
}

func (q *queryPostgres) name() string        { return enginePostgres }
func (q *queryPostgres) text(t texts) string { return t.postgres }

func (q *queryPostgres) ask(ctx context.Context, list []string) ([]time.Duration, []string, error) {
	out, err := q.cluster.sql(ctx, list[0]+";")
	if err != nil {
		return nil, nil, err
	}
	rows := linesOf(out)
	out, err = q.cluster.sql(ctx, "\\timing on\n\\o /dev/null\n"+strings.Join(list, ";\n")+";\n")
	if err != nil {
		return nil, nil, err
	}
	var times []time.Duration
	for line := range strings.Lines(out) { // Time: 12.345 ms, and more behind it from a second on
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Time:" {
			continue
		}
		ms, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return nil, nil, err
		}
		times = append(times, time.Duration(ms*float64(time.Millisecond)))
	}
	if len(times) != len(list) {
		return nil, nil, fmt.Errorf("psql measured %d statements of %d", len(times), len(list))
	}
	return times, rows, nil
}

// linesOf returns rows as queryHub's are: documents by their id.
func linesOf(text string) []string {
	var rows []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		var twin struct{ DeviceID string }
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &twin) == nil {
			line = twin.DeviceID
		}
		rows = append(rows, line)
	}
	slices.Sort(rows)
	return rows
}

func (q *queryPostgres) explain(ctx context.Context, text string) (string, error) {
	return q.cluster.sql(ctx, "EXPLAIN (ANALYZE, COSTS OFF, BUFFERS) "+text+";")
}
