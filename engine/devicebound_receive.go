package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/muster-hub/muster/storage"
)

// ReceiveMessage hands out the oldest message that nobody has, for the time
// given (0: 60 s; 5 to 300 s), to a device that asks over HTTPS. It reports
// whether there was one; its LockToken completes, abandons or rejects it.
func (h *Hub) ReceiveMessage(ctx context.Context, g Grant, lock time.Duration) (m QueuedMessage, found bool, err error) {
	if lock == 0 {
		lock = deviceboundLock
	}
	if lock < deviceboundLockLeast || lock > deviceboundLockMost {
		return m, false, errf(CodeArgumentInvalid, "the lock timeout is %s s, allowed are %s to %s", seconds(lock), seconds(deviceboundLockLeast), seconds(deviceboundLockMost))
	}
	token := rand.Text()
	err = h.update(ctx, "receive message", func(tx *storage.Tx) error {
		m, found = QueuedMessage{}, false
		if err := grantTx(tx, g); err != nil {
			return err
		}
		if h.db.Paused() {
			return nil // a restored hub sends nothing that it had queued
		}
		for item, err := range deviceboundTable.Scan(tx, storage.Range{Prefix: storage.Tuple(g.ID.DeviceID)}) {
			if err != nil {
				return err
			}
			r := item.Value
			if !h.availableAt(g.ID.DeviceID, &r, tx.Now(), nil) {
				continue
			}
			r.Lock, r.Locked, r.Session, r.Deliveries = token, tx.Now().UTC().Add(lock), "", r.Deliveries+1
			_, sequence, err := deviceboundID(item.Key)
			if err != nil {
				return err
			}
			m, found = r.queued(sequence), true
			m.LockToken = token
			return deviceboundTable.Put(tx, item.Key, r)
		}
		return nil
	})
	if err == nil {
		h.sessions.activity.note(g.ID)
	}
	return m, found, err
}

// grantTx checks that whom the grant was given to still exists.
func grantTx(tx *storage.Tx, g Grant) error {
	if g.ID.ModuleID != "" {
		return errf(CodeArgumentInvalid, "modules have no cloud-to-device messages")
	}
	r, err := loadDevice(tx, g.ID.DeviceID)
	if err == nil && g.GenerationID != "" && r.GenerationID != g.GenerationID {
		err = errf(CodeDeviceNotFound, "%s", g.ID)
	}
	return err
}

// availableAt reports whether a message may be handed out to mine, or to an
// HTTPS receiver when mine is nil.
func (h *Hub) availableAt(deviceID string, r *deviceboundRecord, now time.Time, mine *Session) bool {
	if !r.Expires.After(now) || r.Locked.After(now) {
		return false
	}
	if r.Session == "" {
		return true
	}
	// A session that has ended, also with the process, gives back what it had.
	live := h.sessions.get(TwinID{DeviceID: deviceID})
	return live == nil || live.delivery.token != r.Session || mine != nil && mine != live
}

// CompleteMessage ends a message that was received: the device has it.
// CodeMessageLockLost when the lock has ended.
func (h *Hub) CompleteMessage(ctx context.Context, g Grant, lockToken string) error {
	return h.settle(ctx, g, lockToken, "complete message", func(tx *storage.Tx, k storage.Key, r deviceboundRecord) error {
		return h.finishMessageTx(tx, k, r, feedbackSuccess)
	})
}

// RejectMessage gives a message up for good. Errors as CompleteMessage.
func (h *Hub) RejectMessage(ctx context.Context, g Grant, lockToken string) error {
	return h.settle(ctx, g, lockToken, "reject message", func(tx *storage.Tx, k storage.Key, r deviceboundRecord) error {
		return h.finishMessageTx(tx, k, r, feedbackRejected)
	})
}

// AbandonMessage puts a message back into its place in the queue; the tenth
// time gives it up. Errors as CompleteMessage.
func (h *Hub) AbandonMessage(ctx context.Context, g Grant, lockToken string) error {
	err := h.settle(ctx, g, lockToken, "abandon message", func(tx *storage.Tx, k storage.Key, r deviceboundRecord) error {
		r.Lock, r.Locked = "", time.Time{}
		if r.Abandons++; r.Abandons >= h.limits.MessageDeliveries {
			return h.finishMessageTx(tx, k, r, feedbackDeliveryCount)
		}
		return deviceboundTable.Put(tx, k, r)
	})
	if err == nil {
		h.deliverTo(g.ID.DeviceID)
	}
	return err
}

func (h *Hub) settle(ctx context.Context, g Grant, lockToken, what string, f func(*storage.Tx, storage.Key, deviceboundRecord) error) error {
	return h.update(ctx, what, func(tx *storage.Tx) error {
		if err := grantTx(tx, g); err != nil {
			return err
		}
		for item, err := range deviceboundTable.Scan(tx, storage.Range{Prefix: storage.Tuple(g.ID.DeviceID)}) {
			if err != nil {
				return err
			}
			if lockToken != "" && item.Value.Lock == lockToken && item.Value.Locked.After(tx.Now()) {
				return f(tx, item.Key, item.Value)
			}
		}
		return errf(CodeMessageLockLost, "no message of %q is locked by this token: its lock has ended, or the message has", g.ID)
	})
}

// sweepMessages ends what has expired and returns what lapsed locks held. The
// store refuses it while the clock is not to be trusted.
func (h *Hub) sweepMessages(ctx context.Context) error {
	err := h.sweepDue(ctx)
	if err == nil {
		h.retryDeliveries()
	}
	return errors.Join(err, feedbackQueue.sweep(ctx, h))
}

// sweepDue goes through all that is due, in batches with rests between them:
// messages that have expired fill their devices' queues until it has come by.
func (h *Hub) sweepDue(ctx context.Context) error {
	for {
		due, err := h.dueMessages(ctx)
		if err != nil || len(due) == 0 {
			return err
		}
		devices := map[string]struct{}{}
		// What was found is looked at again by its key: a transaction that searches is
		// prepared again, in everybody's way, whenever anything at all was stored meanwhile.
		err = h.db.Update(ctx, func(tx *storage.Tx) error {
			for _, key := range due {
				if err := h.dueMessageTx(tx, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, key := range due {
			if id, _, err := deviceboundID(key); err == nil {
				devices[id] = struct{}{}
			}
		}
		for id := range devices {
			h.deliverTo(id)
		}
		rest := time.NewTimer(retainPause)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
}

// dueMessages returns the next messages whose time or lock has ended.
func (h *Hub) dueMessages(ctx context.Context) (due []storage.Key, err error) {
	err = h.db.View(ctx, func(r storage.Reader) error {
		due = nil
		for item, err := range deviceboundTable.Lookup(r, "due", storage.Range{End: storage.Tuple(time.Now())}) {
			if err != nil {
				return err
			}
			if due = append(due, item.Key); len(due) == sweepBatch {
				break
			}
		}
		return nil
	})
	return due, err
}

// dueMessageTx ends a message that has expired, or its lock.
func (h *Hub) dueMessageTx(tx *storage.Tx, key storage.Key) error {
	r, err := deviceboundTable.Get(tx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	now := tx.Now()
	switch {
	case err != nil:
		return err
	case !r.Expires.After(now):
		return h.finishMessageTx(tx, key, r, feedbackExpired)
	case !r.Locked.IsZero() && !r.Locked.After(now):
		r.Lock, r.Locked = "", time.Time{}
		return deviceboundTable.Put(tx, key, r)
	}
	return nil
}

const sweepBatch = 50
