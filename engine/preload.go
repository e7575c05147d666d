package engine

import (
	"context"
	"errors"
	"log/slog"
)

// preload reads what connects ask for into the store's cache: after a restart all
// devices come back at once, and would search the store for three records each.
// Hubs of more devices than the cache has room for keep to the first; nothing but
// speed depends on it.
func (h *Hub) preload(ctx context.Context) {
	err := errors.Join(
		deviceTable.Preload(ctx, h.db), // with what deviceCredentials reads of a record
		subscriptionTable.Preload(ctx, h.db),
		presenceTable.Preload(ctx, h.db),
		moduleTable.Preload(ctx, h.db),
	)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("identities could not be read ahead; each is read when its device connects", slog.Any("error", err))
	}
}
