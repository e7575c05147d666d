package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// The entries of a log that are committed in one group lie in few values, since what Badger does
// for a value costs more than an entry's bytes. The key of a value has the position of the last
// entry in it. A value of version 1 holds one entry: flags, time, the hash in a chained log, data. One
// of version 2 holds several with consecutive positions: their number, then for each flags, time,
// hash, the data's length, data.
const (
	logSingle = 1 // version of the frame
	logPacked = 2

	logFixed   = 1 + 8 // flags, time
	logChained = 1     // flag

	// A value takes no more entries above so many bytes, since reading one checks all of it. Badger
	// builds the block of a value that is larger than a block (4 KiB) in two: with 8 KiB it need not
	// make a third to put the end of the block behind it, which would be twice as large.
	logPackBytes = 8 << 10
)

// logHead is the newest entry of a log as the committer knows it.
type logHead struct {
	position uint64
	time     int64
	hash     [sha256.Size]byte
}

// next moves the head to the entry behind it.
func (h *logHead) next(l *Log, at int64, data []byte) logEntry {
	h.position++
	h.time = max(h.time, at)
	if l.chained {
		h.hash = chainHash(h.hash[:], h.position, h.time, data)
	}
	return logEntry{time: h.time, hash: h.hash, data: data}
}

// logEntry is an entry that was given its place.
type logEntry struct {
	time int64
	hash [sha256.Size]byte // in a chained log
	data []byte
}

// logPack gathers entries for one value.
type logPack struct {
	log     *Log
	last    uint64
	entries []logEntry
	size    int // bytes of the value, about
}

func (p *logPack) add(position uint64, e logEntry) {
	p.last = position
	p.entries = append(p.entries, e)
	p.size += logFixed + sha256.Size + 3 + len(e.data)
}

// pair encodes the value.
func (p *logPack) pair() pair {
	key := logKey(logPrefix(p.log.place(), p.log.name), p.last)
	version := byte(logSingle)
	if len(p.entries) > 1 {
		version = logPacked
	}
	b := beginFrame(make([]byte, 0, frameHeader+2+p.size), version)
	if version == logPacked {
		b = binary.AppendUvarint(b, uint64(len(p.entries)))
	}
	for i := range p.entries {
		e := &p.entries[i]
		var flags byte
		if p.log.chained {
			flags = logChained
		}
		b = binary.BigEndian.AppendUint64(append(b, flags), uint64(e.time))
		if p.log.chained {
			b = append(b, e.hash[:]...)
		}
		if version == logPacked {
			b = binary.AppendUvarint(b, uint64(len(e.data)))
		}
		b = append(b, e.data...)
	}
	return pair{key: key, value: endFrame(key, b)}
}

// pack adds an entry to the group's open value of the log.
func (g *group) pack(l *Log, position uint64, e logEntry) {
	i := slices.IndexFunc(g.packs, func(p logPack) bool { return p.log.name == l.name })
	if i >= 0 && g.packs[i].size+len(e.data) > logPackBytes {
		g.closePack(&g.packs[i])
		g.packs = slices.Delete(g.packs, i, i+1)
		i = -1
	}
	if i < 0 {
		g.packs = append(g.packs, logPack{log: l})
		i = len(g.packs) - 1
	}
	g.packs[i].add(position, e)
}

func (g *group) closePack(p *logPack) {
	g.put(p.pair())
}

// closePacks puts what was gathered among the group's writes; later entries begin new values.
func (g *group) closePacks() {
	for i := range g.packs {
		g.closePack(&g.packs[i])
	}
	g.packs = nil
}

// packedBytes is what the open values will add to the group.
func (g *group) packedBytes() (n int) {
	for i := range g.packs {
		n += g.packs[i].size + opOverhead + len(g.packs[i].log.name) + frameHeader
	}
	return n
}

func chainHash(before []byte, position uint64, at int64, data []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(before)
	var n [16]byte
	binary.BigEndian.PutUint64(n[:], position)
	binary.BigEndian.PutUint64(n[8:], uint64(at))
	h.Write(n[:])
	h.Write(data)
	return [sha256.Size]byte(h.Sum(nil))
}

// unpack calls yield with each entry of a value until it returns false. The entries alias it.
func unpack(key, value []byte, yield func(Entry) bool) error {
	_, last, ok := splitLogKey(key)
	version, rest, err := unframe(key, value)
	if err != nil {
		return err
	}
	count := uint64(1)
	if version == logPacked {
		var w int
		count, w = binary.Uvarint(rest)
		ok = ok && w > 0 && count > 0 && count <= last
		rest = rest[max(w, 0):]
	}
	if !ok || version != logSingle && version != logPacked {
		return badValue(key, "a log entry of version %d has %d bytes", version, len(value))
	}
	for i := range count {
		e := Entry{Position: last - count + 1 + i}
		fixed := logFixed
		if len(rest) > 0 && rest[0]&logChained != 0 {
			fixed += sha256.Size
		}
		if len(rest) < fixed {
			return badValue(key, "log entry %d is cut short", e.Position)
		}
		e.Time = time.Unix(0, int64(binary.BigEndian.Uint64(rest[1:]))).UTC()
		if fixed > logFixed {
			e.Hash = rest[logFixed:fixed:fixed]
		}
		rest = rest[fixed:]
		size := uint64(len(rest))
		if version == logPacked {
			n, w := binary.Uvarint(rest)
			if w <= 0 || n > uint64(len(rest)-w) {
				return badValue(key, "log entry %d is cut short", e.Position)
			}
			size, rest = n, rest[w:]
		}
		e.Data, rest = rest[:size:size], rest[size:]
		if !yield(e) {
			return nil
		}
	}
	if len(rest) > 0 {
		return badValue(key, "there are %d bytes behind the last log entry", len(rest))
	}
	return nil
}
