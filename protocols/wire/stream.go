package wire

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// DefaultWriteTimeout is how long one write may take before the connection
// counts as dead.
const DefaultWriteTimeout = 10 * time.Second

const (
	lingerTimeout = 2 * time.Second
	lingerBytes   = 64 << 10
)

// Stream is a byte stream that carries MQTT: a TCP or TLS connection, or the
// binary frames of a WebSocket. It is a net.Conn; reads are for one goroutine
// at a time, everything else is safe for concurrent use.
//
// SetWriteDeadline does nothing: each write has a time limit of its own, so
// that a peer that does not read can hold nobody for longer.
type Stream struct {
	link link
	pool *Buffers
	ws   *websocket.Conn // nil: the link itself is the stream

	// For the reader only: the WebSocket message being read, and how many pings
	// came in a second of unix time.
	message    io.Reader
	frames     *bufio.Reader         // what the library reads from; nil at the client's end
	first      [smallReadBuffer]byte // what await read
	whole      bool                  // message came in one frame
	deadline   time.Time
	quiet      time.Duration
	pingSecond int64
	pings      int

	write sync.Mutex
}

// link is the connection below. It stands between the WebSocket library and
// the socket to hold write deadlines, to make one write of one frame, and to
// end the connection from any goroutine without waiting.
type link struct {
	net.Conn
	socket  *Socket // the lowest; nil when it can't wait for itself
	timeout time.Duration
	cut     atomic.Bool
	pre     []byte  // read already, by the HTTP server, by await or by takeAhead
	early   *Buffer // what takeAhead has pre in

	// For the reader of a server's WebSocket only: bytes that came beside those of
	// messages, and since when.
	framed      bool
	beside      int
	besideSince time.Time

	mu   sync.Mutex
	cork *Buffer // while set, writes gather here
}

// NewStream returns a stream over a connection, which it owns from now on.
func NewStream(conn net.Conn, pool *Buffers) *Stream {
	s := &Stream{pool: pool}
	s.link.Conn, s.link.timeout = conn, DefaultWriteTimeout
	s.link.socket = takeOver(conn, pool)
	return s
}

// errCut is what reads and writes fail with after Cut.
var errCut = fmt.Errorf("the stream was cut: %w", net.ErrClosed)

// longAgo is a deadline that ends what waits.
func longAgo() time.Time { return time.Unix(1, 0) }

// Cut ends all reads and writes, from any goroutine and without waiting.
// Whoever reads the stream must still Close it.
func (s *Stream) Cut() {
	s.link.cut.Store(true)
	_ = s.link.Conn.SetDeadline(longAgo())
}

// SetReadDeadline sets when reads end with a timeout. A WebSocket can't be
// read any further after that. It is for the goroutine that reads.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.deadline = t
	return s.setReadDeadline(t)
}

func (s *Stream) setReadDeadline(t time.Time) error {
	err := s.link.Conn.SetReadDeadline(t)
	if s.link.cut.Load() { // Cut came between: its deadline stands
		return errors.Join(s.link.Conn.SetReadDeadline(longAgo()), errCut)
	}
	return err
}

// SetDeadline is SetReadDeadline.
func (s *Stream) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline does nothing: see Stream.
func (s *Stream) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr returns the local address of the connection below.
func (s *Stream) LocalAddr() net.Addr { return s.link.LocalAddr() }

// RemoteAddr returns the remote address of the connection below.
func (s *Stream) RemoteAddr() net.Addr { return s.link.RemoteAddr() }

// NetConn returns the connection below, to recognise it by.
func (s *Stream) NetConn() net.Conn { return s.link.Conn }

// ErrQuiet is what a read fails with when nothing has come for as long as
// SetQuiet says. Unlike after a timeout, reading can go on.
var ErrQuiet = errors.New("the peer is quiet")

// SetQuiet has reads fail with ErrQuiet when nothing comes for d between two
// messages, on top of the read deadline; 0 ends that. It reports false when the
// stream can't tell. It is for the goroutine that reads.
func (s *Stream) SetQuiet(d time.Duration) bool {
	if s.link.socket == nil {
		return false
	}
	s.quiet = d
	return true
}

// await waits for the next bytes, where the stream can wait cheaply.
func (s *Stream) await() error {
	if s.link.socket == nil || len(s.link.pre) > 0 || s.frames != nil && s.frames.Buffered() > 0 {
		return nil
	}
	quiet := time.Now().Add(s.quiet)
	early := s.quiet > 0 && (s.deadline.IsZero() || quiet.Before(s.deadline))
	if early {
		if err := s.setReadDeadline(quiet); err != nil {
			return err
		}
	}
	n, err := s.link.Read(s.first[:])
	s.link.pre = s.first[:n]
	if early {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ErrQuiet
		}
		err = errors.Join(err, s.setReadDeadline(s.deadline))
	}
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// WebSocket reports whether the stream is a WebSocket.
func (s *Stream) WebSocket() bool { return s.ws != nil }

// PeerCertificates returns what the peer showed in the TLS handshake,
// unverified, the leaf first.
func (s *Stream) PeerCertificates() []*x509.Certificate {
	if c, ok := s.link.Conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return c.ConnectionState().PeerCertificates
	}
	return nil
}

// Read reads bytes, wherever packets and frames begin and end. A WebSocket
// with a text message is closed.
func (s *Stream) Read(p []byte) (int, error) {
	if s.ws != nil {
		return s.readMessage(p)
	}
	if s.quiet > 0 {
		if err := s.await(); err != nil {
			return 0, err
		}
	}
	return s.link.Read(p)
}

// Write writes all of p, on a WebSocket as one message.
func (s *Stream) Write(p []byte) (int, error) {
	if s.ws == nil {
		return s.link.Write(p)
	}
	s.write.Lock()
	defer s.write.Unlock()
	return s.writeMessage(p)
}

// Close closes the connection at once. It may be called more than once.
func (s *Stream) Close() error {
	if s.ws != nil {
		return s.ws.CloseNow()
	}
	return s.link.Close()
}

// CloseGracefully lets the peer read what was written before the connection
// goes: a socket that is closed with unread bytes in it is reset, and what
// was on its way is lost. It reads and drops what still comes, for a few
// seconds at most, so it is for the goroutine that reads.
func (s *Stream) CloseGracefully() error {
	if s.ws != nil {
		return s.ws.Close(websocket.StatusNormalClosure, "")
	}
	if c, ok := s.link.Conn.(interface{ CloseWrite() error }); ok && !s.link.cut.Load() {
		if c.CloseWrite() == nil && s.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
			_, _ = io.CopyN(io.Discard, &s.link, lingerBytes)
		}
	}
	return s.link.Close()
}

func (l *link) Read(p []byte) (int, error) {
	if len(l.pre) > 0 {
		n := copy(p, l.pre)
		if l.pre = l.pre[n:]; len(l.pre) == 0 {
			l.pre = nil
			if l.early != nil {
				l.socket.pool.Put(l.early)
				l.early = nil
			}
		}
		return n, nil
	}
	n, err := l.Conn.Read(p)
	for err == errDry { //nolint:errorlint // crypto/tls passes it on as it is
		if err = l.socket.wait(); err == nil {
			n, err = l.Conn.Read(p)
		}
	}
	if err != nil && l.cut.Load() {
		err = errCut
	}
	if l.framed && err == nil {
		err = l.framing(n)
	}
	return n, err
}

// framing counts n bytes that have come. What they are of a message is taken
// off later: see carried.
func (l *link) framing(n int) error {
	l.beside += n
	if l.beside <= maxBeside {
		return nil
	}
	now := time.Now()
	if now.Sub(l.besideSince) < time.Second {
		return errBeside
	}
	l.beside, l.besideSince = n, now
	return nil
}

// carried takes off what n bytes of messages account for: themselves, and a
// frame's header for each.
func (l *link) carried(n int) { l.beside = max(0, l.beside-n*(1+maxFrameHeader)) }

func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cork != nil {
		l.cork.B = append(l.cork.B, p...)
		return len(p), nil
	}
	return l.send(p)
}

// send writes with the write timeout; mu is held.
func (l *link) send(p []byte) (int, error) {
	if err := l.Conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		return 0, err
	}
	if l.cut.Load() {
		_ = l.Conn.SetWriteDeadline(longAgo())
		return 0, errCut
	}
	return l.Conn.Write(p)
}

// corked gathers what f writes, and what others write meanwhile, into one
// write.
func (l *link) corked(b *Buffer, f func() error) error {
	l.mu.Lock()
	l.cork = b
	l.mu.Unlock()
	err := f()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cork = nil
	if err != nil {
		return err
	}
	_, err = l.send(b.B)
	return err
}
