package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// messagePiece is a part of a damaged segment that can be read: whole records, one after another.
type messagePiece struct {
	first, last uint64 // positions
	from, to    int    // bytes of the segment
	begun       int64  // time of the first, Unix ns
	latest      int64  // time of the last
}

// messageGap is a part that cannot be read: messages from first up to, but not with, next. Where
// nothing behind it can be read, next is what the room and the next segment allow.
type messageGap struct {
	first, next uint64
	from, to    int
	open        bool // nothing of the segment follows
}

// piecesOf divides the first used bytes of a segment, whose first position is first and whose messages
// are before limit, into what can be read and what cannot.
func piecesOf(b []byte, used int, first, limit uint64) (pieces []messagePiece, gaps []messageGap) {
	next, at := first, messageFileHeader
	for at < used {
		p := messagePiece{first: next, from: at}
		for next < limit {
			e, _, size, ok := decodeMessage(b[at:])
			if !ok || e.Position != next {
				break
			}
			p.last, p.latest = next, e.Time.UnixNano()
			if p.begun == 0 {
				p.begun = p.latest
			}
			next, at = next+1, at+size
		}
		if p.to = at; p.to > p.from {
			pieces = append(pieces, p)
		}
		if at >= used {
			break
		}
		g := messageGap{first: next, from: at}
		if g.next, g.to = nextMessage(b, used, at, next, limit); g.to == used {
			g.open = true
			g.next = min(limit, next+uint64(used-at+messageRecord-1)/messageRecord)
		}
		gaps = append(gaps, g)
		next, at = g.next, g.to
	}
	return pieces, gaps
}

// recordSize is what the record at an offset says of its size; 0 when that cannot be.
func recordSize(b []byte, at int) int {
	if len(b)-at < messageRecord {
		return 0
	}
	n := binary.LittleEndian.Uint32(b[at:])
	if n > maxValue {
		return 0
	}
	return messageRecord + int(n)
}

// nextMessage finds the next record that can be read behind one, at offset at with position next,
// that cannot; none is used. It goes by the lengths of the records as long as they lead to one: bytes
// of a message may look like a record.
func nextMessage(b []byte, used, at int, next, limit uint64) (uint64, int) {
	p, o := next, at
	for size := recordSize(b, o); size > 0 && o+size < used; size = recordSize(b, o) {
		o, p = o+size, p+1
		if e, _, _, ok := decodeMessage(b[o:]); ok && e.Position == p && p < limit {
			return p, o
		}
	}
	for o = at + 1; o < used && o+messageRecord <= len(b); o++ {
		most := min(limit-1, next+uint64(o-at)/messageRecord)
		if p = binary.LittleEndian.Uint64(b[o+8:]); p <= next || p > most {
			continue
		}
		if _, _, _, ok := decodeMessage(b[o:]); ok {
			return p, o
		}
	}
	return next, used
}

// mendOlder reads every segment but the newest and keeps of each that is damaged what can be read: a
// reader would stop there forever.
func (l *MessageLog) mendOlder(m mode) error {
	var all []*messageSegment
	for i, s := range l.segments {
		if slices.ContainsFunc(all, func(has *messageSegment) bool { return has.first == s.first }) {
			continue // of a repair that was cut off: it was just written again
		}
		var bad error
		if i < len(l.segments)-1 {
			l.readSegment(s, 0, func(_ Entry, err error) bool { bad = err; return err == nil })
		}
		if bad == nil {
			all = append(all, s)
			continue
		}
		if !errors.Is(bad, ErrCorrupt) {
			return bad
		}
		b, err := readWhole(l.db.fs, l.path(s.first), math.MaxInt64)
		if err != nil {
			return err
		}
		pieces, _ := piecesOf(b, len(b), s.first, math.MaxUint64)
		limit := uint64(math.MaxUint64)
		for _, behind := range slices.Backward(l.segments[i+1:]) {
			if !slices.ContainsFunc(pieces, func(p messagePiece) bool { return p.first == behind.first }) {
				limit = behind.first
			}
		}
		pieces, gaps := piecesOf(b, len(b), s.first, limit)
		kept, err := l.mend(m, s, b, pieces, gaps)
		if err != nil {
			return err
		}
		all = append(all, kept...)
	}
	l.segments = all
	return nil
}

// mendNewest keeps what can be read of the newest segment, and begins another behind all of it.
func (l *MessageLog) mendNewest(m mode, s *messageSegment) error {
	b, err := readWhole(l.db.fs, l.path(s.first), math.MaxInt64)
	if err != nil {
		return err
	}
	used := len(bytes.TrimRight(b, "\x00")) // zeros behind that are room that was never written to
	pieces, gaps := piecesOf(b, used, s.first, math.MaxUint64)
	l.last = s.first - 1
	if n := len(pieces); n > 0 {
		l.last, l.lastTime = pieces[n-1].last, pieces[n-1].latest
	}
	if n := len(gaps); n > 0 && gaps[n-1].open {
		l.last = gaps[n-1].next - 1 // no position comes twice
	} else if len(pieces) == 0 {
		l.last += uint64(len(b)) / messageRecord
	}
	l.segments = l.segments[:len(l.segments)-1]
	before := l.segments
	if l.last+1 == s.first { // whose name the new one needs
		l.last++
	}
	// It comes first: a repair that is cut off here must not leave a segment that ends before it as
	// the newest.
	fresh, err := l.begin(l.last + 1)
	if err != nil {
		return err
	}
	kept, err := l.mend(m, s, b, pieces, gaps)
	if err != nil {
		return err
	}
	l.segments = append(append(slices.Clip(before), kept...), fresh)
	return nil
}

// mend makes one whole segment of each piece. The first stays in its file, which is shortened only when
// all that follows is stored; what cannot be read stays beside, named by the first position that is
// lost, from which verify knows that it was told.
func (l *MessageLog) mend(m mode, s *messageSegment, b []byte, pieces []messagePiece, gaps []messageGap) ([]*messageSegment, error) {
	name := l.path(s.first)
	if len(b) < messageFileHeader || !bytes.Equal(b[:messageFileHeader], messageHeader(s.first)) {
		m.report.act("the message log: the header of %s was damaged: it was written anew", name)
	}
	stays := len(pieces) > 0 && pieces[0].from == messageFileHeader
	var kept []*messageSegment
	for i, p := range pieces {
		kept = append(kept, &messageSegment{first: p.first, size: int64(messageFileHeader + p.to - p.from), begun: p.begun, latest: p.latest})
		if i == 0 && stays {
			continue
		}
		if err := writeDurably(l.db.fs, l.path(p.first), slices.Concat(messageHeader(p.first), b[p.from:p.to]), 0o600); err != nil {
			return nil, err
		}
	}
	for _, g := range gaps {
		aside := l.path(g.first) + ".damaged"
		if g.first != s.first {
			if err := writeDurably(l.db.fs, aside, b[g.from:g.to], 0o600); err != nil {
				return nil, err
			}
		}
		m.report.act("the message log was damaged in %s, bytes %d to %d: %s; the rest is kept, what cannot be read is in %s", name, g.from, g.to-1, g.lost(pieces), aside)
	}
	if !stays {
		if len(gaps) == 0 {
			m.report.act("the message log: nothing of %s could be read: it was set aside, and what messages it had are lost", name)
		}
		return kept, errors.Join(l.db.setAside(name), l.db.fs.SyncDir(l.dir))
	}
	f, err := l.db.fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(messageHeader(s.first), 0)
	if err == nil {
		err = f.Truncate(int64(pieces[0].to))
	}
	if err == nil {
		err = f.Datasync()
	}
	return kept, errors.Join(err, f.Close())
}

// lost says in words which messages are in the gap.
func (g messageGap) lost(pieces []messagePiece) string {
	var text string
	switch n := g.next - g.first; {
	case n == 0:
		return "no message is lost"
	case g.open:
		text = fmt.Sprintf("the messages from position %d on are lost, at most %d", g.first, n)
	case n == 1:
		text = fmt.Sprintf("message %d is lost", g.first)
	default:
		text = fmt.Sprintf("%d messages, positions %d to %d, are lost", n, g.first, g.next-1)
	}
	for _, p := range pieces {
		at := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
		if p.to == g.from {
			text += ", stored not before " + at(p.latest)
		}
		if p.from == g.to {
			text += ", stored not after " + at(p.begun)
		}
	}
	return text
}
