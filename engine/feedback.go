package engine

import (
	"context"
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
	queueLockState
}

var feedbackTable = storage.NewTable("feedback", 1, storage.JSON[feedbackRecord](),
	storage.Index[feedbackRecord]{Name: "device", Keys: func(_ storage.Key, r feedbackRecord) []storage.Key {
		return []storage.Key{storage.Tuple(r.DeviceID)}
	}},
	lockIndex[feedbackRecord, *feedbackRecord]())

var feedbackQueue = serviceQueue[feedbackRecord, *feedbackRecord]{feedbackTable, "feedback"}

func putFeedbackTx(tx *storage.Tx, deviceID string, sequence uint64, r deviceboundRecord, status string) error {
	now := tx.Now().UTC()
	return feedbackTable.Put(tx, storage.Tuple(now, deviceID, r.Generation, sequence), feedbackRecord{Feedback: Feedback{
		MessageID: r.MessageID, Time: now.Truncate(100 * time.Nanosecond), // as fine as IoT Hub's
		Status: status, Description: status, DeviceID: deviceID, GenerationID: r.Generation,
	}})
}

// ReceiveFeedback hands out the oldest feedback, at most 64 records, for 60 s.
// An empty token means that there is none. It needs ServiceConnect.
func (h *Hub) ReceiveFeedback(ctx context.Context, c Caller) (list []Feedback, lockToken string, err error) {
	if err := h.authorize(ctx, c, opFeedback, "*"); err != nil {
		return nil, "", err
	}
	records, lockToken, err := feedbackQueue.receive(ctx, h, queueBatch)
	for _, r := range records {
		list = append(list, r.Feedback)
	}
	return list, lockToken, err
}

// CompleteFeedback removes a batch that was received. CodeMessageLockLost
// when its lock has ended. It needs ServiceConnect.
func (h *Hub) CompleteFeedback(ctx context.Context, c Caller, lockToken string) error {
	if err := h.authorize(ctx, c, opFeedback, "*"); err != nil {
		return err
	}
	return feedbackQueue.complete(ctx, h, lockToken)
}

// AbandonFeedback lets a batch be received again at once. Errors as
// CompleteFeedback. It needs ServiceConnect.
func (h *Hub) AbandonFeedback(ctx context.Context, c Caller, lockToken string) error {
	if err := h.authorize(ctx, c, opFeedback, "*"); err != nil {
		return err
	}
	return feedbackQueue.abandon(ctx, h, lockToken)
}
