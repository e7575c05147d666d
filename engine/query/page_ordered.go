package query

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"time"
)

// ranked is a row with the values it is ordered by.
type ranked struct {
	order []Value
	id    string
}

// ranking keeps the first rows in ORDER BY's order, up to a number; as a heap, the
// last one of them on top.
type ranking struct {
	run     *run
	keys    []*binding
	most    int
	list    []ranked
	more    bool // others were left out
	scratch []Value
	step    *Step
}

// What a row takes in a ranking, roughly: bytes besides its texts, nanoseconds.
const (
	rankedBytes = 120
	costSort    = 200
)

func (k *ranking) compare(a, b *ranked) int {
	return cmp.Or(k.run.query.compareOrder(a.order, b.order), strings.Compare(a.id, b.id))
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (k *ranking) Len() int           { return len(k.list) }
func (k *ranking) Less(i, j int) bool { return k.compare(&k.list[i], &k.list[j]) > 0 }
func (k *ranking) Swap(i, j int)      { k.list[i], k.list[j] = k.list[j], k.list[i] }
func (k *ranking) Push(x any)         { k.list = append(k.list, x.(ranked)) }
func (k *ranking) Pop() any {
	last := k.list[len(k.list)-1]
	k.list = k.list[:len(k.list)-1]
	return last
}

// add considers a row whose values are in scratch.
func (k *ranking) add(id string) error {
	row := ranked{k.scratch, id}
	if len(k.list) == k.most {
		k.more = true
		if k.most == 0 || k.compare(&row, &k.list[0]) >= 0 {
			return nil
		}
		// The row that falls out leaves its place.
		top := &k.list[0]
		copy(top.order, k.scratch)
		top.id = id
		heap.Fix(k, 0)
		return nil
	}
	row.order = slices.Clone(k.scratch)
	bytes := int64(rankedBytes + len(id))
	for _, v := range row.order {
		bytes += 80 + int64(len(v.text))
	}
	heap.Push(k, row)
	return k.run.hold(bytes, k.step.Kind)
}

// rows implements sink.
func (k *ranking) rows(b *block) (left []uint32, err error) {
	begin := time.Now()
	s := k.run.store
	base := b.base() - b.from
	b.each(func(at uint32) {
		if err != nil {
			return
		}
		k.step.Rows++
		for i, key := range k.keys {
			k.scratch[i] = key.value(s, base+at)
			if k.scratch[i].kind == Object {
				left = append(left, base+at)
				return
			}
		}
		err = k.add(s.ids.at(base + at))
	})
	k.step.Time += time.Since(begin)
	return left, err
}

// document implements sink.
func (k *ranking) document(id string, doc Value) error {
	k.step.Rows++
	for i, key := range k.keys {
		k.scratch[i] = doc.Value(key.path)
		if v := &k.scratch[i]; v.kind != Number && v.kind != Bool {
			*v = v.clone() // without it the whole document stays
		}
	}
	return k.add(id)
}

// ordered answers with rows in ORDER BY's order.
func (r *run) ordered() (*Page, error) {
	skip, want := r.bounds()
	k := &ranking{run: r, most: skip + want, scratch: make([]Value, len(r.query.order))}
	fromColumns := true
	var names []string
	for _, o := range r.query.order {
		b := r.bindings.of(o.path)
		k.keys = append(k.keys, b)
		names = append(names, o.path.String())
		if b.missing {
			fromColumns = false
			r.missing(b)
		}
	}
	k.step = &Step{Kind: "sort", Path: strings.Join(names, ", "), Estimate: -1}
	r.plan.Steps = append(r.plan.Steps, k.step)
	r.sinkCost = costSort
	if err := r.feed(k, fromColumns); err != nil {
		return nil, err
	}
	begin := time.Now()
	slices.SortFunc(k.list, func(a, b ranked) int { return k.compare(&a, &b) })
	k.step.Selected, k.step.Time = int64(len(k.list)), k.step.Time+time.Since(begin)

	out, selected := r.newOutput(), r.plan.Selected
	r.plan.Steps = append(r.plan.Steps, out.step)
	list := k.list[min(skip, len(k.list)):]
	for len(list) > 0 {
		n := min(len(list), verifyBatch)
		ords, err := r.ordinals(list[:n])
		if err != nil {
			return nil, err
		}
		for none := 0; len(ords) > 0 && len(out.ids) < want; {
			if ords, err = r.take(out, ords, &none, want); err != nil {
				return nil, err
			}
		}
		list = list[n:]
	}
	r.plan.Selected = selected // take has counted those of the page again
	page := &Page{More: k.more && !r.last(want)}
	out.give(page)
	return page, nil
}

// ordinals returns where rows are now; those that are gone are left out.
func (r *run) ordinals(list []ranked) ([]uint32, error) {
	if err := r.lock(); err != nil {
		return nil, err
	}
	defer r.unlock()
	ords := make([]uint32, 0, len(list))
	for i := range list {
		if ord, ok := r.store.find(list[i].id); ok {
			ords = append(ords, ord)
		}
	}
	return ords, nil
}
