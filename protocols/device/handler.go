package device

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// Options configure a Handler; the zero value is usable.
type Options struct {
	Logger *slog.Logger // nil discards
	// MaxPending bounds the connections that have not been authenticated
	// yet; further ones are closed at once. 0 means 10,000.
	MaxPending int
	// Authenticated is called with the connection below a session, as it was
	// given to ServeConn or hijacked, when its CONNECT is accepted; nil: nobody
	// wants to know. It must not block.
	Authenticated func(net.Conn)
	// Refused is called likewise when a CONNECT is refused for its credentials.
	Refused func(net.Conn)
}

const (
	defaultMaxPending = 10_000
	connectTimeout    = 30 * time.Second // for CONNECT to arrive (docs/reference/protocol-mqtt.md, CONNECT)
)

// Handler serves device connections. It is safe for concurrent use.
type Handler struct {
	hub    hub
	log    *slog.Logger
	limits engine.Limits
	codes  map[engine.Code]wireCode
	pool   *wire.Buffers
	most   int
	vouch  func(net.Conn)
	blame  func(net.Conn)
	chance func() float64 // 0 to below 1; what injected faults toss

	leaving chan struct{} // a place for each session that leaves the engine at a time

	ctx    context.Context //nolint:containedctx // of every engine call of every session; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	count  counters

	mu       sync.Mutex
	sessions map[*session]struct{}
	draining bool
	closed   bool
}

// hub is what the handler needs of *engine.Hub, so that the wire is tested
// without a store.
type hub interface {
	AuthenticateDevice(ctx context.Context, cr engine.Credentials) (engine.Grant, error)
	Connect(ctx context.Context, cn engine.Connection) (engineSession, error)
	Limits() engine.Limits
	RecordRefusal(cr engine.Credentials, cause *engine.Error)
	Fault(id engine.TwinID) (engine.Fault, bool)
	FaultLost()
}

// engineSession is what the handler needs of *engine.Session.
type engineSession interface {
	Resumed() bool
	Subscriptions() engine.Subscriptions
	Subscribe(ctx context.Context, add engine.Subscriptions) error
	Unsubscribe(ctx context.Context, remove ...engine.Endpoint) error
	Touch()
	Twin(ctx context.Context) ([]byte, error)
	PatchReported(ctx context.Context, patch []byte, expected int64) (int64, error)
	CompleteMethod(requestID string, status int, payload []byte)
	AcknowledgeMessage(packetID uint16)
	SubmitTelemetry(m engine.Message, done func(error)) error
	Err() error
	Close(cause error)
}

// engineHub makes *engine.Hub a hub.
type engineHub struct{ *engine.Hub }

// Connect attaches a connection as the identity's session.
func (h engineHub) Connect(ctx context.Context, cn engine.Connection) (engineSession, error) {
	s, err := h.Hub.Connect(ctx, cn)
	if err != nil {
		return nil, err // never a nil *Session in an interface
	}
	return s, nil
}

// NewHandler returns a handler for the hub's devices. Close it before the hub.
func NewHandler(h *engine.Hub, o Options) *Handler { return newHandler(engineHub{h}, o) }

func newHandler(hb hub, o Options) *Handler {
	h := &Handler{
		hub:      hb,
		log:      o.Logger,
		limits:   hb.Limits(),
		codes:    wireCodes(),
		pool:     wire.NewBuffers(),
		most:     o.MaxPending,
		vouch:    o.Authenticated,
		blame:    o.Refused,
		chance:   rand.Float64,
		sessions: map[*session]struct{}{},
		leaving:  make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.vouch == nil {
		h.vouch = func(net.Conn) {}
	}
	if h.blame == nil {
		h.blame = func(net.Conn) {}
	}
	if h.most <= 0 {
		h.most = defaultMaxPending
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// ServeHTTP answers a WebSocket handshake at whatever path it is mounted, and
// serves the connection until it has become quiet, as ServeConn does.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.admit() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "the hub takes no more connections now, try again later", http.StatusServiceUnavailable)
		return
	}
	st, err := wire.Accept(w, r, h.pool)
	if err != nil {
		h.count.pending.Add(-1)
		h.count.rejected.Add(1)
		h.log.DebugContext(r.Context(), "websocket handshake refused", slog.String("address", r.RemoteAddr), slog.Any("error", err))
		return
	}
	h.start(st)
}

// ServeConn takes over an MQTT connection whose TLS handshake is done. It
// returns when the device has become quiet after its first requests, a few
// seconds later at most; the connection lives on in a goroutine of the handler.
// ctx is only of the first moment.
func (h *Handler) ServeConn(ctx context.Context, conn net.Conn) {
	if !h.admit() {
		h.count.rejected.Add(1)
		h.log.DebugContext(ctx, "connection refused: too many are not authenticated yet", slog.String("address", conn.RemoteAddr().String()))
		_ = conn.Close()
		return
	}
	h.start(wire.NewStream(conn, h.pool))
}

// admit takes a place among the connections that are not authenticated, if
// one is left. A handshake has its place while it goes on.
func (h *Handler) admit() bool {
	if h.count.pending.Add(1) <= int64(h.most) {
		return true
	}
	h.count.pending.Add(-1)
	return false
}

// start serves an admitted connection on the goroutine that did the handshake.
func (h *Handler) start(st *wire.Stream) {
	s := newSession(h, st)
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		h.count.pending.Add(-1)
		_ = st.Close()
		return
	}
	h.sessions[s] = struct{}{}
	h.wg.Add(1)
	h.mu.Unlock()
	defer h.wg.Done()
	s.begin()
}

func (h *Handler) forget(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, s)
}

func (h *Handler) isDraining() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.draining
}

// defaultDrain is how long Drain takes when its context has no deadline.
const defaultDrain = 5 * time.Second

// Drain refuses new sessions (CONNACK 3) and closes the present ones, spread
// over nine tenths of the time that ctx has left, so that the devices do not
// all come back in one moment. It returns when every session has ended or ctx
// has.
func (h *Handler) Drain(ctx context.Context) error {
	h.mu.Lock()
	h.draining = true
	live := make([]*session, 0, len(h.sessions))
	for s := range h.sessions {
		live = append(live, s)
	}
	h.mu.Unlock()
	span := defaultDrain
	if d, ok := ctx.Deadline(); ok {
		span = time.Until(d)
	}
	const steps = 100
	tick := time.NewTicker(max(span*9/10/steps, time.Millisecond))
	defer tick.Stop()
	cause := &engine.Error{Code: engine.CodeClosed, Message: "the hub is shutting down"}
	chunk := (len(live) + steps - 1) / steps
	for next := 0; next < len(live) || h.anyOf(live); {
		for _, s := range live[next:min(next+chunk, len(live))] {
			s.out.Close(cause)
		}
		next = min(next+chunk, len(live))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// anyOf reports whether one of the sessions has not ended yet.
func (h *Handler) anyOf(list []*session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range list {
		if _, live := h.sessions[s]; live {
			return true
		}
	}
	return false
}

// Close cuts every connection and waits until its goroutines have ended.
func (h *Handler) Close() error {
	h.mu.Lock()
	h.closed, h.draining = true, true
	for s := range h.sessions {
		s.out.Close(&engine.Error{Code: engine.CodeClosed, Message: "the hub is shutting down"})
	}
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
	return nil
}

// Stats are counters since the start, and gauges.
type Stats struct {
	Pending     int64            // connections that are not authenticated yet
	Sessions    int64            // authenticated connections
	Accepted    int64            // sessions since the start
	Rejected    int64            // connections closed without a CONNACK, handshakes refused
	Refused     [6]int64         // CONNACKs by return code; index 0 stays 0
	Packets     int64            // received by sessions
	Paced       int64            // reads put off because a session sent too much
	Disconnects map[string]int64 // ended connections by reason
}

type counters struct {
	pending, sessions, accepted, rejected, packets, paced atomic.Int64
	refused                                               [6]atomic.Int64
	disconnects                                           [reasonCount]atomic.Int64
}

// Stats returns a snapshot.
func (h *Handler) Stats() Stats {
	c := &h.count
	s := Stats{
		Pending:     c.pending.Load(),
		Sessions:    c.sessions.Load(),
		Accepted:    c.accepted.Load(),
		Rejected:    c.rejected.Load(),
		Packets:     c.packets.Load(),
		Paced:       c.paced.Load(),
		Disconnects: make(map[string]int64, reasonCount),
	}
	for i := range c.refused {
		s.Refused[i] = c.refused[i].Load()
	}
	for r := range reasonCount {
		name, _ := r.info()
		s.Disconnects[name] = c.disconnects[r].Load()
	}
	return s
}

var errDraining = errors.New("the hub is shutting down")
