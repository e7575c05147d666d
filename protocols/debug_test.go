package protocols

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestDebugHandler(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	d := newDebugHandler(level, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})))
	t.Cleanup(d.close)
	for _, step := range []struct {
		method, path, body string
		status             int
		holds              string
	}{
		{"GET", "/debug/log-level", "", 200, `"INFO"`},
		{"PUT", "/debug/log-level", `{"level":"debug"}`, 200, `"DEBUG"`},
		{"GET", "/debug/log-level", "", 200, `"DEBUG"`},
		{"PUT", "/debug/log-level", `{"level":"loud"}`, 400, "next"},
		{"PUT", "/debug/log-level", `{"level":"` + strings.Repeat("x", debugBody) + `"}`, 400, "next"},
		{"GET", "/debug/flight", "", 409, "muster debug flight on"},
		{"PUT", "/debug/flight", "", 200, `"running":true`},
		{"PUT", "/debug/flight", "", 200, `"running":true`},
		{"GET", "/debug/flight", "", 200, "go 1."},
		{"DELETE", "/debug/flight", "", 200, `"running":false`},
		{"GET", "/debug/flight", "", 409, "Conflict"},
		{"GET", "/debug/pprof/heap", "", 200, ""},
		{"GET", "/debug/pprof/profile?seconds=100000", "", 400, "seconds"},
		{"GET", "/debug/pprof/trace?seconds=-1", "", 400, "seconds"},
		{"GET", "/debug/pprof/mutex?debug=1", "", 200, "sampling period=10"},
		{"GET", "/debug/pprof/block?debug=1", "", 200, "contention"},
		{"GET", "/debug/pprof/mutex?seconds=301", "", 400, "seconds"},
		{"GET", "/debug/other", "", 404, ""},
	} {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest(step.method, step.path, strings.NewReader(step.body)))
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.holds) {
			t.Errorf("%s %s: %d %.200q, want %d with %q", step.method, step.path, w.Code, w.Body, step.status, step.holds)
		}
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("level %v after it was set to debug", level.Level())
	}
	if !strings.Contains(out.String(), "from=INFO to=DEBUG") {
		t.Errorf("the change is not in the log: %q", out.String())
	}
}

// What looks into the hub is served on the unix socket, and on no other listener
// whatever the path's spelling: profiles tell of keys, and anybody could slow the hub.
func TestDebugIsLocal(t *testing.T) {
	s := start(t, func(o *Options) { o.LogLevel = new(slog.LevelVar) })
	for name, c := range map[string]struct {
		client *http.Client
		base   string
		local  bool
	}{
		"socket": {s.socketClient(t), "http://muster", true},
		"http":   {&http.Client{}, "http://" + s.address("http"), false},
		"https":  {s.client(t), "https://" + s.address("https"), false},
	} {
		for _, path := range []string{"/debug/log-level", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1", "/debug/pprof/", "//debug/log-level", "/debug/../debug/log-level", "/%64ebug/log-level", "/x/../debug/log-level"} {
			res, err := c.client.Get(c.base + path)
			if err != nil {
				t.Fatal(name, err)
			}
			if err := res.Body.Close(); err != nil {
				t.Error(err)
			}
			if c.local && !strings.ContainsAny(path, ".%") && !strings.HasPrefix(path, "//") && res.StatusCode != http.StatusOK || !c.local && res.StatusCode < 400 {
				t.Errorf("%s%s: %d", name, path, res.StatusCode)
			}
		}
	}
}
