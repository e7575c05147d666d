package twin

import (
	"fmt"
	"strings"
)

// SpecialKeys says what happens to $version and $metadata in a patch.
type SpecialKeys uint8

const (
	// DropSpecial ignores them at every level: applications send back whole
	// documents that they have read.
	DropSpecial SpecialKeys = iota
	// RefuseSpecial refuses them like every other key with a '$': devices have
	// no reason to send one.
	RefuseSpecial
)

// Limits are what a section may hold by IoT Hub's rules. Zero means
// no limit of that sort; both integer bounds zero means any integer. Whatever
// the limits, control characters, '.', '$', '#' and space are refused in keys,
// null is refused in arrays, and objects and arrays nest at most 56 deep.
type Limits struct {
	MaxBytes       int // of the section after the change, by IoT Hub's formula, see Section.Bytes
	MaxDepth       int // objects and arrays nested below the section
	MaxKeyBytes    int
	MaxStringBytes int
	MinInteger     int64
	MaxInteger     int64
	Special        SpecialKeys
}

// checker validates a patch against limits before anything is built from it.
type checker struct {
	limits  Limits
	kind    Kind
	path    trail
	special bool // a member to be dropped was seen
}

// check validates the patch and returns its root without special members.
func (k Kind) check(p Patch, l Limits) (node, error) {
	c := checker{limits: l, kind: k}
	if c.limits.MaxDepth <= 0 || c.limits.MaxDepth > maxSectionDepth {
		c.limits.MaxDepth = maxSectionDepth
	}
	if err := c.members(&p.root, 0, false); err != nil {
		return node{}, err
	}
	root := node{kind: kindObject, members: p.root.members}
	if c.special {
		root = clean(root)
	}
	return root, nil
}

func clean(n node) node {
	if n.kind != kindObject && n.kind != kindArray {
		return n
	}
	if n.kind == kindObject {
		n.members = withoutSpecial(n.members)
	} else {
		n.members = append([]member(nil), n.members...)
	}
	for i := range n.members {
		n.members[i].value = clean(n.members[i].value)
	}
	return n
}

func (c *checker) fail(reason, expected string) error {
	path := c.kind.String()
	if len(c.path) > 0 {
		path += "." + c.path.shown()
	}
	return &InvalidError{Path: path, Reason: reason, Expected: expected}
}

func (c *checker) members(n *node, depth int, inArray bool) error {
	for i := range n.members {
		m := &n.members[i]
		if n.kind != kindArray {
			if c.limits.Special == DropSpecial && (m.key == keyVersion || m.key == keyMetadata) {
				c.special = true
				continue
			}
			if err := c.key(m.key); err != nil {
				return err
			}
			c.path = append(c.path, m.key)
		}
		if err := c.value(&m.value, depth, inArray); err != nil {
			return err
		}
		if n.kind != kindArray {
			c.path = c.path[:len(c.path)-1]
		}
	}
	return nil
}

func (c *checker) value(v *node, depth int, inArray bool) error {
	switch v.kind {
	case kindNull:
		if inArray {
			return c.fail("found null in an array", "a string, number, boolean, object or array")
		}
	case kindString:
		if most := c.limits.MaxStringBytes; most > 0 && len(v.text) > most {
			return c.fail(fmt.Sprintf("found a string of %d bytes", len(v.text)), fmt.Sprintf("at most %d", most))
		}
	case kindNumber:
		return c.number(v.text)
	case kindArray, kindObject:
		if depth+1 > c.limits.MaxDepth {
			return c.fail(fmt.Sprintf("found more than %d nested objects and arrays", c.limits.MaxDepth), "a flatter document")
		}
		return c.members(v, depth+1, inArray || v.kind == kindArray)
	}
	return nil
}

func (c *checker) key(key string) error {
	if most := c.limits.MaxKeyBytes; most > 0 && len(key) > most {
		return c.fail(fmt.Sprintf("found the key %s of %d bytes", quote(key), len(key)), fmt.Sprintf("at most %d", most))
	}
	if strings.ContainsAny(key, ".$# ") || printable(key) != len(key) {
		return c.fail("found the key "+quote(key), "a key without '.', '$', '#', space and control characters")
	}
	return nil
}

func (c *checker) number(text string) error {
	low, high := c.limits.MinInteger, c.limits.MaxInteger
	if low == 0 && high == 0 {
		return nil
	}
	v, isInteger, fits := integer(text)
	if isInteger && (!fits || v < low || v > high) {
		return c.fail("found the integer "+text, fmt.Sprintf("one from %d to %d", low, high))
	}
	return nil
}
