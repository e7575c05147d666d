package device

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// session is one connection, from its first byte on. Its fields belong to its
// goroutine, but out.
type session struct {
	h   *Handler
	st  *wire.Stream
	rd  *wire.Reader
	out *outbox

	es        engineSession // nil until CONNECT was accepted
	id        engine.TwinID
	will      *wire.Will
	idle      time.Duration // longest silence
	beginning time.Time     // when it began, while it is on the goroutine that accepted it
	expires   time.Time     // when the token's grace ends; zero = never
	packets   allowance     // that may be read without waiting
	bytes     allowance     // of them
	filled    time.Time     // when the allowances last grew; zero = never
	told      time.Time     // when the log last said that the session is slowed

	unsettled  []uint16 // packet ids of telemetry that was not seen to be durable, in order
	loose      int      // messages at QoS 0 that were not
	looseBytes int      // of them
	settled    tally    // of the store's answers to both
}

func newSession(h *Handler, st *wire.Stream) *session {
	return &session{
		h:   h,
		st:  st,
		rd:  wire.NewReader(st, h.pool, wire.MaxConnect),
		out: newOutbox(st, h.pool, &h.wg),
	}
}

// How a connection begins.
const (
	// A device that is silent for so long has become quiet.
	quietAfter = 500 * time.Millisecond
	// One that never is leaves the goroutine that accepted it after this.
	beginMost = 5 * time.Second
)

// begin serves the connection on the goroutine that accepted it, whose stack
// has grown with the handshake, while the device makes its first requests. The
// long rest runs on a goroutine of its own, whose stack begins anew: most
// devices say little, and what they cost is what they wait with.
func (s *session) begin() {
	s.beginning = time.Now()
	s.run(func() error {
		if why := s.connect(); why != nil {
			return why
		}
		if !s.st.SetQuiet(quietAfter) {
			return wire.ErrQuiet
		}
		return nil
	})
}

// goOn serves the rest.
func (s *session) goOn() {
	s.beginning = time.Time{}
	s.st.SetQuiet(0)
	s.run(func() error { return nil })
}

// run serves the connection until it ends, or has become quiet.
func (s *session) run(first func() error) {
	var why *ending
	defer func() {
		if v := recover(); v != nil {
			why = end(reasonFault, fmt.Errorf("panic: %v", v))
			s.h.log.Error("a device session failed", slog.String("device", s.id.String()), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		if why != nil {
			s.finish(why)
		}
	}()
	err := first()
	if err == nil {
		err = s.serve()
	}
	if errors.Is(err, wire.ErrQuiet) {
		s.h.wg.Go(s.goOn)
		return
	}
	why = s.endingOf(err)
}

// serve handles packets until the connection ends, first those that came right
// behind CONNECT: a client need not wait for CONNACK [MQTT-3.1.4-5].
// Acknowledgements of all that has arrived go out in one write.
func (s *session) serve() error {
	var p wire.Packet
	if err := s.extend(time.Now()); err != nil {
		return err
	}
	for {
		n, size, err := s.passes(&p)
		if err == nil || isGraceful(err) {
			err = errors.Join(err, s.settle())
		}
		if err == nil || isGraceful(err) {
			err = errors.Join(err, s.out.flush())
		}
		if err != nil {
			return err
		}
		if n > 0 { // a part of a packet is no sign of life [MQTT-3.1.2-24]
			s.h.count.packets.Add(int64(n))
			s.es.Touch()
			now := time.Now()
			if err := s.extend(now); err != nil {
				return err
			}
			s.throttle(n, size, now)
			if !s.beginning.IsZero() && now.Sub(s.beginning) > beginMost {
				return wire.ErrQuiet
			}
		}
		if err := s.rd.Fill(); err != nil {
			return s.readError(err)
		}
	}
}

// passBytes is how much a session handles before it waits for the store and
// answers, so that a device that never pauses is answered, too.
const passBytes = 64 << 10

// passes handles all that has arrived: a client that writes packet by packet
// then costs the store and the network little more than one that gathers them.
func (s *session) passes(p *wire.Packet) (n, size int, err error) {
	for {
		packets, bytes, err := s.pass(p)
		n, size = n+packets, size+bytes
		if err != nil || size >= passBytes || !s.rd.FillArrived() {
			return n, size, err
		}
	}
}

// pass handles the complete packets that were read, and counts them and their bytes.
func (s *session) pass(p *wire.Packet) (n, size int, err error) {
	delayed := false // once a read, as a slow network would
	for {
		before := s.rd.Buffered()
		ok, err := s.rd.Next(p)
		if err != nil || !ok {
			return n, size, err
		}
		n++
		size += before - s.rd.Buffered()
		if p.Type == wire.TypePublish {
			lost, err := s.disturb(!delayed)
			delayed = true
			if err != nil {
				return n, size, err
			}
			if lost {
				continue // as if it never came: no PUBACK
			}
		}
		if err := s.handle(p); err != nil {
			return n, size, err
		}
	}
}

// extend sets when silence ends the connection: 1.5 times the keep-alive from
// now, or the end of the token.
func (s *session) extend(now time.Time) error {
	deadline := now.Add(s.idle)
	if !s.expires.IsZero() && s.expires.Before(deadline) {
		deadline = s.expires
	}
	if s.expired(now) { // a busy device must not outlive its token
		return end(reasonExpired, errors.New("the token has expired"))
	}
	return s.st.SetReadDeadline(deadline)
}

func (s *session) expired(now time.Time) bool {
	return !s.expires.IsZero() && !now.Before(s.expires)
}

func (s *session) readError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && s.out.cause.Load() == nil {
		if s.expired(time.Now()) {
			return end(reasonExpired, errors.New("the token has expired"))
		}
		return end(reasonIdle, fmt.Errorf("no packet for %s", s.idle))
	}
	return err
}

// throttleStep is the longest single wait of a session that reads too fast,
// so that one that ends meanwhile is noticed.
const throttleStep = 250 * time.Millisecond

// tellEvery is how often the log says that a session is slowed.
const tellEvery = time.Minute

const pacedText = "a device sends more than it may and is read more slowly"

func pacedAttrs(id engine.TwinID, address string, l *engine.Limits) []any {
	return []any{
		slog.String("device", id.String()), slog.String("address", address),
		slog.Float64("packets_per_second", l.DeviceMessageRate), slog.Float64("bytes_per_second", l.DeviceByteRate),
	}
}

// allowance is what a session may still read in a second.
type allowance float64

// spend takes n, after what grew since the last time at a rate, at most a
// second's worth. It returns how long it takes until nothing is owed any more.
func (a *allowance) spend(n int, rate float64, since time.Duration) time.Duration {
	if rate <= 0 {
		return 0
	}
	*a = allowance(min(float64(*a)+since.Seconds()*rate, rate)) - allowance(n)
	return time.Duration(max(0, -float64(*a)) / rate * float64(time.Second))
}

// throttle slows the reading of a session that sends more packets or bytes a
// second than it may: the device feels it as a slow network.
func (s *session) throttle(n, size int, now time.Time) {
	since := time.Second // a new session begins with a second's worth
	if !s.filled.IsZero() {
		since = now.Sub(s.filled)
	}
	s.filled = now
	l := &s.h.limits
	wait := max(s.packets.spend(n, l.DeviceMessageRate, since), s.bytes.spend(size, l.DeviceByteRate, since))
	if wait == 0 {
		return
	}
	s.h.count.paced.Add(1)
	if now.Sub(s.told) > tellEvery {
		s.told = now
		s.h.log.WarnContext(s.h.ctx, pacedText, pacedAttrs(s.id, s.st.RemoteAddr().String(), l)...)
	}
	timer := time.NewTimer(min(wait, throttleStep))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.h.ctx.Done():
	}
}

// finish cleans up after the connection's goroutine.
func (s *session) finish(why *ending) {
	h := s.h
	graceful := isGraceful(why)
	if s.es != nil {
		s.leave(why, graceful)
		h.count.sessions.Add(-1)
	} else {
		h.count.pending.Add(-1)
	}
	h.count.disconnects[why.reason].Add(1)
	s.log(why)
	s.out.shut()
	if graceful || why.reason == reasonRefused || why.reason == reasonProtocol || why.reason == reasonTooLarge {
		_ = s.st.CloseGracefully() // what it fails with is of no use: the connection is over
	} else {
		_ = s.st.Close()
	}
	s.rd.Close()
	h.forget(s)
}

// leave ends the session in the engine. Few sessions do that at a time: when a
// whole fleet loses its network in one moment, those who are still there must
// not wait behind all of it.
func (s *session) leave(why *ending, graceful bool) {
	s.h.leaving <- struct{}{}
	defer func() { <-s.h.leaving }()
	if graceful {
		s.es.Close(nil)
		return
	}
	s.sendWill()
	s.es.Close(why)
}

func (s *session) log(why *ending) {
	level := slog.LevelInfo
	if isGraceful(why) || s.es == nil && why.reason != reasonRefused { // the latter are mostly scanners
		level = slog.LevelDebug
	}
	name, _ := why.reason.info()
	attrs := []slog.Attr{
		slog.String("reason", name),
		slog.Int("code", why.number),
		slog.String("device", s.id.String()),
		slog.String("address", s.st.RemoteAddr().String()),
	}
	if why.err != nil {
		attrs = append(attrs, slog.String("error", why.err.Error()))
	}
	text := "device disconnected"
	if s.es == nil {
		text = "connection ended without a session"
	}
	s.h.log.LogAttrs(s.h.ctx, level, text, attrs...)
}

func isGraceful(err error) bool {
	e, ok := errors.AsType[*ending](err)
	return ok && e.reason == reasonGraceful
}
