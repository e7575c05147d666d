package engine

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// queuedRun names the run one of whose steps a queued call is.
type queuedRun struct {
	Run string `json:"r"`
}

const (
	// runRetryMost is how many more attempts a step may ask for.
	runRetryMost = 100
	// runRetryWait is how long each further attempt waits at least for a device that
	// is away, times its number.
	runRetryWait = 5 * time.Second
)

// call queues a method call, which is delivered as every queued call is, once it
// is durable. It waits beside a call of a job, and those of users.
func (w *runWorld) call(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.CallArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	h := w.t.hub
	response, fault := stepDuration(s, "timeout", args.Timeout, defaultResponseTimeout, h.limits.ResponseTimeoutMax)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	online, fault := stepDuration(s, "online", args.Online, 0, pattern.MaxWait)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	if args.Retry < 0 || args.Retry > runRetryMost {
		return fail(pattern.FaultInvalid, "%s: retry is %d, allowed are 0 to %d", s.Op, args.Retry, runRetryMost), nil
	}
	if response <= 0 {
		return fail(pattern.FaultInvalid, "%s: timeout is %s, expected more", s.Op, rollout.Duration(response)), nil
	}
	m := MethodCall{Name: args.Method, Payload: args.Payload, ResponseTimeout: max(response, h.limits.ResponseTimeoutMin)}
	if err := h.checkMethod(m); err != nil {
		return a, err
	}
	if _, err := w.twin(); err != nil {
		return a, err
	}
	there := h.callable(w.r.device()) != nil
	if !there && online == 0 && args.Retry == 0 {
		return fail(pattern.FaultOffline, "the device is not connected, or takes no methods; nothing was sent"), nil
	}
	c, _ := w.acts()
	call, err := w.t.queueCall(c, w.r, &args, 1)
	return pattern.Answer{Open: true, Ref: call}, err
}

// queueCall queues an attempt of a step; the arguments have been checked.
func (t *runTx) queueCall(c Caller, r *runInTx, args *pattern.CallArgs, try int) (call string, err error) {
	online, response := time.Duration(0), defaultResponseTimeout
	if d, err := rollout.ParseDuration(args.Online); err == nil {
		online = time.Duration(d)
	}
	if d, err := rollout.ParseDuration(args.Timeout); err == nil {
		response = time.Duration(d)
	}
	id := r.device()
	switch {
	case t.hub.callable(id) != nil:
		online = max(online, jobCallPickup)
	case online == 0 || try > 1:
		online = max(online, time.Duration(try)*runRetryWait)
	}
	q, err := loadQueue(t.Tx, id)
	if err != nil {
		return "", err
	}
	call = q.next()
	q.Waiting = append(q.Waiting, call)
	q.Runs = append(q.Runs, call)
	record := queuedRecord{
		Generation: r.Generation, Name: args.Method, Payload: args.Payload, Response: response, Status: QueuedWaiting,
		Created: t.Now(), Deadline: t.Now().Add(online), Principal: c.Principal.String(), Cause: c.Cause, Run: &queuedRun{r.id},
	}
	return call, errors.Join(t.hub.putQueueTx(t.Tx, id, q), queuedTable.Put(t.Tx, queuedKey(id, call), record))
}

// finishCall takes the call of a run, which has ended as record says, out of its
// device's queue and into the journal: from then on that is where one reads of it.
func (t *runTx) finishCall(c Caller, id TwinID, call string, record *queuedRecord) error {
	if err := errors.Join(t.dropCall(id, call), t.hub.tellFinishedTx(t.Tx, c, id, call, record)); err != nil {
		return err
	}
	r, err := t.load(record.Run.Run)
	if isRunGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s := r.State.Open()
	if s == nil || s.Op != opCall || s.Ref != call {
		return nil // it was canceled meanwhile
	}
	args, fault := readArgs[pattern.CallArgs](s)
	if fault != nil {
		return errf(CodeInternal, "the run %q waits for what can't be read: %s", r.id, fault.Message)
	}
	result, fault, again := callAnswer(record, &args)
	if again && s.Tries <= args.Retry {
		owner, denied := t.hub.runCaller(r.id, &r.runRecord)
		if denied == nil {
			denied = mayStep(owner, opCall)
		}
		if denied == nil {
			if s.Ref, err = t.queueCall(owner, r, &args, s.Tries+1); err != nil {
				return err
			}
			s.Tries++
			return t.store(r)
		}
		fault = denied
	}
	r.State.Settle(call, result, fault, t.Now())
	return t.store(r)
}

// dropCall takes a call of a run out of its device's queue.
func (t *runTx) dropCall(id TwinID, call string) error {
	q, err := loadQueue(t.Tx, id)
	if err != nil {
		return err
	}
	is := func(other string) bool { return other == call }
	q.Waiting, q.Runs = slices.DeleteFunc(q.Waiting, is), slices.DeleteFunc(q.Runs, is)
	if q.Sending == call {
		q.Sending = ""
	}
	return errors.Join(queuedTable.Delete(t.Tx, queuedKey(id, call)), t.hub.putQueueTx(t.Tx, id, q))
}

// withdrawCall takes a call back that was not sent yet. What was sent can't be
// taken back; then the run's log says so.
func (t *runTx) withdrawCall(r *runInTx, call string) error {
	id := r.device()
	record, err := queuedTable.Get(t.Tx, queuedKey(id, call))
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if record.Status != QueuedWaiting {
		r.State.Logs = append(r.State.Logs, pattern.LogLine{Time: t.Now(), Text: "the method " + record.Name + " was on its way to the device; what came of it is not known"})
		return nil
	}
	record.Status, record.Message = QueuedCanceled, "the run waits for it no more"
	return errors.Join(t.dropCall(id, call), t.hub.tellFinishedTx(t.Tx, hubCaller(causeRun+r.id), id, call, &record))
}

// callAnswer is what a program finds of a call that has ended. again says that
// another attempt may be made.
func callAnswer(r *queuedRecord, args *pattern.CallArgs) (result json.RawMessage, f *pattern.Fault, again bool) {
	switch r.Status {
	case QueuedSucceeded:
		if r.AnswerCode >= 400 {
			f = faultf(pattern.FaultStatus, "the device answered %s with the status %d", r.Name, r.AnswerCode)
			f.Status, f.Payload = r.AnswerCode, r.Answer
			return nil, f, false
		}
		m := beginMembers(nil)
		m.number("status", int64(r.AnswerCode))
		m.raw("payload", r.Answer)
		return m.end(), nil, false
	case QueuedExpired:
		return nil, faultf(pattern.FaultOffline, "the device did not take the call %s in time; nothing was sent", r.Name), true
	case QueuedCanceled:
		return nil, faultf(pattern.FaultRejected, "the call %s was %s", r.Name, r.Message), false
	case QueuedFailed:
		code := pattern.FaultInvalid
		switch r.Code {
		case CodeTooLarge.String():
			code = pattern.FaultTooBig
		case CodeSecretNotFound.String(), CodeDeviceNotFound.String():
			code = pattern.FaultGone
		case CodeForbidden.String():
			code = pattern.FaultDenied
		}
		return nil, faultf(code, "the call %s: %s", r.Name, r.Message), false
	}
	if args.Idempotent {
		return nil, faultf(pattern.FaultTimeout, "the call %s: %s", r.Name, r.Message), true
	}
	return nil, faultf(pattern.FaultUncertain, "the call %s: %s", r.Name, r.Message), false
}

// runPayload is what goes on the wire of a run's call: with the secrets that it
// names. They are read now, and kept nowhere.
func (h *Hub) runPayload(r storage.Reader, id TwinID, record *queuedRecord) (json.RawMessage, error) {
	identity, err := loadIdentity(r, id)
	if err != nil {
		return nil, err
	}
	payload, err := h.fillSecrets(record.Payload, func(name string) (string, error) {
		if len(name) > len(secretKeyPrefix) && name[:len(secretKeyPrefix)] == secretKeyPrefix {
			return h.deviceSecret(name, id, identity)
		}
		return h.secret(r, name)
	})
	if err != nil {
		return nil, err
	}
	if most := h.limits.MethodPayloadBytes; len(payload) > most {
		return nil, errf(CodeTooLarge, "with its secrets the payload has %d bytes, at most %d are allowed", len(payload), most)
	}
	return payload, nil
}
