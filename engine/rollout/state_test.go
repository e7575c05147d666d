package rollout

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestMoves tries each pair of phases: the table decides, and what is refused
// changes nothing.
func TestMoves(t *testing.T) {
	t.Parallel()
	allowed := 0
	for _, from := range Phases() {
		for _, to := range Phases() {
			s := State{Status: JobRunning, LaidOut: true, Opened: true, Waves: []Tally{{Size: 3}}}
			*s.Waves[0].of(from) = 3
			before := s.Clone()
			err := s.Move(0, from, to, 2)
			if want := slices.Contains(moves[from], to); (err == nil) != want {
				t.Errorf("from %s to %s: %v", from, to, err)
			}
			if err != nil {
				if !reflect.DeepEqual(before, s) {
					t.Errorf("from %s to %s: refused, and %+v became %+v", from, to, before, s)
				}
				continue
			}
			allowed++
			if s.Waves[0].Get(from) != 1 || s.Waves[0].Get(to) != 2 || s.Waves[0].Size != 3 {
				t.Errorf("from %s to %s: %+v", from, to, s.Waves[0])
			}
			if err := s.Move(0, from, to, 2); err == nil {
				t.Errorf("from %s to %s: two of one", from, to)
			}
			if err := s.Move(0, from, to, -1); err == nil {
				t.Errorf("from %s to %s: less than none", from, to)
			}
		}
	}
	if allowed != 8+9+9+9+3+3 {
		t.Errorf("%d moves are allowed", allowed)
	}
	s := State{Status: JobRunning, Opened: true, Waves: []Tally{{Size: 1, Pending: 1}, {Size: 1, Pending: 1}}}
	for _, wave := range []int{-1, 1, 2} {
		if err := s.Move(wave, PhasePending, PhaseActive, 1); err == nil {
			t.Errorf("a start in wave %d of a job in wave 0", wave)
		}
	}
	must(t, s.Move(1, PhasePending, PhaseRemoved, 1)) // a device may be deleted at any time
	for _, status := range JobStatuses() {
		s.Status = status
		if err := s.Move(0, PhasePending, PhaseActive, 0); (err == nil) != (status == JobRunning) {
			t.Errorf("a start in a job that is %s: %v", status, err)
		}
	}
}

func TestPhases(t *testing.T) {
	t.Parallel()
	for _, e := range ExecutionStatuses() {
		for _, ended := range []bool{false, true} {
			p := e.Phase(ended)
			if !slices.Contains(Phases(), p) {
				t.Errorf("%s is in phase %s", e, p)
			}
			if e == ExecutionUncertain && p.Final() != ended {
				t.Errorf("%s, ended %t, is in phase %s", e, ended, p)
			}
		}
	}
	if p := ExecutionConfirming.Phase(false); p != PhaseActive {
		t.Errorf("confirming is %s", p)
	}
	var tally Tally
	for i, p := range Phases() {
		*tally.of(p) = 1 << i
	}
	for i, p := range Phases() {
		if tally.Get(p) != 1<<i {
			t.Errorf("%s shares its counter", p)
		}
	}
	if tally.Open() != 1+2+4+8 || tally.Bad() != 32+64+128+256 || tally.Outcomes() != 16+tally.Bad() || tally.Get("other") != 0 {
		t.Errorf("sums of %+v", tally)
	}
}

// TestOperators walks through what operators may say in each status.
func TestOperators(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"waves":[{"size":"1"},{"size":"100%","approval":true}],"start":"2026-12-01T00:00:00Z"}`)
	all := map[JobStatus]func() *State{
		JobQueued:    func() *State { s := NewState(false); return &s },
		JobScheduled: func() *State { return laidOut(t, p, 10) },
		JobRunning:   func() *State { s := laidOut(t, p, 10); s.Status, s.Opened = JobRunning, true; return s },
		JobPaused:    func() *State { s := laidOut(t, p, 10); must(t, s.Pause(PausedByOperator, "why")); return s },
		JobCanceling: func() *State { s := laidOut(t, p, 10); must(t, s.Cancel("why")); return s },
		JobCompleted: func() *State { s := laidOut(t, p, 10); s.Status = JobCompleted; return s },
		JobFailed:    func() *State { s := laidOut(t, p, 10); s.Status = JobFailed; return s },
		JobCanceled:  func() *State { s := laidOut(t, p, 10); s.Status = JobCanceled; return s },
	}
	want := map[string][]JobStatus{
		"pause":   {JobQueued, JobScheduled, JobRunning},
		"resume":  {JobPaused},
		"cancel":  {JobQueued, JobScheduled, JobRunning, JobPaused, JobCanceling},
		"fail":    {JobQueued, JobScheduled, JobRunning, JobPaused, JobCanceling},
		"approve": {JobQueued, JobScheduled, JobRunning, JobPaused},
		"lay out": {JobQueued},
	}
	do := map[string]func(*State) error{
		"pause":   func(s *State) error { return s.Pause(PausedByOperator, "lunch") },
		"resume":  func(s *State) error { return s.Resume() },
		"cancel":  func(s *State) error { return s.Cancel("no more") },
		"fail":    func(s *State) error { return s.Fail("a fault") },
		"approve": func(s *State) error { return s.Approve(p.Policy(), 1, "ann", base()) },
		"lay out": func(s *State) error { return s.LayOut([]int{1, 9}) },
	}
	for name, f := range do {
		for _, status := range JobStatuses() {
			s := all[status]()
			if s.Status != status {
				t.Fatalf("%s is %s", status, s.Status)
			}
			before := s.Clone()
			err := f(s)
			if (err == nil) != slices.Contains(want[name], status) {
				t.Errorf("%s of a job that is %s: %v", name, status, err)
			}
			if err != nil && !reflect.DeepEqual(before, *s) {
				t.Errorf("%s of a job that is %s is refused, and changes it", name, status)
			}
		}
	}
	s := all[JobRunning]()
	s.Wave, s.Opened, s.WaitsFor, s.Reason = 1, false, WaitsForApproval, "wave 2 of 2 waits to be approved"
	if err := s.Approve(p.Policy(), 0, "ann", base()); err == nil || err.Error() != "wave 1 needs no approval" {
		t.Errorf("approved what needs none: %v", err)
	}
	must(t, s.Approve(p.Policy(), 1, "ann", base()))
	if s.WaitsFor != WaitsForNothing || s.Reason != "" {
		t.Errorf("it was approved, and still waits for %q: %s", s.WaitsFor, s.Reason)
	}
	s = all[JobQueued]()
	must(t, s.Pause(PausedByHub, "restored"))
	must(t, s.LayOut([]int{1, 9}))
	if s.Status != JobPaused || s.PausedBy != PausedByHub {
		t.Errorf("laid out when paused: %+v", s)
	}
	must(t, s.Resume())
	if d := p.Advance(s, Input{Now: base(), Room: -1}); s.Status != JobScheduled || !d.Wake.Equal(p.Policy().Start) {
		t.Errorf("before the start: %+v, %+v", s, d)
	}
	s = all[JobQueued]()
	must(t, s.Cancel("no"))
	if s.Status != JobCanceled {
		t.Errorf("canceled before it was laid out: %s", s.Status)
	}
	s = all[JobPaused]()
	must(t, s.Fail("no such policy"))
	if p.Advance(s, Input{Now: base()}); s.Status != JobCanceling || s.Verdict != JobFailed {
		t.Errorf("failed with pending targets: %+v", s)
	}
	must(t, s.Move(0, PhasePending, PhaseCanceled, 1))
	if d := p.Advance(s, Input{Now: base()}); d.Cancel != CancelOpen {
		t.Errorf("nine are left: %+v", d)
	}
	must(t, s.Move(1, PhasePending, PhaseCanceled, 9))
	if p.Advance(s, Input{Now: base()}); s.Status != JobFailed || s.Reason != "no such policy" {
		t.Errorf("all canceled: %+v", s)
	}
}

func TestStateIsStoredAndCloned(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"waves":[{"size":"1","approval":true},{"size":"100%"}],"rate":{"perMinute":90},"pause":[{"share":"1"}]}`)
	s := laidOut(t, p, 10)
	must(t, s.Approve(p.Policy(), 0, "ann", base()))
	p.Advance(s, Input{Now: base(), Room: -1, Zones: everywhere(0)})
	must(t, s.Move(0, PhasePending, PhaseFailed, 1))
	if p.Advance(s, Input{Now: base().Add(time.Second), Room: -1, Zones: everywhere(0)}); s.Status != JobPaused || s.PausedBy != PausedByThreshold || s.Reason != "wave 1 of 2: 1 of 1 that ended are failed, timedOut, rejected or uncertain; the threshold is 1" {
		t.Fatalf("the threshold: %+v", s)
	}
	must(t, s.Resume())
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again State
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, *s) {
		t.Errorf("stored as %s, read as %+v, %v", text, again, err)
	}
	c := s.Clone()
	if !reflect.DeepEqual(c, *s) {
		t.Errorf("cloned as %+v", c)
	}
	c.Waves[1].Pending, c.Approvals[0].By, c.Accepted[0].Failed = 0, "bob", 7
	if s.Waves[1].Pending != 9 || s.Approvals[0].By != "ann" || s.Accepted[0].Failed != 1 {
		t.Error("a clone shares")
	}
	if d := p.Advance(s, Input{Now: base().Add(2 * time.Second), Room: -1, Zones: everywhere(0)}); d.Start == 0 || d.Wave != 1 {
		t.Errorf("resumed, what failed is accepted: %+v, %+v", d, s)
	}
	big := State{Status: JobRunning, LaidOut: true, Waves: make([]Tally, wavesMost)}
	for i := range big.Waves {
		big.Waves[i] = Tally{Size: 1e6, Pending: 1e5, Waiting: 1e5, Active: 1e5, Retrying: 1e5, Succeeded: 1e5, Failed: 1e5, TimedOut: 1e5, Rejected: 1e5, Uncertain: 1e5, Canceled: 1e5}
	}
	if text, err := json.Marshal(big); err != nil || len(text) > 20_000 {
		t.Errorf("the largest state has %d bytes, %v", len(text), err)
	}
}

func TestRetryOfWhatFailed(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"abort":[{"share":"50%","least":2,"per":"job"}]}`)
	s := laidOut(t, p, 4)
	in := Input{Now: base(), Room: -1, Zones: everywhere(0)}
	p.Advance(s, in)
	must(t, s.Move(0, PhasePending, PhaseActive, 3))
	must(t, s.Move(0, PhaseActive, PhaseSucceeded, 1))
	must(t, s.Move(0, PhaseActive, PhaseFailed, 1))
	if d := p.Advance(s, in); s.Status != JobCanceling || d.Cancel != CancelOpen || d.Start != 0 || s.Verdict != JobFailed {
		t.Fatalf("abort: %+v, %+v", d, s)
	}
	if s.Retry(0, PhaseFailed, 1) == nil {
		t.Error("retried while canceling")
	}
	must(t, s.Move(0, PhasePending, PhaseCanceled, 1))
	if d := p.Advance(s, in); d.Cancel != CancelNothing || s.Status != JobCanceling {
		t.Fatalf("one is active: %+v, %+v", d, s)
	}
	must(t, s.Move(0, PhaseActive, PhaseSucceeded, 1))
	if p.Advance(s, in); s.Status != JobFailed {
		t.Fatalf("all ended: %+v", s)
	}
	for _, phase := range []Phase{PhaseSucceeded, PhaseRemoved, PhasePending, PhaseActive} {
		if s.Retry(0, phase, 0) == nil {
			t.Errorf("%s can be retried", phase)
		}
	}
	if s.Retry(0, PhaseFailed, 2) == nil || s.Retry(1, PhaseFailed, 1) == nil {
		t.Error("more than there are can be retried")
	}
	must(t, s.Retry(0, PhaseFailed, 1))
	must(t, s.Retry(0, PhaseCanceled, 1))
	in.Zones = everywhere(2)
	if d := p.Advance(s, in); s.Status != JobRunning || d.Again != 2 || d.Start != 0 {
		t.Fatalf("retried: %+v, %+v", d, s)
	}
	must(t, s.Move(0, PhaseRetrying, PhaseSucceeded, 2))
	if p.Advance(s, in); s.Status != JobCompleted || s.Reason != "" {
		t.Fatalf("end: %+v", s)
	}
}

func TestDynamicTargets(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"waves":[{"size":"1"},{"size":"100%"}],"end":"2026-12-01T00:00:00Z"}`)
	s := NewState(true)
	if _, err := s.Join(1); err == nil {
		t.Error("joined before it was laid out")
	}
	must(t, s.LayOut(p.Policy().WaveSizes(0)))
	in := Input{Now: base(), Room: -1}
	if d := p.Advance(&s, in); s.Status != JobRunning || s.Wave != 1 || s.WaitsFor != WaitsForDevices || !d.Wake.Equal(p.Policy().End) {
		t.Fatalf("nobody matches yet: %+v, %+v", d, s)
	}
	wave, err := s.Join(3)
	if err != nil || wave != 1 {
		t.Fatal(wave, err)
	}
	in.Zones = everywhere(0)
	if d := p.Advance(&s, in); d.Start != 3 {
		t.Fatalf("joined: %+v, %+v", d, s)
	}
	must(t, s.Move(1, PhasePending, PhaseSucceeded, 2))
	in.Now = p.Policy().End
	if d := p.Advance(&s, in); d.Cancel != CancelPending || d.Start != 0 || !s.Ended {
		t.Fatalf("end: %+v, %+v", d, s)
	}
	if _, err := s.Join(1); err == nil {
		t.Error("joined after the end")
	}
	must(t, s.Move(1, PhasePending, PhaseCanceled, 1))
	in.Now = base() // the clock goes back: the end has come all the same
	if p.Advance(&s, in); s.Status != JobCanceled || s.Reason != "its end, 2026-12-01T00:00:00Z, came before it was done" {
		t.Fatalf("after the end: %+v", s)
	}
	fixed := laidOut(t, p, 1)
	if _, err := fixed.Join(1); err == nil {
		t.Error("joined a job of fixed targets")
	}
}
