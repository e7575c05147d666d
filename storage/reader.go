package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// Reader is what the typed tables, logs, counters and cursors read from: a snapshot (View) or a
// transaction (Update). It is valid only inside the function that it was given to.
type Reader interface {
	// get returns the framed value of a raw key, or ErrNotFound. The key must not change afterwards.
	get(key []byte) ([]byte, error)
	// scan yields the raw keys lo <= key < hi (hi nil: no end) with their framed values. Both
	// alias memory that is reused at the next step.
	scan(lo, hi []byte, reverse bool) iter.Seq2[pair, error]
}

type pair struct {
	key, value []byte
	hash       uint64 // of the key; set for writes in a group
	hot        bool   // a record that one transaction has read and written: worth a place in the cache
	fresh      bool   // a new record that is worth one while there is room: see Remember
}

// snapshot reads the state as of one sequence.
type snapshot struct {
	seq    uint64
	layers []*group // over Badger, oldest first
	era    *era
	db     *DB
	keeps  bool // see Remember
	begin  sync.Once
	txn    *badger.Txn // begun when Badger is needed
	ended  bool
}

func (db *DB) newSnapshot() (*snapshot, error) {
	s := &snapshot{}
	if err := db.openSnapshot(s); err != nil {
		return nil, err
	}
	return s, nil
}

// openSnapshot fills in a new snapshot.
func (db *DB) openSnapshot(s *snapshot) error {
	v, e, err := db.readers.acquire(&db.settling.view)
	if err != nil {
		return err
	}
	s.seq, s.layers, s.era, s.db = v.seq, v.groups, e, db
	return nil
}

// SequenceOf is that of the newest group of which a snapshot knows, as OnCommit tells
// it; 0 of a transaction, which is of none yet.
func SequenceOf(r Reader) uint64 {
	if s, ok := r.(*snapshot); ok {
		return s.seq
	}
	return 0
}

// Remember tells that what the Reader of a View finds from now on is worth memory of the record
// cache, since it may soon be asked for again, as a page of twins is. Until then records cost room
// only when they are written; a reader of very many that nobody will ask for should not call it.
//
// In a transaction, whose reads it is about to replace, it means the new records from now on: those
// that the transaction did not find and writes, as a device that is registered to connect next. They
// have a place while half of the cache is free. Not while other goroutines use the Reader.
func Remember(r Reader) {
	switch r := r.(type) {
	case *snapshot:
		r.keeps = true
	case *Tx:
		r.keeps = true
	}
}

func (s *snapshot) badger() *badger.Txn {
	s.begin.Do(func() { s.txn = s.db.badger.NewTransactionAt(s.seq, false) })
	return s.txn
}

func (s *snapshot) end() {
	if !s.ended {
		s.ended = true
		if s.txn != nil {
			s.txn.Discard()
		}
		s.layers = nil
		s.db.readers.release(s.era)
	}
}

var errEnded = errors.New("storage: a Reader was used after the function that it was given to had returned")

func (s *snapshot) get(key []byte) ([]byte, error) {
	return s.getHashed(key, hashKey(s.db.hash, key))
}

func (s *snapshot) getHashed(key []byte, hash uint64) ([]byte, error) {
	if s.ended {
		return nil, errEnded
	}
	value, ok := s.db.cache.get(key, hash, s.seq)
	if !ok && len(s.layers) > 0 && s.db.recent.after(hash, s.layers[0].seq-1) {
		value, ok = lookup(s.layers, hash, key)
	}
	switch {
	case ok && value == nil:
		return nil, ErrNotFound
	case ok:
		return value, nil
	}
	item, err := s.badger().Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%w: reading key %q: %w", ErrCorrupt, key, err)
	}
	err = item.Value(func(b []byte) error { value = b; return nil }) // a copy, which is the item's alone
	if err != nil {
		return nil, fmt.Errorf("%w: reading the value of key %q: %w", ErrCorrupt, key, err)
	}
	if s.keeps {
		s.db.cache.offer(cachedValue{key, value, item.Version()}, hash, s.seq, &s.db.recent)
	}
	return value, nil
}

func (s *snapshot) scan(lo, hi []byte, reverse bool) iter.Seq2[pair, error] {
	if s.ended {
		return func(yield func(pair, error) bool) { yield(pair{}, errEnded) }
	}
	return layered(s.layers, nil, lo, hi, reverse, s.scanBadger(lo, hi, reverse))
}

func (s *snapshot) scanBadger(lo, hi []byte, reverse bool) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		if s.ended {
			yield(pair{}, errEnded)
			return
		}
		o := badger.IteratorOptions{Reverse: reverse}
		if !reverse && hi != nil {
			// The prefix lets Badger leave tables out. Backwards it would end the iteration at
			// a first key that equals hi.
			o.Prefix = commonPrefix(lo, hi)
		}
		it := s.badger().NewIterator(o)
		defer it.Close()
		switch {
		case !reverse:
			it.Seek(lo)
		case hi == nil:
			it.Rewind()
		default:
			it.Seek(hi)
		}
		for ; it.Valid(); it.Next() {
			item := it.Item()
			key := item.Key()
			if !reverse && hi != nil && bytes.Compare(key, hi) >= 0 || reverse && bytes.Compare(key, lo) < 0 {
				return
			}
			if reverse && hi != nil && bytes.Compare(key, hi) >= 0 {
				continue
			}
			var value []byte
			if err := item.Value(func(b []byte) error { value = b; return nil }); err != nil {
				yield(pair{}, fmt.Errorf("%w: reading the value of key %q: %w", ErrCorrupt, key, err))
				return
			}
			if !yield(pair{key: key, value: value}, nil) {
				return
			}
		}
	}
}

// preload offers the record cache what Badger has below a prefix. Records that a group has written
// which Badger has not taken yet are left to whoever reads them first.
func (s *snapshot) preload(ctx context.Context, prefix []byte) error {
	since := s.seq
	if len(s.layers) > 0 {
		since = s.layers[0].seq - 1
	}
	it := s.badger().NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	refused := 0 // as often as there are shards: the room is as good as taken
	for it.Rewind(); it.Valid() && refused < len(s.db.cache.shards); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		item := it.Item()
		value, err := item.ValueCopy(nil)
		if err != nil {
			return fmt.Errorf("%w: reading the value of key %q: %w", ErrCorrupt, item.Key(), err)
		}
		key := item.KeyCopy(nil)
		if !s.db.cache.fill(cachedValue{key, value, item.Version()}, hashKey(s.db.hash, key), since, &s.db.recent) {
			refused++
		}
	}
	return nil
}

func commonPrefix(a, b []byte) []byte {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// era counts the snapshots that were opened between two checkpoints. Badger may forget versions
// below the oldest snapshot; counting by era keeps an open snapshot as cheap as an addition.
type era struct {
	seq  uint64 // no snapshot of the era is older
	open int
}

type readers struct {
	mu     sync.Mutex
	eras   []*era // oldest first
	open   int
	closed bool
	idle   chan struct{} // closed when closed is set and the last snapshot ended
}

type viewer interface{ Load() *overlay }

func newReaders(seq uint64) *readers {
	return &readers{eras: []*era{{seq: seq}}, idle: make(chan struct{})}
}

func (r *readers) acquire(view viewer) (*overlay, *era, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, ErrClosed
	}
	e := r.eras[len(r.eras)-1]
	e.open++
	r.open++
	return view.Load(), e, nil
}

func (r *readers) release(e *era) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.open--
	r.open--
	if r.closed && r.open == 0 {
		close(r.idle)
	}
}

// oldest begins a new era at seq and returns the sequence below which nobody reads.
func (r *readers) oldest(seq uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.eras = append(r.eras, &era{seq: seq})
	for len(r.eras) > 1 && r.eras[0].open == 0 {
		r.eras = r.eras[1:]
	}
	return r.eras[0].seq
}

// close refuses new snapshots and waits for the open ones.
func (r *readers) close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	if r.open == 0 {
		close(r.idle)
	}
	r.mu.Unlock()
	<-r.idle
}

// lowest returns the sequence of the oldest era that is still read.
func (r *readers) lowest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.eras {
		if e.open > 0 {
			return e.seq
		}
	}
	return r.eras[len(r.eras)-1].seq
}
