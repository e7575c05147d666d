package rollout

import (
	"cmp"
	"container/heap"
	"slices"
	"strconv"
	"strings"
)

// Candidate is a target that may belong to a diverse wave.
type Candidate struct {
	ID   string
	Keys []string // such as model, firmware and site, the weightiest first
}

// Diverse chooses n of the candidates so that they differ as much as may be:
// each combination of keys once before any comes twice, and among combinations
// first those with the most single keys that no chosen one has. It returns their
// indices in the order of choice. It is the same choice for the candidates in
// any order, and takes memory linear in them.
func Diverse(candidates []Candidate, n int) []int {
	n = min(n, len(candidates))
	if n <= 0 {
		return nil
	}
	q := &combinations{list: combine(candidates), seen: map[string]bool{}}
	chosen := make([]int, 0, n)
	for round := 0; ; round++ {
		for i := range q.list {
			if round < len(q.list[i].members) {
				q.list[i].gain = q.gain(&q.list[i])
				q.heap = append(q.heap, i)
			}
		}
		heap.Init(q)
		for len(q.heap) > 0 {
			top := &q.list[q.heap[0]]
			// What is new of a combination only ever gets less, so that the first
			// whose worth is still true is the best.
			if gain := q.gain(top); gain != top.gain {
				top.gain = gain
				heap.Fix(q, 0)
				continue
			}
			heap.Pop(q)
			q.mark(top)
			chosen = append(chosen, top.members[round])
			if len(chosen) == n {
				return chosen
			}
		}
	}
}

// combination is the candidates with the same keys, in the order of their ids.
type combination struct {
	keys    []string // each with its place, so that a site is no model
	members []int
	first   string // the least id
	gain    int
}

// combine groups the candidates, in the order of each group's least id.
func combine(candidates []Candidate) []combination {
	groups := map[string]int{}
	var list []combination
	for i, c := range candidates {
		keys := make([]string, len(c.Keys))
		for k, key := range c.Keys {
			keys[k] = strconv.Itoa(k) + ":" + strconv.Itoa(len(key)) + ":" + key
		}
		whole := strings.Join(keys, "")
		at, ok := groups[whole]
		if !ok {
			at = len(list)
			groups[whole] = at
			list = append(list, combination{keys: keys})
		}
		list[at].members = append(list[at].members, i)
	}
	for i := range list {
		slices.SortFunc(list[i].members, func(a, b int) int { return cmp.Compare(candidates[a].ID, candidates[b].ID) })
		list[i].first = candidates[list[i].members[0]].ID
	}
	slices.SortFunc(list, func(a, b combination) int { return cmp.Compare(a.first, b.first) })
	return list
}

// combinations is a heap of those that a round has left, the best first.
type combinations struct {
	list []combination
	heap []int
	seen map[string]bool // single keys of those that were chosen
}

// gain is the worth of a combination: first how many of its keys are new, then
// which.
func (q *combinations) gain(c *combination) int {
	count, which := 0, 0
	for i, key := range c.keys {
		if !q.seen[key] {
			count++
			if i < 16 {
				which |= 1 << (15 - i)
			}
		}
	}
	return count<<16 | which
}

func (q *combinations) mark(c *combination) {
	for _, key := range c.keys {
		q.seen[key] = true
	}
}

// Len is for container/heap.
func (q *combinations) Len() int { return len(q.heap) }

// Less is for container/heap.
func (q *combinations) Less(i, j int) bool {
	a, b := q.heap[i], q.heap[j]
	if q.list[a].gain != q.list[b].gain {
		return q.list[a].gain > q.list[b].gain
	}
	return a < b // the list is in the order of ids
}

// Swap is for container/heap.
func (q *combinations) Swap(i, j int) { q.heap[i], q.heap[j] = q.heap[j], q.heap[i] }

// Push is for container/heap, and never called.
func (q *combinations) Push(x any) { q.heap = append(q.heap, x.(int)) }

// Pop is for container/heap.
func (q *combinations) Pop() any {
	last := q.heap[len(q.heap)-1]
	q.heap = q.heap[:len(q.heap)-1]
	return last
}
