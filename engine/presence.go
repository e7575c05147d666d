package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/muster-hub/muster/storage"
)

// addPresence fills in what the hub knows of an identity's connection: exact
// while it is connected, else what was stored last.
func (h *Hub) addPresence(r storage.Reader, i *Identity) error {
	var err error
	if i.CloudToDeviceMessages, err = h.messagesWaiting(r, i.ID()); err != nil {
		return err
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

// presenceDelay is how long the beginning of a session may wait for the first
// change that the session brings, to be stored with it.
const presenceDelay = 20 * time.Millisecond

// announceSoon has the beginning of the session stored: with its subscriptions,
// which most devices send next, or by itself before anything else that it
// stores, and soon in any case.
func (s *Session) announceSoon() { time.AfterFunc(presenceDelay, s.announce) }

// announce stores that the session began, unless that was done.
func (s *Session) announce() {
	if !s.announced.Load() && s.announced.CompareAndSwap(false, true) {
		s.submitBegin()
	}
}

// submitBegin stores that the session began, for itself.
func (s *Session) submitBegin() {
	s.hub.submitPresence(func(tx *storage.Tx) error { return s.beginTx(tx, true) })
}

// sessionPatience is how long what a session stores waits for other sessions, so
// that a fleet that comes back or goes costs few syncs. A device waits so much
// longer for its SUBACK, a small part of what connecting took.
const sessionPatience = 5 * time.Millisecond

// submitPresence stores a change of somebody's presence. Nobody waits for it:
// presence is exact in memory, and no device is told that it was stored.
func (h *Hub) submitPresence(f func(tx *storage.Tx) error) {
	err := h.db.Submit(func(tx *storage.Tx) error {
		tx.MayWait(sessionPatience)
		return f(tx)
	})
	if err != nil {
		h.count.presenceLost.Add(1)
	}
}

// beginTx stores that the session began. keep is false when its subscriptions are
// stored, too.
func (s *Session) beginTx(tx *storage.Tx, keep bool) error {
	h := s.hub
	before, live, err := h.presenceTx(tx, s.id)
	if err != nil || live != s {
		return err // overtaken by what happened next, which is stored for itself
	}
	if known, err := s.isIdentityTx(tx); !known {
		return err
	}
	// The end of the session before this one was overtaken, or a hub that was
	// killed could not store it. Who follows the changes sees one end for each begin.
	if err := h.leftTx(tx, s.id, before, "a newer connection took over"); err != nil {
		return err
	}
	if keep {
		if err := s.keepTx(tx); err != nil {
			return err
		}
	}
	p := s.presence(s.since)
	p.Run = h.about.run()
	return errors.Join(
		presenceTable.Put(tx, s.id.key(), p),
		appendChange(tx, Caller{Principal: s.connection.Grant.Principal}, changeConnected, s.id, 0, nil),
	)
}

// recordEnd stores why a session ended.
func (h *Hub) recordEnd(s *Session, cause *Error) {
	now := time.Now().UTC()
	h.submitPresence(func(tx *storage.Tx) error {
		_, live, err := h.presenceTx(tx, s.id)
		if err != nil || live != nil {
			return err // overtaken
		}
		if known, err := s.isIdentityTx(tx); !known {
			return err
		}
		// The session may have been active since the columns were told of its end.
		p := s.presence(now)
		h.queries.activityTx(tx, s.id, p.Activity)
		return errors.Join(
			presenceTable.Put(tx, s.id.key(), p),
			appendLeft(tx, Caller{Principal: s.connection.Grant.Principal}, s.id, cause.Message),
		)
	})
}

// keepTx stores a session that is not clean and has not subscribed yet: MQTT
// keeps the session itself, not only what it subscribed to.
func (s *Session) keepTx(tx *storage.Tx) error {
	if s.connection.Clean || s.resumed {
		return nil
	}
	_, err := subscriptionTable.Get(tx, s.id.key())
	if errors.Is(err, storage.ErrNotFound) {
		return subscriptionTable.Put(tx, s.id.key(), NoSubscriptions())
	}
	return err
}

// run names this run of the hub.
func (a *about) run() string { return strconv.FormatInt(a.started.UnixNano(), 36) }

func (s *Session) presence(updated time.Time) presenceRecord {
	return presenceRecord{Updated: updated, Activity: time.Unix(0, s.activity.Load()).UTC()}
}

// appendLeft tells that a session ended, and why.
func appendLeft(tx *storage.Tx, c Caller, id TwinID, reason string) error {
	data, err := json.Marshal(struct {
		Reason string `json:"reason"`
	}{clip(reason)})
	return errors.Join(err, appendChange(tx, c, changeDisconnected, id, 0, data))
}

// leftTx tells the end of a stored session that has not been told: because of
// reason, or because its hub did not live to tell it.
func (h *Hub) leftTx(tx *storage.Tx, id TwinID, p presenceRecord, reason string) error {
	if p.Run == "" {
		return nil
	}
	if p.Run == h.about.run() {
		return appendLeft(tx, Caller{}, id, reason)
	}
	return errors.Join(appendLeft(tx, hubCaller("restart"), id, "the hub was restarted"), formerConnectionTx(tx, id, p))
}

// leaveTx is leftTx of an identity that goes; the caller deletes its presence.
func (h *Hub) leaveTx(tx *storage.Tx, id TwinID, reason string) error {
	p, _, err := h.presenceTx(tx, id)
	if err != nil {
		return err
	}
	return h.leftTx(tx, id, p, reason)
}

// presenceTx returns the identity's stored presence, zero when there is none,
// and its session at the commit: reading the stored presence lets the
// committer prepare a transaction again when another one of the identity came
// first, so that the last one stored is the truth.
func (h *Hub) presenceTx(tx *storage.Tx, id TwinID) (presenceRecord, *Session, error) {
	p, err := presenceTable.Get(tx, id.key())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return p, nil, err
	}
	return p, h.sessions.get(id), nil
}

// Bounds of endFormerSessions.
const (
	formerScan  = 10_000 // identities looked up at a time
	formerBatch = 128    // in a transaction
)

// endFormerSessions tells the end of the sessions of earlier runs: a hub that
// was killed, or restored from a backup, did not tell it. A device that is
// back before its turn has told it with its new session.
func (h *Hub) endFormerSessions(ctx context.Context) error {
	run := h.about.run()
	for {
		var former []TwinID
		err := h.view(ctx, "read presence", func(r storage.Reader) error {
			former = nil
			for item, err := range presenceTable.Lookup(r, "live", storage.Range{}) {
				if err != nil {
					return err
				}
				id, err := (TwinID{}).fromKey(item.Key)
				if err != nil {
					return err
				}
				if item.Value.Run == run {
					continue
				}
				if former = append(former, id); len(former) == formerScan {
					break
				}
			}
			return nil
		})
		if err != nil || len(former) == 0 {
			return err
		}
		for batch := range slices.Chunk(former, formerBatch) {
			err := h.update(ctx, "end former sessions", func(tx *storage.Tx) error {
				for _, id := range batch {
					p, _, err := h.presenceTx(tx, id)
					if err != nil {
						return err
					}
					if p.Run == "" || p.Run == run {
						continue // told meanwhile
					}
					if err := h.leftTx(tx, id, p, ""); err != nil {
						return err
					}
					p.Updated, p.Run = tx.Now().UTC(), ""
					if err := presenceTable.Put(tx, id.key(), p); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
}

// isIdentityTx reports whether the identity exists: for one that was deleted
// meanwhile there is nothing to remember.
func isIdentityTx(tx *storage.Tx, id TwinID) (bool, error) {
	if id.ModuleID != "" {
		return moduleCredentials.Has(tx, id.key())
	}
	return deviceCredentials.Has(tx, deviceKey(id.DeviceID))
}

// isIdentityTx is that for the session's own, which it seldom has to look up.
func (s *Session) isIdentityTx(tx *storage.Tx) (bool, error) {
	if sameCredentials(tx, s.id, s.connection.Grant.seen) {
		return true, nil
	}
	return isIdentityTx(tx, s.id)
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
	before, live, err := h.presenceTx(tx, s.id)
	if err != nil || live != s {
		return err
	}
	if known, err := s.isIdentityTx(tx); !known {
		return err
	}
	p := s.presence(s.since)
	p.Run = before.Run
	return presenceTable.Put(tx, s.id.key(), p)
}
