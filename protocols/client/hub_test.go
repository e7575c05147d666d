package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

const patience = 20 * time.Second

// device makes an identity and runs a client for it until the test ends.
func device(t *testing.T, h *clienttest.Hub, id string, o client.DeviceOptions) *client.Device {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if o.ConnectionString.DeviceID == "" {
		if _, err := h.Service.CreateIdentity(ctx, client.Identity{DeviceID: id}); err != nil {
			t.Fatalf("create %s: %v", id, err)
		}
		text, err := h.Service.IdentityConnectionString(ctx, id, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if o.ConnectionString, err = auth.ParseConnectionString(text); err != nil {
			t.Fatal(err)
		}
	}
	o.RootCAs, o.Address = h.RootCAs, h.MQTTS
	if o.Transport == client.WebSocket {
		o.Address = h.HTTPS
	}
	d, err := client.NewDevice(o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, d)
	return d
}

// run runs a device until the test ends, or until the function it returns is
// called, and waits for it.
func run(t *testing.T, d *client.Device) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

type desired struct {
	version int64
	patch   string
}

func TestDeviceAgainstHub(t *testing.T) {
	h := clienttest.Start(t)
	for _, transport := range []client.Transport{client.MQTT, client.WebSocket} {
		t.Run(string(transport), func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), patience)
			defer stop()
			notified := make(chan desired, 8)
			id := "d-" + string(transport)
			d := device(t, h, id, client.DeviceOptions{
				Transport: transport, ModelID: "dtmi:muster:test;1",
				OnDesired: func(v int64, p json.RawMessage) { notified <- desired{v, string(p)} },
				OnMethod: func(_ context.Context, name string, payload json.RawMessage) (int, any) {
					return 201, map[string]any{"name": name, "got": payload}
				},
			})
			if err := d.WaitConnected(ctx); err != nil {
				t.Fatal(err)
			}
			version, err := d.PatchReported(ctx, map[string]any{"battery": 71.5})
			if err != nil || version != 2 {
				t.Fatalf("reported version %d, want 2: %v", version, err)
			}
			if _, err := h.Service.PatchTwin(ctx, id, "", json.RawMessage(`{"tags":{"site":"lyon"},"properties":{"desired":{"interval":5}}}`), ""); err != nil {
				t.Fatal(err)
			}
			if got := <-notified; got.version != 2 || !strings.Contains(got.patch, `"interval":5`) {
				t.Errorf("notified of %+v", got)
			}
			tw, err := d.Twin(ctx)
			if err != nil || !strings.Contains(string(tw.Desired), `"interval":5`) || !strings.Contains(string(tw.Reported), `"battery":71.5`) {
				t.Errorf("twin %s %s: %v", tw.Desired, tw.Reported, err)
			}
			r, err := h.Service.InvokeMethod(ctx, id, "", client.MethodCall{Name: "ping", Payload: json.RawMessage(`{"a":[1]}`), ResponseTimeout: 10 * time.Second})
			if err != nil || r.Status != 201 || string(r.Payload) != `{"got":{"a":[1]},"name":"ping"}` {
				t.Errorf("method answered %d %s: %v", r.Status, r.Payload, err)
			}
			var sent sync.WaitGroup
			for i := range 200 { // more than the window
				sent.Go(func() {
					m := client.Message{Body: fmt.Appendf(nil, `{"n":%d}`, i), ContentType: "application/json", QoS: 1, Properties: map[string]string{"a b": "c+d"}}
					if err := d.Send(ctx, m); err != nil {
						t.Errorf("send %d: %v", i, err)
					}
				})
			}
			sent.Wait()
			if err := d.Send(ctx, client.Message{Body: []byte("x")}); err != nil {
				t.Error(err)
			}
			_, err = d.PatchReported(ctx, map[string]any{"bad.key": 1})
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != 400 {
				t.Errorf("a key with a dot: %v", err)
			}
		})
	}
	info, err := h.Service.Hub(t.Context())
	if err != nil || !info.Ready || len(info.Listeners) != 2 {
		t.Errorf("hub %+v: %v", info, err)
	}
}

func TestServiceOverHTTPS(t *testing.T) {
	h := clienttest.Start(t)
	text, err := h.Service.PolicyConnectionString(t.Context(), "iothubowner", "secondary")
	if err != nil {
		t.Fatal(err)
	}
	c, err := auth.ParseConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	c.HostName = "localhost"
	_, port, _ := net.SplitHostPort(h.HTTPS)
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	s, err := client.NewService(client.ServiceOptions{ConnectionString: c, Port: n, RootCAs: h.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	created, err := s.CreateIdentity(t.Context(), client.Identity{DeviceID: "a%+#?b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateIdentity(t.Context(), client.Identity{DeviceID: "a%+#?b"}); !client.HasCode(err, "DeviceAlreadyExists") {
		t.Errorf("created twice: %v", err)
	}
	created.Status = "disabled"
	if _, err := s.UpdateIdentity(t.Context(), created, "nonsense"); !client.HasCode(err, "PreconditionFailed") {
		t.Errorf("updated with a wrong ETag: %v", err)
	}
	if created, err = s.UpdateIdentity(t.Context(), created, created.ETag); err != nil || created.Status != "disabled" {
		t.Errorf("update: %+v %v", created, err)
	}
	if _, err := s.CreateIdentity(t.Context(), client.Identity{DeviceID: "a%+#?b", ModuleID: "m"}); err != nil {
		t.Error(err)
	}
	if list, err := s.Modules(t.Context(), "a%+#?b"); err != nil || len(list) != 1 || list[0].ModuleID != "m" {
		t.Errorf("modules %+v: %v", list, err)
	}
	var items []client.BulkItem
	for i := range client.MaxBulk {
		items = append(items, client.BulkItem{ID: fmt.Sprintf("bulk-%03d", i), ImportMode: "create"})
	}
	if r, err := s.Bulk(t.Context(), items); err != nil || !r.IsSuccessful {
		t.Errorf("bulk: %+v %v", r, err)
	}
	r, err := s.Bulk(t.Context(), items[:2])
	if err != nil || r.IsSuccessful || len(r.Errors) != 2 || r.Errors[0].Code() != "DeviceAlreadyExists" {
		t.Errorf("bulk again: %+v %v", r, err)
	}
	count := 0
	for d, err := range s.Devices(t.Context(), "bulk-") {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("bulk-%03d", count); d.DeviceID != want {
			t.Fatalf("device %q in place %d", d.DeviceID, count)
		}
		count++
	}
	if count != client.MaxBulk {
		t.Errorf("%d devices listed", count)
	}
	if err := s.DeleteIdentity(t.Context(), "a%+#?b", "", "*"); err != nil {
		t.Error(err)
	}
	if _, err := s.Identity(t.Context(), "a%+#?b", ""); !client.IsNotFound(err) {
		t.Errorf("read after delete: %v", err)
	}
	if _, err := s.Policies(t.Context()); err != nil {
		t.Error(err)
	}
	if check, err := s.VerifyAudit(t.Context()); err != nil || !check.OK || check.Entries == 0 {
		t.Errorf("audit: %+v %v", check, err)
	}
	entries := 0
	for _, err := range s.Audit(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		entries++
	}
	if entries == 0 {
		t.Error("the audit log is empty")
	}
	if _, err := s.Doctor(t.Context()); err != nil {
		t.Error(err)
	}
	if st, err := s.Status(t.Context()); err != nil || st.Devices.Total != client.MaxBulk {
		t.Errorf("status: %+v %v", st, err)
	}
}

func TestHistoryAndDiff(t *testing.T) {
	h := clienttest.Start(t)
	ctx := t.Context()
	if _, err := h.Service.CreateIdentity(ctx, client.Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	for _, patch := range []string{`{"tags":{"site":"lyon"}}`, `{"properties":{"desired":{"a":1}}}`, `{"properties":{"desired":{"a":2,"b":{"c":1}}}}`} {
		if _, err := h.Service.PatchTwin(ctx, "d", "", json.RawMessage(patch), ""); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for e, err := range h.Service.TwinHistory(ctx, "d", "", "desired") {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if len(ids) != 2 {
		t.Fatalf("history of desired: %v", ids)
	}
	changes, err := h.Service.TwinDiff(ctx, "d", "", ids[1], "now")
	if err != nil || len(changes) != 2 || changes[0].Path != "desired.a" || string(changes[0].Before) != "1" || string(changes[0].After) != "2" {
		t.Errorf("difference %+v: %v", changes, err)
	}
}

// A refusal is told to whoever waits, and to OnState.
func TestRefused(t *testing.T) {
	h := clienttest.Start(t)
	told := make(chan error, 16)
	d := device(t, h, "", client.DeviceOptions{
		ConnectionString: auth.ConnectionString{HostName: "localhost", DeviceID: "stranger", SharedAccessKey: auth.NewKey()},
		OnState: func(_ bool, err error) {
			select {
			case told <- err:
			default:
			}
		},
	})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if e, ok := errors.AsType[*client.RefusedError](<-told); !ok || e.Code != 5 {
		t.Errorf("told %v", e)
	}
	stop()
	if err := d.WaitConnected(ctx); err == nil || d.Connected() {
		t.Errorf("connected as a stranger: %v", err)
	}
}

// After a drop the device comes back by itself and hears methods again.
func TestReconnect(t *testing.T) {
	h := clienttest.Start(t)
	for _, transport := range []client.Transport{client.MQTT, client.WebSocket} {
		t.Run(string(transport), func(t *testing.T) {
			states := make(chan bool, 64)
			id := "r-" + string(transport)
			d := device(t, h, id, client.DeviceOptions{
				Transport: transport,
				OnMethod:  func(context.Context, string, json.RawMessage) (int, any) { return 200, nil },
				OnState:   func(up bool, _ error) { states <- up },
			})
			for i, end := range []func(){d.Drop, d.Disconnect} {
				if up := <-states; !up {
					t.Fatal("not connected")
				}
				end()
				if up := <-states; up {
					t.Fatalf("still connected after end %d", i)
				}
			}
			if up := <-states; !up {
				t.Fatal("did not come back")
			}
			r, err := h.Service.InvokeMethod(t.Context(), id, "", client.MethodCall{Name: "m", ResponseTimeout: 10 * time.Second})
			if err != nil || r.Status != 200 {
				t.Errorf("method after the return: %+v %v", r, err)
			}
		})
	}
}

// A token that runs out is renewed by a new connection, without a gap that a
// caller would notice.
func TestTokenRenewal(t *testing.T) {
	h := clienttest.Start(t)
	states := make(chan bool, 64)
	d := device(t, h, "renewing", client.DeviceOptions{
		TokenLifetime: 2 * time.Second, OnState: func(up bool, _ error) { states <- up },
	})
	for _, want := range []bool{true, false, true} {
		if up := <-states; up != want {
			t.Fatalf("connected is %v, want %v", up, want)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if _, err := d.PatchReported(ctx, map[string]any{"a": 1}); err != nil {
		t.Error(err)
	}
}

// Calls that wait end when the connection does, and nothing stays behind.
func TestNothingStays(t *testing.T) {
	h := clienttest.Start(t)
	ctx := t.Context()
	if _, err := h.Service.CreateIdentity(ctx, client.Identity{DeviceID: "leaver"}); err != nil {
		t.Fatal(err)
	}
	i, err := h.Service.Identity(ctx, "leaver", "")
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for _, transport := range []client.Transport{client.MQTT, client.WebSocket} {
		called := make(chan struct{})
		o := client.DeviceOptions{
			ConnectionString: auth.ConnectionString{HostName: "localhost", DeviceID: "leaver", SharedAccessKey: auth.Secret(i.Authentication.SymmetricKey.Primary)},
			Transport:        transport, RootCAs: h.RootCAs, Address: h.MQTTS,
			OnMethod: func(ctx context.Context, _ string, _ json.RawMessage) (int, any) {
				close(called)
				<-ctx.Done()
				return 500, nil
			},
		}
		if transport == client.WebSocket {
			o.Address = h.HTTPS
		}
		d, err := client.NewDevice(o)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, d)
		if err := d.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() {
			_, err := h.Service.InvokeMethod(ctx, "leaver", "", client.MethodCall{Name: "m", ResponseTimeout: 10 * time.Second})
			answered <- err
		}()
		<-called
		stop()
		if err := <-answered; err == nil {
			t.Error("a method was answered by a device that left")
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		if err := d.Send(short, client.Message{}); err == nil {
			t.Error("sent without a connection")
		}
		cancel()
	}
	h.Service.Close()
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}
