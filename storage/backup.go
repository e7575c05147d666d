package storage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A backup is a magic number and frames. A frame is a kind (1 byte), the length of its body (4
// bytes, little-endian), a CRC-32C over both and the body (4 bytes) and the body. The kinds, in
// their order: one header, at most one master key, any number of record chunks, any number of
// message chunks, any number of blob chunks, one trailer, the end of the file. What could not be
// finished ends with why. See docs/reference/storage-format.md.
const (
	backupMagic   = "MUSTERB\x01"
	backupVersion = 2 // 1 had no blobs

	backupHeader   = 'H'
	backupKey      = 'K'
	backupRecords  = 'R'
	backupMessages = 'M'
	backupBlobs    = 'B'
	backupTrailer  = 'T'
	backupFailed   = 'E' // instead of all that would follow: why the backup ended

	backupOrder    = "HKRMBT"
	backupChunk    = 256 << 10     // bytes after which a chunk is written
	backupPart     = 128 << 10     // bytes of a part of a blob
	maxBackupChunk = 4 << 20       // most bytes of a chunk, compressed or not
	maxBackupText  = 1 << 20       // most bytes of header, key and trailer
	maxBackupTime  = 4 * time.Hour // how long one backup may hold its snapshot
	maxBackupLogs  = 1000          // logs that a backup names
)

// ErrBackup says that the bytes are no whole backup. The text names the offset and what was read there.
var ErrBackup = errors.New("the backup is damaged")

// BackupOptions say what a backup contains beyond the data.
type BackupOptions struct {
	// Passphrase, when not empty, includes the master key, encrypted under it. Without it whoever
	// restores needs the key file.
	Passphrase []byte
	// Progress, when not nil, is called after each chunk with the bytes read so far. It must not block.
	Progress func(bytes int64)
}

// BackupInfo describes a backup.
type BackupInfo struct {
	Version  int           `json:"version"`
	Rung     int           `json:"rung"` // of the data directory's format
	Epoch    string        `json:"epoch"`
	Ordinal  uint32        `json:"ordinal"`
	Sequence uint64        `json:"sequence"` // the newest commit that it holds
	Newest   int64         `json:"newest"`   // time of the newest commit, Unix ns
	Time     time.Time     `json:"time"`
	Key      string        `json:"key"` // fingerprint of the master key
	HasKey   bool          `json:"hasKey"`
	Logs     []BackupLog   `json:"logs,omitempty"`     // in the order of their names
	Messages uint64        `json:"messages,omitempty"` // the newest position of the message log that it holds
	Tables   []BackupTable `json:"tables,omitempty"`
	SHA256   string        `json:"sha256,omitempty"` // of every byte before the trailer
	Size     int64         `json:"size,omitempty"`   // bytes of the backup
}

// BackupLog says how far a log went at the backup's sequence.
type BackupLog struct {
	Name string `json:"name"`
	Last uint64 `json:"last"` // the newest position
}

// Last returns the newest position of a log at the backup's sequence; 0 for one that is not in it.
func (i BackupInfo) Last(log string) uint64 {
	for _, l := range i.Logs {
		if l.Name == log {
			return l.Last
		}
	}
	return 0
}

// BackupTable counts one table, index, log, all counters or all cursors; "messages" is the message log, "blob contents" are the parts of blobs.
type BackupTable struct {
	Name    string `json:"name"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"` // of the lengths, keys and values in order
}

// Backup writes the state of one committed sequence to w, while transactions go on, and the
// messages that were durable at that moment. It rests between chunks, longer while there are
// transactions. It returns an error, and w holds no whole backup, when ctx ends, w fails, a value
// is damaged, four hours have passed or free space falls below the reserve meanwhile (ErrReserve), as
// it does when w ends on the disk of the store.
func (db *DB) Backup(ctx context.Context, w io.Writer, o BackupOptions) (info BackupInfo, err error) {
	ctx, stop := context.WithTimeoutCause(ctx, maxBackupTime,
		fmt.Errorf("storage: the backup took longer than %s; write it to a faster disk", maxBackupTime))
	defer stop()
	defer db.blobs.hold()() // before the snapshot: what it refers to must stay
	snap, err := db.newSnapshot()
	if err != nil {
		return info, err
	}
	defer snap.end()
	pinned, err := db.messages.pin()
	if err != nil {
		return info, err
	}
	defer pinned.close()
	guard := db.spaceStop()
	bw, err := newBackupWriter(ctx, w, o.Progress)
	if err != nil {
		return info, err
	}
	bw.pace = db.pacer()
	bw.guard = guard
	info = BackupInfo{
		Version: backupVersion, Rung: db.format.Rung, Epoch: db.format.EpochID, Ordinal: db.format.Ordinal,
		Sequence: snap.seq, Newest: db.newest.Load(), Time: time.Now().UTC(), Key: db.seal.id(), HasKey: len(o.Passphrase) > 0,
		Messages: pinned.last,
	}
	if info.Logs, err = snap.logs(); err != nil {
		return info, err
	}
	if err := bw.text(backupHeader, info); err != nil {
		return info, err
	}
	defer func() {
		if err != nil && bw.failed == nil {
			_ = bw.frame(backupFailed, []byte(err.Error())) // for whoever reads w; the error itself is returned
		}
	}()
	if info.HasKey {
		key, err := db.lockKey(o.Passphrase)
		if err == nil {
			err = bw.text(backupKey, key)
		}
		if err != nil {
			return info, err
		}
	}
	for p, err := range snap.scan([]byte("\""), nil, false) { // behind Badger's own "!badger!"
		if err == nil {
			_, _, err = unframe(p.key, p.value)
		}
		if err == nil {
			err = bw.add(backupRecords, p.key, p.value)
		}
		if err != nil {
			return info, err
		}
	}
	var blobs []Blob
	err = db.blobs.referred(snap, func(b Blob) error { blobs = append(blobs, b); return nil })
	if err != nil {
		return info, err
	}
	snap.end() // Badger may forget old versions again
	if err := bw.flush(); err != nil {
		return info, err
	}
	for e, err := range pinned.read() {
		if err == nil {
			err = bw.add(backupMessages, messageKey(e), e.Data)
		}
		if err != nil {
			return info, err
		}
	}
	for _, b := range blobs {
		if err := db.backupBlob(bw, b); err != nil {
			return info, err
		}
	}
	return bw.finish(info)
}

// logs names every log with its newest position.
func (s *snapshot) logs() ([]BackupLog, error) {
	newest := map[string]uint64{}
	for _, place := range logPlaces {
		for p, err := range newestOfLogs(s, place) {
			if err != nil {
				return nil, err
			}
			name, last, _ := splitLogKey(p.key)
			newest[name] = max(newest[name], last)
		}
	}
	var list []BackupLog
	for _, name := range slices.Sorted(maps.Keys(newest)) {
		list = append(list, BackupLog{name, newest[name]})
	}
	return list[:min(len(list), maxBackupLogs)], nil
}

// backupBlob adds a blob in parts, and fails when it is not what its name says.
func (db *DB) backupBlob(bw *backupWriter, b Blob) error {
	f, err := db.blobs.Open(b.Digest)
	if err != nil {
		return fmt.Errorf("%w: reading a blob: %w", ErrCorrupt, err)
	}
	defer f.Close()
	sum, err := hex.DecodeString(b.Digest)
	if err != nil {
		return err
	}
	got, part := sha256.New(), make([]byte, min(backupPart, max(b.Size, 1)))
	for at := int64(0); ; {
		n, err := io.ReadFull(f, part)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if n > 0 || at == 0 { // an empty blob has one empty part
			got.Write(part[:n])
			if err := bw.add(backupBlobs, binary.BigEndian.AppendUint64(slices.Clip(sum), uint64(at)), part[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		if err != nil {
			break
		}
	}
	if !bytes.Equal(got.Sum(nil), sum) {
		return fmt.Errorf("%w: the blob %s has another content than its name says", ErrCorrupt, db.blobs.path(b.Digest))
	}
	return nil
}

// messageKey is the key of a message in a backup: its position and its time.
func messageKey(e Entry) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, e.Position), uint64(e.Time.UnixNano()))
}

type backupWriter struct {
	ctx      context.Context
	w        io.Writer
	sum      hash.Hash
	size     int64
	read     int64
	zip      *zstd.Encoder
	kind     byte
	raw, out []byte
	tally    tally
	progress func(int64)
	pace     *pacer
	guard    func() error  // may stop the backup; nil: nothing does
	blocked  time.Duration // in w, since the last rest
	failed   error         // of w
}

func newBackupWriter(ctx context.Context, w io.Writer, progress func(int64)) (*backupWriter, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, err
	}
	b := &backupWriter{ctx: ctx, w: w, sum: sha256.New(), zip: zip, progress: progress}
	return b, b.write([]byte(backupMagic))
}

func (b *backupWriter) write(p []byte) error {
	if err := context.Cause(b.ctx); err != nil {
		b.failed = err
		return err
	}
	b.sum.Write(p)
	began := time.Now()
	n, err := b.w.Write(p)
	b.blocked += time.Since(began)
	b.size += int64(n)
	if err != nil {
		b.failed = err
	}
	return err
}

func (b *backupWriter) frame(kind byte, body []byte) error {
	head := binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
	if err := b.write(binary.LittleEndian.AppendUint32(head, sum)); err != nil {
		return err
	}
	return b.write(body)
}

func (b *backupWriter) text(kind byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.frame(kind, body)
}

func (b *backupWriter) add(kind byte, key, value []byte) error {
	if len(b.raw) > 0 && (b.kind != kind || len(b.raw)+len(key)+len(value) > backupChunk) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.kind = kind
	b.raw = appendPair(b.raw, key, value)
	b.tally.add(kind, key, value)
	return nil
}

func (b *backupWriter) flush() error {
	if len(b.raw) == 0 {
		return nil
	}
	b.out = b.zip.EncodeAll(b.raw, b.out[:0])
	b.read += int64(len(b.raw))
	b.raw = b.raw[:0]
	if err := b.frame(b.kind, b.out); err != nil {
		return err
	}
	if b.progress != nil {
		b.progress(b.read)
	}
	if b.guard != nil {
		if err := b.guard(); err != nil {
			return err
		}
	}
	blocked := b.blocked
	b.blocked = 0
	return b.pace.rest(b.ctx, blocked)
}

func (b *backupWriter) finish(info BackupInfo) (BackupInfo, error) {
	if err := b.flush(); err != nil {
		return info, err
	}
	info.Tables, info.SHA256 = b.tally.end(), hex.EncodeToString(b.sum.Sum(nil))
	err := b.text(backupTrailer, info)
	info.Size = b.size
	return info, err
}

func appendPair(dst, key, value []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(key))), key...)
	return append(binary.AppendUvarint(dst, uint64(len(value))), value...)
}

// tally counts and hashes by table; keys come in order, so one table is open at a time, except
// that equal names are never apart.
type tally struct {
	tables []BackupTable
	sum    hash.Hash
}

func (t *tally) add(kind byte, key, value []byte) {
	name := "messages"
	switch kind {
	case backupRecords:
		name = tallyName(key)
	case backupBlobs:
		name = "blob contents"
	}
	n := len(t.tables)
	if n == 0 || t.tables[n-1].Name != name {
		t.close()
		t.tables, t.sum = append(t.tables, BackupTable{Name: name}), sha256.New()
		n++
	}
	row := &t.tables[n-1]
	row.Records++
	row.Bytes += int64(len(key) + len(value))
	var size [2 * binary.MaxVarintLen64]byte
	at := binary.PutUvarint(size[:], uint64(len(key)))
	at += binary.PutUvarint(size[at:], uint64(len(value)))
	t.sum.Write(size[:at])
	t.sum.Write(key)
	t.sum.Write(value)
}

func (t *tally) close() {
	if n := len(t.tables); n > 0 && t.sum != nil {
		t.tables[n-1].SHA256 = hex.EncodeToString(t.sum.Sum(nil))
		t.sum = nil
	}
}

func (t *tally) end() []BackupTable {
	t.close()
	return t.tables
}

func tallyName(key []byte) string {
	switch name, _, ok := bytes.Cut(key, []byte{0}); {
	case bytes.HasPrefix(key, []byte(prefixCounter)):
		return "counters"
	case bytes.HasPrefix(key, []byte(prefixCursor)):
		return "cursors"
	case ok:
		return string(name)
	default:
		return "other"
	}
}

// VerifyBackup reads a whole backup. Any flipped byte, missing part or added byte is ErrBackup,
// named with its offset and the table that was being read.
func VerifyBackup(ctx context.Context, r io.Reader) (BackupInfo, error) {
	return readBackup(ctx, r, backupTarget{})
}

// backupTarget takes what a backup holds; nil fields take nothing. Slices are valid until the
// function returns.
type backupTarget struct {
	header func(BackupInfo) error
	key    func(lockedKey) error
	pair   func(kind byte, key, value []byte) error
	pace   *pacer // nil: does not rest
}

type backupReader struct {
	r    io.Reader
	sum  hash.Hash
	at   int64
	from int64 // offset of the frame
	last tally
	body bytes.Buffer // of the frame
}

func (b *backupReader) bad(format string, args ...any) error {
	where := ""
	if n := len(b.last.tables); n > 0 {
		where = " (in or after table " + b.last.tables[n-1].Name + ")"
	}
	return fmt.Errorf("%w: at byte %d%s: %s; take another backup", ErrBackup, b.from, where, fmt.Sprintf(format, args...))
}

// fill reads n bytes into a buffer that grows with what really comes.
func (b *backupReader) fill(buf *bytes.Buffer, n int) ([]byte, error) {
	buf.Reset()
	got, err := io.CopyN(buf, b.r, int64(n))
	b.at += got
	if err == io.EOF {
		return nil, b.bad("the file ends at byte %d, within a frame", b.at)
	}
	return buf.Bytes(), err
}

func (b *backupReader) frame() (kind byte, body []byte, head []byte, err error) {
	b.from = b.at
	if head, err = b.fill(new(bytes.Buffer), 9); err != nil {
		return 0, nil, nil, err
	}
	n, most := binary.LittleEndian.Uint32(head[1:]), uint32(maxBackupText)
	if chunked(head[0]) {
		most = maxBackupChunk
	}
	if n > most {
		return 0, nil, nil, b.bad("a frame of %d bytes, at most %d are allowed", n, most)
	}
	if body, err = b.fill(&b.body, int(n)); err != nil {
		return 0, nil, nil, err
	}
	if sum := crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, body); sum != binary.LittleEndian.Uint32(head[5:]) {
		return 0, nil, nil, b.bad("the checksum does not match")
	}
	return head[0], body, head, nil
}

// ReadBackupHeader reads the beginning of a backup: what it is, not whether it is whole.
func ReadBackupHeader(r io.Reader) (BackupInfo, error) {
	var info BackupInfo
	_, err := readBackup(context.Background(), r, backupTarget{header: func(i BackupInfo) error {
		info = i
		return errHeaderRead
	}})
	if errors.Is(err, errHeaderRead) {
		return info, nil
	}
	return info, err
}

var errHeaderRead = errors.New("the header was read")

func readBackup(ctx context.Context, r io.Reader, to backupTarget) (info BackupInfo, err error) {
	b := &backupReader{r: r, sum: sha256.New()}
	magic, err := b.fill(&b.body, len(backupMagic))
	if err != nil {
		return info, err
	}
	if string(magic) != backupMagic {
		return info, b.bad("this is no backup of version %d", backupVersion)
	}
	b.sum.Write(magic)
	zip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBackupChunk))
	if err != nil {
		return info, err
	}
	defer zip.Close()
	var raw []byte
	stage, previous := byte(0), []byte(nil)
	for {
		if err := ctx.Err(); err != nil {
			return info, err
		}
		kind, body, head, err := b.frame()
		if err != nil {
			return info, err
		}
		if kind == backupFailed && stage != 0 {
			return info, b.bad("whoever made the backup stopped here and says: %q", body)
		}
		if found := strings.Contains(backupOrder, string(kind)); !found || (stage == 0) != (kind == backupHeader) || stage != 0 && !mayFollow(stage, kind) {
			return info, b.bad("a frame of kind %q is not expected here", kind)
		}
		if kind != stage {
			previous = nil
		}
		stage = kind
		if kind == backupTrailer {
			return b.trailer(info, body)
		}
		b.sum.Write(head)
		b.sum.Write(body)
		switch kind {
		case backupHeader:
			info, err = b.header(body, to)
		case backupKey:
			var k lockedKey
			if uerr := json.Unmarshal(body, &k); uerr != nil {
				err = b.bad("the master key: %v", uerr)
			} else if to.key != nil {
				err = to.key(k)
			}
		default:
			if raw, err = zip.DecodeAll(body, raw[:0]); err != nil {
				return info, b.bad("%v", err)
			}
			previous, err = b.pairs(kind, raw, previous, to)
		}
		if err == nil && to.pace != nil {
			err = to.pace.rest(ctx, 0)
		}
		if err != nil {
			return info, err
		}
	}
}

func mayFollow(stage, kind byte) bool {
	a, z := strings.IndexByte(backupOrder, stage), strings.IndexByte(backupOrder, kind)
	return z > a || z == a && chunked(kind)
}

// chunked reports whether frames of a kind hold compressed pairs.
func chunked(kind byte) bool {
	return kind == backupRecords || kind == backupMessages || kind == backupBlobs
}

func (b *backupReader) header(body []byte, to backupTarget) (info BackupInfo, err error) {
	switch err := json.Unmarshal(body, &info); {
	case err != nil:
		return info, b.bad("the header: %v", err)
	case info.Version > backupVersion || info.Rung > currentRung:
		return info, fmt.Errorf("%w: the backup has version %d and rung %d, this program knows %d and %d; use a newer version of the program",
			ErrNewerFormat, info.Version, info.Rung, backupVersion, currentRung)
	case info.Version < 1 || info.Rung < 1 || info.Ordinal == 0:
		return info, b.bad("the header has version %d, rung %d, epoch number %d", info.Version, info.Rung, info.Ordinal)
	}
	if to.header != nil {
		err = to.header(info)
	}
	return info, err
}

func (b *backupReader) pairs(kind byte, raw, previous []byte, to backupTarget) ([]byte, error) {
	take := func() ([]byte, bool) {
		n, w := binary.Uvarint(raw)
		if w <= 0 || n > uint64(len(raw)-w) {
			return nil, false
		}
		part := raw[w : w+int(n)]
		raw = raw[w+int(n):]
		return part, true
	}
	for len(raw) > 0 {
		key, ok := take()
		value, ok2 := take()
		if !ok || !ok2 {
			return nil, b.bad("an entry is longer than its chunk")
		}
		if cmp.Compare(string(key), string(previous)) <= 0 || len(key) > maxKey || kind == backupMessages && len(key) != 16 || kind == backupBlobs && len(key) != sha256.Size+8 {
			return nil, b.bad("the key %q is not expected behind %q", key, previous)
		}
		if kind == backupRecords {
			if _, _, err := unframe(key, value); err != nil || key[0] == '!' {
				return nil, b.bad("the value of key %q is damaged", key)
			}
		}
		b.last.add(kind, key, value)
		if to.pair != nil {
			if err := to.pair(kind, key, value); err != nil {
				return nil, err
			}
		}
		previous = append(previous[:0], key...)
	}
	return previous, nil
}

func (b *backupReader) trailer(head BackupInfo, body []byte) (BackupInfo, error) {
	var info BackupInfo
	if err := json.Unmarshal(body, &info); err != nil {
		return head, b.bad("the trailer: %v", err)
	}
	if sum := hex.EncodeToString(b.sum.Sum(nil)); sum != info.SHA256 {
		return head, b.bad("the SHA-256 is %s, the trailer says %s", sum, info.SHA256)
	}
	if info.Epoch != head.Epoch || info.Sequence != head.Sequence || !slices.Equal(info.Tables, b.last.end()) {
		return head, b.bad("the trailer does not fit what was read")
	}
	if n, err := io.CopyN(io.Discard, b.r, 1); n != 0 || err != io.EOF {
		b.from = b.at
		return head, b.bad("there are bytes behind the trailer")
	}
	info.Size = b.at
	return info, nil
}
