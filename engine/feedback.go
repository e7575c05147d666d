package engine

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/muster-hub/muster/storage"
)

// The statuses of feedback, as IoT Hub spells them.
const (
	feedbackSuccess       = "Success"
	feedbackExpired       = "Expired"
	feedbackDeliveryCount = "DeliveryCountExceeded"
	feedbackRejected      = "Rejected"
	feedbackPurged        = "Purged"
)

// How feedback is kept and handed out.
const (
	feedbackAge   = time.Hour
	feedbackBatch = 64
	feedbackMost  = 10 // times that a record is handed out
	feedbackScan  = 10_000
)

// Feedback says what became of a cloud-to-device message.
type Feedback struct {
	MessageID    string    `json:"originalMessageId"`
	Time         time.Time `json:"enqueuedTimeUtc"`
	Status       string    `json:"statusCode"`
	Description  string    `json:"description"`
	DeviceID     string    `json:"deviceId"`
	GenerationID string    `json:"deviceGenerationId"`
}

type feedbackRecord struct {
	Feedback
	Lock       string    `json:"l,omitempty"`
	Locked     time.Time `json:"u,omitzero"`
	Deliveries int       `json:"n,omitempty"`
}

var feedbackTable = storage.NewTable("feedback", 1, storage.JSON[feedbackRecord](),
	storage.Index[feedbackRecord]{Name: "device", Keys: func(_ storage.Key, r feedbackRecord) []storage.Key {
		return []storage.Key{storage.Tuple(r.DeviceID)}
	}},
	storage.Index[feedbackRecord]{Name: "lock", Keys: func(_ storage.Key, r feedbackRecord) []storage.Key {
		if r.Lock == "" {
			return nil
		}
		return []storage.Key{storage.Tuple(r.Lock)}
	}})

func putFeedbackTx(tx *storage.Tx, deviceID string, sequence uint64, r deviceboundRecord, status string) error {
	now := tx.Now().UTC()
	return feedbackTable.Put(tx, storage.Tuple(now, deviceID, r.Generation, sequence), feedbackRecord{Feedback: Feedback{
		MessageID: r.MessageID, Time: now, Status: status, Description: status, DeviceID: deviceID, GenerationID: r.Generation,
	}})
}

// ReceiveFeedback hands out the oldest feedback, at most 64 records, for 60 s.
// An empty token means that there is none. It needs ServiceConnect.
func (h *Hub) ReceiveFeedback(ctx context.Context, c Caller) (list []Feedback, lockToken string, err error) {
	if err := h.authorize(ctx, c, opFeedback, "*"); err != nil {
		return nil, "", err
	}
	token := rand.Text()
	err = h.update(ctx, "receive feedback", func(tx *storage.Tx) error {
		list, lockToken = nil, ""
		now, seen := tx.Now().UTC(), 0
		var found []storage.Item[feedbackRecord]
		for item, err := range feedbackTable.Scan(tx, storage.Range{Start: storage.Tuple(now.Add(-feedbackAge))}) {
			if err != nil {
				return err
			}
			if seen++; len(found) == feedbackBatch || seen > feedbackScan {
				break
			}
			if !item.Value.Locked.After(now) {
				found = append(found, item)
			}
		}
		for _, item := range found {
			r := item.Value
			if r.Deliveries >= feedbackMost {
				if err := feedbackTable.Delete(tx, item.Key); err != nil {
					return err
				}
				continue
			}
			r.Lock, r.Locked, r.Deliveries = token, now.Add(deviceboundLock), r.Deliveries+1
			if err := feedbackTable.Put(tx, item.Key, r); err != nil {
				return err
			}
			list, lockToken = append(list, r.Feedback), token
		}
		return nil
	})
	return list, lockToken, err
}

// CompleteFeedback removes a batch that was received. CodeMessageLockLost
// when its lock has ended. It needs ServiceConnect.
func (h *Hub) CompleteFeedback(ctx context.Context, c Caller, lockToken string) error {
	return h.settleFeedback(ctx, c, lockToken, func(tx *storage.Tx, item storage.Item[feedbackRecord]) error {
		return feedbackTable.Delete(tx, item.Key)
	})
}

// AbandonFeedback lets a batch be received again at once. Errors as
// CompleteFeedback. It needs ServiceConnect.
func (h *Hub) AbandonFeedback(ctx context.Context, c Caller, lockToken string) error {
	return h.settleFeedback(ctx, c, lockToken, func(tx *storage.Tx, item storage.Item[feedbackRecord]) error {
		item.Value.Lock, item.Value.Locked = "", time.Time{}
		return feedbackTable.Put(tx, item.Key, item.Value)
	})
}

func (h *Hub) settleFeedback(ctx context.Context, c Caller, lockToken string, f func(*storage.Tx, storage.Item[feedbackRecord]) error) error {
	if err := h.authorize(ctx, c, opFeedback, "*"); err != nil {
		return err
	}
	return h.update(ctx, "settle feedback", func(tx *storage.Tx) error {
		var list []storage.Item[feedbackRecord]
		for item, err := range feedbackTable.Lookup(tx, "lock", storage.Range{Prefix: storage.Tuple(lockToken)}) {
			if err != nil {
				return err
			}
			if item.Value.Locked.After(tx.Now()) {
				list = append(list, item)
			}
		}
		if len(list) == 0 {
			return errf(CodeMessageLockLost, "no feedback is locked by this token: its lock has ended, or it was completed")
		}
		for _, item := range list {
			if err := f(tx, item); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweepFeedback drops what is older than an hour.
func (h *Hub) sweepFeedback(ctx context.Context) error {
	return h.db.Update(ctx, func(tx *storage.Tx) error {
		return dropFeedbackTx(tx, feedbackTable.Scan(tx, storage.Range{End: storage.Tuple(tx.Now().Add(-feedbackAge))}), retainBatch)
	})
}

func dropFeedbackTx(tx *storage.Tx, all func(func(storage.Item[feedbackRecord], error) bool), most int) error {
	var keys []storage.Key
	for item, err := range all {
		if err != nil {
			return err
		}
		if keys = append(keys, item.Key); len(keys) == most {
			break
		}
	}
	for _, k := range keys {
		if err := feedbackTable.Delete(tx, k); err != nil {
			return err
		}
	}
	return nil
}
