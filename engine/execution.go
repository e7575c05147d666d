package engine

import (
	"errors"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// How an execution goes. Its target waits in a block until its turn comes
// (targetBlock); begin takes it from there, or from where it waited or failed,
// and makes an attempt. What ends an attempt is in execution_settle.go. Each move
// is part of one transaction with all that it means: the twin's change or the
// queued call, the execution, the device's lock, the job's counters.

// begin makes an attempt of an execution of a job, a new one when e has no
// status: or says why it can't be made now. The policy has let it go on. Errors
// of the store aside, nothing that is wrong with one target is an error here.
func (t *jobTx) begin(j *jobInTx, id TwinID, e *executionRecord) error {
	ref := j.ref(id)
	if e.Created.IsZero() {
		e.Created = t.Now()
	}
	e.BlockedBy = ""
	var record twinRecord
	var generation string
	var err error
	update := j.work.spec.Spec.Action.Twin != nil
	if update {
		record, err = t.hub.getTwin(t.Tx, id)
		generation = record.Generation
	} else {
		generation, err = t.generation(id)
	}
	if errors.Is(err, storage.ErrNotFound) || err == nil && e.Generation != "" && e.Generation != generation {
		return t.remove(j, id, e)
	}
	if err != nil {
		return err
	}
	e.Generation = generation
	deadline := t.deadline(j, e)
	if !deadline.IsZero() && !t.Now().Before(deadline) {
		return t.expire(j, id, e)
	}
	runs := j.work.spec.Spec.Action.Run != nil
	holder := ""
	if !runs { // of runs the pattern itself says what becomes of two on one device
		if holder, err = lockedBy(t.Tx, ref); err != nil {
			return err
		}
	}
	if holder != "" {
		e.BlockedBy, e.Due = holder, deadline
		return t.move(j, id, e, rollout.ExecutionWaiting, false)
	}
	if t.refused != nil {
		t.attempt(e, "")
		return t.endAttempt(j, id, e, rollout.AttemptFailed, t.refused.Code.String(), clip(t.refused.Message), 0)
	}
	switch {
	case update:
		return t.beginTwin(j, id, e, &record)
	case j.work.spec.Spec.Action.Configuration != nil:
		return t.beginConfiguration(j, id, e)
	case runs:
		return t.beginRun(j, id, e)
	}
	return t.beginMethod(j, id, e)
}

// generation names the life of an identity; storage.ErrNotFound when there is none.
func (t *jobTx) generation(id TwinID) (string, error) {
	r, err := loadCredentials(t.Tx, id)
	return r.GenerationID, err
}

// deadline is when an execution times out, whatever it is doing; zero: never.
func (t *jobTx) deadline(j *jobInTx, e *executionRecord) time.Time {
	return t.hub.jobs.clock.later(j.work.policy.Due(e.Created), e.Created)
}

// attemptDeadline is when the newest attempt times out; zero: never.
func (t *jobTx) attemptDeadline(j *jobInTx, e *executionRecord) time.Time {
	sent := e.Last[len(e.Last)-1].Sent
	return t.hub.jobs.clock.later(j.work.policy.AttemptDue(e.Created, sent), sent)
}

// attempt notes that an attempt is made, from now on.
func (t *jobTx) attempt(e *executionRecord, name string) {
	e.Attempts++
	if name == "" {
		name = strconv.Itoa(e.Attempts)
	}
	if e.Started.IsZero() {
		e.Started = t.Now()
	}
	e.Code, e.Message, e.Answered, e.AnswerCode, e.Answer = "", "", false, 0, nil
	if len(e.Last) == executionAttempts {
		e.Last = append(e.Last[:0:0], e.Last[1:]...)
	}
	e.Last = append(e.Last, attemptRecord{ID: name, Sent: t.Now()})
}

// newest is the attempt that was begun last, nil when none was.
func (r *executionRecord) newest() *attemptRecord {
	if len(r.Last) == 0 {
		return nil
	}
	return &r.Last[len(r.Last)-1]
}

// remove ends an execution whose identity is gone.
func (t *jobTx) remove(j *jobInTx, id TwinID, e *executionRecord) error {
	if err := t.stopRun(j, e, "the identity was deleted", false); err != nil {
		return err
	}
	t.closeAttempt(e, rollout.ExecutionRemoved, CodeDeviceNotFound.String(), "")
	e.Code, e.Message = CodeDeviceNotFound.String(), "the identity was deleted"
	return errors.Join(t.unlock(j.ref(id)), t.move(j, id, e, rollout.ExecutionRemoved, true))
}

// expire ends an execution whose time is over while nothing was on its way.
func (t *jobTx) expire(j *jobInTx, id TwinID, e *executionRecord) error {
	message := "the execution's time was over before its next attempt"
	switch {
	case e.BlockedBy != "":
		message = "the job " + strconv.Quote(e.BlockedBy) + " was in progress on the device all the time"
	case e.Status == rollout.ExecutionWaiting:
		message = "the device was not there in time"
	}
	e.Code, e.Message = CodeDeviceNotOnline.String(), message
	if e.Status != rollout.ExecutionWaiting {
		e.Code = CodeGatewayTimeout.String()
	}
	return errors.Join(t.unlock(j.ref(id)), t.move(j, id, e, rollout.ExecutionTimedOut, true))
}

// closeAttempt notes how the newest attempt ended, unless it had.
func (t *jobTx) closeAttempt(e *executionRecord, outcome rollout.ExecutionStatus, code, message string) {
	if a := e.newest(); a != nil && a.Ended.IsZero() {
		a.Ended, a.Outcome, a.Code, a.Message = t.Now(), outcome, code, message
	}
}

// cancel ends an execution that has nothing on its way.
func (t *jobTx) cancel(j *jobInTx, id TwinID, e *executionRecord, why string) error {
	t.closeAttempt(e, rollout.ExecutionCanceled, CodeCanceled.String(), why)
	e.Code, e.Message = CodeCanceled.String(), why
	return errors.Join(t.unlock(j.ref(id)), t.move(j, id, e, rollout.ExecutionCanceled, true))
}
