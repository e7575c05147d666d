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
