package device

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/wire"
)

// serveTLS serves the handler over TLS, as the server's listener does.
func serveTLS(t testing.TB, h *Handler) (server *httptest.Server, dial func(path string) *testClient) {
	t.Helper()
	server = httptest.NewUnstartedServer(http.HandlerFunc(h.ServeHTTP))
	server.StartTLS()
	t.Cleanup(server.Close)
	config := server.Client().Transport.(*http.Transport).TLSClientConfig
	return server, func(path string) *testClient {
		t.Helper()
		st, err := wire.DialWebSocket(t.Context(), "wss"+strings.TrimPrefix(server.URL, "https")+path, wire.DialOptions{TLS: config, Subprotocol: "MQTT"})
		if err != nil {
			t.Fatal(err)
		}
		return newTestClient(t, st)
	}
}

// TestWebSocketSession runs a session over TLS and WebSocket (checklist 4 to
// 10), packets split over frames and sharing them.
func TestWebSocketSession(t *testing.T) {
	hub, h := newTestHub(t)
	server, dial := serveTLS(t, h)
	id := engine.TwinID{DeviceID: "d"}
	connect, err := wire.AppendConnect(nil, connectOf(t, hub, id))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/$iothub/websocket?iothub-no-client-cert=true", "/mqtt", "/"} {
		c := dial(path)
		for part := range bytes.SplitAfterSeq(connect, []byte("/")) { // several frames
			c.write(part, nil)
		}
		if p := c.want(wire.TypeConnack); p.Code != 0 {
			t.Fatalf("CONNACK %d", p.Code)
		}
		c.write(wire.AppendPingreq(wire.AppendPingreq(nil)), nil) // one frame
		c.want(wire.TypePingresp)
		c.want(wire.TypePingresp)
		c.publish("devices/d/messages/events/", strings.Repeat("x", 200<<10), 1)
		c.want(wire.TypePuback)
		c.subscribe(allFilters()...)
		c.publish("$iothub/twin/GET/?$rid=1", " ", 0)
		c.wantTopic("$iothub/twin/res/200/?$rid=1")
		c.write(wire.AppendDisconnect(nil), nil)
		c.wantEnd()
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/$iothub/websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"AMQPWSB10"}}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("AMQP was answered with %s, %v", resp.Status, err)
	}
}

// TestWebSocketEnds has the ends of a session that a WebSocket could hide:
// a refused CONNECT, silence, and the hub's own decision.
func TestWebSocketEnds(t *testing.T) {
	hub, h := newTestHub(t)
	_, dial := serveTLS(t, h)
	id := engine.TwinID{DeviceID: "d"}
	connect := connectOf(t, hub, id)
	refused := dial("/")
	connect.Password = enginetest.Token(t, hub, engine.TwinID{DeviceID: "e"}, time.Now().Add(time.Hour))
	refused.write(wire.AppendConnect(nil, connect))
	if p := refused.want(wire.TypeConnack); p.Code != wire.ConnackNotAuthorized {
		t.Errorf("CONNACK %d, want 5", p.Code)
	}
	refused.wantEnd()

	connect = connectOf(t, hub, id)
	connect.KeepAlive = 1
	silent := dial("/")
	silent.write(wire.AppendConnect(nil, connect))
	silent.want(wire.TypeConnack)
	silent.wantEnd()
	if n := h.Stats().Disconnects["keep_alive_timeout"]; n != 1 {
		t.Errorf("disconnects are %v", h.Stats().Disconnects)
	}

	connect.KeepAlive = 60
	deleted := dial("/")
	deleted.write(wire.AppendConnect(nil, connect))
	deleted.want(wire.TypeConnack)
	if err := hub.DeleteIdentity(t.Context(), enginetest.Owner(), id, engine.ParseIfMatch("*")); err != nil {
		t.Fatal(err)
	}
	deleted.wantEnd()
}

// TestUpgradeWhileFull refuses handshakes that could not be served.
func TestUpgradeWhileFull(t *testing.T) {
	h := newHandler(newFakeHub(), Options{MaxPending: 1})
	server, dial := serveTLS(t, h)
	dial("/")
	resp, err := server.Client().Get(server.URL) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %s, %v", resp.Status, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// TestRestart keeps subscriptions over a restart of the hub (checklist 37).
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	id := engine.TwinID{DeviceID: "d"}
	for i := range 2 {
		hub := enginetest.New(t, enginetest.Dir(dir))
		h := NewHandler(hub, Options{})
		c, p := open(t, hub, h, id, nil)
		if p.SessionPresent != (i > 0) {
			t.Errorf("start %d: session-present is %t", i, p.SessionPresent)
		}
		if i == 0 {
			c.subscribe(allFilters()...)
		}
		c.publish("$iothub/twin/GET/?$rid=1", "", 0)
		c.wantTopic("$iothub/twin/res/200/?$rid=1")
		if err := errors.Join(h.Close(), hub.Close()); err != nil {
			t.Fatal(err)
		}
		c.wantEnd()
	}
}

// TestManySilent: connections that never send CONNECT disturb nobody, and
// leave nothing behind.
func TestManySilent(t *testing.T) {
	hub, h := newTestHub(t)
	var silent []net.Conn
	for range 2000 {
		near, far := net.Pipe()
		go h.ServeConn(t.Context(), far)
		silent = append(silent, near)
	}
	c := accepted(t, hub, h, engine.TwinID{DeviceID: "d"})
	c.ping()
	for h.Stats().Pending < 2000 { // some may not have begun
		if t.Context().Err() != nil {
			t.FailNow()
		}
		runtime.Gosched()
	}
	if s := h.Stats(); s.Pending != 2000 || s.Sessions != 1 {
		t.Errorf("%+v", s)
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	c.ping()
}

// BenchmarkTelemetry sends messages of 256 bytes at QoS 1 over loopback TCP,
// twenty in flight.
func BenchmarkTelemetry(b *testing.B) {
	hub, h := newTestHub(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go h.ServeConn(b.Context(), conn)
		}
	}()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		st := wire.NewStream(conn, wire.NewBuffers())
		defer func() { _ = st.Close() }()
		rd := wire.NewReader(st, wire.NewBuffers(), 1<<20)
		id := engine.TwinID{DeviceID: fmt.Sprint("d", conn.LocalAddr().(*net.TCPAddr).Port)}
		connect, err := wire.AppendConnect(nil, connectOf(b, hub, id))
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = st.Write(connect)
		var p wire.Packet
		_ = rd.ReadPacket(&p)
		var batch []byte
		const window = 20
		for i := range window {
			batch, _ = wire.AppendPublish(batch, wire.Message{Topic: "devices/" + id.String() + "/messages/events/", Payload: make([]byte, 256), QoS: 1, ID: uint16(i + 1)})
		}
		for more := true; more; {
			n := 0
			for n < window && more {
				if more = pb.Next(); more {
					n++
				}
			}
			_, _ = st.Write(batch[:len(batch)/window*n])
			for range n {
				if err := rd.ReadPacket(&p); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
