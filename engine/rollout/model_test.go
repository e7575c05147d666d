package rollout

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
)

// model checks what a job does by its policy's words alone: it looks at each
// device, remembers what happened when, and knows nothing of counters, buckets
// or states. Its rules are what docs and Policy promise:
//
//   - nothing starts before the start, when paused, canceled or ended, outside of
//     the windows of a device, beyond the parallel bound, faster than the rate, or
//     while a threshold is reached;
//   - a wave begins when all before it have ended, soaked, were found healthy, and
//     it was approved;
//   - a job that has paused itself does not stay so when nothing is left: it
//     completes, and says why it would have paused;
//   - and where none of this forbids it, as much starts as may.
type model struct {
	w       *world
	p       *Policy
	windows []daily

	paused, aborted, stopped bool // stopped: by an operator
	itself                   bool // paused is the job's own doing
	ended, cut               bool // the end came, and left something out
	begun                    bool // the start has come
	accepted                 []map[Phase]int
	approved, opened, passed map[int]bool
	lastOpen                 time.Time // true time at which something was open in the waves reached
	forward                  []jumped
	starts                   []time.Time // true time
	rates                    []float64   // a minute, at each start
}

type jumped struct {
	at time.Time
	by time.Duration
}

func newModel(w *world, windows []daily) *model {
	return &model{w: w, p: w.plan.Policy(), windows: windows, approved: map[int]bool{}, opened: map[int]bool{}, passed: map[int]bool{}}
}

// sizes lays out by hand: how many devices belong to each wave.
func (m *model) sizes(total int) []int {
	var sizes []int
	reached := 0
	for _, w := range m.p.Waves {
		reach := int(w.Size.n)
		if w.Size.percent {
			for reach = 0; float64(reach) < float64(total)*float64(w.Size.n)/1e6-1e-9; reach++ { //nolint:revive // it counts
			}
		}
		n := max(0, min(reach, total)-reached)
		sizes = append(sizes, n)
		reached += n
	}
	return sizes
}

func (m *model) count(phase Phase, wave int) int {
	n := 0
	for _, d := range m.w.devices {
		if d.phase == phase && (wave < 0 || d.wave == wave) {
			n++
		}
	}
	return n
}

// openUpTo counts devices that have not ended, of waves up to one.
func (m *model) openUpTo(wave int) int {
	n := 0
	for _, d := range m.w.devices {
		if !d.phase.Final() && d.wave <= wave {
			n++
		}
	}
	return n
}

// reached says whether one of the thresholds is, by devices.
func (m *model) reached(list []Threshold, accepted []map[Phase]int) bool {
	for _, t := range list {
		scopes := [][]int{nil}
		for wave := range m.p.Waves {
			if t.Per == PerWave {
				scopes = append(scopes, []int{wave})
			} else {
				scopes[0] = append(scopes[0], wave)
			}
		}
		for _, waves := range scopes {
			bad, all := 0, 0
			for _, wave := range waves {
				for _, phase := range append(BadPhases(), PhaseSucceeded) {
					n := m.count(phase, wave)
					if accepted != nil {
						n = max(0, n-accepted[wave][phase])
					}
					all += n
					if slices.Contains(t.Of, phase) {
						bad += n
					}
				}
			}
			switch {
			case bad == 0:
			case !t.Share.percent && bad >= int(t.Share.n):
				return true
			case t.Share.percent && all >= t.Least && float64(bad)/float64(all) >= float64(t.Share.n)/1e6-1e-12:
				return true
			}
		}
	}
	return false
}

func (m *model) isOpen(zone string) bool {
	if len(m.windows) == 0 {
		return true
	}
	return slices.ContainsFunc(m.windows, func(w daily) bool { return w.open(m.w.clock(), zone, m.w.zonesKnown) })
}

// What operators did.

func (m *model) canceled() {
	m.stopped, m.paused = true, false
}

func (m *model) resumed(by PauseCause) {
	m.paused, m.itself = false, false
	switch by {
	case PausedByHealth:
		m.passed[m.w.s.Wave] = true
	case PausedByThreshold:
		m.accepted = nil
		for wave := range m.p.Waves {
			now := map[Phase]int{}
			for _, phase := range Phases() {
				now[phase] = m.count(phase, wave)
			}
			m.accepted = append(m.accepted, now)
		}
	}
}

func (m *model) retried(wave int) {
	m.aborted, m.stopped, m.cut = false, false, false
	if wave < m.w.s.Reach() {
		m.lastOpen, m.passed = m.w.now, map[int]bool{}
	}
}

// look answers a health check, or not yet.
func (m *model) look(c *HealthCheck) *HealthResult {
	if c == nil || chance(m.w.r, 20) {
		return nil
	}
	if chance(m.w.r, 5) {
		return &HealthResult{Wave: c.Wave, Fault: "no such property"}
	}
	r := &HealthResult{Wave: c.Wave}
	for _, d := range m.w.devices {
		if d.wave <= c.Wave && d.phase != PhaseRemoved {
			r.Reached++
			if chance(m.w.r, 5) {
				r.Bad++
			}
		}
	}
	return r
}

// idle says that no device will start any more.
func (m *model) idle() bool {
	return m.openUpTo(len(m.p.Waves)) == 0 && (!m.w.s.Dynamic || m.ended)
}

// observe takes in what an Advance was told, by the model's own rules.
func (m *model) observe(in Input) {
	if !m.p.End.IsZero() && !in.Now.Before(m.p.End) && !m.ended && !m.aborted && !m.stopped {
		m.ended = true
		m.cut = m.count(PhasePending, -1) > 0 || m.p.AtEnd == EndCancels && m.count(PhaseWaiting, -1)+m.count(PhaseRetrying, -1) > 0
	}
	if !m.aborted && !m.stopped && !(m.ended && m.cut && m.p.AtEnd == EndCancels) && m.reached(m.p.Abort, nil) {
		m.aborted, m.paused = true, false
	}
	if m.paused && m.itself && m.idle() {
		m.paused = false
	}
	m.begun = m.begun || !in.Now.Before(m.p.Start) && !m.paused
	// An answer that came when the job was paused, or after the clock had jumped
	// back into the soak, is asked for again.
	taken := m.w.s.WaitsFor != WaitsForSoak && (m.w.s.Status == JobRunning || m.w.s.Status == JobCompleted)
	if r := in.Health; r != nil && taken && m.w.asked == r.Wave {
		h := m.p.Waves[r.Wave].Health
		allowed := float64(h.AtMost.n)
		if h.AtMost.percent {
			allowed = float64(r.Reached) * float64(h.AtMost.n) / 1e6
		}
		if r.Fault == "" && float64(r.Bad) <= allowed+1e-9 {
			m.passed[r.Wave] = true
		}
	}
}

func (m *model) checkDecision(in Input, d Decision) error {
	s, before := &m.w.s, m.aborted
	m.observe(in)
	if chance(m.w.r, 25) {
		if err := m.checkTwice(in, d); err != nil {
			return err
		}
	}
	if m.aborted && !before && s.Status != JobCanceling && s.Status != JobFailed {
		return fmt.Errorf("the abort threshold is reached, and the job is %s", s.Status)
	}
	if s.Status == JobPaused && !m.paused {
		if err := m.checkPause(in); err != nil {
			return err
		}
	}
	if s.Status == JobCanceling && s.Verdict == JobFailed || s.Status == JobFailed {
		if !m.aborted { // then by health
			r := in.Health
			if r == nil || m.passed[r.Wave] || m.p.Waves[s.Wave].Health.Otherwise != HealthAborts || r.Fault != "" {
				return fmt.Errorf("aborted without a reason: %s", s.Reason)
			}
			m.aborted, m.paused = true, false
		}
	}
	if d.Changed && s.Status == JobCompleted && s.Reason == "" && m.reached(m.p.Pause, m.accepted) {
		return fmt.Errorf("completed without a word of the threshold that is reached")
	}
	if err := m.checkWave(); err != nil {
		return err
	}
	if m.openUpTo(s.Wave) > 0 && s.Opened || m.openUpTo(s.Wave-1) > 0 {
		m.lastOpen = m.w.now
		m.passed = map[int]bool{}
	}
	return m.checkProgress(in, d)
}

// checkTwice says that asking again changes nothing, and gets the same answer.
func (m *model) checkTwice(in Input, d Decision) error {
	again := m.w.s.Clone()
	if d2 := m.w.plan.Advance(&again, in); d2.Changed || d2.Start != d.Start || d2.Again != d.Again || !d2.Wake.Equal(d.Wake) {
		return fmt.Errorf("asked twice, it says %+v and then %+v", d, d2)
	}
	if !reflect.DeepEqual(again, m.w.s) {
		return fmt.Errorf("asking twice changes the state: %+v, then %+v", m.w.s, again)
	}
	return nil
}

// checkPause says that a job paused itself for a reason.
func (m *model) checkPause(in Input) error {
	s := &m.w.s
	if m.idle() {
		return fmt.Errorf("paused by %s with nothing left", s.PausedBy)
	}
	m.itself = true
	switch s.PausedBy {
	case PausedByThreshold:
		if !m.reached(m.p.Pause, m.accepted) {
			return fmt.Errorf("paused by a threshold that is not reached: %s", s.Reason)
		}
	case PausedByHealth:
		if in.Health == nil || m.passed[s.Wave] {
			return fmt.Errorf("paused by health that is good: %s", s.Reason)
		}
	default:
		return fmt.Errorf("paused by %s without a reason", s.PausedBy)
	}
	m.paused = true
	return nil
}

// checkWave checks the gates when a wave is opened, when the job goes on to
// another one, and when it completes.
func (m *model) checkWave() error {
	s := &m.w.s
	if s.Opened && !m.opened[s.Wave] {
		if n := m.openUpTo(s.Wave - 1); n > 0 {
			return fmt.Errorf("wave %d begins while %d of the waves before are open", s.Wave, n)
		}
		if m.p.Waves[s.Wave].Approval && !m.approved[s.Wave] {
			return fmt.Errorf("wave %d begins without approval", s.Wave)
		}
	}
	left := s.Wave
	if s.Status == JobCompleted && !m.ended {
		left++
		if n := m.openUpTo(s.Wave); n > 0 || left < len(s.Waves) {
			return fmt.Errorf("completed in wave %d with %d open", s.Wave, n)
		}
	}
	for wave := m.w.asked; wave < left; wave++ {
		if err := m.checkLeft(wave); err != nil {
			return err
		}
	}
	m.opened[s.Wave] = m.opened[s.Wave] || s.Opened
	return nil
}

// checkLeft checks that a wave had soaked and was healthy, if it ever began.
func (m *model) checkLeft(wave int) error {
	if !m.opened[wave] {
		return nil
	}
	soaked := m.w.now.Sub(m.lastOpen)
	for _, j := range m.forward {
		if !j.at.Before(m.lastOpen) {
			soaked += j.by
		}
	}
	if soak := time.Duration(m.p.Waves[wave].Soak); soaked < soak {
		return fmt.Errorf("wave %d soaked for %s, not %s", wave, soaked, soak)
	}
	if m.p.Waves[wave].Health != nil && !m.passed[wave] && !m.idle() {
		return fmt.Errorf("the health after wave %d was not found good", wave)
	}
	return nil
}

// checkProgress says that as much starts as may, and nothing else.
func (m *model) checkProgress(in Input, d Decision) error {
	s := &m.w.s
	pending, due, room := 0, 0, len(m.w.devices)
	for _, dev := range m.w.devices {
		if !m.isOpen(dev.zone) {
			continue
		}
		if dev.phase == PhasePending && dev.wave == s.Wave && s.Opened && !m.ended {
			pending = m.count(PhasePending, s.Wave) // how many of them are in the zone is not for the rollout
		}
		if m.w.wantsAgain(dev) {
			due++
		}
	}
	if m.p.Parallel > 0 {
		room = max(0, m.p.Parallel-m.count(PhaseActive, -1))
	}
	if in.Room >= 0 {
		room = min(room, in.Room)
	}
	due = min(due, room)
	pending = min(pending, room-due)
	if m.paused || m.aborted || m.stopped || !m.begun || s.Status.Final() || m.ended && m.cut && m.p.AtEnd == EndCancels {
		pending, due = 0, 0
	}
	if s.WaitsFor == WaitsForHealth {
		return nil // nothing is open
	}
	stale := s.Wave != m.waveOf(in) // the zones told of another wave
	if d.Again > due || d.Again < due && !stale {
		return fmt.Errorf("%d go on, %d may: %+v", d.Again, due, *s)
	}
	if d.Start > pending || d.Start < pending && !stale && m.p.Rate == nil {
		return fmt.Errorf("%d start, %d may: %+v, %+v", d.Start, pending, d, *s)
	}
	if m.reached(m.p.Pause, m.accepted) && d.Start+d.Again > 0 && s.Status == JobRunning {
		return fmt.Errorf("%d start while a threshold is reached", d.Start+d.Again)
	}
	return nil
}

// waveOf is the wave of which an input's zones told, or another one if none.
func (m *model) waveOf(in Input) int {
	for _, z := range in.Zones {
		if z.Pending {
			return m.w.asked
		}
	}
	return -1
}

// checkSend checks a start, or another attempt, when it is made.
func (m *model) checkSend(d *simulated, first bool) error {
	switch {
	case m.paused, m.stopped, m.aborted, !m.begun, first && m.ended:
		return fmt.Errorf("%s starts, and the job is paused %t, canceled %t, aborted %t, begun %t, ended %t", d.id, m.paused, m.stopped, m.aborted, m.begun, m.ended)
	case !m.isOpen(d.zone):
		return fmt.Errorf("%s starts at %s, and no window of zone %q is open", d.id, m.w.clock(), d.zone)
	case m.p.Parallel > 0 && m.count(PhaseActive, -1) >= m.p.Parallel:
		return fmt.Errorf("%s starts, and %d are active", d.id, m.count(PhaseActive, -1))
	case d.wave > m.w.s.Wave || !m.opened[d.wave] && d.wave == m.w.s.Wave:
		return fmt.Errorf("%s of wave %d starts too early", d.id, d.wave)
	}
	if !first {
		return nil
	}
	return m.checkRate()
}

// checkRate says that between any earlier start and this one no more started
// than the rate lets.
func (m *model) checkRate() error {
	r := m.p.Rate
	if r == nil {
		return nil
	}
	n := len(m.starts)
	if r.Of == RateOfSucceeded {
		n = m.count(PhaseSucceeded, -1)
	}
	rate := r.PerMinute
	for steps := 0; r.Every > 0 && steps < n/r.Every && rate < r.Most; steps++ {
		rate = min(rate*r.Factor, r.Most)
	}
	m.starts, m.rates = append(m.starts, m.w.now), append(m.rates, rate)
	most := slices.Max(m.rates)
	for i := range m.starts {
		buckets := 1
		for _, j := range m.forward {
			if !j.at.Before(m.starts[i]) {
				buckets++ // a jump forward may fill the bucket once
			}
		}
		allowed := m.w.now.Sub(m.starts[i]).Minutes()*most + float64(buckets)*max(1, most/30)
		if got := len(m.starts) - i; float64(got) > allowed+1e-3 {
			return fmt.Errorf("%d started within %s, at a rate of %v a minute", got, m.w.now.Sub(m.starts[i]), most)
		}
	}
	return nil
}

// checkNext checks what follows an attempt.
func (m *model) checkNext(d *simulated, outcome AttemptOutcome, n Next) error {
	if n.Phase != PhaseRetrying {
		want := map[AttemptOutcome]Phase{
			AttemptSucceeded: PhaseSucceeded, AttemptFailed: PhaseFailed, AttemptOffline: PhaseFailed,
			AttemptTimedOut: PhaseTimedOut, AttemptRejected: PhaseRejected, AttemptUncertain: PhaseUncertain,
		}[outcome]
		if n.Phase != want {
			return fmt.Errorf("%s after an attempt that ended %s", n.Phase, outcome)
		}
		return nil
	}
	r := m.p.Retry
	if r == nil || d.attempt >= r.Attempts || !slices.Contains(r.On, outcome) {
		return fmt.Errorf("attempt %d that ended %s is retried", d.attempt, outcome)
	}
	wait := time.Duration(r.Backoff)
	for range d.attempt - 1 {
		wait = min(time.Duration(float64(wait)*r.Factor), time.Duration(r.Most))
	}
	if got := n.At.Sub(m.w.clock()); got < wait*79/100 || got > wait*121/100 {
		return fmt.Errorf("the back-off after attempt %d is %s, about %s was asked", d.attempt, got, wait)
	}
	return nil
}

// checkCounters counts the devices.
func (m *model) checkCounters() error {
	for wave := range m.w.s.Waves {
		t, sum := m.w.s.Waves[wave], 0
		for _, phase := range Phases() {
			if got, want := t.Get(phase), m.count(phase, wave); got != want {
				return fmt.Errorf("wave %d counts %d %s, %d are", wave, got, phase, want)
			}
			sum += t.Get(phase)
		}
		if sum != t.Size {
			return fmt.Errorf("the counters of wave %d add up to %d of %d", wave, sum, t.Size)
		}
	}
	return nil
}

func (m *model) checkEnd() error {
	if n := m.openUpTo(len(m.p.Waves)); n > 0 {
		return fmt.Errorf("%s with %d open", m.w.s.Status, n)
	}
	want := JobCompleted
	switch {
	case m.aborted:
		want = JobFailed
	case m.stopped, m.cut:
		want = JobCanceled
	}
	if m.w.s.Status != want {
		return fmt.Errorf("the job is %s, want %s: %s", m.w.s.Status, want, m.w.s.Reason)
	}
	return nil
}

// TestModel runs jobs with random policies over random devices, with operators,
// jumps of the clock, late answers and deletions at random moments, and checks
// each step against the model. MUSTER_ROLLOUT_CASES asks for another number of
// jobs than CI's 100,000.
func TestModel(t *testing.T) {
	t.Parallel()
	cases := 100_000
	if raceDetector {
		cases = 4000 // nothing here is concurrent but tests; CI runs all of them without it
	}
	if text := os.Getenv("MUSTER_ROLLOUT_CASES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("MUSTER_ROLLOUT_CASES is %q, a number of cases is expected", text)
		}
		cases = n
	}
	if testing.Short() {
		cases /= 10
	}
	const parts = 8
	zones := loadZones()
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < cases; seed += parts {
				w, err := newWorld(rand.New(rand.NewPCG(uint64(seed), 1)), zones)
				if err != nil {
					t.Fatalf("case %d: %v", seed, err)
				}
				if err := w.run(); err != nil {
					t.Fatalf("case %d: %v\nat %s, policy %+v\nstate %+v", seed, err, w.clock(), *w.plan.Policy(), w.s)
				}
			}
		})
	}
}
