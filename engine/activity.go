package engine

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// maxActivities bounds the identities whose last request waits to be stored.
// One more is not noted: its stored time stays a minute older than it could be.
const maxActivities = 1 << 16

// activityLog remembers when identities without a session were last active,
// as the HTTPS device API sees them, until flushPresence has stored it. A
// commit for every request would cost more than the request.
type activityLog struct {
	mu    sync.Mutex
	times map[TwinID]time.Time
}

// note remembers that an identity is active now.
func (l *activityLog) note(id TwinID) {
	now := time.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.times[id]; !known && len(l.times) >= maxActivities {
		return
	}
	if l.times == nil {
		l.times = map[TwinID]time.Time{}
	}
	l.times[id] = now
}

// latest returns the later of a stored time and the noted one.
func (l *activityLog) latest(id TwinID, stored time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.times[id]; t.After(stored) {
		return t
	}
	return stored
}

func (l *activityLog) snapshot() map[TwinID]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.times)
}

// forget drops what was stored, unless it has become newer.
func (l *activityLog) forget(stored map[TwinID]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, t := range stored {
		if l.times[id].Equal(t) {
			delete(l.times, id)
		}
	}
}

// flushActivity stores what was noted, in batches.
func (h *Hub) flushActivity(ctx context.Context) error {
	batch := map[TwinID]time.Time{}
	var errs []error
	flush := func() {
		if len(batch) == 0 {
			return
		}
		err := h.update(ctx, "store activity", func(tx *storage.Tx) error {
			for id, t := range batch {
				if err := h.storeSessionlessTx(tx, id, t); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			h.sessions.activity.forget(batch)
		}
		errs = append(errs, err)
		clear(batch)
	}
	for id, t := range h.sessions.activity.snapshot() {
		if batch[id] = t; len(batch) == presenceBatch {
			flush()
		}
	}
	flush()
	return errors.Join(errs...)
}

// storeSessionlessTx stores a time of activity, unless a session, which stores
// its own, or a deletion came in between.
func (h *Hub) storeSessionlessTx(tx *storage.Tx, id TwinID, t time.Time) error {
	p, live, err := h.presenceTx(tx, id)
	if err != nil || live != nil {
		return err
	}
	if known, err := isIdentityTx(tx, id); !known {
		return err
	}
	if !t.After(p.Activity) {
		return nil
	}
	p.Activity = t
	h.queries.activityTx(tx, id, t)
	return presenceTable.Put(tx, id.key(), p)
}
