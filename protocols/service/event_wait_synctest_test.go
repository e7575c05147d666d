package service

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
)

// askPage sends a request for a page and returns what waits for its answer.
func askPage(t *testing.T, conn net.Conn, authorization, query string) func() (int, string) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "GET /api/v1/events?%s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", query, authorization); err != nil {
		t.Fatal(err)
	}
	return func() (int, string) {
		t.Helper()
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body := new(strings.Builder)
		if _, err := bufio.NewReader(r.Body).WriteTo(body); err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, body.String()
	}
}

func TestPagesWait(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		begun := time.Now()
		status, body := askPage(t, conn, authorization, "kind=telemetry&wait=60")()
		if took := time.Since(begun); status != 200 || !strings.Contains(body, `"events":[]`) || took != time.Minute {
			t.Errorf("with nothing to tell: %d %s after %s", status, body, took)
		}
		answer := askPage(t, conn, authorization, "kind=telemetry&device=a&wait=60&limit=2")
		time.Sleep(20 * time.Second)
		if err := hub.SendTelemetry(t.Context(), engine.Grant{ID: engine.TwinID{DeviceID: "b"}}, []engine.Message{{Body: []byte(`"not asked for"`)}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := hub.SendTelemetry(t.Context(), engine.Grant{ID: engine.TwinID{DeviceID: "a"}}, []engine.Message{{Body: []byte("1")}, {Body: []byte("2")}, {Body: []byte("3")}}); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		status, body = answer()
		if took := time.Since(begun); status != 200 || !strings.Contains(body, `"body":1`) || took > time.Second {
			t.Errorf("with an event: %d %s after %s", status, body, took)
		}
		_, rest := cutLast(body, `],"cursor":"`)
		status, body = askPage(t, conn, authorization, "kind=telemetry&device=a&wait=5&cursor="+strings.TrimSuffix(rest, `"}`))()
		if status != 200 || !strings.Contains(body, `"body":3`) || strings.Contains(body, `"body":1`) {
			t.Errorf("behind the limit: %d %s", status, body)
		}
	})
}

func cutLast(s, sep string) (before, after string) {
	i := strings.LastIndex(s, sep)
	return s[:i], s[i+len(sep):]
}

// TestWaitingPagesAreBounded: who waits for a page holds as much as a stream,
// and all of them together are bounded as those are.
func TestWaitingPagesAreBounded(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		most := hub.Limits().EventStreamsEach
		answers := make([]func() (int, string), most)
		for i := range answers {
			conn := dial()
			defer conn.Close()
			answers[i] = askPage(t, conn, authorization, "kind=telemetry&wait=60")
		}
		synctest.Wait()
		if n := hub.FeedStats().Subscriptions; n != int64(most) {
			t.Fatalf("%d wait, want %d", n, most)
		}
		conn := dial()
		defer conn.Close()
		if status, body := askPage(t, conn, authorization, "kind=telemetry&wait=60")(); status != http.StatusTooManyRequests || !strings.Contains(body, "the most of one principal") {
			t.Errorf("one more: %d %s", status, body)
		}
		if status, body := askPage(t, conn, authorization, "kind=telemetry")(); status != 200 {
			t.Errorf("one that does not wait: %d %s", status, body)
		}
		send(t, hub, `"for all"`)
		for i, answer := range answers {
			if status, body := answer(); status != 200 || !strings.Contains(body, "for all") {
				t.Fatalf("answer %d: %d %s", i, status, body)
			}
		}
		if n := hub.FeedStats().Subscriptions; n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// TestWaitingPageEndsWithTheHub: it holds up no shutdown.
func TestWaitingPageEndsWithTheHub(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		answer := askPage(t, conn, authorization, "kind=telemetry&wait=60")
		time.Sleep(time.Second)
		begun := time.Now()
		hub.Drain()
		if status, body := answer(); status != 200 || !strings.Contains(body, `"events":[]`) || time.Since(begun) > 0 {
			t.Errorf("%d %s after %s", status, body, time.Since(begun))
		}
	})
}
