package query

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// condition is a predicate as it is planned: AND and OR of tests, each of which
// looks for true or for false. NOT has gone into them (De Morgan's laws hold for
// three values), so that undefined is never looked for.
type condition struct {
	kind  conditionKind
	parts []*condition
	test  test    // of a leaf
	share float64 // of rows, expected to pass
	cost  float64 // nanoseconds a row, roughly
	step  *Step
}

// conditionKind is what a condition is.
type conditionKind uint8

// The kinds.
const (
	allOf conditionKind = iota
	anyOf
	leafTest
	needsDocuments // needs documents: everything passes, and is looked at again
)

// test is a condition that columns answer.
type test interface {
	// filter takes the rows that do not pass out of a block.
	filter(b *block)
}

// block is a part of a stripe of rows, and those that are still in question.
type block struct {
	stripe int
	from   uint32   // offset of the first row in the stripe, a multiple of 64
	bits   []uint64 // a word for 64 rows
}

func (b *block) base() uint32 { return uint32(b.stripe)<<stripeBits + b.from }

// planCondition splits an expression that is to be true, or else false.
func (r *run) planCondition(e expr, want bool) (*condition, error) {
	switch n := e.(type) {
	case *unary:
		if n.op == opNot {
			return r.planCondition(n.x, !want)
		}
	case *binary:
		if n.op == opAnd || n.op == opOr {
			kind, name := allOf, "bitmap and"
			if (n.op == opOr) == want {
				kind, name = anyOf, "bitmap or"
			}
			c := &condition{kind: kind, step: &Step{Kind: name}}
			sides, _ := leaves(n.op, n, nil, nil)
			if n.op == opOr && want {
				if sides = joinEqualities(sides); len(sides) == 1 {
					return r.planLeaf(sides[0], want)
				}
			}
			for _, side := range sides {
				part, err := r.planCondition(side, want)
				if err != nil {
					return nil, err
				}
				if part.kind == kind {
					c.parts = append(c.parts, part.parts...)
				} else {
					c.parts = append(c.parts, part)
				}
			}
			c.arrange()
			return c, nil
		}
	}
	return r.planLeaf(e, want)
}

// joinEqualities makes one IN of the equalities with constants that ask for the
// same path, of what OR joins.
func joinEqualities(parts []expr) []expr {
	out := make([]expr, 0, len(parts))
	at := map[string]int{} // in out, by path
	for _, e := range parts {
		op, v, ok := sides(e)
		if !ok || op != opEqual {
			out = append(out, e)
			continue
		}
		n := e.(*binary)
		path, is := n.left.(*ref)
		if !is {
			path = n.right.(*ref)
		}
		key := strings.Join(path.path, "\x00")
		k, seen := at[key]
		if !seen {
			at[key] = len(out)
			out = append(out, e)
			continue
		}
		item := &literal{n.at, v}
		if in, is := out[k].(*binary); is && in.op == opIn {
			in.right.(*list).items = append(in.right.(*list).items, item)
			continue
		}
		_, first, _ := sides(out[k])
		out[k] = &binary{n.at, opIn, path, &list{n.at, []expr{&literal{n.at, first}, item}}}
	}
	return out
}

// arrange puts the parts in the order in which they rule out most for least.
func (c *condition) arrange() {
	passing := func(p *condition) float64 {
		if c.kind == anyOf {
			return 1 - p.share
		}
		return p.share
	}
	slices.SortStableFunc(c.parts, func(a, b *condition) int {
		return cmp.Compare((passing(a)-1)/a.cost, (passing(b)-1)/b.cost)
	})
	c.cost, c.share = 0, 1
	c.step.Steps = c.step.Steps[:0]
	for _, p := range c.parts {
		c.cost += p.cost * c.share
		c.share *= passing(p)
		c.step.Steps = append(c.step.Steps, p.step)
	}
	if c.kind == anyOf {
		c.share = 1 - c.share
	}
	c.step.Estimate = Share(c.share)
}

// exact reports whether the columns alone can tell.
func (c *condition) exact() bool {
	if c.kind == needsDocuments {
		return false
	}
	return !slices.ContainsFunc(c.parts, func(p *condition) bool { return !p.exact() })
}

// filter leaves in the block what passes, or may pass if documents are needed.
// With cheap, tests that go row by row are left to a later look, too.
func (c *condition) filter(b *block, cheap bool) {
	begin := time.Now()
	c.step.Rows += int64(b.count())
	switch c.kind {
	case allOf:
		for _, p := range c.parts {
			if b.empty() {
				break
			}
			p.filter(b, cheap)
		}
	case anyOf:
		left := block{b.stripe, b.from, slices.Clone(b.bits)}
		found := make([]uint64, len(b.bits))
		for _, p := range c.parts {
			if left.empty() {
				break
			}
			part := block{b.stripe, b.from, slices.Clone(left.bits)}
			p.filter(&part, cheap)
			for i, w := range part.bits {
				found[i] |= w
				left.bits[i] &^= w
			}
		}
		copy(b.bits, found)
	case leafTest:
		if !cheap || c.cost < slowRow {
			c.test.filter(b)
		}
	}
	c.step.Selected += int64(b.count())
	c.step.Time += time.Since(begin)
}
