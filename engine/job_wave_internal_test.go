package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
)

func TestPermutation(t *testing.T) {
	for _, size := range []uint64{0, 1, 2, 3, 4, 5, 17, 64, 1000, 4097} {
		p := newPermutation(rand.Uint64(), size)
		seen := make([]bool, size)
		moved := 0
		for n := range size {
			at := p.at(n)
			if at >= size || seen[at] {
				t.Fatalf("of %d, %d goes to %d", size, n, at)
			}
			seen[at] = true
			if p.from(at) != n {
				t.Fatalf("of %d, %d comes from %d and not from %d", size, at, p.from(at), n)
			}
			if at != n {
				moved++
			}
		}
		if size >= 17 && moved < int(size)/2 {
			t.Errorf("of %d, only %d moved", size, moved)
		}
	}
}

// TestPermutationIsFair: whoever is first in the alphabet is in a small wave no
// more often than anybody else.
func TestPermutationIsFair(t *testing.T) {
	const size, wave, jobs = 1000, 100, 4000
	var hits [10]int
	for seed := range uint64(jobs) {
		p := newPermutation(seed*0x9e3779b97f4a7c15, size)
		for n := range uint64(size) {
			if p.at(n) < wave {
				hits[n*10/size]++
			}
		}
	}
	const want = jobs * wave / 10
	for tenth, n := range hits {
		if n < want*95/100 || n > want*105/100 {
			t.Errorf("the tenth %d of the fleet was in the wave %d times, expected about %d", tenth, n, want)
		}
	}
}

// TestDeal: each target is in one wave, waves have their sizes, and what is
// chosen is where it was chosen for.
func TestDeal(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		total := int64(r.IntN(400))
		waves := 1 + r.IntN(5)
		sizes := make([]int, waves)
		left := int(total)
		for w := range waves - 1 {
			sizes[w] = r.IntN(left + 1)
			left -= sizes[w]
		}
		sizes[waves-1] = left
		free := r.Perm(int(total))
		picked := make([][]numbered, waves)
		for w := range sizes {
			if r.IntN(2) == 0 {
				for range r.IntN(sizes[w] + 1) {
					picked[w] = append(picked[w], numbered{n: int64(free[0])})
					free = free[1:]
				}
			}
		}
		d := newDeal(r.Uint64(), total, sizes, picked)
		got := make([][]int64, waves)
		for n := range total {
			w := d.of(n)
			got[w] = append(got[w], n)
		}
		for w := range sizes {
			if len(got[w]) != sizes[w] {
				t.Fatalf("wave %d of %v has %d targets", w, sizes, len(got[w]))
			}
			for _, one := range picked[w] {
				if !slices.Contains(got[w], one.n) {
					t.Fatalf("%d was chosen for wave %d", one.n, w)
				}
			}
			all := d.dealt(w)
			for _, one := range picked[w] {
				all = append(all, one.n)
			}
			slices.Sort(all)
			if !slices.Equal(all, got[w]) {
				t.Fatalf("wave %d has %v, and dealt says %v", w, got[w], all)
			}
		}
		if total > 0 && d.of(total+5) != waves-1 {
			t.Fatal("a target that came later is not in the last wave")
		}
	}
}

func TestDiversityIsBounded(t *testing.T) {
	policy := rollout.Policy{Waves: []rollout.Wave{{Size: rollout.Count(10), Diverse: true}, {Size: rollout.Percent(100)}}}
	targets := &jobTargets{diverse: diverseDefaults}
	d := newDiversity(targets, &policy, func(query.Path) bool { return true })
	values := make([]query.Value, len(d.paths))
	for i := range 100_000 {
		values[0] = query.StringValue(fmt.Sprintf("model-%d", i%30_000))
		d.add(fmt.Sprintf("d%06d", i), int64(i), values)
	}
	if d.kept > diverseKeep || len(d.by) > diverseKeep {
		t.Errorf("%d candidates of %d kinds are kept", d.kept, len(d.by))
	}
	picked := d.choose(&policy, []int{10, 99_990})
	models := map[string]bool{}
	for _, one := range picked[0] {
		models[fmt.Sprint(one.n%30_000)] = true
	}
	if len(picked[0]) != 10 || len(models) != 10 {
		t.Errorf("ten were asked for: %v", picked)
	}
}

func TestTargetSum(t *testing.T) {
	h := queryHub(t)
	r := rand.New(rand.NewPCG(3, 4))
	sum := func(rows []string) *targetSum {
		s := h.newTargetSum()
		for _, i := range r.Perm(len(rows)) {
			s.add(rows[i])
		}
		return s
	}
	rows := make([]string, 3000)
	for i := range rows {
		rows[i] = fmt.Sprintf("device-%05d", i)
	}
	before := sum(rows)
	if !sum(rows).same(before) {
		t.Error("the order counts")
	}
	exact := 0
	for range 200 {
		fewer, more := r.IntN(12), r.IntN(12)
		// Each time others go: in one hub of a hundred, two of a dozen share their cells.
		after := slices.Clone(rows)
		r.Shuffle(len(after), func(i, j int) { after[i], after[j] = after[j], after[i] })
		after = after[fewer:]
		var names []string
		for i := range more {
			names = append(names, fmt.Sprintf("new-%d-%d", i, r.IntN(1000)))
		}
		now := sum(append(after, names...))
		c := now.since(before)
		if now.same(before) != (fewer+more == 0) {
			t.Errorf("%d fewer and %d more make the same sum", fewer, more)
		}
		if c.Exact {
			exact++
			if c.Fewer != fewer || c.More != more {
				t.Errorf("%d fewer and %d more are told as %s", fewer, more, c)
			}
			for _, name := range names {
				if id, _ := now.hashRow(name); !c.New[id] {
					t.Errorf("%s is not told as new", name)
				}
			}
		}
		if c.More-c.Fewer != more-fewer {
			t.Errorf("%d fewer and %d more are told as %s", fewer, more, c)
		}
	}
	if exact < 180 {
		t.Errorf("only %d of 200 small differences are told exactly", exact)
	}
	if c := sum(rows[:100]).since(before); c.Exact || c.Fewer < 2900 {
		t.Errorf("2,900 fewer are told as %s", c)
	}
	b := before.append([]byte("x"))
	again := h.newTargetSum()
	if rest, ok := again.read(b[1:]); !ok || len(rest) != 0 || !again.same(before) || again.Cells != before.Cells {
		t.Error("a sum is not read as it was written")
	}
	for n := range b[1:] {
		if _, ok := h.newTargetSum().read(b[1 : 1+n]); ok {
			t.Fatalf("%d bytes of a sum are taken for one", n)
		}
	}
}

func TestTargetCodec(t *testing.T) {
	var c targetCodec
	block := targetBlock{{"a", ""}, {"device-1", ""}, {"device-1", "m"}, {"device-2", ""}, {"z", "$edgeAgent"}}
	b, err := c.Append([]byte{}, block)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Decode(b)
	if err != nil || !slices.Equal(got, block) {
		t.Fatalf("%v, %v", got, err)
	}
	for n := range b {
		if _, err := c.Decode(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are a block", n, len(b))
		}
	}
	if _, err := c.Decode(append(b, 0)); err == nil {
		t.Error("bytes behind a block are taken")
	}
}

func FuzzTargetCodec(f *testing.F) {
	b, _ := targetCodec{}.Append(nil, targetBlock{{"device-1", ""}, {"device-2", "m"}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		block, err := targetCodec{}.Decode(b)
		if err != nil {
			return
		}
		again, err := targetCodec{}.Append(nil, block)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (targetCodec{}).Decode(again); err != nil || !slices.Equal(got, block) {
			t.Fatalf("%v, %v, %v", block, got, err)
		}
	})
}

// TestFewDifferences has sums tell five differences among similar ids, under a
// thousand keys: nearly always exactly, and never wrongly.
func TestFewDifferences(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	exact := 0
	const keys = 1000
	for range keys {
		key := [2]uint64{random.Uint64(), random.Uint64()}
		before, after := &targetSum{key: key}, &targetSum{key: key}
		for i := range 30 {
			row := fmt.Sprintf("d%05d", i)
			if i >= 3 {
				before.add(row)
			}
			if i != 13 && i != 23 {
				after.add(row)
			}
		}
		c := after.since(before)
		if c.More > 3 || c.Fewer > 2 || c.Exact && (c.More != 3 || c.Fewer != 2) {
			t.Fatalf("key %x: %v", key, c)
		}
		if c.Exact {
			exact++
		}
	}
	if exact < keys*98/100 {
		t.Errorf("%d of %d were exact", exact, keys)
	}
}
