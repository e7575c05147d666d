package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Subprotocol is what a WebSocket that carries MQTT agrees on.
const Subprotocol = "mqtt"

// DefaultMessageLimit bounds one WebSocket message, which may hold several
// packets. Messages are streamed, so the limit costs no memory.
const DefaultMessageLimit = 4 << 20

// maxPings is how many pings a second a peer may send: each costs an answer, at
// a time when nobody need know who asks.
const maxPings = 50

// maxBeside is how many bytes a second may come on a WebSocket that are of no
// message: a peer that sends frames without content would cost processor time
// that no pace of messages bounds, also before it has said who it is. It is more
// than what is read at once of a message before that is taken off.
const maxBeside = 512 << 10

var errBeside = fmt.Errorf("%w: more than %d bytes a second of WebSocket frames without content", ErrMalformed, maxBeside)

// hijackBuffer is the size of the buffers that a WebSocket keeps for its life.
const hijackBuffer = 128

// Accept answers a WebSocket handshake: subprotocol mqtt in any case, echoed
// as the client spells it, no extensions, any origin and query. On failure it
// has written the HTTP error. The stream outlives the request; return from
// the handler and read in a fresh goroutine, so that the stack that the
// handshake grew is dropped.
func Accept(w http.ResponseWriter, r *http.Request, pool *Buffers) (*Stream, error) {
	if !offersMQTT(r.Header) {
		err := errors.New("the WebSocket must offer the subprotocol mqtt")
		if strings.Contains(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), "AMQP") {
			err = errors.New("AMQP over WebSocket is not offered here: use the SDK's MQTT over WebSocket, subprotocol mqtt")
		}
		status := http.StatusBadRequest
		if r.Header.Get("Upgrade") == "" {
			w.Header().Set("Upgrade", "websocket")
			status, err = http.StatusUpgradeRequired, fmt.Errorf("this path takes MQTT over WebSocket: %w", err)
		}
		refuse(w, status, err)
		return nil, err
	}
	s := &Stream{pool: pool}
	s.link.timeout = DefaultWriteTimeout
	hj := &hijacker{ResponseWriter: w, link: &s.link, pool: pool}
	ws, err := websocket.Accept(hj, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // devices are no browsers; who they are is in CONNECT
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     s.pinged,
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(DefaultMessageLimit)
	s.ws, s.frames, s.link.framed = ws, hj.frames, true
	return s, nil
}

// refuse answers in IoT Hub's error form, as every other path of the listener
// does.
func refuse(w http.ResponseWriter, status int, err error) {
	const name = "GenericBadRequest"
	body, _ := json.Marshal(map[string]string{"Message": "ErrorCode:" + name + ";" + err.Error(), "ExceptionMessage": ""}) // strings always encode
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("iothub-errorcode", name)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

func offersMQTT(h http.Header) bool {
	for _, line := range h.Values("Sec-WebSocket-Protocol") {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), Subprotocol) {
				return true
			}
		}
	}
	return false
}

// hijacker hands the WebSocket library small buffers instead of the HTTP
// server's of 4 KB each, and the link instead of the connection.
type hijacker struct {
	http.ResponseWriter
	link   *link
	pool   *Buffers
	frames *bufio.Reader // what it handed out
}

// Hijack takes the connection from the HTTP server.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, ahead, err := h.take()
	if err != nil {
		return nil, nil, err
	}
	if len(ahead) > 0 {
		h.link.pre = ahead
	}
	h.link.Conn, h.link.socket = conn, takeOver(conn, h.pool)
	h.frames = bufio.NewReaderSize(h.link, hijackBuffer)
	return h.link, bufio.NewReadWriter(h.frames, bufio.NewWriterSize(h.link, hijackBuffer)), nil
}

// take returns the connection and what came behind the request.
func (h *hijacker) take() (net.Conn, []byte, error) {
	if own, ok := h.ResponseWriter.(*Handshake); ok {
		return own.take()
	}
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	ahead := make([]byte, rw.Reader.Buffered())
	_, err = io.ReadFull(rw.Reader, ahead)
	return conn, ahead, err
}

// pinged decides whether a ping is answered; one that comes too soon after many
// others ends the connection. The library calls it from the reader's goroutine.
func (s *Stream) pinged(context.Context, []byte) bool {
	if second := time.Now().Unix(); second != s.pingSecond {
		s.pingSecond, s.pings = second, 0
	}
	if s.pings++; s.pings <= maxPings {
		return true
	}
	_ = s.link.Conn.SetReadDeadline(longAgo()) // the read that found the ping ends
	return false
}

func (s *Stream) readMessage(p []byte) (int, error) {
	for {
		if s.message == nil {
			if err := s.await(); err != nil { // the library would wait on a deep stack
				return 0, s.readError(err)
			}
			s.whole = isMessage(s.peekByte())
			// Deadlines are the link's: a context that can end costs a timer.
			typ, m, err := s.ws.Reader(context.Background())
			if err != nil {
				return 0, s.readError(err)
			}
			if typ != websocket.MessageBinary {
				_ = s.ws.Close(websocket.StatusUnsupportedData, "MQTT needs binary messages")
				return 0, fmt.Errorf("%w: a WebSocket text message, binary is required [MQTT-6.0.0-1]", ErrMalformed)
			}
			s.message = m
		}
		n, err := s.message.Read(p)
		if errors.Is(err, io.EOF) {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil {
			s.link.carried(n)
			return n, s.readError(err)
		}
	}
}

// readError turns the end of a WebSocket into what a connection would say.
func (s *Stream) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case s.link.cut.Load():
		return errCut
	case errors.Is(err, errBeside):
		return errBeside
	case s.pings > maxPings:
		return fmt.Errorf("%w: more than %d WebSocket pings in a second", ErrMalformed, maxPings)
	case websocket.CloseStatus(err) == websocket.StatusNormalClosure, websocket.CloseStatus(err) == websocket.StatusGoingAway:
		return io.EOF
	case errors.Is(err, websocket.ErrMessageTooBig):
		return fmt.Errorf("%w: WebSocket message above %d bytes", ErrTooLarge, DefaultMessageLimit)
	}
	return err
}

func (s *Stream) writeMessage(p []byte) (int, error) {
	write := func() error { return s.ws.Write(context.Background(), websocket.MessageBinary, p) }
	var err error
	if len(p)+maxFrameHeader <= hijackBuffer {
		err = write() // fits the library's buffer: one write anyway
	} else {
		b := s.pool.Get(len(p) + maxFrameHeader)
		err = s.link.corked(b, write)
		s.pool.Put(b)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// maxFrameHeader is the largest frame header, the client's mask included.
const maxFrameHeader = 14

// DialOptions configure a client's connection.
type DialOptions struct {
	TLS    *tls.Config // nil: the system's roots; the server name is taken from the address
	Header http.Header // of the WebSocket handshake
	Pool   *Buffers    // nil: one of its own
	// Dial opens the TCP connection; nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Subprotocol to offer, when it is not Subprotocol.
	Subprotocol string
}

func (o DialOptions) withDefaults() DialOptions {
	if o.Pool == nil {
		o.Pool = NewBuffers()
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Subprotocol == "" {
		o.Subprotocol = Subprotocol
	}
	return o
}

// tlsClient opens TLS on address ("host:port").
func (o DialOptions) tlsClient(ctx context.Context, address string) (net.Conn, error) {
	conn, err := o.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.TLS != nil {
		cfg = o.TLS.Clone()
	}
	cfg.NextProtos = nil
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		cfg.ServerName = host
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tc, nil
}

// Dial opens MQTT over TLS to address ("host:8883").
func Dial(ctx context.Context, address string, o DialOptions) (*Stream, error) {
	o = o.withDefaults()
	conn, err := o.tlsClient(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return NewStream(conn, o.Pool), nil
}

// DialWebSocket opens MQTT over a WebSocket: "wss://host/$iothub/websocket",
// or ws for a plain one. Redirects are not followed.
func DialWebSocket(ctx context.Context, target string, o DialOptions) (*Stream, error) {
	o = o.withDefaults()
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return nil, fmt.Errorf("%q is not the address of a WebSocket, expected wss://host/path", target)
	}
	s := &Stream{pool: o.Pool}
	s.link.timeout = DefaultWriteTimeout
	keep := func(conn net.Conn, err error) (net.Conn, error) {
		if err != nil {
			return nil, err
		}
		s.link.Conn = conn
		return &s.link, nil
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return keep(o.Dial(ctx, network, address))
		},
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return keep(o.tlsClient(ctx, address))
		},
		DisableKeepAlives: true,
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ws, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{
		HTTPClient:      client,
		HTTPHeader:      o.Header,
		Subprotocols:    []string{o.Subprotocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, dialError(u.Host, resp, err)
	}
	ws.SetReadLimit(DefaultMessageLimit)
	s.ws = ws
	return s, nil
}

func dialError(host string, resp *http.Response, err error) error {
	if resp == nil || resp.Body == nil {
		return fmt.Errorf("connect to %s: %w", host, err)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	return fmt.Errorf("connect to %s: the server answered %s: %s", host, resp.Status, strings.TrimSpace(string(text)))
}
