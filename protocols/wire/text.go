package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Text is the server's end of a WebSocket on which only the server speaks, in
// text messages. A client that sends anything but control frames is closed.
// Methods may be called from any goroutine.
type Text struct {
	link link
	ws   *websocket.Conn

	compressed bool
	deadline   time.Time // when SendFrame set the last one; link.mu guards it

	gone context.Context //nolint:containedctx // ends with the connection

	// Of the reading goroutine only.
	pingSecond int64
	pings      int
}

// Reasons for which a Text is closed, as close codes of RFC 6455.
const (
	CloseGoingAway = int(websocket.StatusGoingAway)
	ClosePolicy    = int(websocket.StatusPolicyViolation)
	CloseInternal  = int(websocket.StatusInternalError)
	CloseTryLater  = int(websocket.StatusTryAgainLater)
)

// maxCloseReason is how much text fits into a close frame.
const maxCloseReason = 123

// AcceptText answers a WebSocket handshake without subprotocol.
// Whether the page that asks may, is for the caller to say. timeout bounds
// each write, or a sixth less; a peer that takes nothing for so long is cut. On failure the
// HTTP error has been written. The Text outlives the request: return from the
// handler, so that its stack and buffers are dropped.
func AcceptText(w http.ResponseWriter, r *http.Request, timeout time.Duration) (*Text, error) {
	t := &Text{}
	t.link.timeout = timeout
	ws, err := websocket.Accept(&hijacker{ResponseWriter: w, link: &t.link}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionNoContextTakeover,
		OnPingReceived:     t.pinged,
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(0)
	t.link.framed = true
	t.ws, t.compressed = ws, w.Header().Get("Sec-WebSocket-Extensions") != ""
	var lost context.CancelFunc
	t.gone, lost = context.WithCancel(context.Background())
	go func() {
		defer func() {
			lost()
			_ = ws.CloseNow()
		}()
		if _, _, err := ws.Reader(context.Background()); err == nil { //nolint:contextcheck // Cut and Close end it
			_ = ws.Close(websocket.StatusPolicyViolation, "this WebSocket takes no messages, only pings")
		}
	}()
	return t, nil
}

// pinged is Stream.pinged's rule.
func (t *Text) pinged(context.Context, []byte) bool {
	if second := time.Now().Unix(); second != t.pingSecond {
		t.pingSecond, t.pings = second, 0
	}
	if t.pings++; t.pings <= maxPings {
		return true
	}
	t.Cut()
	return false
}

// Alive returns a context that ends with the connection.
func (t *Text) Alive() context.Context { return t.gone }

// Compressed reports whether the peer takes compressed messages, each by
// itself (permessage-deflate without context).
func (t *Text) Compressed() bool { return t.compressed }

// SendFrame writes what TextFrame made, in one write of the connection. Many
// may send the same frame.
func (t *Text) SendFrame(frame []byte, gatherings *Gatherings) error {
	l := &t.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(t.deadline) > l.timeout/6 { // setting one costs as much as a small write
		if err := l.Conn.SetWriteDeadline(now.Add(l.timeout)); err != nil {
			return err
		}
		t.deadline = now
	}
	if l.cut.Load() {
		return errCut
	}
	return WriteOnce(l.Conn, frame, gatherings)
}

// deflateTail ends what a sync flush of DEFLATE writes, and stays off the wire.
const deflateTail = "\x00\x00\xff\xff"

// TextFrame is a text message as a server sends it, in one frame. With
// compressed set, payload is DEFLATE that ends with a sync flush.
func TextFrame(payload []byte, compressed bool) []byte {
	first := byte(0x81) // the last frame of a message; text
	if compressed {
		first |= 0x40
		payload = bytes.TrimSuffix(payload, []byte(deflateTail))
	}
	b := append(make([]byte, 0, len(payload)+maxFrameHeader), first)
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// Ping asks the peer whether it is there, and waits for its answer.
func (t *Text) Ping(ctx context.Context) error { return t.ws.Ping(ctx) }

// Close ends the connection with a close code and a reason, of which 123 bytes
// are sent, and waits a few seconds for the peer's answer.
func (t *Text) Close(code int, reason string) error {
	err := t.ws.Close(websocket.StatusCode(code), reason[:min(len(reason), maxCloseReason)])
	return errors.Join(err, t.ws.CloseNow())
}

// Cut ends the connection at once, and all that waits on it.
func (t *Text) Cut() {
	t.link.cut.Store(true)
	_ = t.link.Conn.SetDeadline(longAgo())
}
