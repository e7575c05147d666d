package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

func TestJobClock(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var c jobClock
	c.look(at)
	if c.noteLocked(at.Add(20*time.Second), 20*time.Second) {
		t.Error("a small step was taken for a jump")
	}
	if !c.noteLocked(at.Add(time.Hour), time.Hour) { // 12:00 became 13:00
		t.Error("an hour was not taken for a jump")
	}
	for _, s := range []struct{ due, set, want time.Duration }{
		{10 * time.Minute, 0, 70 * time.Minute},                              // set before
		{70 * time.Minute, 61 * time.Minute, 70 * time.Minute},               // set after
		{10 * time.Minute, -30 * time.Minute, 70 * time.Minute},              // long before
		{200 * time.Minute, 60*time.Minute + time.Second, 200 * time.Minute}, // right after
	} {
		if got := c.later(at.Add(s.due), at.Add(s.set)); !got.Equal(at.Add(s.want)) {
			t.Errorf("due after %s, set at %s: %s", s.due, s.set, got.Sub(at))
		}
	}
	if !c.later(time.Time{}, at).IsZero() {
		t.Error("what is never due became due")
	}
	c.noteLocked(at.Add(3*time.Hour), time.Hour) // 14:00 became 15:00
	if got := c.later(at.Add(10*time.Minute), at); !got.Equal(at.Add(130 * time.Minute)) {
		t.Errorf("after two jumps: %s", got.Sub(at))
	}
	for i := range 100 {
		c.noteLocked(at.Add(time.Duration(i+4)*time.Hour), time.Minute)
	}
	if len(c.jumps) > clockJumpsMost {
		t.Errorf("%d jumps are remembered", len(c.jumps))
	}
	var back jobClock
	back.look(at)
	if back.noteLocked(at.Add(-time.Hour), -time.Hour) {
		t.Error("a jump back was taken for one forward")
	}
}

// TestClockJumpsForward lets an hour pass on the wall while next to no time does:
// nothing times out for that, neither what is in flight nor what waits.
func TestClockJumpsForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 20)
		var first *testDevice
		for _, id := range ids[:10] {
			d := attach(t, h, id, say())
			if first == nil {
				first = d
			}
		}
		putJob(t, h, JobSpec{ID: "j", Action: method("m"), Policy: rollout.Policy{Timeout: minutes(10), AttemptTimeout: minutes(5)}}, ids)
		time.Sleep(time.Second)
		// In the bubble both clocks go together: the hub is told what it would see.
		h.jobs.clock.mu.Lock()
		now := time.Now()
		h.jobs.clock.jumps = append(h.jobs.clock.jumps, clockJump{now, time.Hour})
		h.jobs.clock.mu.Unlock()
		time.Sleep(time.Hour)
		if total := total(t, h); total.Active+total.Waiting != 20 {
			t.Errorf("after the jump: %+v", total)
		}
		first.session.CompleteMethod("1", 200, nil)
		time.Sleep(4 * time.Minute)
		if total := total(t, h); total.Active+total.Waiting != 19 || total.Succeeded != 1 {
			t.Errorf("four minutes later: %+v", total)
		}
		time.Sleep(8 * time.Minute)
		if total := total(t, h); total.TimedOut != 19 {
			t.Errorf("when their time is over: %+v", total)
		}
	})
}

// TestSoakAcrossJump lets an hour pass on the wall while next to no time does: a wave
// soaks as long as it was to.
func TestSoakAcrossJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 2)
		putJob(t, h, JobSpec{ID: "j", Action: JobAction{Twin: &JobTwinPatch{Tags: []byte(`{"a":1}`)}}, Policy: rollout.Policy{
			Waves: []rollout.Wave{{Size: rollout.Count(1), Soak: minutes(30)}, {Size: rollout.Percent(100)}},
		}}, ids)
		time.Sleep(time.Minute)
		h.jobs.clock.mu.Lock()
		h.jobs.clock.jumps = append(h.jobs.clock.jumps, clockJump{time.Now(), time.Hour})
		h.jobs.clock.mu.Unlock()
		time.Sleep(time.Hour + 28*time.Minute)
		if n := total(t, h).Succeeded; n != 1 {
			t.Errorf("%d succeeded when the first wave had soaked for 29 of its 30 minutes", n)
		}
		time.Sleep(2 * time.Minute)
		if n := total(t, h).Succeeded; n != 2 {
			t.Errorf("%d succeeded after the soak", n)
		}
	})
}

func total(t *testing.T, h *Hub) rollout.Tally {
	t.Helper()
	j, err := h.Job(context.Background(), everything, "j")
	if err != nil {
		t.Fatal(err)
	}
	return j.State.Total()
}
