package twin

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Members that the hub adds to a section. They are no part of its content.
const (
	keyVersion  = "$version"
	keyMetadata = "$metadata"
)

// Patch is a parsed JSON object: a merge patch, a whole section, or a document
// around them. It keeps the order of keys and the text of numbers. A Patch is
// immutable and safe for concurrent use; the zero Patch is an empty object.
type Patch struct {
	root node
	null bool
}

// ParsePatch reads one JSON object of at most max bytes; max <= 0 stands for
// the package's own bound of 8 MiB, which holds in any case. Refused as an
// *InvalidError with the place are: other JSON values, trailing text, duplicate
// keys, invalid UTF-8, half surrogate pairs, nesting beyond 64, numbers of over
// 128 characters or beyond a 64-bit float. The limits of a section are not
// looked at: Merge and Replace do that.
func ParsePatch(data []byte, max int) (Patch, error) {
	return parsePatch(parser{}, data, max)
}

// ParseSection is ParsePatch of what is for a section: errors name it.
func ParseSection(k Kind, data []byte, max int) (Patch, error) {
	p := parser{path: trail{k.String()}}
	if k != Reported {
		// Services send it as a part of a document, which is not known here. What
		// devices send is nothing but the section.
		p.of = " of " + k.String()
	}
	return parsePatch(p, data, max)
}

func parsePatch(p parser, data []byte, max int) (Patch, error) {
	if max <= 0 || max > maxParseBytes {
		max = maxParseBytes
	}
	if len(data) > max {
		return Patch{}, &InvalidError{Path: p.path.shown(), Reason: fmt.Sprintf("found %d bytes of JSON", len(data)), Expected: fmt.Sprintf("at most %d", max), TooLarge: true}
	}
	p.text = string(data)
	if at := invalidUTF8(p.text); at >= 0 {
		return Patch{}, &InvalidError{Path: p.path.shown(), Reason: fmt.Sprintf("found text that is not UTF-8 at byte %d%s", at, p.of), Expected: "JSON in UTF-8"}
	}
	n, err := p.parse()
	if err != nil {
		return Patch{}, err
	}
	return Patch{root: n}, nil
}

func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i, r := range s {
		if r == '\ufffd' && (len(s)-i < 3 || s[i:i+3] != "\ufffd") {
			return i
		}
	}
	return -1
}

// Object returns the object at a path of keys. ok is false when the last or
// any other key on the way is absent; a null on the way counts as absent, a
// null at the end is a Patch with IsNull. Any other value is an *InvalidError.
func (p Patch) Object(path ...string) (sub Patch, ok bool, err error) {
	n := &p.root
	for i, key := range path {
		j := n.find(key)
		if j < 0 {
			return Patch{}, false, nil
		}
		n = &n.members[j].value
		switch {
		case n.kind == kindObject:
		case n.kind == kindNull && i == len(path)-1:
			return Patch{null: true}, true, nil
		case n.kind == kindNull:
			return Patch{}, false, nil
		default:
			return Patch{}, false, &InvalidError{Path: trail(path[:i+1]).shown(), Reason: "found " + n.kind.String(), Expected: "an object"}
		}
	}
	return Patch{root: *n}, true, nil
}

// IsNull reports whether Object found null in the object's place. Merging such
// a patch clears a section.
func (p Patch) IsNull() bool { return p.null }

// Len returns the number of members.
func (p Patch) Len() int { return len(p.root.members) }

// Has reports whether the object has the key, whatever its value.
func (p Patch) Has(key string) bool { return p.root.find(key) >= 0 }

// JSON appends the patch to dst as compact JSON.
func (p Patch) JSON(dst []byte) []byte {
	if p.IsNull() {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	dst = p.root.appendMembers(dst)
	return append(dst, '}')
}

// JSONWithVersion appends the patch to dst with "$version":version as its last
// member, the body of a notification to a device. A $version or $metadata that
// the patch itself has at its top is left out.
func (p Patch) JSONWithVersion(dst []byte, version int64) []byte {
	n := p.root
	if n.find(keyVersion) >= 0 || n.find(keyMetadata) >= 0 {
		n.members = withoutSpecial(n.members)
	}
	dst = append(dst, '{')
	dst = n.appendMembers(dst)
	return appendVersion(dst, len(n.members) > 0, version)
}

func appendVersion(dst []byte, comma bool, version int64) []byte {
	if comma {
		dst = append(dst, ',')
	}
	dst = append(dst, `"$version":`...)
	dst = strconv.AppendInt(dst, version, 10)
	return append(dst, '}')
}

func withoutSpecial(members []member) []member {
	kept := make([]member, 0, len(members))
	for i := range members {
		if k := members[i].key; k != keyVersion && k != keyMetadata {
			kept = append(kept, members[i])
		}
	}
	return kept
}
