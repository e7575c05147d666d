package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed query_sqlite.sql
var querySQLiteSchema string

//go:embed query_sqlite.py
var querySQLiteProgram string

// querySQLite asks SQLite in a Python process, which measures each statement
// itself: without the pipe between the two.
type querySQLite struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func newQuerySQLite(ctx context.Context, dir string, twins int, stdout io.Writer) (*querySQLite, error) {
	program, schema, file := filepath.Join(dir, "sqlite.py"), filepath.Join(dir, "sqlite.sql"), filepath.Join(dir, "sqlite.db")
	for name, text := range map[string]string{program: querySQLiteProgram, schema: querySQLiteSchema} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	r, w := io.Pipe()
	go func() { // ends when the program has read all, or has ended
		var err error
		for i := 0; i < twins && err == nil; i++ {
			_, err = fmt.Fprintf(w, "%s\t%s\n", twinID(i), twinDocument(i))
		}
		w.CloseWithError(err)
	}()
	defer r.Close()
	load := exec.CommandContext(ctx, "python3", program, "load", file, schema)
	load.Stdin = r
	version, err := load.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("load SQLite (needs python3): %w: %s", err, version)
	}
	fmt.Fprintf(stdout, "SQLite %s: %d twins and the indexes of query_sqlite.sql in %.0f s\n", strings.TrimSpace(string(version)), twins, time.Since(began).Seconds())
	s := &querySQLite{process: exec.CommandContext(ctx, "python3", program, "ask", file, schema)}
	s.process.Stderr = os.Stderr
	if s.in, err = s.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	return s, s.process.Start()
}

func (s *querySQLite) name() string        { return engineSQLite }
func (s *querySQLite) text(t texts) string { return t.sqlite }

// sqliteAnswer is a line of the program's.
type sqliteAnswer struct {
	Rows [][]any   `json:"rows"`
	MS   []float64 `json:"ms"`
}

func (s *querySQLite) run(sql string) (a sqliteAnswer, err error) {
	if err := json.NewEncoder(s.in).Encode(map[string]any{"sql": sql, "runs": 1}); err != nil {
		return a, err
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("SQLite's program ended: %w", err)
	}
	return a, json.Unmarshal(line, &a)
}

func (s *querySQLite) ask(_ context.Context, list []string) ([]time.Duration, []string, error) {
	var times []time.Duration
	var rows []string
	for i, sql := range list {
		a, err := s.run(sql)
		if err != nil {
			return nil, nil, err
		}
		times = append(times, time.Duration(a.MS[0]*float64(time.Millisecond)))
		if i > 0 {
			continue
		}
		for _, row := range a.Rows {
			var values []string
			for _, v := range row {
				values = append(values, fmt.Sprint(v))
			}
			rows = append(rows, linesOf(strings.Join(values, "|"))...)
		}
	}
	slices.Sort(rows)
	return times, rows, nil
}

func (s *querySQLite) explain(_ context.Context, text string) (string, error) {
	a, err := s.run("EXPLAIN QUERY PLAN " + text)
	var b strings.Builder
	for _, row := range a.Rows {
		fmt.Fprintln(&b, row[len(row)-1])
	}
	return b.String(), err
}

func (s *querySQLite) close() {
	_ = s.in.Close()
	_ = s.process.Wait()
}
