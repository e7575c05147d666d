package simulator_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
	"github.com/muster-hub/muster/protocols/simulator"
)

const patience = 30 * time.Second

func fleet(t *testing.T, h *clienttest.Hub) *simulator.Fleet {
	t.Helper()
	f, err := simulator.NewFleet(simulator.Options{
		Service: h.Service, Hub: "localhost", MQTTS: h.MQTTS, HTTPS: h.HTTPS, RootCAs: h.RootCAs,
		Devices: 5, Seed: 7, Interval: 50 * time.Millisecond, Spread: time.Millisecond, Shortened: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// eventually asks until the answer is yes.
func eventually(ctx context.Context, t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// reported reads a device's reported properties.
func reported(ctx context.Context, t *testing.T, h *clienttest.Hub, id string) map[string]any {
	t.Helper()
	tw, err := h.Service.Twin(ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(tw.Properties.Reported, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func invoke(ctx context.Context, t *testing.T, h *clienttest.Hub, id, name, payload string) client.MethodResult {
	t.Helper()
	r, err := h.Service.InvokeMethod(ctx, id, "", client.MethodCall{
		Name: name, Payload: json.RawMessage(payload), ResponseTimeout: 10 * time.Second, ConnectTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatalf("%s on %s: %v", name, id, err)
	}
	return r
}

func TestFleet(t *testing.T) {
	h := clienttest.Start(t)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	f := fleet(t, h)
	if p, err := f.Prepare(ctx); err != nil || p.Created != 5 || p.Existing != 0 {
		t.Fatalf("prepared %+v: %v", p, err)
	}
	if p, err := fleet(t, h).Prepare(ctx); err != nil || p.Created != 0 || p.Existing != 5 {
		t.Fatalf("prepared again %+v: %v", p, err)
	}
	done := make(chan struct{})
	rctx, end := context.WithCancel(ctx)
	go func() {
		defer close(done)
		_ = f.Run(rctx)
	}()
	eventually(ctx, t, "all five are online and send", func() bool {
		s := f.Stats()
		return s.Online >= 4 && s.Connects >= 5 && s.Messages > 20 && s.TwinUpdates >= 10 // one is flaky
	})
	transports := map[any]int{}
	for _, id := range []string{"demo-pump-001", "demo-valve-002", "demo-meter-003", "demo-sensor-004"} {
		eventually(ctx, t, id+" reports what it is", func() bool {
			r := reported(ctx, t, h, id)
			return r["battery"] != nil && r["temperature"] != nil && r["deviceInfo"] != nil && r["firmware"] != nil
		})
		transports[reported(ctx, t, h, id)["transport"]]++
	}
	if transports["mqtt"] != 2 || transports["mqtt-ws"] != 2 {
		t.Errorf("transports %v, want two of each", transports)
	}

	const id = "demo-pump-001"
	if r := invoke(ctx, t, h, id, "ping", ""); r.Status != 200 {
		t.Errorf("ping: %+v", r)
	}
	if r := invoke(ctx, t, h, id, "getLog", `{"lines":1}`); r.Status != 200 || len(r.Payload) < 20 {
		t.Errorf("getLog: %d %s", r.Status, r.Payload)
	}
	if r := invoke(ctx, t, h, id, "getLog", `{"lines":-1}`); r.Status != 400 {
		t.Errorf("getLog with a bad payload: %+v", r)
	}
	if r := invoke(ctx, t, h, id, "dance", ""); r.Status != 404 {
		t.Errorf("an unknown method: %+v", r)
	}

	tw, err := h.Service.PatchTwin(ctx, id, "", json.RawMessage(`{"properties":{"desired":{"telemetryInterval":1,"color":"red","firmware":{"version":"2.0.1"}}}}`), "")
	if err != nil {
		t.Fatal(err)
	}
	var version struct {
		Version float64 `json:"$version"`
	}
	if err := json.Unmarshal(tw.Properties.Desired, &version); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "the desired properties are acknowledged", func() bool {
		r := reported(ctx, t, h, id)
		a, _ := r["telemetryInterval"].(map[string]any)
		c, _ := r["color"].(map[string]any)
		return a["ac"] == 200.0 && a["av"] == version.Version && a["value"] == 1.0 && c["value"] == "red"
	})
	eventually(ctx, t, "the firmware is installed", func() bool {
		r := reported(ctx, t, h, id)
		fw, _ := r["firmware"].(map[string]any)
		u, _ := r["firmwareUpdate"].(map[string]any)
		return fw["version"] == "2.0.1" && r["boots"] == 2.0 && u["ac"] == 200.0
	})
	if _, err := h.Service.PatchTwin(ctx, id, "", json.RawMessage(`{"properties":{"desired":{"telemetryInterval":"often","color":null}}}`), ""); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "a bad value is refused, a removed one is forgotten", func() bool {
		r := reported(ctx, t, h, id)
		a, _ := r["telemetryInterval"].(map[string]any)
		return a["ac"] == 400.0 && r["color"] == nil
	})

	if r := invoke(ctx, t, h, id, "reboot", ""); r.Status != 202 {
		t.Errorf("reboot: %+v", r)
	}
	eventually(ctx, t, "it has rebooted", func() bool {
		r := reported(ctx, t, h, id)
		uptime, _ := r["uptime"].(float64)
		return r["boots"] == 3.0 && uptime < 2
	})
	if r := invoke(ctx, t, h, id, "healthCheck", ""); r.Status != 200 || !strings.Contains(string(r.Payload), `"healthy":true`) {
		t.Errorf("healthCheck: %d %s", r.Status, r.Payload)
	}
	if r := invoke(ctx, t, h, id, "reportStatus", `{"id":"s1"}`); r.Status != 200 || !strings.Contains(string(r.Payload), `"version":"2.0.1"`) {
		t.Errorf("reportStatus: %d %s", r.Status, r.Payload)
	}
	eventually(ctx, t, "it has reported its status", func() bool {
		s, _ := reported(ctx, t, h, id)["status"].(map[string]any)
		return s["id"] == "s1" && s["health"] == "good"
	})
	if r := invoke(ctx, t, h, id, "factoryReset", `{"id":"f1"}`); r.Status != 202 {
		t.Errorf("factoryReset: %+v", r)
	}
	eventually(ctx, t, "it is as new, and counts its starts on", func() bool {
		r := reported(ctx, t, h, id)
		f, _ := r["factoryReset"].(map[string]any)
		b, _ := r["boot"].(map[string]any)
		return r["boots"] == 1.0 && f["id"] == "f1" && f["status"] == "done" && b["count"] == 4.0 && r["status"] == nil
	})

	end()
	<-done
	if s := f.Stats(); s.Online != 0 || s.Away != 0 || s.Methods < 6 {
		t.Errorf("after the end: %+v", s)
	}

	if _, err := h.Service.CreateIdentity(ctx, client.Identity{DeviceID: "demo-not-ours"}); err != nil {
		t.Fatal(err)
	}
	if n, err := simulator.Clean(ctx, h.Service, simulator.DefaultPrefix, simulator.DemoTag, func(int, int) {}); err != nil || n != 5 {
		t.Errorf("cleaned %d: %v", n, err)
	}
	if _, err := h.Service.Identity(ctx, "demo-not-ours", ""); err != nil {
		t.Errorf("a device of the user is gone: %v", err)
	}
	if n, err := simulator.Clean(ctx, h.Service, simulator.DefaultPrefix, simulator.DemoTag, func(int, int) {}); err != nil || n != 0 {
		t.Errorf("cleaned again %d: %v", n, err)
	}
}

func TestStory(t *testing.T) {
	s, err := client.NewService(client.ServiceOptions{Socket: "none"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := simulator.NewFleet(simulator.Options{Service: s, Hub: "h", MQTTS: "a"})
	if err != nil {
		t.Fatal(err)
	}
	got := f.Story()
	want := map[simulator.Trouble]int{simulator.Cold: 3, simulator.Flaky: 2, simulator.Slow: 1, simulator.OldFirmware: 1, simulator.Steady: 43}
	for trouble, n := range want {
		if got[trouble] != n {
			t.Errorf("%d %s, want %d", got[trouble], trouble, n)
		}
	}
	for _, o := range []simulator.Options{{}, {Service: s}, {Service: s, Hub: "h"}} {
		if _, err := simulator.NewFleet(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
