package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// Upload is what a device needs to send a file.
type Upload struct {
	CorrelationID string
	Blob          string // DEVICE/NAME, under which the content is sent
	Token         string // query string, with its question mark, that lets its holder write the blob
	Expires       time.Time
}

// UploadOutcome is what a device says of an upload at its end.
type UploadOutcome struct {
	Success     bool
	StatusCode  int    // of the last answer to sending it
	Description string // cut when it is long
}

// uploadRecord is an upload under way.
type uploadRecord struct {
	DeviceID   string       `json:"d"`
	Generation string       `json:"g"`
	Name       string       `json:"n"`
	Begun      time.Time    `json:"b"`
	Expires    time.Time    `json:"x"`
	Blocks     int          `json:"k,omitempty"` // staged and not committed
	Staged     int64        `json:"s,omitempty"` // their bytes
	Content    *fileContent `json:"c,omitempty"` // what was committed
	List       []byte       `json:"l,omitempty"` // digest of the list of blocks that was committed
	Written    time.Time    `json:"w,omitzero"`  // when the content was committed
}

// held is how many bytes the upload keeps on the disk.
func (r *uploadRecord) held() int64 {
	if r.Content == nil {
		return r.Staged
	}
	return r.Staged + r.Content.Size
}

// uploadBlock is a block that was staged; its key is the upload and the block's id.
type uploadBlock struct {
	Digest string `json:"h"`
	Size   int64  `json:"s"`
}

var (
	uploadTable = storage.NewTable("upload", 1, storage.JSON[uploadRecord](),
		storage.Index[uploadRecord]{Name: "due", Keys: func(_ storage.Key, r uploadRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Expires)}
		}},
		storage.Index[uploadRecord]{Name: "device", Keys: func(_ storage.Key, r uploadRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.DeviceID, r.Generation)}
		}})
	uploadBlockTable = storage.NewTable("upload.block", 1, storage.JSON[uploadBlock]())
)

func uploadKey(id string) storage.Key { return storage.Tuple(id) }

// Who refers to the blobs of an upload.
func uploadKeeper(id string) storage.Key       { return storage.Tuple("upload", id) }
func blockKeeper(id, block string) storage.Key { return storage.Tuple("block", id, block) }

// newTimedID is an id of an upload, a container or an import: in order of time, and it cannot be guessed.
func newTimedID(now time.Time) string {
	return fmt.Sprintf("%013x-%s", now.UnixMicro(), strings.ToLower(rand.Text()))
}

// deviceTx checks that a device still is who it was, and enabled.
func deviceTx(r storage.Reader, deviceID, generation string) error {
	record, err := loadCredentials(r, TwinID{DeviceID: deviceID})
	switch {
	case errors.Is(err, storage.ErrNotFound), err == nil && generation != "" && record.GenerationID != generation:
		return errf(CodeDeviceNotFound, "%s", deviceID)
	case err != nil:
		return err
	case record.Disabled:
		return errf(CodeUnauthorized, "%q is disabled", deviceID)
	}
	return nil
}

// BeginUpload lets a device send a file under a name. Errors:
// CodeArgumentInvalid for a name that is none, CodeTooManyUploads when as many
// as may are under way, CodeDeviceNotFound.
func (h *Hub) BeginUpload(ctx context.Context, g Grant, name string) (Upload, error) {
	if g.ID.ModuleID != "" {
		return Upload{}, errf(CodeArgumentInvalid, "modules have no files; upload as the device %q", g.ID.DeviceID)
	}
	if err := checkFileName(name, h.limits.FileNameBytes); err != nil {
		return Upload{}, err
	}
	if len(h.files.key) == 0 {
		return Upload{}, errf(CodeReadOnly, "the hub could not make the key that signs uploads, since its store took no writes at its start; restart it when the disk is well")
	}
	if err := h.throttles.wait(ctx, throttleUpload, "file.upload"); err != nil {
		return Upload{}, err
	}
	var u Upload
	err := h.update(ctx, "begin upload", func(tx *storage.Tx) error {
		now := tx.Now().UTC()
		device, err := loadDevice(tx, g.ID.DeviceID)
		if err != nil {
			return err
		}
		if err := deviceTx(tx, g.ID.DeviceID, g.GenerationID); err != nil {
			return err
		}
		active := 0
		for item, err := range uploadTable.Lookup(tx, "device", storage.Range{Prefix: storage.Tuple(g.ID.DeviceID, device.GenerationID)}) {
			if err != nil {
				return err
			}
			if item.Value.Expires.After(now) {
				active++
			}
		}
		if most := h.limits.UploadsPerDevice; active >= most {
			return errf(CodeTooManyUploads, "%d uploads of %q are under way, at most %d may; notify the hub of those that have ended", active, g.ID.DeviceID, most)
		}
		r := uploadRecord{DeviceID: g.ID.DeviceID, Generation: device.GenerationID, Name: name, Begun: now, Expires: now.Add(h.limits.UploadTime).Truncate(time.Second)}
		u = Upload{CorrelationID: newTimedID(now), Blob: g.ID.DeviceID + "/" + name, Expires: r.Expires}
		u.Token = auth.SignUpload(h.files.key, u.CorrelationID, u.Blob, r.Expires)
		h.files.countTx(tx, 0, 0, 1, 0)
		return uploadTable.Put(tx, uploadKey(u.CorrelationID), r)
	})
	if err == nil {
		h.sessions.activity.note(g.ID)
	}
	return u, err
}

// CompleteUpload ends an upload: with success its content becomes the
// device's file, and the upload's bytes are given up otherwise. The same
// success told again changes nothing. Errors: CodeUploadNotFound,
// CodeUploadExpired, CodeUploadIncomplete when no content was sent.
func (h *Hub) CompleteUpload(ctx context.Context, g Grant, correlationID string, o UploadOutcome) error {
	if g.ID.ModuleID != "" {
		return errf(CodeArgumentInvalid, "modules have no files; upload as the device %q", g.ID.DeviceID)
	}
	c := Caller{Principal: g.Principal}
	crowdedOut, err := h.crowdedOut(ctx, correlationID)
	if err != nil {
		return err
	}
	err = h.update(ctx, "complete upload", func(tx *storage.Tx) error {
		r, err := uploadTable.Get(tx, uploadKey(correlationID))
		if errors.Is(err, storage.ErrNotFound) && o.Success {
			return uploadedTx(tx, g.ID.DeviceID, correlationID)
		}
		if errors.Is(err, storage.ErrNotFound) || err == nil && r.DeviceID != g.ID.DeviceID {
			return unknownUpload(correlationID)
		}
		if err != nil {
			return err
		}
		if err := deviceTx(tx, r.DeviceID, r.Generation); err != nil {
			return err
		}
		switch {
		case !r.Expires.After(tx.Now()):
			return errf(CodeUploadExpired, "the upload %.80q ended at %s; begin it again", correlationID, r.Expires.Format(time.RFC3339))
		case !o.Success:
			return h.failUploadTx(tx, c, correlationID, r, fileChange{Reason: "failed", StatusCode: o.StatusCode, Description: clip(o.Description)})
		case r.Content == nil:
			return errf(CodeUploadIncomplete, "nothing was sent for %q; PUT its content first, or notify the hub that the upload failed", r.Name)
		}
		return h.keepFileTx(tx, c, correlationID, r, crowdedOut)
	})
	if err == nil {
		h.sessions.activity.note(g.ID)
	}
	return err
}

func unknownUpload(id string) error {
	return errf(CodeUploadNotFound, "the device has no upload %.80q under way", id)
}

// uploadedTx accepts what is told twice, by a device that missed the answer.
func uploadedTx(r storage.Reader, deviceID, correlationID string) error {
	for item, err := range fileTable.Lookup(r, "upload", storage.Range{Prefix: storage.Tuple(correlationID)}) {
		if err != nil {
			return err
		}
		if item.Value.DeviceID == deviceID {
			return nil
		}
	}
	return unknownUpload(correlationID)
}

// keepFileTx makes the upload's content the device's file.
func (h *Hub) keepFileTx(tx *storage.Tx, c Caller, id string, r uploadRecord, crowdedOut []fileRecord) error {
	now := tx.Now().UTC()
	f := fileRecord{DeviceID: r.DeviceID, Generation: r.Generation, Name: r.Name, fileContent: *r.Content, Upload: id, Created: now, Updated: now}
	before, err := fileTable.Get(tx, f.key())
	switch {
	case err == nil:
		f.Created = before.Created
		h.files.countTx(tx, -1, -before.Size, 0, 0)
		err = errors.Join(fileTable.Delete(tx, f.key()), h.releaseTx(tx, before.Digest, before.keeper()))
	case errors.Is(err, storage.ErrNotFound):
		err = nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(
		h.makeRoomTx(tx, c, crowdedOut),
		h.dropUploadTx(tx, id, r),
		h.db.Blobs().Refer(tx, f.blob(), f.keeper()),
		fileTable.Put(tx, f.key(), f),
		appendFileChange(tx, c, changeFileUploaded, r.DeviceID, fileChange{Name: f.Name, Size: &f.Size, Digest: f.Digest, ContentType: f.Type, CorrelationID: id}),
	); err != nil {
		return err
	}
	h.files.countTx(tx, 1, f.Size, 0, 0)
	tx.OnCommit(func(uint64) { h.files.completed.Add(1) })
	if h.files.notify {
		return putFileNotificationTx(tx, f)
	}
	return nil
}

// failUploadTx ends an upload without a file.
func (h *Hub) failUploadTx(tx *storage.Tx, c Caller, id string, r uploadRecord, why fileChange) error {
	why.Name, why.CorrelationID = r.Name, id
	tx.OnCommit(func(uint64) { h.files.failed.Add(1) })
	return errors.Join(h.dropUploadTx(tx, id, r), appendFileChange(tx, c, changeFileFailed, r.DeviceID, why))
}

// dropUploadTx removes an upload with all that it holds. It puts no record.
func (h *Hub) dropUploadTx(tx *storage.Tx, id string, r uploadRecord) error {
	if err := h.dropBlocksTx(tx, id); err != nil {
		return err
	}
	if r.Content != nil {
		if err := h.releaseTx(tx, r.Content.Digest, uploadKeeper(id)); err != nil {
			return err
		}
	}
	h.files.countTx(tx, 0, 0, -1, -r.held())
	return uploadTable.Delete(tx, uploadKey(id))
}

// dropBlocksTx removes an upload's staged blocks; the caller counts their bytes.
func (h *Hub) dropBlocksTx(tx *storage.Tx, id string) error {
	var list []storage.Item[uploadBlock]
	for item, err := range uploadBlockTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id)}) {
		if err != nil {
			return err
		}
		list = append(list, item)
	}
	for _, item := range list {
		parts, err := item.Key.Parts()
		if err != nil || len(parts) != 2 {
			return errors.New("key is not that of a block")
		}
		block, _ := parts[1].(string)
		if err := errors.Join(uploadBlockTable.Delete(tx, item.Key), h.releaseTx(tx, item.Value.Digest, blockKeeper(id, block))); err != nil {
			return err
		}
	}
	return nil
}
