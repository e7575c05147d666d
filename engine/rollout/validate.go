package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/wording"
)

// Bounds of a policy.
const (
	wavesMost      = 100
	windowsMost    = 20
	thresholdsMost = 10
	attemptsMost   = 10
	priorityMost   = 100 // either way
	parallelMost   = 1_000_000
	factorMost     = 100
	maxDays        = 365
	conditionMost  = 8192 // bytes of a health check's condition
	windowLeast    = Duration(time.Minute)
	windowMost     = 31 * day
	openYears      = 2 // within which a window must open
)

// DurationMost is the longest duration of a policy.
const DurationMost = maxDays * day

// Validate says what is wrong with a policy that is to begin now over total
// targets (negative if that isn't known or may grow): as an error what can't
// work, and as warnings what may not be meant. The policy must have its defaults.
// Path is what faults call the policy. The error is [Faults].
func (p *Policy) Validate(path string, now time.Time, total int) (warnings []Fault, err error) {
	v := validation{p: p, path: path, now: now, total: total}
	v.begin, v.end = now, p.End
	if p.Start.After(now) {
		v.begin = p.Start
	}
	v.times()
	v.waves()
	windows := v.windows()
	v.rate(windows)
	v.retry()
	v.thresholds("pause", p.Pause)
	v.thresholds("abort", p.Abort)
	v.order()
	return v.warnings, v.faults.err()
}

type validation struct {
	p          *Policy
	path       string
	now        time.Time
	total      int
	begin, end time.Time // end is zero if there is none
	faults     Faults
	warnings   Faults
}

func (v *validation) wrong(member, reason, expected string) {
	v.faults.add(v.path+"."+member, reason, expected)
}

func (v *validation) warn(member, reason, expected string) {
	v.warnings.add(v.path+"."+member, reason, expected)
}

// among says that a word must be one of some; empty words are left to defaults.
func among[T ~string](v *validation, member string, word T, words []T) {
	if !slices.Contains(words, word) {
		v.wrong(member, "is "+quoted(string(word)), wording.OneOf(words)+near(string(word), texts(words)))
	}
}

func (v *validation) zone(member, name string) *time.Location {
	zone, ok := loadZone(name)
	if !ok {
		v.wrong(member, quoted(name)+" is no time zone", zoneExpected)
	}
	return zone
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (v *validation) times() {
	p := v.p
	if !p.Start.IsZero() && p.Start.Before(v.now) {
		v.warn("start", "is "+instant(p.Start)+", which has passed: the job starts at once", "")
	}
	if !p.End.IsZero() {
		among(v, "atEnd", p.AtEnd, []EndBehaviour{EndStops, EndCancels})
		switch {
		case !p.End.After(v.now):
			v.wrong("end", "is "+instant(p.End)+", which has passed", "a time after "+instant(v.now))
		case !p.End.After(v.begin):
			v.wrong("end", "is "+instant(p.End)+", not after the start", "a time after "+instant(v.begin))
		}
	} else if p.AtEnd != "" {
		v.wrong("atEnd", "says what happens at the end, and there is none", "an end as well")
	}
	v.duration("timeout", p.Timeout)
	v.duration("attemptTimeout", p.AttemptTimeout)
	if p.Timeout > 0 && p.AttemptTimeout > p.Timeout {
		v.wrong("timeout", "is "+p.Timeout.String()+", shorter than the "+p.AttemptTimeout.String()+" of one attempt (attemptTimeout)", "at least as much")
	}
	if p.Parallel < 0 || p.Parallel > parallelMost {
		v.wrong("parallel", "is "+strconv.Itoa(p.Parallel), "1 to "+strconv.Itoa(parallelMost))
	}
	if p.Priority < -priorityMost || p.Priority > priorityMost {
		v.wrong("priority", "is "+strconv.Itoa(p.Priority), fmt.Sprintf("%d to %d", -priorityMost, priorityMost))
	}
	v.repeat()
}

func (v *validation) repeat() {
	p := v.p
	if p.Repeat == "" {
		if p.RepeatZone != "" {
			v.wrong("repeatZone", "is the zone of a repetition, and there is none", "repeat as well")
		}
		return
	}
	zone := v.zone("repeatZone", p.RepeatZone)
	cron := v.cron("repeat", p.Repeat)
	if cron == nil || zone == nil {
		return
	}
	switch next := cron.Next(v.begin, zone); {
	case next.IsZero():
		v.wrong("repeat", quoted(p.Repeat)+" never comes", "a date that exists")
	case !v.end.IsZero() && next.After(v.end):
		v.warn("repeat", "comes next at "+instant(next)+", after the end: the job runs once", "")
	}
}

func (v *validation) duration(member string, d Duration) {
	if d < 0 || d > DurationMost {
		v.wrong(member, "is "+d.String(), "at most "+DurationMost.String())
	}
}

func (v *validation) cron(member, text string) *Cron {
	c, err := ParseCron(text)
	if f, ok := errors.AsType[Fault](err); ok {
		v.wrong(member, f.Reason, f.Expected)
		return nil
	}
	return c
}

func (v *validation) waves() {
	waves := v.p.Waves
	if len(waves) > wavesMost {
		v.wrong("waves", "are "+strconv.Itoa(len(waves)), "at most "+strconv.Itoa(wavesMost))
		return
	}
	for i := range waves {
		v.wave(i)
	}
	if last := len(waves) - 1; last >= 0 && waves[last].Size != Percent(100) {
		v.wrong(fmt.Sprintf("waves[%d].size", last), "is "+waves[last].Size.String()+": the last wave would leave targets out", `"100%"`)
	}
}

func (v *validation) wave(i int) {
	w, at := v.p.Waves[i], fmt.Sprintf("waves[%d].", i)
	switch {
	case w.Size.n == 0:
		v.wrong(at+"size", "is "+w.Size.String()+": a wave of nothing", shareExpected)
	case w.Size.percent && w.Size.n > wholePercent:
		v.wrong(at+"size", "is "+w.Size.String(), "at most 100%")
	case i > 0:
		v.growth(at+"size", v.p.Waves[i-1].Size, w.Size)
	}
	v.duration(at+"soak", w.Soak)
	h := w.Health
	if h == nil {
		return
	}
	among(v, at+"health.otherwise", h.Otherwise, []HealthAction{HealthPauses, HealthAborts})
	if strings.TrimSpace(h.Where) == "" || len(h.Where) > conditionMost {
		v.wrong(at+"health.where", "has "+strconv.Itoa(len(h.Where))+" bytes", fmt.Sprintf("a condition of devices in bad health, of at most %d bytes", conditionMost))
	}
	if h.AtMost.percent && h.AtMost.n >= wholePercent {
		v.wrong(at+"health.atMost", "is "+h.AtMost.String()+": the check could never fail", "less than 100%")
	}
}

// growth says that sizes are cumulative. A count and a percentage can only be
// compared for a fleet whose size is known; there, a wave that comes out empty,
// also of a larger percentage of few targets, is told and skipped: a template is
// used on fleets of many sizes.
func (v *validation) growth(member string, before, size Share) {
	const expected = "more than the wave before it: sizes count the waves before them too"
	if before.percent == size.percent && size.n <= before.n {
		v.wrong(member, "is "+size.String()+", after "+before.String(), expected)
		return
	}
	if v.total > 0 && size.Of(v.total) <= before.Of(v.total) {
		v.warn(member, fmt.Sprintf("is %s, which for %d targets is no more than the %s before it: the wave is empty", size, v.total, before), expected)
	}
}

// windows returns those that are sound, made ready.
func (v *validation) windows() []window {
	list := v.p.Windows
	if len(list) > windowsMost {
		v.wrong("windows", "are "+strconv.Itoa(len(list)), "at most "+strconv.Itoa(windowsMost))
		return nil
	}
	var ready []window
	for i := range list {
		if w := v.window(i); w != nil {
			ready = append(ready, *w)
		}
	}
	if len(ready) != len(list) || len(list) == 0 {
		return nil
	}
	v.opens(ready)
	return ready
}

func (v *validation) window(i int) *window {
	w, at := v.p.Windows[i], fmt.Sprintf("windows[%d].", i)
	before := len(v.faults)
	cron, zone := v.cron(at+"cron", w.Cron), v.zone(at+"timeZone", w.TimeZone)
	if w.Duration < windowLeast || w.Duration > windowMost {
		v.wrong(at+"duration", "is "+w.Duration.String(), windowLeast.String()+" to "+windowMost.String())
	}
	if w.ZoneTag != "" {
		switch first := v.p.ZoneTag(); {
		case !strings.HasPrefix(w.ZoneTag, "tags.") || len(w.ZoneTag) > 512:
			v.wrong(at+"zoneTag", "is "+quoted(w.ZoneTag), `the path of a tag, such as "tags.timezone"`)
		case w.ZoneTag != first:
			v.wrong(at+"zoneTag", "is "+quoted(w.ZoneTag), "the same tag in all windows: "+quoted(first))
		}
	}
	if len(v.faults) > before {
		return nil
	}
	ready := &window{cron, time.Duration(w.Duration), zone, w.ZoneTag != ""}
	next := cron.Next(v.begin, zone)
	if next.IsZero() || next.After(v.begin.AddDate(openYears, 0, 0)) {
		if open, _ := ready.look(v.begin, zone); !open {
			v.wrong(at+"cron", quoted(w.Cron)+" doesn't come within two years: the window never opens", "a date that exists")
			return nil
		}
	}
	return ready
}

// opens says that some window opens before the end. Zones of devices may be
// up to 26 hours apart.
func (v *validation) opens(windows []window) {
	if v.end.IsZero() || !v.end.After(v.begin) {
		return
	}
	var next time.Time
	for i := range windows {
		w, from, to := &windows[i], v.begin, v.end
		if w.tagged {
			from, to = from.Add(-26*time.Hour), to.Add(26*time.Hour)
		}
		open, change := w.look(from, w.zone)
		if open || !change.IsZero() && change.Before(to) {
			return
		}
		if next.IsZero() || change.Before(next) {
			next = change
		}
	}
	v.wrong("windows", fmt.Sprintf("don't open between %s and the end at %s; the next one opens at %s", instant(v.begin), instant(v.end), instant(next)), "a later end, or other windows")
}

func (v *validation) rate(windows []window) {
	r := v.p.Rate
	if r == nil {
		v.time(0, windows)
		return
	}
	before := len(v.faults)
	if !(r.PerMinute > 0 && r.PerMinute <= rateMost) {
		v.wrong("rate.perMinute", "is "+decimal(r.PerMinute), fmt.Sprintf("more than 0, at most %d", rateMost))
	}
	if !(r.Factor >= 1 && r.Factor <= factorMost) {
		v.wrong("rate.factor", "is "+decimal(r.Factor), fmt.Sprintf("1 to %d", factorMost))
	}
	if r.Factor == 1 {
		if r.Every != 0 || r.Of != "" || r.Most != 0 {
			v.wrong("rate.factor", "is missing: without it the rate doesn't grow, and every, of and most mean nothing", "more than 1")
		}
	} else {
		among(v, "rate.of", r.Of, []RateOf{RateOfStarted, RateOfSucceeded})
		if r.Every < 1 {
			v.wrong("rate.every", "is "+strconv.Itoa(r.Every), "after how many targets the rate grows, at least 1")
		}
		if !(r.Most >= r.PerMinute && r.Most <= rateMost) {
			v.wrong("rate.most", "is "+decimal(r.Most), "at least perMinute, at most "+strconv.Itoa(rateMost))
		}
	}
	if len(v.faults) == before && v.total > 0 {
		v.time(r.least(v.total), windows)
	}
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func (v *validation) retry() {
	r := v.p.Retry
	if r == nil {
		return
	}
	before := len(v.faults)
	if r.Attempts < 1 || r.Attempts > attemptsMost {
		v.wrong("retry.attempts", "is "+strconv.Itoa(r.Attempts), fmt.Sprintf("1 to %d, the first one included", attemptsMost))
	}
	outcomes := []AttemptOutcome{AttemptFailed, AttemptTimedOut, AttemptRejected, AttemptUncertain, AttemptOffline}
	for i, o := range r.On {
		among(v, fmt.Sprintf("retry.on[%d]", i), o, outcomes)
	}
	v.duration("retry.backoff", r.Backoff)
	v.duration("retry.most", r.Most)
	if !(r.Factor >= 1 && r.Factor <= factorMost) {
		v.wrong("retry.factor", "is "+decimal(r.Factor), fmt.Sprintf("1 to %d", factorMost))
	}
	if r.Most < r.Backoff {
		v.wrong("retry.most", "is "+r.Most.String()+", less than the backoff of "+r.Backoff.String(), "at least as much")
	}
	if len(v.faults) > before {
		return
	}
	if most := r.within(v.p.Timeout); most < r.Attempts {
		v.warn("retry.attempts", fmt.Sprintf("is %d, and an execution ends after %s (timeout): with the waits between them there are at most %d", r.Attempts, v.p.Timeout, most), "a longer timeout, or a shorter backoff")
	}
}

func (v *validation) thresholds(member string, list []Threshold) {
	if len(list) > thresholdsMost {
		v.wrong(member, "are "+strconv.Itoa(len(list)), "at most "+strconv.Itoa(thresholdsMost))
		return
	}
	for i, t := range list {
		at := fmt.Sprintf("%s[%d].", member, i)
		switch {
		case t.Share.n == 0:
			v.wrong(at+"share", "is "+t.Share.String()+": it would always be reached", shareExpected)
		case t.Share.percent && t.Share.n > wholePercent:
			v.wrong(at+"share", "is "+t.Share.String()+": it could never be reached", "at most 100%")
		}
		for k, of := range t.Of {
			among(v, fmt.Sprintf("%sof[%d]", at, k), of, BadPhases())
		}
		among(v, at+"per", t.Per, []Scope{PerWave, PerJob})
		if t.Least < 1 || t.Least > shareMost {
			v.wrong(at+"least", "is "+strconv.Itoa(t.Least), "at least 1")
		}
		v.reachable(at, t)
	}
}

// reachable warns of what the fleet is too small for.
func (v *validation) reachable(at string, t Threshold) {
	if v.total <= 0 || len(v.p.Waves) > wavesMost {
		return
	}
	most, what := v.total, "the job has"
	if t.Per == PerWave {
		most, what = slices.Max(append(v.p.WaveSizes(v.total), 0)), "the largest wave has"
	}
	switch {
	case t.Share.percent && t.Least > most:
		v.warn(at+"least", fmt.Sprintf("is %d, and %s %d targets: it is never reached", t.Least, what, most), "at most "+strconv.Itoa(most))
	case !t.Share.percent && t.Share.n > int64(most):
		v.warn(at+"share", fmt.Sprintf("is %s, and %s %d targets: it is never reached", t.Share, what, most), "at most "+strconv.Itoa(most))
	}
}

// order warns of a pause that an abort always comes before.
func (v *validation) order() {
	for i, pause := range v.p.Pause {
		for _, abort := range v.p.Abort {
			covers := !slices.ContainsFunc(pause.Of, func(o Phase) bool { return !slices.Contains(abort.Of, o) })
			if covers && pause.Per == abort.Per && pause.Share.percent == abort.Share.percent && pause.Share.n >= abort.Share.n && pause.Least >= abort.Least {
				v.warn(fmt.Sprintf("pause[%d].share", i), "is "+pause.Share.String()+", and at "+abort.Share.String()+" the job is aborted: it never pauses by this", "less than "+abort.Share.String())
				break
			}
		}
	}
}
