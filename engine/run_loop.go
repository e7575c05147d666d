package engine

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Runs are run by one loop. What a run is and waits for lies in the store, and
// nothing of it in memory: an index says when the loop has to look at a run by
// itself, and whatever else moves one (an answer, a person, a twin that has come
// to match) says so once that is durable. The loop hands runs to a few workers in
// batches; a batch is one activation of each, and one transaction (see runTurn).
// A run that may go on at once stands behind the others again.

// runRunner is the state of the loop that runs runs. It is safe for concurrent use.
type runRunner struct {
	streams runStreams    // who follows runs
	signal  chan struct{} // capacity 1: something is to be looked at
	fetch   Fetch         // nil: requests can't be sent
	active  atomic.Int64  // runs that have not ended
	began   chan struct{} // capacity 1: one began
	waits   deviceCounts  // devices on which a condition is followed
	stats   runCounters
	clauses runClauses
	tally   runTally
	ids     runIDs

	mu    sync.Mutex
	ready []string  // runs that may go on now
	lost  bool      // more than that: look through the index
	due   time.Time // the earliest that was set since the loop looked; zero: none
	asks  []string  // runs for which workers have something to do
	much  bool      // more than that
}

// Bounds of what the loop is told and holds.
const (
	runsReadyMost = 20_000
	runBatch      = 64 // runs of one transaction
	runsScan      = 2000
	runsTick      = time.Minute // how often all of the index is looked at, whatever was told
	runsRetry     = time.Second // the pause after an error of the store
)

func (n *runRunner) init() {
	n.signal = make(chan struct{}, 1)
	n.began = make(chan struct{}, 1)
	n.stats.init()
	n.tally.making = make(chan struct{}, 1)
}

// moved tells the loop, and whoever follows, of a run that was stored. It runs in
// the committer.
func (n *runRunner) moved(id string, wake time.Time, asks bool) {
	n.streams.wake(id)
	if wake.IsZero() && !asks {
		return
	}
	now := !wake.IsZero() && !wake.After(time.Now())
	n.mu.Lock()
	switch {
	case now && len(n.ready) < runsReadyMost:
		n.ready = append(n.ready, id)
	case now:
		n.lost = true
	case !wake.IsZero() && (n.due.IsZero() || wake.Before(n.due)):
		n.due = wake
	}
	switch {
	case asks && len(n.asks) < runsReadyMost:
		n.asks = append(n.asks, id)
	case asks:
		n.much = true
	}
	n.mu.Unlock()
	n.wake()
}

func (n *runRunner) wake() {
	select {
	case n.signal <- struct{}{}:
	default:
	}
}

// runLoop is the state of runRuns alone.
type runLoop struct {
	hub   *Hub
	queue []string            // runs that are to be looked at, in order
	known map[string]runPlace // what is in the queue, and with workers
	from  time.Time           // what was due before it is known, or was looked at
	after storage.Key         // how far what is due now was looked at; nil: all of it was
	dueAt time.Time           // when the index is to be looked at; zero: not before something is told
	whole time.Time           // when all of it was

	slots   int // that are free
	done    chan runsDone
	workers sync.WaitGroup
	tasks   *runTasks
	told    time.Time
}

// runPlace says where a run is.
type runPlace uint8

const (
	runQueued runPlace = iota + 1
	runWorked          // with a worker
	runAgain           // with a worker, and told of meanwhile
)

// runsDone is what a worker is done with.
type runsDone struct {
	ids []string
	err error // none of them was moved
}

// runWorkers is how many batches are under way at once: a worker waits for the
// interpreter or the disk most of the time.
func runWorkers() int { return max(4, 2*runtime.NumCPU()) }

// runRuns runs every run until ctx ends: it is Run's, and returns when all that
// it began has stopped. A restored hub that was not resumed runs none.
func (h *Hub) runRuns(ctx context.Context) {
	if h.db.Paused() { // a start comes after muster resume
		<-ctx.Done()
		return
	}
	l := &runLoop{hub: h, known: map[string]runPlace{}, slots: runWorkers(), done: make(chan runsDone, runWorkers())}
	l.tasks = newRunTasks(h)
	var others sync.WaitGroup
	defer others.Wait()
	defer l.workers.Wait()
	others.Go(func() { h.followForRuns(ctx) })
	others.Go(func() { l.tasks.run(ctx) })
	for ctx.Err() == nil {
		if h.jobs.clock.look(time.Now()) {
			h.log.Warn("the clock went forward while runs waited: what waits for somebody gets as much more time")
		}
		err := l.collect(ctx)
		if err == nil {
			l.dispatch(ctx)
		} else if ctx.Err() == nil {
			l.tell(err)
		}
		l.sleep(ctx, err != nil)
	}
}

// tell writes to the log that runs are held up, not each time.
func (l *runLoop) tell(err error) {
	if time.Since(l.told) < toldEvery {
		return
	}
	l.told = time.Now()
	l.hub.log.Warn("runs are held up; they go on in a moment", slog.Any("error", err))
}

// collect takes what was told, and what is due.
func (l *runLoop) collect(ctx context.Context) error {
	n := &l.hub.runs
	n.mu.Lock()
	ready, lost, asks, much := n.ready, n.lost, n.asks, n.much
	n.ready, n.lost, n.asks, n.much = nil, false, nil, false
	if !n.due.IsZero() && (l.dueAt.IsZero() || n.due.Before(l.dueAt)) {
		l.dueAt = n.due
	}
	n.due = time.Time{}
	n.mu.Unlock()
	l.tasks.take(asks, much)
	for _, id := range ready {
		l.put(id)
	}
	now := time.Now()
	if lost || now.Sub(l.whole) >= runsTick || now.Before(l.from) {
		l.from, l.after, l.dueAt = time.Time{}, nil, now
		l.whole = now
	}
	if l.dueAt.IsZero() || now.Before(l.dueAt) || len(l.queue) >= runsScan/2 {
		return nil
	}
	return l.scan(ctx, now)
}

// scan looks for what has become due. What is due already and was seen before is
// not looked at again: entries that were deleted lie in its place.
func (l *runLoop) scan(ctx context.Context, now time.Time) error {
	var ids []string
	var next time.Time
	var last storage.Key
	err := l.hub.view(ctx, "look for runs that are due", func(r storage.Reader) error {
		ids, next, last = nil, time.Time{}, nil
		g := storage.Range{After: l.after}
		if !l.from.IsZero() && l.after == nil {
			g.Start = storage.Tuple(l.from)
		}
		for item, err := range runTable.Lookup(r, "due", g) {
			if err != nil {
				return err
			}
			if item.Value.Wake.After(now) {
				next = item.Value.Wake
				return nil
			}
			id, err := runOfKey(item.Key)
			if err != nil {
				return err
			}
			if ids = append(ids, id); len(ids) == runsScan {
				last = append(storage.Tuple(item.Value.Wake), item.Key...)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		l.put(id) // a worker that has it may have looked before it was due
	}
	if last != nil { // there may be more
		l.after = last
		return nil
	}
	l.from, l.after, l.dueAt = now, nil, next
	return nil
}

// put has a run looked at.
func (l *runLoop) put(id string) {
	switch l.known[id] {
	case 0:
		l.known[id] = runQueued
		l.queue = append(l.queue, id)
	case runWorked:
		l.known[id] = runAgain
	}
}

// dispatch hands batches to workers that are free.
func (l *runLoop) dispatch(ctx context.Context) {
	for l.slots > 0 && len(l.queue) > 0 {
		n := min(runBatch, len(l.queue))
		// A few batches at once are worth more than one large one.
		if n = min(n, max(8, (len(l.queue)+l.slots-1)/l.slots)); n > len(l.queue) {
			n = len(l.queue)
		}
		ids := append([]string(nil), l.queue[:n]...)
		if l.queue = l.queue[n:]; len(l.queue) == 0 {
			l.queue = nil
		}
		for _, id := range ids {
			l.known[id] = runWorked
		}
		l.slots--
		l.workers.Go(func() {
			l.done <- runsDone{ids, l.hub.turnRuns(ctx, ids)}
		})
	}
}

// finished takes back what a worker is done with.
func (l *runLoop) finished(d runsDone) (failed bool) {
	l.slots++
	for _, id := range d.ids {
		again := l.known[id] == runAgain || d.err != nil
		delete(l.known, id)
		if again {
			l.put(id)
		}
	}
	if d.err != nil {
		l.tell(d.err)
	}
	return d.err != nil
}

// sleep waits until something is to be done.
func (l *runLoop) sleep(ctx context.Context, failed bool) {
	wait := runsTick
	switch {
	case failed:
		wait = runsRetry
	case !l.dueAt.IsZero() && len(l.queue) < runsScan/2: // else a worker is done sooner
		wait = max(time.Millisecond, min(wait, time.Until(l.dueAt)))
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	signal := l.hub.runs.signal
	if failed {
		signal = nil
	}
	select {
	case <-ctx.Done():
	case <-signal:
	case d := <-l.done:
		failed := l.finished(d)
		for more := true; more; {
			select {
			case d := <-l.done:
				failed = l.finished(d) || failed
			default:
				more = false
			}
		}
		if failed && ctx.Err() == nil {
			l.sleep(ctx, true)
		}
	case <-t.C:
	}
}

// runOfKey reads what runKey made.
func runOfKey(k storage.Key) (string, error) {
	parts, err := k.Parts()
	if err != nil {
		return "", err
	}
	id, ok := parts[0].(string)
	if !ok {
		return "", errRunKey
	}
	return id, nil
}

var errRunKey = errors.New("key is not that of a run")
