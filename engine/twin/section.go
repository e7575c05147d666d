// Package twin holds the documents of a device twin: tags, desired and
// reported properties, with IoT Hub's rules by which they change.
//
// The package is pure: no I/O and no clock; the time of a change is an
// argument. Sections and patches are immutable and safe for concurrent use;
// what a change leaves alone is shared between the old section and the new.
// JSON is read by a parser of its own, since encoding/json loses the text of
// numbers and accepts duplicate keys.
package twin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind says which of a twin's documents a Section is. The codes are stored.
type Kind uint8

// The sections of a twin.
const (
	Tags     Kind = iota + 1 // hidden from the device; no metadata, no version in JSON
	Desired                  // written by services
	Reported                 // written by the device
)

// String returns "tags", "desired" or "reported".
func (k Kind) String() string {
	switch k {
	case Tags:
		return "tags"
	case Desired:
		return "desired"
	case Reported:
		return "reported"
	default:
		return "section"
	}
}

// Section is one document of a twin with version and metadata. It keeps the
// order in which members came and the text of numbers.
type Section struct {
	kind    Kind
	version int64
	bytes   int
	root    node
}

// New returns an empty section at version 1, last updated never.
func New(k Kind) *Section {
	return &Section{kind: k, version: 1, root: node{kind: kindObject}}
}

// Kind returns which section it is.
func (s *Section) Kind() Kind { return s.kind }

// Version returns the number that every accepted change raises by one. Tags
// count too, although their JSON does not show it.
func (s *Section) Version() int64 { return s.version }

// Empty reports whether the section has no members.
func (s *Section) Empty() bool { return len(s.root.members) == 0 }

// Bytes returns the section's size by IoT Hub's formula: keys and strings in
// UTF-8 without control characters, a number 8, a boolean 4; metadata and
// version do not count.
func (s *Section) Bytes() int { return s.bytes }

// WithVersion returns the section with another version, its metadata as it is:
// for a restore, after which versions must lie above all that devices have seen.
func (s *Section) WithVersion(v int64) *Section {
	next := *s
	next.version = v
	return &next
}

// Change says what a Merge or Replace did. Its patches share memory with the
// sections before and after.
type Change struct {
	// Forward is what to tell whoever holds a copy of the section before: the
	// merge patch without $version and $metadata; after Replace the full new
	// section with explicit nulls for the members that vanished, at any level.
	Forward Patch
	// Undo is the merge patch that turns the section after into the one before.
	Undo Patch
	// Paths are the dotted paths that were set or removed, at most 100 of them;
	// an object that came or went as a whole is one path.
	Paths []string
}

const maxPaths = 100

// Merge applies a JSON merge patch (RFC 7396): objects merge, null removes,
// everything else replaces. Each accepted patch raises the version by one,
// even when nothing differs, and stamps now on all it touches and on the
// objects above. A patch that IsNull clears the section. The error is an
// *InvalidError; then nothing has changed. A section that is over MaxBytes
// already may still be made smaller.
func (s *Section) Merge(p Patch, now time.Time, l Limits) (next *Section, c Change, err error) {
	if p.null {
		return s.Replace(Patch{}, now, l)
	}
	root, err := s.kind.check(p, l)
	if err != nil {
		return nil, Change{}, err
	}
	m := s.merger(now)
	next = &Section{kind: s.kind, version: m.version}
	var undo []member
	next.root, undo = m.merge(&s.root, root.members)
	if err := next.measure(s, l); err != nil {
		return nil, Change{}, err
	}
	return next, Change{Forward: object(root.members), Undo: object(undo), Paths: m.paths}, nil
}

// Replace puts the patch in the place of everything that was in the section;
// nulls in it stand for nothing. Version, stamps and errors are as in Merge;
// all that the new section holds counts as touched.
func (s *Section) Replace(p Patch, now time.Time, l Limits) (next *Section, c Change, err error) {
	root, err := s.kind.check(p, l)
	if err != nil {
		return nil, Change{}, err
	}
	m := s.merger(now)
	next = &Section{kind: s.kind, version: m.version, root: m.stamp(root)}
	if err := next.measure(s, l); err != nil {
		return nil, Change{}, err
	}
	m.replaced(&s.root, &next.root)
	c = Change{
		Forward: object(withNulls(&s.root, &next.root)),
		Undo:    object(patchBetween(&next.root, &s.root)),
		Paths:   m.paths,
	}
	return next, c, nil
}

// Apply walks history back: it merges an Undo without validation and lowers
// the version by one. History keeps no metadata: what the undo brings back
// reads as last updated never, the rest keeps its stamps.
func (s *Section) Apply(undo Patch) *Section {
	m := merger{kind: s.kind, quiet: true}
	next := &Section{kind: s.kind, version: s.version - 1}
	next.root, _ = m.merge(&s.root, undo.root.members)
	next.bytes = next.root.size()
	return next
}

func (s *Section) merger(now time.Time) *merger {
	m := &merger{kind: s.kind, version: s.version}
	if m.version < math.MaxInt64 {
		m.version++
	}
	if s.kind != Tags {
		m.now = ticks(now)
	}
	return m
}

// measure sets the section's size and refuses one that is too large, unless
// the change made it smaller.
func (s *Section) measure(before *Section, l Limits) error {
	s.bytes = s.root.size()
	if l.MaxBytes > 0 && s.bytes > l.MaxBytes && s.bytes >= before.bytes {
		return &InvalidError{
			Path:     s.kind.String(),
			Reason:   fmt.Sprintf("found %d bytes after the change", s.bytes),
			Expected: fmt.Sprintf("at most %d, counting keys and strings in UTF-8, numbers as 8, booleans as 4", l.MaxBytes),
			TooLarge: true,
		}
	}
	return nil
}

// Get returns the value at a dotted path as compact JSON; ok is false when
// there is none. Arrays are not entered.
func (s *Section) Get(path string) (json []byte, ok bool) {
	n := &s.root
	for key := range strings.SplitSeq(path, ".") {
		if n.kind != kindObject {
			return nil, false
		}
		i := n.find(key)
		if i < 0 {
			return nil, false
		}
		n = &n.members[i].value
	}
	return n.appendJSON(nil), true
}

// JSON appends the section to dst: its members and "$version" (what a device
// sees), with metadata also "$metadata" (what a service sees). Tags are a plain
// object in both cases.
func (s *Section) JSON(dst []byte, metadata bool) []byte {
	dst = append(dst, '{')
	dst = s.root.appendMembers(dst)
	if s.kind == Tags {
		return append(dst, '}')
	}
	comma := !s.Empty()
	if metadata {
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = append(dst, `"$metadata":`...)
		w := metadataWriter{versions: s.kind == Desired}
		dst = w.append(dst, &s.root)
	}
	return appendVersion(dst, comma, s.version)
}

// Plain appends the section to dst as the JSON object that was written, without
// version and metadata.
func (s *Section) Plain(dst []byte) []byte {
	return append(s.root.appendMembers(append(dst, '{')), '}')
}

// metadataWriter writes the tree of stamps. It keeps the last time written,
// since most of a section's stamps are the same.
type metadataWriter struct {
	versions bool
	last     int64
	text     []byte
}

func (w *metadataWriter) append(dst []byte, n *node) []byte {
	if w.text == nil || w.last != n.updated {
		w.last, w.text = n.updated, appendTime(w.text[:0], n.updated)
	}
	dst = append(dst, `{"$lastUpdated":"`...)
	dst = append(dst, w.text...)
	dst = append(dst, '"')
	if w.versions && n.version > 0 {
		dst = append(dst, `,"$lastUpdatedVersion":`...)
		dst = strconv.AppendInt(dst, n.version, 10)
	}
	if n.kind == kindObject { // arrays are leaves
		for i := range n.members {
			dst = append(dst, ',')
			dst = AppendString(dst, n.members[i].key)
			dst = append(dst, ':')
			dst = w.append(dst, &n.members[i].value)
		}
	}
	return append(dst, '}')
}
