package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/storage"
)

// goneTable names deleted devices whose files are still there: with many of
// them they are removed in parts, after the identity.
var goneTable = storage.NewTable("file.gone", 1, storage.JSON[struct{}]())

// forgetFilesTx has the sweeper remove what a deleted device has uploaded.
func forgetFilesTx(tx *storage.Tx, deviceID, generation string) error {
	some := false
	of := storage.Range{Prefix: storage.Tuple(deviceID, generation)}
	for _, err := range fileTable.Scan(tx, of) {
		if err != nil {
			return err
		}
		some = true
		break
	}
	for _, err := range uploadTable.Lookup(tx, "device", of) {
		if err != nil {
			return err
		}
		some = true
		break
	}
	if !some {
		return nil
	}
	return goneTable.Put(tx, storage.Tuple(deviceID, generation), struct{}{})
}

// sweepFiles ends uploads that have expired, removes files that are too old,
// too many or of deleted devices, and drops old notifications. Each part is a
// short transaction; what is left when ctx ends is done the next time. The
// store refuses it while the clock is not to be trusted.
func (h *Hub) sweepFiles(ctx context.Context) error {
	return errors.Join(
		h.repeat(ctx, h.sweepUploadTx),
		h.repeat(ctx, h.sweepGoneTx),
		h.repeat(ctx, h.sweepOldFilesTx),
		fileNotificationQueue.sweep(ctx, h),
	)
}

// repeat runs a transaction until it finds nothing more to do, at most so
// often that other work is not kept waiting.
func (h *Hub) repeat(ctx context.Context, f func(tx *storage.Tx) (more bool, err error)) error {
	for range sweepBatch {
		more := false
		err := h.db.Update(ctx, func(tx *storage.Tx) (err error) { more, err = f(tx); return err })
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// sweepUploadTx ends the upload that expired first.
func (h *Hub) sweepUploadTx(tx *storage.Tx) (more bool, err error) {
	for item, err := range uploadTable.Lookup(tx, "due", storage.Range{End: storage.Tuple(tx.Now())}) {
		if err != nil {
			return false, err
		}
		id, err := uploadID(item.Key)
		if err != nil {
			return false, err
		}
		return true, h.failUploadTx(tx, Caller{}, id, item.Value, fileChange{Reason: "expired"})
	}
	return false, nil
}

func uploadID(k storage.Key) (string, error) {
	parts, err := k.Parts()
	if err != nil || len(parts) != 1 {
		return "", errors.New("key is not that of an upload")
	}
	id, _ := parts[0].(string)
	return id, nil
}

// sweepGoneTx removes a part of what a deleted device has left. Its identity
// was reported as deleted; its files are not reported one by one.
func (h *Hub) sweepGoneTx(tx *storage.Tx) (more bool, err error) {
	var key storage.Key
	for item, err := range goneTable.Scan(tx, storage.Range{}) {
		if err != nil {
			return false, err
		}
		key = item.Key
		break
	}
	if key == nil {
		return false, nil
	}
	for item, err := range uploadTable.Lookup(tx, "device", storage.Range{Prefix: key}) {
		if err != nil {
			return false, err
		}
		id, err := uploadID(item.Key)
		if err != nil {
			return false, err
		}
		return true, h.dropUploadTx(tx, id, item.Value)
	}
	var list []fileRecord
	for item, err := range fileTable.Scan(tx, storage.Range{Prefix: key}) {
		if err != nil {
			return false, err
		}
		if list = append(list, item.Value); len(list) == fileBatch {
			break
		}
	}
	for _, r := range list {
		h.files.countTx(tx, -1, -r.Size, 0, 0)
		if err := errors.Join(fileTable.Delete(tx, r.key()), h.releaseTx(tx, r.Digest, r.keeper())); err != nil {
			return false, err
		}
	}
	if len(list) < fileBatch {
		return true, goneTable.Delete(tx, key)
	}
	return true, nil
}

// sweepOldFilesTx removes the oldest files: those above the age, and those by
// which all files are larger than their share of the disk.
func (h *Hub) sweepOldFilesTx(tx *storage.Tx) (more bool, err error) {
	over := h.files.kept.bytes.Load() - h.files.share
	old := tx.Now().Add(-h.limits.FileAge)
	var list []fileRecord
	g := storage.Range{}
	if over <= 0 {
		g.End = storage.Tuple(old)
	}
	for item, err := range fileTable.Lookup(tx, "age", g) {
		if err != nil {
			return false, err
		}
		if over <= 0 && !item.Value.Updated.Before(old) || len(list) == fileBatch {
			break
		}
		list = append(list, item.Value)
		over -= item.Value.Size
	}
	for _, r := range list {
		reason := "age"
		if !r.Updated.Before(old) {
			reason = "space"
		}
		if err := h.dropFileTx(tx, Caller{}, r, reason); err != nil {
			return false, err
		}
	}
	if len(list) > 0 {
		tx.OnCommit(func(uint64) { h.files.dropped.Add(int64(len(list))) })
	}
	return len(list) == fileBatch, nil
}

// How often contents without references are looked for: those of which it is
// known that they have lost one, and all of them.
const (
	blobsEvery   = 20 * time.Second
	allBlobs     = time.Hour
	releasedMost = 50_000
)

// toSweep notes a content that may have lost its last reference.
func (f *fileState) toSweep(digests ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range digests {
		f.released[d] = struct{}{}
	}
	if len(f.released) > releasedMost {
		clear(f.released)
		f.swept = time.Time{}
	}
}

// sweepBlobs removes contents that have lost their last reference. The first
// time it looks at all: a process that died may have left some.
func (h *Hub) sweepBlobs(ctx context.Context) error {
	f, now := &h.files, time.Now()
	f.mu.Lock()
	all := now.Sub(f.swept) >= allBlobs
	if all {
		f.swept = now
	}
	list := slices.Collect(maps.Keys(f.released))
	clear(f.released)
	f.mu.Unlock()
	if all {
		if _, err := h.db.Blobs().Sweep(ctx); err != nil {
			f.toSweep(list...)
			return storeError(err, "sweep contents")
		}
	}
	for i, digest := range list {
		later, err := h.db.Blobs().Drop(ctx, digest)
		if err != nil {
			f.toSweep(list[i:]...)
			return storeError(err, "sweep contents")
		}
		if later {
			f.toSweep(digest)
		}
	}
	return nil
}

// doctorFiles says how full the share of files is.
func (h *Hub) doctorFiles() Finding {
	t := h.FileTotals()
	f := Finding{"files", "ok", fmt.Sprintf("%d files with %d MiB of %d MiB; %d uploads under way hold %d MiB", t.Files, t.Bytes>>20, t.Share>>20, t.Uploads, t.Staged>>20), ""}
	switch {
	case len(h.files.key) == 0:
		f.Level, f.Text, f.Next = "fail", "no file can be uploaded: the key that signs uploads could not be made when the hub started", "restart the hub when its store takes writes"
	case t.Staged > t.Share/10*9:
		f.Level, f.Next = "warn", "unfinished uploads take nearly all that they may, and new ones are refused: they end by themselves after upload_time; look for devices that begin uploads and never end them"
	}
	return f
}
