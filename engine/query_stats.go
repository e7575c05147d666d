package engine

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/query"
)

// queryCounters count since the hub started.
type queryCounters struct {
	queries, failed, refused, overBudget, slow, rows, nanos atomic.Int64
}

// QueryStats are figures of queries and of their columns.
type QueryStats struct {
	Progress   QueryProgress
	Queries    int64 // answered or failed, a page each
	Failed     int64
	Refused    int64 // for want of permission, of a turn, or because the columns were not ready
	OverBudget int64
	Slow       int64
	Rows       int64 // given
	Time       time.Duration
	Devices    query.Stats
	Modules    query.Stats
}

// QueryStats returns the figures of queries, for metrics.
func (h *Hub) QueryStats() QueryStats {
	n := &h.queries.count
	return QueryStats{
		Progress: h.QueryProgress(), Queries: n.queries.Load(), Failed: n.failed.Load(), Refused: n.refused.Load(),
		OverBudget: n.overBudget.Load(), Slow: n.slow.Load(), Rows: n.rows.Load(), Time: time.Duration(n.nanos.Load()),
		Devices: h.queries.columnStats(query.Devices), Modules: h.queries.columnStats(query.Modules),
	}
}

// columnStats leaves out of what has no column what is meant to have none.
func (q *queries) columnStats(source query.Source) query.Stats {
	s := q.columns[source].Stats()
	for _, p := range outsidePaths() {
		s.Missing = slices.DeleteFunc(s.Missing, func(m query.Missing) bool { return m.Path == p.String() })
	}
	return s
}

func (h *Hub) doctorQueries() Finding {
	s := h.QueryStats()
	rows, paths, bytes := s.Devices.Rows+s.Modules.Rows, s.Devices.Columns+s.Modules.Columns, s.Devices.Bytes+s.Modules.Bytes
	f := Finding{"queries", "ok", fmt.Sprintf("columns hold %d paths of %d rows in %d MiB; %d queries since the start, %d of them slow", paths, rows, bytes>>20, s.Queries, s.Slow), ""}
	missing := len(s.Devices.Missing) + len(s.Modules.Missing)
	switch {
	case !s.Progress.Ready:
		f.Level, f.Text = "warn", fmt.Sprintf("queries are not ready: %d of %d rows are read", min(s.Progress.Done, s.Progress.Total), s.Progress.Total)
		f.Next = "wait; everything else is served"
	case missing > 0:
		f.Level, f.Text = "warn", f.Text+"; "+plural(missing, "path")+" have no column"
		f.Next = "what asks for them reads documents and is slow: give the hub more --memory, or look with EXPLAIN which paths they are; a device that reports ever new names fills columns with them"
	}
	return f
}
