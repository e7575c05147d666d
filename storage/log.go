package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
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

// Read yields the entries after a position, oldest first. When they begin later than after+1,
// older ones have been trimmed (see Bounds).
func (l *Log) Read(r Reader, after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if after == math.MaxUint64 {
			return
		}
		for p, err := range l.scan(r, after+1, false) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			more := true
			err = unpack(p.key, p.value, func(e Entry) bool {
				if e.Position > after {
					e.Data, e.Hash = bytes.Clone(e.Data), bytes.Clone(e.Hash)
					more = yield(e, nil)
				}
				return more
			})
			if err != nil && more {
				yield(Entry{}, err)
				return
			}
			if !more {
				return
			}
		}
	}
}

// Bounds returns the positions of the first live entry and of the newest; 0, 0 for an empty log.
func (l *Log) Bounds(r Reader) (first, last uint64, err error) {
	for p, err := range l.scan(r, 0, false) {
		if err != nil {
			return 0, 0, err
		}
		err := unpack(p.key, p.value, func(e Entry) bool { first = e.Position; return false })
		if err != nil {
			return 0, 0, err
		}
		break
	}
	for p, err := range l.scan(r, 0, true) {
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

// trimBatch pairs go in one transaction; between two the trimmer rests for trimPause.
const (
	trimBatch = 256
	trimPause = 5 * time.Millisecond
)

// Trim deletes the entries that the policy lets go, in small transactions with pauses, and
// returns how many it deleted. Entries that were committed together go together, when the last of
// them may go.
func (l *Log) Trim(ctx context.Context, db *DB, p TrimPolicy) (n int, err error) {
	var first, limit uint64
	err = db.View(ctx, func(r Reader) error {
		var err error
		first, limit, err = l.trimRange(ctx, r, db.pacer(), p)
		return err
	})
	if err != nil {
		return 0, err
	}
	for first != 0 && first <= limit {
		keys, next, err := l.trimKeys(ctx, db, first, limit)
		if err != nil || len(keys) == 0 {
			return n, err
		}
		err = db.Update(ctx, func(tx *Tx) error {
			for _, key := range keys {
				if err := tx.del(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += int(next - first)
		first = next
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

// trimKeys returns the raw keys of the next entries that go, and the position behind them.
func (l *Log) trimKeys(ctx context.Context, db *DB, first, limit uint64) (keys [][]byte, next uint64, err error) {
	next = first
	err = db.View(ctx, func(r Reader) error {
		for p, err := range l.scan(r, first, false) {
			if err != nil {
				return err
			}
			_, last, _ := splitLogKey(p.key)
			if last > limit {
				break
			}
			keys, next = append(keys, bytes.Clone(p.key)), last+1
			if len(keys) == trimBatch {
				break
			}
		}
		return nil
	})
	return keys, next, err
}

// trimLook is after how many bytes the search for what may go rests: a gigabyte read at once leaves
// as much garbage, and nobody else on one of two processors.
const trimLook = 1 << 20

// trimRange returns the first live position and the last one that may go.
func (l *Log) trimRange(ctx context.Context, r Reader, pace *pacer, p TrimPolicy) (first, limit uint64, err error) {
	first, last, err := l.Bounds(r)
	if err != nil || last == 0 {
		return 0, 0, err
	}
	seen := int64(0)
	for e, err := range l.Read(r, first-1) { // by age, oldest first
		if err != nil {
			return 0, 0, err
		}
		if !e.Time.Before(p.Before) {
			break
		}
		limit = e.Position
		if seen += int64(len(e.Data)); seen >= trimLook {
			if seen = 0; pace.rest(ctx, 0) != nil {
				return 0, 0, context.Cause(ctx)
			}
		}
	}
	if p.MaxBytes > 0 {
		var sum int64
		for q, err := range l.scan(r, first, true) {
			if err != nil {
				return 0, 0, err
			}
			if sum += int64(len(q.key) + len(q.value)); sum > p.MaxBytes {
				_, position, _ := splitLogKey(q.key)
				limit = max(limit, position)
				break
			}
			if seen += int64(len(q.key) + len(q.value)); seen >= trimLook {
				if seen = 0; pace.rest(ctx, 0) != nil {
					return 0, 0, context.Cause(ctx)
				}
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
	for p, err := range l.scan(r, 0, false) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return n, 0, err
		}
		err := unpack(p.key, p.value, func(e Entry) bool {
			switch {
			case position != 0 && e.Position != position+1:
				bad = position + 1
				return false
			case l.chained && e.Hash == nil:
				bad = e.Position
				return false
			}
			if l.chained && position == 0 && e.Position == 1 {
				before = make([]byte, sha256.Size)
			}
			if l.chained && before != nil {
				if sum := chainHash(before, e.Position, e.Time.UnixNano(), e.Data); !bytes.Equal(sum[:], e.Hash) {
					bad = e.Position
					return false
				}
			}
			before = append(before[:0], e.Hash...)
			position = e.Position
			n++
			return true
		})
		if errors.Is(err, ErrCorrupt) {
			_, last, _ := splitLogKey(p.key)
			return n, last, nil
		}
		if err != nil || bad != 0 {
			return n, bad, err
		}
	}
	return n, 0, nil
}

// tails knows the newest visible position of every log and wakes those who wait for more.
type tails struct {
	mu   sync.Mutex
	logs map[string]*tail
}

type tail struct {
	last   uint64
	first  uint64 // nothing lives below; a hint that spares reading over deleted entries
	behind uint64 // entries up to here were written by an older format
	watch  chan struct{}
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

// behind says that the entries up to a position lie where they did before logs had a place in front.
func (t *tails) behind(name string, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(name).behind = last
}

// hints returns the first position that may live, and the last one behind.
func (t *tails) hints(name string) (first, behind uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.get(name)
	return l.first, l.behind
}

// place is where the log's entries are written. A log that is not chained lies in front of all other
// keys. Badger merges its level 0 into those tables of the level below whose keys lie between
// the least and the greatest of level 0, whatever lies there in between. It has some of each kind of
// key, and of a log the newest: so the tables of older entries lie outside of that only when no other
// keys come before them. Of several such logs that holds for the first; and a chained one, which is
// kept for long and grows slowly, is none of them. A merge that a trim falls into spans the whole log.
func (l *Log) place() string {
	if l.chained {
		return prefixLog
	}
	return prefixFront
}

// scan yields the values with entries at a position or above in the order of these.
func (l *Log) scan(r Reader, from uint64, reverse bool) iter.Seq2[pair, error] {
	var db *DB
	switch r := r.(type) {
	case *Tx:
		db = r.db
	case *snapshot:
		db = r.db
	}
	first, behind := db.tails.hints(l.name)
	from = max(from, 1)
	if !reverse { // an older snapshot may still have its newest entry below
		from = max(from, first)
	}
	places := []string{l.place()}
	if from <= behind {
		places = slices.Clone(logPlaces[:])
	}
	if reverse {
		slices.Reverse(places)
	}
	return func(yield func(pair, error) bool) {
		for _, place := range places {
			prefix := logPrefix(place, l.name)
			for p, err := range r.scan(logKey(prefix, from), successor(prefix), reverse) {
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}

// newestOfLogs yields the value with the newest entry of each log that has any in a place.
func newestOfLogs(r Reader, place string) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		for hi := successor([]byte(place)); ; {
			found := false
			for p, err := range r.scan([]byte(place), hi, true) {
				name, _, ok := splitLogKey(p.key)
				if err == nil && !ok {
					err = badValue(p.key, "this is no key of a log entry")
				}
				hi, found = logPrefix(place, name), true
				if !yield(p, err) || err != nil {
					return
				}
				break
			}
			if !found {
				return
			}
		}
	}
}
