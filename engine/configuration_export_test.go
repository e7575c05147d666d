package engine

import (
	"context"
	"math"
	"time"

	"github.com/muster-hub/muster/storage"
)

// TrimChanges cuts the change log, whoever has not followed it.
func (h *Hub) TrimChanges(ctx context.Context) error {
	_, err := changeLog.Trim(ctx, h.db, storage.TrimPolicy{Before: time.Now().Add(time.Hour), Keep: math.MaxUint64})
	return err
}
