package main

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// naiveStore does the work as Badger's documentation shows it: one transaction
// for each update, SyncWrites on, everything else by default, and again after
// a conflict.
type naiveStore struct {
	db        *badger.DB
	position  atomic.Uint64
	conflicts atomic.Uint64
}

func openNaive(dir string) (*naiveStore, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	s := &naiveStore{db: db}
	return s, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Reverse: true})
		defer it.Close()
		if it.Seek([]byte{'m'}); it.ValidForPrefix([]byte{'l'}) {
			s.position.Store(binary.BigEndian.Uint64(it.Item().Key()[1:]))
		}
		return nil
	})
}

func (s *naiveStore) load(n int) error {
	b := s.db.NewWriteBatch()
	defer b.Cancel()
	for i := range n {
		id, doc := documentID(i), newDocument(i)
		if err := errors.Join(b.Set(documentKey(id), doc), b.Set(indexKey(batteryOf(doc), id), nil)); err != nil {
			return err
		}
	}
	return b.Flush()
}

func (s *naiveStore) update(_ context.Context, c change) error {
	for {
		err := s.db.Update(func(txn *badger.Txn) error { return s.updateTx(txn, c) })
		if !errors.Is(err, badger.ErrConflict) {
			return err
		}
		s.conflicts.Add(1)
	}
}

func (s *naiveStore) updateTx(txn *badger.Txn, c change) error {
	id := documentID(c.document)
	item, err := txn.Get(documentKey(id))
	if err != nil {
		return err
	}
	doc, err := item.ValueCopy(nil)
	if err != nil {
		return err
	}
	r := c.apply(doc, stamp())
	if r.battery[0] != r.battery[1] {
		if err := errors.Join(txn.Delete(indexKey(r.battery[0], id)), txn.Set(indexKey(r.battery[1], id), nil)); err != nil {
			return err
		}
	}
	return errors.Join(
		txn.Set(documentKey(id), r.document),
		txn.Set(historyKey(id, r.version), r.history),
		txn.Set(logKey(s.position.Add(1)), r.log),
	)
}

func (s *naiveStore) scan(prefix []byte, f func(key, value []byte)) error {
	return s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = prefix
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := it.Item().Value(func(v []byte) error { f(it.Item().Key(), v); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *naiveStore) versions() (sum int, err error) {
	err = s.scan([]byte{'d'}, func(_, doc []byte) { sum += versionOf(doc) })
	return sum, err
}

func (s *naiveStore) readable() (rows, bytes int64, err error) {
	err = s.scan(nil, func(key, value []byte) { rows++; bytes += int64(len(key) + len(value)) })
	return rows, bytes, err
}

func (s *naiveStore) stats() map[string]any {
	return map[string]any{"conflicts": s.conflicts.Load()}
}

func (s *naiveStore) close() error { return s.db.Close() }
