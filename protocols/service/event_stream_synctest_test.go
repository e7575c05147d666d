package service

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// openInBubble begins a stream on a connection of which every byte waits for
// its reader, and reads its head.
func openInBubble(t *testing.T, conn net.Conn, authorization, more string) *bufio.Reader {
	t.Helper()
	_, err := fmt.Fprintf(conn, "GET /api/v1/events?kind=telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s\r\n", authorization, more)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReaderSize(conn, 16)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return r
		}
	}
}

func block(t *testing.T, r *bufio.Reader) (string, error) {
	t.Helper()
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\n" {
			return b.String(), err
		}
	}
}

func send(t *testing.T, hub *engine.Hub, body string) {
	t.Helper()
	if err := hub.SendTelemetry(t.Context(), engine.Grant{ID: engine.TwinID{DeviceID: "a"}}, []engine.Message{{Body: []byte(body)}}); err != nil {
		t.Fatal(err)
	}
}

const asEventSource = "Accept: text/event-stream\r\n"

func TestEventSourceOverTime(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		r := openInBubble(t, conn, authorization, asEventSource)
		first, err := block(t, r)
		if err != nil || !strings.Contains(first, ": connected") {
			t.Fatalf("%q, %v", first, err)
		}
		begun := time.Now()
		for range 3 { // long after the server's own timeouts
			if text, err := block(t, r); err != nil || !strings.Contains(text, ": alive") {
				t.Fatalf("%q, %v", text, err)
			}
		}
		if took := time.Since(begun); took != 3*streamHeartbeat {
			t.Errorf("three heartbeats took %s", took)
		}
		// A reader that needs long for a write gets it, and is told to come again.
		send(t, hub, `"slow"`)
		time.Sleep(streamSlow + time.Second)
		text, err := block(t, r)
		if err != nil || !strings.Contains(text, `"slow"`) {
			t.Fatalf("%q, %v", text, err)
		}
		cursor := strings.TrimPrefix(strings.Split(text, "\n")[0], "id: ")
		text, err = block(t, r)
		if want := `data: {"code":"slow","reason":"read too slowly","cursor":"` + cursor + `"}`; err != nil || !strings.Contains(text, "event: end\n"+want) {
			t.Fatalf("%q, %v; want %s", text, err, want)
		}
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestEventSourceIsCut(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		r := openInBubble(t, conn, authorization, asEventSource)
		if _, err := block(t, r); err != nil {
			t.Fatal(err)
		}
		send(t, hub, `"never read"`)
		time.Sleep(streamCut + time.Second)
		synctest.Wait()
		if _, err := r.ReadByte(); err == nil {
			t.Error("a client that takes nothing keeps its stream")
		}
		if n := hub.FeedStats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}

// TestEventSourceToken: a stream ends with the token that it was opened with.
func TestEventSourceToken(t *testing.T) {
	serveBubble(t, func(t *testing.T, _ *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		begun := time.Now()
		r := openInBubble(t, conn, authorization, asEventSource)
		for {
			text, err := block(t, r)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text, "event: end") {
				if !strings.Contains(text, `"code":"unauthorized"`) {
					t.Errorf("%q", text)
				}
				break
			}
		}
		if took := time.Since(begun); took < time.Hour || took > time.Hour+2*streamHeartbeat {
			t.Errorf("it ended after %s", took)
		}
	})
}

// TestEventSocketPongs: a WebSocket client that is there but answers no ping
// is cut; one that answers stays.
func TestEventSocketPongs(t *testing.T) {
	for _, answers := range []bool{false, true} {
		serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
			conn := dial()
			defer conn.Close()
			r := openInBubble(t, conn, authorization, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n")
			c := &socketClient{TB: t, conn: conn, r: r}
			c.frame() // where it begins
			for range 3 {
				op, _, payload := c.frame()
				if op != 9 {
					t.Fatalf("frame %d %q, a ping was expected", op, payload)
				}
				if !answers {
					time.Sleep(streamPong + time.Second)
					if _, err := r.ReadByte(); err == nil {
						t.Error("a client that answers no ping keeps its stream")
					}
					synctest.Wait()
					if n := hub.FeedStats().Subscriptions; n != 0 {
						t.Errorf("%d subscriptions are left", n)
					}
					return
				}
				c.send(10, string(payload))
				if op, _, payload := c.frame(); op != 1 || !strings.Contains(string(payload), `"events":[]`) {
					t.Fatalf("frame %d %q, a page without events was expected", op, payload)
				}
			}
		})
	}
}

// TestEventsAreSentAtOnce: a single event does not wait for others.
func TestEventsAreSentAtOnce(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		r := openInBubble(t, conn, authorization, asEventSource)
		if _, err := block(t, r); err != nil {
			t.Fatal(err)
		}
		enginetest.Connect(t, hub, engine.TwinID{DeviceID: "a"})
		time.Sleep(time.Second)
		at := time.Now()
		send(t, hub, `1`)
		if text, err := block(t, r); err != nil || !strings.Contains(text, "telemetry") || time.Since(at) > 0 {
			t.Errorf("after %s: %q, %v", time.Since(at), text, err)
		}
	})
}
