package service

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestFaults(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	f.do("PUT", "/devices/d/modules/m", `{"deviceId":"d","moduleId":"m"}`).want(200)
	f.do("PUT", "/api/v1/devices/d/fault", `{"drop":0.1,"delaySeconds":2.5,"disconnectEverySeconds":60,"forSeconds":120}`).want(200).
		is("deviceId", `"d"`).is("drop", "0.1").is("delaySeconds", "2.5").is("disconnectEverySeconds", "60").is("principal", `"policy:iothubowner"`)
	f.do("PUT", "/api/v1/devices/d/modules/m/fault", `{"drop":1}`).want(200).is("moduleId", `"m"`)
	f.do("PUT", "/api/v1/devices/d/fault", `{"delaySeconds":1}`).want(200).is("drop", "0") // it replaces
	f.do("GET", "/api/v1/faults", "").want(200).is("items.0.delaySeconds", "1").is("items.1.moduleId", `"m"`).is("items.2", "")
	page := f.do("GET", "/api/v1/faults?limit=1", "").want(200).is("items.1", "")
	f.do("GET", "/api/v1/faults?limit=1&cursor="+page.text("cursor"), "").want(200).is("items.0.moduleId", `"m"`).is("cursor", `""`)
	f.do("DELETE", "/api/v1/devices/d/fault", "").want(204)
	f.do("DELETE", "/api/v1/devices/d/fault", "").want(204) // without one it does nothing
	f.do("DELETE", "/devices/d/modules/m", "", ifMatch("*")).want(204)
	f.do("GET", "/api/v1/faults", "").want(200).is("items", "[]") // goes with its identity

	for name, c := range map[string]struct {
		method, path, body, policy string
		status                     int
		code                       string
	}{
		"does nothing":     {"PUT", "/api/v1/devices/d/fault", `{}`, "iothubowner", 400, "ArgumentInvalid"},
		"drop above one":   {"PUT", "/api/v1/devices/d/fault", `{"drop":1.1}`, "iothubowner", 400, "ArgumentInvalid"},
		"negative drop":    {"PUT", "/api/v1/devices/d/fault", `{"drop":-0.1}`, "iothubowner", 400, "ArgumentInvalid"},
		"text":             {"PUT", "/api/v1/devices/d/fault", `{"drop":"much"}`, "iothubowner", 400, "ArgumentInvalid"},
		"no number":        {"PUT", "/api/v1/devices/d/fault", `{"drop":NaN}`, "iothubowner", 400, "IotHubFormatError"},
		"long delay":       {"PUT", "/api/v1/devices/d/fault", `{"delaySeconds":31}`, "iothubowner", 400, "ArgumentInvalid"},
		"huge delay":       {"PUT", "/api/v1/devices/d/fault", `{"delaySeconds":1e300}`, "iothubowner", 400, "ArgumentInvalid"},
		"often":            {"PUT", "/api/v1/devices/d/fault", `{"disconnectEverySeconds":0.5}`, "iothubowner", 400, "ArgumentInvalid"},
		"for ever":         {"PUT", "/api/v1/devices/d/fault", `{"drop":1,"forSeconds":86401}`, "iothubowner", 400, "ArgumentInvalid"},
		"unknown device":   {"PUT", "/api/v1/devices/e/fault", `{"drop":1}`, "iothubowner", 404, "DeviceNotFound"},
		"delete unknown":   {"DELETE", "/api/v1/devices/e/fault", "", "iothubowner", 404, "DeviceNotFound"},
		"not by a service": {"PUT", "/api/v1/devices/d/fault", `{"drop":1}`, "service", 403, "OperationNotAllowed"},
		"nor its end":      {"DELETE", "/api/v1/devices/d/fault", "", "service", 403, "OperationNotAllowed"},
	} {
		a := f.do(c.method, c.path, c.body, f.as(c.policy))
		if a.status != c.status || a.at("code") != `"`+c.code+`"` {
			t.Errorf("%s: %d %s; want %d %s", name, a.status, a.body, c.status, c.code)
		}
	}
	f.do("GET", "/api/v1/faults", "").want(200).is("items", "[]")
}

// TestFaultEndsByItself: also in the list, and with the connection noting why
// it was ended.
func TestFaultEndsByItself(t *testing.T) {
	serveBubbleRunning(t, func(t *testing.T, hub *engine.Hub, h *Handler) {
		d := enginetest.Connect(t, hub, engine.TwinID{DeviceID: "d"})
		if w := serve(t, h, "PUT", "/api/v1/devices/d/fault", `{"disconnectEverySeconds":30,"forSeconds":60}`); w.Code != 200 {
			t.Fatal(w.Body)
		}
		time.Sleep(32 * time.Second)
		if cause := d.Closed(); cause == nil || cause.Code != engine.CodeFaultInjected {
			t.Errorf("the connection ended with %v", cause)
		}
		time.Sleep(30 * time.Second)
		if w := serve(t, h, "GET", "/api/v1/faults", ""); !strings.Contains(w.Body.String(), `"items":[]`) {
			t.Errorf("after its time: %s", w.Body)
		}
	})
}

// serveBubbleRunning runs f in a bubble with a hub at work.
func serveBubbleRunning(t *testing.T, f func(t *testing.T, hub *engine.Hub, h *Handler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := enginetest.New(t)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		go func() { done <- hub.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		f(t, hub, NewHandler(hub, Options{}))
	})
}
