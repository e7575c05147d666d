package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// restoringFile marks a directory that a restore has not finished; Open refuses it.
const restoringFile = "RESTORING"

var (
	// ErrRestoring: a restore into this directory did not finish.
	ErrRestoring = errors.New("the restore into this directory did not finish")
	// ErrNotEmpty: a restore takes a new or an empty directory only.
	ErrNotEmpty = errors.New("the directory is not empty")
	// ErrPassphrase: the passphrase or the master key is missing or wrong.
	ErrPassphrase = errors.New("the secrets of the backup cannot be read")
)

// lockedKey is the master key under a passphrase: AES-256-GCM with a key of argon2id.
type lockedKey struct {
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memoryKiB"`
	Threads uint8  `json:"threads"`
	Salt    []byte `json:"salt"`
	Nonce   []byte `json:"nonce"`
	Sealed  []byte `json:"sealed"`
}

// A hostile backup must not make a restore compute for hours or take all memory.
const (
	mostKeyTime    = 16
	mostKeyMemory  = 256 << 10 // KiB
	mostKeyThreads = 16
	keyContext     = "muster backup master key"
)

func (k lockedKey) sealer(passphrase []byte) (*sealer, error) {
	return newSealer(argon2.IDKey(passphrase, k.Salt, k.Time, k.Memory, k.Threads, 32))
}

func (db *DB) lockKey(passphrase []byte) (lockedKey, error) {
	key, err := readMasterKey(db.fs, db.opt.masterKeyPath())
	if err != nil {
		return lockedKey{}, err
	}
	k := lockedKey{Time: 3, Memory: 64 << 10, Threads: 2, Salt: make([]byte, 16), Nonce: make([]byte, 12)}
	_, _ = rand.Read(k.Salt) // never fails (crypto/rand)
	_, _ = rand.Read(k.Nonce)
	s, err := k.sealer(passphrase)
	if err == nil {
		k.Sealed = s.aead.Seal(nil, k.Nonce, key, []byte(keyContext))
	}
	return k, err
}

func (k lockedKey) open(passphrase []byte) ([]byte, error) {
	if k.Time < 1 || k.Time > mostKeyTime || k.Memory < 8 || k.Memory > mostKeyMemory || k.Threads < 1 ||
		k.Threads > mostKeyThreads || len(k.Salt) != 16 || len(k.Nonce) != 12 || len(k.Sealed) != 48 {
		return nil, fmt.Errorf("%w: the parameters of its master key are out of bounds", ErrBackup)
	}
	s, err := k.sealer(passphrase)
	if err != nil {
		return nil, err
	}
	key, err := s.aead.Open(nil, k.Nonce, k.Sealed, []byte(keyContext))
	if err != nil {
		return nil, fmt.Errorf("%w: the passphrase is not the one that the backup was made with", ErrPassphrase)
	}
	return key, nil
}

func readMasterKey(fs fsys, name string) ([]byte, error) {
	b, err := readWhole(fs, name, 4096)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%w: %s does not hold a master key (32 bytes in base64)", ErrCorrupt, name)
	}
	return key, nil
}

// Restore makes a store in Options.Dir, which is new, empty or left by a restore that did not
// finish, from a backup. The store is of a new epoch and paused (Resume). The master key comes from
// the backup, when it holds one and passphrase is given, or from Options.MasterKeyFile. When
// Restore fails, the directory holds no store; when the process dies, Open refuses the directory
// with ErrRestoring and Restore begins anew.
func Restore(ctx context.Context, r io.Reader, o Options, passphrase []byte) (BackupInfo, error) {
	return restoreWith(ctx, r, o, passphrase, tuning{})
}

func restoreWith(ctx context.Context, r io.Reader, o Options, passphrase []byte, tune tuning) (info BackupInfo, err error) {
	o = o.withDefaults()
	fs := osFS{}
	if err := claim(fs, o.Dir); err != nil {
		return info, err
	}
	l := &loader{ctx: ctx, fs: fs, opt: o, tune: tune, passphrase: passphrase}
	info, err = readBackup(ctx, r, backupTarget{header: l.header, key: l.key, pair: l.pair})
	if err == nil {
		err = l.finish()
	} else if l.db != nil {
		err = errors.Join(err, l.db.shut())
	}
	if err != nil {
		return info, errors.Join(err, wipe(fs, o.Dir), fs.Remove(filepath.Join(o.Dir, restoringFile)))
	}
	if err := fs.Remove(filepath.Join(o.Dir, restoringFile)); err != nil {
		return info, err
	}
	return info, fs.SyncDir(o.Dir)
}

// claim marks the directory, after it has removed what an earlier restore left.
func claim(fs fsys, dir string) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := fs.ReadDir(dir)
	if err != nil {
		return err
	}
	mark := filepath.Join(dir, restoringFile)
	marked, err := exists(fs, mark)
	if err != nil {
		return err
	}
	if !marked && len(entries) > 0 {
		return fmt.Errorf("%w: %s; give a new directory, so that nothing is overwritten", ErrNotEmpty, dir)
	}
	if marked {
		// Another process may be at it right now.
		lock, err := lockDir(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(wipe(fs, dir), unlockDir(lock)); err != nil {
			return err
		}
	}
	return writeDurably(fs, mark, []byte("A restore into this directory has not finished.\n"), 0o600)
}

// wipe removes what a restore makes, and nothing else.
func wipe(fs fsys, dir string) error {
	var errs []error
	for _, name := range []string{formatFile, checkpointFile, masterKeyFile, formatFile + ".tmp", checkpointFile + ".tmp", masterKeyFile + ".tmp", lockFile} {
		if err := fs.Remove(filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	for _, name := range []string{journalDir, badgerDir, messageDir, blobDir} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// loader takes a backup apart into a directory.
type loader struct {
	ctx        context.Context
	fs         fsys
	opt        Options
	tune       tuning
	passphrase []byte
	info       BackupInfo
	db         *DB
	batch      []pair
	size       int
	blob       *BlobWriter
	digest     string // of the blob that is being written
	messages   []byte // records that wait to be written to segment
	segment    *messageSegment
}

func (l *loader) header(info BackupInfo) error {
	l.info = info
	if l.opt.MasterKeyFile != "" {
		s, err := loadMasterKey(l.fs, l.opt.MasterKeyFile, false)
		if err == nil && s.id() != info.Key {
			err = fmt.Errorf("%w: %s has the fingerprint %s, the backup was made with %s; give that key", ErrPassphrase, l.opt.MasterKeyFile, s.id(), info.Key)
		}
		return err
	}
	switch {
	case !info.HasKey:
		return fmt.Errorf("%w: the backup does not hold the master key; give the key file of the old hub (its DATA/master.key) with --master-key-file", ErrPassphrase)
	case len(l.passphrase) == 0:
		return fmt.Errorf("%w: its master key is encrypted; give the passphrase with --passphrase-file, or the key file with --master-key-file", ErrPassphrase)
	}
	return nil
}

func (l *loader) key(k lockedKey) error {
	if l.opt.MasterKeyFile != "" {
		return nil // it was checked
	}
	key, err := k.open(l.passphrase)
	if err != nil {
		return err
	}
	return writeDurably(l.fs, l.opt.masterKeyPath(), []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600)
}

// open makes the store when the key is in its place.
func (l *loader) open() (err error) {
	if l.db == nil {
		if has, herr := exists(l.fs, l.opt.masterKeyPath()); herr != nil || !has {
			return errors.Join(herr, fmt.Errorf("%w: it says that it holds the master key, but does not", ErrBackup))
		}
		l.db, err = recoverStore(l.ctx, l.opt, l.fs, l.tune, mode{restore: &l.info})
	}
	return err
}

func (l *loader) pair(kind byte, key, value []byte) error {
	if err := l.open(); err != nil {
		return err
	}
	if kind == backupBlobs {
		return l.part(key, value)
	}
	if kind == backupMessages {
		return l.message(binary.BigEndian.Uint64(key), int64(binary.BigEndian.Uint64(key[8:])), value)
	}
	if len(l.batch) > 0 && (l.size+len(key)+len(value)+opOverhead > l.db.limits.groupBytes/2 || len(l.batch) >= l.db.limits.groupOps/2) {
		if err := l.flush(); err != nil {
			return err
		}
	}
	l.batch = append(l.batch, pair{key: bytes.Clone(key), value: bytes.Clone(value)})
	l.size += len(key) + len(value) + opOverhead
	return nil
}

func (l *loader) flush() error {
	if len(l.batch) == 0 {
		return nil
	}
	if err := l.db.space.check(time.Now(), false); err != nil {
		return err
	}
	err := l.db.applyToBadger(max(l.info.Sequence, 1), l.batch)
	l.batch, l.size = nil, 0
	return err
}

// part takes the next part of a blob, whose digest and offset are the key.
func (l *loader) part(key, value []byte) error {
	digest, at := hex.EncodeToString(key[:sha256.Size]), binary.BigEndian.Uint64(key[sha256.Size:])
	if digest != l.digest {
		if err := l.endBlob(); err != nil {
			return err
		}
		w, err := l.db.blobs.create()
		if err != nil {
			return err
		}
		l.blob, l.digest = w, digest
	}
	if uint64(l.blob.size) != at {
		return fmt.Errorf("%w: the blob %s continues at byte %d, not at %d; take another backup", ErrBackup, digest, at, l.blob.size)
	}
	_, err := l.blob.Write(value)
	return err
}

// endBlob gives the blob that is being written its name.
func (l *loader) endBlob() error {
	if l.blob == nil {
		return nil
	}
	blob, err := l.blob.seal()
	l.blob = nil
	if err == nil && blob.Digest != l.digest {
		err = fmt.Errorf("%w: a blob has the SHA-256 %s instead of %s; take another backup", ErrBackup, blob.Digest, l.digest)
	}
	return err
}

func (l *loader) message(position uint64, at int64, data []byte) error {
	if l.segment == nil || l.segment.size+int64(len(l.messages)) >= l.db.tune.messageSegment {
		if err := l.flushMessages(); err != nil {
			return err
		}
		s, err := l.db.messages.begin(position)
		if err != nil {
			return err
		}
		l.segment = s
	}
	l.messages = appendMessage(l.messages, position, at, position-1, data)
	if len(l.messages) >= backupChunk {
		return l.flushMessages()
	}
	return nil
}

func (l *loader) flushMessages() error {
	if len(l.messages) == 0 {
		return nil
	}
	f := l.db.messages.active
	_, err := f.WriteAt(l.messages, l.segment.size)
	l.segment.size += int64(len(l.messages))
	l.messages = l.messages[:0]
	return errors.Join(err, f.Datasync())
}

// finish settles everything; the directory is a store when the mark is gone.
func (l *loader) finish() error {
	if err := l.open(); err != nil {
		return err
	}
	err := errors.Join(l.flush(), l.endBlob(), l.flushMessages())
	l.db.settleAt(max(l.info.Sequence, 1))
	l.db.newest.Store(l.info.Newest)
	return errors.Join(err, l.db.shut())
}

// Paused reports that the directory was restored and not yet resumed: queued work must wait. Epoch
// numbers above 1 begin so.
func (db *DB) Paused() bool { return db.paused.Load() }

// Resume ends the pause of a restored store for good.
func (db *DB) Resume() error {
	db.resuming.Lock()
	defer db.resuming.Unlock()
	if !db.paused.Load() {
		return nil
	}
	f := db.format
	f.Paused = false
	if err := writeText(db.fs, db.path(formatFile), f); err != nil {
		return err
	}
	db.paused.Store(false)
	return nil
}

// Drill restores a backup into Options.Dir, which must be new, reads all of it as
// Verify does, compares what it holds with the backup and removes it.
func Drill(ctx context.Context, r io.Reader, o Options, passphrase []byte) (info BackupInfo, err error) {
	if info, err = Restore(ctx, r, o, passphrase); err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, wipe(osFS{}, o.Dir), os.Remove(o.Dir)) }()
	if _, err := Verify(ctx, o); err != nil {
		return info, err
	}
	db, err := Open(ctx, o)
	if err != nil {
		return info, err
	}
	again, err := db.Backup(ctx, io.Discard, BackupOptions{})
	if err := errors.Join(err, db.Close()); err != nil {
		return info, err
	}
	if !slices.Equal(again.Tables, info.Tables) {
		a, _ := json.Marshal(info.Tables) // strings and numbers only
		b, _ := json.Marshal(again.Tables)
		return info, fmt.Errorf("%w: restored, it holds %s instead of %s", ErrBackup, b, a)
	}
	return info, nil
}
