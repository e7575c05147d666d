package engine

import (
	"context"
	"errors"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Working returns nil while calls on the hub come to an end, and CodeUnavailable when changes or
// messages have waited for longer than longest while not one was answered. It takes the locks that
// every call takes and reads one record, so that it blocks when those are stuck: call it from a
// goroutine whose silence somebody notices. It writes nothing, so it costs an idle hub no sync. A
// hub that refuses changes for a reason (Ready) works.
func (h *Hub) Working(ctx context.Context, longest time.Duration) error {
	h.sessions.len()
	if waited := h.db.Stalled(); waited > longest {
		return errf(CodeUnavailable, "changes have waited for %s and none is answered; expected less than %s: look at the disk, then restart the hub", waited.Round(time.Millisecond), longest)
	}
	return h.view(ctx, "read a record", func(r storage.Reader) error {
		_, err := storage.Counter(r, counterDevices)
		return err
	})
}

// Stalled is how long changes or messages have waited while none was answered.
func (h *Hub) Stalled() time.Duration { return h.db.Stalled() }

// StoreTroubles are the reasons that StoreTrouble gives.
func StoreTroubles() []string { return []string{"read_only", "damaged", "clock", "space", "other"} }

// StoreTrouble names why the store does not do everything it should; "" when it
// does, or is about to close.
func (h *Hub) StoreTrouble() string { return storeTrouble(h.db.Health()) }

func storeTrouble(err error) string {
	switch {
	case err == nil, errors.Is(err, storage.ErrClosed):
		return ""
	case errors.Is(err, storage.ErrReadOnly):
		return "read_only"
	case errors.Is(err, storage.ErrCorrupt):
		return "damaged"
	case errors.Is(err, storage.ErrClock):
		return "clock"
	case errors.Is(err, storage.ErrReserve):
		return "space"
	}
	return "other"
}
