package engine

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// runTally knows how many runs stand alike, so that whoever watches them has not
// all of them read again every other second. It is made when somebody first asks,
// from a snapshot, follows each commit from there on, and is forgotten when nobody
// has asked for a while.
type runTally struct {
	making chan struct{} // holds one: whoever makes it

	mu     sync.Mutex
	follow bool         // moves are taken
	base   uint64       // of the snapshot: what was committed up to it is counted
	moves  []runMoved   // while it is made
	places *tallyPlaces // nil: it is not made
	asked  time.Time    // when it was last
	vain   time.Time    // when there were too many places
}

// tallyPlaces are the places at which there are runs.
type tallyPlaces struct {
	n    int
	jobs map[string]map[RunCount]*tallyCount // by job; "": of none
}

// tallyPlace is where runs stand alike, of one job; its Count is 0.
type tallyPlace struct {
	RunCount
	job string
}

// tallyCount is how many runs are there. Those that wait for an answer of their
// device are listed: whether the device is there is for the moment of the question.
type tallyCount struct {
	n     int64
	calls []tallyCall
	at    map[string]int // where in calls a run is
}

type tallyCall struct {
	run    string
	device TwinID
}

// runMoved is a run that went from one place to another in a commit; a place
// without a pattern is none.
type runMoved struct {
	seq      uint64
	call     tallyCall
	from, to tallyPlace
}

const (
	// tallyMost bounds the places; beyond it nothing is kept.
	tallyMost = 20_000
	// tallyIdle is how long it is kept for nobody.
	tallyIdle = 5 * time.Minute
	// tallyChunk is how many calls are looked at before others get their turn.
	tallyChunk = 1000
)

// place is where a run stands.
func (r *runRecord) place() tallyPlace {
	p := tallyPlace{RunCount: RunCount{Pattern: r.Pattern, Version: r.Version, State: r.State.State, Phase: r.State.Report.Phase}}
	if open := r.State.Open(); open != nil {
		p.Step = open.Op
	}
	if r.Job != nil {
		p.job = r.Job.Job
	}
	return p
}

// movedTx has the tally follow a run, once the transaction is durable.
func (n *runTally) movedTx(tx *storage.Tx, run string, device TwinID, from, to tallyPlace) {
	if from == to {
		return
	}
	tx.OnCommit(func(seq uint64) { n.moved(runMoved{seq, tallyCall{run, device}, from, to}) })
}

func (n *runTally) moved(m runMoved) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.follow:
	case n.places == nil:
		n.moves = append(n.moves, m)
	case time.Since(n.asked) > tallyIdle || n.places.n > tallyMost:
		n.forgetLocked()
	case m.seq > n.base:
		n.places.move(&m)
	}
}

func (n *runTally) forgetLocked() { n.follow, n.moves, n.places = false, nil, nil }

func (l *tallyPlaces) at(p tallyPlace) *tallyCount { return l.jobs[p.job][p.RunCount] }

func (l *tallyPlaces) move(m *runMoved) {
	if c := l.at(m.from); c != nil { // none has no pattern
		if c.remove(m.call.run); c.n == 0 {
			l.n--
			if delete(l.jobs[m.from.job], m.from.RunCount); len(l.jobs[m.from.job]) == 0 {
				delete(l.jobs, m.from.job)
			}
		}
	}
	if m.to.Pattern != "" {
		l.add(m.to, m.call)
	}
}

func (l *tallyPlaces) add(p tallyPlace, call tallyCall) {
	c := l.at(p)
	if c == nil {
		if l.jobs[p.job] == nil {
			l.jobs[p.job] = map[RunCount]*tallyCount{}
		}
		c = &tallyCount{}
		l.jobs[p.job][p.RunCount] = c
		l.n++
	}
	c.n++
	if p.Step != opCall {
		return
	}
	if c.at == nil {
		c.at = map[string]int{}
	}
	c.at[call.run] = len(c.calls)
	c.calls = append(c.calls, call)
}

func (c *tallyCount) remove(run string) {
	c.n--
	i, listed := c.at[run]
	if !listed {
		return
	}
	last := len(c.calls) - 1
	c.calls[i] = c.calls[last]
	c.at[c.calls[i].run] = i
	c.calls = c.calls[:last]
	delete(c.at, run)
}

// tallied counts the runs of a filter that names neither a device nor what is asked. It is
// false when there are too many places to be kept.
func (h *Hub) tallied(ctx context.Context, f *RunFilter) (map[RunCount]int64, bool, error) {
	n := &h.runs.tally
	found, ok, err := n.matching(ctx, h, f)
	if !ok || err != nil {
		return nil, ok, err
	}
	counts := map[RunCount]int64{}
	for p, c := range found {
		one := p.RunCount
		if one.Step == opCall {
			away := min(n.away(h, p), c)
			c -= away
			one.Step = StepConnect
			addCount(counts, one, away)
			one.Step = opCall
		}
		addCount(counts, one, c)
	}
	return counts, true, nil
}

// addCount adds to a count, without the phase when there are too many.
func addCount(counts map[RunCount]int64, one RunCount, n int64) {
	if n == 0 {
		return
	}
	if _, known := counts[one]; !known && len(counts) >= runCountsMost {
		one.Phase = ""
	}
	counts[one] += n
}

// matching are the places of a filter with their numbers.
func (n *runTally) matching(ctx context.Context, h *Hub, f *RunFilter) (map[tallyPlace]int64, bool, error) {
	select {
	case n.making <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	defer func() { <-n.making }()
	n.mu.Lock()
	made, vain := n.places != nil, time.Since(n.vain) < tallyIdle
	n.asked = time.Now()
	n.mu.Unlock()
	if vain {
		return nil, false, nil
	}
	if !made {
		if ok, err := n.make(ctx, h); !ok || err != nil {
			return nil, ok, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.places == nil {
		return nil, false, nil
	}
	found := map[tallyPlace]int64{}
	jobs := n.places.jobs
	if f.Job != "" {
		jobs = map[string]map[RunCount]*tallyCount{f.Job: jobs[f.Job]}
	}
	for job, places := range jobs {
		for count, c := range places {
			if p := (tallyPlace{count, job}); f.wantsPlace(&p) {
				found[p] = c.n
			}
		}
	}
	return found, true, nil
}

func (f *RunFilter) wantsPlace(p *tallyPlace) bool {
	r := runRecord{Pattern: p.Pattern}
	r.State.State = p.State
	if p.job != "" {
		r.Job = &queuedJob{Job: p.job}
	}
	return f.wants(&r)
}

// make counts all runs of a snapshot, and what has moved meanwhile.
func (n *runTally) make(ctx context.Context, h *Hub) (bool, error) {
	n.mu.Lock()
	n.follow = true
	n.mu.Unlock()
	begun := time.Now()
	var places *tallyPlaces
	base, seen := uint64(0), 0
	err := h.view(ctx, "count runs", func(r storage.Reader) error {
		places, base, seen = &tallyPlaces{jobs: map[string]map[RunCount]*tallyCount{}}, storage.SequenceOf(r), 0
		for item, err := range runTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			if seen++; seen%1000 == 0 && (ctx.Err() != nil || time.Since(begun) > h.limits.QueryTime) {
				return cmp.Or(ctx.Err(), runsNotCounted(h, seen))
			}
			id, err := firstPart(item.Key)
			if err != nil {
				return err
			}
			places.add(item.Value.place(), tallyCall{id, item.Value.device()})
			if places.n > tallyMost {
				return nil
			}
		}
		return nil
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil || places.n > tallyMost {
		if n.forgetLocked(); err == nil {
			n.vain = time.Now()
		}
		return false, err
	}
	moves := n.moves
	n.moves, n.base, n.places = nil, base, places
	for _, m := range moves {
		if m.seq > base {
			places.move(&m)
		}
	}
	return true, nil
}

func runsNotCounted(h *Hub, seen int) error {
	return errf(CodeQueryBudget, "%d runs were not counted within %s; name a pattern, a job or a device", seen, h.limits.QueryTime)
}

// away counts runs that wait for the answer of a device that is not there. Runs go
// on meanwhile: it looks at some at a time.
func (n *runTally) away(h *Hub, p tallyPlace) (away int64) {
	devices := make([]TwinID, 0, tallyChunk)
	for from := 0; ; from += tallyChunk {
		devices = devices[:0]
		n.mu.Lock()
		if n.places != nil {
			if c := n.places.at(p); c != nil && from < len(c.calls) {
				for _, call := range c.calls[from:min(len(c.calls), from+tallyChunk)] {
					devices = append(devices, call.device)
				}
			}
		}
		n.mu.Unlock()
		if len(devices) == 0 {
			return away
		}
		for _, id := range devices {
			if h.callable(id) == nil {
				away++
			}
		}
	}
}
