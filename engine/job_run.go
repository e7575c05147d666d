package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// Jobs are run by one loop. It holds a small state for each job that has not
// ended, and nothing for their targets but a page of those that may go on; it
// sleeps until something is due or somebody wakes it, and then gives turns to
// jobs, by priority and age: a turn is one transaction of some targets (see
// jobTurn). What devices answer is stored by whoever took it from them.

// jobRunner is the state of the loop that runs jobs. It is safe for concurrent use.
type jobRunner struct {
	streams jobStreams    // who follows jobs
	signal  chan struct{} // capacity 1: something is to be looked at
	stats   jobCounters
	clock   jobClock
	rate    *rate.Limiter // of targets that are begun, in the whole hub; nil: no bound
	works   jobWorks

	// writing is held by who moves executions: two that write the same job would
	// only have their transactions prepared again, inside the committer.
	writing sync.Mutex

	mu        sync.Mutex
	dirty     map[string]struct{} // jobs that were changed since the loop looked at them
	devices   map[TwinID]bool     // that came, or are free: who waits for them? True: look at all executions on them
	everybody bool                // more than that came; look at all who wait
	due       time.Time           // the earliest that was set since the loop looked; zero: none
	late      []lateAnswer
	ends      []*callEnd // of calls of jobs, that nobody has stored yet
}

// Bounds of what the loop is told and has not looked at.
const (
	jobDevicesMost = 20_000
	jobLateMost    = 1000
)

// jobCounters count what metrics show.
type jobCounters struct {
	active, waiting, running atomic.Int64
	late                     atomic.Int64

	mu    sync.Mutex
	ended map[rollout.ExecutionStatus]int64
}

// JobStats are figures of the hub's jobs, for metrics. Active, Waiting and
// InFlight are of this moment, the others count since the start.
type JobStats struct {
	Active   int64            // jobs that have not ended
	Waiting  int64            // executions that wait for their device, or for another job's on it
	InFlight int64            // executions whose command is on its way
	Ended    map[string]int64 // executions by their final status
	Late     int64            // answers to attempts that had been given up, or had been answered
}

// JobStats returns the figures of the hub's jobs; it is cheap.
func (h *Hub) JobStats() JobStats {
	c := &h.jobs.stats
	s := JobStats{Active: c.active.Load(), Waiting: c.waiting.Load(), InFlight: c.running.Load(), Late: c.late.Load(), Ended: map[string]int64{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, status := range rollout.ExecutionStatuses() {
		if status.Phase(true).Final() {
			s.Ended[string(status)] = c.ended[status]
		}
	}
	return s
}

func (j *jobRunner) init(l *Limits) {
	j.signal = make(chan struct{}, 1)
	j.dirty, j.devices = map[string]struct{}{}, map[TwinID]bool{}
	j.stats.ended = map[rollout.ExecutionStatus]int64{}
	if l.JobDeviceRate > 0 {
		j.rate = rate.NewLimiter(rate.Limit(l.JobDeviceRate), max(1, int(l.JobDeviceRate)))
	}
}

// wakeJobTx has the loop look at a job once the transaction is durable: it was
// made, paused, resumed, approved, canceled or given something to do.
func (h *Hub) wakeJobTx(tx *storage.Tx, id string) {
	tx.OnCommit(func(uint64) { h.jobs.look(id) })
}

// look marks a job for the loop. It never blocks, as none of these does.
func (j *jobRunner) look(id string) {
	j.streams.wake(id)
	j.mu.Lock()
	j.dirty[id] = struct{}{}
	j.mu.Unlock()
	j.wake()
}

func (j *jobRunner) wake() {
	select {
	case j.signal <- struct{}{}:
	default:
	}
}

// attend has the loop look for executions that wait for a device.
func (j *jobRunner) attend(id TwinID) { j.attendTo(id, false) }

// attendAll has it look at all executions on a device, whose identity may be gone.
func (j *jobRunner) attendAll(id TwinID) { j.attendTo(id, true) }

func (j *jobRunner) attendTo(id TwinID, all bool) {
	j.mu.Lock()
	if len(j.devices) < jobDevicesMost {
		j.devices[id] = j.devices[id] || all
	} else {
		j.everybody = true
	}
	j.mu.Unlock()
	j.wake()
}

// lateAnswer is an answer for which nobody waits any more.
type lateAnswer struct {
	id     TwinID
	call   lateCall
	result MethodResult
}

// lateAnswer hands one to the loop; it is dropped, and counted, if too many come.
func (j *jobRunner) lateAnswer(id TwinID, call lateCall, result MethodResult) {
	j.mu.Lock()
	full := len(j.late) >= jobLateMost
	if !full {
		j.late = append(j.late, lateAnswer{id, call, result})
	}
	j.mu.Unlock()
	if full {
		j.stats.late.Add(1)
		return
	}
	j.wake()
}

// count takes what a transaction added to the figures, once it is durable.
func (j *jobRunner) count(g jobGauge) {
	j.stats.waiting.Add(g.waiting)
	j.stats.running.Add(g.running)
	if len(g.ended) > 0 {
		j.stats.mu.Lock()
		for status, n := range g.ended {
			j.stats.ended[status] += n
		}
		j.stats.mu.Unlock()
	}
	if !g.due.IsZero() || g.running < 0 {
		j.mu.Lock()
		if !g.due.IsZero() && (j.due.IsZero() || g.due.Before(j.due)) {
			j.due = g.due
		}
		j.mu.Unlock()
		j.wake()
	}
}

// jobsTick is how long the loop sleeps at most: what was due while the store took
// no writes is looked at again, and the clock.
const jobsTick = time.Minute

// jobLoop is the state of runJobs alone.
type jobLoop struct {
	hub    *Hub
	active map[string]*activeJob
	order  []*activeJob // active, by priority and age
	dueAt  time.Time    // the earliest time at which an execution is due; zero: none
	due    storage.Key  // before it none is, but for those that jobRunner.due tells of
	dueNow bool         // look at once
	follow jobFollowers

	gates sync.WaitGroup // health checks that run
	told  time.Time      // when the log was last told of an error
}

// activeJob is what the loop knows of a job that has not ended.
type activeJob struct {
	id       string
	priority int
	created  time.Time
	run      uint64
	status   rollout.JobStatus
	follows  bool // it has a condition that is followed
	laidOut  bool
	ranked   bool      // so are all its executions that wait
	start    time.Time // its targets are those of this time
	repeats  time.Time // when its next run begins; its run has ended
	undoing  bool      // its runs are being told to take back what they did

	ready bool      // it may have a turn
	wake  time.Time // when it is ready again at the latest; zero: never
	batch int       // targets of a turn
	// starved says that the hub's budget was taken by others, closed that no
	// window was open.
	starved, closed bool
	// again are executions that may go on, some of them if more is set.
	again []TwinID
	more  bool
	after storage.Key // how far they were looked for
	// stopped is how far the runs of a canceled job were told to end.
	stopped storage.Key

	mu     sync.Mutex
	health besideLoop[rollout.HealthResult]
	gate   besideLoop[rollout.GateResult] // what the pattern's gate said
}

// runJobs runs every job until ctx ends: it is Run's, and returns when all that
// it began has stopped. A restored hub that was not resumed runs none.
func (h *Hub) runJobs(ctx context.Context) {
	if h.db.Paused() { // a start comes after muster resume
		<-ctx.Done()
		return
	}
	l := &jobLoop{hub: h, active: map[string]*activeJob{}}
	l.follow.open(ctx, l)
	defer l.gates.Wait()
	defer l.follow.close()
	for !l.sleepOn(ctx, l.load(ctx)) {
	}
	for ctx.Err() == nil {
		if h.jobs.clock.look(time.Now()) {
			h.log.Warn("the clock went forward while jobs ran: what waits for an answer gets as much more time")
		}
		wait, err := l.pass(ctx)
		if err != nil {
			l.sleepOn(ctx, err)
			continue
		}
		if wait > 0 {
			l.sleep(ctx, wait)
		}
	}
}

// jobsRetry is the pause after an error of the store.
const jobsRetry = time.Second

// tell writes to the log that something about a job does not work, not each time.
func (l *jobLoop) tell(what, job string, err error) {
	if time.Since(l.told) < toldEvery {
		return
	}
	l.told = time.Now()
	l.hub.log.Warn(what, slog.String("job", job), slog.Any("error", err))
}

// sleepOn waits a moment after an error; it reports whether there was none.
func (l *jobLoop) sleepOn(ctx context.Context, err error) (fine bool) {
	if err == nil || ctx.Err() != nil {
		return true
	}
	l.tell("jobs are held up; they go on in a moment", "", err)
	t := time.NewTimer(jobsRetry)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}

// sleep waits until something is to be done, at most as long as it says.
func (l *jobLoop) sleep(ctx context.Context, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-l.hub.jobs.signal:
	case p := <-l.follow.pages:
		l.follow.got = append(l.follow.got, p)
	case <-t.C:
	}
}

// takeSet takes all that is in a set; nobody else has what it returns.
func takeSet[K comparable, V any](set *map[K]V) map[K]V {
	taken := *set
	if len(taken) == 0 {
		return nil // the empty one stays where others add to it
	}
	*set = map[K]V{}
	return taken
}

// pass does what there is to do for one turn, and says how long nothing will be.
func (l *jobLoop) pass(ctx context.Context) (wait time.Duration, err error) {
	j := &l.hub.jobs
	j.mu.Lock()
	dirty, devices := takeSet(&j.dirty), takeSet(&j.devices)
	everybody, late := j.everybody, j.late
	j.everybody, j.late = false, nil
	if !j.due.IsZero() {
		if l.dueAt.IsZero() || j.due.Before(l.dueAt) {
			l.dueAt = j.due
		}
		if k := storage.Tuple(j.due); bytes.Compare(k, l.due) < 0 {
			l.due = k
		}
	}
	j.due = time.Time{}
	j.mu.Unlock()
	// What could not be done for now comes again.
	defer func() {
		if err != nil {
			l.putBack(dirty, devices, everybody, late)
		}
	}()
	if len(dirty) > 0 {
		if err := l.refresh(ctx, dirty); err != nil {
			return 0, err
		}
	}
	if err := l.takeLate(ctx, late); err != nil {
		return 0, err
	}
	late = nil
	if everybody {
		for _, a := range l.order {
			a.more, a.after, a.ready = true, nil, true
		}
	}
	if err := l.attend(ctx, devices); err != nil {
		return 0, err
	}
	now := time.Now()
	if l.dueNow || !l.dueAt.IsZero() && !now.Before(l.dueAt) {
		if err := l.sweep(ctx, now); err != nil {
			return 0, err
		}
	}
	if err := l.follow.take(ctx); err != nil {
		return 0, err
	}
	for _, a := range l.order {
		if !a.wake.IsZero() && !now.Before(a.wake) {
			a.ready, a.wake = true, time.Time{}
		}
		if a.starved && j.stats.running.Load() < int64(l.hub.limits.JobsInFlight) {
			a.ready, a.starved = true, false
		}
		if a.ready {
			return 0, l.turn(ctx, a)
		}
	}
	wait = jobsTick
	for _, a := range l.order {
		if !a.wake.IsZero() {
			wait = min(wait, a.wake.Sub(now))
		}
	}
	if !l.dueAt.IsZero() {
		wait = min(wait, l.dueAt.Sub(now))
	}
	return max(wait, time.Millisecond), nil
}

func (l *jobLoop) putBack(dirty map[string]struct{}, devices map[TwinID]bool, everybody bool, late []lateAnswer) {
	j := &l.hub.jobs
	j.mu.Lock()
	defer j.mu.Unlock()
	for id := range dirty {
		j.dirty[id] = struct{}{}
	}
	for id, all := range devices {
		j.devices[id] = j.devices[id] || all
	}
	j.everybody = j.everybody || everybody
	j.late = append(late, j.late...)
}

// load finds the jobs that have not ended, and who waits in them.
func (l *jobLoop) load(ctx context.Context) error {
	dirty := map[string]struct{}{}
	err := l.hub.view(ctx, "read jobs", func(r storage.Reader) error {
		for _, status := range rollout.JobStatuses() {
			if status.Final() {
				continue
			}
			if err := jobIDs(r, "status", storage.Tuple(string(status)), dirty); err != nil {
				return err
			}
		}
		return errors.Join(jobIDs(r, "next", nil, dirty), jobIDs(r, "undo", nil, dirty))
	})
	if err != nil {
		return err
	}
	l.dueNow = true
	if err := l.refresh(ctx, dirty); err != nil {
		return err
	}
	return l.recount(ctx)
}

func jobIDs(r storage.Reader, index string, prefix storage.Key, into map[string]struct{}) error {
	for item, err := range jobTable.Lookup(r, index, storage.Range{Prefix: prefix}) {
		if err != nil {
			return err
		}
		parts, err := item.Key.Parts()
		if err != nil {
			return err
		}
		id, _ := parts[0].(string)
		into[id] = struct{}{}
	}
	return nil
}

// refresh reads jobs again that were changed by others.
func (l *jobLoop) refresh(ctx context.Context, dirty map[string]struct{}) error {
	l.dueNow = true // whoever changed a job may have put executions back
	err := l.hub.view(ctx, "read jobs", func(r storage.Reader) error {
		for id := range dirty {
			record, err := jobTable.Get(r, jobKey(id))
			if errors.Is(err, storage.ErrNotFound) {
				l.drop(id)
				continue
			}
			if err == nil {
				err = l.note(r, id, &record)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	l.hub.jobs.stats.active.Store(int64(len(l.active)))
	return err
}

// note takes over how a job stands.
func (l *jobLoop) note(reader storage.Reader, id string, r *jobRecord) error {
	if r.ended() && !r.undoing() {
		l.drop(id)
		return nil
	}
	a := l.active[id]
	if a != nil && !a.created.Equal(r.Created) { // another one of the same name
		l.drop(id)
		a = nil
	}
	if a == nil {
		work, err := l.hub.jobs.works.get(l.hub, reader, id, r)
		if err != nil {
			l.tell("a job can't be run", id, err)
			return nil
		}
		a = &activeJob{
			id: id, priority: r.Priority, created: r.Created, batch: jobBatch, more: true,
			start: work.policy.Start, follows: work.confirm != nil || work.spec.Spec.Targets.Dynamic,
		}
		l.active[id] = a
		i, _ := slices.BinarySearchFunc(l.order, a, compareActive)
		l.order = slices.Insert(l.order, i, a)
	}
	if a.run != r.Run {
		a.run, a.again, a.more, a.after = r.Run, nil, true, nil
	}
	if a.status != r.State.Status {
		a.more, a.after, a.stopped = true, nil, nil
	}
	a.status, a.laidOut, a.repeats = r.State.Status, r.State.LaidOut, r.NextRun
	a.undoing, a.ranked = r.undoing(), r.Ranked
	a.ready = true
	l.follow.note(a, &r.State)
	return nil
}

func compareActive(a, b *activeJob) int {
	if a.priority != b.priority {
		return b.priority - a.priority
	}
	if c := a.created.Compare(b.created); c != 0 {
		return c
	}
	switch {
	case a.id < b.id:
		return -1
	case a.id > b.id:
		return 1
	}
	return 0
}

// drop forgets a job that has ended, or is gone.
func (l *jobLoop) drop(id string) {
	a := l.active[id]
	if a == nil {
		return
	}
	delete(l.active, id)
	if i, found := slices.BinarySearchFunc(l.order, a, compareActive); found {
		l.order = slices.Delete(l.order, i, i+1)
	}
	l.follow.drop(a)
	l.hub.jobs.works.drop(id)
}

// recount takes the figures of what waits and is in flight from the store.
func (l *jobLoop) recount(ctx context.Context) error {
	l.hub.jobs.writing.Lock()
	defer l.hub.jobs.writing.Unlock()
	var waiting, running int64
	err := l.hub.view(ctx, "count executions", func(r storage.Reader) error {
		for _, a := range l.order {
			record, err := jobTable.Get(r, jobKey(a.id))
			if err != nil {
				return err
			}
			waiting += int64(record.State.Total().Waiting)
			if record.State.Total().Active == 0 || record.Kind == JobRunPattern {
				continue
			}
			for item, err := range executionTable.Lookup(r, "status", storage.Range{Prefix: storage.Tuple(a.id, a.run, string(rollout.ExecutionRunning))}) {
				if err != nil {
					return err
				}
				_, _, id, err := executionOfKey(item.Key)
				if err != nil {
					return err
				}
				l.hub.jobs.attendAll(id) // it may have been deleted right before a kill
				running++
			}
		}
		return nil
	})
	if err == nil {
		l.hub.jobs.stats.waiting.Store(waiting)
		l.hub.jobs.stats.running.Store(running)
	}
	return err
}
