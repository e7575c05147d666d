package storage

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// recordCache keeps the newest framed values of records that are used again and again, so that
// their readers need not search Badger's levels and unpack a block for each, of which 4 KiB have
// room for two or three twins. Such are what one transaction has read and written, as a twin is, and
// new ones that it wants to be remembered, both taken over by the goroutine that makes groups visible;
// what a View has found in Badger and wants to be remembered (offer); and tables that are read ahead
// after a start (fill). An entry is always the newest version of its key that
// was applied, and a snapshot may use it when the version is not younger than the snapshot.
type recordCache struct {
	shards [64]cacheShard
	asked  [askedKeys]atomic.Uint32 // parts of the hashes of keys that were found in Badger lately
}

// askedKeys is how many keys are remembered until they are asked for again, at most: so many pages
// of queries and other readers can come between.
const askedKeys = 1 << 18

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
		if scannedOnly(w.key) {
			continue // never kept
		}
		s := c.shard(w.hash)
		s.mu.Lock()
		e := cachedValue{w.key, w.value, seq}
		if w.value != nil && (w.hot || w.fresh && s.spare(&e)) {
			s.put(w.hash, e)
		} else {
			s.drop(w.hash)
		}
		s.mu.Unlock()
	}
}

// offer takes over what a snapshot of sequence at has read from Badger: at once while half of the
// cache is free, and else when it is read for the second time, so that who goes through all records
// once, as an export does, takes no room from what is used again.
//
// The value must be the newest version, and stays so: who writes the key is in recent before its
// group reaches apply, which then waits for the shard or came first.
func (c *recordCache) offer(e cachedValue, hash, at uint64, written *recent) {
	if scannedOnly(e.key) {
		return
	}
	if _, _, err := unframe(e.key, e.value); err != nil {
		return // whoever reads it is told so each time
	}
	mark := uint32(hash>>32) | 1
	again := c.asked[hash%askedKeys].Swap(mark) == mark
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.byHash[hash]; ok && old.seq > e.seq && bytes.Equal(old.key, e.key) {
		return
	}
	if (again || s.spare(&e)) && !written.after(hash, at) {
		s.put(hash, e)
	}
}

// fill takes over a record that is read ahead, of which nothing was written since a sequence, and
// reports whether there is room: all of them have a quarter of the cache, so that as much is free for
// what is in fact read (spare).
func (c *recordCache) fill(e cachedValue, hash, since uint64, written *recent) bool {
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+e.size() > s.most/4 {
		return false
	}
	if _, ok := s.byHash[hash]; !ok && !written.after(hash, since) {
		if _, _, err := unframe(e.key, e.value); err == nil { // else whoever reads it is told so each time
			s.put(hash, e)
		}
	}
	return true
}

// scannedOnly tells keys that nobody reads one by one.
func scannedOnly(key []byte) bool {
	return key[0] == prefixIndex[0] || key[0] == prefixFront[0] || key[0] == prefixLog[0]
}

// spare reports whether half of the shard is free even with e in it.
func (s *cacheShard) spare(e *cachedValue) bool { return s.bytes+e.size() <= s.most/2 }

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
