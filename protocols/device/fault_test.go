package device

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// TestFaultDrop loses what the dice say: no PUBACK, nothing taken; what comes
// next is served. Pings are never lost.
func TestFaultDrop(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.fault = engine.Fault{Drop: 0.5}
		dice := []float64{0.4, 0.6, 0.49, 0.5}
		h.chance = func() float64 {
			v := dice[0]
			dice = dice[1:]
			return v
		}
		c := dialFake(t, h, nil)
		for id := range uint16(4) {
			c.write(wire.AppendPublish(nil, wire.Message{Topic: "devices/d1/messages/events/", Payload: []byte("x"), QoS: 1, ID: id + 1}))
		}
		for _, want := range []uint16{2, 4} {
			if p := c.want(wire.TypePuback); p.ID != want {
				t.Errorf("PUBACK of %d, want %d", p.ID, want)
			}
		}
		c.ping()
		if n := hub.lost.Load(); n != 2 {
			t.Errorf("%d lost messages were counted, want 2", n)
		}
	})
}

// TestFaultDropDown loses requests to the device, and says to the hub that
// they were sent, as a network does.
func TestFaultDropDown(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.fault = engine.Fault{Drop: 1}
		h.chance = func() float64 { return 0.99 }
		c := dialFake(t, h, nil)
		if err := hub.session.connection.Outbox.Method("1", "open", nil); err != nil {
			t.Errorf("the hub was told: %v", err)
		}
		c.ping() // the next packet is the PINGRESP
		if n := hub.lost.Load(); n != 1 {
			t.Errorf("%d lost messages were counted, want 1", n)
		}
	})
}

// TestFaultDelay holds back what the device sends.
func TestFaultDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.fault = engine.Fault{Delay: 2 * time.Second}
		c := dialFake(t, h, nil)
		began := time.Now()
		c.write(wire.AppendPublish(nil, wire.Message{Topic: "devices/d1/messages/events/", QoS: 1, ID: 9}))
		c.want(wire.TypePuback)
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("the PUBACK came after %s, want 2s", d)
		}
	})
}

// TestFaultOverHTTPS loses requests without an answer and before anything is
// done, and holds back those that it does not lose.
func TestFaultOverHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := &webHub{fault: engine.Fault{Drop: 0.5, Delay: 20 * time.Second}}
		h := NewHTTPHandler(hub, nil)
		dice := []float64{0.4, 0.6}
		h.chance = func() float64 {
			v := dice[0]
			dice = dice[1:]
			return v
		}
		post := func() (status int, lost bool, took time.Duration) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/devices/d/messages/events?api-version=2021-04-12", strings.NewReader("x"))
			r.Header.Set("Authorization", "token")
			w, began := httptest.NewRecorder(), time.Now()
			defer func() { lost, took = recover() == http.ErrAbortHandler, time.Since(began) }() //nolint:errorlint // the value itself is the signal
			h.ServeHTTP(w, r)
			return w.Code, false, 0
		}
		if _, lost, took := post(); !lost || took != 20*time.Second || len(hub.sent) != 0 || hub.lost != 1 {
			t.Errorf("lost %t after %s, %d sent, %d counted", lost, took, len(hub.sent), hub.lost)
		}
		if status, lost, took := post(); lost || status != http.StatusNoContent || took != 20*time.Second || len(hub.sent) != 1 || hub.lost != 1 {
			t.Errorf("status %d, lost %t after %s, %d sent, %d counted", status, lost, took, len(hub.sent), hub.lost)
		}
	})
}
