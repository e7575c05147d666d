package engine

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // Azure Storage's checksum of a body, not a signature
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// UploadGrant is the outcome of a successful look at an upload token: its
// holder may write the content of one upload.
type UploadGrant struct {
	Expires time.Time

	id, deviceID, generation string
}

// UploadBody is content that is being received.
type UploadBody struct {
	io.Reader
	Size     int64  // bytes that the reader has
	MD5      []byte // of the content, compared when there is one
	Type     string // content type of the file; not looked at for blocks
	Encoding string // content encoding of the file
}

// Stored is what an upload holds after its content was written.
type Stored struct {
	Digest string // SHA-256, hexadecimal
	Size   int64
	Time   time.Time
}

// What is received at once. Memory is a buffer for each.
const (
	bodiesPerUpload = 32 // SDKs send up to 20 blocks side by side
	bodiesInHub     = 256
	bodyBuffer      = 64 << 10
	contentTypeMost = 256
)

// AuthorizeUpload checks a token for the blob that a client wants to write,
// DEVICE/NAME. CodeUnauthorized for anything wrong with it; the message does
// not say what exists.
func (h *Hub) AuthorizeUpload(ctx context.Context, t auth.UploadToken, blob string) (UploadGrant, error) {
	if h.draining.Load() {
		return UploadGrant{}, errf(CodeClosed, "the hub is shutting down")
	}
	if err := h.checkClock(); err != nil {
		return UploadGrant{}, err
	}
	if !t.Verify(h.files.key, blob) {
		return UploadGrant{}, errf(CodeUnauthorized, "the signature is not the hub's for this blob")
	}
	if t.Expired(time.Now()) {
		return UploadGrant{}, errf(CodeUnauthorized, "the token expired at %s", t.Expiry.Format(time.RFC3339))
	}
	g := UploadGrant{id: t.ID}
	err := h.view(ctx, "authorize upload", func(r storage.Reader) error {
		u, err := loadUpload(r, g.id)
		if err != nil {
			return err
		}
		g.deviceID, g.generation, g.Expires = u.DeviceID, u.Generation, u.Expires
		return deviceTx(r, u.DeviceID, u.Generation)
	})
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeDeviceNotFound {
		err = unknownUpload(g.id)
	}
	return g, err
}

// loadUpload fails with CodeUploadNotFound when the upload has ended.
func loadUpload(r storage.Reader, id string) (uploadRecord, error) {
	u, err := uploadTable.Get(r, uploadKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return u, unknownUpload(id)
	}
	return u, err
}

// reserve makes room for a body of size bytes: bounded by upload, device and
// hub before the first byte is taken. The caller calls release when the body
// is stored or given up. whole says that it is the whole file, so that blocks
// that wait do not count against it.
func (h *Hub) reserve(ctx context.Context, g UploadGrant, size int64, whole bool) (release func(), err error) {
	most := h.limits.FileBytes
	if size < 0 || size > most {
		return nil, errf(CodeTooLarge, "the content has %d bytes, at most %d are allowed", size, most)
	}
	var r uploadRecord
	var held int64 // by all of the device's uploads
	err = h.view(ctx, "read upload", func(rd storage.Reader) error {
		var err error
		if r, err = loadUpload(rd, g.id); err != nil {
			return err
		}
		for item, err := range uploadTable.Lookup(rd, "device", storage.Range{Prefix: storage.Tuple(g.deviceID, g.generation)}) {
			if err != nil {
				return err
			}
			held += item.Value.held()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f := &h.files
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.bodies[g.id]
	if b == nil {
		b = &uploadBodies{deviceID: g.deviceID}
	}
	for _, other := range f.bodies {
		if other.deviceID == g.deviceID {
			held += other.bytes
		}
	}
	switch {
	case b.count >= bodiesPerUpload:
		return nil, errf(CodeThrottled, "%d requests for this upload are under way, at most %d may", b.count, bodiesPerUpload)
	case f.count >= bodiesInHub:
		return nil, errf(CodeThrottled, "%d uploads send content now, at most %d may", f.count, bodiesInHub)
	case !whole && r.Staged+b.bytes+size > most:
		return nil, errf(CodeTooLarge, "the upload's blocks have more than %d bytes together, which a file may have", most)
	case held+size > f.each:
		return nil, errf(CodeQuotaExceeded, "the device's unfinished uploads would hold %d bytes, at most %d may; joining blocks takes as much again as they have", held+size, f.each)
	case f.kept.staged.Load()+f.bytes+size > f.share:
		return nil, errf(CodeQuotaExceeded, "the hub holds as many bytes of unfinished uploads as it may, %d; notify it of those that have ended, or wait until they expire", f.share)
	}
	f.bodies[g.id] = b
	b.count++
	b.bytes += size
	f.count++
	f.bytes += size
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		b.count--
		b.bytes -= size
		f.count--
		f.bytes -= size
		if b.count == 0 {
			delete(f.bodies, g.id)
		}
	}, nil
}

// receive writes a body to a new blob, which the caller commits or aborts.
func (h *Hub) receive(b UploadBody) (*storage.BlobWriter, error) {
	w, err := h.db.Blobs().Create()
	if err != nil {
		return nil, storeError(err, "begin to store content")
	}
	sum := md5.New() //nolint:gosec // as above
	var to io.Writer = w
	if b.MD5 != nil {
		to = io.MultiWriter(w, sum)
	}
	from := &bodyReader{from: io.LimitReader(b, b.Size)}
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, from, make([]byte, bodyBuffer))
	switch {
	case from.err != nil:
		err = wrapf(CodeArgumentInvalid, from.err, "the content ended after %d of %d bytes", n, b.Size)
	case err != nil:
		err = storeError(err, "store content")
	case n != b.Size:
		err = errf(CodeArgumentInvalid, "the content ended after %d of %d bytes", n, b.Size)
	case b.MD5 != nil && !bytes.Equal(sum.Sum(nil), b.MD5):
		err = errf(CodeChecksum, "the content is not what its Content-MD5 says")
	default:
		return w, nil
	}
	w.Abort()
	return nil, err
}

// bodyReader tells what the client did wrong from what the disk did.
type bodyReader struct {
	from io.Reader
	err  error
}

func (r *bodyReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// StageBlock stores a block of an upload durably; the same id again replaces
// it. Errors: CodeUploadNotFound, CodeTooLarge, CodeTooManyBlocks,
// CodeQuotaExceeded, CodeChecksum, CodeArgumentInvalid for a body that ends early.
func (h *Hub) StageBlock(ctx context.Context, g UploadGrant, block string, b UploadBody) error {
	if block == "" || len(block) > 64 {
		return errf(CodeArgumentInvalid, "the block's id has %d bytes, expected 1 to 64", len(block))
	}
	release, err := h.reserve(ctx, g, b.Size, false)
	if err != nil {
		return err
	}
	defer release()
	w, err := h.receive(b)
	if err != nil {
		return err
	}
	made, err := w.Commit(ctx, func(tx *storage.Tx, blob storage.Blob) error {
		r, err := h.writableTx(tx, g)
		if err != nil {
			return err
		}
		key := storage.Tuple(g.id, block)
		was := r.held()
		switch before, err := uploadBlockTable.Get(tx, key); {
		case err == nil:
			r.Staged -= before.Size
			if before.Digest != blob.Digest {
				if err := h.releaseTx(tx, before.Digest, blockKeeper(g.id, block)); err != nil {
					return err
				}
			}
		case errors.Is(err, storage.ErrNotFound):
			r.Blocks++
		default:
			return err
		}
		if most := h.limits.UploadBlocks; r.Blocks > most {
			return errf(CodeTooManyBlocks, "the upload has %d blocks, at most %d are allowed; send larger ones", r.Blocks, most)
		}
		if r.Staged += blob.Size; r.Staged > h.limits.FileBytes {
			return errf(CodeTooLarge, "the upload's blocks have %d bytes together, a file may have %d", r.Staged, h.limits.FileBytes)
		}
		h.files.countTx(tx, 0, 0, 0, r.held()-was)
		return errors.Join(
			h.db.Blobs().Refer(tx, blob, blockKeeper(g.id, block)),
			uploadBlockTable.Put(tx, key, uploadBlock{Digest: blob.Digest, Size: blob.Size}),
			uploadTable.Put(tx, uploadKey(g.id), r))
	})
	return h.stored(made, err)
}

// stored ends a commit of content: with an error the sweeper looks whether
// anything refers to it.
func (h *Hub) stored(b storage.Blob, err error) error {
	if err != nil && b.Digest != "" {
		h.files.toSweep(b.Digest)
	}
	return storeError(err, "store content")
}

// writableTx returns an upload that may still be written.
func (h *Hub) writableTx(tx *storage.Tx, g UploadGrant) (uploadRecord, error) {
	r, err := loadUpload(tx, g.id)
	if err == nil {
		err = deviceTx(tx, r.DeviceID, r.Generation)
	}
	if err == nil && !r.Expires.After(tx.Now()) {
		err = errf(CodeUploadExpired, "the upload ended at %s; begin it again", r.Expires.Format(time.RFC3339))
	}
	return r, err
}

// PutUpload stores an upload's whole content durably. It replaces what was
// there, blocks included. Errors are those of StageBlock.
func (h *Hub) PutUpload(ctx context.Context, g UploadGrant, b UploadBody) (Stored, error) {
	if err := checkContent(b.Type, b.Encoding); err != nil {
		return Stored{}, err
	}
	release, err := h.reserve(ctx, g, b.Size, true)
	if err != nil {
		return Stored{}, err
	}
	defer release()
	w, err := h.receive(b)
	if err != nil {
		return Stored{}, err
	}
	var s Stored
	made, err := w.Commit(ctx, func(tx *storage.Tx, blob storage.Blob) (err error) {
		r, err := h.writableTx(tx, g)
		if err == nil {
			s, err = h.setContentTx(tx, g, r, blob, b.Type, b.Encoding, nil)
		}
		return err
	})
	return s, h.stored(made, err)
}

// checkContent bounds what a device says of its content and what operators
// get to see as headers.
func checkContent(kind, encoding string) error {
	for _, f := range []struct{ name, value string }{{"content type", kind}, {"content encoding", encoding}} {
		if len(f.value) > contentTypeMost || !printableASCII(f.value) {
			return errf(CodeArgumentInvalid, "the %s must have at most %d printable ASCII characters", f.name, contentTypeMost)
		}
	}
	return nil
}

// setContentTx makes a blob the content of an upload.
func (h *Hub) setContentTx(tx *storage.Tx, g UploadGrant, r uploadRecord, blob storage.Blob, kind, encoding string, list []byte) (Stored, error) {
	was := r.held()
	if r.Content != nil && r.Content.Digest != blob.Digest {
		if err := h.releaseTx(tx, r.Content.Digest, uploadKeeper(g.id)); err != nil {
			return Stored{}, err
		}
	}
	r.Content = &fileContent{Digest: blob.Digest, Size: blob.Size, Type: kind, Encoding: encoding}
	r.Blocks, r.Staged, r.List, r.Written = 0, 0, list, tx.Now().UTC()
	h.files.countTx(tx, 0, 0, 0, r.held()-was)
	return Stored{Digest: blob.Digest, Size: blob.Size, Time: r.Written}, errors.Join(
		h.dropBlocksTx(tx, g.id),
		h.db.Blobs().Refer(tx, blob, uploadKeeper(g.id)),
		uploadTable.Put(tx, uploadKey(g.id), r))
}

// CommitBlocks makes staged blocks, in the order given, the upload's content,
// durably; the others are dropped. The list that was committed last may be
// sent again by a client that missed the answer. CodeBlockUnknown when a block
// is not there; other errors are those of StageBlock.
func (h *Hub) CommitBlocks(ctx context.Context, g UploadGrant, ids []string, kind, encoding string) (Stored, error) {
	if err := checkContent(kind, encoding); err != nil {
		return Stored{}, err
	}
	if most := h.limits.UploadBlocks; len(ids) > most {
		return Stored{}, errf(CodeTooManyBlocks, "the list has %d blocks, at most %d are allowed; send larger ones", len(ids), most)
	}
	digest := sha256.Sum256([]byte(strings.Join(ids, "\x00") + "\x00" + kind + "\x00" + encoding))
	list := digest[:]
	blocks, done, err := h.blocksOf(ctx, g, ids, list)
	if err != nil || done != nil {
		return deref(done), err
	}
	var size int64
	for _, b := range blocks {
		if size += b.Size; size > h.limits.FileBytes {
			return Stored{}, errf(CodeTooLarge, "the blocks have more than %d bytes together, which a file may have", h.limits.FileBytes)
		}
	}
	var s Stored
	commit := func(tx *storage.Tx, blob storage.Blob) error {
		r, err := h.writableTx(tx, g)
		if err != nil {
			return err
		}
		for i, id := range ids {
			if b, err := uploadBlockTable.Get(tx, storage.Tuple(g.id, id)); err != nil || b != blocks[i] {
				return errf(CodeUnavailable, "the block %q was changed while the list was committed; send the list again", id)
			}
		}
		s, err = h.setContentTx(tx, g, r, blob, kind, encoding, list)
		return err
	}
	if len(blocks) == 1 { // its blob is the file's
		blob := storage.Blob{Digest: blocks[0].Digest, Size: blocks[0].Size}
		err := h.db.Update(ctx, func(tx *storage.Tx) error { return commit(tx, blob) })
		return s, h.stored(blob, err)
	}
	release, err := h.reserve(ctx, g, size, true)
	if err != nil {
		return Stored{}, err
	}
	defer release()
	w, err := h.join(ctx, blocks)
	if err != nil {
		return Stored{}, err
	}
	made, err := w.Commit(ctx, commit)
	return s, h.stored(made, err)
}

func deref(s *Stored) Stored {
	if s == nil {
		return Stored{}
	}
	return *s
}

// blocksOf finds the blocks of a list, or what the upload holds when exactly
// this list was committed last.
func (h *Hub) blocksOf(ctx context.Context, g UploadGrant, ids []string, list []byte) (blocks []uploadBlock, done *Stored, err error) {
	err = h.view(ctx, "read blocks", func(r storage.Reader) error {
		u, err := loadUpload(r, g.id)
		if err != nil {
			return err
		}
		for _, id := range ids {
			b, err := uploadBlockTable.Get(r, storage.Tuple(g.id, id))
			if errors.Is(err, storage.ErrNotFound) && u.Content != nil && bytes.Equal(u.List, list) {
				done = &Stored{Digest: u.Content.Digest, Size: u.Content.Size, Time: u.Written}
				return nil
			}
			if errors.Is(err, storage.ErrNotFound) {
				return errf(CodeBlockUnknown, "the block %q was not sent, or was committed already", id)
			}
			if err != nil {
				return err
			}
			blocks = append(blocks, b)
		}
		return nil
	})
	return blocks, done, err
}

// join copies blocks into one new blob, which the caller commits.
func (h *Hub) join(ctx context.Context, blocks []uploadBlock) (*storage.BlobWriter, error) {
	w, err := h.db.Blobs().Create()
	if err != nil {
		return nil, storeError(err, "begin to join blocks")
	}
	buffer := make([]byte, bodyBuffer)
	for _, b := range blocks {
		if err = ctx.Err(); err != nil {
			break
		}
		var from *storage.BlobReader
		if from, err = h.db.Blobs().Open(b.Digest); err != nil {
			break
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{from}, buffer)
		if err = errors.Join(err, from.Close()); err != nil {
			break
		}
	}
	if err != nil {
		w.Abort()
		if errors.Is(err, storage.ErrNotFound) {
			return nil, errf(CodeUnavailable, "a block was changed while the list was committed; send the list again")
		}
		return nil, storeError(err, "join blocks")
	}
	return w, nil
}
