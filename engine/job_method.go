package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// jobCallPickup is how long a call that a job has queued may wait to be sent:
// its device was there when it was queued. After that the execution waits for
// its device again, and holds no place among those in flight.
const jobCallPickup = 30 * time.Second

// beginMethod queues the call of a method as the execution's attempt, if the
// device takes methods now; else the execution waits for it, or ends, as the
// job says. The call is delivered as every queued call is, once it is durable.
func (t *jobTx) beginMethod(j *jobInTx, id TwinID, e *executionRecord) error {
	if t.hub.callable(id) == nil {
		return t.away(j, id, e)
	}
	m := j.work.spec.Spec.Action.Method
	response := time.Duration(m.ResponseTimeout)
	if response == 0 {
		response = defaultResponseTimeout
	}
	call, err := t.hub.queueJobCallTx(t.Tx, j.caller, id, queuedRecord{
		Generation: e.Generation, Name: m.Name, Payload: m.Payload, Response: response, Job: &queuedJob{j.id, j.Run},
		Deadline: t.Now().Add(jobCallPickup),
	})
	if err != nil {
		return err
	}
	t.attempt(e, call)
	e.Due = t.attemptDeadline(j, e)
	return errors.Join(t.lock(j.ref(id)), t.move(j, id, e, rollout.ExecutionRunning, false))
}

// away is what becomes of an execution whose device is not there: it waits, or
// that was an attempt.
func (t *jobTx) away(j *jobInTx, id TwinID, e *executionRecord) error {
	a := &j.work.spec.Spec.Action
	e.Due = t.deadline(j, e)
	if a.Offline == JobOfflineFail {
		if a.Method.ConnectTimeout <= 0 {
			return t.offline(j, id, e)
		}
		until := t.Now().Add(time.Duration(a.Method.ConnectTimeout))
		if e.Due.IsZero() || until.Before(e.Due) {
			e.Due = until
		}
	}
	t.absent = append(t.absent, id)
	return t.move(j, id, e, rollout.ExecutionWaiting, false)
}

// offline ends an attempt that could not be made, since the device was not there.
func (t *jobTx) offline(j *jobInTx, id TwinID, e *executionRecord) error {
	t.attempt(e, "")
	return t.endAttempt(j, id, e, rollout.AttemptOffline, CodeDeviceNotOnline.String(), "the device was not connected, or takes no methods", 0)
}

// queuedJob names the execution whose attempt a queued call is.
type queuedJob struct {
	Job string `json:"j"`
	Run uint64 `json:"r"`
}

// queueJobCallTx queues a call of a job. It does not count against what users
// may queue for the device, who must not be in its way, nor it in theirs.
func (h *Hub) queueJobCallTx(tx *storage.Tx, c Caller, id TwinID, r queuedRecord) (call string, err error) {
	q, err := loadQueue(tx, id)
	if err != nil {
		return "", err
	}
	call = q.next()
	q.Waiting = append(q.Waiting, call)
	q.Job = call
	r.Status, r.Created, r.Principal, r.Cause = QueuedWaiting, tx.Now(), c.Principal.String(), c.Cause
	return call, errors.Join(h.putQueueTx(tx, id, q), queuedTable.Put(tx, queuedKey(id, call), r))
}

// ended takes the end of a queued call of a job into its execution. r is as
// it would have been stored; live says that an answer may come yet.
func (t *jobTx) ended(id TwinID, call string, r *queuedRecord, live bool) error {
	j, err := t.job(r.Job.Job)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeJobNotFound {
		return nil // deleted meanwhile
	}
	if err != nil || j.Run != r.Job.Run {
		return err
	}
	e, found, err := t.load(j.ref(id))
	if err != nil || !found {
		return err
	}
	a := e.newest()
	if a == nil || a.ID != call {
		// The attempt was given up, and another one made: it is evidence of that one
		// as little as of the device's state.
		return t.lateAnswer(j, id, &e, call, r)
	}
	if e.Status != rollout.ExecutionRunning {
		return t.lateAnswer(j, id, &e, call, r)
	}
	switch r.Status {
	case QueuedSucceeded:
		return t.answered(j, id, &e, MethodResult{Status: r.AnswerCode, Payload: r.Answer})
	case QueuedFailed: // the device did answer
		return t.endAttempt(j, id, &e, rollout.AttemptFailed, r.Code, clip(r.Message), 0)
	case QueuedUncertain:
		return t.unanswered(j, id, &e, live, r.Code, clip(r.Message))
	case QueuedExpired:
		return t.unsent(j, id, &e)
	case QueuedCanceled:
		return t.cancel(j, id, &e, r.Message)
	default:
		return fmt.Errorf("a call of the job %q ended as %s", j.id, r.Status)
	}
}

// lateAnswer takes an answer to an attempt that was given up, or that has been
// answered: it is counted and shown. It settles what came of the execution if
// nobody knows that.
func (t *jobTx) lateAnswer(j *jobInTx, id TwinID, e *executionRecord, call string, r *queuedRecord) error {
	if r.Status != QueuedSucceeded {
		return nil // no answer
	}
	t.OnCommit(func(uint64) { t.hub.jobs.stats.late.Add(1) })
	for i := range e.Last {
		a := &e.Last[i]
		if a.ID != call {
			continue
		}
		newest := i == len(e.Last)-1
		unknown := a.Outcome == "" || a.Outcome == rollout.ExecutionUncertain || a.Outcome == rollout.ExecutionTimedOut
		if !newest || !unknown {
			a.Message = fmt.Sprintf("it was answered with status %d late, or again, at %s", r.AnswerCode, t.Now().UTC().Format(time.RFC3339))
			return executionTable.Put(t.Tx, j.ref(id).key(), *e)
		}
		a.Status = r.AnswerCode
		e.Answered, e.AnswerCode, e.Answer = true, r.AnswerCode, r.Answer
		message := fmt.Sprintf("it was answered late, with status %d", r.AnswerCode)
		if r.AnswerCode >= 400 && !j.work.spec.Spec.Action.AnyAnswer {
			return t.settle(j, id, e, rollout.AttemptRejected, "", message)
		}
		seen, err := t.confirmed(j, id)
		if err != nil {
			return err
		}
		if !seen {
			a.Message = message
			return executionTable.Put(t.Tx, j.ref(id).key(), *e)
		}
		return t.settle(j, id, e, rollout.AttemptSucceeded, "", message)
	}
	return nil
}

// finishCall takes a job's call, which has ended as r says, out of its device's
// queue and into its execution: from then on that is where one reads of it.
func (t *jobTx) finishCall(c Caller, id TwinID, call string, r *queuedRecord) error {
	q, err := loadQueue(t.Tx, id)
	if err != nil {
		return err
	}
	if i := slices.Index(q.Waiting, call); i >= 0 {
		q.Waiting = slices.Delete(q.Waiting, i, i+1)
	}
	if q.Sending == call {
		q.Sending = ""
	}
	if q.Job == call {
		q.Job = ""
	}
	return errors.Join(
		queuedTable.Delete(t.Tx, queuedKey(id, call)),
		t.hub.putQueueTx(t.Tx, id, q),
		t.hub.tellFinishedTx(t.Tx, c, id, call, r),
		t.ended(id, call, r, r.Code == CodeGatewayTimeout.String()),
	)
}

// callEndsMost is how many ends of calls are stored in one transaction.
const callEndsMost = 64

// endJobCall stores the end of a job's call. Ends come together when many
// devices answer at once; whoever finds others waiting stores theirs, too, since
// all of them write the same job.
func (h *Hub) endJobCall(end *callEnd) error {
	j := &h.jobs
	j.mu.Lock()
	end.stored, end.err = false, nil
	j.ends = append(j.ends, end)
	j.mu.Unlock()
	j.writing.Lock()
	defer j.writing.Unlock()
	for !end.stored {
		j.mu.Lock()
		some := j.ends[:min(len(j.ends), callEndsMost)]
		j.ends = j.ends[len(some):]
		j.mu.Unlock()
		err := h.storeCallEnds(some)
		if err != nil && len(some) > 1 { // one of them may be why
			for i := range some {
				some[i].err, some[i].stored = h.storeCallEnds(some[i:i+1]), true
			}
			continue
		}
		for _, e := range some {
			e.err, e.stored = err, true
		}
	}
	return end.err
}

func (h *Hub) storeCallEnds(ends []*callEnd) error {
	return h.step(context.Background(), "execution.answer", h.inJobs(func(t *jobTx) error {
		for _, end := range ends {
			err := h.endQueuedTx(t.Tx, end, func(r *queuedRecord) error {
				return t.finishCall(hubCaller("job:"+r.Job.Job), end.id, end.call, r)
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// lateCall is a call to which an answer may come late, or again.
type lateCall struct {
	rid, call string
	job       *queuedJob
}

// lateCallsMost is how many of them a session remembers.
const lateCallsMost = 8

// overdue ends a call that is waited for no more; an answer that comes all the
// same is told to its job, if it has one.
func (s *Session) overdue(rid, call string, job *queuedJob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, rid)
	if job == nil {
		return
	}
	if len(s.late) == lateCallsMost {
		s.late = append(s.late[:0], s.late[1:]...)
	}
	s.late = append(s.late, lateCall{rid, call, job})
}

func (s *Session) lateLocked(rid string) lateCall {
	for _, l := range s.late {
		if l.rid == rid {
			return l
		}
	}
	return lateCall{}
}

// takesMethods delivers what waits for an identity that may take methods now.
func (h *Hub) takesMethods(id TwinID) {
	h.methods.queue.kick(h, id)
	if h.jobs.stats.waiting.Load() > 0 {
		h.jobs.attend(id)
	}
}
