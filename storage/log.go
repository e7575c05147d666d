package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"
)

// Log is an append-only list of entries with consecutive positions from 1 on, in commit order.
// It holds no state: it may be a package-level value.
type Log struct {
	name    string
	chained bool
}

// LogOptions say what kind of log it is.
type LogOptions struct {
	// Chained makes every entry hold SHA-256 over the entry before it, its position, its time
	// and its data, so that a change in the past shows.
	Chained bool
}

// Entry is one entry of a log. Hash is nil unless the log is chained.
type Entry struct {
	Position uint64
	Time     time.Time // UTC, never before that of the entry before
	Data     []byte
	Hash     []byte
}

// TrimPolicy says which entries may go: those older than Before, and the oldest ones while the
// log has more than MaxBytes (0: no bound). Entries at positions above Keep always stay, so Keep
// is the smallest cursor of a reader, or math.MaxUint64 when there is none. The newest entry
// always stays: it carries the position on.
type TrimPolicy struct {
	Before   time.Time
	Keep     uint64
	MaxBytes int64
}

// NewLog declares a log. A name that is empty or holds '/' or zero panics.
func NewLog(name string, o LogOptions) *Log {
	checkName("log", name)
	return &Log{name: name, chained: o.Chained}
}

const logFixed = 1 + 8 // flags, time

const logChained = 1

// Append adds an entry. The committer gives it its position and, in a chained log, its hash, so
// appending never conflicts; the transaction itself does not see the entry. data is copied.
func (l *Log) Append(tx *Tx, data []byte) error {
	if tx.ended {
		return errEnded
	}
	if n := len(data) + frameHeader + logFixed + sha256.Size; n > tx.db.limits.value {
		return fmt.Errorf("%w: an entry of log %s has %d bytes, at most %d are allowed", ErrTooLarge, l.name, len(data), tx.db.limits.value-frameHeader-logFixed-sha256.Size)
	}
	tx.appends = append(tx.appends, logAppend{l, bytes.Clone(data)})
	n := len(data) + len(l.name) + 11 + frameHeader + logFixed + sha256.Size
	tx.size += n + opOverhead
	tx.setSize += n
	return tx.checkSize()
}

// logHead is the newest entry of a log as the committer knows it.
type logHead struct {
	position uint64
	time     int64
	hash     [sha256.Size]byte
}

// next makes the raw key and value of the entry behind the head, and moves the head.
func (h *logHead) next(l *Log, at int64, data []byte) (key, value []byte) {
	h.position++
	h.time = max(h.time, at)
	key = logKey(l.name, h.position)
	value = beginFrame(make([]byte, 0, frameHeader+logFixed+sha256.Size+len(data)), 1)
	if l.chained {
		h.hash = chainHash(h.hash[:], h.position, h.time, data)
		value = append(value, logChained)
	} else {
		value = append(value, 0)
	}
	value = binary.BigEndian.AppendUint64(value, uint64(h.time))
	if l.chained {
		value = append(value, h.hash[:]...)
	}
	return key, endFrame(key, append(value, data...))
}

func chainHash(before []byte, position uint64, at int64, data []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(before)
	var n [16]byte
	binary.BigEndian.PutUint64(n[:], position)
	binary.BigEndian.PutUint64(n[8:], uint64(at))
	h.Write(n[:])
	h.Write(data)
	return [sha256.Size]byte(h.Sum(nil))
}

// decodeEntry copies nothing.
func decodeEntry(key, value []byte) (Entry, error) {
	_, position, ok := splitLogKey(key)
	version, payload, err := unframe(key, value)
	if err != nil {
		return Entry{Position: position}, err
	}
	if !ok || version != 1 || len(payload) < logFixed || payload[0]&logChained != 0 && len(payload) < logFixed+sha256.Size {
		return Entry{Position: position}, badValue(key, "a log entry of version %d has %d bytes", version, len(payload))
	}
	e := Entry{Position: position, Time: time.Unix(0, int64(binary.BigEndian.Uint64(payload[1:]))).UTC(), Data: payload[logFixed:]}
	if payload[0]&logChained != 0 {
		e.Hash, e.Data = e.Data[:sha256.Size], e.Data[sha256.Size:]
	}
	return e, nil
}

// Read yields the entries after a position, oldest first. When they begin later than after+1,
// older ones have been trimmed (see Bounds).
func (l *Log) Read(r Reader, after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if after == math.MaxUint64 {
			return
		}
		for p, err := range r.scan(logKey(l.name, max(after+1, l.firstHint(r))), successor(logPrefix(l.name)), false) {
			var e Entry
			if err == nil {
				e, err = decodeEntry(p.key, p.value)
			}
			if err != nil {
				yield(e, err)
				return
			}
			e.Data, e.Hash = bytes.Clone(e.Data), bytes.Clone(e.Hash)
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Bounds returns the positions of the first live entry and of the newest; 0, 0 for an empty log.
func (l *Log) Bounds(r Reader) (first, last uint64, err error) {
	hi := successor(logPrefix(l.name))
	for p, err := range r.scan(logKey(l.name, l.firstHint(r)), hi, false) {
		if err != nil {
			return 0, 0, err
		}
		_, first, _ = splitLogKey(p.key)
		break
	}
	for p, err := range r.scan(logPrefix(l.name), hi, true) {
		if err != nil {
			return 0, 0, err
		}
		_, last, _ = splitLogKey(p.key)
		break
	}
	return first, last, nil
}

// Wait blocks until an entry after that position is visible, the context ends (its error) or
// the store closes (ErrClosed).
func (l *Log) Wait(ctx context.Context, db *DB, after uint64) error {
	for {
		last, changed := db.tails.watch(l.name)
		if last > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-db.closing:
			return ErrClosed
		}
	}
}

// trimBatch entries go in one transaction; between two the trimmer rests for trimPause.
const (
	trimBatch = 256
	trimPause = 5 * time.Millisecond
)

// Trim deletes the entries that the policy lets go, in small transactions with pauses, and
// returns how many it deleted.
func (l *Log) Trim(ctx context.Context, db *DB, p TrimPolicy) (n int, err error) {
	var first, limit uint64
	err = db.View(ctx, func(r Reader) error {
		var err error
		first, limit, err = l.trimRange(r, p)
		return err
	})
	if err != nil {
		return 0, err
	}
	for first != 0 && first <= limit {
		end := min(first+trimBatch-1, limit)
		err := db.Update(ctx, func(tx *Tx) error {
			for at := first; at <= end; at++ {
				if err := tx.del(logKey(l.name, at)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += int(end - first + 1)
		first = end + 1
		db.tails.trimmed(l.name, first)
		t := time.NewTimer(trimPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return n, ctx.Err()
		}
	}
	return n, nil
}

// trimRange returns the first live position and the last one that may go.
func (l *Log) trimRange(r Reader, p TrimPolicy) (first, limit uint64, err error) {
	first, last, err := l.Bounds(r)
	if err != nil || last == 0 {
		return 0, 0, err
	}
	for e, err := range l.Read(r, first-1) { // by age, oldest first
		if err != nil {
			return 0, 0, err
		}
		if !e.Time.Before(p.Before) {
			break
		}
		limit = e.Position
	}
	if p.MaxBytes > 0 {
		var sum int64
		for q, err := range r.scan(logKey(l.name, first), successor(logPrefix(l.name)), true) {
			if err != nil {
				return 0, 0, err
			}
			if sum += int64(len(q.key) + len(q.value)); sum > p.MaxBytes {
				_, position, _ := splitLogKey(q.key)
				limit = max(limit, position)
				break
			}
		}
	}
	return first, min(limit, p.Keep, last-1), nil
}

// Verify reads a chained log and checks positions and hashes. n is the number of entries read and
// bad the position of the first one that is not what was written, 0 when all are. The oldest
// live entry's own hash can only be checked while nothing has been trimmed.
func (l *Log) Verify(ctx context.Context, r Reader) (n uint64, bad uint64, err error) {
	var before []byte
	var position uint64
	for p, err := range r.scan(logPrefix(l.name), successor(logPrefix(l.name)), false) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return n, 0, err
		}
		e, err := decodeEntry(p.key, p.value)
		if errors.Is(err, ErrCorrupt) {
			return n, e.Position, nil
		}
		if err != nil {
			return n, 0, err
		}
		if position != 0 && e.Position != position+1 {
			return n, position + 1, nil
		}
		if l.chained {
			if position == 0 && e.Position == 1 {
				before = make([]byte, sha256.Size)
			}
			if e.Hash == nil {
				return n, e.Position, nil
			}
			if before != nil {
				if sum := chainHash(before, e.Position, e.Time.UnixNano(), e.Data); !bytes.Equal(sum[:], e.Hash) {
					return n, e.Position, nil
				}
			}
			before = bytes.Clone(e.Hash)
		}
		position = e.Position
		n++
	}
	return n, 0, nil
}

// tails knows the newest visible position of every log and wakes those who wait for more.
type tails struct {
	mu   sync.Mutex
	logs map[string]*tail
}

type tail struct {
	last  uint64
	first uint64 // nothing lives below; a hint that spares reading over deleted entries
	watch chan struct{}
}

func (t *tails) get(name string) *tail {
	l := t.logs[name]
	if l == nil {
		l = &tail{}
		t.logs[name] = l
	}
	return l
}

func (t *tails) watch(name string) (uint64, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.get(name)
	if l.watch == nil {
		l.watch = make(chan struct{})
	}
	return l.last, l.watch
}

func (t *tails) publish(name string, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.get(name)
	l.last = last
	if l.watch != nil {
		close(l.watch)
		l.watch = nil
	}
}

func (t *tails) trimmed(name string, first uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.get(name)
	l.first = max(l.first, first)
}

func (l *Log) firstHint(r Reader) uint64 {
	var db *DB
	switch r := r.(type) {
	case *Tx:
		db = r.db
	case *snapshot:
		db = r.db
	}
	db.tails.mu.Lock()
	defer db.tails.mu.Unlock()
	return db.tails.get(l.name).first
}
