package device

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// TestTelemetryIsAcknowledgedWhenItIsDurable sends several messages in one
// write to a store that answers later: no PUBACK comes before, all of them
// come then, in order, and an answer to what was sent behind them after them.
func TestTelemetryIsAcknowledgedWhenItIsDurable(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		waiting := make(chan func(error), 10)
		hub.session.onSubmit = func(_ engine.Message, done func(error)) error {
			if done != nil {
				waiting <- done
			}
			return nil
		}
		c := dialFake(t, h, nil)
		sent := time.Now()
		var b []byte
		for id := uint16(1); id <= 3; id++ {
			var err error
			if b, err = wire.AppendPublish(b, wire.Message{Topic: "devices/d1/messages/events/", QoS: 1, ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		c.write(wire.AppendPingreq(b), nil)
		go func() {
			for range 3 {
				done := <-waiting
				time.Sleep(time.Second)
				done(nil)
			}
		}()
		for id := uint16(1); id <= 3; id++ {
			if p := c.want(wire.TypePuback); p.ID != id || time.Since(sent) < 3*time.Second {
				t.Errorf("PUBACK %d after %s, want %d after 3s", p.ID, time.Since(sent), id)
			}
		}
		c.want(wire.TypePingresp)
	})
}

// TestTelemetryThatIsNotStored ends the connection without a PUBACK, whether
// the store refuses it at once or fails later; a full queue is waited for.
func TestTelemetryThatIsNotStored(t *testing.T) {
	broken := &engine.Error{Code: engine.CodeReadOnly, Message: "the store takes no writes"}
	for name, submit := range map[string]func(engine.Message, func(error)) error{
		"refused": func(engine.Message, func(error)) error { return broken },
		"failed":  func(_ engine.Message, done func(error)) error { done(broken); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
				hub.session.onSubmit = submit
				c := dialFake(t, h, nil)
				c.write(wire.AppendPublish(nil, wire.Message{Topic: "devices/d1/messages/events/", QoS: 1, ID: 1}))
				c.wantEnd()
				synctest.Wait()
				if n := h.Stats().Disconnects["unavailable"]; n != 1 {
					t.Errorf("%v", h.Stats().Disconnects)
				}
			})
		})
	}
	t.Run("busy", func(t *testing.T) {
		inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
			attempts := 0
			hub.session.onSubmit = func(_ engine.Message, done func(error)) error {
				if attempts++; attempts < 5 {
					return &engine.Error{Code: engine.CodeThrottled, Message: "the store's queue is full"}
				}
				done(nil)
				return nil
			}
			c := dialFake(t, h, nil)
			c.write(wire.AppendPublish(nil, wire.Message{Topic: "devices/d1/messages/events/", QoS: 1, ID: 1}))
			c.want(wire.TypePuback)
		})
	})
}

func TestTallyKeepsTheFirstError(t *testing.T) {
	var tally tally
	first := errors.New("first")
	for range 3 {
		go tally.note(nil)
	}
	if err := tally.wait(3); err != nil {
		t.Error(err)
	}
	tally.note(first)
	tally.note(errors.New("second"))
	if err := tally.wait(2); !errors.Is(err, first) {
		t.Error(err)
	}
}
