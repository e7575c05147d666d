package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
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
}

// openEventSource answers the request and takes its connection.
func (c *call) openEventSource(cursor string) (sink, error) {
	head := c.w.Header().Clone()
	head.Set("Content-Type", "text/event-stream")
	head.Set("X-Accel-Buffering", "no") // a proxy must not gather events
	head.Set("Connection", "close")
	head.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, &engine.Error{Code: engine.CodeInternal, Message: "this listener has no streams of server-sent events; read pages"}
	}
	c.w.status = http.StatusOK
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = head.Write(&b) // a Buffer takes everything
	b.WriteString("\r\nretry: 1000\n")
	if cursor != "" {
		fmt.Fprintf(&b, "id: %s\n", cursor)
	}
	b.WriteString(": connected\n\n")
	s := &eventSource{conn: conn}
	s.ctx, s.left = context.WithCancel(context.Background())
	if err := conn.SetDeadline(time.Time{}); err == nil {
		err = s.send(b.Bytes())
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

func (s *eventSource) page(b []byte, f eventForm, list []*engine.Event, _ string) (page []byte, shown int) {
	for _, e := range list {
		if text := f.text(e); len(text) > 0 {
			b = append(b, text...)
			shown++
		}
	}
	return b, shown
}

func (s *eventSource) send(page []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(streamCut)); err != nil {
		return err
	}
	_, err := s.conn.Write(page)
	return err
}

// beat has the cursor: a reader with a narrow filter resumes near the tail.
func (s *eventSource) beat(cursor string) error {
	return s.send(fmt.Appendf(nil, "id: %s\n: alive\n\n", cursor))
}

func (s *eventSource) finish(why closing, cursor string) {
	var b []byte
	if cursor != "" {
		b = fmt.Appendf(b, "id: %s\n", cursor)
	}
	b = fmt.Appendf(b, "event: end\ndata: %s\n\n", encode(struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
		Cursor string `json:"cursor,omitempty"`
	}{why.code, why.text, cursor}))
	_ = s.send(b) // it ends either way
	_ = s.conn.Close()
	s.left()
}

func (s *eventSource) cut() {
	conn := s.conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn() // TLS would wait for the client to take its last record
	}
	_ = conn.Close()
	s.left()
}

func (s *eventSource) alive() context.Context { return s.ctx }

// socket is a stream of pages on a WebSocket.
type socket struct{ text *wire.Text }

func (c *call) openSocket() (sink, error) {
	t, err := wire.AcceptText(c.w, c.r, c.streams.buffers, streamCut)
	if err != nil {
		return nil, err
	}
	return socket{t}, nil
}

func (s socket) page(b []byte, f eventForm, list []*engine.Event, cursor string) (page []byte, shown int) {
	return f.appendPage(b, list, cursor)
}

func (s socket) send(page []byte) error { return s.text.Send(page) }

func (s socket) beat(cursor string) error {
	ctx, cancel := context.WithTimeout(context.Background(), streamPong)
	defer cancel()
	if err := s.text.Ping(ctx); err != nil {
		return err
	}
	page, _ := eventForm{}.appendPage(nil, nil, cursor)
	return s.send(page)
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
