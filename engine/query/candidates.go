package query

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// What it takes to look at one row alone, in nanoseconds, roughly.
const costLook = 500

// foundMost is up to how many rows that were found wait for their turn by id; of more,
// those that are wanted are found soon by going through all ids in their order.
const foundMost = 4096

// candidates are rows in the order of their ids that may pass. Rows are scanned stripe
// by stripe, those with the least ids first, and only as far as is needed: what was found
// can be given out once no stripe is left that may have a lesser id. Rows that come or go
// meanwhile may be missed or given, as they like; others have their place in a stripe.
type candidates struct {
	after string
	cheap bool // tests that go row by row are left to a later look
	sure  bool // all that are given have passed, when they were found
	done  bool
	rest  []uint32 // given out, but not come to

	walk  bool         // go through all ids, of which bits has a bit
	bits  []uint64     // that were found; nil: all rows
	found foundRows    // else: those that were, and were not given
	ahead []stripeFrom // to be scanned, in the order of their least ids
	step  *Step        // of the scan
}

// stripeFrom is a stripe, and an id that none of its rows is before.
type stripeFrom struct {
	stripe int
	least  string
}

// foundRow is a row that may pass.
type foundRow struct {
	id  string
	ord uint32
}

// foundRows is a heap, the least id first.
type foundRows []foundRow

func (f foundRows) Len() int           { return len(f) }
func (f foundRows) Less(i, j int) bool { return f[i].id < f[j].id }
func (f foundRows) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }

// Push implements heap.Interface.
func (f *foundRows) Push(x any) { *f = append(*f, x.(foundRow)) } //nolint:forcetypeassert // nothing else is pushed

// Pop implements heap.Interface.
func (f *foundRows) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	*f = (*f)[:last]
	return x
}

// candidates finds rows that may pass, in the way that should cost least when target
// rows are wanted. A scan is judged as if all rows were in it: how many it can leave out
// shows only on the way.
func (r *run) candidates(target int) (*candidates, error) {
	c := &candidates{after: r.ask.After}
	n := float64(r.plan.Rows)
	switch {
	case r.cond == nil:
		c.sure, c.walk = true, true
		return c, nil
	case r.seeded:
		if err := r.lock(); err != nil {
			return nil, err
		}
		batch := c.locate(r, nil, r.seeds)
		r.unlock()
		c.add(batch)
		return c, nil
	}
	look := float64(costLook)
	if !r.cond.exact() {
		look *= 10 // a document
	}
	cheapCost, cheapShare := r.cond.cheap()
	walk := min(n, float64(target)/max(r.cond.share, 1e-9)) * look
	cheap := n*cheapCost + min(n*cheapShare, float64(target)*cheapShare/max(r.cond.share, 1e-9))*look
	full := n*r.cond.cost + min(n*r.cond.share, float64(target))*look
	c.step = &Step{Kind: "scan", Estimate: Share(r.cond.share)}
	r.plan.Steps = append(r.plan.Steps, c.step)
	if walk <= cheap && walk <= full {
		c.step.Kind, c.step.Note, c.walk = "walk by id", "enough rows should pass soon", true
		return c, nil
	}
	c.cheap = cheap < full
	c.sure = !c.cheap && r.cond.exact()
	c.bits = make([]uint64, r.words)
	c.step.Memory = int64(len(c.bits)) * 8
	if err := r.hold(c.step.Memory, c.step.Kind); err != nil {
		return nil, err
	}
	return c, c.plan(r)
}

// plan puts the stripes in order that may have rows behind after.
func (c *candidates) plan(r *run) error {
	if err := r.lock(); err != nil {
		return err
	}
	defer r.unlock()
	stripes := r.words * 64 / stripeRows
	c.ahead = make([]stripeFrom, 0, stripes)
	for stripe := range stripes {
		if s := r.store.spans[stripe]; !s.upTo(&r.store.ids, c.after) {
			c.ahead = append(c.ahead, stripeFrom{stripe, s.least(&r.store.ids)})
		}
	}
	slices.SortFunc(c.ahead, func(a, b stripeFrom) int { return cmp.Compare(a.least, b.least) })
	return nil
}

// locate appends rows behind after, with their ids. The lock is held.
func (c *candidates) locate(r *run, dst []foundRow, ords []uint32) []foundRow {
	for _, ord := range ords {
		if id := r.store.ids.at(ord); id > c.after {
			dst = append(dst, foundRow{id, ord})
		}
	}
	return dst
}

func (c *candidates) add(rows []foundRow) {
	for _, row := range rows {
		heap.Push(&c.found, row)
	}
}

// scan scans the stripe that is next. Under the lock rows only get their ids; their order
// takes longer.
func (c *candidates) scan(r *run) error {
	stripe := c.ahead[0].stripe
	c.ahead = c.ahead[1:]
	begin, before := time.Now(), r.cond.step.Rows
	var batch []foundRow
	var ords []uint32
	err := r.scanStripe(stripe, c.cheap, func(b *block) error {
		n := b.count()
		c.step.Selected += int64(n)
		copy(c.bits[b.base()/64:], b.bits)
		if len(c.found)+len(batch)+n > foundMost {
			c.walk, c.found, batch = true, nil, nil
		}
		if !c.walk {
			ords = ords[:0]
			b.each(func(at uint32) { ords = append(ords, uint32(stripe)<<stripeBits+at) })
			batch = c.locate(r, batch, ords)
		}
		return nil
	}, nil)
	c.add(batch)
	c.step.Rows += r.cond.step.Rows - before
	c.step.Time += time.Since(begin)
	return err
}

// next returns up to n rows that come next.
func (c *candidates) next(r *run, n int) ([]uint32, error) {
	if len(c.rest) > 0 {
		return c.rest, nil
	}
	var ords []uint32
	for !c.walk && !c.done && len(ords) < n {
		switch {
		case len(c.found) > 0 && (len(c.ahead) == 0 || c.found[0].id < c.ahead[0].least):
			row := heap.Pop(&c.found).(foundRow) //nolint:forcetypeassert // nothing else is pushed
			if row.id > c.after {                // seeds may come twice
				ords, c.after = append(ords, row.ord), row.id
			}
		case len(c.ahead) == 0:
			c.done = true
		default:
			if err := c.scan(r); err != nil {
				return nil, err
			}
		}
	}
	if !c.walk || len(ords) > 0 {
		return ords, nil
	}
	for len(c.ahead) > 0 {
		if err := c.scan(r); err != nil {
			return nil, err
		}
	}
	return c.byID(r, n)
}

// byID is next when more rows were found than are put in order, or none was looked for.
func (c *candidates) byID(r *run, n int) ([]uint32, error) {
	if begin := time.Now(); c.step != nil {
		defer func() { c.step.Time += time.Since(begin) }()
	}
	if err := r.lock(); err != nil {
		return nil, err
	}
	defer r.unlock()
	var ords []uint32
	const looked = 4096 // rows at a time
	for i := 0; i < 16 && len(ords) < n; i++ {
		few := n
		if c.bits != nil {
			few = looked
		}
		all := r.store.sorted.after(nil, &r.store.ids, c.after, few)
		if len(all) == 0 {
			c.done = true
			break
		}
		last := len(all) - 1
		for k, ord := range all {
			if c.bits == nil || int(ord>>6) < len(c.bits) && c.bits[ord>>6]>>(ord&63)&1 == 1 {
				if ords = append(ords, ord); len(ords) == n {
					last = k
					break
				}
			}
		}
		c.after = r.store.ids.at(all[last])
	}
	return ords, nil
}

// cheap returns cost and share of what a cheap scan leaves.
func (c *condition) cheap() (cost, share float64) {
	switch c.kind {
	case leafTest:
		if c.cost < slowRow {
			return c.cost, c.share
		}
	case allOf:
		share = 1
		for _, p := range c.parts {
			pc, ps := p.cheap()
			cost += pc * share
			share *= ps
		}
		return cost, share
	case anyOf:
		left := 1.0
		for _, p := range c.parts {
			pc, ps := p.cheap()
			cost += pc * left
			left *= 1 - ps
		}
		return cost, 1 - left
	}
	return 0, 1
}
