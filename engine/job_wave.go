package engine

import (
	"slices"
	"sort"
	"strings"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
)

// How targets come into waves. They are numbered in the order of their rows. A
// diverse wave gets its targets by what they are, at most diverseMost; all
// others are dealt out by a permutation of their numbers, so that each wave is a
// fair sample of the fleet and not the beginning of the alphabet. Which wave
// a target is in follows from its number, the number of targets and the job's
// seed: nothing is kept for it, and a preview sees what the job will do.
const (
	diverseMost    = 1000   // chosen for diversity, of a job
	diverseKeep    = 20_000 // candidates in memory
	diverseKeyText = 64     // bytes of a key that count
)

// diversity collects candidates for diverse waves while targets go by.
type diversity struct {
	keys  [][]query.Path
	paths []query.Path // all of keys, one behind the other
	most  int          // to choose
	each  int          // candidates of one combination
	kept  int
	by    map[string]*combination
	order []*combination
	name  []byte // of the target that is looked at
}

// combination are the candidates that are alike.
type combination struct {
	keys []string
	rows []numbered
}

// numbered is a target and its number.
type numbered struct {
	row string
	n   int64
}

// newDiversity collects for a policy, nil when no wave of it is diverse. known
// says where a target can have something.
func newDiversity(t *jobTargets, p *rollout.Policy, known func(query.Path) bool) *diversity {
	if !slices.ContainsFunc(p.Waves, func(w rollout.Wave) bool { return w.Diverse }) {
		return nil
	}
	d := &diversity{most: diverseMost, each: diverseMost, by: map[string]*combination{}}
	for _, places := range t.diverse {
		places = slices.DeleteFunc(slices.Clone(places), func(p query.Path) bool { return !known(p) })
		d.keys = append(d.keys, places)
		d.paths = append(d.paths, places...)
	}
	return d
}

// known reports whether a device or module can have something at a path.
func (q *queries) known(p query.Path) bool {
	return q.columns[query.Devices].Known(p) || q.columns[query.Modules].Known(p)
}

// add takes a target, with its values at d.paths.
func (d *diversity) add(row string, n int64, values []query.Value) {
	d.name = d.name[:0]
	at := 0
	for _, places := range d.keys {
		for i := range places {
			if before := len(d.name); d.key(&values[at+i]) && len(d.name) > before {
				break
			}
		}
		d.name = append(d.name, 0)
		at += len(places)
	}
	c := d.by[string(d.name)]
	if c == nil {
		if len(d.by) == diverseKeep {
			return // so many kinds of devices: the first ones do
		}
		keys := strings.Split(strings.TrimSuffix(string(d.name), "\x00"), "\x00")
		c = &combination{keys: keys}
		d.by[string(d.name)] = c
		d.order = append(d.order, c)
	}
	if len(c.rows) >= d.each {
		return
	}
	c.rows = append(c.rows, numbered{row, n})
	d.kept++
	for d.kept > diverseKeep && d.each > 1 {
		// As if fewer had been kept of each from the start.
		d.each = (d.each + 1) / 2
		d.kept = 0
		for _, c := range d.order {
			c.rows = c.rows[:min(len(c.rows), d.each)]
			d.kept += len(c.rows)
		}
	}
}

// key adds a value to the name of a combination, if it tells devices apart: two
// objects do not.
func (d *diversity) key(v *query.Value) bool {
	from := len(d.name)
	switch v.Kind() {
	case query.Undefined, query.Null, query.Object:
		return false
	case query.String:
		d.name = append(d.name, v.Text()...)
	default:
		d.name = v.AppendJSON(d.name)
	}
	d.name = d.name[:min(len(d.name), from+diverseKeyText)]
	for i := from; i < len(d.name); i++ {
		if d.name[i] == 0 { // which divides keys
			d.name[i] = ' '
		}
	}
	return true
}

// choose returns the targets of the diverse waves, by wave, as many as the
// waves' sizes ask for and diverseMost allows.
func (d *diversity) choose(p *rollout.Policy, sizes []int) [][]numbered {
	want := 0
	for w, size := range sizes {
		if p.Waves[w].Diverse {
			want += size
		}
	}
	want = min(want, d.most)
	var list []rollout.Candidate
	var all []numbered
	for _, c := range d.order {
		for _, one := range c.rows {
			list = append(list, rollout.Candidate{ID: one.row, Keys: c.keys})
			all = append(all, one)
		}
	}
	chosen := rollout.Diverse(list, min(want, len(list)))
	picked := make([][]numbered, len(sizes))
	for w, size := range sizes {
		if !p.Waves[w].Diverse {
			continue
		}
		n := min(size, len(chosen))
		for _, i := range chosen[:n] {
			picked[w] = append(picked[w], all[i])
		}
		chosen = chosen[n:]
	}
	return picked
}

// deal says which wave each target is in.
type deal struct {
	picked []int64       // numbers of those that were chosen, sorted
	wave   map[int64]int // of them
	reach  []int64       // targets that are dealt up to each wave
	order  permutation
}

// newDeal prepares to deal total targets out. sizes are those of the waves,
// picked what is in them already.
func newDeal(seed uint64, total int64, sizes []int, picked [][]numbered) *deal {
	d := &deal{wave: map[int64]int{}, reach: make([]int64, len(sizes))}
	reach := int64(0)
	for w, size := range sizes {
		reach += int64(size)
		if w < len(picked) {
			reach -= int64(len(picked[w]))
			for _, one := range picked[w] {
				d.picked = append(d.picked, one.n)
				d.wave[one.n] = w
			}
		}
		d.reach[w] = reach
	}
	slices.Sort(d.picked)
	d.order = newPermutation(seed, uint64(max(0, total-int64(len(d.picked)))))
	return d
}

// of returns the wave of a target by its number. Numbers beyond the total are
// in the last wave.
func (d *deal) of(n int64) int {
	if w, ok := d.wave[n]; ok {
		return w
	}
	before := sort.Search(len(d.picked), func(i int) bool { return d.picked[i] >= n })
	rank := int64(d.order.at(uint64(n - int64(before))))
	return min(sort.Search(len(d.reach), func(i int) bool { return d.reach[i] > rank }), len(d.reach)-1)
}

// dealt returns the numbers of the targets that are dealt out to a wave, beside
// those that were chosen for it.
func (d *deal) dealt(wave int) []int64 {
	from := int64(0)
	if wave > 0 {
		from = d.reach[wave-1]
	}
	var list []int64
	for rank := from; rank < d.reach[wave]; rank++ {
		n := int64(d.order.from(uint64(rank)))
		for _, picked := range d.picked { // sorted: each one up to n moves it on
			if picked > n {
				break
			}
			n++
		}
		list = append(list, n)
	}
	return list
}

// permutation maps 0 to size-1 onto themselves in an order that looks like
// chance: a Feistel network over the next power of four, walked on until it
// comes back below size.
type permutation struct {
	size uint64
	half uint // bits
	key  [4]uint64
}

func newPermutation(seed, size uint64) permutation {
	p := permutation{size: size, half: 1}
	for size > 1<<(2*p.half) {
		p.half++
	}
	for i := range p.key {
		seed += 0x9e3779b97f4a7c15
		p.key[i] = mix(seed^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
	}
	return p
}

func (p *permutation) at(n uint64) uint64 {
	if n >= p.size {
		return n
	}
	mask := uint64(1)<<p.half - 1
	for {
		left, right := n>>p.half, n&mask
		for _, k := range p.key {
			left, right = right, left^mix(right^k, 0x8ebc6af09c88c6e3)>>20&mask
		}
		if n = left<<p.half | right; n < p.size {
			return n
		}
	}
}

// from is the reverse of at.
func (p *permutation) from(n uint64) uint64 {
	if n >= p.size {
		return n
	}
	mask := uint64(1)<<p.half - 1
	for {
		left, right := n>>p.half, n&mask
		for i := len(p.key) - 1; i >= 0; i-- {
			left, right = right^mix(left^p.key[i], 0x8ebc6af09c88c6e3)>>20&mask, left
		}
		if n = left<<p.half | right; n < p.size {
			return n
		}
	}
}
