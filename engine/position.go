package engine

import "context"

// Position says how far a hub's stores have come at one moment: everything
// that was acknowledged before it was read lies at or before it, and everything
// that is sent afterwards lies behind it. Within an epoch neither Sequence nor
// NewestMessage goes back, also not across kill -9.
type Position struct {
	Epoch         string
	EpochNumber   uint32 // from 1 on; a restore makes the next one
	Sequence      uint64 // newest commit: what a backup names
	OldestMessage uint64 // of the message log; one above NewestMessage when it is empty
	NewestMessage uint64
}

// Position returns how far the stores have come. It needs ServiceConnect.
func (h *Hub) Position(ctx context.Context, c Caller) (Position, error) {
	if err := h.authorize(ctx, c, opEventRead, "*"); err != nil {
		return Position{}, err
	}
	e, m := h.db.Epoch(), h.db.Messages()
	return Position{
		Epoch: e.ID, EpochNumber: e.Ordinal, Sequence: h.db.Sequence(), OldestMessage: m.First(), NewestMessage: m.Last(),
	}, nil
}
