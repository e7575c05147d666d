package wire

import (
	"context"
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
	pool *Buffers
	ws   *websocket.Conn
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

// AcceptText answers a WebSocket handshake without subprotocol or extensions.
// Whether the page that asks may, is for the caller to say. timeout bounds
// each write; a peer that takes nothing for so long is cut. On failure the
// HTTP error has been written. The Text outlives the request: return from the
// handler, so that its stack and buffers are dropped.
func AcceptText(w http.ResponseWriter, r *http.Request, pool *Buffers, timeout time.Duration) (*Text, error) {
	t := &Text{pool: pool}
	t.link.timeout = timeout
	ws, err := websocket.Accept(&hijacker{ResponseWriter: w, link: &t.link}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     t.pinged,
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(0)
	t.ws = ws
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

// Send writes one text message, in one write of the connection.
func (t *Text) Send(p []byte) error {
	b := t.pool.Get(len(p) + maxFrameHeader)
	defer t.pool.Put(b)
	return t.link.corked(b, func() error { return t.ws.Write(context.Background(), websocket.MessageText, p) })
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
