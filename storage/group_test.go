package storage

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"testing"
)

func TestGroupIndex(t *testing.T) {
	g := &group{seq: 1, db: &DB{hash: maphash.MakeSeed()}}
	key := func(i int) []byte { return fmt.Appendf(nil, "t/x\x00%d", i) }
	if at := g.find(hashKey(g.db.hash, key(0)), key(0)); at != -1 {
		t.Errorf("an empty group has a key at %d", at)
	}
	const keys = 1000
	for round := range 2 {
		for i := range keys {
			g.put(pair{key: key(i), value: fmt.Appendf(nil, "%d of %d", i, round), hot: i == 7 && round == 0})
		}
	}
	if len(g.writes) != keys {
		t.Fatalf("%d writes, want one for each of %d keys", len(g.writes), keys)
	}
	for i := range keys {
		at := g.find(hashKey(g.db.hash, key(i)), key(i))
		if at < 0 || !bytes.Equal(g.writes[at].key, key(i)) || string(g.writes[at].value) != fmt.Sprintf("%d of 1", i) {
			t.Fatalf("key %d is found at %d: %+v", i, at, g.writes[max(at, 0)])
		}
		if g.writes[at].hot != (i == 7) {
			t.Errorf("key %d: hot is %t", i, g.writes[at].hot)
		}
	}
	for i := keys; i < 2*keys; i++ {
		if at := g.find(hashKey(g.db.hash, key(i)), key(i)); at != -1 {
			t.Errorf("key %d, which is not there, is found at %d", i, at)
		}
	}
}

// Keys that share a hash are told apart by their bytes.
func TestGroupIndexOneHash(t *testing.T) {
	const same = 1<<63 + 5
	g := &group{index: make([]int32, 256)}
	for i := range 100 {
		_, slot := g.look(same, []byte{byte(i)})
		g.writes = append(g.writes, pair{key: []byte{byte(i)}, hash: same})
		g.index[slot] = int32(i + 1)
	}
	g.grow()
	for i := range 200 {
		want := i
		if i >= len(g.writes) {
			want = -1
		}
		if at := g.find(same, []byte{byte(i)}); at != want {
			t.Errorf("key %d is found at %d, want %d", i, at, want)
		}
	}
	if at := g.find(same+1, []byte{1}); at != -1 {
		t.Errorf("a key with another hash is found at %d", at)
	}
}
