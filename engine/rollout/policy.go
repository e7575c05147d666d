package rollout

import (
	"time"
)

// Policy says how fast and how safely an action spreads over its targets. Its
// JSON form is what operators write. The zero value of a member is its default
// as [Policy.SetDefaults] says. A policy does not change once its job exists.
type Policy struct {
	// Waves open one after the other. None means one wave of all.
	Waves []Wave `json:"waves,omitempty"`
	// Rate bounds how many targets are started a minute; nil is no bound.
	Rate *Rate `json:"rate,omitempty"`
	// Parallel bounds the attempts that are on their way at once; 0 is no bound
	// but the hub's own. Executions that wait for their device or for their next
	// attempt hold no place.
	Parallel int `json:"parallel,omitempty"`
	// Windows are the times in which attempts may start, the first and a retry
	// alike; none is always. One that is open is enough.
	Windows []Window `json:"windows,omitempty"`
	// Start and End bound the job; zero is now and never. A recurring job's End
	// is that of the whole, after which it does not recur.
	Start time.Time    `json:"start,omitzero"`
	End   time.Time    `json:"end,omitzero"`
	AtEnd EndBehaviour `json:"atEnd,omitempty"`
	// Repeat is a [Cron] of the times at which the job runs again, in the zone
	// RepeatZone (UTC by default).
	Repeat     string `json:"repeat,omitempty"`
	RepeatZone string `json:"repeatZone,omitempty"`
	// Timeout bounds an execution from the moment when it was taken, whether its
	// device is there or not. AttemptTimeout bounds one attempt from its send to
	// its evidence.
	Timeout        Duration `json:"timeout,omitempty"`
	AttemptTimeout Duration `json:"attemptTimeout,omitempty"`
	// Retry says which attempts are made again; nil is none.
	Retry *Retry `json:"retry,omitempty"`
	// Pause and Abort stop the job by what ended badly. A job of which nothing is
	// left does not pause: it completes, with the reason. An operator who resumes
	// accepts what has ended until then: Pause counts from there on, Abort always
	// counts all.
	Pause []Threshold `json:"pause,omitempty"`
	Abort []Threshold `json:"abort,omitempty"`
	// Priority orders jobs that compete for the hub's budget; higher goes first.
	Priority int `json:"priority,omitempty"`
}

// Wave is a part of the targets that is begun only when the part before it has
// ended, has soaked and was found healthy.
type Wave struct {
	// Size is how far the job reaches with this wave, those before it included:
	// "1", "10%", "100%" is one target, then others up to a tenth, then all.
	Size Share `json:"size"`
	// Diverse chooses the wave's targets so that many models, firmwares and
	// sites are among them.
	Diverse bool `json:"diverse,omitempty"`
	// Approval lets the wave begin only when an operator has said so.
	Approval bool `json:"approval,omitempty"`
	// Soak is waited after the wave's last execution has ended.
	Soak Duration `json:"soak,omitempty"`
	// Health is checked after the soak; nil is no check.
	Health *Health `json:"health,omitempty"`
}

// Health is a check of the targets that have been reached so far.
type Health struct {
	// Where is a condition, in the bare query language, of devices in bad health.
	Where string `json:"where"`
	// AtMost is how many of the targets reached so far may be so. The default,
	// "0", is none.
	AtMost Share `json:"atMost"`
	// Otherwise is what happens when more are: pause or abort.
	Otherwise HealthAction `json:"otherwise,omitempty"`
}

// HealthAction is what follows from a failed health check.
type HealthAction string

// What may follow from a failed health check.
const (
	HealthPauses HealthAction = "pause" // the default; whoever resumes accepts what was found
	HealthAborts HealthAction = "abort"
)

// EndBehaviour is what happens to executions under way when a job's end comes.
// Targets that were never taken are canceled either way.
type EndBehaviour string

// What may happen at a job's end.
const (
	// EndStops takes nothing more; what was taken goes on to its own end, with
	// its retries. It is the default.
	EndStops EndBehaviour = "stop"
	// EndCancels also cancels what waits for its device or its next attempt. Only
	// attempts that are on their way go on, as nobody can call them back.
	EndCancels EndBehaviour = "cancel"
)

// Rate bounds how many targets are started a minute. A rate without Factor is
// constant; else it grows by Factor each time that Every more targets were
// started, or have succeeded, up to Most.
//
// Starts come evenly. What was not used is kept for at most two seconds, so that
// between any two moments at most the rate of the time between them and of two
// more seconds start (or one more, if that is more).
type Rate struct {
	PerMinute float64 `json:"perMinute"`
	Factor    float64 `json:"factor,omitempty"`
	Every     int     `json:"every,omitempty"`
	Of        RateOf  `json:"of,omitempty"`
	Most      float64 `json:"most,omitempty"`
}

// RateOf is what a growing rate counts.
type RateOf string

// What a growing rate counts.
const (
	RateOfStarted   RateOf = "started" // the default
	RateOfSucceeded RateOf = "succeeded"
)

// Window is a recurring time in which attempts may start. It opens at each time
// of Cron and is open for Duration.
type Window struct {
	Cron     string   `json:"cron"`
	Duration Duration `json:"duration"`
	// TimeZone is an IANA name; UTC by default. With ZoneTag it is that of devices
	// without the tag, or whose tag is no zone.
	TimeZone string `json:"timeZone,omitempty"`
	// ZoneTag is the path of the tag that holds a device's zone, such as
	// "tags.timezone". All windows of a policy that have one have the same.
	ZoneTag string `json:"zoneTag,omitempty"`
}

// Retry says which attempts of an execution are made again, and when.
type Retry struct {
	// Attempts is how many are made in all, the first included.
	Attempts int `json:"attempts"`
	// On lists the outcomes after which another attempt follows.
	On []AttemptOutcome `json:"on,omitempty"`
	// Backoff is the wait after the first attempt; each further one is Factor
	// times as long, up to Most. The wait varies by a fifth either way, by the
	// device's id, so that devices that failed together don't return together.
	Backoff Duration `json:"backoff,omitempty"`
	Factor  float64  `json:"factor,omitempty"`
	Most    Duration `json:"most,omitempty"`
}

// AttemptOutcome is how one attempt ended.
type AttemptOutcome string

// How an attempt may end.
const (
	AttemptSucceeded AttemptOutcome = "succeeded"
	AttemptFailed    AttemptOutcome = "failed"    // it could not be made
	AttemptTimedOut  AttemptOutcome = "timedOut"  // no evidence within the attempt's time
	AttemptRejected  AttemptOutcome = "rejected"  // the device answered that it won't or can't
	AttemptUncertain AttemptOutcome = "uncertain" // the hub stopped between send and reply
	AttemptOffline   AttemptOutcome = "offline"   // the device was not there
)

// Threshold stops a job by what ended badly. It is reached when at least Share
// ended so: a count of executions, or a percentage of those that have ended
// with an outcome (canceled and removed ones have none) once there are Least.
type Threshold struct {
	Share Share `json:"share"`
	// Of lists the outcomes that count as bad; all of them by default.
	Of []Phase `json:"of,omitempty"`
	// Least is how many must have ended before a percentage counts; 1 by default.
	Least int `json:"least,omitempty"`
	// Per is what is counted; each wave by itself by default.
	Per Scope `json:"per,omitempty"`
}

// Scope is what a threshold counts.
type Scope string

// What a threshold may count.
const (
	PerWave Scope = "wave" // the executions of each wave
	PerJob  Scope = "job"  // all executions
)

// Parse reads a policy from its JSON form and sets its defaults. Members that it
// doesn't know are errors. Path is what errors call the policy, such as
// "policy". The error is [Faults].
func Parse(text []byte, path string) (Policy, error) {
	var p Policy
	err := Decode(text, path, &p)
	p.SetDefaults()
	return p, err
}

// Defaults of a policy.
const (
	defaultTimeout        = day
	defaultAttemptTimeout = Duration(5 * time.Minute)
	defaultBackoff        = Duration(30 * time.Second)
	defaultBackoffMost    = Duration(10 * time.Minute)
	defaultBackoffFactor  = 2
	defaultZone           = "UTC"
	rateMost              = 1_000_000 // a minute
)

// SetDefaults sets what was left out. It is the one place where defaults are,
// and changes nothing of a policy that has them.
func (p *Policy) SetDefaults() {
	if len(p.Waves) == 0 {
		p.Waves = []Wave{{Size: Percent(100)}}
	}
	for i := range p.Waves {
		if h := p.Waves[i].Health; h != nil {
			setDefault(&h.Otherwise, HealthPauses)
		}
	}
	for i := range p.Windows {
		setDefault(&p.Windows[i].TimeZone, defaultZone)
	}
	if r := p.Rate; r != nil {
		setDefault(&r.Factor, 1)
		if r.Factor != 1 {
			setDefault(&r.Of, RateOfStarted)
			setDefault(&r.Most, rateMost)
		}
	}
	if !p.End.IsZero() {
		setDefault(&p.AtEnd, EndStops)
	}
	if p.Repeat != "" {
		setDefault(&p.RepeatZone, defaultZone)
	}
	setDefault(&p.Timeout, defaultTimeout)
	setDefault(&p.AttemptTimeout, min(defaultAttemptTimeout, p.Timeout))
	if r := p.Retry; r != nil {
		if len(r.On) == 0 {
			r.On = []AttemptOutcome{AttemptFailed, AttemptTimedOut, AttemptOffline}
		}
		setDefault(&r.Backoff, defaultBackoff)
		setDefault(&r.Factor, defaultBackoffFactor)
		setDefault(&r.Most, max(defaultBackoffMost, r.Backoff))
	}
	for _, list := range [][]Threshold{p.Pause, p.Abort} {
		for i := range list {
			if len(list[i].Of) == 0 {
				list[i].Of = BadPhases()
			}
			setDefault(&list[i].Least, 1)
			setDefault(&list[i].Per, PerWave)
		}
	}
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// BadPhases are the phases that a threshold may count as bad.
func BadPhases() []Phase {
	return []Phase{PhaseFailed, PhaseTimedOut, PhaseRejected, PhaseUncertain}
}

// WaveSizes lays total targets out: how many belong to each wave, in order. The
// sum is total. A wave of a small fleet may have none.
func (p *Policy) WaveSizes(total int) []int {
	sizes := make([]int, len(p.Waves))
	reached := 0
	for i, w := range p.Waves {
		reach := max(reached, w.Size.Of(total))
		if i == len(p.Waves)-1 {
			reach = total
		}
		sizes[i] = reach - reached
		reached = reach
	}
	return sizes
}

// ZoneTag is the path of the tag by which devices tell their zone, and empty if
// no window asks for it.
func (p *Policy) ZoneTag() string {
	for _, w := range p.Windows {
		if w.ZoneTag != "" {
			return w.ZoneTag
		}
	}
	return ""
}

// wave is the wave of an index, and one that asks for nothing if there is none.
func (p *Policy) wave(i int) Wave {
	if i < 0 || i >= len(p.Waves) {
		return Wave{}
	}
	return p.Waves[i]
}
