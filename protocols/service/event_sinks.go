package service

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// eventSource is a stream of server-sent events on a connection that was
// taken from the HTTP server: its answer ends with the connection, so that a
// page of events is one write, without the server's buffers and chunks.
type eventSource struct {
	conn net.Conn
	ctx  context.Context //nolint:containedctx // ends with the connection
	left context.CancelFunc
	gzip bool
	sum  gzipSum   // of all that was sent
	last time.Time // when the write deadline was set
	room *wire.Gatherings
}

// openEventSource answers the request and takes its connection.
func (c *call) openEventSource(cursor string) (sink, error) {
	head := c.w.Header().Clone()
	head.Set("Content-Type", "text/event-stream")
	head.Set("X-Accel-Buffering", "no") // a proxy must not gather events
	head.Set("Connection", "close")
	head.Set("Vary", "Accept-Encoding")
	if takesGzip(c.r.Header) {
		head.Set("Content-Encoding", "gzip")
	}
	head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, &engine.Error{Code: engine.CodeInternal, Message: "this listener has no streams of server-sent events; read pages"}
	}
	c.w.status = http.StatusOK
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = head.Write(&b) // a Buffer takes everything
	b.WriteString("\r\n")
	s := &eventSource{conn: conn, gzip: takesGzip(c.r.Header), room: &c.streams.pages.gatherings}
	if s.gzip {
		b.WriteString(gzipHeader)
	}
	s.ctx, s.left = context.WithCancel(context.Background())
	first := "retry: 1000\n"
	if cursor != "" {
		first += "id: " + cursor + "\n"
	}
	if err = conn.SetDeadline(time.Time{}); err == nil {
		if err = s.write(b.Bytes()); err == nil {
			err = s.say(first + ": connected\n\n")
		}
	}
	if err != nil {
		s.cut()
		return nil, err
	}
	go func() {
		// A client that speaks again has misunderstood; one that leaves is heard here.
		var one [1]byte
		_, _ = conn.Read(one[:])
		s.cut()
	}()
	return s, nil
}

// takesGzip reports whether a client takes what is compressed with gzip.
func takesGzip(h http.Header) bool {
	for _, line := range h.Values("Accept-Encoding") {
		for item := range strings.SplitSeq(line, ",") {
			name, q, _ := strings.Cut(strings.ReplaceAll(item, " ", ""), ";")
			if strings.EqualFold(name, "gzip") && strings.TrimRight(q, "0.") != "q=" {
				return true
			}
		}
	}
	return false
}

func (s *eventSource) kind() streamKind {
	if s.gzip {
		return sourceGzip
	}
	return sourcePlain
}

func (s *eventSource) send(page *streamPage) error {
	s.sum = s.sum.add(page.sum)
	return s.write(page.wire)
}

func (s *eventSource) write(b []byte) error {
	// Setting a deadline costs as much as a small write.
	if now := time.Now(); now.Sub(s.last) > streamCut/6 {
		if err := s.conn.SetWriteDeadline(now.Add(streamCut)); err != nil {
			return err
		}
		s.last = now
	}
	return wire.WriteOnce(s.conn, b, s.room)
}

// say writes a few lines.
func (s *eventSource) say(text string) error {
	b := []byte(text)
	if s.gzip {
		s.sum = s.sum.add(sumOf(b))
		b = storedBlock(b)
	}
	return s.write(b)
}

// beat has the cursor: a reader with a narrow filter resumes near the tail.
func (s *eventSource) beat(cursor string) error { return s.say("id: " + cursor + "\n: alive\n\n") }

func (s *eventSource) finish(why closing, cursor string) {
	text := ""
	if cursor != "" {
		text = "id: " + cursor + "\n"
	}
	err := s.say(fmt.Sprintf("%sevent: end\ndata: %s\n\n", text, encode(struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
		Next   string `json:"next,omitempty"`
		Cursor string `json:"cursor,omitempty"`
	}{why.code, cmp.Or(why.detail, why.text), why.next, cursor})))
	if err == nil && s.gzip {
		_ = s.write(s.sum.trailer()) // it ends either way
	}
	_ = s.conn.Close()
	s.left()
}

// overTLS is a *tls.Conn, or what wraps one.
type overTLS interface {
	ConnectionState() tls.ConnectionState
	NetConn() net.Conn
}

func (s *eventSource) cut() {
	conn := s.conn
	if secure, ok := conn.(overTLS); ok {
		conn = secure.NetConn() // TLS would wait for the client to take its last record
	}
	_ = conn.Close()
	s.left()
}

func (s *eventSource) alive() context.Context { return s.ctx }

// socket is a stream of pages on a WebSocket.
type socket struct {
	text *wire.Text
	room *wire.Gatherings
}

// openSocket answers the handshake. Its first page has no events: it says
// where the stream begins.
func (c *call) openSocket(cursor string) (sink, error) {
	t, err := wire.AcceptText(c.w, c.r, streamCut)
	if err != nil {
		return nil, err
	}
	s := socket{t, &c.streams.pages.gatherings}
	if cursor != "" {
		if err := s.say(cursor); err != nil {
			s.cut()
			return nil, err
		}
	}
	return s, nil
}

// say sends a page without events.
func (s socket) say(cursor string) error {
	page, _ := appendPage(nil, eventList{}, cursor)
	return s.text.SendFrame(wire.TextFrame(page, false), s.room)
}

func (s socket) kind() streamKind {
	if s.text.Compressed() {
		return socketDeflate
	}
	return socketPlain
}

func (s socket) send(page *streamPage) error { return s.text.SendFrame(page.wire, s.room) }

func (s socket) beat(cursor string) error {
	ctx, cancel := context.WithTimeout(context.Background(), streamPong)
	defer cancel()
	if err := s.text.Ping(ctx); err != nil {
		return err
	}
	return s.say(cursor)
}

func (s socket) finish(why closing, cursor string) {
	text := why.text
	if cursor != "" {
		text += "; cursor=" + cursor
	}
	_ = s.text.Close(why.status, text) // it ends either way
}

func (s socket) cut() { s.text.Cut() }

func (s socket) alive() context.Context { return s.text.Alive() }
