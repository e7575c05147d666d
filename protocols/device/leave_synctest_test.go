package device

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestFewSessionsLeaveAtATime cuts a fleet in one moment: its sessions leave the
// engine a few at a time, and all of them do.
func TestFewSessionsLeaveAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *fakeHub, h *Handler) {
		const fleet = 50
		var now, most, left atomic.Int64
		hub.session.onClose = func() {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond) // of the engine's work
			now.Add(-1)
			left.Add(1)
		}
		var clients []*testClient
		for range fleet {
			clients = append(clients, dialFake(t, h, nil))
		}
		for _, c := range clients {
			_ = c.st.Close()
		}
		time.Sleep(2 * fleet * time.Millisecond)
		synctest.Wait()
		if left.Load() != fleet || most.Load() > int64(cap(h.leaving)) {
			t.Errorf("%d of %d left, %d at a time, want at most %d", left.Load(), fleet, most.Load(), cap(h.leaving))
		}
	})
}
