package rollout

import (
	"time"
)

// Plan is a policy made ready to be asked: its crons are parsed, its zones
// loaded as they are met. It is safe for concurrent use.
type Plan struct {
	policy Policy
}

// NewPlan makes a policy ready. The error, [Faults], is one that Validate would
// have told.
func NewPlan(p Policy) (*Plan, error) { return &Plan{policy: p}, nil }

// Policy is the policy with its defaults. It must not be changed.
func (p *Plan) Policy() *Policy { return &p.policy }

// Input is what Advance must know beside policy and state.
type Input struct {
	Now time.Time
	// Room is how many attempts the hub's own budget leaves to this job now;
	// negative is no bound.
	Room int
	// Zones has an entry for each zone that targets of the job have which may be
	// started: pending ones of wave State.Wave, and of all waves those that want
	// to go on. A policy whose windows have no zone tag has at most one, "".
	Zones []Zone
	// Health answers the check that an earlier decision asked for; nil if none
	// did or the answer isn't there yet.
	Health *HealthResult
}

// Zone is what may be started in one time zone.
type Zone struct {
	Name    string // as the device's tag has it; "" if it has none
	Pending bool   // pending targets of the wave under way are in it
	// Due counts executions of any wave that want to go on: retries whose
	// back-off is over, and waiting ones whose device is there. It may be a part
	// of them, such as a page.
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

// CancelScope says which executions are to be canceled now.
type CancelScope string

// What is to be canceled.
const (
	CancelNothing CancelScope = ""
	CancelPending CancelScope = "pending" // those never taken
	CancelOpen    CancelScope = "open"    // and those that wait or retry; active ones go on
)

// Decision is what is to be done now.
type Decision struct {
	// Wave is the wave of which pending targets may be taken, Start how many.
	Wave  int
	Start int
	// Again is how many of Input's due executions may go on, of any wave. They go
	// before Start, which counts them already.
	Again int
	// Open are the zones of Input in which both may be, in Input's order.
	Open []string
	// Unknown are zones of Input that no zone database knows; windows take their
	// own zone for them.
	Unknown []string
	// Health asks for a check; its answer is the next Input's.
	Health *HealthCheck
	// Cancel is what is to be canceled, until nothing of it is left.
	Cancel CancelScope
	// Changed says that the state differs from before and must be stored.
	Changed bool
	// Wake is when to ask again at the latest if nothing happens until then; zero
	// is never. What happens are moves, an answer about health, room that other
	// jobs leave, zones that come, and what operators say.
	Wake time.Time
}

// Advance moves the state on to the time of in and says what is to be done. It
// is deterministic, and calling it twice does no more than once. Nothing is
// started by it: what is started is told by State.Move.
func (p *Plan) Advance(s *State, in Input) Decision { return Decision{} }

// Open reports whether an attempt on a device in this zone may start at a time,
// and when that may change: when an open window closes, or the next one opens;
// zero if never (within four years).
func (p *Plan) Open(at time.Time, zone string) (open bool, change time.Time) {
	return true, time.Time{}
}

// Occurrence says when a recurring job runs next: the latest time of its Repeat
// that is after last and not after now if there is one (due), else the first
// after both. None is left when the time is zero. Last is the occurrence that
// ran before, or when the job was created.
func (p *Plan) Occurrence(last, now time.Time) (at time.Time, due bool) {
	return time.Time{}, false
}
