package service

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

// benchmark runs requests through the handler without a socket.
func benchmark(b *testing.B, method, path, body string) {
	hub := enginetest.New(b)
	h := NewHandler(hub, Options{})
	d := enginetest.Connect(b, hub, engine.TwinID{DeviceID: "d"}, engine.EndpointMethod)
	d.Answer(func(enginetest.Method) (int, []byte) { return 200, []byte(`{"ok":true}`) })
	list, err := hub.Policies(b.Context(), enginetest.Owner())
	if err != nil {
		b.Fatal(err)
	}
	f := &fixture{TB: b, keys: map[string]auth.SharedAccessPolicy{}}
	for _, p := range list {
		f.keys[p.Name] = p
	}
	token := f.token("service", enginetest.HostName)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

func BenchmarkGetTwin(b *testing.B) {
	benchmark(b, http.MethodGet, "/twins/d?api-version=2021-04-12", "")
}

func BenchmarkMethod(b *testing.B) {
	benchmark(b, http.MethodPost, "/twins/d/methods?api-version=2021-04-12", `{"methodName":"ping","payload":{"a":1}}`)
}

func BenchmarkPatchTwin(b *testing.B) {
	benchmark(b, http.MethodPatch, "/twins/d?api-version=2021-04-12", `{"tags":{"a":1}}`)
}
