package engine

import (
	"errors"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// endAttempt ends the newest attempt and does what the job's policy says of such
// an outcome: another attempt, later, or the execution's end. code and message
// say why; status is that of the device's answer, 0 for none.
func (t *jobTx) endAttempt(j *jobInTx, id TwinID, e *executionRecord, outcome rollout.AttemptOutcome, code, message string, status int) error {
	if a := e.newest(); a != nil && a.Ended.IsZero() {
		a.Ended, a.Outcome, a.Code, a.Message, a.Status = t.Now(), attemptStatus(outcome), code, message, status
	}
	e.Code, e.Message = code, message
	if err := t.unlock(j.ref(id)); err != nil {
		return err
	}
	next := j.work.policy.AfterAttempt(outcome, e.Attempts-e.Retried, e.Created, t.Now(), id.String())
	if next.Phase == rollout.PhaseRetrying {
		e.Due = next.At
		return t.move(j, id, e, rollout.ExecutionRetrying, false)
	}
	return t.move(j, id, e, rollout.ExecutionStatus(next.Phase), true)
}

// attemptStatus is an attempt's outcome as its execution's would be.
func attemptStatus(o rollout.AttemptOutcome) rollout.ExecutionStatus {
	if o == rollout.AttemptOffline {
		return rollout.ExecutionFailed
	}
	return rollout.ExecutionStatus(o)
}

// answered takes a device's answer to the newest attempt.
func (t *jobTx) answered(j *jobInTx, id TwinID, e *executionRecord, result MethodResult) error {
	e.Answered, e.AnswerCode, e.Answer = true, result.Status, result.Payload
	if a := e.newest(); a != nil {
		a.Status = result.Status
	}
	if result.Status >= 400 && !j.work.spec.Spec.Action.AnyAnswer {
		return t.endAttempt(j, id, e, rollout.AttemptRejected, "", "the device answered with status "+strconv.Itoa(result.Status), result.Status)
	}
	return t.effect(j, id, e)
}

// effect ends the newest attempt, whose command was taken, when its effect is
// seen: at once unless the job asks for evidence. Until then the device stays
// the execution's.
func (t *jobTx) effect(j *jobInTx, id TwinID, e *executionRecord) error {
	status := 0
	if a := e.newest(); a != nil {
		status = a.Status
	}
	seen, err := t.confirmed(j, id)
	if err != nil {
		return err
	}
	if seen {
		return t.endAttempt(j, id, e, rollout.AttemptSucceeded, "", "", status)
	}
	e.Due = t.attemptDeadline(j, e)
	return errors.Join(t.lock(j.ref(id)), t.move(j, id, e, rollout.ExecutionConfirming, false))
}

// confirmed reports whether the twin shows the job's evidence, as it is in this
// transaction; of a job that asks for none it does.
func (t *jobTx) confirmed(j *jobInTx, id TwinID) (bool, error) {
	if j.work.confirm == nil {
		return true, nil
	}
	v, _, err := hubDocuments{hub: t.hub}.document(t.Tx, id)
	if isGone(err) {
		return false, nil // found out by whoever looks at the execution next
	}
	return err == nil && j.work.confirm.Match(v, t.Now()), err
}

// unanswered takes it that nobody knows what came of the newest attempt: it was
// sent, perhaps. It stays the one in progress while evidence may come: an answer
// on a session that lives, or the twin. Else what the policy says of such an
// outcome is done at once.
func (t *jobTx) unanswered(j *jobInTx, id TwinID, e *executionRecord, live bool, code, message string) error {
	seen, err := t.confirmed(j, id)
	switch {
	case err != nil:
		return err
	case seen && j.work.confirm != nil:
		return t.endAttempt(j, id, e, rollout.AttemptSucceeded, "", "", 0)
	case !live && j.work.confirm == nil:
		return t.endAttempt(j, id, e, rollout.AttemptUncertain, code, message, 0)
	}
	e.Code, e.Message = code, message
	e.Due = t.attemptDeadline(j, e)
	return errors.Join(t.lock(j.ref(id)), t.move(j, id, e, rollout.ExecutionUncertain, false))
}

// unsent takes back an attempt of which nothing was sent: it never was one.
func (t *jobTx) unsent(j *jobInTx, id TwinID, e *executionRecord) error {
	e.Attempts--
	e.Last = e.Last[:len(e.Last)-1]
	if e.Attempts == 0 {
		e.Started = time.Time{}
	}
	return errors.Join(t.unlock(j.ref(id)), t.away(j, id, e))
}

// settle takes evidence of what came of an execution that waits for some, or
// has ended without any: it succeeded, or the device refused. Of others, which
// have their outcome, nothing changes.
func (t *jobTx) settle(j *jobInTx, id TwinID, e *executionRecord, outcome rollout.AttemptOutcome, code, message string) error {
	switch {
	case e.Status == rollout.ExecutionRunning || e.Status == rollout.ExecutionConfirming || e.Status == rollout.ExecutionUncertain && !e.final():
		status := 0
		if a := e.newest(); a != nil {
			status = a.Status
		}
		return t.endAttempt(j, id, e, outcome, code, message, status)
	case e.Status == rollout.ExecutionRetrying || e.Status == rollout.ExecutionUncertain || e.Status == rollout.ExecutionTimedOut:
		a := e.newest()
		if a == nil || a.Outcome != rollout.ExecutionUncertain && a.Outcome != rollout.ExecutionTimedOut {
			return nil
		}
		a.Outcome, a.Code, a.Message = attemptStatus(outcome), code, message
		to, ended := attemptStatus(outcome), true
		if e.Status == rollout.ExecutionRetrying && outcome != rollout.AttemptSucceeded &&
			j.work.policy.AfterAttempt(outcome, e.Attempts-e.Retried, e.Created, t.Now(), id.String()).Phase == rollout.PhaseRetrying {
			to, ended = rollout.ExecutionRetrying, false // the next attempt comes all the same
		}
		e.Code, e.Message = code, message
		return t.move(j, id, e, to, ended)
	}
	return nil
}
