package storage

import (
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

// TestCacheLeavesOutNewRecords makes records as an import does, which looks whether each is there
// before. Only what is changed later is kept.
func TestCacheLeavesOutNewRecords(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	defer mustClose(t, db)
	table := NewTable("cached", 1, JSON[int]())
	put := func(from, to int) {
		t.Helper()
		err := db.Update(t.Context(), func(tx *Tx) error {
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
	kept := func() (n int) {
		for i := range db.cache.shards {
			s := &db.cache.shards[i]
			s.mu.Lock()
			n += len(s.byHash)
			s.mu.Unlock()
		}
		return n
	}
	put(0, 20)
	if n := kept(); n != 0 {
		t.Errorf("%d of the records that are new are in the cache", n)
	}
	put(10, 15)
	if n := kept(); n != 5 {
		t.Errorf("%d records are in the cache, expected the 5 that were changed", n)
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
