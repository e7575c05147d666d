package rollout

import (
	"testing"
	"time"
)

// pace runs a job for a while, looking every second, and returns how many it
// has started after each of some times.
func pace(t *testing.T, p *Plan, s *State, clock func(time.Duration) time.Time, at ...time.Duration) []int {
	t.Helper()
	var counts []int
	for passed := time.Duration(0); len(counts) < len(at); passed += time.Second {
		d := p.Advance(s, Input{Now: clock(passed), Room: -1, Zones: everywhere(0)})
		must(t, s.Move(d.Wave, PhasePending, PhaseSucceeded, d.Start))
		if s.WaitsFor == WaitsForRate && (d.Wake.IsZero() || !d.Wake.After(clock(passed))) {
			t.Fatalf("after %s it waits for the rate and asks for a look at %s", passed, d.Wake)
		}
		if passed == at[len(counts)] {
			counts = append(counts, s.Started)
		}
	}
	return counts
}

func steady(passed time.Duration) time.Time { return base().Add(passed) }

func near64(got, want, by int) bool { return got >= want-by && got <= want+by }

func TestRate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy string
		at     time.Duration
		want   int
	}{
		{`{"rate":{"perMinute":60}}`, 0, 1},
		{`{"rate":{"perMinute":60}}`, 10 * time.Minute, 600},
		{`{"rate":{"perMinute":6000}}`, time.Minute, 6000},
		{`{"rate":{"perMinute":0.5}}`, 10 * time.Minute, 6},
		{`{"rate":{"perMinute":60,"factor":2,"every":120,"of":"started","most":240}}`, 2 * time.Minute, 120},
		{`{"rate":{"perMinute":60,"factor":2,"every":120,"of":"started","most":240}}`, 3 * time.Minute, 240},
		{`{"rate":{"perMinute":60,"factor":2,"every":120,"of":"succeeded","most":240}}`, 4 * time.Minute, 480},
		{`{"rate":{"perMinute":60,"factor":2,"every":120,"of":"succeeded","most":240}}`, 8 * time.Minute, 480 + 960},
	} {
		p := plan(t, c.policy)
		if got := pace(t, p, laidOut(t, p, 100_000), steady, c.at)[0]; !near64(got, c.want, max(1, c.want/50)) {
			t.Errorf("%s: %d started within %s, want about %d", c.policy, got, c.at, c.want)
		}
	}
}

// TestRateSeesTheClockJump lets the host's clock jump an hour forth and back: no
// more than two seconds' worth comes at once, and it goes on afterwards.
func TestRateSeesTheClockJump(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		p := plan(t, `{"rate":{"perMinute":60}}`)
		clock := func(passed time.Duration) time.Time {
			if passed > time.Minute {
				return steady(passed + jump)
			}
			return steady(passed)
		}
		got := pace(t, p, laidOut(t, p, 100_000), clock, time.Minute, time.Minute+time.Second, 2*time.Minute)
		if got[1]-got[0] > 3 {
			t.Errorf("a jump of %s lets %d start", jump, got[1]-got[0])
		}
		if !near64(got[2]-got[0], 60, 3) {
			t.Errorf("a minute after a jump of %s %d have started", jump, got[2]-got[0])
		}
	}
}

func TestParallelAndTurn(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"parallel":3}`)
	s := laidOut(t, p, 10)
	in := Input{Now: base(), Room: -1, Zones: everywhere(0)}
	if d := p.Advance(s, in); d.Start != 3 || s.WaitsFor != WaitsForDevices {
		t.Fatalf("%+v, %+v", d, s)
	}
	must(t, s.Move(0, PhasePending, PhaseActive, 2))
	must(t, s.Move(0, PhasePending, PhaseWaiting, 2)) // holds no place
	in.Zones = everywhere(5)                          // two of these are open at all
	in.Room = 10
	if d := p.Advance(s, in); d.Again != 1 || d.Start != 0 {
		t.Fatalf("those that were taken go first: %+v, %+v", d, s)
	}
	must(t, s.Move(0, PhaseActive, PhaseSucceeded, 2))
	in.Room = 2
	if d := p.Advance(s, in); d.Again != 2 || d.Start != 0 || s.WaitsFor != WaitsForTurn {
		t.Fatalf("the hub has two places: %+v, %+v", d, s)
	}
	in.Room = 0
	if d := p.Advance(s, in); d.Again+d.Start != 0 || s.WaitsFor != WaitsForTurn {
		t.Fatalf("the hub has none: %+v, %+v", d, s)
	}
}

func TestSoakSeesTheClockJumpBack(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"waves":[{"size":"1","soak":"10m"},{"size":"100%"}]}`)
	s := laidOut(t, p, 5)
	ask := func(at time.Time) Decision { return p.Advance(s, Input{Now: at, Room: -1, Zones: everywhere(0)}) }
	ask(base())
	must(t, s.Move(0, PhasePending, PhaseSucceeded, 1))
	ask(base())
	back := base().Add(-time.Hour)
	if d := ask(back); s.WaitsFor != WaitsForSoak || !d.Wake.Equal(back.Add(10*time.Minute)) {
		t.Fatalf("the soak begins again: %+v, %+v", d, s)
	}
	if d := ask(back.Add(10 * time.Minute)); d.Start != 4 {
		t.Fatalf("and ends: %+v, %+v", d, s)
	}
}

func TestRetryAfterAttempts(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"timeout":"1h","attemptTimeout":"5m","retry":{"attempts":4,"on":["failed","offline"],"backoff":"10m","factor":3,"most":"20m"}}`).Policy()
	at := func(n time.Duration) time.Time { return base().Add(n) }
	for _, c := range []struct {
		outcome AttemptOutcome
		n       int
		now     time.Duration
		phase   Phase
		wait    time.Duration // about
	}{
		{AttemptSucceeded, 1, 0, PhaseSucceeded, 0},
		{AttemptFailed, 1, 0, PhaseRetrying, 10 * time.Minute},
		{AttemptOffline, 2, 0, PhaseRetrying, 20 * time.Minute},
		{AttemptOffline, 3, 0, PhaseRetrying, 20 * time.Minute},
		{AttemptOffline, 4, 0, PhaseFailed, 0},
		{AttemptTimedOut, 1, 0, PhaseTimedOut, 0},
		{AttemptRejected, 1, 0, PhaseRejected, 0},
		{AttemptUncertain, 1, 0, PhaseUncertain, 0},
		{AttemptFailed, 1, 55 * time.Minute, PhaseFailed, 0}, // the execution's time would be over
	} {
		got := p.AfterAttempt(c.outcome, c.n, base(), at(c.now), "d")
		if got.Phase != c.phase {
			t.Errorf("%s at attempt %d after %s: got %s, want %s", c.outcome, c.n, c.now, got.Phase, c.phase)
		}
		if c.wait > 0 {
			if wait := got.At.Sub(at(c.now)); wait < c.wait*8/10 || wait > c.wait*12/10 {
				t.Errorf("%s at attempt %d waits for %s", c.outcome, c.n, wait)
			}
		}
	}
	seen := map[time.Time]bool{}
	for i := range 100 {
		id := "device-" + time.Duration(i).String()
		n := p.AfterAttempt(AttemptFailed, 1, base(), base(), id)
		if again := p.AfterAttempt(AttemptFailed, 1, base(), base(), id); again != n {
			t.Errorf("%s waits until %s and until %s", id, n.At, again.At)
		}
		seen[n.At.Truncate(time.Second)] = true
	}
	if len(seen) < 70 {
		t.Errorf("100 devices come back at %d times", len(seen))
	}
	if due := p.AttemptDue(base(), at(50*time.Minute)); !due.Equal(at(55 * time.Minute)) {
		t.Errorf("an attempt is due at %s", due)
	}
	if due := p.AttemptDue(base(), at(58*time.Minute)); !due.Equal(at(time.Hour)) {
		t.Errorf("an attempt is due at %s, after its execution", due)
	}
	if due := (&Policy{}).AttemptDue(base(), base()); !due.IsZero() {
		t.Errorf("without bounds an attempt is due at %s", due)
	}
}
