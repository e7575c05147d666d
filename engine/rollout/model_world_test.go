package rollout

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// simulated is a device as it behaves, and its execution.
type simulated struct {
	id      string
	zone    string
	wave    int
	phase   Phase
	taken   time.Time // by the host's clock
	attempt int
	sent    time.Time
	due     time.Time // by the host's clock: of the back-off
	next    time.Time // in true time: when its attempt ends, or it is there again
	away    bool      // not there when its first attempt would be made
	script  []AttemptOutcome
	took    []time.Duration
}

// world is what a hub would do with a job, over devices and a clock that are
// made up. True time only goes forward; the host's clock is that and an offset,
// which jumps.
type world struct {
	r          *rand.Rand
	plan       *Plan
	s          State
	m          *model
	devices    []*simulated
	now        time.Time // true time
	offset     time.Duration
	asked      int // the wave under way before the last decision
	zonesKnown map[string]*time.Location
	calm       bool // no more surprises: let it end
}

func (w *world) clock() time.Time { return w.now.Add(w.offset) }

func newWorld(r *rand.Rand, zones map[string]*time.Location) (*world, error) {
	begin := pick(r, base(), time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 23, 30, 0, 0, time.UTC), time.Date(2026, 7, 1, 5, 59, 59, 0, time.UTC))
	policy, windows := randomPolicy(r, begin)
	for {
		if _, err := policy.Validate("policy", begin, -1); err == nil {
			break
		}
		policy, windows = randomPolicy(r, begin) // such as one whose waves soak beyond its end
	}
	plan, err := NewPlan(policy)
	if err != nil {
		return nil, err
	}
	w := &world{r: r, plan: plan, s: NewState(chance(r, 10)), now: begin, zonesKnown: zones}
	w.m = newModel(w, windows)
	total := r.IntN(25)
	for i := range total {
		w.devices = append(w.devices, w.device(i))
	}
	at := 0
	for wave, n := range w.m.sizes(total) {
		for range n {
			w.devices[at].wave = wave
			at++
		}
	}
	return w, w.s.LayOut(policy.WaveSizes(total))
}

func (w *world) device(i int) *simulated {
	d := &simulated{id: fmt.Sprintf("device-%d", i), phase: PhasePending, away: chance(w.r, 15)}
	if w.plan.Policy().ZoneTag() != "" {
		d.zone = pick(w.r, zonesOfModel[:]...)
	}
	bad := pick(w.r, 5, 30, 80)
	for range attemptsMost {
		o := AttemptSucceeded
		if chance(w.r, bad) {
			o = pick(w.r, AttemptFailed, AttemptTimedOut, AttemptRejected, AttemptUncertain, AttemptOffline)
		}
		d.script = append(d.script, o)
		d.took = append(d.took, time.Duration(w.r.IntN(400))*time.Second)
	}
	return d
}

// move tells the state and makes the same of the device.
func (w *world) move(d *simulated, to Phase) error {
	if err := w.s.Move(d.wave, d.phase, to, 1); err != nil {
		return fmt.Errorf("%s of wave %d: %w", d.id, d.wave, err)
	}
	d.phase = to
	return nil
}

// zones groups what may want to start.
func (w *world) zones() []Zone {
	var list []Zone
	at := map[string]int{}
	for _, d := range w.devices {
		pending, again := d.phase == PhasePending && d.wave == w.s.Wave, w.wantsAgain(d)
		if !pending && !again {
			continue
		}
		i, ok := at[d.zone]
		if !ok {
			i = len(list)
			at[d.zone] = i
			list = append(list, Zone{Name: d.zone})
		}
		list[i].Pending = list[i].Pending || pending
		if again {
			list[i].Due++
		}
	}
	return list
}

func (w *world) wantsAgain(d *simulated) bool {
	if d.wave >= w.s.Reach() {
		return false
	}
	return d.phase == PhaseWaiting && !d.next.After(w.now) || d.phase == PhaseRetrying && !d.due.After(w.clock())
}

// send begins an attempt.
func (w *world) send(d *simulated) error {
	d.attempt++
	d.sent = w.clock()
	d.next = w.now.Add(d.took[(d.attempt-1)%len(d.took)])
	return w.move(d, PhaseActive)
}

func (w *world) start(d *simulated) error {
	d.taken = w.clock()
	if d.away {
		d.next = w.now.Add(time.Duration(w.r.IntN(300)) * time.Minute)
		return w.move(d, PhaseWaiting)
	}
	return w.send(d)
}

// ended is what follows an attempt.
func (w *world) ended(d *simulated, outcome AttemptOutcome) error {
	n := w.plan.Policy().AfterAttempt(outcome, d.attempt, d.taken, w.clock(), d.id)
	if err := w.m.checkNext(d, outcome, n); err != nil {
		return err
	}
	if n.Phase == PhaseRetrying {
		d.due = n.At
	}
	return w.move(d, n.Phase)
}

// elapse lets what is due by time happen.
func (w *world) elapse() error {
	for _, d := range w.devices {
		var err error
		switch open := !d.phase.Final() && d.phase != PhasePending; {
		case d.phase == PhaseActive && !d.next.After(w.now):
			err = w.ended(d, d.script[(d.attempt-1)%len(d.script)])
		case d.phase == PhaseActive && !w.plan.Policy().AttemptDue(d.taken, d.sent).After(w.clock()):
			err = w.ended(d, AttemptTimedOut)
		case open && d.phase != PhaseActive && !w.plan.Policy().Due(d.taken).After(w.clock()):
			err = w.move(d, PhaseTimedOut)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// do carries a decision out.
func (w *world) do(d Decision) error {
	for _, dev := range w.devices {
		waits := dev.phase == PhaseWaiting || dev.phase == PhaseRetrying
		if d.Cancel != CancelNothing && dev.phase == PhasePending || d.Cancel == CancelOpen && waits {
			if err := w.move(dev, PhaseCanceled); err != nil {
				return err
			}
		}
	}
	open := map[string]bool{}
	for _, z := range d.Open {
		open[z] = true
	}
	again, start := d.Again, d.Start
	if chance(w.r, 10) { // a hub that is slow
		again, start = w.r.IntN(again+1), w.r.IntN(start+1)
	}
	for _, dev := range w.devices {
		if again > 0 && open[dev.zone] && w.wantsAgain(dev) {
			again--
			if err := w.m.checkSend(dev, false); err != nil {
				return err
			}
			if err := w.send(dev); err != nil {
				return err
			}
		}
	}
	for _, dev := range w.devices {
		if start > 0 && open[dev.zone] && dev.phase == PhasePending && dev.wave == d.Wave {
			start--
			if err := w.m.checkSend(dev, true); err != nil {
				return err
			}
			if err := w.start(dev); err != nil {
				return err
			}
		}
	}
	return nil
}

// surprise is what happens without the rollout: operators, the clock, late
// answers, deletions.
func (w *world) surprise() error {
	switch w.r.IntN(9) {
	case 0:
		if w.s.Pause(PausedByOperator, "lunch") == nil {
			w.m.paused, w.m.itself = true, false
		}
	case 1:
		return w.resume()
	case 2:
		if w.r.IntN(4) == 0 && w.s.Cancel("no more") == nil {
			w.m.canceled()
		}
	case 3:
		jump := time.Duration(w.r.IntN(121)-60) * time.Minute
		w.offset += jump
		if jump > 0 {
			w.m.forward = append(w.m.forward, jumped{w.now, jump})
		}
	case 4:
		for _, d := range w.devices {
			if (d.phase == PhaseUncertain || d.phase == PhaseTimedOut) && chance(w.r, 30) {
				return w.move(d, pick(w.r, PhaseSucceeded, PhaseFailed, PhaseRejected))
			}
		}
	case 5:
		for _, d := range w.devices {
			if !d.phase.Final() && chance(w.r, 10) {
				return w.move(d, PhaseRemoved)
			}
		}
	case 6:
		return w.retry()
	case 7:
		if wave, err := w.s.Join(1); err == nil {
			d := w.device(len(w.devices))
			d.wave = wave
			w.devices = append(w.devices, d)
		}
	case 8:
		w.approve()
	}
	return nil
}

func (w *world) resume() error {
	by := w.s.PausedBy
	if w.s.Status != JobPaused {
		if w.s.Resume() == nil {
			return fmt.Errorf("resumed a job that is not paused")
		}
		return nil
	}
	if err := w.s.Resume(); err != nil {
		return err
	}
	w.m.resumed(by)
	return nil
}

func (w *world) approve() {
	wave := w.r.IntN(len(w.s.Waves))
	if w.s.Approve(w.plan.Policy(), wave, "operator", w.clock()) == nil {
		w.m.approved[wave] = true
	}
}

func (w *world) retry() error {
	for _, d := range w.devices {
		if !d.phase.Final() || d.phase == PhaseSucceeded || d.phase == PhaseRemoved || chance(w.r, 50) {
			continue
		}
		if w.s.Retry(d.wave, d.phase, 1) == nil {
			d.phase, d.attempt, d.taken, d.due, d.away = PhaseRetrying, 0, w.clock(), w.clock(), false
			w.m.retried(d.wave)
		}
	}
	return nil
}

// next is when something happens by time.
func (w *world) next(wake time.Time) (time.Time, bool) {
	var at time.Time
	at = earlier(at, wake.Add(-w.offset), !wake.IsZero())
	for _, d := range w.devices {
		at = earlier(at, d.next, (d.phase == PhaseActive || d.phase == PhaseWaiting) && d.next.After(w.now))
		at = earlier(at, d.due.Add(-w.offset), d.phase == PhaseRetrying && d.due.After(w.clock()))
		timeout := w.plan.Policy().Due(d.taken)
		if d.phase == PhaseActive {
			timeout = w.plan.Policy().AttemptDue(d.taken, d.sent)
		}
		at = earlier(at, timeout.Add(-w.offset), !d.phase.Final() && d.phase != PhasePending)
	}
	return at, !at.IsZero()
}

func earlier(at, t time.Time, ok bool) time.Time {
	if ok && (at.IsZero() || t.Before(at)) {
		return t
	}
	return at
}

// run lets the world go on until its job has ended.
func (w *world) run() error {
	var health *HealthResult
	for step := 0; ; step++ {
		if step > 20_000 {
			return fmt.Errorf("it doesn't end")
		}
		w.calm = w.calm || step > 400
		if !w.calm && chance(w.r, 15) {
			if err := w.surprise(); err != nil {
				return err
			}
		}
		if err := w.elapse(); err != nil {
			return err
		}
		in := Input{Now: w.clock(), Room: -1, Zones: w.zones(), Health: health}
		if chance(w.r, 10) {
			in.Room = w.r.IntN(4)
		}
		w.asked = w.s.Wave
		d := w.plan.Advance(&w.s, in)
		if err := w.m.checkDecision(in, d); err != nil {
			return err
		}
		if err := w.do(d); err != nil {
			return err
		}
		if err := w.m.checkCounters(); err != nil {
			return err
		}
		health = w.m.look(d.Health)
		if w.s.Status.Final() {
			if w.calm || chance(w.r, 60) {
				return w.m.checkEnd()
			}
			if err := w.retry(); err != nil {
				return err
			}
		}
		if d.Start > 0 || d.Again > 0 || d.Health != nil || d.Cancel != CancelNothing || w.s.Status.Final() || d.Changed || in.Room >= 0 {
			w.now = w.now.Add(time.Duration(w.r.IntN(3)) * time.Second)
			continue
		}
		if at, ok := w.next(d.Wake); ok {
			if at.After(w.now) {
				w.now = at
			}
			if chance(w.r, 20) { // late
				w.now = w.now.Add(time.Duration(w.r.IntN(600)) * time.Second)
			}
			if !w.calm || w.s.Status != JobPaused && w.s.WaitsFor != WaitsForApproval {
				continue
			}
		}
		if err := w.operate(); err != nil {
			return err
		}
	}
}

// operate is what an operator does about a job that can't go on by itself.
func (w *world) operate() error {
	switch {
	case w.s.Status == JobPaused:
		return w.resume()
	case w.s.WaitsFor == WaitsForApproval:
		if err := w.s.Approve(w.plan.Policy(), w.s.Wave, "operator", w.clock()); err != nil {
			return err
		}
		w.m.approved[w.s.Wave] = true
		return nil
	case w.s.Dynamic:
		w.m.canceled()
		return w.s.Cancel("enough")
	}
	return fmt.Errorf("nothing will ever happen: %s, waits for %q", w.s.Status, w.s.WaitsFor)
}
