package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// Keys of the stores without tables. They differ in their first byte.
func documentKey(id string) []byte { return append([]byte{'d'}, id...) }
func indexKey(battery int, id string) []byte {
	return append([]byte{'i', byte(battery)}, id...)
}
func historyKey(id string, version int) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{'h'}, id...), uint64(version))
}
func logKey(position uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'l'}, position) }

// pebbleStore does the work with Pebble: one synced batch for each update.
// Pebble has no transactions, so a document is locked from read to commit.
type pebbleStore struct {
	db       *pebble.DB
	cache    *pebble.Cache
	locks    [4096]sync.Mutex
	position atomic.Uint64
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, a ...any) {
	panic(fmt.Sprintf(format, a...))
}

func openPebble(dir string, memory int64) (*pebbleStore, error) {
	cache := pebble.NewCache(memory / 2)
	o := &pebble.Options{
		Cache: cache, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest,
		MemTableSize: uint64(memory / 8), MemTableStopWritesThreshold: 4,
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	db, err := pebble.Open(dir, o)
	if err != nil {
		cache.Unref()
		return nil, err
	}
	s := &pebbleStore{db: db, cache: cache}
	return s, s.findPosition()
}

// findPosition goes on where the log ended.
func (s *pebbleStore) findPosition() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'l'}, UpperBound: []byte{'m'}})
	if err != nil {
		return err
	}
	if it.Last() {
		s.position.Store(binary.BigEndian.Uint64(it.Key()[1:]))
	}
	return it.Close()
}

func (s *pebbleStore) load(n int) error {
	for from := 0; from < n; from += 1000 {
		b := s.db.NewBatch()
		for i := from; i < min(n, from+1000); i++ {
			id, doc := documentID(i), newDocument(i)
			_ = b.Set(documentKey(id), doc, nil)
			_ = b.Set(indexKey(batteryOf(doc), id), nil, nil)
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
	}
	return s.db.Flush()
}

func (s *pebbleStore) update(_ context.Context, c change) error {
	lock := &s.locks[c.document%len(s.locks)]
	lock.Lock()
	defer lock.Unlock()
	id := documentID(c.document)
	value, closer, err := s.db.Get(documentKey(id))
	if err != nil {
		return err
	}
	r := c.apply(slices.Clone(value), stamp())
	if err := closer.Close(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	_ = b.Set(documentKey(id), r.document, nil)
	if r.battery[0] != r.battery[1] {
		_ = b.Delete(indexKey(r.battery[0], id), nil)
		_ = b.Set(indexKey(r.battery[1], id), nil, nil)
	}
	_ = b.Set(historyKey(id, r.version), r.history, nil)
	_ = b.Set(logKey(s.position.Add(1)), r.log, nil)
	return b.Commit(pebble.Sync)
}

func (s *pebbleStore) scan(lo, hi byte, f func(key, value []byte)) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{lo}, UpperBound: []byte{hi}})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		f(it.Key(), value)
	}
	return it.Close()
}

func (s *pebbleStore) versions() (sum int, err error) {
	err = s.scan('d', 'e', func(_, doc []byte) { sum += versionOf(doc) })
	return sum, err
}

func (s *pebbleStore) readable() (rows, bytes int64, err error) {
	err = s.scan('d', 'm', func(key, value []byte) { rows++; bytes += int64(len(key) + len(value)) })
	return rows, bytes, err
}

func (s *pebbleStore) stats() map[string]any {
	m := s.db.Metrics()
	return map[string]any{"flushes": m.Flush.Count, "compactions": m.Compact.Count, "wal_mib": m.WAL.BytesWritten >> 20}
}

func (s *pebbleStore) close() error {
	err := s.db.Close()
	s.cache.Unref()
	return err
}
