package engine

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// runTx is a transaction in which runs move. What others must know of a run that
// moved (its device's next run, its parent, its job) is told in the same one.
type runTx struct {
	*storage.Tx
	hub  *Hub
	jobs *jobTx
}

// inRuns makes a transaction's function of one that moves runs.
func (h *Hub) inRuns(f func(t *runTx) error) func(tx *storage.Tx) error {
	return h.inJobs(func(j *jobTx) error { return f(&runTx{Tx: j.Tx, hub: h, jobs: j}) })
}

// runInTx is a run in such a transaction.
type runInTx struct {
	runRecord
	id    string
	whole bool          // State.Steps are the whole journal, not just its end
	was   pattern.State // empty: it is new
	ref   string        // of the condition that was followed; empty: none
	undo  bool          // its undo had begun
	begun bool          // it had begun
	asked bool          // a person was asked
	stops bool          // it was canceled
	stood tallyPlace    // where it was
}

// load returns a run with the end of its journal. A step can be settled in it.
func (t *runTx) load(id string) (*runInTx, error) {
	record, err := loadRun(t.Tx, id)
	if err != nil {
		return nil, err
	}
	return t.loaded(id, record, false), nil
}

// loadWhole returns a run with its whole journal: everything can be done to it.
func (t *runTx) loadWhole(id string) (*runInTx, error) {
	record, err := loadWholeRun(t.Tx, id)
	if err != nil {
		return nil, err
	}
	return t.loaded(id, record, true), nil
}

func (t *runTx) loaded(id string, record runRecord, whole bool) *runInTx {
	r := &runInTx{runRecord: record, id: id, whole: whole, was: record.State.State, begun: !record.Started.IsZero(), undo: record.State.Entry == pattern.EntryUndo, stops: record.State.Cancel != nil, stood: record.place()}
	if s := r.State.Open(); s != nil {
		r.asked = s.Op == opApprove
		if s.Op == opWait {
			r.ref = s.Ref
		}
	}
	return r
}

// newRef names an open step for its answer: no two of a run have the same name.
func (r *runInTx) newRef(kind string) string {
	return kind + strconv.FormatUint(r.Revision+1, 36) + "." + strconv.Itoa(len(r.State.Steps))
}

const (
	// chunkBytes is how much of a journal's end lies in the run's record, which each
	// step rewrites; what is more goes into a chunk of its own.
	chunkBytes = 8 << 10
)

// store stores a run that has moved, with all that follows from it.
func (t *runTx) store(r *runInTx) error {
	s, now := &r.State, t.Now()
	r.Revision++
	r.Updated = now
	if s.State != pattern.Queued && !r.Parked && r.Started.IsZero() && s.State != pattern.Canceled {
		r.Started = now
		r.Deadline = now.Add(r.timeout())
	}
	final := s.State.Final()
	if s.State == pattern.Canceled && s.Fault != nil && s.Fault.Code == pattern.FaultTimeout {
		s.State = pattern.Failed
	}
	ended := final && r.Ended.IsZero()
	switch {
	case ended:
		r.Ended, r.Deadline, r.Stop, r.Failures, r.Retry = now, time.Time{}, nil, 0, time.Time{}
	case !final && (!r.Ended.IsZero() || s.Entry == pattern.EntryUndo && !r.undo): // an undo has as much time as the run
		r.Ended, r.Late, r.Deadline = time.Time{}, false, now.Add(r.timeout())
	}
	r.undo = s.Entry == pattern.EntryUndo
	r.Wake = r.wake(now, t.hub)
	if err := errors.Join(t.putWait(r), t.tellRun(r, ended)); err != nil {
		return err
	}
	record, err := t.divide(r)
	if err != nil {
		return err
	}
	if err := runTable.Put(t.Tx, runKey(r.id), record); err != nil {
		return err
	}
	t.count(r, ended)
	place := record.place()
	t.hub.runs.tally.movedTx(t.Tx, r.id, r.device(), r.stood, place)
	r.stood = place
	if ended {
		if err := t.finish(r); err != nil {
			return err
		}
	}
	r.was = s.State
	return nil
}

// timeout is how long a run, or its undo, may take.
func (r *runRecord) timeout() time.Duration {
	if r.Timeout > 0 && r.Timeout < pattern.MaxRun {
		return r.Timeout
	}
	return pattern.MaxRun
}

// wake is when the loop looks at a run by itself.
func (r *runInTx) wake(now time.Time, h *Hub) time.Time {
	s := &r.State
	switch {
	case s.State.Final():
		return time.Time{}
	case r.Stop != nil:
		return now
	case r.Parked:
		return r.Deadline
	case s.State != pattern.Waiting && r.Retry.After(now):
		return r.Retry
	case s.State != pattern.Waiting:
		return now
	}
	due := r.stepDue(h)
	if due.IsZero() || !r.Deadline.IsZero() && r.Deadline.Before(due) {
		due = h.jobs.clock.later(r.Deadline, r.Started)
	}
	return due
}

// stepDue is when the open step ends by itself. What waits for somebody gets as
// much more time as the clock jumped; a moment that was waited for is what it is.
func (r *runRecord) stepDue(h *Hub) time.Time {
	s := r.State.Open()
	if s == nil || s.Due.IsZero() {
		return time.Time{}
	}
	if op, _ := pattern.Find(s.Op); op.Timer {
		return s.Due
	}
	return h.jobs.clock.later(s.Due, s.Begun)
}

// putWait keeps the table of conditions in step with the run.
func (t *runTx) putWait(r *runInTx) error {
	s := r.State.Open()
	h, id := t.hub, r.device()
	if s == nil || s.Op != opWait {
		if r.ref == "" {
			return nil
		}
		r.ref = ""
		t.OnCommit(func(uint64) { h.runs.waits.add(id, -1) })
		return runWaitTable.Delete(t.Tx, runWaitKey(id, r.id))
	}
	if s.Ref == r.ref {
		return nil
	}
	if r.ref == "" {
		t.OnCommit(func(uint64) { h.runs.waits.add(id, 1) })
	}
	r.ref = s.Ref
	a, fault := readArgs[pattern.WaitArgs](s)
	if fault != nil {
		return errf(CodeInternal, "the run %q waits for what can't be read: %s", r.id, fault.Message)
	}
	return runWaitTable.Put(t.Tx, runWaitKey(id, r.id), runWait{Ref: s.Ref, Where: a.Where, Vars: a.Vars})
}

// divide returns the record as it is stored, and stores parts of the journal and
// of the logs that have become long enough by themselves.
func (t *runTx) divide(r *runInTx) (runRecord, error) {
	if err := t.divideLogs(r); err != nil {
		return runRecord{}, err
	}
	record := r.runRecord
	if r.whole {
		// An undo that is taken again drops steps that were stored already.
		for n := len(r.Chunks); n > 0 && r.Chunks[n-1] > len(r.State.Steps); n-- {
			if err := runStepsTable.Delete(t.Tx, runChunkKey(r.id, n-1)); err != nil {
				return record, err
			}
			r.Chunks = slices.Clone(r.Chunks[:n-1])
		}
		if n := len(r.Chunks); n > 0 {
			record.State.Steps = r.State.Steps[r.Chunks[n-1]:]
		}
	}
	stored := 0
	if n := len(r.Chunks); n > 0 {
		stored = r.Chunks[n-1]
	}
	tail := record.State.Steps
	size, closed := 0, 0
	for i := range tail {
		if tail[i].Open {
			break
		}
		size += len(tail[i].Args) + len(tail[i].Result) + 100
		closed++
	}
	if size >= chunkBytes && !r.State.State.Final() {
		if err := runStepsTable.Put(t.Tx, runChunkKey(r.id, len(r.Chunks)), tail[:closed]); err != nil {
			return record, err
		}
		r.Chunks = append(slices.Clone(r.Chunks), stored+closed)
		record.State.Steps = tail[closed:]
		if !r.whole {
			r.State.Steps = record.State.Steps
		}
	}
	record.Chunks = r.Chunks
	return record, nil
}

// divideLogs moves lines that were logged before out of the record, and drops
// what is more than may be kept.
func (t *runTx) divideLogs(r *runInTx) error {
	size, lines := 0, len(r.State.Logs)
	for i := range r.State.Logs {
		size += len(r.State.Logs[i].Text) + 50
	}
	if size >= chunkBytes && !r.State.State.Final() {
		if err := runLogsTable.Put(t.Tx, runChunkKey(r.id, r.LogFirst+len(r.Logs)), r.State.Logs); err != nil {
			return err
		}
		r.Logs = append(slices.Clone(r.Logs), lines)
		r.State.Logs, lines = nil, 0
	}
	for _, n := range r.Logs {
		lines += n
	}
	for len(r.Logs) > 0 && lines-r.Logs[0] >= pattern.MaxLogs {
		if err := runLogsTable.Delete(t.Tx, runChunkKey(r.id, r.LogFirst)); err != nil {
			return err
		}
		lines -= r.Logs[0]
		r.Logs = slices.Clone(r.Logs[1:])
		r.LogFirst++
	}
	return nil
}

// count keeps the counters in step, and tells the loop and whoever follows.
func (t *runTx) count(r *runInTx, ended bool) {
	h, id, is := t.hub, r.id, r.State.State
	if r.was != is {
		if r.was != "" && !r.was.Final() {
			t.Add(counterRuns+string(r.was), -1)
		}
		if !is.Final() {
			t.Add(counterRuns+string(is), 1)
		}
	}
	began := r.was == "" || r.was.Final() && !is.Final()
	switch {
	case began:
		t.Add(runsOf(r.Pattern, r.Version), 1)
		if r.was != "" {
			t.Add(counterRunsEnded, -1)
		}
	case ended:
		t.Add(runsOf(r.Pattern, r.Version), -1)
		t.Add(counterRunsEnded, 1)
	}
	wake := r.Wake
	asks := runAsks(r.State.Open()) == asksWork
	t.OnCommit(func(uint64) {
		switch {
		case began:
			h.runs.active.Add(1)
			h.runs.tellBegan()
		case ended:
			h.runs.active.Add(-1)
		}
		h.runs.moved(id, wake, asks)
	})
}

// finish tells of the end of a run to whom it concerns.
func (t *runTx) finish(r *runInTx) error {
	h := t.hub
	name, version, is, size := r.Pattern, r.Version, r.State.State, r.State.Size()
	t.OnCommit(func(uint64) { h.runs.stats.ended(name, version, is, size) })
	if err := t.release(r); err != nil {
		return err
	}
	if r.Parent != "" {
		if err := t.tellParent(r); err != nil {
			return err
		}
	}
	if r.Job == nil {
		return nil
	}
	return t.jobs.runEnded(*r.Job, r.device(), &r.runRecord)
}

// tellParent settles the step with which another run started this one.
func (t *runTx) tellParent(r *runInTx) error {
	p, err := t.load(r.Parent)
	if isRunGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	result, fault := r.State.Result, r.State.Fault
	switch r.State.State {
	case pattern.Succeeded, pattern.Skipped:
		fault = nil
	default:
		result = nil
		if fault == nil {
			fault = faultf(pattern.FaultRejected, "the run %s is %s", r.id, r.State.State)
		}
		fault = &pattern.Fault{Code: fault.Code, Message: fault.Message, Status: fault.Status, Cause: fault.Cause, Payload: fault.Payload}
	}
	if !p.State.Settle(r.id, result, fault, t.Now()) {
		return nil // it waits no more
	}
	return t.store(p)
}

// isRunGone reports whether an error says that there is no such run.
func isRunGone(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == CodeRunNotFound
}
