package storage

import (
	"encoding/binary"
	"io"
	"slices"
)

// journalEnd says where reading the journal stopped.
type journalEnd struct {
	seq      uint64 // newest whole record that follows without a gap; the checkpoint's when there is none
	time     int64  // its time, Unix ns; 0 when there is none
	records  uint64
	ops      uint64
	tornFile string // where the torn tail lies; "" when the journal ends cleanly
	tornAt   int64
	damage   error // why it ended before the tail; nil at a proper end
	lost     uint64
}

// read calls apply with every record after the checkpoint's sequence, in order. A record that is
// not whole ends the journal when nothing whole with a higher sequence exists anywhere (a torn
// tail: it was never acknowledged, or it is the last one); otherwise the end carries damage.
func (j *journal) read(after uint64, apply func(r record, ops []op) error) (journalEnd, error) {
	end := journalEnd{seq: after}
	segs := slices.Clone(j.all)
	slices.SortFunc(segs, func(a, b *segment) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	var stopped *segment // where the consecutive records ended
	var stoppedAt int64
	higher := func(file string, at int64, why string, seq uint64) {
		if end.damage == nil {
			end.damage = damage(file, at, "%s, although a later record with sequence %d is whole", why, seq)
		}
		end.lost++
	}
	for i, s := range segs {
		if s.first == 0 && s.bad == "" {
			continue // never used
		}
		if s.bad == "" && i+1 < len(segs) && segs[i+1].first <= after+1 {
			continue // everything in it is covered by the checkpoint
		}
		b, err := j.load(s)
		if err != nil {
			return end, err
		}
		if s.bad != "" {
			// A header can be torn only at a switch, before its first record was acknowledged.
			if at, r, ok := findRecord(b, segmentHeader, end.seq); ok {
				if end.damage == nil {
					end.damage = damage(j.path(s.name), 0, "%s, although record %d at byte %d is whole", s.bad, r.seq, at)
				}
				end.lost++
			}
			continue
		}
		if stopped == nil && s.first > end.seq+1 {
			// Whole records in this segment would mean that others are missing before them.
			if at, r, ok := findRecord(b, segmentHeader, end.seq); ok {
				higher(j.path(s.name), int64(at), "the journal continues after sequence "+utoa(end.seq), r.seq)
			}
			continue
		}
		at := segmentHeader
		for stopped == nil {
			r, ok := decodeRecord(b[min(at, len(b)):])
			if ok && r.seq <= end.seq && r.seq >= s.first {
				at += r.size // covered by the checkpoint
				continue
			}
			if !ok || r.seq != end.seq+1 {
				// Before the checkpoint's sequence a damaged record harms nobody: look behind it.
				if next, nr, found := findRecord(b, at, end.seq); found && nr.seq == end.seq+1 && end.records == 0 {
					at = next
					continue
				}
				break
			}
			ops, err := decodeOps(r.body)
			if err != nil {
				return end, damage(j.path(s.name), int64(at), "record %d: %v", r.seq, err)
			}
			if err := apply(r, ops); err != nil {
				return end, err
			}
			end.seq, end.time = r.seq, max(end.time, r.time)
			end.records++
			end.ops += uint64(len(ops))
			at += r.size
		}
		// The segment ended. That is proper when the next one begins with the next sequence.
		if stopped == nil && i+1 < len(segs) && segs[i+1].first == end.seq+1 && segs[i+1].bad == "" {
			if found, r, ok := findRecord(b, at, end.seq); ok {
				higher(j.path(s.name), int64(at), "no whole record", r.seq)
				_ = found
			}
			continue
		}
		if stopped == nil {
			stopped, stoppedAt = s, int64(at)
			if at+4 <= len(b) && binary.LittleEndian.Uint32(b[at:]) == recordMagic {
				if r, ok := decodeRecord(b[at:]); !ok || r.seq > end.seq {
					end.tornFile, end.tornAt = j.path(s.name), int64(at)
				}
			}
		}
		if _, r, ok := findRecord(b, at, end.seq); ok {
			higher(j.path(stopped.name), stoppedAt, "no whole record", r.seq)
		}
	}
	return end, nil
}

func (j *journal) load(s *segment) ([]byte, error) {
	n, err := s.file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(n, 1<<30))
	if n, err := s.file.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	} else {
		b = b[:n]
	}
	return b, nil
}

// findRecord looks for a whole record with a sequence above seq at any aligned place from at on.
func findRecord(b []byte, at int, seq uint64) (int, record, bool) {
	for at = (at + recordAlign - 1) / recordAlign * recordAlign; at+recordHeader <= len(b); at += recordAlign {
		if binary.LittleEndian.Uint32(b[at:]) != recordMagic || binary.LittleEndian.Uint64(b[at+8:]) <= seq {
			continue
		}
		if r, ok := decodeRecord(b[at:]); ok {
			return at, r, true
		}
	}
	return 0, record{}, false
}

// wipe zeroes every segment from the damage on, for Repair: what is not replayed must never be
// taken for the journal's continuation.
func (j *journal) wipe() error {
	for _, s := range j.all {
		zeros := make([]byte, min(j.size, 1<<20))
		for at := int64(0); at < j.size; at += int64(len(zeros)) {
			if _, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), j.size-at)], at); err != nil {
				return err
			}
		}
		if err := s.file.Datasync(); err != nil {
			return err
		}
		s.first, s.last, s.bad = 0, 0, ""
	}
	return nil
}
