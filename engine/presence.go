package engine

import (
	"context"
	"errors"
	"time"

	"github.com/muster-hub/muster/storage"
)

// addPresence fills in what the hub knows of an identity's connection: exact
// while it is connected, else what was stored last.
func (h *Hub) addPresence(r storage.Reader, i *Identity) error {
	if s := h.sessions.get(i.ID()); s != nil {
		i.Connected, i.ConnectionUpdated = true, s.since
		i.LastActivity = time.Unix(0, s.activity.Load()).UTC()
		return nil
	}
	p, err := presenceTable.Get(r, i.ID().key())
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	i.ConnectionUpdated, i.LastActivity = p.Updated, p.Activity
	return err
}

// recordPresence stores that a session began or ended. Nobody waits for it:
// presence is exact in memory, and no device is told that it was stored.
func (h *Hub) recordPresence(s *Session, kind string) {
	p := presenceRecord{Updated: time.Now().UTC(), Activity: time.Unix(0, s.activity.Load()).UTC()}
	err := h.db.Submit(func(tx *storage.Tx) error {
		if _, err := loadIdentity(tx, s.id); err != nil {
			if e, ok := errors.AsType[*Error](err); ok && e.Code != CodeInternal {
				return nil // deleted meanwhile: nothing to remember
			}
			return err
		}
		return errors.Join(
			presenceTable.Put(tx, s.id.key(), p),
			appendChange(tx, Caller{Principal: s.connection.Grant.Principal}, kind, s.id, 0, nil),
		)
	})
	if err != nil {
		h.count.presenceLost.Add(1)
	}
}

// presenceBatch is how many identities one transaction of flushPresence covers.
const presenceBatch = 256

// flushPresence stores the last activity of sessions that were active since
// the last flush, in batches.
func (h *Hub) flushPresence(ctx context.Context) error {
	var batch []*Session
	var errs []error
	flush := func() {
		if len(batch) == 0 {
			return
		}
		errs = append(errs, h.update(ctx, "store presence", func(tx *storage.Tx) error {
			for _, s := range batch {
				if _, err := loadIdentity(tx, s.id); err != nil {
					if e, ok := errors.AsType[*Error](err); ok && e.Code != CodeInternal {
						continue
					}
					return err
				}
				if err := presenceTable.Put(tx, s.id.key(), presenceRecord{Updated: s.since, Activity: time.Unix(0, s.activity.Load()).UTC()}); err != nil {
					return err
				}
			}
			return nil
		}))
		batch = batch[:0]
	}
	h.sessions.each(func(s *Session) {
		now := s.activity.Load()
		if now == s.flushed {
			return
		}
		s.flushed = now
		if batch = append(batch, s); len(batch) == presenceBatch {
			flush()
		}
	})
	flush()
	return errors.Join(errs...)
}
