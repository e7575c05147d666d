package engine

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/muster-hub/muster/storage"
)

// ContainerBlob is a blob of a container.
type ContainerBlob struct {
	Name        string
	Size        int64
	Digest      string // SHA-256, hexadecimal
	ContentType string
	Encoding    string
	ETag        string // without quotes; changes each time it is written
	Created     time.Time
	Updated     time.Time
}

// BlobCondition says when a blob is written; the zero value: always.
type BlobCondition struct {
	Absent bool   // only when there is none of the name
	ETag   string // only over the one that has it
}

// blobRecord is a stored blob; its key is the container's id and the name.
type blobRecord struct {
	fileContent
	Version uint64    `json:"v"`
	Created time.Time `json:"c"`
	Updated time.Time `json:"u"`
}

var (
	blobRecordTable = storage.NewTable("container.blob", 1, storage.JSON[blobRecord]())
	// blobBlockTable has the blocks that wait to be joined: container, blob, block.
	blobBlockTable = storage.NewTable("container.block", 1, storage.JSON[uploadBlock]())
)

const counterContainerBytes = "containers.bytes"

func blobKey(container, name string) storage.Key { return storage.Tuple(container, name) }

// Who refers to the contents of blobs and blocks.
func blobKeeper(container, name string) storage.Key {
	return storage.Tuple("container", container, name)
}

func blobBlockKeeper(container, name, block string) storage.Key {
	return storage.Tuple("container.block", container, name, block)
}

func (r *blobRecord) show(name string) ContainerBlob {
	return ContainerBlob{
		Name: name, Size: r.Size, Digest: r.Digest, ContentType: r.Type, Encoding: r.fileContent.Encoding, ETag: r.etag(), Created: r.Created.UTC(), Updated: r.Updated.UTC(),
	}
}

func (r *blobRecord) etag() string {
	const digits = "0123456789ABCDEF"
	b := []byte("0x")
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[r.Version>>shift&15])
	}
	return string(b)
}

func blobNotFound(name string) error {
	return errf(CodeBlobNotFound, "the container has no blob %.200q", name)
}

// countContainerTx changes what a container holds, and when it was changed.
func (h *Hub) countContainerTx(tx *storage.Tx, name string, r containerRecord, blobs, blocks int, bytes int64) error {
	r.Blobs += blobs
	r.Blocks += blocks
	r.Bytes += bytes
	r.Updated = tx.Now().UTC()
	h.countBytesTx(tx, bytes)
	return containerTable.Put(tx, storage.Tuple(name), r)
}

func (h *Hub) countBytesTx(tx *storage.Tx, bytes int64) {
	if bytes != 0 {
		tx.Add(counterContainerBytes, bytes)
		tx.OnCommit(func(uint64) { h.imports.kept.Add(bytes) })
	}
}

// receiveBlob takes a body for a container within the bounds of one blob, of
// all containers, and of what the hub receives at once.
func (h *Hub) receiveBlob(b UploadBody) (w *storage.BlobWriter, release func(), err error) {
	if most := h.limits.ContainerBlobBytes; b.Size < 0 || b.Size > most {
		return nil, nil, errf(CodeTooLarge, "the content has %d bytes, at most %d are allowed", b.Size, most)
	}
	if held := h.imports.kept.Load(); held+b.Size > h.imports.share {
		return nil, nil, errf(CodeQuotaExceeded, "containers hold %d bytes, and may hold %d; delete some", held, h.imports.share)
	}
	f := &h.files
	f.mu.Lock()
	full := f.count >= bodiesInHub
	if !full {
		f.count++
	}
	f.mu.Unlock()
	if full {
		return nil, nil, errf(CodeThrottled, "%d uploads send content now, at most %d may", bodiesInHub, bodiesInHub)
	}
	release = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.count--
	}
	if w, err = h.receive(b); err != nil {
		release()
		return nil, nil, err
	}
	return w, release, nil
}

// PutBlob writes a whole blob durably, over what was there; its blocks are
// dropped. Errors: CodeArgumentInvalid for a name that is none, CodeTooLarge,
// CodeQuotaExceeded, CodeChecksum, CodePreconditionFailed,
// CodeBlobContainerNotFound.
func (h *Hub) PutBlob(ctx context.Context, g ContainerGrant, name string, b UploadBody, m BlobCondition) (ContainerBlob, error) {
	if err := errors.Join(checkFileName(name, h.limits.FileNameBytes), checkContent(b.Type, b.Encoding)); err != nil {
		return ContainerBlob{}, AsError(err)
	}
	w, release, err := h.receiveBlob(b)
	if err != nil {
		return ContainerBlob{}, err
	}
	defer release()
	var made blobRecord
	err = h.stepBlob(ctx, "container.put", w, func(tx *storage.Tx, blob storage.Blob) (err error) {
		made, err = h.setBlobTx(tx, g, name, fileContent{blob.Digest, blob.Size, b.Type, b.Encoding}, m)
		return err
	})
	return made.show(name), err
}

// setBlobTx makes a content the blob's.
func (h *Hub) setBlobTx(tx *storage.Tx, g ContainerGrant, name string, content fileContent, m BlobCondition) (blobRecord, error) {
	c, err := g.load(tx)
	if err != nil {
		return blobRecord{}, err
	}
	now := tx.Now().UTC()
	blobs, size := 0, content.Size
	next, err := blobRecordTable.Get(tx, blobKey(c.ID, name))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		if m.ETag != "" {
			return blobRecord{}, errf(CodePreconditionFailed, "there is no blob %q with the ETag of If-Match", name)
		}
		if blobs = 1; c.Blobs >= h.limits.ContainerBlobs {
			return blobRecord{}, errf(CodeQuotaExceeded, "the container has %d blobs, at most %d are allowed; delete some", c.Blobs, h.limits.ContainerBlobs)
		}
		next = blobRecord{Created: now}
	case err != nil:
		return blobRecord{}, err
	case m.Absent:
		return blobRecord{}, errf(CodePreconditionFailed, "there is a blob %q already", name)
	case m.ETag != "" && m.ETag != next.etag():
		return blobRecord{}, errf(CodePreconditionFailed, "the blob %q has changed: its ETag is %s", name, next.etag())
	default:
		size -= next.Size
		if next.Digest != content.Digest {
			if err := h.releaseTx(tx, next.Digest, blobKeeper(c.ID, name)); err != nil {
				return blobRecord{}, err
			}
		}
	}
	dropped, freed, err := h.dropBlobBlocksTx(tx, c.ID, name)
	if err != nil {
		return blobRecord{}, err
	}
	next.fileContent, next.Version, next.Updated = content, uint64(now.UnixNano())/100, now
	return next, errors.Join(
		h.db.Blobs().Refer(tx, content.blob(), blobKeeper(c.ID, name)),
		blobRecordTable.Put(tx, blobKey(c.ID, name), next),
		h.countContainerTx(tx, g.Name, c, blobs, -dropped, size-freed),
	)
}

// dropBlobBlocksTx removes the blocks that wait to be joined to a blob.
func (h *Hub) dropBlobBlocksTx(tx *storage.Tx, container, name string) (dropped int, freed int64, err error) {
	for item, err := range blobBlockTable.Scan(tx, storage.Range{Prefix: storage.Tuple(container, name)}) {
		if err != nil {
			return 0, 0, err
		}
		if err := h.dropBlockTx(tx, item); err != nil {
			return 0, 0, err
		}
		dropped++
		freed += item.Value.Size
	}
	return dropped, freed, nil
}

func (h *Hub) dropBlockTx(tx *storage.Tx, item storage.Item[uploadBlock]) error {
	parts, err := item.Key.Parts()
	if err != nil || len(parts) != 3 {
		return errors.New("key is not that of a block")
	}
	container, _ := parts[0].(string)
	name, _ := parts[1].(string)
	block, _ := parts[2].(string)
	return errors.Join(blobBlockTable.Delete(tx, item.Key), h.releaseTx(tx, item.Value.Digest, blobBlockKeeper(container, name, block)))
}

// StageBlobBlock stores a block of a blob durably; the same id again replaces
// it. CodeTooManyBlocks when there are as many as may be; other errors are those
// of PutBlob.
func (h *Hub) StageBlobBlock(ctx context.Context, g ContainerGrant, name, block string, b UploadBody) error {
	if err := checkFileName(name, h.limits.FileNameBytes); err != nil {
		return err
	}
	if block == "" || len(block) > 64 {
		return errf(CodeArgumentInvalid, "the block's id has %d bytes, expected 1 to 64", len(block))
	}
	w, release, err := h.receiveBlob(b)
	if err != nil {
		return err
	}
	defer release()
	return h.stepBlob(ctx, "container.block", w, func(tx *storage.Tx, blob storage.Blob) error {
		c, err := g.load(tx)
		if err != nil {
			return err
		}
		key := storage.Tuple(c.ID, name, block)
		size, more := blob.Size, 1
		switch before, err := blobBlockTable.Get(tx, key); {
		case err == nil:
			size, more = size-before.Size, 0
			if before.Digest != blob.Digest {
				if err := h.releaseTx(tx, before.Digest, blobBlockKeeper(c.ID, name, block)); err != nil {
					return err
				}
			}
		case !errors.Is(err, storage.ErrNotFound):
			return err
		case c.Blocks >= h.limits.ContainerBlocks:
			return errf(CodeTooManyBlocks, "%d blocks of the container wait to be joined, at most %d may; send larger ones", c.Blocks, h.limits.ContainerBlocks)
		}
		return errors.Join(
			h.db.Blobs().Refer(tx, blob, blobBlockKeeper(c.ID, name, block)),
			blobBlockTable.Put(tx, key, uploadBlock{Digest: blob.Digest, Size: blob.Size}),
			h.countContainerTx(tx, g.Name, c, 0, more, size),
		)
	})
}

// CommitBlobBlocks makes staged blocks, in the order given, the blob; the others
// are dropped. CodeBlockUnknown when a block is not there; other errors are
// those of PutBlob.
func (h *Hub) CommitBlobBlocks(ctx context.Context, g ContainerGrant, name string, ids []string, kind, encoding string, m BlobCondition) (ContainerBlob, error) {
	if err := errors.Join(checkFileName(name, h.limits.FileNameBytes), checkContent(kind, encoding)); err != nil {
		return ContainerBlob{}, AsError(err)
	}
	var blocks []uploadBlock
	var size int64
	read := func(r storage.Reader) error {
		c, err := g.load(r)
		if err != nil {
			return err
		}
		for i, id := range ids {
			b, err := blobBlockTable.Get(r, storage.Tuple(c.ID, name, id))
			switch {
			case errors.Is(err, storage.ErrNotFound):
				return errf(CodeBlockUnknown, "the block %q was not sent, or was committed already", id)
			case err != nil:
				return err
			case len(blocks) < len(ids):
				blocks = append(blocks, b)
				size += b.Size
			case b != blocks[i]:
				return errf(CodeUnavailable, "the block %q was changed while the list was committed; send the list again", id)
			}
		}
		return nil
	}
	if err := h.view(ctx, "read blocks", read); err != nil {
		return ContainerBlob{}, err
	}
	if most := h.limits.ContainerBlobBytes; size > most {
		return ContainerBlob{}, errf(CodeTooLarge, "the blocks have %d bytes together, a blob may have %d", size, most)
	}
	if held := h.imports.kept.Load(); held+size > h.imports.share {
		return ContainerBlob{}, errf(CodeQuotaExceeded, "containers hold %d bytes, and may hold %d; joining blocks takes as much again as they have", held, h.imports.share)
	}
	w, err := h.join(ctx, blocks)
	if err != nil {
		return ContainerBlob{}, err
	}
	var made blobRecord
	err = h.stepBlob(ctx, "container.join", w, func(tx *storage.Tx, blob storage.Blob) (err error) {
		if err := read(tx); err != nil {
			return err
		}
		made, err = h.setBlobTx(tx, g, name, fileContent{blob.Digest, blob.Size, kind, encoding}, m)
		return err
	})
	return made.show(name), err
}

// Blob says what is known of a blob; CodeBlobNotFound when there is none.
func (h *Hub) Blob(ctx context.Context, g ContainerGrant, name string) (ContainerBlob, error) {
	var record blobRecord
	err := h.view(ctx, "read blob", func(r storage.Reader) error {
		c, err := g.load(r)
		if err != nil {
			return err
		}
		if record, err = blobRecordTable.Get(r, blobKey(c.ID, name)); errors.Is(err, storage.ErrNotFound) {
			return blobNotFound(name)
		}
		return err
	})
	return record.show(name), err
}

// OpenBlob returns a blob with its content, which the caller closes. Errors are
// those of Blob.
func (h *Hub) OpenBlob(ctx context.Context, g ContainerGrant, name string) (ContainerBlob, io.ReadSeekCloser, error) {
	for range 3 { // it may be replaced, and its content swept, between the two looks
		b, err := h.Blob(ctx, g, name)
		if err != nil {
			return ContainerBlob{}, nil, err
		}
		content, err := h.db.Blobs().Open(b.Digest)
		if err == nil {
			return b, content, nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return ContainerBlob{}, nil, storeError(err, "open blob")
		}
	}
	return ContainerBlob{}, nil, errf(CodeInternal, "the content of the blob %q is missing; run `muster verify` on the stopped hub", name)
}

// Blobs lists blobs in the order of their names behind the one given, at most
// limit (1 to 1000), those whose names begin with prefix; next is empty at the end.
func (h *Hub) Blobs(ctx context.Context, g ContainerGrant, prefix, after string, limit int) (list []ContainerBlob, next string, err error) {
	if limit <= 0 || limit > filePage {
		limit = filePage
	}
	list = []ContainerBlob{}
	err = h.view(ctx, "list blobs", func(r storage.Reader) error {
		c, err := g.load(r)
		if err != nil {
			return err
		}
		s := storage.Range{Prefix: storage.Tuple(c.ID), Start: blobKey(c.ID, prefix)}
		if after >= prefix && after != "" {
			s.Start, s.After = nil, blobKey(c.ID, after)
		}
		for item, err := range blobRecordTable.Scan(r, s) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil || len(parts) != 2 {
				return errors.New("key is not that of a blob")
			}
			name, _ := parts[1].(string)
			if !strings.HasPrefix(name, prefix) {
				return nil
			}
			if len(list) == limit {
				next = list[limit-1].Name
				return nil
			}
			list = append(list, item.Value.show(name))
		}
		return nil
	})
	return list, next, err
}

// DeleteBlob removes a blob. Errors are those of Blob.
func (h *Hub) DeleteBlob(ctx context.Context, g ContainerGrant, name string) error {
	return h.step(ctx, "container.blob.delete", func(tx *storage.Tx) error {
		c, err := g.load(tx)
		if err != nil {
			return err
		}
		r, err := blobRecordTable.Get(tx, blobKey(c.ID, name))
		if errors.Is(err, storage.ErrNotFound) {
			return blobNotFound(name)
		}
		if err != nil {
			return err
		}
		return errors.Join(
			blobRecordTable.Delete(tx, blobKey(c.ID, name)),
			h.releaseTx(tx, r.Digest, blobKeeper(c.ID, name)),
			h.countContainerTx(tx, g.Name, c, -1, 0, -r.Size),
		)
	})
}

// sweepContainers removes containers in which nothing was changed for long, and
// the blobs of those that are gone.
func (h *Hub) sweepContainers(ctx context.Context) error {
	return errors.Join(h.repeatStep(ctx, "container.age", h.ageContainerTx), h.repeatStep(ctx, "container.sweep", h.sweepContainerTx))
}

// repeatStep is repeat with a name, for work of which a kill leaves a part.
func (h *Hub) repeatStep(ctx context.Context, name string, f func(tx *storage.Tx) (more bool, err error)) error {
	for range sweepBatch {
		more := false
		if err := h.step(ctx, name, func(tx *storage.Tx) (err error) { more, err = f(tx); return err }); err != nil || !more {
			return err
		}
	}
	return nil
}

// ageContainerTx removes the container that was left alone for longest, unless
// a job uses it.
func (h *Hub) ageContainerTx(tx *storage.Tx) (more bool, err error) {
	for item, err := range containerTable.Lookup(tx, "age", storage.Range{End: storage.Tuple(tx.Now().Add(-h.limits.ContainerAge))}) {
		if err != nil {
			return false, err
		}
		name, err := firstText(item.Key)
		if err != nil {
			return false, err
		}
		return true, h.dropContainerTx(tx, name, item.Value)
	}
	return false, nil
}

// sweepContainerTx removes a part of what a container that is gone has left.
func (h *Hub) sweepContainerTx(tx *storage.Tx) (more bool, err error) {
	var key storage.Key
	for item, err := range containerGoneTable.Scan(tx, storage.Range{}) {
		if err != nil {
			return false, err
		}
		key = item.Key
		break
	}
	if key == nil {
		return false, nil
	}
	n, freed := 0, int64(0)
	for item, err := range blobRecordTable.Scan(tx, storage.Range{Prefix: key}) {
		if err != nil {
			return false, err
		}
		parts, err := item.Key.Parts()
		if err != nil || len(parts) != 2 {
			return false, errors.New("key is not that of a blob")
		}
		container, _ := parts[0].(string)
		name, _ := parts[1].(string)
		if err := errors.Join(blobRecordTable.Delete(tx, item.Key), h.releaseTx(tx, item.Value.Digest, blobKeeper(container, name))); err != nil {
			return false, err
		}
		freed += item.Value.Size
		if n++; n == fileBatch {
			break
		}
	}
	for item, err := range blobBlockTable.Scan(tx, storage.Range{Prefix: key}) {
		if err != nil {
			return false, err
		}
		if n++; n >= 2*fileBatch {
			break
		}
		if err := h.dropBlockTx(tx, item); err != nil {
			return false, err
		}
		freed += item.Value.Size
	}
	h.countBytesTx(tx, -freed)
	if n < fileBatch {
		return true, containerGoneTable.Delete(tx, key)
	}
	return true, nil
}
