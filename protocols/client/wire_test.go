package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

const patience = 10 * time.Second

// scripted is a hub's end of one connection, played by a test.
type scripted struct {
	*wire.Reader
	t      *testing.T
	stream *wire.Stream
}

func (s *scripted) read(want wire.Type) wire.Packet {
	s.t.Helper()
	var p wire.Packet
	if err := s.ReadPacket(&p); err != nil || p.Type != want {
		s.t.Errorf("read %s, want %s: %v", p.Type, want, err)
	}
	return p
}

func (s *scripted) write(b []byte, err error) {
	s.t.Helper()
	if err == nil {
		_, err = s.stream.Write(b)
	}
	if err != nil {
		s.t.Error(err)
	}
}

func (s *scripted) publish(topic, body string) {
	s.t.Helper()
	s.write(wire.AppendPublish(nil, wire.Message{Topic: topic, Payload: []byte(body)}))
}

func (s *scripted) accept() wire.Packet {
	s.t.Helper()
	p := s.read(wire.TypeConnect)
	s.write(wire.AppendConnack(nil, true, 0), nil)
	sub := s.read(wire.TypeSubscribe)
	return wire.Packet{Connect: p.Connect, ID: sub.ID, Filters: sub.Filters}
}

// play runs a device against a script, which gets each connection in turn.
func play(t *testing.T, o DeviceOptions, script func(n int, s *scripted)) *Device {
	t.Helper()
	web := httptest.NewTLSServer(http.NotFoundHandler()) // only for its certificate
	t.Cleanup(web.Close)
	pool := web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs //nolint:errcheck,forcetypeassert // as httptest makes it
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s := wire.NewStream(tls.Server(c, &tls.Config{Certificates: web.TLS.Certificates}), wire.NewBuffers()) //nolint:gosec // a test's
			script(n, &scripted{wire.NewReader(s, wire.NewBuffers(), maxPacket), t, s})
			_ = s.Close()
		}
	}()
	o.ConnectionString = auth.ConnectionString{HostName: "example.com", DeviceID: "d", SharedAccessKey: auth.NewKey()}
	o.RootCAs, o.Address = pool, l.Addr().String()
	d, err := NewDevice(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = d.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ran
		_ = l.Close()
		<-done
	})
	return d
}

// What a stored session brings before the SUBACK is not lost.
func TestEarlyMessages(t *testing.T) {
	notified, called := make(chan int64, 4), make(chan string, 4)
	answered := make(chan struct{})
	play(t, DeviceOptions{
		ModelID:   "dtmi:a:b;1",
		OnDesired: func(v int64, _ json.RawMessage) { notified <- v },
		OnMethod: func(_ context.Context, name string, payload json.RawMessage) (int, any) {
			called <- name + string(payload)
			return 200, nil
		},
	}, func(_ int, s *scripted) {
		p := s.accept()
		if p.Connect.ClientID != "d" || !strings.HasPrefix(p.Connect.Username, "example.com/d/?api-version=") || !strings.HasSuffix(p.Connect.Username, "&model-id=dtmi%3Aa%3Ab%3B1") || p.Connect.Clean {
			t.Errorf("CONNECT %+v", p.Connect)
		}
		if token, err := auth.ParseToken(p.Connect.Password); err != nil || token.Resource != "example.com/devices/d" || token.Policy != "" {
			t.Errorf("token %v: %v", token, err)
		}
		if len(p.Filters) != 3 {
			t.Errorf("filters %v", p.Filters)
		}
		s.publish("$iothub/twin/PATCH/properties/desired/?$version=7", `{"a":1,"$version":7}`)
		s.publish("$iothub/methods/POST/comp*re%20boot/?$rid=1", `{"x":1}`)
		s.write(wire.AppendSuback(nil, p.ID, 0, 0, 0), nil)
		if answer := s.read(wire.TypePublish); answer.Topic != "$iothub/methods/res/200/?$rid=1" {
			t.Errorf("answered on %s", answer.Topic)
		}
		close(answered)
	})
	if v := <-notified; v != 7 {
		t.Errorf("version %d", v)
	}
	if name := <-called; name != `comp*re boot{"x":1}` {
		t.Errorf("called %s", name)
	}
	<-answered
}

// Nonsense from the hub is ignored and the connection stays.
func TestNonsenseIsIgnored(t *testing.T) {
	ready, finish := make(chan struct{}), make(chan struct{})
	d := play(t, DeviceOptions{
		OnDesired: func(int64, json.RawMessage) { t.Error("told of a change without a version") },
		OnMethod: func(context.Context, string, json.RawMessage) (int, any) {
			t.Error("called without a request id")
			return 0, nil
		},
	}, func(_ int, s *scripted) {
		p := s.accept()
		s.write(wire.AppendSuback(nil, p.ID, 0, 0, 0), nil)
		for _, topic := range []string{
			"$iothub/twin/res/200/?$rid=unknown", "$iothub/twin/res/", "$iothub/twin/PATCH/properties/desired/",
			"$iothub/twin/PATCH/properties/desired/?$version=x", "$iothub/methods/POST/name", "else/where",
		} {
			s.publish(topic, "{")
		}
		s.write(wire.AppendPuback(nil, 999), nil)
		s.write(wire.AppendPublish(nil, wire.Message{Topic: "devices/d/messages/devicebound/x=1", QoS: 1, ID: 5}))
		if ack := s.read(wire.TypePuback); ack.ID != 5 {
			t.Errorf("acknowledged %d", ack.ID)
		}
		close(ready)
		ask := s.read(wire.TypePublish)
		s.publish("$iothub/twin/res/429/?$rid="+topicValue(ask.Topic, "$rid"), `{"errorCode":429001,"message":"slow down","trackingId":"t1"}`)
		<-finish
	})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	<-ready
	_, err := d.PatchReported(ctx, map[string]int{"a": 1})
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 429 || e.Code != "ThrottlingException" || e.RequestID != "t1" {
		t.Errorf("refused with %v", err)
	}
	close(finish)
}

// Messages without acknowledgement fill the window, later ones wait, and the
// end of the connection wakes all with an error that says so.
func TestWindow(t *testing.T) {
	finish := make(chan struct{})
	d := play(t, DeviceOptions{InFlight: 2}, func(n int, s *scripted) {
		p := s.accept()
		s.write(wire.AppendSuback(nil, p.ID, 0), nil)
		if n > 0 {
			return
		}
		s.read(wire.TypePublish)
		s.read(wire.TypePublish)
		<-finish
	})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- d.Send(ctx, Message{QoS: 1}) }()
	}
	if err := d.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := d.connection(ctx)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	for len(c.window) < 2 { // until both are on their way
		select {
		case <-ctx.Done():
			t.Fatal("the messages are not sent")
		default:
			runtime.Gosched()
		}
	}
	if err := d.Send(short, Message{QoS: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third message: %v", err)
	}
	cancel()
	close(finish)
	for range 2 {
		if err := <-results; !errors.Is(err, ErrNotConnected) {
			t.Errorf("sent with %v", err)
		}
	}
}

// A hub that has gone silent is left after the keep-alive.
func TestSilence(t *testing.T) {
	again := make(chan struct{})
	play(t, DeviceOptions{KeepAlive: 200 * time.Millisecond}, func(n int, s *scripted) {
		if n == 1 {
			close(again)
		}
		if n > 0 {
			return
		}
		p := s.accept()
		s.write(wire.AppendSuback(nil, p.ID, 0), nil)
		var q wire.Packet
		for s.ReadPacket(&q) == nil { // takes the pings and never answers
			continue
		}
	})
	select {
	case <-again:
	case <-time.After(patience):
		t.Error("the silent connection is kept")
	}
}

func TestHandshakeFailures(t *testing.T) {
	told := make(chan error, 64)
	play(t, DeviceOptions{OnState: func(_ bool, err error) { told <- err }}, func(n int, s *scripted) {
		switch n {
		case 0:
			s.read(wire.TypeConnect)
			s.write(wire.AppendConnack(nil, false, wire.ConnackUnavailable), nil)
		case 1:
			p := s.accept()
			s.write(wire.AppendSuback(nil, p.ID, wire.SubackFailure), nil)
		case 2:
			s.read(wire.TypeConnect)
			s.write(wire.AppendPingresp(nil), nil)
		}
	})
	for _, want := range []string{"code 3", "refused the subscription", "answered CONNECT with PINGRESP"} {
		select {
		case err := <-told:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("told %v, want %q", err, want)
			}
		case <-time.After(patience):
			t.Fatalf("not told of %q", want)
		}
	}
}

func TestNewDeviceRefuses(t *testing.T) {
	good := auth.ConnectionString{HostName: "h", DeviceID: "d", SharedAccessKey: auth.NewKey()}
	for name, o := range map[string]DeviceOptions{
		"nothing":   {},
		"no device": {ConnectionString: auth.ConnectionString{HostName: "h", SharedAccessKeyName: "p", SharedAccessKey: auth.NewKey()}},
		"bad key":   {ConnectionString: auth.ConnectionString{HostName: "h", DeviceID: "d", SharedAccessKey: "!"}},
		"transport": {ConnectionString: good, Transport: "amqp"},
	} {
		if _, err := NewDevice(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, o := range map[string]ServiceOptions{
		"nothing":  {},
		"a device": {ConnectionString: good},
	} {
		if _, err := NewService(o); err == nil {
			t.Errorf("%s is taken for a service", name)
		}
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]string{
		`"0001-01-01T00:00:00"`: "", `"0001-01-01T00:00:00Z"`: "", `null`: "", `""`: "",
		`"2026-11-22T21:00:00.1234567Z"`: "2026-11-22T21:00:00.1234567Z",
		`"2026-11-22T21:00:00"`:          "2026-11-22T21:00:00Z",
		`"2026-11-22T21:00:00+02:00"`:    "2026-11-22T19:00:00Z",
	} {
		var got Time
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if s := got.Format(time.RFC3339Nano); got.IsZero() != (want == "") || want != "" && s != want {
			t.Errorf("%s is %s, want %s", text, s, want)
		}
	}
	var bad Time
	if err := json.Unmarshal([]byte(`"yesterday"`), &bad); err == nil {
		t.Errorf("yesterday is %s", bad)
	}
}

// FuzzParseError: whatever a server answers, there is a message and no panic.
func FuzzParseError(f *testing.F) {
	for _, seed := range []string{
		`{"Message":"ErrorCode:DeviceNotFound;x"}`, `{"Message":"{\"errorCode\":404103,\"message\":\"m\"}"}`,
		`{"code":"A","detail":"b","next":"c"}`, `{"errorCode":"x"}`, "[]", "", "{", `{"Message":"{{"}`,
	} {
		f.Add(404, seed)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		e := parseError(status, http.Header{}, []byte(body))
		if e.Error() == "" {
			t.Error("no text")
		}
	})
}

// FuzzTopicValue: a value is a part of the topic.
func FuzzTopicValue(f *testing.F) {
	f.Add("$iothub/twin/res/200/?$rid=1&$version=2", "$rid")
	f.Add("??$rid=", "$rid")
	f.Fuzz(func(t *testing.T, topic, name string) {
		if v := topicValue(topic, name); v != "" && !strings.Contains(topic, name+"="+v) {
			t.Errorf("%q has no %s=%s", topic, name, v)
		}
	})
}
