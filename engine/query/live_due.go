package query

import "time"

// dueRow is a row that a query is to look at again at a time.
type dueRow struct {
	at     time.Time
	query  *liveQuery
	n      uint32
	serial uint64 // of all that were made
}

// stands reports whether the row still waits for this.
func (d *dueRow) stands() bool { return d.query.pending[d.n].serial == d.serial }

// pendingRow is what a row waits for.
type pendingRow struct {
	at     time.Time
	serial uint64
}

// dueHeap has the earliest first. A row that no longer waits stays until its
// time comes, or until there are many such.
type dueHeap []dueRow

func (h *dueHeap) push(d dueRow) {
	*h = append(*h, d)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s[i].at.Before(s[up].at) {
			return
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *dueHeap) pop() dueRow {
	s := *h
	top := s[0]
	last := len(s) - 1
	s[0], s[last] = s[last], dueRow{}
	*h = s[:last]
	h.down(0)
	return top
}

func (h dueHeap) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].at.Before(h[least].at) {
				least = child
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// tidy takes out the rows that wait no longer.
func (h *dueHeap) tidy() {
	keep := (*h)[:0]
	for i := range *h {
		if d := &(*h)[i]; d.stands() {
			keep = append(keep, *d)
		}
	}
	clear((*h)[len(keep):])
	*h = keep
	for i := len(keep)/2 - 1; i >= 0; i-- {
		keep.down(i)
	}
}

// timedPath is a timestamp that a condition compares with the time: with now()
// plus an offset, which is negative for the past.
type timedPath struct {
	path   Path
	offset time.Duration
}

// timedPaths returns the timestamps that an expression compares with the time.
func timedPaths(e expr) (list []timedPath) {
	walk(e, func(e expr) {
		if d, ok := dueOf(e); ok {
			list = append(list, timedPath{d.path, d.offset})
		}
	})
	return list
}

// flips returns the first time after now at which a comparison with the time
// turns out differently; zero when none will.
func (q *liveQuery) flips(r row, now time.Time) (first time.Time) {
	for _, t := range q.timed {
		v := r.Value(t.path)
		if v.kind != String {
			continue
		}
		stamp, err := time.Parse(time.RFC3339, v.text)
		if err != nil {
			continue
		}
		// path < now + offset turns true right behind path - offset.
		at := stamp.Add(-t.offset)
		if !at.After(now) {
			at = at.Add(time.Nanosecond)
		}
		if at.After(now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}
