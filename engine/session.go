package engine

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// Endpoint is a thing of the hub that a device can subscribe to.
type Endpoint uint8

// The endpoints, in the order in which they are stored.
const (
	EndpointTwinResponse Endpoint = iota
	EndpointDesired
	EndpointMethod
	EndpointMessage // cloud-to-device
	EndpointInput   // module inputs; nothing is delivered without an edge runtime
	endpointCount
)

// Endpoints is how many endpoints there are.
const Endpoints = int(endpointCount)

// NotSubscribed is the value of an endpoint in Subscriptions that has no subscription.
const NotSubscribed = -1

// Subscriptions holds for each Endpoint the QoS granted (0 or 1), or NotSubscribed.
type Subscriptions [Endpoints]int8

// NoSubscriptions returns an empty set.
func NoSubscriptions() Subscriptions {
	var s Subscriptions
	for i := range s {
		s[i] = NotSubscribed
	}
	return s
}

// Has reports whether the endpoint is subscribed.
func (s Subscriptions) Has(e Endpoint) bool { return s[e] >= 0 }

// Outbox is what an edge supplies for one connection: the hub's only way to
// it. No method may block: a full outbox is an error. Methods are called from
// any goroutine, Desired in version order.
type Outbox interface {
	// Method sends a direct method request. payload is nil when the caller gave none.
	Method(requestID, name string, payload json.RawMessage) error
	// Desired tells the device a change: patch is a JSON object that holds "$version".
	Desired(version int64, patch []byte) error
	// Message sends a cloud-to-device message: at QoS 0 when packetID is 0,
	// else at QoS 1 with that id, marked as a duplicate or not.
	Message(m QueuedMessage, packetID uint16, duplicate bool) error
	// Close ends the connection. cause says why, for logs and metrics.
	Close(cause *Error)
}

// Connection describes a new device connection.
type Connection struct {
	Grant    Grant
	Clean    bool   // MQTT clean session: forget stored subscriptions
	Protocol string // "mqtt", "mqtt-ws"; of refused attempts also "https"
	Address  string
	ModelID  string
	Product  string // DeviceClientType
	Outbox   Outbox
}

// Session is one identity's live connection. Its methods are safe for
// concurrent use; an edge calls them in the order of the packets.
type Session struct {
	hub        *Hub
	id         TwinID
	connection Connection
	resumed    bool
	since      time.Time
	activity   atomic.Int64 // unix nanoseconds
	flushed    int64        // activity when presence was last stored; only flushPresence uses it
	queried    int64        // activity when the columns last took it; the queries' lock guards it
	cause      atomic.Pointer[Error]
	announced  atomic.Bool // the store knows, or will, that the session began
	delivery   delivery

	mu       sync.Mutex
	subs     Subscriptions
	calls    map[string]*pendingCall // nil until the first
	lastCall uint64                  // request ids never repeat within a session
	late     []lateCall              // answers to which may come late, or again; the newest last
}

// Connect attaches a connection as the identity's session. An older session
// of the same identity is fenced and closed first. The session is live when
// Connect returns: hub-to-device traffic for stored subscriptions may reach
// the outbox at once, so an edge must queue it behind its CONNACK.
func (h *Hub) Connect(ctx context.Context, cn Connection) (*Session, error) {
	if h.draining.Load() {
		return nil, errf(CodeClosed, "the hub is shutting down")
	}
	if err := h.throttles.wait(ctx, throttleConnect, "connect"); err != nil {
		h.RecordRefusal(Credentials{ID: cn.Grant.ID, Protocol: cn.Protocol, Address: cn.Address}, AsError(err))
		return nil, err
	}
	s := &Session{hub: h, id: cn.Grant.ID, connection: cn, since: time.Now().UTC(), subs: NoSubscriptions(), delivery: newDelivery()}
	s.activity.Store(s.since.UnixNano())
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	old, endings := h.sessions.put(s)
	h.queries.sessionChanged(s)
	if old != nil {
		h.count.sessionsReplaced.Add(1)
		old.end(errf(CodeConnectionClosed, "a newer connection of %q took over", s.id))
	}
	// From here on a change of the identity finds the session in the table;
	// what changed between authentication and now is found by looking again.
	if endings != cn.Grant.endings {
		if err := h.recheck(ctx, cn.Grant); err != nil {
			s.Close(err)
			return nil, err
		}
	}
	h.count.connects.Add(1)
	s.announceSoon()
	if s.subs.Has(EndpointMessage) {
		s.deliver()
	}
	h.takesMethods(s.id)
	return s, nil
}

// restore loads the stored subscriptions, or forgets them for a clean
// session, and stores the model id that the device announced.
func (s *Session) restore(ctx context.Context) error {
	var announce bool
	waiting := 0
	err := s.hub.view(ctx, "restore session", func(r storage.Reader) error {
		if s.connection.ModelID != "" {
			t, err := s.hub.getTwin(r, s.id)
			if errors.Is(err, storage.ErrNotFound) {
				return errf(CodeUnauthorized, "the identity %q no longer exists", s.id)
			}
			if err != nil {
				return err
			}
			announce = s.connection.ModelID != t.ModelID
		}
		if s.connection.Clean && s.id.ModuleID == "" {
			q, err := deviceboundQueueOf(r, s.id.DeviceID)
			if err != nil {
				return err
			}
			waiting = q.Count
		}
		storage.Remember(r) // who connects will do so again
		stored, err := subscriptionTable.Get(r, s.id.key())
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err == nil {
			s.resumed, s.subs = true, stored
		}
		return err
	})
	if err != nil {
		return err
	}
	forget := s.connection.Clean && s.resumed
	if s.connection.Clean {
		s.resumed, s.subs = false, NoSubscriptions()
	}
	if !forget && !announce && waiting == 0 {
		return nil
	}
	return s.hub.update(ctx, "begin session", func(tx *storage.Tx) error {
		if err := s.liveTx(tx); err != nil {
			return err
		}
		// A clean session begins with nothing, as IoT Hub has it.
		if waiting > 0 {
			if _, err := s.hub.purgeMessagesTx(tx, s.id.DeviceID, true); err != nil {
				return err
			}
		}
		if forget {
			if err := subscriptionTable.Delete(tx, s.id.key()); err != nil {
				return err
			}
		}
		if !announce {
			return nil
		}
		t, err := s.hub.getTwin(tx, s.id)
		if err != nil {
			return err
		}
		t.ModelID = s.connection.ModelID
		t.Version++
		data, err := json.Marshal(struct {
			ModelID string `json:"modelId"`
		}{t.ModelID})
		var f rowFields
		f.text(rowPaths.modelID, t.ModelID)
		s.hub.queries.changeTx(tx, s.id, query.Change{Fields: f.list})
		return errors.Join(err,
			twinTable.Put(tx, s.id.key(), t),
			appendChange(tx, Caller{Principal: s.connection.Grant.Principal}, changeModel, s.id, t.Version, data),
		)
	})
}

// ID returns whose session it is.
func (s *Session) ID() TwinID { return s.id }

// Resumed reports whether the hub had kept a session for the identity (MQTT's
// session-present).
func (s *Session) Resumed() bool { return s.resumed }

// Subscriptions returns the current set.
func (s *Session) Subscriptions() Subscriptions {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subs
}

// Subscribe adds to the set, durably unless the session is clean; it writes
// only when the set changes. Values of NotSubscribed are left alone.
func (s *Session) Subscribe(ctx context.Context, add Subscriptions) error {
	next := s.Subscriptions()
	for e, qos := range add {
		if qos != NotSubscribed {
			next[e] = qos
		}
	}
	return s.setSubscriptions(ctx, next)
}

// Unsubscribe removes endpoints from the set, durably unless the session is clean.
func (s *Session) Unsubscribe(ctx context.Context, remove ...Endpoint) error {
	next := s.Subscriptions()
	for _, e := range remove {
		next[e] = NotSubscribed
	}
	return s.setSubscriptions(ctx, next)
}

// setSubscriptions is called by the edge's one reader, so that two changes of
// the set never race.
func (s *Session) setSubscriptions(ctx context.Context, next Subscriptions) error {
	if err := s.Err(); err != nil {
		return err
	}
	s.Touch()
	if next == s.Subscriptions() {
		return nil
	}
	if !s.connection.Clean {
		begin := s.announced.CompareAndSwap(false, true)
		err := s.hub.update(ctx, "store subscriptions", func(tx *storage.Tx) error {
			tx.MayWait(sessionPatience)
			// A set that is stored late must not come to a newer session of the
			// identity, or to another identity of the same name.
			if err := s.liveTx(tx); err != nil {
				return err
			}
			if begin {
				if err := s.beginTx(tx, false); err != nil {
					return err
				}
			}
			return subscriptionTable.Put(tx, s.id.key(), next)
		})
		if err != nil {
			if begin {
				s.submitBegin()
			}
			return err
		}
	}
	s.mu.Lock()
	messages := next.Has(EndpointMessage) && !s.subs.Has(EndpointMessage)
	methods := next.Has(EndpointMethod) && !s.subs.Has(EndpointMethod)
	s.subs = next
	s.mu.Unlock()
	if methods {
		s.hub.sessions.arrived(s.id)
		s.hub.takesMethods(s.id)
	}
	if messages {
		s.deliver()
	}
	return nil
}

// Touch records that the device was heard of; it is cheap and stores nothing.
func (s *Session) Touch() { s.activity.Store(time.Now().UnixNano()) }

// Err returns why the hub has ended the session (taken over, disabled, key
// changed, token expired, shutting down), or nil while it is live. A session
// that has ended refuses every other call.
func (s *Session) Err() error {
	if e := s.cause.Load(); e != nil {
		return e
	}
	return nil
}

// liveTx refuses a session that has ended, or whose identity was deleted, by
// the time that its change is stored. What the transaction read is looked at
// again in the committer, so that the check holds at the commit.
func (s *Session) liveTx(tx *storage.Tx) error {
	if err := s.Err(); err != nil {
		return err
	}
	if sameCredentials(tx, s.id, s.connection.Grant.seen) {
		return nil
	}
	r, err := loadCredentials(tx, s.id)
	if errors.Is(err, storage.ErrNotFound) || err == nil && r.GenerationID != s.connection.Grant.GenerationID {
		return errf(CodeDeviceNotFound, "%s", s.id)
	}
	return err
}

// end ends the session from the hub's side: it refuses further calls, waiting
// method calls fail, and the edge is told to close the connection.
func (s *Session) end(cause *Error) {
	if !s.cause.CompareAndSwap(nil, cause) {
		return
	}
	s.detach(cause)
	s.connection.Outbox.Close(cause)
}

// Close detaches the connection from the edge's side. cause is nil for a
// graceful DISCONNECT. It may be called more than once, and after the hub has
// ended the session.
func (s *Session) Close(cause error) {
	e := errf(CodeConnectionClosed, "the device %q disconnected", s.id)
	if cause != nil {
		e = wrapf(CodeConnectionClosed, cause, "the connection of %q ended: %v", s.id, cause)
	}
	if s.cause.CompareAndSwap(nil, e) {
		s.detach(e)
	}
}

func (s *Session) detach(cause *Error) {
	s.announce() // an end without a beginning would puzzle who follows the changes
	s.failCalls(cause)
	s.hub.recordConnection(s, cause)
	if s.hub.sessions.remove(s) {
		s.hub.queries.sessionChanged(s)
		s.hub.recordEnd(s, cause)
	}
}

// endSession ends an identity's session, if it has one.
func (h *Hub) endSession(id TwinID, cause *Error) {
	if s := h.sessions.end(id); s != nil {
		s.end(cause)
	}
}

// endSessions ends the sessions of a device and of its modules.
func (h *Hub) endSessions(id TwinID, cause *Error) {
	if id.ModuleID != "" {
		h.endSession(id, cause)
		return
	}
	for _, s := range h.sessions.endDevice(id.DeviceID) {
		s.end(cause)
	}
}

// expireSessions ends sessions whose token ran out a grace time ago.
func (h *Hub) expireSessions(now time.Time) {
	h.sessions.each(func(s *Session) {
		if e := s.connection.Grant.Expires; !e.IsZero() && now.After(e.Add(h.limits.TokenExpiryGrace)) {
			s.end(errf(CodeUnauthorized, "the token of %q expired at %s", s.id, e.UTC().Format(time.RFC3339)))
		}
	})
}
