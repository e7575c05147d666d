package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/storage"
)

// What followers of the change log have in common: configurations, and runs of
// patterns. Each has a cursor of its own, which moves in the transaction of what
// came of the entries; it is stored now and then when nothing came of them.
const (
	followStore = 10 * time.Second // how often the cursor is stored when nothing came of what was read
	followRetry = 2 * time.Second  // after an error of the store
)

// keepFollowing calls follow again and again until ctx ends, with a pause after an
// error, and then store, which stores how far it has come. who follows is for the
// log.
func (h *Hub) keepFollowing(ctx context.Context, who string, follow, store func(context.Context) error) {
	var told time.Time
	for ctx.Err() == nil {
		err := follow(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if time.Since(told) >= toldEvery {
			told = time.Now()
			h.log.Warn("changes can't be followed; it will be tried again", slog.String("by", who), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(followRetry):
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), followRetry)
	defer cancel()
	if err := store(last); err != nil {
		h.log.Warn("how far changes were followed can't be stored; it is found again", slog.String("by", who), slog.Any("error", err))
	}
}

// awaitChange waits until the change log has an entry behind a position, or wait
// ends, which is ctx or ends with it. A hub that drains has no more of them.
func (h *Hub) awaitChange(ctx, wait context.Context, at uint64) error {
	err := changeLog.Wait(wait, h.db, at)
	if wait.Err() != nil || errors.Is(err, storage.ErrClosed) {
		err = nil
		if h.draining.Load() {
			<-ctx.Done()
		}
	}
	return err
}
