package twin

import (
	"strconv"
	"time"
)

// The stamps of a section's $metadata.
const (
	keyUpdated = "$lastUpdated"
	keyNumber  = "$lastUpdatedVersion"
)

// Import merges a section as JSON writes it with metadata, for example out of
// another hub's export: the times that its $metadata has are taken over for
// what it holds, and what has none is stamped now. A section to which nothing
// was ever written takes over the versions, too. l.Special must be DropSpecial.
// Otherwise it is Merge.
func (s *Section) Import(p Patch, now time.Time, l Limits) (next *Section, c Change, err error) {
	if s.kind == Tags || p.null {
		return s.Merge(p, now, l)
	}
	t := taker{kind: s.kind}
	if s.version == 1 && s.Empty() {
		if v := wholeNumber(p.root.child(keyVersion)); v > 0 {
			t.newest, s = v, s.WithVersion(v-1)
		}
	}
	if next, c, err = s.Merge(p, now, l); err != nil {
		return nil, Change{}, err
	}
	if metadata := p.root.child(keyMetadata); metadata != nil && metadata.kind == kindObject {
		t.take(&next.root, &p.root, metadata)
	}
	return next, c, nil
}

// taker carries what taking stamps over needs.
type taker struct {
	kind   Kind
	newest int64 // version of the section, when its members' are taken over; else 0
	text   string
	ticks  int64 // of text: most stamps of a section are the same
}

// take stamps n and what the patch has set of it. All of that was made by the
// merge, so that nobody else has it yet.
func (t *taker) take(n, patch, metadata *node) {
	t.stamp(n, metadata)
	find := n.finder(len(patch.members))
	for i := range patch.members {
		key, v := patch.members[i].key, &patch.members[i].value
		m := metadata.child(key)
		if key == keyVersion || key == keyMetadata || m == nil || m.kind != kindObject {
			continue
		}
		at := find(key)
		if at < 0 {
			continue // null removes
		}
		if to := &n.members[at].value; to.kind == kindObject && v.kind == kindObject {
			t.take(to, v, m)
		} else {
			t.stamp(to, m)
		}
	}
}

func (t *taker) stamp(n, metadata *node) {
	if v := metadata.child(keyUpdated); v != nil && v.kind == kindString {
		if v.text != t.text {
			at, err := time.Parse(time.RFC3339Nano, v.text)
			if err != nil {
				return // the stamp of now stays
			}
			t.text, t.ticks = v.text, ticks(at)
		}
		n.updated = t.ticks
	}
	if t.kind != Desired || t.newest == 0 {
		return
	}
	if v := wholeNumber(metadata.child(keyNumber)); v > 0 && v <= t.newest {
		n.version = v
	}
}

// child returns the member of an object; nil when there is none.
func (n *node) child(key string) *node {
	if i := n.find(key); i >= 0 {
		return &n.members[i].value
	}
	return nil
}

// wholeNumber returns a number that is a positive integer with room for
// further changes; else 0.
func wholeNumber(n *node) int64 {
	if n == nil || n.kind != kindNumber {
		return 0
	}
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil || v < 1 || v > 1<<53 {
		return 0
	}
	return v
}
