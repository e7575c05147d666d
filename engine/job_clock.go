package engine

import (
	"sync"
	"time"
)

// jobClock keeps a jump of the host's clock from ending what waits. Times that
// executions are due at are stored as the wall clock's, since they outlive the
// process. The clock that never jumps tells the loop that the other one did: by
// how much it went forward, times that were set before are put off.
//
// A jump back by more than five minutes lets the store refuse writes until the
// clock is right again (storage.ErrClock), and so nothing here moves; a smaller
// one makes what is due wait by as much longer, and nothing else. A hub that is
// started after a jump can't know of it and takes the wall clock's word.
//
// It is safe for concurrent use; the zero value is ready.
type jobClock struct {
	mu    sync.Mutex
	last  time.Time // when the clock was looked at, with both readings
	jumps []clockJump
}

// clockJump is one jump: whatever was set at or before the time before, as the
// clock was then, is put off by the step.
type clockJump struct {
	before time.Time
	step   time.Duration
}

const (
	clockJumpLeast = 30 * time.Second // smaller ones are for clocks that are being set right
	clockJumpsMost = 16               // that are remembered; with more the two oldest are made one
)

// look takes note of the time, which must hold a monotonic reading, and reports
// whether the wall clock went forward by more than time has passed.
func (c *jobClock) look(now time.Time) (jumped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.last
	c.last = now
	if last.IsZero() {
		return false
	}
	return c.noteLocked(now, now.Round(0).Sub(last.Round(0))-now.Sub(last))
}

// noteLocked notes a step of the wall clock that was seen at now.
func (c *jobClock) noteLocked(now time.Time, step time.Duration) bool {
	if step < clockJumpLeast {
		return false
	}
	if len(c.jumps) == clockJumpsMost {
		c.jumps[1].step += c.jumps[0].step
		c.jumps = append(c.jumps[:0], c.jumps[1:]...)
	}
	// The readings are of the wall clock from here on.
	c.jumps = append(c.jumps, clockJump{now.Round(0).Add(-step), step})
	return true
}

// later returns a time that was set at another one, put off by the jumps since.
func (c *jobClock) later(due, set time.Time) time.Time {
	if due.IsZero() {
		return due
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.jumps {
		if !set.After(j.before) {
			due, set = due.Add(j.step), set.Add(j.step)
		}
	}
	return due
}
