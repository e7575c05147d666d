package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// methodQueue delivers queued calls: one goroutine for each identity that has
// calls and takes methods. It is safe for concurrent use.
type methodQueue struct {
	queued, uncertain, expired atomic.Int64

	mu      sync.Mutex
	closed  bool
	waiting map[TwinID]int      // identities with calls that wait
	busy    map[TwinID]bool     // identities with a goroutine; true: it was kicked since it last looked
	news    map[TwinID]*arrival // who waits for a change of an identity's calls
	wg      sync.WaitGroup      // of the goroutines; Add only under mu while not closed
	stop    chan struct{}
}

func newMethodQueue() *methodQueue {
	return &methodQueue{waiting: map[TwinID]int{}, busy: map[TwinID]bool{}, news: map[TwinID]*arrival{}, stop: make(chan struct{})}
}

// hubCaller is who the hub's own steps of a call are by.
func hubCaller(cause string) Caller { return Caller{Cause: cause} }

// open loads who has calls, and ends those that were being sent when the hub
// went down: nobody knows whether they reached the device.
func (m *methodQueue) open(ctx context.Context, h *Hub) error {
	var sending []TwinID
	err := h.view(ctx, "open method queue", func(r storage.Reader) error {
		for item, err := range queueTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			id, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			if n := len(item.Value.Waiting); n > 0 {
				m.waiting[id] = n
			}
			if item.Value.Sending != "" {
				sending = append(sending, id)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(sending, interruptedBatch) {
		err := h.step(ctx, "method.interrupted", func(tx *storage.Tx) error {
			for _, id := range some {
				if err := h.endInterruptedTx(tx, id); err != nil {
					return err
				}
			}
			return nil
		})
		// A store that takes no writes now must not keep the hub from reads.
		if err != nil {
			h.log.Warn("method calls that were interrupted could not be marked uncertain", slog.String("first", some[0].String()), slog.Int("calls", len(some)), slog.Any("error", err))
		}
	}
	return nil
}

// interruptedBatch is how many calls one transaction of open ends.
const interruptedBatch = 64

func (h *Hub) endInterruptedTx(tx *storage.Tx, id TwinID) error {
	q, err := loadQueue(tx, id)
	if err != nil || q.Sending == "" {
		return err
	}
	r, err := loadQueued(tx, id, q.Sending)
	if err != nil {
		return err
	}
	r.Status, r.Code = QueuedUncertain, CodeConnectionClosed.String()
	r.Message = "the hub stopped after the call was taken for sending and before an answer; whether the device acted is not known"
	return h.finishQueuedTx(tx, hubCaller("restart"), id, q.Sending, &r)
}

// close waits until every delivery has ended; the sessions must have.
func (m *methodQueue) close() {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.stop)
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// changed takes note of an identity's calls; it runs in the committer.
func (m *methodQueue) changed(h *Hub, id TwinID, waiting int) {
	m.mu.Lock()
	if waiting > 0 {
		m.waiting[id] = waiting
	} else {
		delete(m.waiting, id)
	}
	if a := m.news[id]; a != nil {
		close(a.happened)
		delete(m.news, id)
	}
	m.mu.Unlock()
	m.kick(h, id)
}

func (m *methodQueue) watch(id TwinID) *arrival {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.news[id]
	if a == nil {
		a = &arrival{happened: make(chan struct{})}
		m.news[id] = a
	}
	a.waiters++
	return a
}

func (m *methodQueue) unwatch(id TwinID, a *arrival) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.waiters--; a.waiters == 0 && m.news[id] == a {
		delete(m.news, id)
	}
}

// kick starts the delivery of an identity's calls if there are any, the
// identity takes methods and no delivery is under way.
func (m *methodQueue) kick(h *Hub, id TwinID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || h.db.Paused() || m.waiting[id] == 0 || h.callable(id) == nil {
		return
	}
	if _, busy := m.busy[id]; busy {
		m.busy[id] = true
		return
	}
	m.busy[id] = false
	m.wg.Go(func() {
		next := deliverNext
		for next == deliverNext || m.again(id, next) {
			next = h.deliverQueued(id)
		}
	})
}

// deliverResult says what follows a look at an identity's calls.
type deliverResult uint8

const (
	deliverNext  deliverResult = iota // there may be another one to send
	deliverNone                       // there was none
	deliverLater                      // it did not work; the next sweep tries again
)

// again ends an identity's delivery, unless it was kicked since it found nothing:
// what was queued right then must not wait for the next sweep.
func (m *methodQueue) again(id TwinID, last deliverResult) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[id] && last == deliverNone {
		m.busy[id] = false
		return true
	}
	delete(m.busy, id)
	return false
}

// sweep expires what waits too long, drops what is too old, and picks up what
// could not be delivered at the first attempt.
func (m *methodQueue) sweep(ctx context.Context, h *Hub, now time.Time) error {
	m.mu.Lock()
	ids := make([]TwinID, 0, len(m.waiting))
	for id := range m.waiting {
		ids = append(ids, id)
	}
	m.mu.Unlock()
	for _, id := range ids {
		m.kick(h, id)
	}
	type due struct {
		id   TwinID
		call string
	}
	var list []due
	err := h.view(ctx, "look for due method calls", func(r storage.Reader) error {
		for item, err := range queuedTable.Lookup(r, "due", storage.Range{End: storage.Tuple(now)}) {
			if err != nil {
				return err
			}
			id, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			call, _ := parts[len(parts)-1].(string)
			if list = append(list, due{id, call}); len(list) == retainBatch {
				break
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := h.step(ctx, "method.due", func(tx *storage.Tx) error { return h.dueQueuedTx(tx, d.id, d.call, now) }); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hub) dueQueuedTx(tx *storage.Tx, id TwinID, call string, now time.Time) error {
	r, err := queuedTable.Get(tx, queuedKey(id, call))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.Status == QueuedWaiting && !now.Before(r.Deadline):
		return h.expireQueuedTx(tx, id, call, &r)
	case r.Status.Final() && !now.Before(r.Finished.Add(queuedKept)):
		q, err := loadQueue(tx, id)
		if err != nil {
			return err
		}
		if i := slices.Index(q.Finished, call); i >= 0 {
			q.Finished = slices.Delete(q.Finished, i, i+1)
		}
		return errors.Join(queuedTable.Delete(tx, queuedKey(id, call)), h.putQueueTx(tx, id, q))
	}
	return nil
}

func (h *Hub) expireQueuedTx(tx *storage.Tx, id TwinID, call string, r *queuedRecord) error {
	r.Status, r.Code = QueuedExpired, CodeDeviceNotOnline.String()
	r.Message = "the device did not take the call before its deadline; it was never sent"
	return h.finishQueuedTx(tx, hubCaller("deadline"), id, call, r)
}

// deliverQueued sends an identity's next call and stores its end.
func (h *Hub) deliverQueued(id TwinID) deliverResult {
	select {
	case <-h.methods.queue.stop:
		return deliverLater
	default:
	}
	if h.draining.Load() {
		return deliverLater // by the next start: this one has no time for the answer
	}
	s := h.callable(id)
	if s == nil {
		return deliverNone
	}
	call, r, err := h.takeQueued(id, s)
	if err != nil {
		h.log.Warn("a queued method call could not be taken for sending; it will be tried again", slog.String("device", id.String()), slog.Any("error", err))
		return deliverLater
	}
	if call == "" {
		return deliverNone
	}
	if r.Status != QueuedSending {
		return deliverNext // it had expired
	}
	end := &callEnd{id: id, call: call, attempt: r.Attempt}
	end.result, end.sent, end.failure = h.sendQueued(s, call, r)
	next := deliverNext
	if !end.sent {
		next = deliverLater
	}
	for {
		err := h.endQueued(end, r.Job != nil)
		if err == nil {
			return next
		}
		h.log.Warn("the end of a queued method call could not be stored; it will be tried again", slog.String("device", id.String()), slog.String("call", call), slog.Any("error", err))
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-h.methods.queue.stop: // the next start finds it being sent, and says uncertain
			timer.Stop()
			return deliverLater
		}
	}
}

// takeQueued commits that the next call is being sent: before this is durable
// nothing of it may reach the wire, so that no crash can lead to a repetition.
func (h *Hub) takeQueued(id TwinID, s *Session) (call string, r queuedRecord, err error) {
	s.announce()
	err = h.step(context.Background(), "method.take", func(tx *storage.Tx) error {
		call = ""
		q, err := loadQueue(tx, id)
		if err != nil || len(q.Waiting) == 0 || q.Sending != "" {
			return err
		}
		call = q.Waiting[0]
		if r, err = loadQueued(tx, id, call); err != nil {
			return err
		}
		if !tx.Now().Before(r.Deadline) {
			return h.expireQueuedTx(tx, id, call, &r)
		}
		if err := s.liveTx(tx); err != nil {
			return err
		}
		q.Waiting, q.Sending = q.Waiting[1:], call
		r.Status, r.Sent = QueuedSending, tx.Now()
		r.Attempt++
		data, err := marshal(map[string]any{"call": call, "method": r.Name, "attempt": r.Attempt})
		if r.users() {
			tx.Add(counterQueued, -1)
		}
		return errors.Join(err,
			queuedTable.Put(tx, queuedKey(id, call), r),
			h.putQueueTx(tx, id, q),
			appendChange(tx, hubCaller("queue"), changeMethodSending, id, 0, data),
		)
	})
	if e, ok := errors.AsType[*Error](err); ok && s.Err() != nil && e.Code != CodeUncertain {
		return "", r, nil // the session ended first; the call still waits
	}
	return call, r, err
}

// sendQueued writes a call and waits for its answer. sent is false when it is
// certain that nothing reached the wire.
func (h *Hub) sendQueued(s *Session, id string, r queuedRecord) (result MethodResult, sent bool, failure *Error) {
	payload := r.Payload
	if r.Run != nil {
		err := h.view(context.Background(), "read secrets", func(reader storage.Reader) (err error) {
			payload, err = h.runPayload(reader, s.id, &r)
			return err
		})
		switch e := AsError(err); {
		case err == nil:
		case e.Code == CodeSecretNotFound || e.Code == CodeTooLarge || e.Code == CodeDeviceNotFound:
			return result, true, e // it never can be
		default:
			return result, false, e
		}
	}
	if len(payload) == 0 {
		payload = json.RawMessage("null") // Microsoft's SDK for Node answers 400 to an empty body
	}
	call, rid, err := s.beginCall(h.limits.MethodsInFlight)
	if err != nil {
		return result, false, AsError(err)
	}
	defer s.endCall(rid)
	if err := s.connection.Outbox.Method(rid, r.Name, payload); err != nil {
		return result, false, AsError(err)
	}
	h.reach("method.wire:after")
	timer := time.NewTimer(r.Response)
	defer timer.Stop()
	late := errf(CodeGatewayTimeout, "the device did not answer within %s; whether it acted is not known", r.Response)
	select {
	case o := <-call.done: // also when the session ends
		s.overdue(rid, id, r.Job)
		return o.result, true, o.err
	case <-timer.C:
	}
	s.overdue(rid, id, r.Job)
	select {
	case o := <-call.done: // it came just now
		return o.result, true, o.err
	default:
		return result, true, late
	}
}

// callEnd is how a call that was taken for sending ended.
type callEnd struct {
	id      TwinID
	call    string
	attempt int
	result  MethodResult
	sent    bool
	failure *Error

	stored bool // and err says how that went; only of those of jobs
	err    error
}

func (h *Hub) endQueued(end *callEnd, job bool) error {
	if job {
		return h.endJobCall(end)
	}
	return h.step(context.Background(), "method.end", func(tx *storage.Tx) error {
		return h.endQueuedTx(tx, end, func(r *queuedRecord) error {
			return h.finishQueuedTx(tx, hubCaller("queue"), end.id, end.call, r)
		})
	})
}

// endQueuedTx has a call's end stored by finish, or makes it the next again.
func (h *Hub) endQueuedTx(tx *storage.Tx, end *callEnd, finish func(r *queuedRecord) error) error {
	r, err := queuedTable.Get(tx, queuedKey(end.id, end.call))
	if errors.Is(err, storage.ErrNotFound) {
		return nil // went with its identity
	}
	if err != nil || r.Status != QueuedSending || r.Attempt != end.attempt {
		return err
	}
	if !end.sent {
		return h.putBackTx(tx, end.id, end.call, &r)
	}
	r.Status, r.AnswerCode, r.Answer = QueuedSucceeded, end.result.Status, end.result.Payload
	if failure := end.failure; failure != nil {
		r.AnswerCode, r.Answer = 0, nil
		r.Code, r.Message = failure.Code.String(), failure.Message
		r.Status = QueuedUncertain
		switch failure.Code {
		case CodeInvalidMethodResponse, CodeTooLarge, CodeSecretNotFound, CodeDeviceNotFound:
			r.Status = QueuedFailed // the device did answer, or nothing could be sent
		}
	}
	details, err := marshal(struct {
		Method string       `json:"method"`
		Call   string       `json:"call"`
		Result QueuedStatus `json:"result"`
		Status int          `json:"status,omitempty"`
		By     string       `json:"queuedBy"`
	}{r.Name, end.call, r.Status, r.AnswerCode, r.Principal})
	c := Caller{Principal: principalNamed(r.Principal), Cause: "queue"}
	if r.Job != nil {
		c.Cause = "job:" + r.Job.Job
	}
	if r.Run != nil {
		c.Cause = causeRun + r.Run.Run
	}
	return errors.Join(err, finish(&r), h.auditTx(tx, c, opMethodInvoke, end.id.String(), json.RawMessage(details)))
}

// principalNamed is who queued a call, by the text that was kept of it: the call is
// theirs, also when the hub ends it.
func principalNamed(text string) auth.Principal {
	for _, kind := range []auth.Kind{auth.Local, auth.Policy} {
		if name, ok := strings.CutPrefix(text, kind.String()+":"); ok {
			return auth.Principal{Kind: kind, Name: name}
		}
	}
	return auth.Principal{}
}

// putBackTx makes a call that never reached the wire the next one again.
func (h *Hub) putBackTx(tx *storage.Tx, id TwinID, call string, r *queuedRecord) error {
	q, err := loadQueue(tx, id)
	if err != nil {
		return err
	}
	q.Sending, q.Waiting = "", append([]string{call}, q.Waiting...)
	r.Status, r.Sent = QueuedWaiting, time.Time{}
	if r.users() {
		tx.Add(counterQueued, 1)
	}
	return errors.Join(queuedTable.Put(tx, queuedKey(id, call), *r), h.putQueueTx(tx, id, q))
}
