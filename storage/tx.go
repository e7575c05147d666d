package storage

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"time"
)

// Tx is one attempt of a transaction. It reads its own writes. It belongs to the function that
// it was given to and to one goroutine.
type Tx struct {
	db   *DB
	snap *snapshot
	now  time.Time
	// layers are the groups that are on their way to disk, oldest first: what a transaction
	// sees that is prepared in the committer. nil outside.
	layers []*group

	reads     []uint64 // hashes of the keys read
	scanned   bool
	writes    []pair         // in the order of the calls, one a key; a nil value deletes
	index     map[string]int // of writes, once there are many
	appends   []logAppend
	adds      []counterAdd
	callbacks []func(seq uint64)
	known     []knownValue // what was read last, for tables that look at the old record again
	oldest    int          // of known, once it is full
	patience  time.Duration
	keeps     bool // see Remember
	trying    bool
	replaced  []pair // while trying: writes as they were before it, the oldest first

	size    int // bytes toward the bound of a group
	puts    int // records
	deletes int
	setSize int
	ended   bool
}

// knownValue is a committed value that the transaction has read.
type knownValue struct {
	key, value []byte
	// entries are the raw keys of the record's index entries, when indexed is set.
	entries [][]byte
	indexed bool
}

type logAppend struct {
	log  *Log
	data []byte
}

type counterAdd struct {
	name  string
	delta int64
}

// opOverhead is what one operation costs beside its key and value, in the journal and in
// Badger's count of a transaction.
const opOverhead = 40

// Now is the time of this attempt in UTC; it does not move during the attempt.
func (tx *Tx) Now() time.Time { return tx.now }

// OnCommit registers f to run once the transaction is durable and visible, before Update
// returns. The committer calls it, in commit order: it must not block or update. seq is the
// sequence of the group; transactions of one group share it.
func (tx *Tx) OnCommit(f func(seq uint64)) { tx.callbacks = append(tx.callbacks, f) }

// MayWait says that the transaction need not be durable at once: for up to d it waits for others,
// to share their sync, which costs more than what a small transaction writes. It goes with
// the first whose time is up, or that did not say so.
func (tx *Tx) MayWait(d time.Duration) { tx.patience = d }

func (tx *Tx) empty() bool {
	return len(tx.writes) == 0 && len(tx.appends) == 0 && len(tx.adds) == 0 && len(tx.callbacks) == 0
}

func (tx *Tx) end() {
	if !tx.ended {
		tx.ended = true
		tx.snap.end()
		tx.known, tx.layers = nil, nil
	}
}

func (tx *Tx) find(key []byte) int {
	if tx.index != nil {
		if i, ok := tx.index[string(key)]; ok {
			return i
		}
		return -1
	}
	for i := range tx.writes {
		if bytes.Equal(tx.writes[i].key, key) {
			return i
		}
	}
	return -1
}

// get implements Reader: own writes, then the groups under way, then the snapshot.
func (tx *Tx) get(key []byte) ([]byte, error) {
	if tx.ended {
		return nil, errEnded
	}
	if i := tx.find(key); i >= 0 {
		if tx.writes[i].value == nil {
			return nil, ErrNotFound
		}
		return tx.writes[i].value, nil
	}
	if k := tx.recall(key); k != nil {
		if k.value == nil {
			return nil, ErrNotFound
		}
		return k.value, nil
	}
	hash := hashKey(tx.db.hash, key)
	tx.reads = append(tx.reads, hash)
	value, err := tx.getCommitted(key, hash)
	if err == nil || errors.Is(err, ErrNotFound) {
		tx.know(knownValue{key: key, value: value})
	}
	return value, err
}

// know remembers a value in the place of the one that was read first.
func (tx *Tx) know(v knownValue) {
	const most = 8
	if len(tx.known) < most {
		tx.known = append(tx.known, v)
		return
	}
	tx.known[tx.oldest] = v
	tx.oldest = (tx.oldest + 1) % most
}

func (tx *Tx) getCommitted(key []byte, hash uint64) ([]byte, error) {
	switch value, ok := lookup(tx.layers, hash, key); {
	case ok && value == nil:
		return nil, ErrNotFound
	case ok:
		return value, nil
	}
	return tx.snap.getHashed(key, hash)
}

func hashKey(seed maphash.Seed, key []byte) uint64 { return maphash.Bytes(seed, key) }

// scan implements Reader. What the transaction writes after the call is not seen by the
// iteration. A transaction that scanned is prepared again in the committer if anything at all was
// committed meanwhile, so that no new key is missed.
func (tx *Tx) scan(lo, hi []byte, reverse bool) iter.Seq2[pair, error] {
	if tx.ended {
		return func(yield func(pair, error) bool) { yield(pair{}, errEnded) }
	}
	tx.scanned = true
	return layered(tx.layers, tx.writes, lo, hi, reverse, tx.snap.scan(lo, hi, reverse))
}

// set writes a framed value; it keeps both slices.
func (tx *Tx) set(key, value []byte) error {
	if len(value) > tx.db.limits.value {
		return fmt.Errorf("%w: the value of %q has %d bytes, at most %d are allowed", ErrTooLarge, key, len(value), tx.db.limits.value)
	}
	tx.setSize += len(key) + len(value)
	return tx.put(key, value)
}

// del deletes a key, whether it exists or not.
func (tx *Tx) del(key []byte) error {
	tx.deletes++
	return tx.put(key, nil)
}

func (tx *Tx) put(key, value []byte) error {
	switch {
	case tx.ended:
		return errEnded
	case len(key) > maxKey:
		return fmt.Errorf("%w: a key has %d bytes, at most %d are allowed", ErrTooLarge, len(key), maxKey)
	}
	if i := tx.find(key); i >= 0 {
		if tx.trying {
			tx.replaced = append(tx.replaced, tx.writes[i])
		}
		tx.size += len(value) - len(tx.writes[i].value)
		tx.writes[i].value = value
		return tx.checkSize()
	}
	p := pair{key: key, value: value}
	if before := tx.recall(key); before != nil {
		// That one looked whether a new record was there says nothing of who comes back to it.
		p.hot, p.fresh = before.value != nil, before.value == nil && tx.keeps
	}
	tx.writes = append(tx.writes, p)
	tx.size += len(key) + len(value) + opOverhead
	switch n := len(tx.writes); {
	case tx.index != nil:
		tx.index[string(key)] = n - 1
	case n > 16:
		tx.index = make(map[string]int, 64)
		for i, w := range tx.writes {
			tx.index[string(w.key)] = i
		}
	}
	return tx.checkSize()
}

// Try runs f as a part of the transaction: when it returns an error, all that f wrote, appended,
// counted and registered is taken back, the rest of the transaction stays, and the error is
// returned. What f read stays among what the commit depends on. Parts do not nest.
func (tx *Tx) Try(f func() error) (err error) {
	if tx.trying {
		return errors.New("storage: Try within Try")
	}
	before := *tx
	before.adds = slices.Clone(tx.adds) // additions to one counter are summed in place
	tx.trying = true
	done := false
	defer func() {
		if !done || err != nil {
			tx.takeBack(&before)
		}
		clear(tx.replaced)
		tx.trying, tx.replaced = false, tx.replaced[:0]
	}()
	err = f()
	done = true
	return err
}

// takeBack makes the transaction's effects what they were.
func (tx *Tx) takeBack(before *Tx) {
	for i := len(tx.replaced) - 1; i >= 0; i-- {
		w := tx.replaced[i]
		tx.writes[tx.find(w.key)].value = w.value
	}
	for _, w := range tx.writes[len(before.writes):] {
		delete(tx.index, string(w.key)) // nil while there are few
	}
	clear(tx.writes[len(before.writes):])
	clear(tx.appends[len(before.appends):])
	clear(tx.callbacks[len(before.callbacks):])
	tx.writes, tx.appends = tx.writes[:len(before.writes)], tx.appends[:len(before.appends)]
	tx.adds, tx.callbacks = before.adds, tx.callbacks[:len(before.callbacks)]
	tx.size, tx.puts, tx.deletes, tx.setSize = before.size, before.puts, before.deletes, before.setSize
}

// recall returns what the transaction has read of the key; nil when it has not.
func (tx *Tx) recall(key []byte) *knownValue {
	for i := range tx.known {
		if bytes.Equal(tx.known[i].key, key) {
			return &tx.known[i]
		}
	}
	return nil
}

func (tx *Tx) checkSize() error {
	if tx.size > tx.db.limits.groupBytes || len(tx.writes)+len(tx.appends)+len(tx.adds) > tx.db.limits.groupOps {
		return fmt.Errorf("%w: the transaction has %d operations and %d bytes, at most %d and %d are allowed; divide it",
			ErrTooLarge, len(tx.writes)+len(tx.appends)+len(tx.adds), tx.size, tx.db.limits.groupOps, tx.db.limits.groupBytes)
	}
	return nil
}

// frees reports whether the transaction counts as a delete below the reserve: it puts no record
// (one that replaces a record and trims its history does), and notes little of each delete.
func (tx *Tx) frees() bool {
	return tx.puts == 0 && tx.deletes > 0 && tx.setSize <= tx.deletes*deleteNotes
}
