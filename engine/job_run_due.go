package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// jobDuePage is how many executions that are due are looked at together.
const jobDuePage = 128

// sweep moves what time alone moves: attempts and executions whose time is over,
// and those whose next attempt is due, one page of them.
func (l *jobLoop) sweep(ctx context.Context, now time.Time) error {
	var due []executionRef
	err := l.hub.view(ctx, "look for due executions", func(r storage.Reader) error {
		due, l.dueAt, l.dueNow = nil, time.Time{}, false
		// What was due before is behind it: the index begins with entries that were
		// deleted, and whoever began at its first one would go over all of them
		// each time.
		from := l.due
		for item, err := range executionTable.Lookup(r, "due", storage.Range{Start: from}) {
			if err != nil {
				return err
			}
			if len(due) == 0 {
				l.due = storage.Tuple(item.Value.Due)
			}
			if item.Value.Due.After(now) || len(due) == jobDuePage {
				l.dueAt, l.dueNow = item.Value.Due, !item.Value.Due.After(now)
				return nil
			}
			job, run, id, err := executionOfKey(item.Key)
			if err != nil {
				return err
			}
			due = append(due, executionRef{job, run, id})
		}
		return nil
	})
	if err != nil || len(due) == 0 {
		return err
	}
	var waiting []executionRef
	h := l.hub
	h.jobs.writing.Lock()
	err = h.step(ctx, "execution.due", h.inJobs(func(t *jobTx) error {
		waiting = waiting[:0]
		for _, ref := range due {
			waits, err := t.due(ref, now)
			if err != nil {
				return err
			}
			if waits {
				waiting = append(waiting, ref)
			}
		}
		return nil
	}))
	h.jobs.writing.Unlock()
	if err != nil {
		return err
	}
	for _, ref := range waiting {
		l.mayGoOn(ref)
	}
	return nil
}

// mayGoOn notes that an execution that waits may go on when its job has a turn.
func (l *jobLoop) mayGoOn(ref executionRef) {
	a := l.active[ref.job]
	if a == nil || a.run != ref.run {
		return
	}
	a.ready = true
	switch {
	case slices.Contains(a.again, ref.id):
	case len(a.again) < jobAgainMost:
		a.again = append(a.again, ref.id)
	case !a.more:
		a.more, a.after = true, nil
	}
}

// due moves one execution whose time has come. waits says that it waits now for
// its next attempt.
func (t *jobTx) due(ref executionRef, now time.Time) (waits bool, err error) {
	e, found, err := t.load(ref)
	if err != nil || !found || e.final() || e.Due.IsZero() || e.Due.After(now) {
		return false, err
	}
	j, err := t.job(ref.job)
	if refused, ok := errors.AsType[*Error](err); ok && refused.Code == CodeJobNotFound || err == nil && j.Run != ref.run {
		e.Due = time.Time{} // nobody's: whoever deletes the job takes it along
		return false, executionTable.Put(t.Tx, ref.key(), e)
	}
	if err != nil {
		return false, err
	}
	if later := t.hub.jobs.clock.later(e.Due, e.Updated); later.After(now) {
		e.Due, e.Updated = later, t.Now()
		return false, t.keep(ref, &e)
	}
	generation, err := t.generation(ref.id)
	if errors.Is(err, storage.ErrNotFound) || err == nil && generation != e.Generation {
		return false, t.remove(j, ref.id, &e)
	}
	if err != nil {
		return false, err
	}
	deadline := t.deadline(j, &e)
	over := !deadline.IsZero() && !now.Before(deadline)
	switch e.Status {
	case rollout.ExecutionWaiting:
		a := &j.work.spec.Spec.Action
		switch {
		case over:
			return false, t.expire(j, ref.id, &e)
		case e.BlockedBy == "" && a.Method != nil && a.Offline == JobOfflineFail && t.hub.callable(ref.id) == nil:
			return false, t.offline(j, ref.id, &e)
		}
		e.Due = deadline
		return true, t.keep(ref, &e)
	case rollout.ExecutionRetrying:
		if over {
			return false, t.expire(j, ref.id, &e)
		}
		e.Due = deadline
		return true, t.move(j, ref.id, &e, rollout.ExecutionWaiting, false)
	case rollout.ExecutionRunning:
		if j.Kind == JobRunPattern {
			return false, t.runOverdue(j, ref.id, &e)
		}
		withdrawn, err := t.withdraw(j, ref.id, &e)
		if err != nil || withdrawn {
			return false, err
		}
		return false, t.overdue(j, ref.id, &e, rollout.AttemptTimedOut, "the device did not answer in time")
	case rollout.ExecutionConfirming:
		return false, t.overdue(j, ref.id, &e, rollout.AttemptTimedOut, "the twin did not show the effect in time")
	case rollout.ExecutionUncertain:
		outcome := rollout.AttemptUncertain
		if e.Code == CodeGatewayTimeout.String() {
			outcome = rollout.AttemptTimedOut // the device was there and said nothing
		}
		return false, t.overdue(j, ref.id, &e, outcome, e.Message)
	}
	return false, nil
}

// keep stores an execution that stays where it is.
func (t *jobTx) keep(ref executionRef, e *executionRecord) error {
	if !e.Due.IsZero() && (t.gauge.due.IsZero() || e.Due.Before(t.gauge.due)) {
		t.gauge.due = e.Due
	}
	return executionTable.Put(t.Tx, ref.key(), *e)
}

// overdue ends an attempt whose time is over: a last look at the evidence first.
func (t *jobTx) overdue(j *jobInTx, id TwinID, e *executionRecord, outcome rollout.AttemptOutcome, message string) error {
	seen, err := t.confirmed(j, id)
	if err != nil {
		return err
	}
	if seen && j.work.confirm != nil {
		return t.settle(j, id, e, rollout.AttemptSucceeded, "", "")
	}
	code := CodeGatewayTimeout
	if outcome == rollout.AttemptUncertain {
		code = CodeUncertain
	}
	status := 0
	if a := e.newest(); a != nil {
		status = a.Status
	}
	return t.endAttempt(j, id, e, outcome, code.String(), message, status)
}

// withdraw takes back an attempt whose command was never sent; it reports
// whether it was so.
func (t *jobTx) withdraw(j *jobInTx, id TwinID, e *executionRecord) (bool, error) {
	a := e.newest()
	if a == nil {
		return false, nil
	}
	q, err := loadQueue(t.Tx, id)
	if err != nil {
		return false, err
	}
	i := slices.Index(q.Waiting, a.ID)
	if i < 0 {
		return false, nil
	}
	q.Waiting, q.Job = slices.Delete(q.Waiting, i, i+1), ""
	return true, errors.Join(
		queuedTable.Delete(t.Tx, queuedKey(id, a.ID)),
		t.hub.putQueueTx(t.Tx, id, q),
		t.unsent(j, id, e),
	)
}

// refill looks for executions of a job that wait and may go on, a page of them
// from where the last one ended.
func (l *jobLoop) refill(r storage.Reader, a *activeJob, w *jobWork) error {
	prefix := storage.Tuple(a.id, a.run, string(rollout.ExecutionWaiting))
	seen := 0
	for item, err := range executionTable.Lookup(r, "status", storage.Range{Prefix: prefix, After: a.after}) {
		if err != nil {
			return err
		}
		_, _, id, err := executionOfKey(item.Key)
		if err != nil {
			return err
		}
		goes, err := l.goes(r, executionRef{a.id, a.run, id}, &item.Value, w)
		if err != nil {
			return err
		}
		if goes {
			a.again = append(a.again, id)
		}
		if seen++; seen == jobScan || len(a.again) == jobAgainMost {
			a.after = append(prefix, item.Key...)
			return nil
		}
	}
	a.more, a.after = false, nil
	return nil
}

// goes reports whether an execution that waits might begin an attempt now.
func (l *jobLoop) goes(r storage.Reader, ref executionRef, e *executionRecord, w *jobWork) (bool, error) {
	holder, err := lockedBy(r, ref)
	if err != nil || holder != "" {
		return false, err
	}
	return e.BlockedBy != "" || w.spec.Spec.Action.Method == nil || l.hub.callable(ref.id) != nil, nil
}

// attend looks for executions that wait for devices which have come, or which no
// other execution holds any more. Of those of one device the first goes on, by
// priority of the jobs and their age. Executions of identities that were deleted
// are removed.
func (l *jobLoop) attend(ctx context.Context, devices map[TwinID]bool) error {
	if len(devices) == 0 {
		return nil
	}
	var gone []executionRef
	err := l.hub.view(ctx, "look for who waits for a device", func(r storage.Reader) error {
		gone = nil
		for id, all := range devices {
			credentials, err := loadCredentials(r, id)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if !all {
				if all, err = l.next(r, id, credentials.GenerationID); err != nil {
					return err
				}
			}
			if !all {
				continue
			}
			var best *activeJob
			for item, err := range executionTable.Lookup(r, "open", storage.Range{Prefix: id.key()}) {
				if err != nil {
					return err
				}
				job, run, _, err := executionOfKey(item.Key)
				if err != nil {
					return err
				}
				if item.Value.Generation != credentials.GenerationID {
					gone = append(gone, executionRef{job, run, id})
					continue
				}
				a := l.active[job]
				if item.Value.Status != rollout.ExecutionWaiting || a == nil || !a.mayTake(run) || best != nil && compareActive(best, a) < 0 {
					continue
				}
				best = a
			}
			if best != nil {
				l.mayGoOn(executionRef{best.id, best.run, id})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(gone, jobDuePage) {
		if err := l.removeGone(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// next lets the first of those go on that wait for a device. It reports whether
// all executions on the device have to be looked at instead: some are of an
// identity that is gone, or may have been stored without their rank.
func (l *jobLoop) next(r storage.Reader, id TwinID, generation string) (all bool, err error) {
	for item, err := range executionTable.Lookup(r, "waiting", storage.Range{Prefix: id.key()}) {
		if err != nil {
			return false, err
		}
		if item.Value.Generation != generation {
			return true, nil
		}
		job, run, _, err := executionOfKey(item.Key)
		if err != nil {
			return false, err
		}
		if a := l.active[job]; a != nil && a.mayTake(run) {
			l.mayGoOn(executionRef{job, run, id})
			return false, nil
		}
	}
	return slices.ContainsFunc(l.order, func(a *activeJob) bool { return !a.ranked }), nil
}

// mayTake reports whether executions of a run that wait may go on.
func (a *activeJob) mayTake(run uint64) bool {
	return a.run == run && a.status == rollout.JobRunning && !a.closed
}

// removeGone ends executions whose identities were deleted.
func (l *jobLoop) removeGone(ctx context.Context, gone []executionRef) error {
	h := l.hub
	h.jobs.writing.Lock()
	defer h.jobs.writing.Unlock()
	return h.step(ctx, "execution.gone", h.inJobs(func(t *jobTx) error {
		for _, ref := range gone {
			j, err := t.job(ref.job)
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeJobNotFound {
				continue
			}
			if err != nil {
				return err
			}
			e, found, err := t.load(ref)
			if err != nil {
				return err
			}
			generation, err := t.generation(ref.id)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if !found || e.final() || j.Run != ref.run || err == nil && generation == e.Generation {
				continue
			}
			if err := t.remove(j, ref.id, &e); err != nil {
				return err
			}
		}
		return nil
	}))
}

// takeLate takes answers that came late, or twice.
func (l *jobLoop) takeLate(ctx context.Context, late []lateAnswer) error {
	h := l.hub
	for len(late) > 0 {
		some := late[:min(len(late), jobDuePage)]
		late = late[len(some):]
		h.jobs.writing.Lock()
		err := h.step(ctx, "execution.late", h.inJobs(func(t *jobTx) error {
			for _, a := range some {
				r := queuedRecord{Status: QueuedSucceeded, AnswerCode: a.result.Status, Answer: a.result.Payload, Job: a.call.job}
				if err := t.ended(a.id, a.call.call, &r, false); err != nil {
					return err
				}
			}
			return nil
		}))
		h.jobs.writing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
