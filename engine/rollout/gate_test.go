package rollout

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestGate asks an action behind each wave that is followed by another one.
func TestGate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says   GateResult
		status JobStatus
		paused PauseCause
		undo   bool
		cancel CancelScope
	}{
		"go":       {GateResult{Verdict: GateGo, Reason: "fine"}, JobRunning, "", false, CancelNothing},
		"pause":    {GateResult{Verdict: GatePause, Reason: "look"}, JobPaused, PausedByGate, false, CancelNothing},
		"abort":    {GateResult{Verdict: GateAbort, Reason: "bad"}, JobCanceling, "", false, CancelOpen},
		"undo":     {GateResult{Verdict: GateUndo, Reason: "sick"}, JobCanceling, "", true, CancelOpen},
		"no words": {GateResult{Reason: "it fails"}, JobPaused, PausedByGate, false, CancelNothing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := plan(t, `{"waves":[{"size":"2","soak":"1m"},{"size":"100%"}]}`)
			s, now := laidOut(t, p, 5), base()
			in := func() Input { return Input{Now: now, Room: -1, Zones: everywhere(0), Asks: true} }
			p.Advance(s, in())
			must(t, s.Move(0, PhasePending, PhaseActive, 2))
			must(t, s.Move(0, PhaseActive, PhaseSucceeded, 2))
			if d := p.Advance(s, in()); d.Gate != nil || s.WaitsFor != WaitsForSoak {
				t.Fatalf("before the soak is over: %+v, %+v", d, s)
			}
			now = now.Add(time.Minute)
			for range 2 {
				if d := p.Advance(s, in()); d.Gate == nil || *d.Gate != 0 || d.Start != 0 || s.WaitsFor != WaitsForGate {
					t.Fatalf("behind the wave: %+v, %+v", d, s)
				}
			}
			answered := in()
			answered.Gate = &GateResult{Wave: 1, Verdict: GateAbort} // of another wave
			if d := p.Advance(s, answered); d.Gate == nil || s.Status != JobRunning {
				t.Fatalf("an answer of another wave: %+v, %+v", d, s)
			}
			answered.Gate = &c.says
			d := p.Advance(s, answered)
			if s.Status != c.status || s.PausedBy != c.paused || s.Undo != c.undo || d.Cancel != c.cancel || len(s.Gates) != 1 || !reflect.DeepEqual(s.Gates[0], c.says) {
				t.Errorf("%+v, %+v", d, s)
			}
			if c.says.Verdict != GateGo && !strings.Contains(s.Reason, c.says.Reason) {
				t.Errorf("the reason is %q", s.Reason)
			}
			if c.paused != "" { // whoever resumes accepts it
				must(t, s.Resume())
				d = p.Advance(s, answered)
			}
			if c.status == JobRunning || c.paused != "" {
				if d = p.Advance(s, in()); d.Start != 3 || d.Wave != 1 || len(s.Gates) != 1 {
					t.Errorf("the next wave: %+v, %+v", d, s)
				}
				must(t, s.Move(1, PhasePending, PhaseActive, 3))
				must(t, s.Move(1, PhaseActive, PhaseSucceeded, 3))
				if d = p.Advance(s, in()); s.Status != JobCompleted || d.Gate != nil {
					t.Errorf("behind the last wave nothing is asked: %+v, %+v", d, s)
				}
			}
		})
	}
}

// TestGateAgain asks again when a target of the wave was put back.
func TestGateAgain(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"waves":[{"size":"1"},{"size":"100%"}]}`)
	s := laidOut(t, p, 3)
	in := Input{Now: base(), Room: -1, Zones: everywhere(1), Asks: true}
	p.Advance(s, in)
	must(t, s.Move(0, PhasePending, PhaseActive, 1))
	must(t, s.Move(0, PhaseActive, PhaseFailed, 1))
	p.Advance(s, in)
	pause := in
	pause.Gate = &GateResult{Verdict: GatePause}
	p.Advance(s, pause)
	must(t, s.Retry(0, PhaseFailed, 1))
	must(t, s.Resume())
	if d := p.Advance(s, in); d.Gate != nil || d.Again != 1 {
		t.Fatalf("%+v, %+v", d, s)
	}
	must(t, s.Move(0, PhaseRetrying, PhaseActive, 1))
	must(t, s.Move(0, PhaseActive, PhaseSucceeded, 1))
	if d := p.Advance(s, in); d.Gate == nil {
		t.Fatalf("it is not asked again: %+v, %+v", d, s)
	}
}
