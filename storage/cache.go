package storage

import (
	"bytes"
	"sync"
)

// recordCache keeps the newest framed values of records that are read and written again and
// again, as a twin is, so that such a transaction need not search Badger's levels. It is filled
// by the goroutine that makes groups visible, never by readers: an entry is always the newest
// version of its key that was applied, and a snapshot may use it when the version is not younger
// than the snapshot.
type recordCache struct {
	shards [64]cacheShard
}

// A shard knows one key for each hash: of two keys with one hash, the later drops the other.
type cacheShard struct {
	mu     sync.Mutex
	byHash map[uint64]cachedValue
	bytes  int // of keys and values, with cacheOverhead each
	most   int
}

type cachedValue struct {
	key, value []byte
	seq        uint64
}

func (e *cachedValue) size() int { return len(e.key) + cap(e.value) + cacheOverhead }

// cacheOverhead is about what a map entry and its slices cost beside the bytes.
const cacheOverhead = 96

func newRecordCache(bytes int64) *recordCache {
	c := &recordCache{}
	for i := range c.shards {
		c.shards[i].byHash = map[uint64]cachedValue{}
		c.shards[i].most = int(bytes) / len(c.shards)
	}
	return c
}

// shard takes other bits of the hash than the map.
func (c *recordCache) shard(hash uint64) *cacheShard {
	return &c.shards[hash>>32%uint64(len(c.shards))]
}

// get returns the value of key as of a sequence, if the cache has it.
func (c *recordCache) get(key []byte, hash, at uint64) ([]byte, bool) {
	s := c.shard(hash)
	s.mu.Lock()
	e, ok := s.byHash[hash]
	s.mu.Unlock()
	if !ok || e.seq > at || !bytes.Equal(e.key, key) {
		return nil, false
	}
	return e.value, true
}

// apply takes over a group's writes before it becomes visible. A value that is not worth keeping
// still ends an older one.
func (c *recordCache) apply(writes []pair, seq uint64) {
	for i := range writes {
		w := &writes[i]
		if w.key[0] == prefixIndex[0] || w.key[0] == prefixLog[0] {
			continue // these are only scanned, and never kept
		}
		s := c.shard(w.hash)
		s.mu.Lock()
		if w.hot && w.value != nil {
			s.put(w.hash, cachedValue{w.key, w.value, seq})
		} else {
			s.drop(w.hash)
		}
		s.mu.Unlock()
	}
}

func (s *cacheShard) put(hash uint64, e cachedValue) {
	if e.size() > s.most/4 {
		s.drop(hash)
		return
	}
	old, ok := s.byHash[hash]
	if ok {
		s.bytes -= old.size()
	}
	s.byHash[hash] = e
	s.bytes += e.size()
	if s.bytes <= s.most {
		return
	}
	// Go's map iteration starts at random: the victim is one by chance, which
	// for equally hot records is as good as any order and costs no list.
	for victim := range s.byHash {
		s.drop(victim)
		if s.bytes <= s.most {
			return
		}
	}
}

func (s *cacheShard) drop(hash uint64) {
	if old, ok := s.byHash[hash]; ok {
		s.bytes -= old.size()
		delete(s.byHash, hash)
	}
}
