package engine

import (
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// RunStats are figures of the hub's runs, for metrics. Active, Working and
// Waiting are of this moment, the others count since the start.
type RunStats struct {
	Active      map[pattern.State]int64 // runs that have not ended, by state
	Working     int64                   // requests and queries of runs under way
	Waiting     int64                   // conditions on twins that are followed
	Ended       map[pattern.State]int64
	Activations int64
	Failures    int64 // activations that could not be made, and were tried again
	Steps       int64
	Time        time.Duration // of activations, in workers
}

// RunStats returns the figures of the hub's runs; it is cheap.
func (h *Hub) RunStats() RunStats { return RunStats{} }

// patternCost returns what the runs of a version took since the start.
func (h *Hub) patternCost(name, version string) PatternCost { return PatternCost{} }

// patternActive returns how many runs of a version have not ended.
func patternActive(r storage.Reader, name, version string) (int64, error) { return 0, nil }
