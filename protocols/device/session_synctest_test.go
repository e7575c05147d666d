package device

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// inBubble runs f with a fake hub, its handler, and virtual time.
func inBubble(t *testing.T, f func(t *testing.T, hub *fakeHub, h *Handler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := newFakeHub()
		h := newHandler(hub, Options{})
		f(t, hub, h)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if s := h.Stats(); s.Sessions != 0 || s.Pending != 0 {
			t.Errorf("after Close: %+v", s)
		}
	})
}

// dialFake connects d1 to a fake hub with this CONNECT, and reads the CONNACK.
func dialFake(t *testing.T, h *Handler, change func(*wire.Connect)) *testClient {
	t.Helper()
	c := dial(t, h)
	connect := &wire.Connect{ClientID: "d1", Username: "h/d1/?"}
	if change != nil {
		change(connect)
	}
	c.write(wire.AppendConnect(nil, connect))
	if p := c.want(wire.TypeConnack); p.Code != 0 || !p.SessionPresent {
		t.Fatalf("CONNACK %+v", p)
	}
	return c
}

// endsAfter waits for the end of the connection and compares the time that
// passed since began.
func endsAfter(t *testing.T, c *testClient, began time.Time, want time.Duration) {
	t.Helper()
	for range c.in { //nolint:revive // only the end matters
	}
	if d := time.Since(began); d != want {
		t.Errorf("the connection ended after %s, want %s", d, want)
	}
}

// TestConnectTimeout closes a socket that sends no whole CONNECT in 30 s
// (checklist 30).
func TestConnectTimeout(t *testing.T) {
	for _, prefix := range []string{"", "\x10", "\x10\x20\x00\x04MQTT"} {
		inBubble(t, func(t *testing.T, _ *fakeHub, h *Handler) {
			began := time.Now()
			c := dial(t, h)
			if prefix != "" {
				c.write([]byte(prefix), nil)
			}
			endsAfter(t, c, began, 30*time.Second)
			if n := h.Stats().Disconnects["connect_timeout"]; n != 1 {
				t.Errorf("%d late connects were counted", n)
			}
		})
	}
}

// TestKeepAlive closes at 1.5 times the keep-alive, at most 1767 s (checklist 35).
func TestKeepAlive(t *testing.T) {
	for keepAlive, want := range map[uint16]time.Duration{
		0: 1767 * time.Second, 60: 90 * time.Second, 1177: 1765500 * time.Millisecond, 65535: 1767 * time.Second,
	} {
		inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
			began := time.Now()
			c := dialFake(t, h, func(c *wire.Connect) { c.KeepAlive = keepAlive })
			endsAfter(t, c, began, want)
			synctest.Wait()
			if n := h.Stats().Disconnects["keep_alive_timeout"]; n != 1 || len(hub.session.closed) != 1 || hub.session.closed[0] == nil {
				t.Errorf("%d timeouts were counted, the engine was told %v", n, hub.session.closed)
			}
		})
	}
}

// TestPingKeepsAlive also shows that bytes without a whole packet do not.
func TestPingKeepsAlive(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *fakeHub, h *Handler) {
		c := dialFake(t, h, func(c *wire.Connect) { c.KeepAlive = 60 })
		for range 100 {
			time.Sleep(89 * time.Second)
			c.ping()
		}
		began := time.Now()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			c.write([]byte{0x30, 100}, nil)
			for range 12 {
				time.Sleep(10 * time.Second)
				c.write([]byte{0}, nil)
			}
		})
		endsAfter(t, c, began, 90*time.Second)
	})
}

// TestTokenExpiry ends a session a grace time after its token, busy or not
// (checklist 31).
func TestTokenExpiry(t *testing.T) {
	for _, busy := range []bool{false, true} {
		inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
			began := time.Now()
			hub.grant.Expires = began.Add(time.Minute)
			c := dialFake(t, h, nil)
			var wg sync.WaitGroup
			defer wg.Wait()
			if busy {
				wg.Go(func() {
					for range 110 {
						time.Sleep(700 * time.Millisecond)
						c.write(wire.AppendPingreq(nil), nil)
					}
				})
			}
			want := time.Minute + hub.limits.TokenExpiryGrace
			endsAfter(t, c, began, want)
			synctest.Wait()
			if n := h.Stats().Disconnects["token_expired"]; n != 1 {
				t.Errorf("%d expiries were counted: %v", n, h.Stats().Disconnects)
			}
		})
	}
}

// TestThrottle slows a session that sends more packets than it may.
func TestThrottle(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.limits.DeviceMessageRate = 10
		h.limits = hub.limits
		c := dialFake(t, h, nil)
		began := time.Now()
		go func() {
			for range 50 {
				c.publish("devices/d1/messages/events/", "x", 1)
			}
		}()
		synctest.Wait()
		other := dialFake(t, h, func(c *wire.Connect) { c.ClientID, c.Username = "d2", "h/d2/?" })
		other.publish("devices/d2/messages/events/", "x", 1)
		if other.want(wire.TypePuback); time.Since(began) > 0 {
			t.Errorf("a device that sends too much made another wait %s", time.Since(began))
		}
		for range 50 {
			c.want(wire.TypePuback)
		}
		// Ten at once, forty at ten a second.
		if d := time.Since(began); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("50 messages at 10/s took %s", d)
		}
		if n := h.Stats().Paced; n == 0 {
			t.Error("nobody was told")
		}
	})
}

// TestTemporaryConditions answers 3, never 5 (checklist 24).
func TestTemporaryConditions(t *testing.T) {
	for _, code := range []engine.Code{engine.CodeUnavailable, engine.CodeThrottled, engine.CodeClosed, engine.CodeReadOnly, engine.CodeUncertain, engine.CodeInternal, engine.CodeCanceled} {
		for _, late := range []bool{false, true} {
			inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
				if e := (&engine.Error{Code: code, Message: "not now"}); late {
					hub.refuseLate = e
				} else {
					hub.refuse = e
				}
				c := dial(t, h)
				c.write(wire.AppendConnect(nil, &wire.Connect{ClientID: "d1", Username: "h/d1/?"}))
				if p := c.want(wire.TypeConnack); p.Code != wire.ConnackUnavailable || p.SessionPresent {
					t.Errorf("%s, late %t: CONNACK %d", code, late, p.Code)
				}
				c.wantEnd()
			})
		}
	}
}

// TestConnackFirst queues what the hub sends while it attaches the session.
func TestConnackFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.session.onConnect = func(o engine.Outbox) {
			if err := errors.Join(o.Method("1", "m", nil), o.Desired(7, []byte(`{"$version":7}`))); err != nil {
				t.Error(err)
			}
			synctest.Wait() // whatever would be written is written by now
		}
		c := dialFake(t, h, nil)
		c.wantTopic("$iothub/methods/POST/m/?$rid=1")
		c.wantTopic("$iothub/twin/PATCH/properties/desired/?$version=7")
	})
}

// TestReplyBeforeNotification keeps a notification that comes during a twin
// request behind the reply; methods are not kept back.
func TestReplyBeforeNotification(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		during := func(o engine.Outbox) {
			if err := errors.Join(o.Desired(8, []byte(`{"$version":8}`)), o.Desired(9, []byte(`{"$version":9}`)), o.Method("m", "now", nil)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		hub.session.onPatch = func(o engine.Outbox) error { during(o); return nil }
		hub.session.onTwin = during
		c := dialFake(t, h, nil)
		for _, request := range []struct{ topic, reply string }{
			{"$iothub/twin/PATCH/properties/reported/?$rid=r", "$iothub/twin/res/204/?$rid=r&$version=1"},
			{"$iothub/twin/GET/?$rid=g", "$iothub/twin/res/200/?$rid=g"},
		} {
			c.publish(request.topic, "{}", 1)
			c.wantTopic("$iothub/methods/POST/now/?$rid=m")
			c.want(wire.TypePuback)
			c.wantTopic(request.reply)
			c.wantTopic("$iothub/twin/PATCH/properties/desired/?$version=8")
			c.wantTopic("$iothub/twin/PATCH/properties/desired/?$version=9")
		}
	})
}

// TestTelemetry has what reaches the engine (checklist 46, 50 to 57, 59).
func TestTelemetry(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		c := dialFake(t, h, nil)
		binary := []byte{0, 255, 1, 0}
		send := func(m wire.Message) {
			c.write(wire.AppendPublish(nil, m))
			if m.QoS == 1 {
				if p := c.want(wire.TypePuback); p.ID != m.ID {
					t.Errorf("PUBACK of %d, want %d", p.ID, m.ID)
				}
			}
		}
		send(wire.Message{Topic: "devices/d1/messages/events", QoS: 1, ID: 65535})
		send(wire.Message{Topic: "devices/d1/messages/events/a b=c/d+e&%24.mid=m 1", Payload: binary, QoS: 1, ID: 1, Dup: true})
		send(wire.Message{Topic: "devices/d1/messages/events/", Payload: binary, Retain: true})
		c.ping()
		want := []engine.Message{
			{Body: []byte{}, QoS: 1},
			{Body: binary, QoS: 1, Duplicate: true, Properties: []engine.Property{{Name: "a b", Value: "c/d+e"}}, System: []engine.Property{{Name: "message-id", Value: "m 1"}}},
			{Body: binary, Retain: true, Properties: []engine.Property{{Name: "mqtt-retain", Value: "true"}}},
		}
		if got := hub.session.taken(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestWill publishes a will on any end but DISCONNECT (checklist 49).
func TestWill(t *testing.T) {
	ends := map[string]struct {
		f    func(c *testClient, o engine.Outbox)
		want int
	}{
		"cut":        {func(c *testClient, _ engine.Outbox) { _ = c.st.Close() }, 1},
		"silence":    {func(*testClient, engine.Outbox) { time.Sleep(time.Hour) }, 1},
		"violation":  {func(c *testClient, _ engine.Outbox) { c.publish("x", "", 0) }, 1},
		"by the hub": {func(_ *testClient, o engine.Outbox) { o.Close(&engine.Error{Code: engine.CodeConnectionClosed}) }, 1},
		"disconnect": {func(c *testClient, _ engine.Outbox) { c.write(wire.AppendDisconnect(nil), nil) }, 0},
	}
	for name, test := range ends {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
				c := dialFake(t, h, func(c *wire.Connect) {
					c.KeepAlive = 60
					c.Will = &wire.Will{Topic: "devices/d1/messages/events/%24.ct=text&a=1", Payload: []byte("gone"), QoS: 1, Retain: true}
				})
				test.f(c, hub.session.connection.Outbox)
				synctest.Wait()
				got := hub.session.taken()
				if len(got) != test.want {
					t.Fatalf("%d messages, want %d", len(got), test.want)
				}
				want := engine.Message{
					Body: []byte("gone"), QoS: 1, Retain: true, Will: true,
					Properties: []engine.Property{{Name: "a", Value: "1"}, {Name: "iothub-MessageType", Value: "Will"}, {Name: "mqtt-retain", Value: "true"}},
					System:     []engine.Property{{Name: "content-type", Value: "text"}},
				}
				if len(got) == 1 && !reflect.DeepEqual(got[0], want) {
					t.Errorf("got %+v, want %+v", got[0], want)
				}
			})
		})
	}
}

// TestSlowReader never lets the hub wait: the outbox takes some, then refuses
// and the connection ends.
func TestSlowReader(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		near, far := net.Pipe()
		go h.ServeConn(t.Context(), far)
		connect, err := wire.AppendConnect(nil, &wire.Connect{ClientID: "d1", Username: "h/d1/?"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := near.Write(connect); err != nil {
			t.Fatal(err)
		}
		if _, err := near.Read(make([]byte, 4)); err != nil { // CONNACK, and nothing after it
			t.Fatal(err)
		}
		began := time.Now()
		patch := bytes.Repeat([]byte("x"), 10_000)
		taken := 0
		for range 1000 {
			if err = hub.session.connection.Outbox.Desired(1, patch); err != nil {
				break
			}
			taken++
		}
		// A buffer takes packets until it is above the limit, and a full one may be
		// with the writer by the time the next fills up.
		fill := outboxLimit/len(patch) + 1
		if !errors.Is(err, errOutboxFull) || taken < outboxLimit/len(patch) || taken > 2*fill {
			t.Errorf("%d notifications were taken, then %v", taken, err)
		}
		if time.Since(began) != 0 {
			t.Errorf("the hub waited %s", time.Since(began))
		}
		synctest.Wait()
		if n := h.Stats().Disconnects["slow_reader"]; n != 1 {
			t.Errorf("disconnects are %v", h.Stats().Disconnects)
		}
	})
}

// TestManyAnswers: a device that asks for far more than its outbox holds, and
// reads, gets every answer, also while the hub sends to it.
func TestManyAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.session.twin = append([]byte(`{"a":"`), bytes.Repeat([]byte("x"), 100_000)...)
		hub.session.onTwin = func(o engine.Outbox) {
			if err := o.Method("m", "n", nil); err != nil {
				t.Error(err)
			}
		}
		c := dialFake(t, h, nil)
		var b []byte
		var err error
		const n = 100
		for range n {
			if b, err = wire.AppendPublish(b, wire.Message{Topic: "$iothub/twin/GET/?$rid=r"}); err != nil {
				t.Fatal(err)
			}
		}
		c.write(b, nil)
		answers, calls := 0, 0
		for answers < n || calls < n {
			switch p := c.want(wire.TypePublish); p.Topic {
			case "$iothub/twin/res/200/?$rid=r":
				answers++
			case "$iothub/methods/POST/n/?$rid=m":
				calls++
			}
		}
		c.ping()
	})
}

// TestHalfOpen ends a session whose write takes too long.
func TestHalfOpen(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		near, far := net.Pipe()
		defer func() { _ = near.Close() }()
		go h.ServeConn(t.Context(), far)
		connect, err := wire.AppendConnect(nil, &wire.Connect{ClientID: "d1", Username: "h/d1/?"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := near.Write(connect); err != nil {
			t.Fatal(err)
		}
		if _, err := near.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if err := hub.session.connection.Outbox.Method("1", "m", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(wire.DefaultWriteTimeout + time.Second)
		synctest.Wait()
		if n := h.Stats().Disconnects["slow_reader"]; n != 1 {
			t.Errorf("disconnects are %v", h.Stats().Disconnects)
		}
		if err := hub.session.connection.Outbox.Method("2", "m", nil); err == nil {
			t.Error("an ended connection takes requests")
		}
	})
}

// TestPanic costs one session, not the process.
func TestPanic(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.session.onPatch = func(engine.Outbox) error { panic("a fault") }
		c := dialFake(t, h, nil)
		c.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{}", 1)
		c.wantEnd()
		if n := h.Stats().Disconnects["fault"]; n != 1 {
			t.Errorf("disconnects are %v", h.Stats().Disconnects)
		}
		hub.session.onPatch = nil
		dialFake(t, h, nil).ping()
	})
}

// TestServerFault: without anybody to hear of it, the connection ends and no
// PUBACK is sent; with a subscription the device is told.
func TestServerFault(t *testing.T) {
	for _, heard := range []bool{true, false} {
		inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
			if !heard {
				hub.session.subs = engine.NoSubscriptions()
			}
			hub.session.onPatch = func(engine.Outbox) error { return &engine.Error{Code: engine.CodeReadOnly, Message: "disk"} }
			c := dialFake(t, h, nil)
			c.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{}", 1)
			if !heard {
				c.wantEnd()
				return
			}
			c.want(wire.TypePuback)
			if body := c.wantTopic("$iothub/twin/res/503/?$rid=1"); !bytes.Contains(body, []byte(`"errorCode":503001`)) {
				t.Errorf("body is %s", body)
			}
		})
	}
}

// TestTooManyPending closes connections above the limit at once.
func TestTooManyPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(newFakeHub(), Options{MaxPending: 3})
		var clients []*testClient
		for range 5 {
			clients = append(clients, dial(t, h))
			synctest.Wait()
		}
		for _, c := range clients[3:] {
			c.wantEnd()
		}
		c := clients[0]
		c.write(wire.AppendConnect(nil, &wire.Connect{ClientID: "d1", Username: "h/d1/?"}))
		c.want(wire.TypeConnack)
		dialFake(t, h, nil).ping() // one has left the waiting room
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLogsHoldNoSecrets looks for passwords in everything that is logged.
func TestLogsHoldNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		hub := newFakeHub()
		h := newHandler(hub, Options{Logger: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		const sig = "SECRETSECRETSECRETSECRETSECRETSECRETSECRETSE="
		passwords := []string{
			"SharedAccessSignature sr=h%2Fdevices%2Fd1&sig=" + sig + "&se=99999999999",
			"SharedAccessSignature sr=h&sig=" + sig + "&sig=" + sig,
			sig, "SharedAccessSignature " + sig, "SharedAccessSignature sr=h&se=" + sig + "&sig=x",
		}
		for _, refuse := range []error{nil, &engine.Error{Code: engine.CodeUnauthorized, Message: "no"}} {
			hub.refuse = refuse
			for _, p := range passwords {
				c := dial(t, h)
				c.write(wire.AppendConnect(nil, &wire.Connect{ClientID: "d1", Username: "h/d1/?", Password: p}))
				c.want(wire.TypeConnack)
				_ = c.st.Close()
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if s := out.String(); strings.Contains(s, "SECRET") || !strings.Contains(s, `"reason":"refused"`) || !strings.Contains(s, `"code":401003`) {
			t.Errorf("the log is %s", s)
		}
	})
}
