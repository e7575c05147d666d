package storage

import (
	"hash/maphash"
	"sync"
)

// recordCache keeps the newest framed values of records that are read and written again and
// again, as a twin is, so that such a transaction need not search Badger's levels. It is filled
// by the goroutine that makes groups visible, never by readers: an entry is always the newest
// version of its key that was applied, and a snapshot may use it when the version is not younger
// than the snapshot.
type recordCache struct {
	seed   maphash.Seed
	shards [64]cacheShard
}

type cacheShard struct {
	mu    sync.Mutex
	byKey map[string]cachedValue
	bytes int // of keys and values, with cacheOverhead each
	most  int
}

type cachedValue struct {
	value []byte
	seq   uint64
}

// cacheOverhead is about what a map entry and its slices cost beside the bytes.
const cacheOverhead = 96

func newRecordCache(bytes int64) *recordCache {
	c := &recordCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].byKey = map[string]cachedValue{}
		c.shards[i].most = int(bytes) / len(c.shards)
	}
	return c
}

func (c *recordCache) shard(key []byte) *cacheShard {
	return &c.shards[maphash.Bytes(c.seed, key)%uint64(len(c.shards))]
}

// get returns the value of key as of a sequence, if the cache has it.
func (c *recordCache) get(key []byte, at uint64) ([]byte, bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byKey[string(key)]
	if !ok || e.seq > at {
		return nil, false
	}
	return e.value, true
}

// apply takes over a group's writes before it becomes visible. A value that is not worth keeping
// still ends an older one.
func (c *recordCache) apply(writes []pair, seq uint64) {
	for i := range writes {
		w := &writes[i]
		s := c.shard(w.key)
		s.mu.Lock()
		if w.hot && w.value != nil {
			s.put(w.key, w.value, seq)
		} else {
			s.drop(string(w.key))
		}
		s.mu.Unlock()
	}
}

func (s *cacheShard) put(key, value []byte, seq uint64) {
	size := len(key) + cap(value) + cacheOverhead
	if size > s.most/4 {
		s.drop(string(key))
		return
	}
	if old, ok := s.byKey[string(key)]; ok {
		s.bytes += cap(value) - cap(old.value)
	} else {
		s.bytes += size
	}
	s.byKey[string(key)] = cachedValue{value, seq}
	// Go's map iteration starts at random: the victim is one by chance, which
	// for equally hot records is as good as any order and costs no list.
	for victim := range s.byKey {
		if s.bytes <= s.most {
			return
		}
		s.drop(victim)
	}
}

func (s *cacheShard) drop(key string) {
	if old, ok := s.byKey[key]; ok {
		s.bytes -= len(key) + cap(old.value) + cacheOverhead
		delete(s.byKey, key)
	}
}
