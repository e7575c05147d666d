package engine

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/storage"
)

// MethodCall is a direct method to invoke.
type MethodCall struct {
	Name            string
	Payload         json.RawMessage // nil: no payload; any JSON value otherwise
	ResponseTimeout time.Duration   // 0: 30 s
	ConnectTimeout  time.Duration   // how long to wait for the device to be there; 0: not at all
}

// MethodResult is a device's answer.
type MethodResult struct {
	Status  int             // chosen by the device
	Payload json.RawMessage // never nil; "null" when the device sent nothing
}

const defaultResponseTimeout = 30 * time.Second

// InvokeMethod calls a direct method on a connected device or module and
// waits for its answer. Nothing is stored before the wire; the call is sent
// at most once. Errors: CodeDeviceNotOnline, CodeGatewayTimeout,
// CodeConnectionClosed, CodeTooManyMethods, CodeInvalidMethodResponse.
// It needs ServiceConnect.
func (h *Hub) InvokeMethod(ctx context.Context, c Caller, id TwinID, m MethodCall) (MethodResult, error) {
	if err := h.authorize(ctx, c, opMethodInvoke, id.String()); err != nil {
		return MethodResult{}, err
	}
	if m.ResponseTimeout == 0 {
		m.ResponseTimeout = defaultResponseTimeout
	}
	if err := h.checkMethod(m); err != nil {
		return MethodResult{}, err
	}
	result, err := h.callMethod(ctx, id, m)
	h.count.methods.Add(1)
	record := newAuditRecord(c, opMethodInvoke, id.String(), outcomeDone)
	if err != nil {
		h.count.methodsFailed.Add(1)
		record.Outcome, record.Code = outcomeFailed, AsError(err).Code.String()
	}
	record.Details, _ = json.Marshal(struct { // a string and an int always marshal
		Method string `json:"method"`
		Status int    `json:"status,omitempty"`
	}{m.Name, result.Status})
	h.auditLater(record)
	return result, err
}

func (h *Hub) checkMethod(m MethodCall) error {
	l := &h.limits
	if m.Name == "" {
		return errf(CodeArgumentNull, "methodName is missing")
	}
	if len(m.Name) > l.MethodNameBytes {
		return errf(CodeArgumentInvalid, "methodName has %d characters, at most %d are allowed", len(m.Name), l.MethodNameBytes)
	}
	// The name is written raw into a topic, and SDKs disagree on unescaping.
	for i, ch := range m.Name {
		if ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= '0' && ch <= '9' || strings.ContainsRune("_-.*:$", ch) {
			continue
		}
		return errf(CodeArgumentInvalid, "methodName has the character %q at position %d; allowed are ASCII letters, digits and _ - . * : $", ch, i)
	}
	if len(m.Payload) > l.MethodPayloadBytes {
		return errf(CodeTooLarge, "payload has %d bytes, at most %d are allowed", len(m.Payload), l.MethodPayloadBytes)
	}
	if m.ResponseTimeout < l.ResponseTimeoutMin || m.ResponseTimeout > l.ResponseTimeoutMax {
		return errf(CodeArgumentInvalid, "responseTimeoutInSeconds is %s, allowed are %.0f to %.0f", seconds(m.ResponseTimeout), l.ResponseTimeoutMin.Seconds(), l.ResponseTimeoutMax.Seconds())
	}
	if m.ConnectTimeout < 0 || m.ConnectTimeout > l.ConnectTimeoutMax {
		return errf(CodeArgumentInvalid, "connectTimeoutInSeconds is %s, allowed are 0 to %.0f", seconds(m.ConnectTimeout), l.ConnectTimeoutMax.Seconds())
	}
	if m.ConnectTimeout > m.ResponseTimeout {
		return errf(CodeArgumentInvalid, "connectTimeoutInSeconds (%s) is larger than responseTimeoutInSeconds (%s)", seconds(m.ConnectTimeout), seconds(m.ResponseTimeout))
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'g', -1, 64) }

// pendingCall waits for one answer. The first of answer and failure wins.
type pendingCall struct {
	done chan methodOutcome // capacity 1
}

type methodOutcome struct {
	result MethodResult
	err    *Error
}

func (h *Hub) callMethod(ctx context.Context, id TwinID, m MethodCall) (MethodResult, error) {
	if h.draining.Load() {
		return MethodResult{}, errShuttingDown()
	}
	if h.methods.waiting.Add(1) > int64(h.limits.MethodsWaiting) {
		h.methods.waiting.Add(-1)
		return MethodResult{}, errf(CodeTooManyMethods, "%d method calls wait in this hub, which is its limit", h.limits.MethodsWaiting)
	}
	defer h.methods.waiting.Add(-1)
	s := h.callable(id)
	if s == nil {
		// Only now is the store asked: a connected device needs no look-up.
		err := h.view(ctx, "read identity", func(r storage.Reader) error {
			_, err := loadIdentity(r, id)
			return err
		})
		if err != nil {
			return MethodResult{}, err
		}
		if s, err = h.awaitCallable(ctx, id, m.ConnectTimeout); err != nil {
			return MethodResult{}, err
		}
	}
	call, rid, err := s.beginCall(h.limits.MethodsInFlight)
	if err != nil {
		return MethodResult{}, err
	}
	defer s.endCall(rid)
	timer := time.NewTimer(m.ResponseTimeout)
	defer timer.Stop()
	if err := s.connection.Outbox.Method(rid, m.Name, m.Payload); err != nil {
		return MethodResult{}, wrapf(CodeDeviceNotOnline, err, "the device %q reads too slowly; the call was not sent", id)
	}
	select {
	case o := <-call.done:
		if o.err != nil {
			return MethodResult{}, o.err
		}
		return o.result, nil
	case <-timer.C:
		return MethodResult{}, errf(CodeGatewayTimeout, "Timed out waiting for the response from device.")
	case <-ctx.Done():
		return MethodResult{}, wrapf(CodeCanceled, ctx.Err(), "the caller went away before the device answered")
	}
}

func errShuttingDown() *Error {
	return errf(CodeClosed, "the hub is shutting down; the call was not sent")
}

func (h *Hub) callable(id TwinID) *Session {
	s := h.sessions.get(id)
	if s == nil || !s.Subscriptions().Has(EndpointMethod) {
		return nil
	}
	return s
}

func (h *Hub) awaitCallable(ctx context.Context, id TwinID, timeout time.Duration) (*Session, error) {
	if timeout == 0 {
		return nil, errf(CodeDeviceNotOnline, "The operation failed because the requested device isn't online or hasn't registered the direct method callback.")
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		a := h.sessions.arrival(id)
		s, err := h.callable(id), error(nil)
		if s == nil {
			select {
			case <-a.happened:
			case <-timer.C:
				err = errf(CodeDeviceNotOnline, "Timed out waiting for device to connect.")
			case <-h.events.drained: // it will not connect any more
				err = errShuttingDown()
			case <-ctx.Done():
				err = wrapf(CodeCanceled, ctx.Err(), "the caller went away before the device connected")
			}
		}
		h.sessions.gone(id, a)
		if s != nil || err != nil {
			return s, err
		}
	}
}

func (s *Session) beginCall(most int) (*pendingCall, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.cause.Load(); e != nil {
		return nil, "", errf(CodeDeviceNotOnline, "the device %q disconnected before the call was sent", s.id)
	}
	if len(s.calls) >= most {
		return nil, "", errf(CodeTooManyMethods, "%d method calls wait for %q, which is the limit", most, s.id)
	}
	if s.calls == nil {
		s.calls = map[string]*pendingCall{}
	}
	s.lastCall++
	rid := strconv.FormatUint(s.lastCall, 16)
	call := &pendingCall{done: make(chan methodOutcome, 1)}
	s.calls[rid] = call
	s.hub.methods.sent.Add(1)
	return call, rid, nil
}

func (s *Session) endCall(rid string) {
	s.hub.methods.sent.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, rid)
}

// CompleteMethod delivers a device's answer to a direct method. An answer
// that nobody waits for is counted and dropped.
func (s *Session) CompleteMethod(requestID string, status int, payload []byte) {
	s.Touch()
	o := methodOutcome{result: MethodResult{Status: status, Payload: json.RawMessage("null")}}
	switch {
	case len(payload) > s.hub.limits.MethodPayloadBytes:
		o.err = errf(CodeTooLarge, "the device's answer has %d bytes, at most %d are allowed", len(payload), s.hub.limits.MethodPayloadBytes)
	case len(payload) == 0:
	case !json.Valid(payload):
		o.err = errf(CodeInvalidMethodResponse, "the device answered with status %d and a payload that is not JSON", status)
	default:
		o.result.Payload = append(json.RawMessage(nil), payload...)
	}
	s.mu.Lock()
	call := s.calls[requestID]
	delete(s.calls, requestID)
	var late lateCall
	if call == nil {
		late = s.lateLocked(requestID)
	}
	s.mu.Unlock()
	if call == nil {
		s.hub.count.lateAnswers.Add(1)
		if late.job != nil && o.err == nil {
			s.hub.jobs.lateAnswer(s.id, late, o.result)
		}
		return
	}
	call.done <- o // never blocks: who took the call out of the map is the only sender
}

// failCalls ends every waiting call: their requests were written, or queued,
// and will never be answered on this connection.
func (s *Session) failCalls(cause *Error) {
	s.mu.Lock()
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	for _, call := range calls {
		call.done <- methodOutcome{err: wrapf(CodeConnectionClosed, cause, "the connection of %q ended before it answered", s.id)}
	}
}
