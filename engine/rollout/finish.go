package rollout

import (
	"fmt"
	"math"
	"time"
)

// least is the shortest time in which the rate lets total targets start, even
// if each succeeds at once.
func (r *Rate) least(total int) time.Duration {
	minutes, left, rate := 0.0, float64(total), r.PerMinute
	for r.Factor > 1 && rate < r.Most && left > float64(r.Every) {
		minutes += float64(r.Every) / rate
		left -= float64(r.Every)
		rate = min(rate*r.Factor, r.Most)
	}
	minutes += left / rate
	minutes = max(0, minutes-bucketSeconds/60.0) // may come at once
	return time.Duration(min(minutes*float64(time.Minute), math.MaxInt64/2))
}

// room is how much of the time until the end attempts can start in, the soaks of
// the waves before the last left out, and in words what was left out.
func (v *validation) room(windows []window) (open time.Duration, where string) {
	open, where = v.end.Sub(v.begin)-v.soaks(), "the waves' soaks left out"
	if v.p.ZoneTag() == "" && len(windows) > 0 {
		if t, ok := openTime(windows, v.begin, v.end); ok && t < open {
			open, where = t, "with an open window"
		}
	}
	return open, where
}

func (v *validation) soaks() (sum time.Duration) {
	for _, w := range v.p.Waves[:max(0, len(v.p.Waves)-1)] {
		sum += time.Duration(w.Soak)
	}
	return sum
}

// time says that a job, whose starts take at least as long as given, can be done
// before its end.
func (v *validation) time(starts time.Duration, windows []window) {
	if v.end.IsZero() || !v.end.After(v.begin) {
		return
	}
	if span, soaks := v.end.Sub(v.begin), v.soaks(); soaks >= span {
		v.wrong("end", fmt.Sprintf("comes %s after the start, and the waves soak for %s", shortly(span), shortly(soaks)), "a later end")
		return
	}
	if open, where := v.room(windows); starts > open {
		v.wrong("rate.perMinute", fmt.Sprintf("lets %d targets start within %s at the soonest, and until the end there are %s, %s",
			v.total, shortly(starts), shortly(open), where), "a higher rate or a later end")
	}
}

// Slow warns of an end that may come before the last target is begun: if attempts
// take all of their time, or if devices are away (waits says that these are waited
// for). It is for actions that wait for devices, and total targets; the policy is
// one that Validate found to be in order.
func (p *Policy) Slow(path string, now time.Time, total int, waits bool) (warnings []Fault) {
	if p.End.IsZero() || total <= 0 {
		return nil
	}
	v := validation{p: p, path: path, now: now, total: total, begin: now, end: p.End}
	if p.Start.After(now) {
		v.begin = p.Start
	}
	open, where := v.room(v.windows())
	sizes := p.WaveSizes(total)
	last := len(sizes) - 1
	for last > 0 && sizes[last] == 0 {
		last--
	}
	attempts, holding := 0.0, 0 // attempts one after the other before the last target's; waves that hold others up
	for i, size := range sizes[:last+1] {
		if size == 0 {
			continue
		}
		rounds := 1
		if p.Parallel > 0 {
			rounds = (size + p.Parallel - 1) / p.Parallel
		}
		if i == last {
			rounds--
		} else {
			holding++
		}
		attempts += float64(rounds)
	}
	most := func(n float64, d Duration) time.Duration {
		return time.Duration(min(n*float64(d), math.MaxInt64/2))
	}
	until := fmt.Sprintf("until the end there are %s, %s", shortly(open), where)
	switch {
	case most(attempts, p.AttemptTimeout) >= open:
		v.warn("end", fmt.Sprintf("may come first: if each attempt takes the %s that it may (attemptTimeout), the last of %d targets begins after %s%s, and %s",
			p.AttemptTimeout, total, shortly(most(attempts, p.AttemptTimeout)), p.atATime(), until), "a later end, a shorter attemptTimeout or more at a time")
	case waits && most(float64(holding), p.Timeout) >= open:
		v.warn("end", fmt.Sprintf("may come before the last wave: devices that are away may hold up each wave for %s (timeout), those before the last for %s in all, and %s",
			p.Timeout, shortly(most(float64(holding), p.Timeout)), until), "a later end or a shorter timeout")
	}
	return v.warnings
}

func (p *Policy) atATime() string {
	if p.Parallel == 0 {
		return ""
	}
	return fmt.Sprintf(" with %d at a time (parallel)", p.Parallel)
}

// Sized reports whether what Validate and Slow say depends on how many targets
// there are.
func (p *Policy) Sized() bool {
	return !p.End.IsZero() || len(p.Waves) > 1 || len(p.Pause) > 0 || len(p.Abort) > 0
}

// within is how many attempts there can be before an execution's time is over, if
// each fails at once.
func (r *Retry) within(timeout Duration) int {
	n, elapsed, wait := 1, 0.0, float64(r.Backoff)
	for n < r.Attempts {
		elapsed += min(wait, float64(r.Most))
		if timeout > 0 && elapsed >= float64(timeout) {
			break
		}
		wait *= r.Factor
		n++
	}
	return n
}

// shortly is a time without what doesn't matter for people.
func shortly(d time.Duration) string {
	if d >= time.Hour {
		return Duration(d.Round(time.Minute)).String()
	}
	return Duration(d.Round(time.Second)).String()
}
