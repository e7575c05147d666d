package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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

// runCounters count what metrics and the cost of patterns show.
type runCounters struct {
	working, failures, activations, steps, time atomic.Int64
	failure                                     atomic.Pointer[runFailure] // the last one; nil: none

	mu       sync.Mutex
	states   map[pattern.State]int64
	patterns map[string]*PatternCost // by name and version
}

// runFailure is an activation that could not be made.
type runFailure struct {
	at  time.Time
	err error
}

// failed counts an activation that could not be made.
func (c *runCounters) failed(err error) {
	c.failures.Add(1)
	c.failure.Store(&runFailure{time.Now(), err})
}

// runPatternsMost is of how many versions the cost is kept.
const runPatternsMost = 1000

func (c *runCounters) init() {
	c.states, c.patterns = map[pattern.State]int64{}, map[string]*PatternCost{}
}

func (c *runCounters) patternLocked(name, version string) *PatternCost {
	key := name + "@" + version
	p := c.patterns[key]
	if p == nil {
		p = &PatternCost{Ended: map[pattern.State]int64{}}
		if len(c.patterns) < runPatternsMost {
			c.patterns[key] = p
		}
	}
	return p
}

// activated counts an activation that was stored.
func (c *runCounters) activated(name, version, id string, o *pattern.Outcome, steps int) {
	cost := o.Cost
	c.activations.Add(1)
	c.steps.Add(int64(steps))
	c.time.Add(int64(cost.Time))
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.patternLocked(name, version)
	p.Activations++
	p.Instructions += cost.Instructions
	p.Calls += cost.Calls
	p.Time += cost.Time
	if cost.Time > p.Slowest {
		p.Slowest, p.SlowestRun = cost.Time, id
	}
	p.Hot = pattern.AddHot(p.Hot, o.Hot, hotLinesMost)
}

// hotLinesMost is of how many lines of a version it is kept how hot they are.
const hotLinesMost = 64

// ended counts a run that has ended.
func (c *runCounters) ended(name, version string, s pattern.State, journal int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[s]++
	p := c.patternLocked(name, version)
	p.Runs++
	p.Ended[s]++
	p.Journal += int64(journal)
}

// RunStats returns the figures of the hub's runs; it is cheap.
func (h *Hub) RunStats() RunStats {
	c := &h.runs.stats
	s := RunStats{
		Active: map[pattern.State]int64{}, Working: c.working.Load(), Waiting: h.runs.waits.total(), Activations: c.activations.Load(),
		Failures: c.failures.Load(), Steps: c.steps.Load(), Time: time.Duration(c.time.Load()),
	}
	// A hub that is closing has no figures.
	_ = h.view(context.Background(), "count runs", func(r storage.Reader) error {
		for _, state := range pattern.States() {
			if state.Final() {
				continue
			}
			n, err := storage.Counter(r, counterRuns+string(state))
			if err != nil {
				return err
			}
			s.Active[state] = n
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Ended = maps.Clone(c.states)
	return s
}

// patternCost returns what the runs of a version took since the start.
func (h *Hub) patternCost(name, version string) PatternCost {
	c := &h.runs.stats
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.patterns[name+"@"+version]
	if p == nil {
		return PatternCost{Ended: map[pattern.State]int64{}}
	}
	cost := *p
	cost.Ended, cost.Hot = maps.Clone(p.Ended), slices.Clone(p.Hot)
	return cost
}

// patternActive returns how many runs of a version have not ended.
func patternActive(r storage.Reader, name, version string) (int64, error) {
	return storage.Counter(r, runsOf(name, version))
}

// openRuns takes from the store what the loop and the follower of runs begin with.
func (h *Hub) openRuns(ctx context.Context, o *Options) error {
	n := &h.runs
	n.init()
	n.fetch = o.Fetch
	return h.view(ctx, "open runs", func(r storage.Reader) error {
		active := int64(0)
		for _, s := range pattern.States() {
			if s.Final() {
				continue
			}
			count, err := storage.Counter(r, counterRuns+string(s))
			if err != nil {
				return err
			}
			active += count
		}
		n.active.Store(active)
		for item, err := range runWaitTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			id, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			n.waits.add(id, 1)
		}
		return nil
	})
}
