package protocols

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds on connections that nobody has vouched for yet: from accept until a
// device's CONNECT or a request is authenticated.
const (
	strangersPerAddress = 1024
	strangersAll        = 4096
	// A stranger that made no step for this long gives way when there is no
	// room. A step is a stage of the handshake, not a byte: who sends one byte
	// at a time gains nothing.
	strangerPatience = time.Second
	// How long a stranger may take for the handshake, and then for CONNECT or
	// the first request.
	handshakeTime = 10 * time.Second
	strangerTime  = 30 * time.Second
)

var (
	errShutdown  = errors.New("closed: the hub is shutting down")
	errNoTLSSlot = errors.New("no room for a handshake in time")
)

// admission bounds the strangers. When there is no room for a newcomer, the
// stranger that has made no step for longest gives way, first of the same
// address, so that two thousand silent connections never keep a device out. If
// all of them are making progress, the newcomer waits in accept: that is a
// reconnecting fleet, and pacing it is kinder than refusing it.
//
// It also bounds how many TLS handshakes compute at once: a handshake costs
// about a millisecond of one core, and thousands at once would stall the
// devices that are connected. A slow client holds no place: the place is
// taken when its hello is complete and given back when the answer goes out.
type admission struct {
	perAddress, all int
	slots           chan struct{}

	mu      sync.Mutex
	order   list.List // of *knock, oldest step first
	address map[netip.Prefix]*list.List
	changed chan struct{} // closed and replaced when a stranger leaves
	figures admissionFigures
}

// admissionFigures are counters and gauges for metrics, guarded by mu.
type admissionFigures struct {
	accepted, gaveWay, tooSlow, handshakes int64
	open, strangers                        int64
}

func newAdmission(perAddress, all int) *admission {
	return &admission{
		perAddress: perAddress, all: all,
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		address: map[netip.Prefix]*list.List{}, changed: make(chan struct{}),
	}
}

// knock is one accepted connection. It is its net.Conn.
type knock struct {
	net.Conn
	gate *admission
	from netip.Prefix

	// Guarded by gate.mu.
	inOrder, inAddress *list.Element // nil once authenticated or closed
	step               time.Time     // newest stage of the handshake
	closed             bool

	patience *time.Timer

	holds atomic.Bool // a place among the handshakes that compute
	known atomic.Bool // it has authenticated: spares the lock on each further request
}

// source is what counts as one address: an IPv4 address or an IPv6 /64, the
// smallest network that one customer gets.
func source(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// admit takes a newcomer in, after making room or waiting for it.
func (g *admission) admit(ctx context.Context, c net.Conn) (*knock, error) {
	k := &knock{Conn: c, gate: g, from: source(c.RemoteAddr())}
	for {
		g.mu.Lock()
		victim, ok := g.room(k.from, time.Now())
		if ok {
			g.enter(k)
			g.mu.Unlock()
			if victim != nil {
				_ = victim.Close() // it gave way; nobody waits for the result
			}
			return k, nil
		}
		changed := g.changed
		g.mu.Unlock()
		t := time.NewTimer(strangerPatience / 10)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errors.Join(errShutdown, c.Close())
		case <-changed:
			t.Stop()
		case <-t.C:
		}
	}
}

// room says whether a newcomer can enter, and who must go for it. It needs mu.
func (g *admission) room(from netip.Prefix, now time.Time) (victim *knock, ok bool) {
	own := g.address[from]
	queue := &g.order
	switch {
	case own != nil && own.Len() >= g.perAddress:
		queue = own
	case g.order.Len() < g.all:
		return nil, true
	}
	front, isKnock := queue.Front().Value.(*knock)
	if !isKnock || now.Sub(front.step) < strangerPatience {
		return nil, false
	}
	g.leave(front)
	g.figures.gaveWay++
	return front, true
}

// enter and leave need mu.
func (g *admission) enter(k *knock) {
	own := g.address[k.from]
	if own == nil {
		own = list.New()
		g.address[k.from] = own
	}
	k.step = time.Now()
	k.inOrder, k.inAddress = g.order.PushBack(k), own.PushBack(k)
	k.patience = time.AfterFunc(strangerTime, k.expire)
	g.figures.accepted++
	g.figures.open++
}

func (g *admission) leave(k *knock) {
	if k.inOrder == nil {
		return
	}
	own := g.address[k.from]
	g.order.Remove(k.inOrder)
	own.Remove(k.inAddress)
	if own.Len() == 0 {
		delete(g.address, k.from)
	}
	k.inOrder, k.inAddress = nil, nil
	k.patience.Stop()
	k.patience = nil // an idle device's connection lives for months
	close(g.changed)
	g.changed = make(chan struct{})
}

// stepped notes that a stranger has come a stage further.
func (k *knock) stepped() {
	g := k.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if k.inOrder == nil {
		return
	}
	k.step = time.Now()
	g.order.MoveToBack(k.inOrder)
	g.address[k.from].MoveToBack(k.inAddress)
}

// Authenticated says that the connection is no stranger any more. It may be
// called at any time, from any goroutine, also twice.
func (k *knock) Authenticated() {
	if k.known.Swap(true) {
		return
	}
	k.gate.mu.Lock()
	defer k.gate.mu.Unlock()
	k.gate.leave(k)
}

// tolerate lets a stranger that asked for a public page keep its connection
// while there is room: health checks come back on the same one.
func (k *knock) tolerate() {
	if k.known.Load() {
		return
	}
	k.gate.mu.Lock()
	defer k.gate.mu.Unlock()
	if k.patience != nil {
		k.patience.Stop()
	}
}

// expire closes a connection that stayed a stranger for too long.
func (k *knock) expire() {
	g := k.gate
	g.mu.Lock()
	stranger := k.inOrder != nil
	if stranger {
		g.leave(k)
		g.figures.tooSlow++
	}
	g.mu.Unlock()
	if stranger {
		_ = k.Close() // nobody waits for the result
	}
}

// hello takes a place among the handshakes that compute. crypto/tls calls it
// when the client's hello is complete.
func (k *knock) hello() error {
	k.stepped()
	t := time.NewTimer(handshakeTime)
	defer t.Stop()
	select {
	case k.gate.slots <- struct{}{}:
		k.holds.Store(true)
		k.stepped()
		return nil
	case <-t.C:
		return errNoTLSSlot
	}
}

// done gives the place back.
func (k *knock) done() {
	if k.holds.CompareAndSwap(true, false) {
		<-k.gate.slots
		k.gate.mu.Lock()
		k.gate.figures.handshakes++
		k.gate.mu.Unlock()
	}
}

// Write sends. The first one after the hello carries the server's answer, and
// with it the costly part of the handshake is over.
func (k *knock) Write(b []byte) (int, error) {
	k.done()
	return k.Conn.Write(b)
}

// Close closes the connection and forgets it.
func (k *knock) Close() error {
	g := k.gate
	g.mu.Lock()
	g.leave(k)
	if !k.closed {
		k.closed = true
		g.figures.open--
	}
	g.mu.Unlock()
	k.done()
	return k.Conn.Close()
}

// snapshot returns the figures of this moment.
func (g *admission) snapshot() admissionFigures {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.figures
	f.strangers = int64(g.order.Len())
	return f
}

// gatedListener is a net.Listener whose connections have been admitted.
type gatedListener struct {
	net.Listener
	ctx  context.Context // ends at shutdown: accept must not wait then
	gate *admission
}

// Accept waits for the next connection that may come in.
func (l *gatedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.admit(l.ctx, c)
}

// GateLimit is a bound on connections, for documentation.
type GateLimit struct {
	Text  string
	Value string
}

// GateLimits lists the bounds that hold before anybody is authenticated.
func GateLimits() []GateLimit {
	return []GateLimit{
		{"Connections in a handshake or before their first judged request, for one IPv4 address or IPv6 /64", strconv.Itoa(strangersPerAddress)},
		{"The same, for all addresses together", strconv.Itoa(strangersAll)},
		{"Time for a TLS handshake", handshakeTime.String()},
		{"Time for a request's headers", readHeaderTime.String()},
		{"Time until the first request is judged or a public page is asked for", strangerTime.String()},
		{"Without a step for this long, a stranger may be closed for a newcomer", strangerPatience.String()},
		{"Time that an idle HTTP connection is kept", idleTime.String()},
		{"Size of a request's headers, bytes", strconv.Itoa(maxHeaderBytes)},
		{"TLS handshakes that compute at once", "half of the cores, at least one"},
	}
}
