package service

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

const queueCall = `{"methodName":"reboot","payload":{"delay":3},"waitForDeviceInSeconds":3600}`

func TestQueuedMethodCalls(t *testing.T) {
	f := newFixture(t)
	const calls = "/api/v1/devices/d/method-calls"
	f.create("d")
	f.do("PUT", "/devices/d/modules/m", `{"deviceId":"d","moduleId":"m"}`).want(200)

	first := f.do("POST", calls, queueCall, header("Idempotency-Key", "k")).want(202).is("status", `"queued"`).is("methodName", `"reboot"`).is("payload", `{"delay":3}`).is("attempt", "0").is("principal", `"policy:iothubowner"`)
	id := first.text("id")
	if again := f.do("POST", calls, queueCall, header("Idempotency-Key", "k")).want(202); again.text("id") != id || again.header.Get(replayedField) != "true" {
		t.Errorf("the same key queued another call: %s", again.body)
	}
	second := f.do("POST", calls, `{"methodName":"two","waitForDeviceInSeconds":60}`).want(202).text("id")
	f.do("POST", "/api/v1/devices/d/modules/m/method-calls", queueCall).want(202).is("moduleId", `"m"`)
	f.do("GET", calls, "").want(200).is("items.0.id", `"`+id+`"`).is("items.1.id", `"`+second+`"`).is("items.2", "")
	page := f.do("GET", calls+"?limit=1", "").want(200).is("items.1", "")
	f.do("GET", calls+"?limit=1&cursor="+page.text("cursor"), "").want(200).is("items.0.id", `"`+second+`"`)
	f.do("GET", "/api/v1/method-calls?status=queued", "").want(200).is("items.2.moduleId", `"m"`)
	f.do("GET", "/api/v1/method-calls?status=failed", "").want(200).is("items", "[]")
	f.do("POST", calls+"/"+second+"/cancel", "").want(200).is("status", `"canceled"`)
	f.do("POST", calls+"/"+second+"/cancel", "").want(412).is("code", `"PreconditionFailed"`)
	f.do("GET", calls+"?status=canceled", "").want(200).is("items.0.id", `"`+second+`"`).is("items.1", "")

	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "d"}, engine.EndpointMethod)
	d.Answer(func(m enginetest.Method) (int, []byte) { return 202, m.Payload })
	f.do("GET", calls+"/"+id+"?wait=30", "").want(200).is("status", `"succeeded"`).is("response", `{"payload":{"delay":3},"status":202}`).is("attempt", "1")
	if got := d.Methods(); len(got) != 1 || got[0].Name != "reboot" {
		t.Errorf("the device was called %+v", got)
	}
	f.do("POST", calls+"/"+id+"/cancel", "").want(412)
}

func TestQueuedMethodCallsRefuse(t *testing.T) {
	f := newFixture(t)
	f.create("d")
	const calls = "/api/v1/devices/d/method-calls"
	for name, c := range map[string]struct {
		method, path, body, policy string
		status                     int
		code                       string
	}{
		"no wait":            {"POST", calls, `{"methodName":"m"}`, "service", 400, "ArgumentNull"},
		"short wait":         {"POST", calls, `{"methodName":"m","waitForDeviceInSeconds":59}`, "service", 400, "ArgumentInvalid"},
		"long wait":          {"POST", calls, `{"methodName":"m","waitForDeviceInSeconds":2592001}`, "service", 400, "ArgumentInvalid"},
		"negative wait":      {"POST", calls, `{"methodName":"m","waitForDeviceInSeconds":-1}`, "service", 400, "ArgumentInvalid"},
		"huge wait":          {"POST", calls, `{"methodName":"m","waitForDeviceInSeconds":9e18}`, "service", 400, "IotHubFormatError"},
		"wait as text":       {"POST", calls, `{"methodName":"m","waitForDeviceInSeconds":"60"}`, "service", 400, "IotHubFormatError"},
		"no name":            {"POST", calls, `{"waitForDeviceInSeconds":60}`, "service", 400, "ArgumentNull"},
		"long name":          {"POST", calls, `{"methodName":"` + strings.Repeat("m", 101) + `","waitForDeviceInSeconds":60}`, "service", 400, "ArgumentInvalid"},
		"no JSON":            {"POST", calls, `{`, "service", 400, "IotHubFormatError"},
		"huge":               {"POST", calls, `{"methodName":"m","payload":"` + strings.Repeat("x", 200<<10) + `","waitForDeviceInSeconds":60}`, "service", 413, "MessageTooLarge"},
		"unknown device":     {"POST", "/api/v1/devices/e/method-calls", queueCall, "service", 404, "DeviceNotFound"},
		"unknown call":       {"GET", calls + "/nope", "", "service", 404, "MethodCallNotFound"},
		"cancel unknown":     {"POST", calls + "/nope/cancel", "", "service", 404, "MethodCallNotFound"},
		"unknown status":     {"GET", calls + "?status=lost", "", "service", 400, "ArgumentInvalid"},
		"cursor":             {"GET", calls + "?cursor=x", "", "service", 400, "ArgumentInvalid"},
		"long poll":          {"GET", calls + "/x?wait=61", "", "service", 400, "ArgumentInvalid"},
		"without permission": {"POST", calls, queueCall, "registryReadWrite", 403, "OperationNotAllowed"},
		"list without":       {"GET", "/api/v1/method-calls", "", "registryReadWrite", 403, "OperationNotAllowed"},
	} {
		a := f.do(c.method, c.path, c.body, f.as(c.policy))
		if a.status != c.status || a.at("code") != `"`+c.code+`"` || a.text("detail") == "" {
			t.Errorf("%s: %d %s; want %d %s", name, a.status, a.body, c.status, c.code)
		}
	}
	if a := f.do("GET", calls, "").want(200); a.at("items") != "[]" {
		t.Errorf("something was queued: %s", a.body)
	}
	most := f.hub.Limits().QueuedPerDevice
	for range most {
		f.do("POST", calls, queueCall).want(202)
	}
	f.do("POST", calls, queueCall).want(429).is("code", `"DeviceMaximumInflightMethodExceeded"`)
}

// TestQueuedMethodCallLongPoll: a call that is waited for ends while somebody
// waits, at its deadline or with the device's end.
func TestQueuedMethodCallLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := enginetest.New(t)
		h := NewHandler(hub, Options{})
		d := enginetest.Connect(t, hub, engine.TwinID{DeviceID: "d"}, engine.EndpointMethod)
		q, err := hub.QueueMethod(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: "d"}, engine.MethodCall{Name: "m"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w := serve(t, h, "GET", "/api/v1/devices/d/method-calls/"+q.ID+"?wait=20", "")
		if took := time.Since(begun); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"sending"`) || took != 20*time.Second {
			t.Errorf("while it is on the wire: %d %s after %s", w.Code, w.Body, took)
		}
		ended := make(chan *httptest.ResponseRecorder, 1)
		go func() { ended <- serve(t, h, "GET", "/api/v1/devices/d/method-calls/"+q.ID+"?wait=60", "") }()
		synctest.Wait()
		d.Session.Close(nil)
		if w := <-ended; w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"uncertain"`) || !strings.Contains(w.Body.String(), `"code":"`) {
			t.Errorf("after the device left: %d %s", w.Code, w.Body)
		}
		if got := d.Methods(); len(got) != 1 {
			t.Errorf("it was sent %d times", len(got))
		}
	})
}

// TestLargeAnswersAreNotDoneTwice: an answer that is too large to be kept for
// its idempotency key is no reason to do the work again.
func TestLargeAnswersAreNotDoneTwice(t *testing.T) {
	f := newFixture(t, func(o *engine.Options) { o.Profile = engine.ProfileDefault })
	f.create("d")
	const calls = "/api/v1/devices/d/method-calls"
	large := `{"methodName":"m","payload":"` + strings.Repeat("<", 128<<10-2) + `","waitForDeviceInSeconds":60}`
	first := f.do("POST", calls, large, header("Idempotency-Key", "k")).want(202)
	again := f.do("POST", calls, large, header("Idempotency-Key", "k")).want(202)
	if string(first.body) != string(again.body) || again.header.Get(replayedField) != "true" {
		t.Errorf("%.100s then %.100s", first.body, again.body)
	}
	f.do("GET", calls, "").want(200).is("items.1", "")

	var tags strings.Builder
	for i := range 60 {
		fmt.Fprintf(&tags, `,"t%d":%q`, i, strings.Repeat("x", 4000))
	}
	f.do("PATCH", "/twins/d", `{"tags":{"first":true}}`).want(200)
	moment := f.do("GET", "/api/v1/twins/d/history?limit=1", "").want(200).text("items.0.id")
	f.do("PATCH", "/twins/d", `{"tags":{`+tags.String()[1:]+`}}`).want(200)
	version := f.do("GET", "/twins/d", "").want(200).at("version")
	restore := `{"to":"` + moment + `","sections":["tags"],"dryRun":true}`
	f.do("POST", "/api/v1/twins/d/restore", restore, header("Idempotency-Key", "k")).want(200)
	f.do("POST", "/api/v1/twins/d/restore", restore, header("Idempotency-Key", "k")).want(409).is("code", `"IdempotencyAnswerNotKept"`).is("status", "409")
	f.do("GET", "/twins/d", "").want(200).is("version", version)
}
