package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echo serves WebSockets that send back what they receive, in a goroutine of
// its own as a hub does.
func echo(t testing.TB, useTLS bool) (server *httptest.Server, target string) {
	pool := NewBuffers()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st, err := Accept(w, r, pool)
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = st.Close() }()
			_, _ = io.Copy(st, st)
		}()
	})
	if useTLS {
		server = httptest.NewTLSServer(handler)
	} else {
		server = httptest.NewServer(handler)
	}
	t.Cleanup(server.Close)
	return server, "ws" + strings.TrimPrefix(server.URL, "http") + "/$iothub/websocket?iothub-no-client-cert=true"
}

func TestWebSocketEcho(t *testing.T) {
	for _, useTLS := range []bool{false, true} {
		server, target := echo(t, useTLS)
		o := DialOptions{}
		if useTLS {
			o.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig
		}
		st, err := DialWebSocket(t.Context(), target, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 125, 126, 242, 243, 256, 5000, 70_000, 400_000} {
			sent := make([]byte, size)
			_, _ = rand.Read(sent)
			go func() {
				for part := range slices.Chunk(sent, 60_000) {
					if _, err := st.Write(part); err != nil {
						t.Error(err)
					}
				}
			}()
			got := make([]byte, size)
			if _, err := io.ReadFull(st, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes did not come back: %v", size, err)
			}
		}
		if err := st.CloseGracefully(); err != nil {
			t.Error(err)
		}
	}
}

// handshake sends a raw upgrade request and returns the answer and the
// connection.
func handshake(t *testing.T, target string, header http.Header) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	host := strings.TrimPrefix(target, "ws://")
	host, path, _ := strings.Cut(host, "/")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	maps.Copy(req.Header, header)
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp, conn, br
}

func TestAcceptHandshake(t *testing.T) {
	_, target := echo(t, false)
	tests := map[string]struct {
		header   http.Header
		status   int
		protocol string
	}{
		"mqtt":             {http.Header{"Sec-Websocket-Protocol": {"mqtt"}}, 101, "mqtt"},
		"MQTT":             {http.Header{"Sec-Websocket-Protocol": {"MQTT"}}, 101, "MQTT"},
		"among others":     {http.Header{"Sec-Websocket-Protocol": {"AMQPWSB10, mqtt"}}, 101, "mqtt"},
		"foreign origin":   {http.Header{"Sec-Websocket-Protocol": {"mqtt"}, "Origin": {"https://elsewhere:443"}}, 101, "mqtt"},
		"with compression": {http.Header{"Sec-Websocket-Protocol": {"mqtt"}, "Sec-Websocket-Extensions": {"permessage-deflate; client_max_window_bits"}}, 101, "mqtt"},
		"AMQP":             {http.Header{"Sec-Websocket-Protocol": {"AMQPWSB10"}}, 400, ""},
		"none":             {http.Header{}, 400, ""},
		"no upgrade":       {http.Header{"Upgrade": nil, "Connection": nil}, 426, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			resp, _, _ := handshake(t, target, test.header)
			if resp.StatusCode != test.status || resp.Header.Get("Sec-WebSocket-Protocol") != test.protocol {
				t.Errorf("got %s with subprotocol %q, want %d with %q", resp.Status, resp.Header.Get("Sec-WebSocket-Protocol"), test.status, test.protocol)
			}
			if e := resp.Header.Values("Sec-WebSocket-Extensions"); len(e) > 0 {
				t.Errorf("extensions %q were accepted", e)
			}
		})
	}
}

// Bytes that follow the request at once are not lost with the HTTP server's
// buffer.
func TestAcceptKeepsEarlyBytes(t *testing.T) {
	pool := NewBuffers()
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st, err := Accept(w, r, pool)
		if err != nil {
			return
		}
		defer func() { _ = st.Close() }()
		b := make([]byte, 5)
		_, _ = io.ReadFull(st, b)
		got <- string(b)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	frame := append([]byte{0x82, 0x85, 0, 0, 0, 0}, "early"...) // masked with zeros
	if _, err := conn.Write(append([]byte(upgrade), frame...)); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "early" {
		t.Errorf("read %q", s)
	}
}

func TestWebSocketText(t *testing.T) {
	_, target := echo(t, false)
	ws, _, err := websocket.Dial(t.Context(), target, &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("no")); err != nil {
		t.Fatal(err)
	}
	_, _, err = ws.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("text was answered with %v, want a close with %v", err, websocket.StatusUnsupportedData)
	}
}

// Packets may be spread over messages and share one.
func TestWebSocketFragments(t *testing.T) {
	_, target := echo(t, false)
	st, err := DialWebSocket(t.Context(), target, DialOptions{Subprotocol: "MQTT"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	b := must(t)(AppendPublish(nil, Message{Topic: "t", Payload: make([]byte, 1000)}))
	b = AppendPingreq(AppendPingreq(b))
	for _, part := range [][]byte{b[:1], b[1:700], b[700:]} {
		if _, err := st.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	rd := NewReader(st, NewBuffers(), 1<<20)
	for _, want := range []Type{TypePublish, TypePingreq, TypePingreq} {
		var p Packet
		if err := rd.ReadPacket(&p); err != nil || p.Type != want {
			t.Fatalf("got %s, %v, want %s", p.Type, err, want)
		}
	}
}

func TestDialRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not today", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	_, err := DialWebSocket(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), DialOptions{})
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "not today") {
		t.Errorf("error is %v, want the server's answer in it", err)
	}
	for _, bad := range []string{"https://x", "ws:", "://", "wss://"} {
		if _, err := DialWebSocket(t.Context(), bad, DialOptions{}); err == nil {
			t.Errorf("%q was dialled", bad)
		}
	}
}

// Cut ends a read and a write that wait, and those that come later.
func TestCut(t *testing.T) {
	pool := NewBuffers()
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	st := NewStream(a, pool)
	results := make(chan error, 2)
	go func() { _, err := st.Read(make([]byte, 1)); results <- err }()
	go func() { _, err := st.Write([]byte("x")); results <- err }()
	st.Cut()
	for range 2 {
		select {
		case err := <-results:
			if err == nil {
				t.Error("a read or write succeeded after Cut")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Cut did not end a read or write")
		}
	}
	if err := st.SetReadDeadline(time.Now().Add(time.Hour)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetReadDeadline after Cut: %v", err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Cut: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

func TestCutWebSocket(t *testing.T) {
	pool := NewBuffers()
	streams := make(chan *Stream, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if st, err := Accept(w, r, pool); err == nil {
			streams <- st
		}
	}))
	defer server.Close()
	client, err := DialWebSocket(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	st := <-streams
	done := make(chan error, 1)
	go func() { _, err := st.Read(make([]byte, 1)); done <- err }()
	st.Cut()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Cut: %v", err)
	}
	if _, err := st.Write(make([]byte, 1000)); err == nil {
		t.Error("wrote after Cut")
	}
	_ = st.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	if _, err := client.Read(make([]byte, 1)); err == nil || ctx.Err() != nil {
		t.Errorf("the client did not notice the cut: %v", err)
	}
}

// TestEmptyFrames shows that frames without content end the connection where
// they are many, and that those of small messages and long ones do not.
func TestEmptyFrames(t *testing.T) {
	const upgrade = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
	frames := func(kind byte, content int) []byte {
		one := []byte{kind, 0x80 | byte(content), 0, 0, 0, 0}
		return bytes.Repeat(append(one, make([]byte, content)...), 4*maxBeside/(len(one)+content))
	}
	for name, c := range map[string]struct {
		sent []byte
		ends bool
	}{
		"empty messages":      {frames(0x82, 0), true},
		"empty continuations": {append([]byte{0x02, 0x80, 0, 0, 0, 0}, frames(0x00, 0)...), true},
		"pongs":               {frames(0x8a, 125), true},
		"bytes one by one":    {frames(0x82, 1), false},
		"small messages":      {frames(0x82, 100), false},
		"one long message":    {append([]byte{0x82, 0xff, 0, 0, 0, 0, 0, DefaultMessageLimit >> 17, 0, 0, 0, 0, 0, 0}, make([]byte, DefaultMessageLimit/2)...), false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s, err := Accept(w, r, NewBuffers())
				if err != nil {
					ended <- err
					return
				}
				go func() {
					_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{s}, make([]byte, 320<<10))
					ended <- errors.Join(err, s.Close())
				}()
			}))
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(upgrade)); err != nil {
				t.Fatal(err)
			}
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(resp, err)
			}
			_, sendErr := conn.Write(c.sent)
			again := c.sent
			if c.sent[0] == 0x02 { // what the continuations continue
				again = c.sent[6:]
			}
			for range 100 { // a busy machine may take less than that in a second
				if !c.ends || sendErr != nil {
					break
				}
				_, sendErr = conn.Write(again)
			}
			_ = conn.Close()
			if err := <-ended; errors.Is(err, errBeside) != c.ends || !c.ends && sendErr != nil {
				t.Errorf("ended with %v (the peer: %v)", err, sendErr)
			}
		})
	}
}

// TestPingFlood shows that a peer is answered a bounded number of pings, then
// nothing.
func TestPingFlood(t *testing.T) {
	server, _ := echo(t, false)
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	const upgrade = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
	ping := []byte{0x89, 0x80, 0, 0, 0, 0}
	go func() { _, _ = c.Write(append([]byte(upgrade), bytes.Repeat(ping, maxPings)...)) }()
	r := bufio.NewReader(c)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	if _, err := io.ReadFull(r, make([]byte, 2*maxPings)); err != nil {
		t.Fatalf("the first %d pings were not all answered: %v", maxPings, err)
	}
	const more = 50 * maxPings
	go func() { _, _ = c.Write(bytes.Repeat(ping, more)) }()
	// It ends with a reset, which takes answers along, since pings were not read.
	got, _ := io.ReadAll(r)
	if n := len(got) / 2; n > 2*maxPings {
		t.Errorf("%d of %d further pings were answered, want at most those of two seconds", n, more)
	}
}
