package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// File is a file that a device has uploaded.
type File struct {
	DeviceID      string
	Name          string // within the device: parts separated by slashes
	Size          int64
	Digest        string // SHA-256, hexadecimal
	ContentType   string // as the device said; may be empty
	Encoding      string // content encoding as the device said; may be empty
	CorrelationID string // of the upload
	Created       time.Time
	Updated       time.Time // of the newest upload under this name
}

// fileContent is what an upload or a file holds.
type fileContent struct {
	Digest   string `json:"h"`
	Size     int64  `json:"s"`
	Type     string `json:"t,omitempty"`
	Encoding string `json:"e,omitempty"`
}

func (c fileContent) blob() storage.Blob { return storage.Blob{Digest: c.Digest, Size: c.Size} }

// fileRecord is a stored file.
type fileRecord struct {
	DeviceID   string `json:"d"`
	Generation string `json:"g"`
	Name       string `json:"n"`
	fileContent
	Upload  string    `json:"i"` // correlation id
	Created time.Time `json:"c"`
	Updated time.Time `json:"u"`
}

// fileTable holds the generation in its keys, so that a device that is made
// again does not inherit the files of the one before it.
var fileTable = storage.NewTable("file", 1, storage.JSON[fileRecord](),
	storage.Index[fileRecord]{Name: "age", Keys: func(_ storage.Key, r fileRecord) []storage.Key {
		return []storage.Key{storage.Tuple(r.Updated)}
	}},
	storage.Index[fileRecord]{Name: "device", Keys: func(_ storage.Key, r fileRecord) []storage.Key {
		return []storage.Key{storage.Tuple(r.DeviceID, r.Generation, r.Updated)}
	}},
	storage.Index[fileRecord]{Name: "upload", Keys: func(_ storage.Key, r fileRecord) []storage.Key {
		return []storage.Key{storage.Tuple(r.Upload)}
	}})

func fileKey(deviceID, generation, name string) storage.Key {
	return storage.Tuple(deviceID, generation, name)
}

func (r *fileRecord) key() storage.Key { return fileKey(r.DeviceID, r.Generation, r.Name) }

// keeper is who refers to the file's blob.
func (r *fileRecord) keeper() storage.Key {
	return storage.Tuple("file", r.DeviceID, r.Generation, r.Name)
}

func (r *fileRecord) file() File {
	return File{
		DeviceID: r.DeviceID, Name: r.Name, Size: r.Size, Digest: r.Digest, ContentType: r.Type, Encoding: r.fileContent.Encoding,
		CorrelationID: r.Upload, Created: r.Created, Updated: r.Updated,
	}
}

// The commutative counters of files and of what is being uploaded.
const (
	counterFiles     = "files"
	counterFileBytes = "files.bytes"
	counterUploads   = "uploads"
	counterStaged    = "uploads.bytes"
)

// fileState is what the hub remembers of files and uploads beside the store.
type fileState struct {
	key       []byte // signs upload tokens; nil while it could not be made
	notify    bool   // files are told to the service
	share     int64  // bytes that files may take, and as many that uploads may
	each      int64  // of one device
	kept      fileCounts
	completed atomic.Int64 // uploads that became files
	failed    atomic.Int64 // uploads that did not
	dropped   atomic.Int64 // files that retention removed

	mu     sync.Mutex
	bodies map[string]*uploadBodies // what is being written now, by upload
	count  int                      // requests
	bytes  int64

	released map[string]struct{} // digests that may have lost their last reference
	swept    time.Time           // when all contents were looked at; zero: to be done
}

// fileCounts mirror the store's counters, for metrics and for the sweeper.
type fileCounts struct{ files, bytes, uploads, staged atomic.Int64 }

// uploadBodies is what is being written for one upload.
type uploadBodies struct {
	deviceID string
	count    int
	bytes    int64
}

// uploadKeyTable holds the key that signs upload tokens, sealed.
var uploadKeyTable = storage.NewTable("upload.key", 1, storage.JSON[[]byte]())

const uploadKeyContext = "uploads"

// openFiles makes the key at the first start and reads what is kept.
func (h *Hub) openFiles(ctx context.Context, notify bool) error {
	f := &h.files
	f.notify, f.bodies, f.released = notify, map[string]*uploadBodies{}, map[string]struct{}{}
	f.share = h.limits.FileShareBytes
	if size, err := h.db.DiskSize(); err == nil {
		f.share = min(f.share, size/10)
	}
	f.each = min(h.limits.FileDeviceBytes, f.share/2) // nobody may take all
	key := storage.Tuple("1")
	err := h.update(ctx, "make the key of uploads", func(tx *storage.Tx) error {
		_, err := uploadKeyTable.Get(tx, key)
		if !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		secret, err := auth.NewKey().Bytes()
		if err != nil {
			return err
		}
		sealed, err := h.db.Seal(secret, uploadKeyContext)
		if err != nil {
			return err
		}
		return uploadKeyTable.Put(tx, key, sealed)
	})
	// A store that takes no writes takes no files either.
	if e, ok := errors.AsType[*Error](err); ok && (e.Code == CodeReadOnly || e.Code == CodeUnavailable) {
		err = nil
	}
	if err != nil {
		return err
	}
	return h.view(ctx, "read the key of uploads", func(r storage.Reader) error {
		sealed, err := uploadKeyTable.Get(r, key)
		if err == nil {
			f.key, err = h.db.Unseal(sealed, uploadKeyContext)
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		for name, into := range map[string]*atomic.Int64{counterFiles: &f.kept.files, counterFileBytes: &f.kept.bytes, counterUploads: &f.kept.uploads, counterStaged: &f.kept.staged} {
			n, err := storage.Counter(r, name)
			if err != nil {
				return err
			}
			into.Store(n)
		}
		return nil
	})
}

// countTx changes the counters and, once that is durable, their mirrors.
func (f *fileState) countTx(tx *storage.Tx, files, bytes, uploads, staged int64) {
	for _, c := range []struct {
		name string
		into *atomic.Int64
		by   int64
	}{
		{counterFiles, &f.kept.files, files}, {counterFileBytes, &f.kept.bytes, bytes},
		{counterUploads, &f.kept.uploads, uploads}, {counterStaged, &f.kept.staged, staged},
	} {
		if c.by != 0 {
			tx.Add(c.name, c.by)
			tx.OnCommit(func(uint64) { c.into.Add(c.by) })
		}
	}
}

// releaseTx gives a reference to a blob up; the sweeper then looks at it.
func (h *Hub) releaseTx(tx *storage.Tx, digest string, by storage.Key) error {
	tx.OnCommit(func(uint64) { h.files.toSweep(digest) })
	return h.db.Blobs().Release(tx, digest, by)
}

// FileTotals are the figures of files and uploads, for metrics.
type FileTotals struct {
	Files, Bytes, Uploads, Staged, Writing int64 // gauges: kept, under way, their bytes, bodies being received
	Share                                  int64 // bytes that files may take
	Completed, Failed, Dropped             int64 // since the start: uploads that became files, that did not, files removed by retention
}

// FileTotals returns the figures; it is cheap and safe from any goroutine.
func (h *Hub) FileTotals() FileTotals {
	f := &h.files
	f.mu.Lock()
	writing := f.count
	f.mu.Unlock()
	return FileTotals{
		Files: f.kept.files.Load(), Bytes: f.kept.bytes.Load(), Uploads: f.kept.uploads.Load(), Staged: f.kept.staged.Load(), Writing: int64(writing),
		Share: f.share, Completed: f.completed.Load(), Failed: f.failed.Load(), Dropped: f.dropped.Load(),
	}
}

// Files lists a device's files in the order of their names behind the one
// given, at most limit (1 to 1000), those whose names begin with prefix. next
// is empty at the end. It needs ServiceConnect.
func (h *Hub) Files(ctx context.Context, c Caller, deviceID, prefix, after string, limit int) (list []File, next string, err error) {
	if err := h.authorize(ctx, c, opFileRead, deviceID); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > filePage {
		limit = filePage
	}
	list = []File{}
	err = h.view(ctx, "list files", func(r storage.Reader) error {
		device, err := loadDevice(r, deviceID)
		if err != nil {
			return err
		}
		g := storage.Range{Prefix: storage.Tuple(deviceID, device.GenerationID), Start: fileKey(deviceID, device.GenerationID, prefix)}
		if after >= prefix && after != "" {
			g.Start, g.After = nil, fileKey(deviceID, device.GenerationID, after)
		}
		for item, err := range fileTable.Scan(r, g) {
			if err != nil {
				return err
			}
			f := item.Value.file()
			if len(f.Name) < len(prefix) || f.Name[:len(prefix)] != prefix {
				return nil
			}
			if len(list) == limit {
				next = list[limit-1].Name
				return nil
			}
			list = append(list, f)
		}
		return nil
	})
	return list, next, err
}

const (
	filePage  = 1000
	fileBatch = 100 // files that one transaction removes at most
)

// File returns one file of a device; CodeFileNotFound when there is none of
// that name. It needs ServiceConnect.
func (h *Hub) File(ctx context.Context, c Caller, deviceID, name string) (File, error) {
	if err := h.authorize(ctx, c, opFileRead, deviceID); err != nil {
		return File{}, err
	}
	var f File
	err := h.view(ctx, "read file", func(r storage.Reader) error {
		record, err := loadFile(r, deviceID, name)
		f = record.file()
		return err
	})
	return f, err
}

func loadFile(r storage.Reader, deviceID, name string) (fileRecord, error) {
	device, err := loadDevice(r, deviceID)
	if err != nil {
		return fileRecord{}, err
	}
	record, err := fileTable.Get(r, fileKey(deviceID, device.GenerationID, name))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeFileNotFound, "%q has no file %q", deviceID, name)
	}
	return record, err
}

// OpenFile returns a file with its content, which the caller closes. Errors
// are those of File. It needs ServiceConnect.
func (h *Hub) OpenFile(ctx context.Context, c Caller, deviceID, name string) (File, io.ReadSeekCloser, error) {
	// The file may be replaced, and its content swept, between the two looks.
	for range 3 {
		f, err := h.File(ctx, c, deviceID, name)
		if err != nil {
			return File{}, nil, err
		}
		content, err := h.db.Blobs().Open(f.Digest)
		if err == nil {
			return f, content, nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return File{}, nil, storeError(err, "open file")
		}
	}
	return File{}, nil, errf(CodeInternal, "the content of %q of %q is missing; run `muster verify` on the stopped hub", name, deviceID)
}

// DeleteFile removes a file. Errors are those of File. It needs ServiceConnect.
func (h *Hub) DeleteFile(ctx context.Context, c Caller, deviceID, name string) error {
	if err := h.authorize(ctx, c, opFileDelete, deviceID); err != nil {
		return err
	}
	return h.update(ctx, "delete file", func(tx *storage.Tx) error {
		r, err := loadFile(tx, deviceID, name)
		if err != nil {
			return err
		}
		details, err := json.Marshal(struct {
			Name   string `json:"name"`
			Digest string `json:"sha256"`
		}{r.Name, r.Digest})
		return errors.Join(err, h.dropFileTx(tx, c, r, "deleted"), h.auditTx(tx, c, opFileDelete, deviceID, details))
	})
}

// fileChange is the data of the changes of files.
type fileChange struct {
	Name          string `json:"name"`
	Size          *int64 `json:"size,omitempty"`
	Digest        string `json:"sha256,omitempty"`
	ContentType   string `json:"contentType,omitempty"`
	CorrelationID string `json:"correlationId,omitempty"`
	Reason        string `json:"reason,omitempty"`
	StatusCode    int    `json:"statusCode,omitempty"` // of an upload that failed, as the device said
	Description   string `json:"statusDescription,omitempty"`
}

func appendFileChange(tx *storage.Tx, c Caller, kind, deviceID string, data fileChange) error {
	b, err := marshal(data)
	if err != nil {
		return err
	}
	return appendChange(tx, c, kind, TwinID{DeviceID: deviceID}, 0, b)
}

// dropFileTx removes a file. It puts no record, so that it also runs when
// space has run short.
func (h *Hub) dropFileTx(tx *storage.Tx, c Caller, r fileRecord, reason string) error {
	h.files.countTx(tx, -1, -r.Size, 0, 0)
	return errors.Join(
		fileTable.Delete(tx, r.key()),
		h.releaseTx(tx, r.Digest, r.keeper()),
		appendFileChange(tx, c, changeFileDeleted, r.DeviceID, fileChange{Name: r.Name, Size: &r.Size, Digest: r.Digest, CorrelationID: r.Upload, Reason: reason}),
	)
}

// crowdedOut returns the device's oldest files that must go so that what is
// left and the upload's are within the device's bounds. It looks outside of
// the transaction that removes them, which others wait for: devices that end
// several uploads at once may stay above the bound until the next one.
func (h *Hub) crowdedOut(ctx context.Context, correlationID string) (list []fileRecord, err error) {
	err = h.view(ctx, "look for room", func(r storage.Reader) error {
		u, err := uploadTable.Get(r, uploadKey(correlationID))
		if errors.Is(err, storage.ErrNotFound) || err == nil && u.Content == nil {
			return nil // the transaction says so
		}
		if err != nil {
			return err
		}
		sum := u.Content.Size
		for item, err := range fileTable.Lookup(r, "device", storage.Range{Prefix: storage.Tuple(u.DeviceID, u.Generation)}) {
			if err != nil {
				return err
			}
			if item.Value.Name != u.Name { // else it is replaced
				list = append(list, item.Value)
				sum += item.Value.Size
			}
		}
		n := 0
		// A transaction has a bound too: the next upload goes on from here.
		for n < len(list) && n < fileBatch && (sum > h.files.each || len(list)-n >= h.limits.FilesPerDevice) {
			sum -= list[n].Size
			n++
		}
		list = list[:n]
		return nil
	})
	return list, err
}

// makeRoomTx removes files, those that are still what they were.
func (h *Hub) makeRoomTx(tx *storage.Tx, c Caller, list []fileRecord) error {
	for _, r := range list {
		now, err := fileTable.Get(tx, r.key())
		if errors.Is(err, storage.ErrNotFound) || err == nil && now.Upload != r.Upload {
			continue
		}
		if err == nil {
			err = h.dropFileTx(tx, c, now, "space")
		}
		if err != nil {
			return err
		}
		tx.OnCommit(func(uint64) { h.files.dropped.Add(1) })
	}
	return nil
}
