package engine

import (
	"context"
	"time"

	"github.com/muster-hub/muster/storage"
)

// FileNotification tells an application that a device has uploaded a file.
type FileNotification struct {
	DeviceID string    `json:"d"`
	Name     string    `json:"f"`
	Size     int64     `json:"s"`
	Digest   string    `json:"h"`
	Updated  time.Time `json:"c"` // when the file was complete
	Time     time.Time `json:"t"` // when the notification was made
}

type fileNotificationRecord struct {
	FileNotification
	queueLockState
}

var fileNotificationTable = storage.NewTable("file.notification", 1, storage.JSON[fileNotificationRecord](),
	lockIndex[fileNotificationRecord, *fileNotificationRecord]())

var fileNotificationQueue = serviceQueue[fileNotificationRecord, *fileNotificationRecord]{fileNotificationTable, "file notification"}

func putFileNotificationTx(tx *storage.Tx, f fileRecord) error {
	now := tx.Now().UTC()
	return fileNotificationTable.Put(tx, storage.Tuple(now, f.Upload), fileNotificationRecord{FileNotification: FileNotification{
		DeviceID: f.DeviceID, Name: f.Name, Size: f.Size, Digest: f.Digest, Updated: f.Updated, Time: now,
	}})
}

// ReceiveFileNotifications hands out the oldest file notifications, at most
// most of them (1 to 64), for 60 s. An empty token means that there are none;
// CodeForbidden that the hub makes none. It needs ServiceConnect.
func (h *Hub) ReceiveFileNotifications(ctx context.Context, c Caller, most int) (list []FileNotification, lockToken string, err error) {
	if err := h.authorize(ctx, c, opFileNotification, "*"); err != nil {
		return nil, "", err
	}
	if !h.files.notify {
		e := errf(CodeForbidden, "this hub makes no file notifications")
		e.Next = "Start it with --file-notifications, or follow the events of the kind file.uploaded."
		return nil, "", e
	}
	records, lockToken, err := fileNotificationQueue.receive(ctx, h, max(1, min(most, queueBatch)))
	for _, r := range records {
		list = append(list, r.FileNotification)
	}
	return list, lockToken, err
}

// CompleteFileNotifications removes what was received under a token.
// CodeMessageLockLost when the lock has ended. It needs ServiceConnect.
func (h *Hub) CompleteFileNotifications(ctx context.Context, c Caller, lockToken string) error {
	if err := h.authorize(ctx, c, opFileNotification, "*"); err != nil {
		return err
	}
	return fileNotificationQueue.complete(ctx, h, lockToken)
}

// AbandonFileNotifications lets what was received under a token be received
// again at once. Errors as CompleteFileNotifications. It needs ServiceConnect.
func (h *Hub) AbandonFileNotifications(ctx context.Context, c Caller, lockToken string) error {
	if err := h.authorize(ctx, c, opFileNotification, "*"); err != nil {
		return err
	}
	return fileNotificationQueue.abandon(ctx, h, lockToken)
}
