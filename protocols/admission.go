package protocols

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/protocols/wire"
)

// Bounds on connections that nobody has vouched for yet: from accept until a
// device's CONNECT or a request is authenticated.
const (
	strangersPerAddress = 1024
	strangersAll        = 4096
	// A stranger that made no step for this long gives way when there is no
	// room. A step is a stage of the handshake, not a byte: who sends one byte
	// at a time gains nothing. Who has sent a whole hello has more time: in a
	// fleet that comes back through one address, a device may wait for its turn
	// on its own side of a slow line. While it waits for the hub, no time counts.
	strangerPatience = time.Second
	movingPatience   = 10 * time.Second
	// How long a stranger may take for the handshake, and then for CONNECT or
	// the first request.
	handshakeTime = 10 * time.Second
	slotTime      = 20 * time.Second // of waiting for the hub's part, on top
	strangerTime  = 30 * time.Second
)

// Bounds on those who wait for room among the strangers, and how often they are
// looked at.
const (
	waitersPerAddress = 6144
	waitersAll        = 12288
	waitTick          = 20 * time.Millisecond
	// A fleet that comes back through one address gains nothing by coming in all
	// at once: one handshake after the other is computed. So few of an address wait
	// for that at a time, and few come in within a tick; the others wait outside,
	// where they cost nothing and do not stand before anybody else.
	heldPerAddress  = 64
	freshPerAddress = 64
)

var (
	errShutdown  = errors.New("closed: the hub is shutting down")
	errNoTLSSlot = errors.New("no room for a handshake in time")
)

// admission bounds the strangers. When there is no room for a newcomer, the
// stranger that has made no step for longest gives way, first of the same
// address, so that two thousand silent connections never keep a device out. If
// all of them are making progress, the newcomer waits at its first read: that
// is a reconnecting fleet, and pacing it is kinder than refusing it. How many
// wait is bounded, too; who comes on top of that is closed. Accept itself never
// waits, or a flood from one address would keep all others out.
//
// It also bounds how many TLS handshakes compute at once: a handshake costs
// about a millisecond of one core, and thousands at once would stall the
// devices that are connected. A slow client holds no place: the place is
// taken when its hello is complete and given back when the answer goes out.
type admission struct {
	perAddress, all int
	slots           chan struct{}

	mu        sync.Mutex
	crowd     crowd // all strangers
	address   map[netip.Prefix]*crowd
	waiting   list.List // of *knock, in the order in which they came
	waitingOf map[netip.Prefix]int
	paces     paces
	tick      *time.Timer // runs letIn while somebody waits
	shut      bool
	figures   admissionFigures
}

// admissionFigures are counters and gauges for metrics, guarded by mu.
type admissionFigures struct {
	accepted, gaveWay, turnedAway, tooSlow, handshakes, paced, refused int64
	open, strangers, waiting, backingOff                               int64
}

func newAdmission(perAddress, all int) *admission {
	return &admission{
		perAddress: perAddress, all: all,
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		address: map[netip.Prefix]*crowd{}, waitingOf: map[netip.Prefix]int{}, paces: newPaces(),
	}
}

// crowd is a set of strangers. It needs the gate's lock.
type crowd struct {
	silent list.List // of *knock without a whole hello, oldest step first
	moving list.List // of *knock with one
	held   int       // those who wait for the hub, and so are in neither list
	fresh  int       // those who came in since
	since  time.Time // less than a tick ago, else fresh is of the past
}

// busy reports whether so many are about to have their handshake computed that
// another one had better wait outside.
func (c *crowd) busy(now time.Time) bool {
	return c.held >= heldPerAddress || c.fresh >= freshPerAddress && now.Sub(c.since) < waitTick
}

func (c *crowd) len() int { return c.silent.Len() + c.moving.Len() + c.held }

// victim is who gives way first, nil when nobody does.
func (c *crowd) victim(now time.Time) *knock {
	if k := front(&c.silent); k != nil && now.Sub(k.step) >= strangerPatience {
		return k
	}
	if k := front(&c.moving); k != nil && now.Sub(k.step) >= movingPatience {
		return k
	}
	return nil
}

func front(l *list.List) *knock {
	e := l.Front()
	if e == nil {
		return nil
	}
	k, _ := e.Value.(*knock)
	return k
}

// queue is the list in which k belongs while it is not held.
func (c *crowd) queue(k *knock) *list.List {
	if k.moving {
		return &c.moving
	}
	return &c.silent
}

// knock is one accepted connection. It is its net.Conn.
type knock struct {
	wire.Socket
	gate    *admission
	from    netip.Prefix
	paced   bool          // the address is the client's own, not a proxy's
	entered chan struct{} // closed when the wait is over; nil without one
	in      bool          // Read has seen that

	// Guarded by gate.mu.
	stranger           bool          // until it is authenticated or closed, and not while it waits to be let in
	held               bool          // it waits for the hub
	moving             bool          // its hello is complete
	inCrowd, inAddress *list.Element // nil unless it is a stranger that is not held
	inWaiting          *list.Element // nil when not waiting
	step               time.Time     // newest stage of the handshake
	due                time.Time     // while it waits: not before
	closed             bool

	patience *time.Timer

	shaking bool   // a TLS handshake is under way
	tickets []byte // that it has written, and that were not sent yet

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

// admit takes a newcomer in, after making room, or lets it wait. It returns nil
// when it had to close the connection. paced says whether the address counts.
func (g *admission) admit(c net.Conn, paced bool) *knock {
	k := &knock{Socket: wire.NewSocket(c), gate: g, from: source(c.RemoteAddr()), paced: paced}
	now := time.Now()
	g.mu.Lock()
	var victim *knock
	full := g.full(k.from)
	ok := !g.shut && g.waitingOf[k.from] == 0
	if paced && !full {
		wait, may := g.paces.get(k.from, now).take(now)
		if full = !may; wait > 0 {
			k.due = now.Add(wait)
			g.figures.paced++
		}
		ok = ok && may && wait == 0
	}
	if ok {
		victim, ok = g.room(k.from, now)
	}
	switch {
	case ok:
		g.figures.accepted++
		g.figures.open++
		k.patience = time.AfterFunc(strangerTime, k.expire)
		g.enter(k)
	case full:
		g.figures.turnedAway++
		victim, k = k, nil
		victim.closed = true // it was never counted as open
	default:
		g.figures.accepted++
		g.figures.open++
		k.patience = time.AfterFunc(strangerTime, k.expire)
		g.wait(k)
	}
	g.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // nobody waits for the result
	}
	return k
}

// full says whether no more newcomers may wait. It needs mu.
func (g *admission) full(from netip.Prefix) bool {
	return g.shut || g.waitingOf[from] >= waitersPerAddress || g.waiting.Len() >= waitersAll
}

// wait puts a newcomer into the queue. It needs mu.
func (g *admission) wait(k *knock) {
	k.entered = make(chan struct{})
	k.inWaiting = g.waiting.PushBack(k)
	g.waitingOf[k.from]++
	if g.tick == nil {
		g.tick = time.AfterFunc(waitTick, g.letIn)
	}
}

// waited ends a wait, whatever comes next. It needs mu.
func (g *admission) waited(k *knock) {
	g.waiting.Remove(k.inWaiting)
	if g.waitingOf[k.from]--; g.waitingOf[k.from] == 0 {
		delete(g.waitingOf, k.from)
	}
	k.inWaiting = nil
	close(k.entered)
}

// letIn looks for room for everybody who waits.
func (g *admission) letIn() {
	var victims []*knock
	full := map[netip.Prefix]bool{} // who waits behind another of a full address need not be looked at
	g.mu.Lock()
	now := time.Now()
	for e := g.waiting.Front(); e != nil; {
		k, isKnock := e.Value.(*knock)
		e = e.Next()
		if !isKnock || full[k.from] {
			continue
		}
		var victim *knock
		ok := !k.due.After(now)
		if ok {
			victim, ok = g.room(k.from, now)
		}
		if !ok {
			full[k.from] = true
			continue
		}
		g.waited(k)
		if k.patience != nil {
			k.patience.Reset(strangerTime) // the wait was not of its making
		}
		g.enter(k)
		if victim != nil {
			victims = append(victims, victim)
		}
	}
	g.tick = nil
	if g.waiting.Len() > 0 {
		g.tick = time.AfterFunc(waitTick, g.letIn)
	}
	g.mu.Unlock()
	for _, v := range victims {
		_ = v.Close() // it gave way; nobody waits for the result
	}
}

// shutDown turns everybody away from now on, also who waits.
func (g *admission) shutDown() {
	g.mu.Lock()
	g.shut = true
	var all []*knock
	for e := g.waiting.Front(); e != nil; e = e.Next() {
		if k, ok := e.Value.(*knock); ok {
			all = append(all, k)
		}
	}
	g.mu.Unlock()
	for _, k := range all {
		_ = k.Close() // nobody waits for the result
	}
}

// room says whether a newcomer can enter, and who must go for it. It needs mu.
func (g *admission) room(from netip.Prefix, now time.Time) (victim *knock, ok bool) {
	c, own := &g.crowd, g.address[from]
	switch {
	case own != nil && own.busy(now):
		return nil, false
	case own != nil && own.len() >= g.perAddress:
		c = own
	case g.crowd.len() < g.all:
		return nil, true
	}
	if victim = c.victim(now); victim == nil {
		return nil, false
	}
	g.leave(victim)
	g.figures.gaveWay++
	return victim, true
}

// enter makes k a stranger. It needs mu.
func (g *admission) enter(k *knock) {
	own := g.address[k.from]
	if own == nil {
		own = &crowd{}
		g.address[k.from] = own
	}
	k.stranger = true
	g.line(k)
	if k.step.Sub(own.since) >= waitTick {
		own.since, own.fresh = k.step, 0
	}
	own.fresh++
}

// line puts a stranger at the end of its queues, unline takes it out of them.
// Both need mu.
func (g *admission) line(k *knock) {
	k.step = time.Now()
	k.inCrowd, k.inAddress = g.crowd.queue(k).PushBack(k), g.address[k.from].queue(k).PushBack(k)
}

func (g *admission) unline(k *knock) {
	if k.inCrowd != nil {
		g.crowd.queue(k).Remove(k.inCrowd)
		g.address[k.from].queue(k).Remove(k.inAddress)
		k.inCrowd, k.inAddress = nil, nil
	}
}

// hold begins (by 1) or ends (by -1) a stranger's wait for the hub. It needs mu.
func (g *admission) hold(k *knock, by int) {
	k.held = by > 0
	g.crowd.held += by
	g.address[k.from].held += by
}

// leave forgets a stranger, or one that waits to become one. It needs mu.
func (g *admission) leave(k *knock) {
	if k.patience != nil {
		k.patience.Stop()
		k.patience = nil // an idle device's connection lives for months
	}
	if k.inWaiting != nil {
		g.waited(k)
	}
	if !k.stranger {
		return
	}
	k.stranger = false
	g.unline(k)
	if k.held {
		g.hold(k, -1)
	}
	if g.address[k.from].len() == 0 {
		delete(g.address, k.from)
	}
}

// stepped notes that a stranger has come a stage further. waits says that the
// next one is the hub's to make.
func (k *knock) stepped(waits bool) {
	g := k.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !k.stranger {
		return
	}
	g.unline(k)
	k.moving = true
	switch {
	case waits && !k.held:
		g.hold(k, 1)
	case !waits:
		if k.held {
			g.hold(k, -1)
		}
		g.line(k)
	}
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
	if k.paced {
		now := time.Now()
		k.gate.paces.get(k.from, now).count(-1, now)
	}
}

// Refused says that the connection showed wrong credentials. It reports whether
// its address is slowed for that, so that who may try again on the same
// connection had better be made to come with a new one.
func (k *knock) Refused() bool {
	k.gate.mu.Lock()
	defer k.gate.mu.Unlock()
	k.gate.figures.refused++
	if !k.paced {
		return false
	}
	now := time.Now()
	p := k.gate.paces.get(k.from, now)
	p.count(1, now)
	return p.backsOff()
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

// handOver says that the device edge has the connection, whose own clock runs
// until CONNECT. Until that is accepted it still gives way when there is no room.
func (k *knock) handOver() {
	k.stepped(false)
	k.tolerate()
}

// expire closes a connection that stayed a stranger for too long.
func (k *knock) expire() {
	g := k.gate
	g.mu.Lock()
	stranger := k.stranger || k.inWaiting != nil
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
	k.stepped(true)
	t := time.NewTimer(slotTime)
	defer t.Stop()
	select {
	case k.gate.slots <- struct{}{}:
		k.holds.Store(true)
		_ = k.Socket.SetDeadline(time.Now().Add(handshakeTime)) // likewise
		return nil
	case <-t.C:
		k.stepped(false)
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
		k.stepped(false)
	}
}

// Read receives, once the connection has been let in.
func (k *knock) Read(b []byte) (int, error) {
	if k.entered != nil && !k.in {
		<-k.entered
		k.in = true
		_ = k.Socket.SetReadDeadline(time.Now().Add(handshakeTime)) // the wait was the hub's; a failure shows in the read
	}
	return k.Socket.Read(b)
}

// NetConn returns the connection below, for those who wait on it.
func (k *knock) NetConn() net.Conn { return &k.Socket }

// Write sends. The first one after the hello carries the server's answer, and
// with it the costly part of the handshake is over.
//
// TLS 1.3 ends the server's part with session tickets, which no client waits
// for: they go out with what is written next, since a packet of their own costs
// as much as one that says something.
func (k *knock) Write(b []byte) (int, error) {
	k.done()
	switch {
	case k.shaking && len(b) > 0 && b[0] == recordApplicationData: // as such a handshake's last messages look
		k.tickets = append(k.tickets, b...)
		return len(b), nil
	case len(k.tickets) > 0:
		n, err := k.Socket.Write(append(k.tickets, b...))
		n = max(0, n-len(k.tickets))
		k.tickets = nil
		return n, err
	}
	return k.Socket.Write(b)
}

// recordApplicationData is how TLS records begin that are encrypted as TLS 1.3
// does it (RFC 8446, section 5.1).
const recordApplicationData = 23

// shake says that a TLS handshake begins, shook that it is over. When it failed, what
// it wrote last says why, and nothing is written after it.
func (k *knock) shake() { k.shaking = true }

func (k *knock) shook(failed bool) {
	k.shaking = false
	if failed && len(k.tickets) > 0 {
		_, _ = k.Write(nil) // the client may have gone
	}
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
	f.strangers, f.waiting, f.backingOff = int64(g.crowd.len()), int64(g.waiting.Len()), g.paces.backingOff(time.Now())
	return f
}

// gatedListener is a net.Listener whose connections have been admitted.
type gatedListener struct {
	net.Listener
	gate  *admission
	paced bool // false behind a proxy, whose address all its clients share
}

// Accept waits for the next connection that may come in.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if k := l.gate.admit(c, l.paced); k != nil {
			return k, nil
		}
	}
}

// GateLimit is a bound on connections, for documentation.
type GateLimit struct {
	Text  string
	Value string
}

// GateLimits lists the bounds that hold before anybody is authenticated.
func GateLimits() []GateLimit {
	return []GateLimit{
		{"Connections that are not authenticated yet, for one IPv4 address or IPv6 /64", strconv.Itoa(strangersPerAddress)},
		{"The same, for all addresses together", strconv.Itoa(strangersAll)},
		{"Connections that wait for room among those, for one address; further ones are closed", strconv.Itoa(waitersPerAddress)},
		{"The same, for all addresses together", strconv.Itoa(waitersAll)},
		{"Connections a second from one address; further ones wait. Plain HTTP, where all may share a proxy's address, is exempt", strconv.Itoa(connectsPerSecond)},
		{"The same, at once", strconv.Itoa(connectsAtOnce)},
		{"Refused credentials from one address, less its successes and one a second, before its connections are taken one by one, with a pause of " + refusalPause.String() + " between them for each refusal more", strconv.Itoa(refusalsFree)},
		{"Connections of one address whose handshake waits for its turn to be computed; further ones wait outside", strconv.Itoa(heldPerAddress)},
		{"Connections of one address that come in within " + waitTick.String() + "; further ones wait outside", strconv.Itoa(freshPerAddress)},
		{"Time for a TLS handshake", handshakeTime.String()},
		{"Time that a handshake waits for its turn to be computed, which does not count", slotTime.String()},
		{"Time for a request's headers", readHeaderTime.String()},
		{"Time until the first request is judged or a public page is asked for", strangerTime.String()},
		{"Without a step for this long, a stranger may be closed for a newcomer", strangerPatience.String()},
		{"The same, once its TLS hello is complete; what the hub takes does not count", movingPatience.String()},
		{"Time that an idle HTTP connection is kept", idleTime.String()},
		{"Size of a request's headers, bytes", strconv.Itoa(maxHeaderBytes)},
		{"TLS handshakes that compute at once", "half of the cores, at least one"},
	}
}
