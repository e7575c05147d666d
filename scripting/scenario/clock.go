package scenario

import (
	"container/heap"
	"time"
)

// clock is virtual time: it stands still while something is done, and jumps to
// the next moment at which something is to be done.
type clock struct {
	now   time.Time
	queue eventQueue
	seq   int
	ran   int // events, of all time
}

// event is something that is to be done at a moment.
type event struct {
	at    time.Time
	seq   int // of two at the same moment the earlier made goes first
	epoch int // of the hub that wants it: a crash forgets it; 0: the world outside
	do    func() error
}

// at asks for something to be done at a moment, now at the earliest.
func (c *clock) at(when time.Time, epoch int, do func() error) {
	if when.Before(c.now) {
		when = c.now
	}
	c.seq++
	heap.Push(&c.queue, &event{at: when, seq: c.seq, epoch: epoch, do: do})
}

// next returns the next event of the world outside or of a hub, nil when there
// is none.
func (c *clock) next(epoch int) *event {
	for len(c.queue) > 0 && c.queue[0].epoch != 0 && c.queue[0].epoch != epoch {
		heap.Pop(&c.queue) // of a hub that has crashed
	}
	if len(c.queue) == 0 {
		return nil
	}
	return c.queue[0]
}

// take takes what next returned, and lets time pass until then.
func (c *clock) take() *event {
	e, _ := heap.Pop(&c.queue).(*event)
	if e.at.After(c.now) {
		c.now = e.at
	}
	c.ran++
	return e
}

// eventQueue is a heap of events.
type eventQueue []*event

// Len implements heap.Interface.
func (q eventQueue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}

// Swap implements heap.Interface.
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *eventQueue) Push(x any) {
	if e, ok := x.(*event); ok {
		*q = append(*q, e)
	}
}

// Pop implements heap.Interface.
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
