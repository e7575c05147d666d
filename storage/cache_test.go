package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestCacheKeepsSnapshots reads old snapshots while the records in them are changed, deleted and
// made again; the cache must never show one version to a snapshot of another.
func TestCacheKeepsSnapshots(t *testing.T) {
	tune := small()
	tune.recordCache = 64 * 2 << 10 // so small that entries come and go
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tune)
	defer mustClose(t, db)
	table := NewTable("cached", 1, JSON[int]())
	const keys, rounds = 40, 60
	key := func(i int) Key { return Tuple(fmt.Sprint("key-", i)) }
	model := [keys]int{} // 0: absent
	random := rand.New(rand.NewPCG(1, 2))
	step := func() error {
		return db.Update(t.Context(), func(tx *Tx) error {
			if random.IntN(2) == 0 {
				Remember(tx)
			}
			for range 10 {
				i := random.IntN(keys)
				v, err := table.Get(tx, key(i))
				if errors.Is(err, ErrNotFound) {
					v, err = 0, nil
				}
				if err != nil {
					return err
				}
				if v != model[i] {
					return fmt.Errorf("key %d is %d in the transaction, want %d", i, v, model[i])
				}
				if model[i]++; random.IntN(5) == 0 {
					model[i] = 0
					err = table.Delete(tx, key(i))
				} else {
					err = table.Put(tx, key(i), model[i])
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	check := func(r Reader, want [keys]int, when string) {
		for i := range keys {
			v, err := table.Get(r, key(i))
			if errors.Is(err, ErrNotFound) {
				v, err = 0, nil
			}
			if err != nil || v != want[i] {
				t.Fatalf("%s: key %d is %d, want %d (%v)", when, i, v, want[i], err)
			}
		}
	}
	for round := range rounds {
		err := db.View(t.Context(), func(r Reader) error {
			Remember(r)
			before := model
			check(r, before, "fresh snapshot")
			for range 5 {
				if err := step(); err != nil {
					return err
				}
			}
			check(r, before, fmt.Sprint("old snapshot of round ", round))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c, seed := newRecordCache(64*4096), maphash.MakeSeed()
	for i := range 10_000 {
		key := fmt.Append(nil, "key-", i)
		c.apply([]pair{{key: key, hash: hashKey(seed, key), value: make([]byte, 100), hot: true}}, uint64(i+1))
	}
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		bytes := 0
		for _, e := range s.byHash {
			bytes += e.size()
		}
		if bytes != s.bytes || bytes > s.most {
			t.Errorf("shard %d counts %d bytes, holds %d, at most %d", i, s.bytes, bytes, s.most)
		}
		total += len(s.byHash)
	}
	if total < 64*10 {
		t.Errorf("%d records are left in the cache", total)
	}
	big := []pair{{key: []byte("big"), value: make([]byte, 4096), hot: true}}
	c.apply(big, 20_000)
	if _, ok := c.get([]byte("big"), 0, 30_000); ok {
		t.Error("a value that would empty its shard was taken")
	}
}

// inCache is how many records the cache has.
func inCache(db *DB) (n int) {
	for i := range db.cache.shards {
		s := &db.cache.shards[i]
		s.mu.Lock()
		n += len(s.byHash)
		s.mu.Unlock()
	}
	return n
}

// TestCacheLeavesOutNewRecords makes records as an import does, which looks whether each is there
// before. Only what is changed later is kept, and what a transaction wants to be remembered.
func TestCacheLeavesOutNewRecords(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	defer mustClose(t, db)
	table := NewTable("cached", 1, JSON[int]())
	put := func(from, to int, remember bool) {
		t.Helper()
		err := db.Update(t.Context(), func(tx *Tx) error {
			if remember {
				Remember(tx)
			}
			if err := table.Put(tx, Tuple(uint64(from), "unasked"), from); err != nil {
				return err
			}
			for i := from; i < to; i++ {
				if _, err := table.Has(tx, Tuple(uint64(i))); err != nil {
					return err
				}
				if err := table.Put(tx, Tuple(uint64(i)), i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(0, 20, false)
	if n := inCache(db); n != 0 {
		t.Errorf("%d of the records that are new are in the cache", n)
	}
	put(10, 15, false)
	if n := inCache(db); n != 5 {
		t.Errorf("%d records are in the cache, expected the 5 that were changed", n)
	}
	put(20, 27, true)
	if n := inCache(db); n != 12 {
		t.Errorf("%d records are in the cache, expected 7 more, which are new and wanted", n)
	}
}

// TestCacheTakesWhatIsRead reads records that only Badger has, in a transaction, in a View, and in
// one that wants them to be remembered.
func TestCacheTakesWhatIsRead(t *testing.T) {
	dir, table := t.TempDir(), NewTable("cached", 1, JSON[int]())
	db := mustOpen(t, testOptions(t, dir), osFS{}, small())
	const records = 30
	err := db.Update(t.Context(), func(tx *Tx) error {
		for i := range records {
			if err := table.Put(tx, Tuple(uint64(i)), i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	db = mustOpen(t, testOptions(t, dir), osFS{}, small())
	defer mustClose(t, db)
	read := func(to int, remember bool) {
		t.Helper()
		err := db.View(t.Context(), func(r Reader) error {
			if remember {
				Remember(r)
			}
			for i := range to {
				if v, err := table.Get(r, Tuple(uint64(i))); err != nil || v != i {
					return fmt.Errorf("record %d is %d: %w", i, v, err)
				}
			}
			_, err := table.Get(r, Tuple("absent"))
			if !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("an absent record: %w", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err = db.Update(t.Context(), func(tx *Tx) error {
		Remember(tx)
		_, err := table.Get(tx, Tuple(uint64(3)))
		return err
	})
	read(records, false)
	if n := inCache(db); err != nil || n != 0 {
		t.Errorf("%d records are in the cache that nobody wanted to be there (%v)", n, err)
	}
	for _, step := range []struct{ reads, kept int }{{10, 10}, {10, 10}, {records, records}, {records, records}} {
		if read(step.reads, true); inCache(db) != step.kept {
			t.Errorf("%d records are in the cache, expected %d", inCache(db), step.kept)
		}
	}
}

// TestPreload reads a table ahead in a store that was opened again: with what only the journal has,
// beside other tables, in little room, and while records are written.
func TestPreload(t *testing.T) {
	dir, table, other := t.TempDir(), NewTable("ahead", 1, JSON[int]()), NewTable("aheadother", 1, JSON[int]())
	db := mustOpen(t, testOptions(t, dir), osFS{}, small())
	const records = 120
	put := func(from, to, add int) {
		t.Helper()
		err := db.Update(t.Context(), func(tx *Tx) error {
			for i := from; i < to; i++ {
				if err := errors.Join(table.Put(tx, Tuple(uint64(i)), i+add), other.Put(tx, Tuple(uint64(i)), i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(0, records, 0)
	mustClose(t, db)
	tune := small()
	tune.recordCache = 64 << 10
	db = mustOpen(t, testOptions(t, dir), osFS{}, tune)
	if err := table.Preload(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if n := inCache(db); n == 0 || n >= records {
		t.Errorf("%d of %d records are in a cache with room for less", n, records)
	}
	for i := range db.cache.shards {
		if s := &db.cache.shards[i]; s.bytes > s.most/4 {
			t.Errorf("read ahead were %d bytes of a shard, which may have %d", s.bytes, s.most)
		}
	}
	mustClose(t, db)

	db = mustOpen(t, testOptions(t, dir), osFS{}, small())
	defer mustClose(t, db)
	const changed = 20
	put(0, changed, 1000) // new versions that Badger does not have yet
	ended, end := context.WithCancel(t.Context())
	end()
	if err := table.Preload(ended, db); !errors.Is(err, context.Canceled) || inCache(db) != 0 {
		t.Errorf("ended: %v, %d records are in the cache", err, inCache(db))
	}
	var writers sync.WaitGroup
	writers.Go(func() { put(records-changed, records, 1000) })
	err := table.Preload(t.Context(), db)
	writers.Wait()
	// A key that shares its place in recent with one that was written counts as written, too.
	if n := inCache(db); err != nil || n < records/2 || n > records-changed {
		t.Errorf("%d records are in the cache (%v), expected those of one table that were not written: about %d", n, err, records-2*changed)
	}
	err = db.View(t.Context(), func(r Reader) error {
		for i := range records {
			want := i
			if i < changed || i >= records-changed {
				want += 1000
			}
			if v, err := table.Get(r, Tuple(uint64(i))); err != nil || v != want {
				return fmt.Errorf("record %d is %d, want %d: %w", i, v, want, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCacheLeavesRoom goes through many records once, which take no more than half of the cache.
func TestCacheLeavesRoom(t *testing.T) {
	key := func(i int) []byte { return fmt.Appendf(nil, "key-%05d", i) }
	offer := func(c *recordCache, i int) (kept bool) {
		value := frame(key(i), 1, make([]byte, 100))
		c.offer(cachedValue{key(i), value[:len(value):len(value)], 1}, uint64(i), 1, new(recent)) // all in one shard
		_, kept = c.get(key(i), uint64(i), 1)
		return kept
	}
	c := newRecordCache(1 << 20)
	s := &c.shards[0]
	for i := range 1000 {
		if offer(c, i) != (len(s.byHash) == i+1) || s.bytes > s.most/2 {
			t.Fatalf("after %d records %d have %d of %d bytes", i+1, len(s.byHash), s.bytes, s.most)
		}
	}
	once := len(s.byHash)
	if once < 10 {
		t.Fatalf("%d records are kept of those that were read once", once)
	}
	c.apply([]pair{{key: key(1500), value: make([]byte, 100), hash: 1500, fresh: true}}, 2)
	if len(s.byHash) != once {
		t.Error("a new record has taken from the half that is for what is used again")
	}
	if offer(c, 2000) || !offer(c, 2000) || len(s.byHash) != once+1 {
		t.Error("a record is kept when it was read once, or is not when it was read twice")
	}
}

// TestCacheTakesNothingDamaged offers values that a reader will be refused.
func TestCacheTakesNothingDamaged(t *testing.T) {
	c, key, written := newRecordCache(1<<20), []byte("key"), new(recent)
	good := frame(key, 1, []byte("payload"))
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, value := range [][]byte{nil, good[:5], flipped} {
		for range 3 {
			c.offer(cachedValue{key, value, 1}, 7, 1, written)
		}
		if v, ok := c.get(key, 7, 1); ok {
			t.Errorf("%q is in the cache", v)
		}
	}
	c.offer(cachedValue{key, good, 1}, 7, 1, written)
	if v, ok := c.get(key, 7, 1); !ok || !bytes.Equal(v, good) {
		t.Errorf("%q is in the cache, expected the value without damage", v)
	}
}

func TestCacheUnderLoad(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	defer mustClose(t, db)
	table := NewTable("cached", 1, JSON[int]())
	const writers, each, keys = 8, 150, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				k := Tuple(uint64((w + n) % keys))
				err := db.Update(context.Background(), func(tx *Tx) error {
					v, err := table.Get(tx, k)
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					return table.Put(tx, k, v+1)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	err := db.View(t.Context(), func(r Reader) error {
		for i := range keys {
			v, err := table.Get(r, Tuple(uint64(i)))
			if err != nil {
				return err
			}
			sum += v
		}
		return nil
	})
	if err != nil || sum != writers*each {
		t.Errorf("%d of %d increments are there, %v", sum, writers*each, err)
	}
}
