package twin

import (
	"encoding/binary"
	"errors"
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
//	newest time, newest version (both only where the section has them), then
//	for the root and for each member of each object, in the order of the tree:
//	    newest time minus its time, of all; then newest version minus its version
//
// The stamps lie in arrays of their own because most of them are equal and so
// one byte each.
const (
	codecFormat = 1
	kindBits    = 3
	kindMask    = 1<<kindBits - 1
	inlineMax   = 1<<(8-kindBits) - 1
)

var errEncoding = errors.New("twin: the stored section is damaged or of a newer format")

// Encode appends the section's stored form to dst.
func Encode(dst []byte, s *Section) []byte {
	e := encoder{versions: s.kind == Desired}
	e.survey(&s.root)
	dst = append(dst, codecFormat, byte(s.kind))
	dst = binary.AppendUvarint(dst, uint64(s.version))
	dst = binary.AppendUvarint(dst, uint64(s.bytes))
	dst = binary.AppendUvarint(dst, uint64(e.members))
	dst = appendNode(dst, &s.root)
	if s.kind == Tags {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(e.updated))
	dst = e.appendTimes(dst, &s.root)
	if e.versions {
		dst = binary.AppendUvarint(dst, uint64(e.version))
		dst = e.appendVersions(dst, &s.root)
	}
	return dst
}

type encoder struct {
	versions bool
	members  int
	updated  int64 // newest
	version  int64 // newest
}

// survey counts members and finds the newest stamps.
func (e *encoder) survey(n *node) {
	e.updated, e.version = max(e.updated, n.updated), max(e.version, n.version)
	e.members += len(n.members)
	for i := range n.members {
		if v := &n.members[i].value; len(v.members) > 0 {
			e.survey(v)
		} else {
			e.updated, e.version = max(e.updated, v.updated), max(e.version, v.version)
		}
	}
}

func (e *encoder) appendTimes(dst []byte, n *node) []byte {
	dst = appendUvarint(dst, uint64(e.updated-n.updated))
	if n.kind == kindObject {
		for i := range n.members {
			dst = e.appendTimes(dst, &n.members[i].value)
		}
	}
	return dst
}

func (e *encoder) appendVersions(dst []byte, n *node) []byte {
	dst = appendUvarint(dst, uint64(e.version-n.version))
	if n.kind == kindObject {
		for i := range n.members {
			dst = e.appendVersions(dst, &n.members[i].value)
		}
	}
	return dst
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
// proportion to len(b); anything else than a well-formed section is an error.
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
		d.newest = d.uvarint()
		d.times(&s.root)
		if d.newest > uint64(maxTicks) {
			d.bad = true
		}
	}
	if s.kind == Desired {
		d.newest = d.uvarint()
		d.versions(&s.root)
		if int64(d.newest) < 0 {
			d.bad = true
		}
	}
	if d.bad || d.at != len(d.b) {
		return nil, errEncoding
	}
	return s, nil
}

// decoder reads a copy of the stored form, from which keys and texts are cut.
// bad stays set from the first fault on.
type decoder struct {
	b      string
	at     int
	bad    bool
	slab   []member // not yet given out
	newest uint64
}

func (d *decoder) uvarint() uint64 {
	if d.at < len(d.b) && d.b[d.at] < 0x80 {
		d.at++
		return uint64(d.b[d.at-1])
	}
	var v uint64
	for shift := 0; d.at < len(d.b); shift += 7 {
		c := d.b[d.at]
		d.at++
		if shift > 63 || shift == 63 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << shift
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
	if !utf8.ValidString(s) {
		d.bad = true
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
		size += d.uvarint()
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
	n.updated = int64(d.newest - d.delta())
	if n.kind == kindObject {
		for i := range n.members {
			d.times(&n.members[i].value)
		}
	}
}

func (d *decoder) versions(n *node) {
	n.version = int64(d.newest - d.delta())
	if n.kind == kindObject {
		for i := range n.members {
			d.versions(&n.members[i].value)
		}
	}
}

func (d *decoder) delta() uint64 {
	v := d.uvarint()
	if v > d.newest {
		d.bad = true
		return 0
	}
	return v
}
