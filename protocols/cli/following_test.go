package cli

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// What passes by itself is waited for, as long as the hub asks; a hub that
// fails is not absent, and its error ends the command.
func TestFollowingWaits(t *testing.T) {
	for _, row := range []struct {
		err  error
		wait time.Duration
	}{
		{&client.ConnectError{}, 500 * time.Millisecond},
		{&client.Error{Status: 503}, 500 * time.Millisecond},
		{&client.Error{Status: 503, RetryAfter: 7 * time.Second}, 7 * time.Second},
		{&client.Error{Status: 429, RetryAfter: 7 * time.Second}, 7 * time.Second},
		{&client.Error{Status: 500}, 0},
		{&client.Error{Status: 400}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := following{app: &app{ctx: t.Context(), io: IO{Err: io.Discard}}, reached: true}
			begun := time.Now()
			err := f.wait(row.err)
			if took := time.Since(begun); took != row.wait || (err == nil) != (row.wait > 0) {
				t.Errorf("%v: waited %s, %v", row.err, took, err)
			}
		})
	}
}

// The hub's own error ends muster monitor, also when the stream had begun.
func TestMonitorEndsWithTheHubsError(t *testing.T) {
	for name, stream := range map[string]http.HandlerFunc{
		"refused": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `{"code":"ServerError","detail":"read events: stored data is damaged"}`)
		},
		"ended": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: end\ndata: {\"code\":\"error\",\"reason\":\"stored data is damaged\"}\n\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			hub := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get("Accept"), "event-stream") {
					stream(w, r)
					return
				}
				_, _ = io.WriteString(w, `{"events":[],"cursor":"c"}`)
			}))
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			var text strings.Builder
			a := newApp(ctx, IO{In: strings.NewReader(""), Out: io.Discard, Err: &text, Env: func(string) string { return "" }}, Hooks{})
			if code := a.run([]string{"monitor", "--data", hub}); code != ExitFailed || !strings.Contains(text.String(), "stored data is damaged") {
				t.Errorf("exit code %d:\n%s", code, text.String())
			}
		})
	}
}

// Who waits for a queued call waits on when the hub restarts: the call does, too.
func TestQueuedCallOutlivesTheHub(t *testing.T) {
	var asked atomic.Int32
	hub := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadline := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		switch n := asked.Add(1); {
		case r.Method == http.MethodPost:
			w.WriteHeader(202)
			_, _ = io.WriteString(w, `{"id":"c1","deviceId":"d","status":"queued","deadlineTime":"`+deadline+`"}`)
		case n == 2:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(503)
			_, _ = io.WriteString(w, `{"code":"ServerShuttingDown","detail":"the hub is shutting down"}`)
		default:
			_, _ = io.WriteString(w, `{"id":"c1","deviceId":"d","status":"succeeded","deadlineTime":"`+deadline+`","response":{"status":200,"payload":1}}`)
		}
	}))
	var text strings.Builder
	a := newApp(t.Context(), IO{In: strings.NewReader(""), Out: &text, Err: &text, Env: func(string) string { return "" }}, Hooks{})
	code := a.run([]string{"method", "invoke", "--data", hub, "--wait-for-device", "1h", "d", "reboot"})
	if code != ExitOK || asked.Load() != 3 || !strings.Contains(text.String(), "The hub is back.") || !strings.Contains(text.String(), "succeeded") {
		t.Errorf("exit code %d, asked %d times:\n%s", code, asked.Load(), text.String())
	}
}
