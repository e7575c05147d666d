package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// JobUndo is how far it is that what a job's runs did is taken back: first each run
// is told so, then their undo runs, as any run does. Asked for again it goes on:
// runs whose undo failed leave Failed, and those that came since are added.
type JobUndo struct {
	Reason  string // as By and Started of the first time that it was asked for
	By      string // who asked for it; the job's own gate: "gate"
	Started time.Time
	Told    bool  // each run was told
	Begun   int64 // runs whose undo began, or follows their end
	Left    int64 // runs with nothing to take back
	Undone  int64 // of Begun
	Failed  int64 // of Begun
}

// jobUndo is a stored JobUndo.
type jobUndo struct {
	Reason  string    `json:"w,omitempty"`
	By      string    `json:"p"`
	Started time.Time `json:"s"`
	Run     uint64    `json:"r"`           // of the job
	After   []byte    `json:"a,omitempty"` // the execution behind which it goes on
	Told    bool      `json:"t,omitempty"`
	Begun   int64     `json:"b,omitempty"`
	Left    int64     `json:"l,omitempty"`
	Undone  int64     `json:"u,omitempty"`
	Failed  int64     `json:"f,omitempty"`
	Asked   time.Time `json:"n,omitzero"` // for the last time, if that is not the first
	Counted time.Time `json:"c,omitzero"` // runs that were made before it were told an earlier time
}

// show returns the record as callers see it; nil of nil.
func (u *jobUndo) show() *JobUndo {
	if u == nil {
		return nil
	}
	return &JobUndo{Reason: u.Reason, By: u.By, Started: u.Started.UTC(), Told: u.Told, Begun: u.Begun, Left: u.Left, Undone: u.Undone, Failed: u.Failed}
}

// undoing reports whether runs of the job are still to be told that what they did
// is taken back.
func (r *jobRecord) undoing() bool { return r.Undo != nil && !r.Undo.Told }

// undoBatch is how many executions a step of an undo looks at.
const undoBatch = 64

// UndoJob takes back what the runs of a job did, by the pattern's undo: of those
// that have ended and of those under way, which are canceled first. A job that has
// not ended is canceled. It goes on by itself, across restarts; Job.Undo shows how
// far it is. Asked for again it takes back what is left: of runs whose undo failed,
// and of those that came since. CodeJobState if the job runs no pattern, its pattern
// has no undo, an undo is under way, or all is undone. It needs ServiceConnect.
func (h *Hub) UndoJob(ctx context.Context, c Caller, id, reason, etag string) (Job, error) {
	if err := checkReason(reason); err != nil {
		return Job{}, err
	}
	if reason == "" {
		reason = "undone by " + c.Principal.String()
	}
	if err := h.authorize(ctx, c, opJobControl, id); err != nil {
		return Job{}, err
	}
	left := true
	err := h.view(ctx, "look for what is left to undo", func(r storage.Reader) (err error) {
		left, err = undoLeft(ctx, r, id)
		return err
	})
	if err != nil {
		return Job{}, err
	}
	return h.control(ctx, c, opJobControl, "job.undo", id, etag, func(tx *storage.Tx, r *jobRecord) error {
		spec, err := loadJobSpec(tx, id)
		if err != nil {
			return err
		}
		a := spec.Spec.Action.Run
		if a == nil {
			return errf(CodeJobState, "the job %q is of the kind %s; only what patterns did can be undone", id, r.Kind)
		}
		record, err := h.pattern(tx, a.Pattern, a.Version)
		if err != nil {
			return err
		}
		if !record.Manifest.HasUndo {
			return errf(CodeJobState, "the job %q can't be undone: %s has no undo", id, record.what())
		}
		if u := r.Undo; u != nil && u.Run == r.Run && (!u.Told || u.Undone+u.Failed < u.Begun) {
			return errf(CodeJobState, "the job %q is being undone already: %d of %d runs are", id, u.Undone+u.Failed, u.Begun)
		}
		next := jobUndo{Reason: reason, By: c.Principal.String(), Started: tx.Now(), Run: r.Run}
		if u := r.Undo; u != nil && u.Run == r.Run {
			if !left {
				return errf(CodeJobState, "the job %q is undone already: of its runs none is left that did something and can be undone", id)
			}
			next = *u
			next.Told, next.Asked, next.Counted = false, tx.Now(), u.asked()
		}
		r.NextRun = time.Time{}
		if !r.State.Status.Final() && r.State.Status != rollout.JobCanceling {
			if err := r.State.Cancel(reason); err != nil {
				return jobState(id, err)
			}
		}
		r.Undo = &next
		return nil
	})
}

// asked is when it was asked for, the last time.
func (u *jobUndo) asked() time.Time {
	if u.Asked.IsZero() {
		return u.Started
	}
	return u.Asked
}

// undoLeft reports whether there is something to undo of a job that was undone. It
// is true for one that was not.
func undoLeft(ctx context.Context, r storage.Reader, id string) (bool, error) {
	job, err := loadJob(r, id)
	if err != nil || job.Undo == nil || job.Undo.Run != job.Run || job.undoing() {
		return true, err
	}
	for item, err := range executionTable.Scan(r, storage.Range{Prefix: storage.Tuple(id, job.Run)}) {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return false, err
		}
		run := item.Value.lastRun()
		if run == "" {
			continue
		}
		record, err := loadRun(r, run)
		if isRunGone(err) {
			continue
		}
		if err != nil || record.undoable() {
			return true, err
		}
	}
	return false, nil
}

// undoable reports whether the run has done, or may do, what an undo takes back.
func (r *runRecord) undoable() bool {
	s := &r.State
	switch {
	case s.State == pattern.Undone || s.State == pattern.Skipped:
		return false
	case !s.State.Final():
		return true
	}
	return len(r.Chunks) > 0 || len(s.Of(pattern.EntryRun)) > 0
}

// beginGateUndo begins the undo that a job's own gate asked for.
func (t *jobTx) beginGateUndo(j *jobInTx) {
	if !j.State.Undo || j.Undo != nil && j.Undo.Run == j.Run {
		return
	}
	j.Undo = &jobUndo{Reason: j.State.Reason, By: "gate", Started: t.Now(), Run: j.Run}
	j.changed = true
}

// undo tells the next runs of a job that what they did is taken back.
func (l *jobLoop) undo(ctx context.Context, a *activeJob) error {
	h := l.hub
	h.jobs.writing.Lock()
	defer h.jobs.writing.Unlock()
	return h.step(ctx, "job.undoStep", h.inJobs(func(t *jobTx) error {
		j, err := t.job(a.id)
		if isGoneJob(err) || err == nil && !j.undoing() {
			return nil
		}
		if err != nil {
			return err
		}
		return t.undoSome(j)
	}))
}

// undoSome tells the runs of the next executions.
func (t *jobTx) undoSome(j *jobInTx) error {
	next := *j.Undo
	u := &next
	j.Undo, j.changed = u, true
	var keys []storage.Key
	for item, err := range executionTable.Scan(t.Tx, storage.Range{Prefix: storage.Tuple(j.id, u.Run), After: u.After}) {
		if err != nil {
			return err
		}
		if keys = append(keys, slices.Clone(item.Key)); len(keys) == undoBatch {
			break
		}
	}
	for _, key := range keys {
		_, _, id, err := executionOfKey(key)
		if err != nil {
			return err
		}
		e, found, err := t.load(executionRef{j.id, u.Run, id})
		if err != nil {
			return err
		}
		if found {
			if err := t.undoRun(j, &e); err != nil {
				return err
			}
		}
		u.After = key
	}
	if len(keys) < undoBatch {
		u.Told, u.After = true, nil
	}
	return nil
}

// undoRun has the run of an execution undone, once it has ended.
func (t *jobTx) undoRun(j *jobInTx, e *executionRecord) error {
	run := e.lastRun()
	if run == "" {
		return nil
	}
	record, err := loadRun(t.Tx, run)
	told := record.Created.Before(j.Undo.Counted) // also of one that is gone
	leave := func() {
		if !told {
			j.Undo.Left++
		}
	}
	begin := func() {
		if told && record.State.Entry == pattern.EntryUndo && j.Undo.Failed > 0 { // it is one of those that began
			j.Undo.Failed--
		} else {
			j.Undo.Begun++
		}
	}
	switch refused, ok := errors.AsType[*Error](err); {
	case ok && refused.Code == CodeRunNotFound: // it ended so long ago that it is no longer kept
		leave()
		return nil
	case err != nil:
		return err
	case record.State.State == pattern.Undone:
		leave()
		return nil
	case !record.State.State.Final():
		if record.State.Entry == pattern.EntryUndo { // somebody else was faster
			begin()
			return nil
		}
		j.Undo.Begun++
		return t.hub.stopRunTx(t.Tx, run, j.Undo.Reason, true)
	}
	err = t.hub.undoRunTx(t.Tx, run)
	if refused, ok := errors.AsType[*Error](err); ok && (refused.Code == CodeRunState || refused.Code == CodeRunNotFound || refused.Code == CodePatternNotFound) {
		leave()
		return nil
	}
	if err == nil {
		begin()
	}
	return err
}

// noteUndone counts a run of the job whose undo has ended, and says so in its
// execution.
func (t *jobTx) noteUndone(j *jobInTx, id TwinID, e *executionRecord, run *runRecord) error {
	done := run.State.State == pattern.Undone
	if u := j.Undo; u != nil && u.Run == j.Run {
		next := *u
		if u.Undone+u.Failed >= u.Begun && u.Told { // somebody undid a single run meanwhile
			if next.Failed > 0 {
				next.Failed--
			} else {
				next.Begun++
			}
		}
		if done {
			next.Undone++
		} else {
			next.Failed++
		}
		j.Undo, j.changed = &next, true
	}
	if !e.final() {
		return nil // its status will say so
	}
	e.Message, e.Updated = "what its run did was undone", t.Now()
	if !done {
		e.Message = "its undo failed"
		if f := run.State.Fault; f != nil {
			e.Message = clip("its undo failed: " + f.Message)
		}
	}
	return executionTable.Put(t.Tx, j.ref(id).key(), *e)
}

// noteNotUndone takes back that the undo of a run follows its end: it ended before
// it did anything.
func (t *jobTx) noteNotUndone(j *jobInTx, run *runRecord) {
	u := j.Undo
	if u == nil || u.Run != j.Run || u.Begun <= u.Undone+u.Failed || run.State.State != pattern.Canceled {
		return
	}
	next := *u
	next.Begun--
	next.Left++
	j.Undo, j.changed = &next, true
}
