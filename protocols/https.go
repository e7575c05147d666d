package protocols

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/muster-hub/muster/protocols/wire"
)

// serveHTTPS does the handshakes of an https listener, and looks at the first
// request. A device's WebSocket it serves on the spot, without the buffers and the
// goroutine that an HTTP server has for a request: a whole fleet may come back at
// once. All other connections are rest's to accept, as if nothing had been read.
func (s *Server) serveHTTPS(ctx context.Context, rest *handover) error {
	return s.accept(ctx, rest.Listener, func(c *tls.Conn, begun func() bool) {
		b := s.heads.Get(headBytes)
		_ = c.SetReadDeadline(time.Now().Add(readHeaderTime))
		n, err := c.Read(b.B[:cap(b.B)])
		if !begun() || n == 0 {
			s.heads.Put(b)
			s.o.Logger.Debug("no request", slog.String("address", c.RemoteAddr().String()), slog.Any("error", err))
			_ = c.Close()
			return
		}
		r, ahead := webSocketRequest(b.B[:n])
		if r == nil {
			head := bytes.Clone(b.B[:n])
			s.heads.Put(b)
			rest.give(&begunConn{Conn: c, head: head})
			return
		}
		s.heads.Put(b)
		if k := knockOf(c); k != nil {
			k.handOver() // the device edge says when CONNECT is accepted
		}
		_ = c.SetDeadline(time.Time{}) // a failure shows in the next read
		r.RemoteAddr = c.RemoteAddr().String()
		answer := wire.NewHandshake(c, ahead)
		s.device.ServeHTTP(answer, r)
		_ = answer.Close() // who was refused and has gone needs no answer
	})
}

// headBytes are what a first request is read with; net/http reads a larger one.
const headBytes = 4 << 10

// webSocketRequest returns the request in b when b holds the whole head of a device's
// WebSocket handshake, and a copy of what follows it; else nil, also for all that
// an HTTP server would have something to say about.
func webSocketRequest(b []byte) (r *http.Request, ahead []byte) {
	if !bytes.HasPrefix(b, []byte("GET /")) || !bytes.Contains(b, []byte("\r\n\r\n")) {
		return nil, nil
	}
	br := bufio.NewReaderSize(bytes.NewReader(b), len(b))
	r, err := http.ReadRequest(br)
	if err != nil || !isDevicePath(r.URL.EscapedPath(), r) || !isPlain(r) {
		return nil, nil
	}
	ahead = make([]byte, br.Buffered())
	_, _ = io.ReadFull(br, ahead) // which are there
	return r, ahead
}

// isPlain reports whether http.Server would hand on a request that
// http.ReadRequest has read, which checks less, and it has no body.
func isPlain(r *http.Request) bool {
	for name := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
	}
	return r.ProtoAtLeast(1, 1) && r.Host != "" && httpguts.ValidHostHeader(r.Host) && r.Body == http.NoBody && r.Header.Get("Expect") == ""
}

// begunConn is a connection of which the first bytes have been read.
type begunConn struct {
	*tls.Conn
	head []byte // not read again yet
}

// Read reads from the beginning.
func (b *begunConn) Read(p []byte) (int, error) {
	if len(b.head) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.head)
	if b.head = b.head[n:]; len(b.head) == 0 {
		b.head = nil
	}
	return n, nil
}

// tlsKey is where the context of a begunConn's requests has its
// *tls.ConnectionState.
type tlsKey struct{}

// withTLS tells next's requests of their TLS, which http.Server only does when the
// connection itself is a *tls.Conn.
func withTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsKey{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		next.ServeHTTP(w, r)
	})
}

// handover is a listener that has its connections from somebody who accepted
// them, and looked at them, before.
type handover struct {
	net.Listener // what they came from
	conns        chan net.Conn
	once         sync.Once
	closed       chan struct{}
}

func newHandover(l net.Listener) *handover {
	return &handover{Listener: l, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give waits until somebody accepts c, and closes c when nobody does any more.
func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close() // nobody waits for the result
	}
}

// Accept waits for the next connection.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener below, too.
func (h *handover) Close() error {
	err := net.ErrClosed
	h.once.Do(func() {
		close(h.closed)
		err = h.Listener.Close()
	})
	return err
}

// refusePlain answers a client that speaks HTTP where TLS is expected. err is what
// the handshake failed with.
func refusePlain(err error) {
	e, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || e.Conn == nil {
		return
	}
	switch string(e.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO":
	default:
		return
	}
	_, _ = io.WriteString(e.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks HTTPS: use https:// instead of http://.\n") // it may have gone
}
