package twin

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

// The stored form of a section, format 1. Integers are unsigned varints.
//
//	format (1 byte) | kind (1 byte) | version | size in bytes | members in the tree
//	tree, depth first: a value is one byte, kind in the low 3 bits, n in the
//	    high 5 (31: n-31 follows), then by kind
//	    number, string: n bytes of text
//	    array: n values
//	    object: n times key length, key, value
//	times, where the section has metadata: for the root and for each member of
//	    each object, in the order of the tree, the difference to the one before
//	versions, in desired only: likewise
//
// The differences are zigzag varints from 0 on. The stamps lie in arrays of
// their own because neighbours mostly have the same, which makes one byte each.
const (
	codecFormat = 1
	kindBits    = 3
	kindMask    = 1<<kindBits - 1
	inlineMax   = 1<<(8-kindBits) - 1
)

var errEncoding = errors.New("twin: the stored section is damaged or of a newer format")

// Encode appends the section's stored form to dst.
func Encode(dst []byte, s *Section) []byte {
	dst = append(dst, codecFormat, byte(s.kind))
	dst = binary.AppendUvarint(dst, uint64(s.version))
	dst = binary.AppendUvarint(dst, uint64(s.bytes))
	dst = binary.AppendUvarint(dst, uint64(s.root.count()))
	dst = appendNode(dst, &s.root)
	if s.kind != Tags {
		dst, _ = appendTimes(dst, &s.root, 0)
	}
	if s.kind == Desired {
		dst, _ = appendVersions(dst, &s.root, 0)
	}
	return dst
}

// count returns how many members there are in the whole tree.
func (n *node) count() int {
	sum := len(n.members)
	for i := range n.members {
		if len(n.members[i].value.members) > 0 {
			sum += n.members[i].value.count()
		}
	}
	return sum
}

// appendTimes writes n's time and those below; the last one is returned too.
func appendTimes(dst []byte, n *node, last int64) ([]byte, int64) {
	dst, last = appendDelta(dst, n.updated-last), n.updated
	if n.kind == kindObject {
		for i := range n.members {
			dst, last = appendTimes(dst, &n.members[i].value, last)
		}
	}
	return dst, last
}

func appendVersions(dst []byte, n *node, last int64) ([]byte, int64) {
	dst, last = appendDelta(dst, n.version-last), n.version
	if n.kind == kindObject {
		for i := range n.members {
			dst, last = appendVersions(dst, &n.members[i].value, last)
		}
	}
	return dst, last
}

func appendDelta(dst []byte, d int64) []byte {
	return appendUvarint(dst, uint64(d)<<1^uint64(d>>63))
}

// appendUvarint is binary.AppendUvarint with the usual case of one byte inline.
func appendUvarint(dst []byte, v uint64) []byte {
	if v < 0x80 {
		return append(dst, byte(v))
	}
	return binary.AppendUvarint(dst, v)
}

func appendNode(dst []byte, n *node) []byte {
	size := len(n.text)
	if n.kind >= kindArray {
		size = len(n.members)
	}
	dst = append(dst, byte(n.kind)|byte(min(size, inlineMax))<<kindBits)
	if size >= inlineMax {
		dst = appendUvarint(dst, uint64(size-inlineMax))
	}
	dst = append(dst, n.text...)
	for i := range n.members {
		m := &n.members[i]
		if n.kind == kindObject {
			dst = appendUvarint(dst, uint64(len(m.key)))
			dst = append(dst, m.key...)
		}
		dst = appendNode(dst, &m.value)
	}
	return dst
}

// Decode reads what Encode wrote. It never panics and allocates at most in
// proportion to len(b); anything else than the stored form of a section is an
// error, and so is damage, as far as the form shows it (the size is believed).
// The section does not refer to b.
func Decode(b []byte) (*Section, error) {
	if len(b) < 2 || b[0] != codecFormat {
		return nil, errEncoding
	}
	s := &Section{kind: Kind(b[1])}
	if s.kind < Tags || s.kind > Reported {
		return nil, errEncoding
	}
	d := decoder{b: string(b), at: 2}
	s.version = int64(d.uvarint())
	s.bytes = int(d.uvarint())
	count := d.uvarint()
	if d.bad || s.version < 0 || s.bytes < 0 || s.bytes > len(b)*8 || count > uint64(len(b)) {
		return nil, errEncoding
	}
	if count > 0 {
		d.slab = make([]member, count)
	}
	d.node(&s.root, 0)
	if d.bad || s.root.kind != kindObject || len(d.slab) != 0 {
		return nil, errEncoding
	}
	if s.kind != Tags {
		d.times(&s.root)
	}
	if s.kind == Desired {
		d.last = 0
		d.versions(&s.root)
	}
	if d.bad || d.at != len(d.b) {
		return nil, errEncoding
	}
	return s, nil
}

// decoder reads a copy of the stored form, from which keys and texts are cut.
// bad stays set from the first fault on.
type decoder struct {
	b    string
	at   int
	bad  bool
	slab []member // not yet given out
	last int64    // stamp
}

// uvarint reads an integer; the usual one of a byte is inlined.
func (d *decoder) uvarint() uint64 {
	if at := d.at; at < len(d.b) && d.b[at] < 0x80 {
		d.at = at + 1
		return uint64(d.b[at])
	}
	return d.longUvarint()
}

func (d *decoder) longUvarint() uint64 {
	var v uint64
	for shift := 0; d.at < len(d.b); shift += 7 {
		c := d.b[d.at]
		d.at++
		if shift > 63 || shift == 63 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c == 0 && shift > 0 {
			break // a longer form than needed: each section has one stored form
		}
		if c < 0x80 {
			return v
		}
	}
	d.bad = true
	return 0
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.b)-d.at) {
		d.bad = true
		return ""
	}
	s := d.b[d.at : d.at+int(n)]
	d.at += int(n)
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			d.bad = d.bad || !utf8.ValidString(s)
			break
		}
	}
	return s
}

func (d *decoder) node(n *node, depth int) {
	if d.bad || d.at >= len(d.b) || depth > maxDepth {
		d.bad = true
		return
	}
	head := d.b[d.at]
	d.at++
	size := uint64(head >> kindBits)
	if size == inlineMax {
		more := d.uvarint()
		if more > uint64(len(d.b)) {
			d.bad = true
			return
		}
		size += more
	}
	switch n.kind = nodeKind(head & kindMask); n.kind {
	case kindNumber:
		n.text = d.take(size)
		if !d.bad && numberFault(n.text) != "" {
			d.bad = true
		}
	case kindString:
		n.text = d.take(size)
	case kindArray, kindObject:
		d.container(n, size, depth)
	case kindFalse, kindTrue:
		d.bad = d.bad || size != 0
	default:
		d.bad = true
	}
}

func (d *decoder) container(n *node, size uint64, depth int) {
	if size > uint64(len(d.slab)) {
		d.bad = true
		return
	}
	if size == 0 {
		return
	}
	n.members, d.slab = d.slab[:size:size], d.slab[size:]
	for i := range n.members {
		m := &n.members[i]
		if n.kind == kindObject {
			m.key = d.take(d.uvarint())
		}
		if d.node(&m.value, depth+1); d.bad {
			return
		}
	}
}

func (d *decoder) times(n *node) {
	n.updated = d.next(maxTicks)
	if n.kind == kindObject {
		for i := range n.members {
			d.times(&n.members[i].value)
		}
	}
}

func (d *decoder) versions(n *node) {
	n.version = d.next(math.MaxInt64)
	if n.kind == kindObject {
		for i := range n.members {
			d.versions(&n.members[i].value)
		}
	}
}

// next reads a stamp: the difference to the one before.
func (d *decoder) next(most int64) int64 {
	if u := d.uvarint(); u != 0 {
		d.last += int64(u>>1) ^ -int64(u&1)
		d.bad = d.bad || d.last < 0 || d.last > most
	}
	return d.last
}
