package query

import (
	"slices"
	"strings"
)

// arena keeps texts end to end in chunks. A text is known by a place of four
// bytes and takes its own bytes and one or two for its length: no header, no
// pointer, nothing that the collector looks at.
//
// No byte of a chunk is written twice, so a text that was read stays what it is
// for whoever holds it. Chunks of which most is no longer used are thin: what is
// left in them is moved elsewhere, and they go.
type arena struct {
	chunks []chunk
	open   *strings.Builder // what the chunk current is made in; nil before the first
	at     int              // the current chunk
	spare  []int            // numbers of chunks that went
	thin   []int            // chunks to compact
	large  []string         // texts that are no part of a chunk
	unused []uint32         // numbers in large that are free
	bytes  int64            // of all chunks and large texts
}

type chunk struct {
	text  string // what has been written
	room  uint32 // bytes it takes
	taken uint32 // bytes that are in use
}

const (
	chunkBits  = 16
	chunkMost  = 1 << chunkBits
	chunkLeast = 256
	chunksMost = 1 << (31 - chunkBits)
	largeText  = 2048    // from here on a text stands alone
	largeFlag  = 1 << 31 // of places of large texts
	noPlace    = ^uint32(0)
)

// framed is what a text of n bytes takes in a chunk.
func framed(n int) int {
	if n < 0x80 {
		return 1 + n
	}
	return 2 + n
}

// add keeps a text and returns its place.
func (a *arena) add(text string) uint32 {
	if !a.begin(len(text)) {
		return a.addLarge(strings.Clone(text))
	}
	at := a.open.Len()
	a.frame(len(text))
	a.open.WriteString(text)
	return a.end(at)
}

// addBytes is add.
func (a *arena) addBytes(text []byte) uint32 {
	if !a.begin(len(text)) {
		return a.addLarge(string(text))
	}
	at := a.open.Len()
	a.frame(len(text))
	a.open.Write(text)
	return a.end(at)
}

// begin makes room in a chunk for a text of n bytes; false when it has to stand
// alone.
func (a *arena) begin(n int) bool { return n < largeText && a.fits(framed(n)) }

// frame writes how long the text is that comes.
func (a *arena) frame(n int) {
	if n < 0x80 {
		a.open.WriteByte(byte(n))
	} else {
		a.open.WriteByte(byte(n) | 0x80)
		a.open.WriteByte(byte(n >> 7))
	}
}

// end returns the place of the text that was written from at on.
func (a *arena) end(at int) uint32 {
	c := &a.chunks[a.at]
	c.text = a.open.String()
	c.taken += uint32(len(c.text) - at)
	return uint32(a.at<<chunkBits | at)
}

// fits makes sure that the current chunk has room for so many bytes more; false
// when there may be no more chunks.
func (a *arena) fits(n int) bool {
	if a.open != nil && a.open.Cap()-a.open.Len() >= n {
		return true
	}
	next := len(a.chunks)
	if k := len(a.spare); k > 0 {
		next = a.spare[k-1]
		a.spare = a.spare[:k-1]
	} else if next == chunksMost {
		return false
	} else {
		a.chunks = append(a.chunks, chunk{})
	}
	before, full := a.at, a.open != nil
	// Chunks grow with the arena, since most columns have few values.
	a.open, a.at = &strings.Builder{}, next
	a.open.Grow(min(max(chunkLeast, n, int(min(a.bytes, chunkMost))), chunkMost))
	a.chunks[next] = chunk{room: uint32(a.open.Cap())}
	a.bytes += int64(a.open.Cap())
	if full {
		a.judge(before, uint32(len(a.chunks[before].text)))
	}
	return true
}

// addLarge keeps a text that stands alone.
func (a *arena) addLarge(text string) uint32 {
	a.bytes += largeBytes(text)
	if k := len(a.unused); k > 0 {
		n := a.unused[k-1]
		a.unused = a.unused[:k-1]
		a.large[n] = text
		return n | largeFlag
	}
	a.large = append(a.large, text)
	return uint32(len(a.large)-1) | largeFlag
}

func largeBytes(text string) int64 { return 16 + (int64(len(text))+15)&^15 }

// text returns the text at a place.
func (a *arena) text(place uint32) string {
	if place&largeFlag != 0 {
		if place == noPlace {
			return ""
		}
		return a.large[place&^largeFlag]
	}
	text, _ := unframe(a.chunks[place>>chunkBits].text[place&(chunkMost-1):])
	return text
}

// unframe splits a text from what stands behind it.
func unframe(s string) (text, rest string) {
	from, n := 1, int(s[0])
	if n >= 0x80 {
		from, n = 2, n&0x7f|int(s[1])<<7
	}
	return s[from : from+n], s[from+n:]
}

// remove forgets the text at a place.
func (a *arena) remove(place uint32) {
	if place != noPlace {
		a.removeOf(place, len(a.text(place)))
	}
}

// removeOf is remove for who knows that the text has n bytes, and need not look at
// what may have been written long ago.
func (a *arena) removeOf(place uint32, n int) {
	if place&largeFlag != 0 {
		n := place &^ largeFlag
		a.bytes -= largeBytes(a.large[n])
		a.large[n] = ""
		a.unused = append(a.unused, n)
		return
	}
	k := int(place >> chunkBits)
	c := &a.chunks[k]
	before := c.taken
	c.taken -= uint32(framed(n))
	if k != a.at {
		a.judge(k, before)
	}
}

// judge looks whether a chunk that takes no more texts has become thin or empty.
func (a *arena) judge(k int, before uint32) {
	c := &a.chunks[k]
	half := c.room / 2
	switch {
	case c.taken == 0:
		if i := slices.Index(a.thin, k); i >= 0 {
			a.thin = slices.Delete(a.thin, i, i+1)
		}
		a.drop(k)
	case c.taken < half && before >= half:
		a.thin = append(a.thin, k)
	}
}

func (a *arena) drop(k int) {
	a.bytes -= int64(a.chunks[k].room)
	a.chunks[k] = chunk{}
	a.spare = append(a.spare, k)
}

// compactions is how many chunks are moved at a time: one takes half a
// millisecond, while all queries wait.
const compactions = 2

// compact moves what is left in thin chunks. holder returns where the place of a
// text is kept, nil when the text is not used any more.
func (a *arena) compact(holder func(text string, place uint32) *uint32) {
	for range min(compactions, len(a.thin)) {
		k := a.thin[0]
		a.thin = slices.Delete(a.thin, 0, 1)
		all := a.chunks[k].text
		for rest := all; rest != ""; {
			place := uint32(k<<chunkBits | (len(all) - len(rest)))
			var text string
			if text, rest = unframe(rest); a.chunks[k].taken > 0 {
				if at := holder(text, place); at != nil {
					a.chunks[k].taken -= uint32(framed(len(text)))
					*at = a.add(text)
				}
			}
		}
		a.drop(k)
	}
}

// size is what the arena takes, its lists included.
func (a *arena) size() int64 {
	return a.bytes + int64(cap(a.chunks))*24 + int64(cap(a.unused))*4
}
