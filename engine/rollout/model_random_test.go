package rollout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// zonesOfModel are zones of devices: some with changes of the clock, one that
// nobody knows, and none.
var zonesOfModel = [...]string{"", "UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Nowhere/Land"}

// daily is a window as the model knows it: it opens at an hour, on some days of
// the week.
type daily struct {
	hour     int
	days     [7]bool
	duration time.Duration
	zone     string
	tagged   bool
}

func (w *daily) cron() string {
	var days []string
	for d, ok := range w.days {
		if ok {
			days = append(days, fmt.Sprint(d))
		}
	}
	return fmt.Sprintf("0 %d * * %s", w.hour, strings.Join(days, ","))
}

// open looks for the opening of today and of the day before. No hour of a model's
// window is skipped or comes twice where a clock changes.
func (w *daily) open(now time.Time, zone string, zones map[string]*time.Location) bool {
	location := zones[w.zone]
	if own := zones[zone]; w.tagged && own != nil {
		location = own
	}
	year, month, day := now.In(location).Date()
	for back := range 2 {
		opens := time.Date(year, month, day-back, w.hour, 0, 0, 0, location)
		if w.days[opens.Weekday()] && !now.Before(opens) && now.Before(opens.Add(w.duration)) {
			return true
		}
	}
	return false
}

// loadZones loads the zones of models; those that there aren't are nil.
func loadZones() map[string]*time.Location {
	zones := map[string]*time.Location{}
	for _, name := range zonesOfModel[1:] {
		if location, err := time.LoadLocation(name); err == nil {
			zones[name] = location
		}
	}
	return zones
}

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// randomPolicy makes a policy that Validate takes, and the windows in it as the
// model knows them.
func randomPolicy(r *rand.Rand, begin time.Time) (Policy, []daily) {
	var p Policy
	p.Waves = randomWaves(r)
	if chance(r, 30) {
		p.Rate = &Rate{PerMinute: pick(r, 0.5, 3, 10, 60, 600)}
		if chance(r, 50) {
			p.Rate.Factor, p.Rate.Every, p.Rate.Of = pick(r, 1.5, 2, 10), 1+r.IntN(8), pick(r, RateOfStarted, RateOfSucceeded)
			p.Rate.Most = p.Rate.PerMinute * pick(r, 1.0, 3, 50)
		}
	}
	if chance(r, 40) {
		p.Parallel = 1 + r.IntN(6)
	}
	var windows []daily
	if chance(r, 30) {
		tagged := chance(r, 50)
		for range 1 + r.IntN(2) {
			w := daily{hour: pick(r, 0, 6, 12, 22), duration: pick(r, time.Hour, 5*time.Hour, 9*time.Hour), zone: pick(r, "UTC", "Europe/Paris", "Asia/Kolkata"), tagged: tagged}
			for d := range w.days {
				w.days[d] = chance(r, 80) || d == 3
			}
			windows = append(windows, w)
			own := Window{Cron: w.cron(), Duration: Duration(w.duration), TimeZone: w.zone}
			if tagged {
				own.ZoneTag = "tags.zone"
			}
			p.Windows = append(p.Windows, own)
		}
	}
	if chance(r, 20) {
		p.Start = begin.Add(time.Duration(r.IntN(180)) * time.Minute)
	}
	if chance(r, 20) {
		p.End = begin.Add(4*time.Hour + time.Duration(r.IntN(3*24*60))*time.Minute)
		p.AtEnd = pick(r, EndStops, EndCancels)
	}
	p.Timeout = Duration(time.Duration(30+r.IntN(600)) * time.Minute)
	p.AttemptTimeout = pick(r, p.Timeout, Duration(10*time.Minute))
	if chance(r, 50) {
		p.Retry = &Retry{Attempts: 1 + r.IntN(4), Backoff: Duration(time.Duration(1+r.IntN(30)) * time.Minute), Factor: pick(r, 1.0, 2)}
		for _, o := range []AttemptOutcome{AttemptFailed, AttemptTimedOut, AttemptRejected, AttemptUncertain, AttemptOffline} {
			if chance(r, 50) {
				p.Retry.On = append(p.Retry.On, o)
			}
		}
	}
	if chance(r, 40) {
		p.Pause = randomThresholds(r)
	}
	if chance(r, 40) {
		p.Abort = randomThresholds(r)
	}
	p.SetDefaults()
	return p, windows
}

func randomWaves(r *rand.Rand) []Wave {
	var waves []Wave
	percents := chance(r, 50)
	size := 0
	for range r.IntN(4) {
		size += 1 + r.IntN(20)
		w := Wave{Size: Count(size)}
		if percents {
			w.Size = Percent(float64(size) + pick(r, 0, 0.5))
		}
		waves = append(waves, w)
	}
	waves = append(waves, Wave{Size: Percent(100)})
	for i := range waves {
		waves[i].Approval = chance(r, 20)
		if chance(r, 30) {
			waves[i].Soak = Duration(time.Duration(1+r.IntN(90)) * time.Minute)
		}
		if chance(r, 25) {
			waves[i].Health = &Health{Where: "reported.ill", AtMost: pick(r, Share{}, Count(1), Percent(10)), Otherwise: pick(r, HealthPauses, HealthPauses, HealthAborts)}
		}
	}
	return waves
}

func randomThresholds(r *rand.Rand) []Threshold {
	var list []Threshold
	for range 1 + r.IntN(2) {
		t := Threshold{Share: pick(r, Count(1+r.IntN(5)), Percent(float64(5+r.IntN(96)))), Least: r.IntN(8), Per: pick(r, PerWave, PerJob)}
		for _, o := range BadPhases() {
			if chance(r, 60) {
				t.Of = append(t.Of, o)
			}
		}
		list = append(list, t)
	}
	return list
}
