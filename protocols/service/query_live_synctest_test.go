package service

import (
	"bufio"
	"encoding/json"
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

// liveArrival is an event of a live query, and when it came.
type liveArrival struct {
	liveDocument
	at time.Time
}

// followInBubble reads a live query until the connection ends.
func followInBubble(t *testing.T, conn net.Conn, authorization string, events chan<- liveArrival) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "GET /api/v1/query/live?where=tags.n%%20%%3E%%200 HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s\r\n", authorization, asEventSource); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(events)
		for s := bufio.NewScanner(conn); s.Scan(); {
			text, ok := strings.CutPrefix(s.Text(), "data: ")
			if !ok {
				continue
			}
			var d liveDocument
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			if d.Kind != "" { // else it says why the stream ends
				events <- liveArrival{d, time.Now()}
			}
		}
	}()
}

// TestLiveQueryPace: after a rest an event comes at once. Of what changes all the
// time events come in few writes, none later than 250 ms, each once and in order,
// also beside a reader who takes nothing; and those that have gathered come when the
// hub shuts down.
func TestLiveQueryPace(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		enginetest.Connect(t, hub, engine.TwinID{DeviceID: "d"}).Session.Close(nil)
		n := 0
		change := func() {
			n++
			if _, err := hub.PatchTwin(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: "d"}, engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, n)}, engine.IfMatch{}); err != nil {
				t.Fatal(err)
			}
		}
		change()
		const streams, most = 120, 250 * time.Millisecond
		var conns []net.Conn
		var readers []chan liveArrival
		for range streams {
			conn, events := dial(), make(chan liveArrival, 4096)
			followInBubble(t, conn, authorization, events)
			conns, readers = append(conns, conn), append(readers, events)
		}
		silent := dial()
		defer silent.Close()
		if _, err := fmt.Fprintf(silent, "GET /api/v1/query/live?where=tags.n%%20%%3E%%200 HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s\r\n", authorization, asEventSource); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(silent, make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, events := range readers {
			for _, kind := range []string{"row", "current"} {
				if e := <-events; e.Kind != kind {
					t.Fatalf("%s instead of %s", e.Kind, kind)
				}
			}
		}

		time.Sleep(5 * time.Second)
		begun := time.Now()
		change()
		synctest.Wait()
		for _, events := range readers {
			select {
			case e := <-events:
				if !e.at.Equal(begun) {
					t.Errorf("a lone event came after %s", e.at.Sub(begun))
				}
			default:
				t.Fatal("a lone event did not come at once")
			}
		}

		first := n + 1
		for range 400 {
			change()
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(most)
		synctest.Wait()
		for _, events := range readers {
			arrivals, next := map[time.Time]bool{}, first
			for range len(events) {
				e := <-events
				var row struct{ Tags struct{ N int } }
				if err := json.Unmarshal(e.Row, &row); err != nil || e.Kind != "change" || row.Tags.N != next {
					t.Fatalf("%s of %s (%v), want %d", e.Kind, e.Row, err, next)
				}
				next++
				arrivals[e.at] = true
				if late := e.at.Sub(e.Time); late > most {
					t.Fatalf("an event came after %s", late)
				}
			}
			if next != n+1 {
				t.Fatalf("%d of %d events came", next-first, n+1-first)
			}
			if len(arrivals) > 15 { // 2 s
				t.Fatalf("events of 2 s came in %d writes", len(arrivals))
			}
		}

		change() // at once
		change() // this one gathers
		hub.Drain()
		synctest.Wait()
		for i, events := range readers {
			var last liveArrival
			for e := range events {
				last = e
			}
			if !strings.Contains(string(last.Row), fmt.Sprintf(`"n":%d`, n)) {
				t.Fatalf("the last event of a stream of a hub that shuts down is %s of %s, want %d", last.Kind, last.Row, n)
			}
			conns[i].Close()
		}
	})
}
