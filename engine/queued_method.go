package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-hub/muster/storage"
)

// QueuedStatus says how far a queued method call has come.
type QueuedStatus string

// The states of a queued call. The last five are final.
const (
	QueuedWaiting   QueuedStatus = "queued"
	QueuedSending   QueuedStatus = "sending"   // on the wire, or about to be
	QueuedSucceeded QueuedStatus = "succeeded" // the device answered, with whatever status
	QueuedFailed    QueuedStatus = "failed"    // the device's answer could not be taken
	QueuedExpired   QueuedStatus = "expired"   // the deadline passed first; never sent
	QueuedCanceled  QueuedStatus = "canceled"  // never sent
	QueuedUncertain QueuedStatus = "uncertain" // sent, perhaps; no answer came; never repeated
)

// Final reports whether the state never changes again.
func (s QueuedStatus) Final() bool { return s != QueuedWaiting && s != QueuedSending }

var queuedStatuses = []QueuedStatus{QueuedWaiting, QueuedSending, QueuedSucceeded, QueuedFailed, QueuedExpired, QueuedCanceled, QueuedUncertain}

// QueuedMethod is a direct method call that may wait for its device.
type QueuedMethod struct {
	ID              string // unique within the device or module, in order of time
	Target          TwinID
	Name            string
	Payload         json.RawMessage // nil: none
	ResponseTimeout time.Duration
	Status          QueuedStatus
	Attempt         int // goes up each time the call is taken for sending
	Created         time.Time
	Deadline        time.Time // no sending after it
	Sent            time.Time // when sending was committed, before the wire; zero: never
	Finished        time.Time // zero: not yet
	Result          *MethodResult
	Code            string // of the error, for failed, expired, canceled and uncertain
	Message         string
	Principal       string
	Cause           string
}

// queuedRecord is a stored call.
type queuedRecord struct {
	Generation string          `json:"g"`
	Name       string          `json:"n"`
	Payload    json.RawMessage `json:"p,omitempty"`
	Response   time.Duration   `json:"r"`
	Status     QueuedStatus    `json:"s"`
	Attempt    int             `json:"a,omitempty"`
	Created    time.Time       `json:"c"`
	Deadline   time.Time       `json:"d"`
	Sent       time.Time       `json:"t,omitzero"`
	Finished   time.Time       `json:"f,omitzero"`
	Answer     json.RawMessage `json:"x,omitempty"`
	AnswerCode int             `json:"y,omitempty"`
	Code       string          `json:"e,omitempty"`
	Message    string          `json:"m,omitempty"`
	Principal  string          `json:"w"`
	Cause      string          `json:"u,omitempty"`
	Job        *queuedJob      `json:"j,omitempty"`  // whose attempt the call is
	Run        *queuedRun      `json:"rn,omitempty"` // whose step it is; with neither it is a user's
}

// users reports whether the call is a user's.
func (r *queuedRecord) users() bool { return r.Job == nil && r.Run == nil }

// queueRecord is what one identity's calls have in common. Whoever adds,
// takes or ends a call writes it, so that two of them never miss each other.
type queueRecord struct {
	Last     uint64   `json:"l"`
	Waiting  []string `json:"w,omitempty"` // in the order of sending
	Sending  string   `json:"s,omitempty"`
	Finished []string `json:"f,omitempty"` // the oldest first
	Job      string   `json:"j,omitempty"` // the one that is a job's, which has at most one at a time
	Runs     []string `json:"r,omitempty"` // those that are runs'
}

// next names a new call.
func (q *queueRecord) next() string {
	q.Last++
	var tail [4]byte
	_, _ = rand.Read(tail[:]) // never fails
	return fmt.Sprintf("%08x%s", q.Last, hex.EncodeToString(tail[:]))
}

// users counts the calls that wait and are neither a job's nor a run's.
func (q *queueRecord) users() int {
	n := len(q.Waiting)
	if q.Job != "" && slices.Contains(q.Waiting, q.Job) {
		n--
	}
	for _, call := range q.Runs {
		if slices.Contains(q.Waiting, call) {
			n--
		}
	}
	return n
}

// queuedKept is how long a finished call can be read.
const queuedKept = 7 * 24 * time.Hour

var (
	queueTable  = storage.NewTable("method_queue", 1, storage.JSON[queueRecord]())
	queuedTable = storage.NewTable[queuedRecord]("queued_method", 1, plainJSON[queuedRecord]{storage.JSON[queuedRecord]()},
		// What time alone changes: a call that waits expires, a finished one goes.
		storage.Index[queuedRecord]{Name: "due", Keys: func(_ storage.Key, r queuedRecord) []storage.Key {
			switch {
			case r.Status == QueuedWaiting:
				return []storage.Key{storage.Tuple(r.Deadline)}
			case r.Status.Final():
				return []storage.Key{storage.Tuple(r.Finished.Add(queuedKept))}
			}
			return nil
		}},
	)
)

const counterQueued = "methods.queued" // calls that wait, in the whole hub

// Kinds of change of queued calls.
const (
	changeMethodQueued   = "method.queued"
	changeMethodSending  = "method.sending"
	changeMethodFinished = "method.finished"
)

func queuedKey(id TwinID, call string) storage.Key {
	return storage.Tuple(id.DeviceID, id.ModuleID, call)
}

func (r *queuedRecord) show(id TwinID, call string) QueuedMethod {
	q := QueuedMethod{
		ID: call, Target: id, Name: r.Name, Payload: r.Payload, ResponseTimeout: r.Response, Status: r.Status, Attempt: r.Attempt,
		Created: r.Created.UTC(), Deadline: r.Deadline.UTC(), Sent: r.Sent.UTC(), Finished: r.Finished.UTC(),
		Code: r.Code, Message: r.Message, Principal: r.Principal, Cause: r.Cause,
	}
	if r.Status == QueuedSucceeded {
		q.Result = &MethodResult{Status: r.AnswerCode, Payload: r.Answer}
	}
	return q
}

// loadQueue returns an identity's queue, empty when there was never a call.
func loadQueue(r storage.Reader, id TwinID) (queueRecord, error) {
	q, err := queueTable.Get(r, id.key())
	if errors.Is(err, storage.ErrNotFound) {
		return queueRecord{}, nil
	}
	return q, err
}

// QueueMethod stores a direct method call that is sent when the device or
// module takes methods, at the latest when wait has passed. The calls of one
// identity are sent in order, one at a time. It returns once the call is
// durable. m.ConnectTimeout is not looked at. It needs ServiceConnect.
func (h *Hub) QueueMethod(ctx context.Context, c Caller, id TwinID, m MethodCall, wait time.Duration) (QueuedMethod, error) {
	if err := h.authorize(ctx, c, opMethodQueue, id.String()); err != nil {
		return QueuedMethod{}, err
	}
	m.ConnectTimeout = 0
	if m.ResponseTimeout == 0 {
		m.ResponseTimeout = defaultResponseTimeout
	}
	if err := h.checkMethod(m); err != nil {
		return QueuedMethod{}, err
	}
	l := &h.limits
	if wait < l.QueuedWaitMin || wait > l.QueuedWaitMax {
		return QueuedMethod{}, errf(CodeArgumentInvalid, "the wait for the device is %s, allowed are %s to %s", wait, l.QueuedWaitMin, l.QueuedWaitMax)
	}
	var made QueuedMethod
	err := h.update(ctx, "queue method", func(tx *storage.Tx) error {
		identity, err := loadIdentity(tx, id)
		if err != nil {
			return err
		}
		q, err := loadQueue(tx, id)
		if err != nil {
			return err
		}
		if n := q.users(); n >= l.QueuedPerDevice {
			return errf(CodeTooManyMethods, "%d method calls are queued for %q, which is the limit; cancel one or wait", n, id)
		}
		all, err := storage.Counter(tx, counterQueued)
		if err != nil {
			return err
		}
		if all >= int64(l.QueuedInHub) {
			return errf(CodeTooManyMethods, "%d method calls are queued in this hub, which is its limit", all)
		}
		call := q.next()
		r := queuedRecord{
			Generation: identity.GenerationID, Name: m.Name, Payload: m.Payload, Response: m.ResponseTimeout, Status: QueuedWaiting,
			Created: tx.Now(), Deadline: tx.Now().Add(wait), Principal: c.Principal.String(), Cause: c.Cause,
		}
		q.Waiting = append(q.Waiting, call)
		made = r.show(id, call)
		details, err := marshal(map[string]string{"method": m.Name, "call": call})
		if err != nil {
			return err
		}
		tx.Add(counterQueued, 1)
		return errors.Join(
			h.putQueueTx(tx, id, q),
			queuedTable.Put(tx, queuedKey(id, call), r),
			appendChange(tx, c, changeMethodQueued, id, 0, details),
			h.auditTx(tx, c, opMethodQueue, id.String(), details),
		)
	})
	if err == nil {
		h.methods.queue.queued.Add(1)
	}
	return made, err
}

// putQueueTx stores a queue and tells the deliverer of it once it is durable.
func (h *Hub) putQueueTx(tx *storage.Tx, id TwinID, q queueRecord) error {
	waiting := len(q.Waiting)
	tx.OnCommit(func(uint64) { h.methods.queue.changed(h, id, waiting) })
	return queueTable.Put(tx, id.key(), q)
}

// QueuedMethod returns a queued call. It needs ServiceConnect.
func (h *Hub) QueuedMethod(ctx context.Context, c Caller, id TwinID, call string) (QueuedMethod, error) {
	return h.WaitQueuedMethod(ctx, c, id, call, 0)
}

// WaitQueuedMethod returns a queued call when it is final, or as it is when
// wait has passed. It needs ServiceConnect.
func (h *Hub) WaitQueuedMethod(ctx context.Context, c Caller, id TwinID, call string, wait time.Duration) (QueuedMethod, error) {
	if err := h.authorize(ctx, c, opMethodRead, id.String()); err != nil {
		return QueuedMethod{}, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		news := h.methods.queue.watch(id)
		var q QueuedMethod
		err := h.view(ctx, "read queued method", func(r storage.Reader) error {
			if _, err := loadIdentity(r, id); err != nil {
				return err
			}
			record, err := loadQueued(r, id, call)
			q = record.show(id, call)
			return err
		})
		if err != nil || q.Status.Final() || wait <= 0 {
			h.methods.queue.unwatch(id, news)
			return q, err
		}
		select {
		case <-news.happened:
		case <-timer.C:
			wait = 0
		case <-h.events.drained:
			wait, err = 0, errf(CodeClosed, "the hub is shutting down; the call stays queued: ask for it again when the hub is back")
		case <-ctx.Done():
			wait, err = 0, wrapf(CodeCanceled, ctx.Err(), "the caller went away before the call had ended; it stays queued")
		}
		h.methods.queue.unwatch(id, news)
		if err != nil {
			return q, err
		}
	}
}

func loadQueued(r storage.Reader, id TwinID, call string) (queuedRecord, error) {
	record, err := queuedTable.Get(r, queuedKey(id, call))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeMethodCallNotFound, "%q has no queued method call %q, or no longer", id, clip(call))
	}
	return record, err
}

// What one page of queued calls holds and looks at, at most.
const (
	queuedPage = 1000
	queuedScan = 5000
)

// QueuedMethods lists queued calls in the order of identity and time: of one
// identity, or of all when id is zero; of one status, or of all when status is
// empty. A page may hold fewer than limit; next is empty at the end. It needs
// ServiceConnect.
func (h *Hub) QueuedMethods(ctx context.Context, c Caller, id TwinID, status QueuedStatus, cursor string, limit int) (list []QueuedMethod, next string, err error) {
	if err := h.authorize(ctx, c, opMethodRead, id.String()); err != nil {
		return nil, "", err
	}
	if status != "" && !slices.Contains(queuedStatuses, status) {
		return nil, "", errf(CodeArgumentInvalid, "status %q is not known, expected queued, sending, succeeded, failed, expired, canceled or uncertain", clip(string(status)))
	}
	if limit <= 0 || limit > queuedPage {
		limit = queuedPage
	}
	after, err := hex.DecodeString(cursor)
	if err != nil {
		return nil, "", errf(CodeArgumentInvalid, "the cursor is not one that this list gave; start again without a cursor")
	}
	list = []QueuedMethod{}
	err = h.view(ctx, "list queued methods", func(r storage.Reader) error {
		g := storage.Range{}
		if id != (TwinID{}) {
			if _, err := loadIdentity(r, id); err != nil {
				return err
			}
			g.Prefix = id.key()
		}
		if len(after) > 0 {
			g.After = after
		}
		seen, size := 0, 0
		for item, err := range queuedTable.Scan(r, g) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			of, err := (TwinID{}).fromKey(item.Key)
			if err != nil || len(parts) != 3 {
				return errors.Join(err, errors.New("key is not that of a queued method"))
			}
			call, _ := parts[2].(string)
			if status == "" || item.Value.Status == status {
				list = append(list, item.Value.show(of, call))
				size += len(item.Value.Payload) + len(item.Value.Answer)
			}
			if seen++; len(list) == limit || seen == queuedScan || size >= historyBytes {
				next = hex.EncodeToString(item.Key)
				return nil
			}
		}
		return nil
	})
	return list, next, err
}

// CancelQueuedMethod takes back a call that has not been sent; one that is
// being sent, or has ended, is CodePreconditionFailed. It needs ServiceConnect.
func (h *Hub) CancelQueuedMethod(ctx context.Context, c Caller, id TwinID, call string) (QueuedMethod, error) {
	if err := h.authorize(ctx, c, opMethodCancel, id.String()); err != nil {
		return QueuedMethod{}, err
	}
	var q QueuedMethod
	err := h.update(ctx, "cancel queued method", func(tx *storage.Tx) error {
		r, err := loadQueued(tx, id, call)
		if err != nil {
			return err
		}
		if r.Status != QueuedWaiting {
			e := errf(CodePreconditionFailed, "the call %q is %s: only a call that still waits can be canceled", call, r.Status)
			e.Next = "Look at the call; what was sent cannot be taken back."
			return e
		}
		r.Status, r.Message = QueuedCanceled, "canceled by "+c.Principal.String()
		if err := h.finishQueuedTx(tx, c, id, call, &r); err != nil {
			return err
		}
		q = r.show(id, call)
		details, err := marshal(map[string]string{"method": r.Name, "call": call})
		return errors.Join(err, h.auditTx(tx, c, opMethodCancel, id.String(), details))
	})
	return q, err
}

// finishQueuedTx stores a call's final state, and drops the identity's oldest
// finished calls beyond the bound. That of a job's call is its execution's, and
// that of a run's its step's.
func (h *Hub) finishQueuedTx(tx *storage.Tx, c Caller, id TwinID, call string, r *queuedRecord) error {
	if r.Job != nil {
		return h.inJobs(func(t *jobTx) error { return t.finishCall(c, id, call, r) })(tx)
	}
	if r.Run != nil {
		return h.inRuns(func(t *runTx) error { return t.finishCall(c, id, call, r) })(tx)
	}
	q, err := loadQueue(tx, id)
	if err != nil {
		return err
	}
	if i := slices.Index(q.Waiting, call); i >= 0 {
		q.Waiting = slices.Delete(q.Waiting, i, i+1)
		tx.Add(counterQueued, -1)
	}
	if q.Sending == call {
		q.Sending = ""
	}
	r.Finished = tx.Now()
	q.Finished = append(q.Finished, call)
	for len(q.Finished) > h.limits.QueuedFinished {
		if err := queuedTable.Delete(tx, queuedKey(id, q.Finished[0])); err != nil {
			return err
		}
		q.Finished = q.Finished[1:]
	}
	return errors.Join(
		queuedTable.Put(tx, queuedKey(id, call), *r),
		h.putQueueTx(tx, id, q),
		h.tellFinishedTx(tx, c, id, call, r),
	)
}

// tellFinishedTx writes the event of a call that ended, and counts it.
func (h *Hub) tellFinishedTx(tx *storage.Tx, c Caller, id TwinID, call string, r *queuedRecord) error {
	data, err := marshal(struct {
		Call   string       `json:"call"`
		Method string       `json:"method"`
		Status QueuedStatus `json:"status"`
		Answer int          `json:"answerStatus,omitempty"`
	}{call, r.Name, r.Status, r.AnswerCode})
	switch r.Status {
	case QueuedUncertain:
		tx.OnCommit(func(uint64) { h.methods.queue.uncertain.Add(1) })
	case QueuedExpired:
		tx.OnCommit(func(uint64) { h.methods.queue.expired.Add(1) })
	}
	return errors.Join(err, appendChange(tx, c, changeMethodFinished, id, 0, data))
}

// dropQueueTx deletes the calls of an identity that goes.
func (h *Hub) dropQueueTx(tx *storage.Tx, id TwinID) error {
	q, err := queueTable.Get(tx, id.key())
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	calls := append(append([]string(nil), q.Waiting...), q.Finished...)
	if q.Sending != "" {
		calls = append(calls, q.Sending)
	}
	for _, call := range calls {
		if err := queuedTable.Delete(tx, queuedKey(id, call)); err != nil {
			return err
		}
	}
	tx.Add(counterQueued, -int64(q.users()))
	tx.OnCommit(func(uint64) { h.methods.queue.changed(h, id, 0) })
	return queueTable.Delete(tx, id.key())
}
