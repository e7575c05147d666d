package engine_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// TestManyExpiredMessagesGoSoon: devices that never came for their messages
// must not find, or leave, their queues full of what has long expired.
func TestManyExpiredMessagesGoSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := enginetest.New(t)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		const devices = 40
		full := h.Limits().MessagesWaiting
		for i := range devices {
			id := fmt.Sprint("d", i)
			create(t, h, id)
			for range full {
				if _, err := h.SendMessage(t.Context(), enginetest.Owner(), id, engine.DeviceboundMessage{Body: []byte("x"), Expires: time.Now().Add(time.Minute)}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := h.SendMessage(t.Context(), enginetest.Owner(), id, engine.DeviceboundMessage{}); engine.AsError(err).Code != engine.CodeQueueFull {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute + 10*time.Second)
		for i := range devices {
			if _, n, err := h.Messages(t.Context(), enginetest.Owner(), fmt.Sprint("d", i), 0, 1); err != nil || n != 0 {
				t.Errorf("device %d still has %d expired messages, %v", i, n, err)
			}
		}
	})
}
