package device

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTPPace holds a device that posts more than a session may to the same
// rate, tells it so when it goes on, and lets others pass.
func TestHTTPPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := NewHTTPHandler(&webHub{byteRate: 100 << 10}, slog.New(slog.NewTextHandler(&log, nil)))
		post := func(identity string, size int) (status int, took time.Duration) {
			t.Helper()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/devices/"+identity+"/messages/events?api-version=2021-04-12", strings.NewReader(strings.Repeat("x", size)))
			r.Header.Set("Authorization", "token")
			w := httptest.NewRecorder()
			began := time.Now()
			h.ServeHTTP(w, r)
			if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			return w.Code, time.Since(began)
		}
		var all time.Duration
		for range 50 {
			status, took := post("d", 10<<10)
			if status != http.StatusNoContent {
				t.Fatalf("status %d", status)
			}
			all += took
		}
		// Ten at once, forty at ten a second; what is owed is paid by the next.
		if all < 3*time.Second || all > 4*time.Second {
			t.Errorf("500 KB at 100 KB/s took %s", all)
		}
		if n := strings.Count(log.String(), pacedText); n != 1 || h.Paced() == 0 {
			t.Errorf("told %d times, want once, of %d requests: %s", n, h.Paced(), &log)
		}
		time.Sleep(time.Minute)
		if status, took := post("d", 250<<10); status != http.StatusNoContent || took > 0 {
			t.Errorf("after a rest: status %d after %s", status, took)
		}
		if status, took := post("d/modules/m", 10<<10); status != http.StatusNoContent || took > 0 {
			t.Errorf("another identity: status %d after %s", status, took)
		}
		if status, _ := post("d", 250<<10); status != http.StatusNoContent { // 1.5 s are owed
			t.Errorf("status %d while less is owed than a request waits for", status)
		}
		if status, took := post("d", 1); status != http.StatusTooManyRequests || took != httpPatience {
			t.Errorf("status %d after %s, want 429 after %s", status, took, httpPatience)
		}
	})
}
