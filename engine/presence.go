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
	if i.ModuleID == "" {
		q, err := deviceboundQueueOf(r, i.DeviceID)
		if err != nil {
			return err
		}
		i.CloudToDeviceMessages = q.Count
	}
	if s := h.sessions.get(i.ID()); s != nil {
		i.Connected, i.ConnectionUpdated = true, s.since
		i.LastActivity = time.Unix(0, s.activity.Load()).UTC()
		return nil
	}
	p, err := presenceTable.Get(r, i.ID().key())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	i.ConnectionUpdated, i.LastActivity = p.Updated, h.sessions.activity.latest(i.ID(), p.Activity)
	return nil
}

// recordPresence stores that a session began or ended. Nobody waits for it:
// presence is exact in memory, and no device is told that it was stored.
func (h *Hub) recordPresence(s *Session, kind string) {
	now := time.Now().UTC()
	err := h.db.Submit(func(tx *storage.Tx) error {
		live, err := h.liveSessionTx(tx, s.id)
		if err != nil {
			return err
		}
		if kind == changeConnected && live != s || kind == changeDisconnected && live != nil {
			return nil // overtaken by what happened next, which is stored for itself
		}
		if known, err := isIdentityTx(tx, s.id); !known {
			return err
		}
		return errors.Join(
			presenceTable.Put(tx, s.id.key(), s.presence(now)),
			appendChange(tx, Caller{Principal: s.connection.Grant.Principal}, kind, s.id, 0, nil),
		)
	})
	if err != nil {
		h.count.presenceLost.Add(1)
	}
}

func (s *Session) presence(updated time.Time) presenceRecord {
	return presenceRecord{Updated: updated, Activity: time.Unix(0, s.activity.Load()).UTC()}
}

// liveSessionTx returns the identity's session at the commit: reading the
// stored presence lets the committer prepare a transaction again when another
// one of the identity came first, so that the last one stored is the truth.
func (h *Hub) liveSessionTx(tx *storage.Tx, id TwinID) (*Session, error) {
	if _, err := presenceTable.Get(tx, id.key()); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	return h.sessions.get(id), nil
}

// isIdentityTx reports whether the identity exists: for one that was deleted
// meanwhile there is nothing to remember.
func isIdentityTx(tx *storage.Tx, id TwinID) (bool, error) {
	_, err := identityTable(id).Get(tx, identityKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// presenceBatch is how many identities one transaction of flushPresence covers.
const presenceBatch = 64

// flushPresence stores the last activity of sessions that were active since
// the last flush, in batches, and that of identities without one.
func (h *Hub) flushPresence(ctx context.Context) error {
	var batch []*Session
	var errs []error
	flush := func() {
		if len(batch) == 0 {
			return
		}
		errs = append(errs, h.update(ctx, "store presence", func(tx *storage.Tx) error {
			for _, s := range batch {
				if err := h.storeActivityTx(tx, s); err != nil {
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
	return errors.Join(append(errs, h.flushActivity(ctx))...)
}

func (h *Hub) storeActivityTx(tx *storage.Tx, s *Session) error {
	live, err := h.liveSessionTx(tx, s.id)
	if err != nil || live != s {
		return err
	}
	if known, err := isIdentityTx(tx, s.id); !known {
		return err
	}
	return presenceTable.Put(tx, s.id.key(), s.presence(s.since))
}
