package engine

import (
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
		Devices: h.queries.columns[query.Devices].Stats(), Modules: h.queries.columns[query.Modules].Stats(),
	}
}
