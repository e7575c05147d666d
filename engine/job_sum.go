package engine

import (
	"encoding/binary"
	"math/bits"
)

// targetSum tells two sets of targets apart without keeping either: their
// number, two sums over all of them, whatever their order, and a sketch from
// which a few differences can be read. It takes 1 KB.
//
// The sketch is an invertible Bloom look-up table: each target is added to three
// cells, and what two sketches have in common is gone when one is taken from the
// other. A cell that is left with one target gives it away, and with it helps
// others to be alone. Sixty cells give away some forty differences.
type targetSum struct {
	key   [2]uint64
	Count int64
	Sum   [2]uint64
	Cells [sketchCells]sketchCell
}

const sketchCells = 60 // in three parts of the same size

type sketchCell struct {
	Count int32
	ID    uint64 // of the targets in it, one over the other
	Check uint32
}

// newTargetSum returns the sum of no targets. Of another hub's it differs.
func (h *Hub) newTargetSum() *targetSum {
	key := h.db.DeriveKey("sums of targets")
	return &targetSum{key: [2]uint64{binary.LittleEndian.Uint64(key), binary.LittleEndian.Uint64(key[8:])}}
}

// hashRow mixes a row's id.
func (s *targetSum) hashRow(row string) (id, check uint64) {
	const odd = 0x9e3779b97f4a7c15
	h := s.key[0] ^ uint64(len(row))*odd
	for len(row) >= 8 {
		w := uint64(row[0]) | uint64(row[1])<<8 | uint64(row[2])<<16 | uint64(row[3])<<24 |
			uint64(row[4])<<32 | uint64(row[5])<<40 | uint64(row[6])<<48 | uint64(row[7])<<56
		h = mix(h^w, s.key[1]|1)
		row = row[8:]
	}
	var w uint64
	for i := range len(row) {
		w |= uint64(row[i]) << (8 * i)
	}
	id = mix(h^w^odd, s.key[1]^0xe7037ed1a0b428db|1)
	return id, mix(id^s.key[0], 0x8ebc6af09c88c6e3)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// add adds a target, and returns its number.
func (s *targetSum) add(row string) uint64 {
	id, check := s.hashRow(row)
	s.Count++
	s.Sum[0] += id
	s.Sum[1] += check
	for _, at := range sketchPlaces(check) {
		c := &s.Cells[at]
		c.Count++
		c.ID ^= id
		c.Check ^= uint32(check)
	}
	return id
}

// sketchPlaces are the cells of a target, one in each part.
func sketchPlaces(check uint64) [3]int {
	const part = sketchCells / 3
	return [3]int{
		int(check >> 32 & 0xffff % part), part + int(check>>48%part), 2*part + int(bits.RotateLeft64(check*0x9fb21c651e98df25, 21)>>40%part),
	}
}

// same reports whether both are sums of the same targets.
func (s *targetSum) same(o *targetSum) bool { return s.Count == o.Count && s.Sum == o.Sum }

// targetChange says how a set of targets differs from what it was.
type targetChange struct {
	More, Fewer int
	Exact       bool            // else there are at least so many of each
	New         map[uint64]bool // numbers of those that came
}

// since says how the targets differ from those of an earlier sum.
func (s *targetSum) since(before *targetSum) targetChange {
	c := targetChange{New: map[uint64]bool{}}
	cells := s.Cells
	for i := range cells {
		cells[i].Count -= before.Cells[i].Count
		cells[i].ID ^= before.Cells[i].ID
		cells[i].Check ^= before.Cells[i].Check
	}
	for range 4 * sketchCells {
		found := false
		for i := range cells {
			one := cells[i]
			if one.Count != 1 && one.Count != -1 {
				continue
			}
			check := mix(one.ID^s.key[0], 0x8ebc6af09c88c6e3)
			places := sketchPlaces(check)
			if uint32(check) != one.Check || places[0] != i && places[1] != i && places[2] != i {
				continue
			}
			found = true
			if one.Count == 1 {
				c.More++
				c.New[one.ID] = true
			} else {
				c.Fewer++
			}
			for _, at := range places {
				cells[at].Count -= one.Count
				cells[at].ID ^= one.ID
				cells[at].Check ^= one.Check
			}
		}
		if !found {
			break
		}
	}
	c.Exact = true
	for _, cell := range cells {
		c.Exact = c.Exact && cell == sketchCell{}
	}
	if more := int(s.Count - before.Count); more > c.More-c.Fewer { // what the sketch did not give away
		c.More += more - (c.More - c.Fewer)
	} else if more < c.More-c.Fewer {
		c.Fewer += c.More - c.Fewer - more
	}
	return c
}

// String says it in words: "3 more, 1 fewer".
func (c targetChange) String() string {
	text := plural(c.More, "target") + " more, " + plural(c.Fewer, "target") + " fewer"
	if !c.Exact {
		return "at least " + text
	}
	return text
}

// append writes the sum for a token or a record.
func (s *targetSum) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.Count))
	b = binary.LittleEndian.AppendUint64(b, s.Sum[0])
	b = binary.LittleEndian.AppendUint64(b, s.Sum[1])
	for _, c := range s.Cells {
		b = binary.LittleEndian.AppendUint32(b, uint32(c.Count))
		b = binary.LittleEndian.AppendUint64(b, c.ID)
		b = binary.LittleEndian.AppendUint32(b, c.Check)
	}
	return b
}

// read is the reverse of append; it returns what is behind the sum, and whether
// there was one.
func (s *targetSum) read(b []byte) (rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || len(b)-used < 16+16*sketchCells {
		return nil, false
	}
	b = b[used:]
	s.Count = int64(n)
	s.Sum = [2]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
	b = b[16:]
	for i := range s.Cells {
		s.Cells[i] = sketchCell{int32(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint64(b[4:]), binary.LittleEndian.Uint32(b[12:])}
		b = b[16:]
	}
	return b, true
}
