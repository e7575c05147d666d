package rollout

import (
	"testing"
	"time"
)

// base is a Monday at noon.
func base() time.Time { return time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC) }

func plan(t *testing.T, policy string) *Plan {
	t.Helper()
	p, err := Parse([]byte(policy), "policy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Validate("policy", base(), -1); err != nil {
		t.Fatal(err)
	}
	made, err := NewPlan(p)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func laidOut(t *testing.T, p *Plan, total int) *State {
	t.Helper()
	s := NewState(false)
	if err := s.LayOut(p.Policy().WaveSizes(total)); err != nil {
		t.Fatal(err)
	}
	return &s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func everywhere(due int) []Zone { return []Zone{{Pending: true, Due: due}} }

func TestWavesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"waves":[{"size":"1","soak":"10m"},{"size":"10%","approval":true},{"size":"100%"}]}`)
	s := laidOut(t, p, 200)
	now := base()
	ask := func() Decision { t.Helper(); return p.Advance(s, Input{Now: now, Room: -1, Zones: everywhere(0)}) }
	d := ask()
	if d.Start != 1 || d.Wave != 0 || !d.Changed || s.Status != JobRunning {
		t.Fatalf("first: %+v, %+v", d, s)
	}
	must(t, s.Move(0, PhasePending, PhaseActive, 1))
	if d := ask(); d.Start != 0 || s.WaitsFor != WaitsForDevices {
		t.Fatalf("one under way: %+v, %+v", d, s)
	}
	must(t, s.Move(0, PhaseActive, PhaseSucceeded, 1))
	if d := ask(); d.Start != 0 || s.WaitsFor != WaitsForSoak || !d.Wake.Equal(now.Add(10*time.Minute)) {
		t.Fatalf("soak: %+v, %+v", d, s)
	}
	if d := ask(); d.Changed {
		t.Fatalf("asked again: %+v", d)
	}
	now = now.Add(10 * time.Minute)
	if d := ask(); d.Start != 0 || s.WaitsFor != WaitsForApproval || s.Wave != 1 {
		t.Fatalf("approval: %+v, %+v", d, s)
	}
	if s.Approve(p.Policy(), 2, "a", now) == nil || s.Approve(p.Policy(), 0, "a", now) == nil {
		t.Fatal("a wave without approval can be approved")
	}
	must(t, s.Approve(p.Policy(), 1, "a", now))
	if s.Approve(p.Policy(), 1, "a", now) == nil {
		t.Fatal("approved twice")
	}
	if d := ask(); d.Start != 19 || d.Wave != 1 {
		t.Fatalf("second: %+v, %+v", d, s)
	}
	must(t, s.Move(1, PhasePending, PhaseSucceeded, 19))
	if d := ask(); d.Start != 180 || d.Wave != 2 {
		t.Fatalf("third: %+v, %+v", d, s)
	}
	must(t, s.Move(2, PhasePending, PhaseSucceeded, 180))
	if ask(); s.Status != JobCompleted {
		t.Fatalf("end: %+v", s)
	}
}

// TestIdlePause: a job that has paused itself completes, with the reason, as soon
// as nothing is left that the pause holds back; one that somebody has paused stays.
func TestIdlePause(t *testing.T) {
	t.Parallel()
	policy := `{"waves":[{"size":"100%"}],"pause":[{"share":"2"}]}`
	sick := `{"waves":[{"size":"100%","health":{"where":"reported.ill"}}]}`
	const crossed = "wave 1 of 1: 2 of 3 that ended are failed, timedOut, rejected or uncertain; the threshold is 2"
	for name, c := range map[string]struct {
		policy  string
		dynamic bool
		bad     int // of three devices, the last to end
		by      PauseCause
		early   bool // the threshold is reached before the last one has ended
		health  *HealthResult
		status  JobStatus
		reason  string
	}{
		"all well":                {policy: policy, bad: 1, status: JobCompleted},
		"by the last one":         {policy: policy, bad: 2, status: JobCompleted, reason: crossed},
		"before the last one":     {policy: policy, bad: 2, early: true, status: JobCompleted, reason: "wave 1 of 1: 2 of 2 that ended are failed, timedOut, rejected or uncertain; the threshold is 2"},
		"by an operator":          {policy: policy, bad: 2, by: PausedByOperator, status: JobPaused, reason: "lunch"},
		"by the hub":              {policy: policy, bad: 2, by: PausedByHub, status: JobPaused, reason: "lunch"},
		"of sick ones":            {policy: sick, health: &HealthResult{Bad: 1, Reached: 3}, status: JobCompleted, reason: "wave 1 of 1: 1 of 3 targets reached are in bad health; at most 0 may be"},
		"that can't be looked at": {policy: sick, health: &HealthResult{Fault: "no such property"}, status: JobCompleted, reason: "wave 1 of 1: the health check can't be made: no such property"},
		"of one that goes on":     {policy: policy, dynamic: true, bad: 2, early: true, status: JobPaused, reason: "wave 1 of 1: 2 of 2 that ended are failed, timedOut, rejected or uncertain; the threshold is 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := plan(t, c.policy)
			s := laidOut(t, p, 3)
			s.Dynamic = c.dynamic
			in := Input{Now: base(), Room: -1, Zones: everywhere(0), Health: c.health}
			p.Advance(s, in)
			must(t, s.Move(0, PhasePending, PhaseActive, 3))
			if c.early {
				must(t, s.Move(0, PhaseActive, PhaseFailed, c.bad))
				if p.Advance(s, in); s.Status != JobPaused || s.PausedBy != PausedByThreshold {
					t.Fatalf("with one under way: %+v", s)
				}
				must(t, s.Move(0, PhaseActive, PhaseSucceeded, 3-c.bad))
			} else {
				must(t, s.Move(0, PhaseActive, PhaseSucceeded, 3-c.bad))
				must(t, s.Move(0, PhaseActive, PhaseFailed, c.bad))
			}
			if c.by != "" {
				must(t, s.Pause(c.by, "lunch"))
			}
			for range 2 {
				if p.Advance(s, in); s.Status != c.status || s.Reason != c.reason || s.Status.Final() && s.PausedBy != "" {
					t.Fatalf("at the end: %+v", s)
				}
			}
			if c.by != "" {
				must(t, s.Resume())
				if p.Advance(s, in); s.Status != JobCompleted || s.Reason != crossed {
					t.Errorf("resumed: %+v", s)
				}
			}
			if s.Status != JobCompleted || c.bad == 0 {
				return
			}
			must(t, s.Retry(0, PhaseFailed, c.bad))
			if p.Advance(s, in); s.Status != JobRunning || s.Noted != "" || s.Reason != "" {
				t.Errorf("tried again: %+v", s)
			}
		})
	}
}
