package protocols

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a connection that does nothing but end.
type fake struct {
	net.Conn
	address net.Addr
	closed  atomic.Bool
	until   atomic.Int64 // the newest deadline for reads, unix ns
}

// SetDeadline takes a deadline.
func (f *fake) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

// SetReadDeadline takes a deadline.
func (f *fake) SetReadDeadline(t time.Time) error { f.until.Store(t.UnixNano()); return nil }

// RemoteAddr returns the address.
func (f *fake) RemoteAddr() net.Addr { return f.address }

// Read gives nothing, at once.
func (f *fake) Read([]byte) (int, error) { return 0, nil }

// Write takes everything.
func (f *fake) Write(b []byte) (int, error) { return len(b), nil }

// Close ends it.
func (f *fake) Close() error { f.closed.Store(true); return nil }

func tcp(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1234} }

func dial(ip string) *fake { return &fake{address: tcp(ip)} }

func isClosed(c net.Conn) bool {
	if k, ok := c.(*knock); ok {
		c = k.Conn
	}
	f, ok := c.(*fake)
	return ok && f.closed.Load()
}

func admit(t *testing.T, g *admission, c net.Conn) *knock {
	t.Helper()
	k := g.admit(c, true)
	if k == nil {
		t.Fatal("the newcomer was turned away")
	}
	return k
}

func TestGateEvictsTheSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(3, 100)
		var silent []*knock
		for range 3 {
			silent = append(silent, admit(t, g, dial("192.0.2.1")))
		}
		other := admit(t, g, dial("192.0.2.2"))
		time.Sleep(2 * strangerPatience)
		began := time.Now()
		admit(t, g, dial("192.0.2.1"))
		if time.Since(began) > 0 {
			t.Errorf("the newcomer waited %s although others were silent", time.Since(began))
		}
		if !isClosed(silent[0]) || isClosed(silent[1]) || isClosed(other) {
			t.Error("the oldest of the same address must give way, and nobody else")
		}
		if f := g.snapshot(); f.gaveWay != 1 || f.strangers != 4 || f.open != 4 {
			t.Errorf("figures: got %+v", f)
		}
		for _, k := range append(silent, other) {
			_ = k.Close()
		}
		synctest.Wait()
	})
}

func TestGateKeepsTheAuthenticated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(2, 100)
		known := admit(t, g, dial("192.0.2.1"))
		known.Authenticated()
		known.Authenticated()
		for range 50 {
			admit(t, g, dial("192.0.2.1"))
			time.Sleep(strangerPatience)
		}
		time.Sleep(2 * strangerTime)
		if isClosed(known) {
			t.Error("an authenticated connection was closed for strangers")
		}
		if f := g.snapshot(); f.strangers != 0 || f.open != 1 {
			t.Errorf("strangers must expire: got %+v", f)
		}
	})
}

func TestGateGlobalBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(10, 4)
		first := admit(t, g, dial("192.0.2.1"))
		for _, ip := range []string{"192.0.2.2", "192.0.2.3", "2001:db8::1"} {
			admit(t, g, dial(ip))
		}
		time.Sleep(strangerPatience)
		admit(t, g, dial("2001:db8:0:1::1"))
		if !isClosed(first) {
			t.Error("the oldest of all must give way at the global bound")
		}
		time.Sleep(2 * strangerTime)
	})
}

// TestGatePaces shows that a fleet whose members make progress is not refused:
// the newcomer waits until one is through.
func TestGatePaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(2, 100)
		a, b := admit(t, g, dial("192.0.2.1")), admit(t, g, dial("192.0.2.1"))
		go func() {
			time.Sleep(strangerPatience / 2)
			a.stepped(false)
			b.Authenticated()
		}()
		began := time.Now()
		newcomer, stranger := admit(t, g, dial("192.0.2.1")), admit(t, g, dial("192.0.2.2"))
		if _, _ = stranger.Read(nil); time.Since(began) > 0 {
			t.Error("a flood from one address made another wait")
		}
		_, _ = newcomer.Read(nil)
		if got := time.Since(began); got < strangerPatience/2 || got > strangerPatience/2+waitTick {
			t.Errorf("the newcomer waited %s, want until the other was through, %s", got, strangerPatience/2)
		}
		if isClosed(a) {
			t.Error("a connection that makes progress was closed")
		}
		time.Sleep(2 * strangerTime)
	})
}

func TestGateStopsWaitingAtShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(1, 100)
		k, waiting := admit(t, g, dial("192.0.2.1")), admit(t, g, dial("192.0.2.1"))
		go func() {
			time.Sleep(time.Millisecond)
			g.shutDown()
		}()
		if _, _ = waiting.Read(nil); !isClosed(waiting) {
			t.Error("who waits must be closed at shutdown")
		}
		if late := dial("192.0.2.2"); g.admit(late, true) != nil || !isClosed(late) {
			t.Error("a newcomer at shutdown must be closed")
		}
		_ = k.Close()
		if f := g.snapshot(); f.open != 0 || f.strangers != 0 || f.waiting != 0 || f.turnedAway != 1 {
			t.Errorf("figures: got %+v", f)
		}
		time.Sleep(2 * waitTick)
	})
}

// TestGateTurnsAway shows that also those who wait are bounded, and give up.
func TestGateTurnsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(1, 100)
		stop := time.Now().Add(strangerPatience / 2)
		moving := admit(t, g, dial("192.0.2.1"))
		for range waitersPerAddress {
			admit(t, g, dial("192.0.2.1"))
		}
		if extra := dial("192.0.2.1"); g.admit(extra, true) != nil || !isClosed(extra) {
			t.Error("more may wait than the bound says")
		}
		admit(t, g, dial("192.0.2.2"))
		time.Sleep(time.Until(stop))
		moving.stepped(false)
		time.Sleep(3 * strangerTime)
		if f := g.snapshot(); f.open != 0 || f.strangers != 0 || f.waiting != 0 || f.turnedAway != 1 {
			t.Errorf("figures: got %+v", f)
		}
	})
}

// TestHandshakePlaces shows that a slow client holds no place: the place is
// free as soon as the answer to its hello goes out, or it goes away.
func TestHandshakePlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(100, 100)
		g.slots = make(chan struct{}, 1)
		a, b, c := admit(t, g, dial("192.0.2.1")), admit(t, g, dial("192.0.2.2")), admit(t, g, dial("192.0.2.3"))
		if err := a.hello(); err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() { second <- b.hello() }()
		synctest.Wait()
		select {
		case <-second:
			t.Fatal("two handshakes compute, one may")
		default:
		}
		_, _ = a.Write(nil) // the answer goes out
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		go func() { second <- c.hello() }()
		synctest.Wait()
		_ = b.Close() // it goes away instead
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := a.hello(); !errors.Is(err, errNoTLSSlot) || time.Since(began) != slotTime {
			t.Errorf("without a place: got %v after %s", err, time.Since(began))
		}
		for _, k := range []*knock{a, c} {
			_ = k.Close()
		}
	})
}

// TestGateHoldsWhoWaitsForIt is a fleet that comes back through one address to a
// hub that is slow: while a device waits for the hub it gives way to nobody and
// no time runs, and afterwards it has longer than one that never said anything.
func TestGateHoldsWhoWaitsForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(2, 100)
		g.slots = make(chan struct{}, 1)
		first, second := dial("192.0.2.1"), dial("192.0.2.1")
		a, b := admit(t, g, first), admit(t, g, second)
		if err := a.hello(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- b.hello() }()
		waiting := dial("192.0.2.1")
		c := admit(t, g, waiting)
		entered := make(chan time.Time, 1)
		go func() { _, _ = c.Read(nil); entered <- time.Now() }()
		time.Sleep(handshakeTime + time.Second)
		if isClosed(a) || isClosed(b) {
			t.Error("a device gave way while it waited for the hub")
		}
		if f := g.snapshot(); f.strangers != 2 || f.waiting != 1 || f.gaveWay != 0 {
			t.Errorf("figures: got %+v", f)
		}
		_, _ = a.Write(nil) // its answer goes out, and b computes
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := time.Until(time.Unix(0, second.until.Load())); got != handshakeTime {
			t.Errorf("after the wait %s were left for the handshake, want %s", got, handshakeTime)
		}
		answered := time.Now()
		if got := (<-entered).Sub(answered); got < movingPatience || got > movingPatience+waitTick {
			t.Errorf("a silent client gave way after %s, want %s", got, movingPatience)
		}
		if !isClosed(a) || isClosed(b) {
			t.Error("who waits for the client, and not the hub, gives way")
		}
		if got := time.Until(time.Unix(0, waiting.until.Load())); got != handshakeTime {
			t.Errorf("after the wait to be let in %s were left, want %s", got, handshakeTime)
		}
		for _, k := range []*knock{b, c} {
			_ = k.Close()
		}
		if f := g.snapshot(); f.open != 0 || f.strangers != 0 || f.waiting != 0 || len(g.address) != 0 {
			t.Errorf("figures: got %+v", f)
		}
		time.Sleep(2 * waitTick)
	})
}

// TestGateLetsAFleetInByAndBy: most of a fleet that comes at once waits outside,
// and another address does not wait behind it.
func TestGateLetsAFleetInByAndBy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(strangersPerAddress, strangersAll)
		g.slots = make(chan struct{}, 1)
		var fleet []*knock
		for range 4 * freshPerAddress {
			fleet = append(fleet, admit(t, g, dial("192.0.2.1")))
		}
		if f := g.snapshot(); f.strangers != freshPerAddress {
			t.Errorf("%d of a fleet came in at once, want %d", f.strangers, freshPerAddress)
		}
		var computing atomic.Int64
		for _, k := range fleet {
			go func() {
				_, _ = k.Read(nil)
				if k.hello() == nil {
					computing.Add(1) // one at a time: it keeps the place
				}
			}()
		}
		time.Sleep(10 * waitTick)
		if f := g.snapshot(); f.strangers > heldPerAddress+freshPerAddress || computing.Load() != 1 {
			t.Errorf("%d of a fleet are in while one computes: %+v", computing.Load(), f)
		}
		other := admit(t, g, dial("192.0.2.2"))
		if other.entered != nil {
			t.Error("another address waits behind the fleet")
		}
		for _, k := range append(fleet, other) {
			_ = k.Close()
		}
		time.Sleep(2 * slotTime) // who waited for a place gives up
		if f := g.snapshot(); f.open != 0 || f.strangers != 0 || f.waiting != 0 || f.gaveWay != 0 {
			t.Errorf("figures: got %+v", f)
		}
	})
}

func TestSource(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
	} {
		if got := source(tcp(address)).String(); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	if got := source(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("unix: got %s", got)
	}
}
