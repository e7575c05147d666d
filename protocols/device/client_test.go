package device

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/wire"
)

// testClient is a device at the other end of a pipe. It reads all the time:
// a pipe has no buffer.
type testClient struct {
	t   testing.TB
	st  *wire.Stream
	in  chan wire.Packet // closed when the connection ends
	id  engine.TwinID
	pid uint16
}

// dial connects a client to the handler through a pipe, without CONNECT.
func dial(t testing.TB, h *Handler) *testClient {
	near, far := net.Pipe()
	go h.ServeConn(context.Background(), far)
	return newTestClient(t, wire.NewStream(near, wire.NewBuffers()))
}

func newTestClient(t testing.TB, st *wire.Stream) *testClient {
	c := &testClient{t: t, st: st, in: make(chan wire.Packet, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.in)
		rd := wire.NewReader(st, wire.NewBuffers(), 4<<20)
		for {
			var p wire.Packet
			if rd.ReadPacket(&p) != nil {
				return
			}
			p.Payload = append([]byte(nil), p.Payload...)
			p.Codes = append([]byte(nil), p.Codes...)
			c.in <- p
		}
	}()
	t.Cleanup(func() {
		_ = st.Close()
		<-done
	})
	return c
}

// write sends raw bytes; that the connection has ended is no failure here.
func (c *testClient) write(b []byte, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	_, _ = c.st.Write(b)
}

// next returns the next packet of the hub.
func (c *testClient) next() wire.Packet {
	c.t.Helper()
	select {
	case p, ok := <-c.in:
		if !ok {
			c.t.Fatal("the connection has ended")
		}
		return p
	case <-time.After(20 * time.Second):
		c.t.Fatal("nothing came within 20 s")
	}
	return wire.Packet{}
}

// want reads the next packet, which must have this type.
func (c *testClient) want(typ wire.Type) wire.Packet {
	c.t.Helper()
	p := c.next()
	if p.Type != typ {
		c.t.Fatalf("got %s %q %q, want %s", p.Type, p.Topic, p.Payload, typ)
	}
	return p
}

// wantTopic reads the next packet, which must be a PUBLISH with this topic,
// at QoS 0 and without RETAIN as all that the hub sends.
func (c *testClient) wantTopic(topic string) []byte {
	c.t.Helper()
	p := c.want(wire.TypePublish)
	if p.Topic != topic {
		c.t.Fatalf("got %q %q, want the topic %q", p.Topic, p.Payload, topic)
	}
	if p.QoS != 0 || p.Retain || p.Dup {
		c.t.Fatalf("PUBLISH has QoS %d, retain %t, dup %t", p.QoS, p.Retain, p.Dup)
	}
	return p.Payload
}

// wantEnd waits until the hub closes the connection, and wants nothing before.
func (c *testClient) wantEnd() {
	c.t.Helper()
	select {
	case p, ok := <-c.in:
		if ok {
			c.t.Fatalf("got %s %q, want the connection to end", p.Type, p.Topic)
		}
	case <-time.After(20 * time.Second):
		c.t.Fatal("the connection did not end within 20 s")
	}
}

// ping makes sure that the connection lives and that all before is handled.
func (c *testClient) ping() {
	c.t.Helper()
	c.write(wire.AppendPingreq(nil), nil)
	c.want(wire.TypePingresp)
}

func (c *testClient) publish(topic, payload string, qos byte) {
	c.t.Helper()
	c.pid++
	c.write(wire.AppendPublish(nil, wire.Message{Topic: topic, Payload: []byte(payload), QoS: qos, ID: c.pid}))
}

func (c *testClient) subscribe(filters ...wire.Filter) []byte {
	c.t.Helper()
	c.pid++
	c.write(wire.AppendSubscribe(nil, c.pid, filters...))
	p := c.want(wire.TypeSuback)
	if p.ID != c.pid {
		c.t.Fatalf("SUBACK of %d, want %d", p.ID, c.pid)
	}
	return p.Codes
}

// connect is the CONNECT of an identity with a valid token.
func connectOf(t testing.TB, h *engine.Hub, id engine.TwinID) *wire.Connect {
	t.Helper()
	return &wire.Connect{
		ClientID:  id.String(),
		Username:  enginetest.HostName + "/" + id.String() + "/?api-version=2021-04-12&DeviceClientType=test",
		Password:  enginetest.Token(t, h, id, time.Now().Add(time.Hour)),
		KeepAlive: 60,
	}
}

// open connects an identity; f may change the CONNECT.
func open(t testing.TB, hub *engine.Hub, h *Handler, id engine.TwinID, f func(*wire.Connect)) (*testClient, wire.Packet) {
	t.Helper()
	c := dial(t, h)
	c.id = id
	connect := connectOf(t, hub, id)
	if f != nil {
		f(connect)
	}
	c.write(wire.AppendConnect(nil, connect))
	return c, c.want(wire.TypeConnack)
}

// accepted is open that must be accepted.
func accepted(t testing.TB, hub *engine.Hub, h *Handler, id engine.TwinID) *testClient {
	t.Helper()
	c, p := open(t, hub, h, id, nil)
	if p.Code != wire.ConnackAccepted {
		t.Fatalf("CONNACK %d", p.Code)
	}
	return c
}

// allFilters are what the SDKs subscribe to.
func allFilters() []wire.Filter {
	return []wire.Filter{{Topic: "$iothub/twin/res/#"}, {Topic: "$iothub/twin/PATCH/properties/desired/#"}, {Topic: "$iothub/methods/POST/#"}}
}

// newTestHub returns a hub and a handler on it, and cleans up in order.
func newTestHub(t testing.TB, options ...enginetest.Option) (*engine.Hub, *Handler) {
	t.Helper()
	hub := enginetest.New(t, options...)
	h := NewHandler(hub, Options{})
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return hub, h
}
