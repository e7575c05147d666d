package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// checkArena counts what an arena says about itself, given the places that are in
// use or noPlace.
func checkArena(t *testing.T, a *arena, places []uint32) {
	t.Helper()
	taken := make([]uint32, len(a.chunks))
	bytes, large := int64(0), 0
	for _, p := range places {
		switch {
		case p == noPlace:
		case p&largeFlag != 0:
			large++
			bytes += largeBytes(a.text(p))
		default:
			taken[p>>chunkBits] += uint32(framed(len(a.text(p))))
		}
	}
	for k, c := range a.chunks {
		bytes += int64(c.room)
		if c.taken != taken[k] {
			t.Fatalf("chunk %d: %d bytes are in use, counted %d", k, taken[k], c.taken)
		}
		if thin := slices.Contains(a.thin, k); thin != (k != a.at && c.taken > 0 && c.taken < c.room/2) {
			t.Fatalf("chunk %d with %d of %d bytes in use: thin %v", k, c.taken, c.room, thin)
		}
		if c.taken == 0 && k != a.at && !slices.Contains(a.spare, k) {
			t.Fatalf("chunk %d is empty and was not dropped", k)
		}
	}
	if large != len(a.large)-len(a.unused) || bytes != a.bytes {
		t.Fatalf("%d large texts, counted %d; %d bytes, counted %d", large, len(a.large)-len(a.unused), bytes, a.bytes)
	}
}

// TestArena compares an arena with a map while texts come and go, and looks at
// what was read long ago.
func TestArena(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	var a arena
	want := map[string]*uint32{}
	type reading struct{ text, copied string }
	var read []reading
	text := func() string {
		n := r.IntN(40)
		switch r.IntN(400) {
		case 0:
			n = largeText + r.IntN(5000)
		case 1, 2, 3, 4:
			n = 100 + r.IntN(largeText-100) // about 128 the length takes two bytes
		}
		return strings.Repeat(string(rune('a'+r.IntN(26))), n) + fmt.Sprint(r.IntN(1_000_000))
	}
	check := func() {
		var places []uint32
		for s, p := range want {
			if got := a.text(*p); got != s {
				t.Fatalf("%.20q of %d bytes instead of %.20q of %d", got, len(got), s, len(s))
			}
			places = append(places, *p)
		}
		checkArena(t, &a, places)
	}
	most := int64(0)
	for round := range 40 {
		for range 3000 {
			s := text()
			if want[s] == nil {
				p := a.add(s)
				want[s] = &p
				if r.IntN(20) == 0 {
					got := a.text(p)
					read = append(read, reading{got, strings.Clone(got)})
				}
			}
		}
		most = max(most, a.bytes)
		keep := 500
		if round%4 == 3 {
			keep = 0
		}
		for s, p := range want {
			if len(want) <= keep {
				break
			}
			a.remove(*p)
			delete(want, s)
		}
		for len(a.thin) > 0 {
			before := a.bytes
			a.compact(func(text string, place uint32) *uint32 {
				if p := want[text]; p != nil && *p == place {
					return p
				}
				return nil
			})
			if a.bytes > before+chunkMost {
				t.Fatalf("compacting took %d bytes", a.bytes-before)
			}
		}
		check()
		if round%4 == 3 && a.bytes > chunkMost {
			t.Errorf("%d bytes are left of %d without a text", a.bytes, most)
		}
	}
	for _, x := range read {
		if x.text != x.copied {
			t.Fatalf("a text that was read changed")
		}
	}
	if len(a.chunks) > 40 {
		t.Errorf("%d chunks: none is used again", len(a.chunks))
	}
}

// TestArenaFull goes on with texts that stand alone when there may be no more chunks.
func TestArenaFull(t *testing.T) {
	a := arena{chunks: make([]chunk, chunksMost)}
	p := a.add("text")
	if a.text(p) != "text" || p&largeFlag == 0 {
		t.Fatalf("place %x", p)
	}
	a.remove(p)
	if a.bytes != 0 || a.add("other") != p {
		t.Errorf("%d bytes, or the place is not used again", a.bytes)
	}
}

// TestDictionaryChurn gives a few rows texts that none had before, with queries
// running that began earlier: texts stay readable for them, and memory is bounded.
func TestDictionaryChurn(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	c := newColumn(0)
	held := map[uint32]string{} // codes that a query since `since` may have seen
	since, now := uint64(1), uint64(1)
	most := int64(0)
	for range 60_000 {
		now++
		ord := uint32(r.IntN(2000))
		if x := c.get(ord); x.coded() && x.code() >= firstCode {
			held[x.code()] = strings.Clone(c.value(x.code()).Text())
		}
		c.set(ord, StringValue(fmt.Sprintf("text %020d", r.IntN(1<<40))), now)
		if now-since > 700 {
			for code, text := range held {
				if got := c.value(code).Text(); got != text {
					t.Fatalf("code %d is %q now, a query saw %q", code, got, text)
				}
			}
			clear(held)
			since = now
		}
		c.reclaim(since)
		most = max(most, c.dictionary.bytes())
	}
	var places []uint32
	for _, e := range c.entries {
		places = append(places, e.place)
	}
	checkArena(t, &c.texts, places)
	if live := c.live; live != c.index.used || live > 2000 {
		t.Errorf("%d live entries, %d in the index", live, c.index.used)
	}
	if most > 400_000 {
		t.Errorf("the dictionary of 2,000 short texts took up to %d bytes", most)
	}
}
