package service

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestMethods(t *testing.T) {
	f := newFixture(t)
	id := engine.TwinID{DeviceID: "d"}
	f.create("d")
	invoke := func(body string) *reply { return f.do("POST", "/twins/d/methods", body) }
	nested := func(a *reply) (code int) {
		a.Helper()
		var e struct {
			ErrorCode int
			Message   string
		}
		if err := json.Unmarshal([]byte(a.text("Message")), &e); err != nil {
			a.Fatalf("%v in %s", err, a.body)
		}
		a.is("ExceptionMessage", `""`)
		return e.ErrorCode
	}
	t.Run("17 offline", func(t *testing.T) {
		if got := nested(invoke(`{"methodName":"m"}`).refused(404, "DeviceNotOnline").golden("error-not-online")); got != 404103 {
			t.Errorf("code %d", got)
		}
	})
	t.Run("80 timeouts", func(t *testing.T) {
		for _, more := range []string{`"responseTimeoutInSeconds":4`, `"responseTimeoutInSeconds":301`, `"responseTimeoutInSeconds":0`, `"responseTimeoutInSeconds":5,"connectTimeoutInSeconds":6`} {
			if got := nested(invoke(`{"methodName":"m",`+more+`}`).refused(400, "ArgumentInvalid")); got != 400004 {
				t.Errorf("%s: code %d", more, got)
			}
		}
	})
	t.Run("82 unknown", func(t *testing.T) {
		if got := nested(f.do("POST", "/twins/nope/methods", `{"methodName":"m"}`).refused(404, "DeviceNotFound")); got != 404001 {
			t.Errorf("code %d", got)
		}
		if got := nested(f.do("POST", "/twins/d/modules/nope/methods", `{"methodName":"m"}`).refused(404, "ModuleNotFound")); got != 404010 {
			t.Errorf("code %d", got)
		}
	})
	d := enginetest.Connect(t, f.hub, id, engine.EndpointMethod)
	t.Run("78 status", func(t *testing.T) {
		d.Answer(func(enginetest.Method) (int, []byte) { return 400, []byte(`{"why":"not"}`) })
		if a := invoke(`{"methodName":"m"}`).want(200); string(a.body) != `{"status":400,"payload":{"why":"not"}}` {
			t.Errorf("%s", a.body)
		}
		d.Answer(func(enginetest.Method) (int, []byte) { return 200, nil })
		invoke(`{"methodName":"m"}`).want(200).is("payload", "null")
	})
	t.Run("79 payload", func(t *testing.T) {
		d.Answer(func(m enginetest.Method) (int, []byte) { return 200, m.Payload })
		for _, payload := range []string{"null", `""`, `[1,{"a":2}]`, "1.50", `"text"`, `{"a":null}`} {
			invoke(`{"methodName":"m","payload":` + payload + `}`).want(200)
			got := d.Methods()[len(d.Methods())-1]
			if string(got.Payload) != payload || got.Name != "m" {
				t.Errorf("%s arrived as %q", payload, got.Payload)
			}
		}
		invoke(`{"methodName":"m"}`).want(200).is("payload", "null")
	})
	t.Run("83 size", func(t *testing.T) {
		for _, n := range []int{128<<10 + 1, 1 << 20, 2 << 20} {
			a := invoke(`{"methodName":"m","payload":"` + strings.Repeat("x", n-2) + `"}`)
			if a.status != http.StatusBadRequest && a.status != http.StatusRequestEntityTooLarge {
				t.Errorf("%d bytes: %d", n, a.status)
			}
		}
		invoke(`{"methodName":"m","payload":"` + strings.Repeat("x", 128<<10-2) + `"}`).want(200)
	})
	t.Run("permission", func(t *testing.T) {
		for _, body := range []string{`{"methodName":"m"}`, "no JSON"} {
			a := f.do("POST", "/twins/d/methods", body, f.as("registryRead")).refused(401, "IotHubUnauthorizedAccess")
			if !strings.HasPrefix(a.text("Message"), "ErrorCode:") {
				t.Errorf("%s", a.body)
			}
		}
	})
}

// serve answers one request without a socket, so that time can be a bubble's.
func serve(t *testing.T, h *Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	p := enginetest.Owner().Principal
	p.Kind = auth.Local
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(WithLocal(r.Context(), p)))
	return w
}

func TestMethodTimeouts(t *testing.T) {
	t.Run("18 no answer in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hub := enginetest.New(t, enginetest.Azure)
			h := NewHandler(hub, Options{})
			enginetest.Connect(t, hub, engine.TwinID{DeviceID: "d"}, engine.EndpointMethod)
			start := time.Now()
			w := serve(t, h, "POST", "/twins/d/methods?api-version=2021-04-12", `{"methodName":"m","responseTimeoutInSeconds":5}`)
			took := time.Since(start)
			if w.Code != 504 || !strings.Contains(w.Body.String(), `\"errorCode\":504101`) || errorName(w) != "GatewayTimeout" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if took < 5*time.Second || took > 6*time.Second {
				t.Errorf("after %v", took)
			}
		})
	})
	t.Run("81 a device that comes while the call waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hub := enginetest.New(t, enginetest.Azure)
			h := NewHandler(hub, Options{})
			id := engine.TwinID{DeviceID: "d"}
			if _, err := enginetest.Identity(t, hub, id); err != nil {
				t.Fatal(err)
			}
			done := make(chan *httptest.ResponseRecorder, 1)
			go func() {
				done <- serve(t, h, "POST", "/twins/d/methods?api-version=2021-04-12", `{"methodName":"m","responseTimeoutInSeconds":10,"connectTimeoutInSeconds":10}`)
			}()
			time.Sleep(5 * time.Second) // of the bubble
			d, err := enginetest.TryConnect(t, hub, id, false)
			if err != nil {
				t.Fatal(err)
			}
			d.Answer(func(enginetest.Method) (int, []byte) { return 200, []byte(`"here"`) })
			set := engine.NoSubscriptions()
			set[engine.EndpointMethod] = 0
			if err := d.Session.Subscribe(t.Context(), set); err != nil {
				t.Fatal(err)
			}
			if w := <-done; w.Code != 200 || w.Body.String() != `{"status":200,"payload":"here"}` {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	})
}
