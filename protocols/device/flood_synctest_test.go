package device

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// TestThrottleBytes slows a session whose packets are few and large.
func TestThrottleBytes(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.limits.DeviceByteRate = 100 << 10
		h.limits = hub.limits
		c := dialFake(t, h, nil)
		began := time.Now()
		body := string(bytes.Repeat([]byte("x"), 10<<10))
		go func() {
			for range 50 {
				c.publish("devices/d1/messages/events/", body, 1)
			}
		}()
		for range 50 {
			c.want(wire.TypePuback)
		}
		// Ten at once, forty at ten a second.
		if d := time.Since(began); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("500 KB at 100 KB/s took %s", d)
		}
		if n := h.Stats().Paced; n == 0 {
			t.Error("nobody was told")
		}
	})
}

// TestFloodAtQoS0 pours messages that nobody acknowledges into a store that
// is slow: the session stops reading before its share of the store's queue
// is large, and goes on when the store has caught up.
func TestFloodAtQoS0(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		hub.limits.DeviceByteRate, hub.limits.DeviceMessageRate = 0, 0
		h.limits = hub.limits
		var mu sync.Mutex
		var waiting []func(error)
		size, most := 0, 0
		hub.session.onSubmit = func(m engine.Message, done func(error)) error {
			mu.Lock()
			defer mu.Unlock()
			waiting = append(waiting, done)
			size += len(m.Body)
			most = max(most, size)
			return nil
		}
		c := dialFake(t, h, nil)
		body := string(bytes.Repeat([]byte("x"), 64<<10))
		const sent = 100 // 6.4 MB
		written := make(chan struct{})
		go func() {
			defer close(written)
			for range sent {
				c.publish("devices/d1/messages/events/", body, 0)
			}
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Error("all of it was read while the store answered nothing")
		default:
		}
		answered := 0
		for range 100 {
			synctest.Wait()
			mu.Lock()
			list := waiting
			waiting, size = nil, 0
			mu.Unlock()
			for _, done := range list {
				if done == nil {
					t.Fatal("nobody wants to know when the message is stored")
				}
				done(nil)
			}
			answered += len(list)
		}
		<-written
		if most > maxLoose+len(body) || answered != sent {
			t.Errorf("up to %d bytes were waiting, %d allowed; %d of %d messages came", most, maxLoose, answered, sent)
		}
		// It lives, and at QoS 1 the answer covers what came before.
		c.publish("devices/d1/messages/events/", "x", 0)
		c.publish("devices/d1/messages/events/", "y", 1)
		synctest.Wait()
		mu.Lock()
		list := waiting
		mu.Unlock()
		for _, done := range list {
			done(nil)
		}
		c.want(wire.TypePuback)
	})
}
