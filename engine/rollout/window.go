package rollout

import (
	"sync"
	"time"
	_ "time/tzdata" // zones are known on machines without a database of them
)

const (
	zonesMost    = 1000 // that a plan remembers
	openingsMost = 64   // of one window, without a gap, that are looked at for one question
	looksMost    = 1000 // from one change to the next, for the sum of open times
	zoneNameMost = 64
	zoneExpected = `an IANA name such as "Europe/Paris" or "UTC"`
)

// LoadZone returns the zone of an IANA name; the error, a [Fault] without path,
// says what was expected. The zone of the host is none: what is written means the
// same everywhere.
func LoadZone(name string) (*time.Location, error) {
	zone, ok := loadZone(name)
	if !ok {
		return nil, Fault{Reason: quoted(name) + " is no time zone", Expected: zoneExpected}
	}
	return zone, nil
}

// loadZone is the zone of an IANA name, and ok unless no database knows it.
// The zone of the host is none: a policy means the same everywhere.
func loadZone(name string) (zone *time.Location, ok bool) {
	if name == "" || name == "Local" || len(name) > zoneNameMost {
		return nil, false
	}
	zone, err := time.LoadLocation(name)
	return zone, err == nil
}

// window is a Window that was made ready.
type window struct {
	cron     *Cron
	duration time.Duration
	zone     *time.Location
	tagged   bool // the device's own zone is taken if it is known
}

// calendar is the windows of a plan, with what it has worked out for a zone.
type calendar struct {
	windows []window

	mu    sync.Mutex
	zones map[string]*zoneTimes
}

// zoneTimes is what is known of one zone: that it is open or closed from one
// moment up to another.
type zoneTimes struct {
	location    *time.Location // nil if it is not known
	open        bool
	from, until time.Time
}

// at says whether a window is open for devices of a zone, when that may change
// (zero: never), and whether the zone is known.
func (c *calendar) at(now time.Time, zone string) (open bool, change time.Time, known bool) {
	if len(c.windows) == 0 {
		return true, time.Time{}, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	z := c.zones[zone]
	if z == nil {
		if len(c.zones) >= zonesMost {
			clear(c.zones)
		}
		z = &zoneTimes{}
		z.location, _ = loadZone(zone)
		c.zones[zone] = z
	}
	if z.from.IsZero() || now.Before(z.from) || !z.until.IsZero() && !now.Before(z.until) {
		z.open, z.until = c.look(now, z.location)
		z.from = now
	}
	return z.open, z.until, zone == "" || z.location != nil
}

func (c *calendar) look(now time.Time, zone *time.Location) (open bool, change time.Time) {
	var closes, opens time.Time
	for i := range c.windows {
		at := &c.windows[i]
		location := at.zone
		if at.tagged && zone != nil {
			location = zone
		}
		isOpen, when := at.look(now, location)
		switch {
		case isOpen:
			open = true
			if when.After(closes) {
				closes = when
			}
		case !when.IsZero() && (opens.IsZero() || when.Before(opens)):
			opens = when
		}
	}
	if open {
		return true, closes
	}
	return false, opens
}

// look says whether the window is open, and when it closes if it is, or opens.
// A window that opens again before it closes stays open.
func (w *window) look(now time.Time, zone *time.Location) (open bool, change time.Time) {
	opened := w.cron.Next(now.Add(-w.duration), zone)
	if opened.IsZero() || opened.After(now) {
		return false, opened
	}
	closes := opened.Add(w.duration)
	for range openingsMost {
		again := w.cron.Next(opened, zone)
		if again.IsZero() || again.After(closes) {
			break
		}
		opened, closes = again, again.Add(w.duration)
	}
	return true, closes
}

// openTime is how long a union of windows is open between two moments, each in
// its own zone; ok is false if it takes too many openings to tell.
func openTime(windows []window, from, to time.Time) (total time.Duration, ok bool) {
	c := calendar{windows: windows}
	for range looksMost {
		if !from.Before(to) {
			return total, true
		}
		open, change := c.look(from, nil)
		if change.IsZero() || change.After(to) {
			change = to
		}
		if open {
			total += change.Sub(from)
		}
		from = change
	}
	return total, false
}
