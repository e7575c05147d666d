package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is a TCP connection that can wait for bytes with little more than a
// goroutine. Below TLS, a plain read waits deep inside crypto/tls, on a stack of
// 8 KB that the collector can't shrink while the read is in it. So once a
// Stream has taken the connection over, reads only hand out what has arrived,
// and fail with errDry when that is used up; the Stream then calls wait, from
// high up on the stack and with no buffer in its hands.
//
// Reads are for one goroutine at a time.
type Socket struct {
	net.Conn

	gather atomic.Pointer[gathered] // nil: writes go out at once

	raw     syscall.RawConn
	receive func(fd uintptr) bool // made once: wait must not allocate

	// Of the Stream that took it over:
	pool *Buffers // nil until then: reads wait themselves
	held *Buffer  // what was received; nil while there is nothing
	view []byte   // of held, not read yet
	err  error    // what the last receive failed with
}

// NewSocket returns a Socket over a connection just accepted. One that has no
// file descriptor works as it did before.
func NewSocket(conn net.Conn) Socket {
	var raw syscall.RawConn
	if c, ok := conn.(syscall.Conn); ok {
		if r, err := c.SyscallConn(); err == nil {
			raw = r
		}
	}
	return Socket{Conn: conn, raw: raw}
}

// errDry is what reads fail with when nothing more has arrived. crypto/tls goes
// on after a temporary error as if nothing had happened.
var errDry net.Error = dryError{}

type dryError struct{}

func (dryError) Error() string   { return "nothing has arrived" }
func (dryError) Timeout() bool   { return false }
func (dryError) Temporary() bool { return true }

// Read reads what has arrived.
func (s *Socket) Read(p []byte) (int, error) {
	if s.pool == nil {
		return s.Conn.Read(p)
	}
	if s.held == nil {
		return 0, errDry
	}
	n := copy(p, s.view)
	if s.view = s.view[n:]; len(s.view) == 0 {
		s.pool.Put(s.held)
		s.held, s.view = nil, nil
	}
	return n, nil
}

// takeOver finds the Socket below a connection and lets a Stream wait for it;
// nil when there is none.
func takeOver(conn net.Conn, pool *Buffers) *Socket {
	for {
		switch c := conn.(type) {
		case *Socket:
			if c.raw == nil {
				return nil
			}
			c.pool, c.receive = pool, c.tryReceive
			return c
		case interface{ NetConn() net.Conn }: // *tls.Conn, and who wraps a Socket
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// wait waits until something has arrived, at most until the read deadline.
func (s *Socket) wait() error {
	if err := s.raw.Read(s.receive); err != nil {
		return err
	}
	return s.err
}

// tryReceive reports whether it is of use to go on: false means to wait.
func (s *Socket) tryReceive(fd uintptr) bool {
	b := s.pool.Get(workingBuffer)
	for {
		n, err := unix.Read(int(fd), b.B[:cap(b.B)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case n > 0:
			s.held, s.view = b, b.B[:n]
			return true
		}
		s.pool.Put(b)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if s.err = io.EOF; err != nil {
			s.err = os.NewSyscallError("read", err)
		}
		return true
	}
}

// gathered is what is written to a Socket until it goes out in one write.
type gathered struct {
	mu    sync.Mutex
	bytes []byte
	done  bool
}

// Gatherings are idle bytes in which WriteOnce has gathered: pages come many in
// a second, and new bytes for each took a third of what their way to the peer
// does. The zero value is ready, and safe for concurrent use.
type Gatherings struct{ idle sync.Pool } // *[]byte

const (
	recordMost = 16 << 10  // what TLS puts into one record
	gatherMost = 256 << 10 // what is kept for the next one who gathers
)

// Write writes, or gathers what is written.
func (s *Socket) Write(b []byte) (int, error) {
	g := s.gather.Load()
	if g == nil {
		return s.Conn.Write(b)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done {
		return s.Conn.Write(b)
	}
	g.bytes = append(g.bytes, b...)
	return len(b), nil
}

// WriteOnce writes to a connection, over TLS in one write of all records: else
// each would be a system call that wakes the peer. A handshake that is still to
// come is made first, as Write does. One caller at a time.
func WriteOnce(conn net.Conn, b []byte, gatherings *Gatherings) error {
	s, secure := socketOf(conn)
	if s == nil || len(b) <= recordMost {
		_, err := conn.Write(b)
		return err
	}
	// Else its own messages would be gathered, and both sides wait for each other.
	if err := secure.HandshakeContext(context.Background()); err != nil {
		return err
	}
	room, ok := gatherings.idle.Get().(*[]byte)
	if need := len(b) + len(b)/64 + 1024; !ok || cap(*room) < need { // records have heads and sums
		room = new(make([]byte, 0, need))
	}
	g := &gathered{bytes: *room}
	s.gather.Store(g)
	_, err := conn.Write(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	s.gather.Store(nil)
	if len(g.bytes) > 0 {
		if _, wrote := s.Conn.Write(g.bytes); err == nil {
			err = wrote
		}
	}
	g.done = true
	if *room = g.bytes[:0]; cap(*room) <= gatherMost {
		gatherings.idle.Put(room)
	}
	return err
}

// secured is a *tls.Conn, or what wraps one.
type secured interface {
	net.Conn
	NetConn() net.Conn
	HandshakeContext(ctx context.Context) error
}

var _ secured = (*tls.Conn)(nil)

// socketOf finds the Socket below TLS, and that; nil when there is none.
func socketOf(conn net.Conn) (*Socket, secured) {
	secure, ok := conn.(secured)
	if !ok {
		return nil, nil
	}
	conn = secure.NetConn()
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = outer.NetConn()
	}
	s, _ := conn.(*Socket)
	return s, secure
}
