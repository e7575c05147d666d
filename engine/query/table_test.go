package query

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTable compares a table with a map, with hashes that often collide.
func TestTable(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	hash := func(n uint32) uint64 { return uint64(n%37) << 58 }
	var table table
	want := map[uint32]bool{}
	all := func(yield func(uint32, uint64)) {
		for n := range want {
			yield(n, hash(n))
		}
	}
	for range 20_000 {
		n := uint32(r.IntN(300))
		same := func(k uint32) bool { return k == n }
		if _, found := table.find(hash(n), same); found != want[n] {
			t.Fatalf("%d: found %v", n, found)
		}
		if want[n] {
			table.remove(hash(n), n)
			delete(want, n)
		} else if len(want) < 200 || r.IntN(3) == 0 {
			table.add(hash(n), n, all)
			want[n] = true
		}
		if table.used != len(want) {
			t.Fatalf("%d used of %d", table.used, len(want))
		}
	}
	table.remove(hash(1000), 1000) // is not there
}

// TestOrder compares the sorted ids with a sorted list, while ids come and go.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	rows := rows{seed: maphash.MakeSeed()}
	want := map[string]uint32{}
	for round := range 6 {
		for range 4000 {
			id := fmt.Sprintf("%05d", r.IntN(20_000))
			ord, ok := rows.find(id)
			if _, there := want[id]; there != ok || ok && want[id] != ord {
				t.Fatalf("%s: %d %v", id, ord, ok)
			}
			switch {
			case !ok && round < 4:
				want[id] = rows.add(id)
			case ok && round%2 == 1:
				rows.remove(ord, 1)
				delete(want, id)
			}
		}
		rows.reclaim(2)
		ids := slices.Sorted(maps.Keys(want))
		for range 50 {
			after, n := fmt.Sprintf("%05d", r.IntN(20_000)), r.IntN(3000)
			if r.IntN(5) == 0 {
				after = ""
			}
			at, found := slices.BinarySearch(ids, after)
			if found {
				at++
			}
			expected := ids[at:min(len(ids), at+n)]
			got := rows.sorted.after(nil, &rows.ids, after, n)
			if !slices.EqualFunc(got, expected, func(ord uint32, id string) bool { return rows.ids.at(ord) == id }) {
				t.Fatalf("%d ids behind %q: %d", n, after, len(got))
			}
		}
	}
	for id, ord := range want {
		rows.remove(ord, 3)
		delete(want, id)
	}
	if len(rows.sorted.blocks) != 0 || rows.count != 0 || rows.index.used != 0 {
		t.Errorf("%d blocks are left", len(rows.sorted.blocks))
	}
	rows.reclaim(4)
	checkArena(t, &rows.ids.arena, rows.ids.places)
	if n := rows.ids.arena.bytes; n > chunkMost {
		t.Errorf("%d bytes of ids are left", n)
	}
}
