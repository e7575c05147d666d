package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Blobs are contents that are too large for a record: files in DATA/blobs, each named by the
// SHA-256 of what it holds, so that equal contents are stored once and damage shows. A blob lives
// as long as a record refers to it (Refer, Release); Sweep removes the others.
type Blobs struct {
	db *DB

	mu      sync.Mutex
	pending map[string]int      // blobs that are being committed: not swept
	writing map[string]struct{} // temporary files that are written now
	holds   int                 // who reads blobs that may have lost their references
}

const (
	blobDir = "blobs"
	blobTmp = "new-" // begins the name of a blob that is not whole yet
)

// blobRef says that something refers to a blob; its key is the digest and who does.
type blobRef struct {
	Size int64 `json:"s"`
}

var blobTable = NewTable("blobs", 1, JSON[blobRef]())

// Blob names a content.
type Blob struct {
	Digest string // SHA-256, 64 hexadecimal digits
	Size   int64  // bytes
}

// Blobs returns the store's blobs.
func (db *DB) Blobs() *Blobs { return db.blobs }

// openBlobs makes the directory and removes what a process that died has left unfinished.
func openBlobs(db *DB) (*Blobs, error) {
	b := &Blobs{db: db, pending: map[string]int{}, writing: map[string]struct{}{}}
	if err := db.fs.MkdirAll(db.path(blobDir), 0o700); err != nil {
		return nil, err
	}
	entries, err := db.fs.ReadDir(db.path(blobDir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), blobTmp) {
			if err := db.fs.Remove(b.path(e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func (b *Blobs) path(name string) string { return b.db.path(blobDir, name) }

func validDigest(s string) bool {
	if len(s) != 2*sha256.Size || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

// BlobWriter takes the content of a new blob. It belongs to one goroutine. Commit or Abort ends it.
type BlobWriter struct {
	blobs *Blobs
	name  string
	file  file
	sum   hash.Hash
	size  int64
	err   error
}

// Create begins a blob. Errors: ErrReserve when space ends, ErrClosed.
func (b *Blobs) Create() (*BlobWriter, error) {
	now := time.Now()
	if err := b.db.writable(now); err != nil {
		return nil, err
	}
	if err := b.db.space.check(now, false); err != nil {
		return nil, err
	}
	return b.create()
}

func (b *Blobs) create() (*BlobWriter, error) {
	name := blobTmp + rand.Text()
	b.mu.Lock()
	b.writing[name] = struct{}{}
	b.mu.Unlock()
	f, err := b.db.fs.OpenFile(b.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		b.done(name)
		return nil, err
	}
	return &BlobWriter{blobs: b, name: name, file: f, sum: sha256.New()}, nil
}

func (b *Blobs) done(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.writing, name)
}

// Write appends to the content [io.Writer]. ErrReserve when space ends.
func (w *BlobWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.blobs.db.space.check(time.Now(), false)
	}
	if w.err == nil {
		_, w.err = w.file.WriteAt(p, w.size)
	}
	if w.err != nil {
		return 0, w.err
	}
	w.sum.Write(p)
	w.size += int64(len(p))
	return len(p), nil
}

// Size returns how many bytes have been written.
func (w *BlobWriter) Size() int64 { return w.size }

// Abort drops what was written. After Commit it does nothing.
func (w *BlobWriter) Abort() {
	if w.file == nil {
		return
	}
	_ = w.file.Close() // its content is not wanted
	w.file = nil
	_ = w.blobs.db.fs.Remove(w.blobs.path(w.name)) // else the next start removes it
	w.blobs.done(w.name)
}

// Commit makes the content durable and then runs refer as one transaction, which calls Refer for
// the blob beside whatever else it stores. When it returns nil, both are durable; with an error
// the blob is swept sooner or later. As every function of a transaction, refer may run twice.
func (w *BlobWriter) Commit(ctx context.Context, refer func(tx *Tx, b Blob) error) (Blob, error) {
	blob, err := w.seal()
	if err != nil {
		return Blob{}, err
	}
	defer w.blobs.settled(blob.Digest)
	return blob, w.blobs.db.Update(ctx, func(tx *Tx) error { return refer(tx, blob) })
}

// seal gives the file its name. The blob is pending until settled is called for it.
func (w *BlobWriter) seal() (Blob, error) {
	if w.file == nil {
		return Blob{}, errors.New("storage: a blob was ended twice")
	}
	b := w.blobs
	blob := Blob{Digest: hex.EncodeToString(w.sum.Sum(nil)), Size: w.size}
	if w.err == nil {
		w.err = w.file.Datasync()
	}
	if w.err != nil {
		w.Abort()
		return Blob{}, w.err
	}
	err := w.file.Close()
	w.file = nil
	b.mu.Lock()
	b.pending[blob.Digest]++
	b.mu.Unlock()
	if err == nil {
		err = b.db.fs.Rename(b.path(w.name), b.path(blob.Digest))
	}
	if err == nil {
		err = b.db.fs.SyncDir(b.path(""))
	}
	b.done(w.name)
	if err != nil {
		_ = b.db.fs.Remove(b.path(w.name))
		b.settled(blob.Digest)
		return Blob{}, err
	}
	return blob, nil
}

func (b *Blobs) settled(digest string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending[digest]--; b.pending[digest] <= 0 {
		delete(b.pending, digest)
	}
}

// Refer makes by one of those that keep a blob. It is for transactions of Commit, and for others
// that know that something refers to the blob already.
func (b *Blobs) Refer(tx *Tx, blob Blob, by Key) error {
	if !validDigest(blob.Digest) {
		return fmt.Errorf("storage: %q is no digest of a blob", blob.Digest)
	}
	return blobTable.Put(tx, Tuple(blob.Digest, []byte(by)), blobRef{Size: blob.Size})
}

// Release takes a reference away; a blob without any is swept.
func (b *Blobs) Release(tx *Tx, digest string, by Key) error {
	return blobTable.Delete(tx, Tuple(digest, []byte(by)))
}

// BlobReader reads a blob [io.ReadSeeker]. Close ends it.
type BlobReader struct {
	*io.SectionReader
	file file
}

// Close closes the file.
func (r *BlobReader) Close() error { return r.file.Close() }

// Open opens a blob for reading; ErrNotFound when there is none of that digest. A blob that is
// swept meanwhile stays readable until Close.
func (b *Blobs) Open(digest string) (*BlobReader, error) {
	if !validDigest(digest) {
		return nil, fmt.Errorf("%w: %q is no digest", ErrNotFound, digest)
	}
	f, err := b.db.fs.OpenFile(b.path(digest), os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: blob %s", ErrNotFound, digest)
	}
	if err != nil {
		return nil, err
	}
	n, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &BlobReader{io.NewSectionReader(f, 0, n), f}, nil
}

// hold keeps Sweep from removing anything until the returned function is called.
func (b *Blobs) hold() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.holds--
	}
}

// Sweep removes blobs that nothing refers to, and returns how many. The engine calls it from time to time.
func (b *Blobs) Sweep(ctx context.Context) (removed int, err error) {
	entries, err := b.db.fs.ReadDir(b.path(""))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		gone, _, err := b.sweepOne(ctx, e.Name())
		if err != nil {
			return removed, err
		}
		if gone {
			removed++
		}
	}
	return removed, nil
}

// Drop removes the blob of a digest if nothing refers to it: Sweep for a caller who knows which
// have lost a reference. later says that nobody can tell now, since the content is being stored
// again or a backup reads.
func (b *Blobs) Drop(ctx context.Context, digest string) (later bool, err error) {
	_, later, err = b.sweepOne(ctx, digest)
	return later, err
}

// sweepOne removes one file if it may go; later says that it may have to wait for somebody. The
// lock keeps the same content from being committed between the look at its references and the
// removal.
func (b *Blobs) sweepOne(ctx context.Context, name string) (gone, later bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !validDigest(name) && !strings.HasPrefix(name, blobTmp) {
		return false, false, nil
	}
	if _, writing := b.writing[name]; b.holds > 0 || writing || b.pending[name] > 0 {
		return false, true, nil
	}
	used := false
	err = b.db.View(ctx, func(r Reader) error {
		for _, err := range blobTable.Scan(r, Range{Prefix: Tuple(name)}) {
			used = true
			return err
		}
		return nil
	})
	if err != nil || used {
		return false, false, err
	}
	if err := b.db.fs.Remove(b.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, false, err
	}
	return true, false, nil
}

// referred calls f once for each blob that the reader's state refers to, in the order of their digests.
func (b *Blobs) referred(r Reader, f func(Blob) error) error {
	last := ""
	for item, err := range blobTable.Scan(r, Range{}) {
		if err != nil {
			return err
		}
		parts, err := item.Key.Parts()
		if err != nil || len(parts) != 2 {
			return fmt.Errorf("%w: a reference to a blob has the key %q", ErrCorrupt, item.Key)
		}
		digest, _ := parts[0].(string)
		if digest == last {
			continue
		}
		last = digest
		if err := f(Blob{Digest: digest, Size: item.Value.Size}); err != nil {
			return err
		}
	}
	return nil
}

// verify reads every blob that something refers to and compares its digest.
func (b *Blobs) verify(ctx context.Context, rep *Report) error {
	return b.db.View(ctx, func(r Reader) error {
		return b.referred(r, func(blob Blob) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			rep.Blobs++
			n, err := b.check(blob)
			rep.Bytes += n
			if errors.Is(err, ErrCorrupt) {
				rep.problem(err)
				return nil
			}
			return err
		})
	})
}

// check reads one blob; ErrCorrupt when it is not what its name says.
func (b *Blobs) check(blob Blob) (int64, error) {
	f, err := b.Open(blob.Digest)
	if errors.Is(err, ErrNotFound) {
		return 0, fmt.Errorf("%w: the blob %s is missing, although a record refers to it", ErrCorrupt, b.path(blob.Digest))
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return n, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != blob.Digest || n != blob.Size {
		return n, fmt.Errorf("%w: the blob %s has %d bytes with the SHA-256 %s, %d bytes with that of its name are expected", ErrCorrupt, b.path(blob.Digest), n, got, blob.Size)
	}
	return n, nil
}
