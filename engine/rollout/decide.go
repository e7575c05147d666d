package rollout

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/wording"
)

// Plan is a policy made ready to be asked: its crons are parsed, its zones
// loaded as they are met. It is safe for concurrent use.
type Plan struct {
	policy     Policy
	calendar   calendar
	repeat     *Cron
	repeatZone *time.Location
}

// NewPlan makes a policy ready; its defaults are set. The error, [Faults], is one
// that Validate would have told.
func NewPlan(p Policy) (*Plan, error) {
	p.SetDefaults()
	v := validation{p: &p, path: "policy"}
	plan := &Plan{policy: p, calendar: calendar{zones: map[string]*zoneTimes{}}}
	for i, w := range p.Windows {
		at := fmt.Sprintf("windows[%d].", i)
		plan.calendar.windows = append(plan.calendar.windows, window{
			v.cron(at+"cron", w.Cron), time.Duration(w.Duration), v.zone(at+"timeZone", w.TimeZone), w.ZoneTag != "",
		})
	}
	if p.Repeat != "" {
		plan.repeat, plan.repeatZone = v.cron("repeat", p.Repeat), v.zone("repeatZone", p.RepeatZone)
	}
	if err := v.faults.err(); err != nil {
		return nil, err
	}
	return plan, nil
}

// Policy is the policy with its defaults. It must not be changed.
func (p *Plan) Policy() *Policy { return &p.policy }

// Input is what Advance must know beside policy and state.
type Input struct {
	Now time.Time
	// Later puts off a time that was set at another one by as much as the clock has
	// jumped forward since; nil: it has not jumped.
	Later func(due, set time.Time) time.Time
	// Room is how many attempts the hub's own budget leaves to this job now;
	// negative is no bound.
	Room int
	// Zones has an entry for each time zone in which something may want to start.
	// A policy whose windows have no zone tag has at most one, "".
	Zones []Zone
	// Health answers the check that an earlier decision asked for; nil if none
	// did or the answer isn't there yet.
	Health *HealthResult
	// Asks says that the action itself is asked before each further wave, and Gate
	// answers what an earlier decision asked; nil if none did or the answer isn't
	// there yet.
	Asks bool
	Gate *GateResult
}

// Zone is what may want to start in one time zone. Advance may open another wave
// than the one that was under way when the input was made; then the entries tell
// of the wrong wave, the decision has Changed, and asking again gives the right
// one.
type Zone struct {
	Name    string // as the device's tag has it; "" if it has none
	Pending bool   // it has pending targets of wave State.Wave
	// Due counts executions that want to go on: retries whose back-off is over,
	// and waiting ones whose device is there, of the waves below State.Reach. It
	// may be a part of them, such as a page.
	Due int
}

// HealthCheck asks how many of the targets that were reached are in bad health.
type HealthCheck struct {
	Wave  int    // the targets of this wave and those before it
	Where string // the condition of a device in bad health
}

// HealthResult answers a HealthCheck.
type HealthResult struct {
	Wave    int
	Bad     int    // of those reached, how many match the condition
	Reached int    // targets reached that still exist
	Fault   string // why it can't be told; the job pauses with it
}

// GateVerdict is what an action says of its next wave.
type GateVerdict string

// What it may say.
const (
	GateGo    GateVerdict = "go"
	GatePause GateVerdict = "pause" // whoever resumes accepts what it found
	GateAbort GateVerdict = "abort"
	GateUndo  GateVerdict = "undo" // abort, and take back what was done
)

// GateResult is what the action said behind a wave. One without a verdict could not
// be asked: the job pauses with the reason.
type GateResult struct {
	Wave    int         `json:"wave"`
	Verdict GateVerdict `json:"verdict,omitempty"`
	Reason  string      `json:"reason,omitempty"`
	At      time.Time   `json:"at,omitzero"`
}

// gatesMost is how many results of gates a state keeps, the newest.
const gatesMost = 100

// CancelScope says which executions are to be canceled now.
type CancelScope string

// What is to be canceled.
const (
	CancelNothing CancelScope = ""
	CancelPending CancelScope = "pending" // those never taken, of any wave
	CancelOpen    CancelScope = "open"    // and those that wait or retry; active ones go on
)

// Decision is what is to be done now.
type Decision struct {
	// Wave is the wave of which pending targets may be taken, Start how many.
	Wave  int
	Start int
	// Again is how many of Input's due executions may go on, of any wave below
	// State.Reach. Both may be done: together they are within all bounds.
	Again int
	// Open are the zones of Input in which both may be, in Input's order.
	Open []string
	// Unknown are zones of Input that no zone database knows; windows take their
	// own zone for them.
	Unknown []string
	// Health asks for a check; its answer is the next Input's.
	Health *HealthCheck
	// Gate asks what the action itself says behind this wave; nil: nothing is
	// asked. The answer is the next Input's.
	Gate *int
	// Cancel is what is to be canceled, until nothing of it is left.
	Cancel CancelScope
	// Changed says that the state differs from before by more than the rate's
	// bucket, so that it must be stored.
	Changed bool
	// Wake is when to ask again at the latest if nothing happens until then; zero
	// is never. What happens are moves, an answer about health, room that other
	// jobs leave, zones that come, and what operators say.
	Wake time.Time
}

// wakeAt asks for a look at a time, unless an earlier one is due.
func (d *Decision) wakeAt(t time.Time) {
	if !t.IsZero() && (d.Wake.IsZero() || t.Before(d.Wake)) {
		d.Wake = t
	}
}

// Reach is up to which wave, exclusive, executions that were taken may go on.
func (s *State) Reach() int {
	if s.Opened {
		return s.Wave + 1
	}
	return s.Wave
}

// Advance moves the state on to the time of in and says what is to be done. It
// is deterministic, and calling it twice does no more than once. Nothing is
// started by it: what is started is told by State.Move.
func (p *Plan) Advance(s *State, in Input) Decision {
	before := s.Clone()
	d := p.advance(s, in)
	switch {
	case s.Status.Final():
		d = Decision{}
	case s.Status == JobCanceling: // by what was found on the way, perhaps
		d = Decision{Cancel: d.Cancel}
	}
	before.Tokens, before.TokensAt = s.Tokens, s.TokensAt
	d.Changed = !reflect.DeepEqual(before, *s)
	return d
}

func (p *Plan) advance(s *State, in Input) Decision {
	var d Decision
	if s.Status.Final() {
		return d
	}
	p.end(s, in.Now)
	if s.Status.Final() {
		return d
	}
	if !s.LaidOut {
		d.wakeAt(p.policy.End)
		return d
	}
	if s.Wave < 0 || s.Wave >= len(s.Waves) || len(s.Waves) != len(p.policy.Waves) {
		s.halt(JobFailed, "the job's record does not fit its policy")
	}
	if s.Status != JobCanceling {
		if reason, reached := p.policy.reached(p.policy.Abort, s, nil); reached {
			s.halt(JobFailed, reason)
		}
	}
	p.spare(s)
	total := s.Total()
	switch {
	case s.Status == JobCanceling || s.Ended && total.Open() == 0:
		p.finish(s, &d, total)
		return d
	case s.Ended && total.Pending > 0:
		d.Cancel = CancelPending
	case !s.Ended:
		d.wakeAt(p.policy.End)
	}
	if s.Status == JobScheduled {
		if in.Now.Before(p.policy.Start) {
			d.wakeAt(p.policy.Start)
			return d
		}
		s.Status = JobRunning
	}
	if reason, reached := p.policy.reached(p.policy.Pause, s, s.Accepted); reached && s.Status == JobRunning && total.Open() > 0 {
		s.pause(PausedByThreshold, reason)
	}
	switch {
	case s.Status != JobRunning:
	case s.Ended: // no wave begins any more
		s.WaitsFor, s.Reason = WaitsForNothing, ""
	default:
		s.WaitsFor, s.Reason = p.gate(s, in, &d)
	}
	if s.Status == JobRunning && s.WaitsFor != WaitsForHealth && s.WaitsFor != WaitsForGate {
		p.starts(s, in, &d)
	}
	return d
}

// spare lets a job end that has paused itself, or would, when nothing is left that
// a pause could hold back. What was found is noted.
func (p *Plan) spare(s *State) {
	switch {
	case s.Status == JobCanceling:
	case !s.idle():
		s.Noted = ""
	case s.Status == JobPaused && s.PausedBy.itself():
		s.note(s.Reason)
		if s.PausedBy == PausedByHealth {
			s.Healthy = true
		}
		s.Status, s.PausedBy, s.Reason = s.ready(), "", ""
	case s.Noted == "":
		if reason, reached := p.policy.reached(p.policy.Pause, s, s.Accepted); reached {
			s.note(reason)
		}
	}
}

// end takes the policy's end, once.
func (p *Plan) end(s *State, now time.Time) {
	if p.policy.End.IsZero() || now.Before(p.policy.End) || s.Ended || s.Status == JobCanceling {
		return
	}
	s.Ended = true
	total := s.Total()
	cut := total.Pending
	if p.policy.AtEnd == EndCancels {
		cut += total.Waiting + total.Retrying
	}
	switch {
	case cut == 0 && s.LaidOut:
		s.Verdict = JobCompleted
	case p.policy.AtEnd == EndCancels || !s.LaidOut:
		s.halt(JobCanceled, p.endReason())
	default:
		s.Verdict = JobCanceled
	}
}

func (p *Plan) endReason() string {
	return "its end, " + instant(p.policy.End) + ", came before it was done"
}

// finish ends a job that starts nothing more, once nothing is open.
func (p *Plan) finish(s *State, d *Decision, total Tally) {
	if total.Open() > 0 {
		if total.Open() > total.Active {
			d.Cancel = CancelOpen
		}
		return
	}
	if s.Status != JobCanceling {
		s.Reason = s.Noted
		if s.Verdict == JobCanceled {
			s.Reason = p.endReason()
		}
	}
	s.Status, s.WaitsFor, s.PausedBy = s.Verdict, WaitsForNothing, ""
}

// reached says which threshold is reached, and by what. What was accepted does
// not count.
func (p *Policy) reached(list []Threshold, s *State, accepted []Tally) (reason string, ok bool) {
	for i := range list {
		var job Tally
		for w := range s.Waves {
			t := s.Waves[w]
			if w < len(accepted) {
				t = t.since(&accepted[w])
			}
			if list[i].Per == PerJob {
				job.add(t)
			} else if list[i].reached(&t) {
				return fmt.Sprintf("wave %d of %d: %s", w+1, len(s.Waves), list[i].found(&t)), true
			}
		}
		if list[i].Per == PerJob && list[i].reached(&job) {
			return "the whole job: " + list[i].found(&job), true
		}
	}
	return "", false
}

func (t *Threshold) reached(tally *Tally) bool {
	outcomes := tally.Outcomes()
	return (!t.Share.percent || outcomes >= t.Least) && t.Share.reachedBy(t.bad(tally), outcomes)
}

func (t *Threshold) bad(tally *Tally) int {
	n := 0
	for _, of := range t.Of {
		n += tally.Get(of)
	}
	return n
}

func (t *Threshold) found(tally *Tally) string {
	return fmt.Sprintf("%d of %d that ended are %s; the threshold is %s", t.bad(tally), tally.Outcomes(), wording.OneOf(t.Of), t.Share)
}

// gate opens waves and says what the next one waits for. A wave in which nothing
// is open when its turn comes is passed over, with its gates.
func (p *Plan) gate(s *State, in Input, d *Decision) (WaitsFor, string) {
	for {
		last := s.Wave == len(s.Waves)-1
		awaits := last && s.Dynamic && !s.Ended // targets that join
		wave := p.policy.wave(s.Wave)
		name := fmt.Sprintf("wave %d of %d", s.Wave+1, len(s.Waves))
		switch open := s.open(); {
		case !s.Opened && open > 0: // of waves before, that was retried
			return WaitsForNothing, ""
		case !s.Opened && s.Waves[s.Wave].Open() == 0 && !awaits:
			// Nothing to do: passed over.
		case !s.Opened && wave.Approval && !s.approved(s.Wave):
			return WaitsForApproval, name + " waits to be approved"
		case !s.Opened:
			s.Opened = true
			s.soakAgain()
			continue
		case open > 0 || awaits:
			s.soakAgain()
			return WaitsForNothing, ""
		default:
			if wait, reason := p.after(s, in, d, name); s.Status != JobRunning || wait != WaitsForNothing {
				return wait, reason
			}
		}
		if last {
			s.Status = JobCompleted
			return WaitsForNothing, s.Noted
		}
		s.Wave++
		s.Opened = false
		s.soakAgain()
	}
}

// open counts what is open in the waves up to the one under way.
func (s *State) open() int {
	n := 0
	for i := range s.Reach() {
		n += s.Waves[i].Open()
	}
	return n
}

// after is what follows a wave that has ended: its soak and its check.
func (p *Plan) after(s *State, in Input, d *Decision, name string) (WaitsFor, string) {
	wave := p.policy.wave(s.Wave)
	if s.SoakSince.IsZero() || s.SoakSince.After(in.Now) {
		s.SoakSince = in.Now
	}
	until := s.SoakSince.Add(time.Duration(wave.Soak))
	if in.Later != nil {
		until = in.Later(until, s.SoakSince)
	}
	if in.Now.Before(until) {
		d.wakeAt(until)
		return WaitsForSoak, name + " soaks until " + instant(until)
	}
	if wave.Health == nil || s.Healthy {
		return p.ask(s, in, d, name)
	}
	if in.Health == nil || in.Health.Wave != s.Wave {
		d.Health = &HealthCheck{s.Wave, wave.Health.Where}
		return WaitsForHealth, name + ": the health of its targets is looked at"
	}
	switch r := in.Health; {
	case r.Fault != "":
		if reason := name + ": the health check can't be made: " + r.Fault; !s.sick(reason) {
			return WaitsForNothing, reason
		}
	case wave.Health.AtMost.exceededBy(r.Bad, r.Reached):
		reason := fmt.Sprintf("%s: %d of %d targets reached are in bad health; at most %s may be", name, r.Bad, r.Reached, wave.Health.AtMost)
		if wave.Health.Otherwise == HealthAborts {
			s.abort(d, reason)
			return WaitsForNothing, reason
		}
		if !s.sick(reason) {
			return WaitsForNothing, reason
		}
	}
	s.Healthy = true
	return p.ask(s, in, d, name)
}

// sick pauses the job for its health; it reports whether the job goes on all the
// same, since nothing is left.
func (s *State) sick(reason string) bool {
	if s.idle() {
		s.note(reason)
		return true
	}
	s.pause(PausedByHealth, reason)
	return false
}

// abort ends the job between two waves.
func (s *State) abort(d *Decision, reason string) {
	s.halt(JobFailed, reason)
	if total := s.Total(); total.Open() > 0 {
		d.Cancel = CancelOpen
	} else {
		s.Status = JobFailed
	}
}

// ask has the action say whether the next wave may begin, if there is one that has
// something to do.
func (p *Plan) ask(s *State, in Input, d *Decision, name string) (WaitsFor, string) {
	further := false
	for i := s.Wave + 1; i < len(s.Waves); i++ {
		further = further || s.Waves[i].Open() > 0
	}
	if !in.Asks || s.Passed || !further {
		return WaitsForNothing, ""
	}
	r := in.Gate
	if r == nil || r.Wave != s.Wave {
		wave := s.Wave
		d.Gate = &wave
		return WaitsForGate, name + ": the action's own gate is asked"
	}
	s.Gates = append(s.Gates, *r)
	if n := len(s.Gates) - gatesMost; n > 0 {
		s.Gates = slices.Delete(s.Gates, 0, n)
	}
	reason := name + ": the gate says " + string(r.Verdict)
	if r.Reason != "" {
		reason += ": " + r.Reason
	}
	switch r.Verdict {
	case GateGo:
		s.Passed = true
		return WaitsForNothing, ""
	case GateAbort, GateUndo:
		s.Undo = r.Verdict == GateUndo
		s.abort(d, reason)
	case GatePause:
		s.pause(PausedByGate, reason)
	default:
		reason = name + ": the gate can't be asked: " + r.Reason
		s.pause(PausedByGate, reason)
	}
	return WaitsForNothing, reason
}

// starts says how many executions may start, of which zones, and what keeps
// more from it.
func (p *Plan) starts(s *State, in Input, d *Decision) {
	p.refill(s, in.Now)
	total := s.Total()
	d.Wave = s.Wave
	pending, hasPending := 0, false
	if s.Opened && !s.Ended {
		pending = s.Waves[s.Wave].Pending
	}
	due, closedWork := 0, false
	var opens time.Time
	for _, z := range in.Zones {
		open, change, known := p.calendar.at(in.Now, z.Name)
		if !known {
			d.Unknown = append(d.Unknown, z.Name)
		}
		work := z.Due > 0 || z.Pending && pending > 0
		if work {
			d.wakeAt(change)
		}
		switch {
		case open:
			d.Open = append(d.Open, z.Name)
			due += z.Due
			hasPending = hasPending || z.Pending
		case work:
			closedWork = true
			if opens.IsZero() || !change.IsZero() && change.Before(opens) {
				opens = change
			}
		}
	}
	wants := 0
	for i := range s.Reach() {
		wants += s.Waves[i].Waiting + s.Waves[i].Retrying
	}
	due = min(due, wants)
	if !hasPending {
		pending = 0
	}
	room, full := math.MaxInt, WaitsForTurn
	if in.Room >= 0 {
		room = in.Room
	}
	if most := p.policy.Parallel; most > 0 && max(0, most-total.Active) <= room {
		room, full = max(0, most-total.Active), WaitsForDevices
	}
	d.Again = min(due, room)
	d.Start = min(pending, room-d.Again)
	rated := d.Start > p.tokens(s)
	if rated {
		d.Start = p.tokens(s)
		d.wakeAt(p.nextToken(s, in.Now, d.Start))
	}
	if s.WaitsFor != WaitsForNothing {
		return // a gate is told rather
	}
	switch {
	case rated:
		s.WaitsFor = WaitsForRate
	case d.Start < pending || d.Again < due:
		s.WaitsFor = full
	case pending > 0 || due > 0:
	case closedWork:
		s.WaitsFor, s.Reason = WaitsForWindow, "no window is open"
		if !opens.IsZero() {
			s.Reason = "the next window opens at " + instant(opens)
		}
	case s.Waves[s.Wave].Pending == 0 || !s.Opened || s.Ended:
		s.WaitsFor = WaitsForDevices
	}
}

// Open reports whether an attempt on a device in this zone may start at a time,
// and when that may change: when an open window closes, or the next one opens;
// zero if never (within nine years).
func (p *Plan) Open(at time.Time, zone string) (open bool, change time.Time) {
	open, change, _ = p.calendar.at(at, zone)
	return open, change
}

// Occurrence says when a recurring job runs next: the latest time of its Repeat
// that is after last and not after now if there is one (due), else the first
// after both. The time is zero if none is left before the policy's end. Last is
// the occurrence that ran before, or when the job was created; of times before
// the policy's start there are none.
func (p *Plan) Occurrence(last, now time.Time) (at time.Time, due bool) {
	if p.repeat == nil {
		return time.Time{}, false
	}
	if p.policy.Start.After(last) {
		last = p.policy.Start
	}
	at = p.repeat.Next(last, p.repeatZone)
	if !at.IsZero() && !at.After(now) {
		// The latest time up to now: Next never falls as its argument grows.
		for from, to := last, now; ; {
			middle := from.Add(to.Sub(from) / 2)
			if to.Sub(from) < time.Second {
				break
			}
			if next := p.repeat.Next(middle, p.repeatZone); !next.IsZero() && !next.After(now) {
				from, at = middle, next
			} else {
				to = middle
			}
		}
		due = true
	}
	if !p.policy.End.IsZero() && !at.Before(p.policy.End) {
		return time.Time{}, false
	}
	return at, due
}
