package device

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/wire"
)

// BenchmarkReported sends reported patches at QoS 1 over TLS from 256 devices,
// each waiting for its answer before the next: each one is durable.
func BenchmarkReported(b *testing.B) {
	hub, h := newTestHub(b)
	policy, err := hub.Policy(b.Context(), enginetest.Owner(), "device")
	if err != nil {
		b.Fatal(err)
	}
	key, err := policy.PrimaryKey.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	token := auth.SignToken(enginetest.HostName, key, "device", time.Now().Add(time.Hour))
	server := httptest.NewTLSServer(nil) // for its certificate
	defer server.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server.TLS)
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
			go func() {
				if conn.(*tls.Conn).Handshake() == nil {
					go h.ServeConn(b.Context(), conn)
				}
			}()
		}
	}()
	const devices = 256
	clients := make(chan *reporter, devices)
	for i := range devices {
		id := engine.TwinID{DeviceID: fmt.Sprint("d", i)}
		if _, err := hub.CreateIdentity(b.Context(), enginetest.Owner(), engine.Identity{DeviceID: id.DeviceID}); err != nil {
			b.Fatal(err)
		}
		r, err := newReporter(b, l.Addr(), id, token)
		if err != nil {
			b.Fatal(err)
		}
		clients <- r
	}
	b.SetParallelism(devices / 2)
	var serial atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		r := <-clients
		defer func() { clients <- r }()
		for pb.Next() {
			if err := r.report(serial.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "patches/s")
}

type reporter struct {
	st *wire.Stream
	rd *wire.Reader
	b  []byte
}

func newReporter(b *testing.B, address net.Addr, id engine.TwinID, token string) (*reporter, error) {
	pool := wire.NewBuffers()
	st, err := wire.Dial(b.Context(), address.String(), wire.DialOptions{TLS: &tls.Config{InsecureSkipVerify: true}, Pool: pool}) //nolint:gosec // the test's own server
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { _ = st.Close() })
	r := &reporter{st: st, rd: wire.NewReader(st, pool, 1<<20)}
	if r.b, err = wire.AppendConnect(nil, &wire.Connect{ClientID: id.String(), Username: enginetest.HostName + "/" + id.String() + "/?", Password: token}); err != nil {
		return nil, err
	}
	if err := r.exchange(wire.TypeConnack); err != nil {
		return nil, err
	}
	if r.b, err = wire.AppendSubscribe(nil, 1, allFilters()...); err != nil {
		return nil, err
	}
	return r, r.exchange(wire.TypeSuback)
}

// exchange writes b and reads the packets wanted.
func (r *reporter) exchange(want ...wire.Type) error {
	if _, err := r.st.Write(r.b); err != nil {
		return err
	}
	for _, w := range want {
		var p wire.Packet
		if err := r.rd.ReadPacket(&p); err != nil || p.Type != w || p.Code != 0 {
			return fmt.Errorf("got %s, code %d, topic %q, %w", p.Type, p.Code, p.Topic, err)
		}
	}
	return nil
}

func (r *reporter) report(serial int64) error {
	var err error
	payload := fmt.Appendf(nil, `{"battery":%d,"status":"ok","sensors":{"temperature":%d.5,"humidity":%d}}`, serial%100, serial%40, serial%90)
	if r.b, err = wire.AppendPublish(r.b[:0], wire.Message{Topic: "$iothub/twin/PATCH/properties/reported/?$rid=1", Payload: payload, QoS: 1, ID: 1}); err != nil {
		return err
	}
	return r.exchange(wire.TypePuback, wire.TypePublish)
}
