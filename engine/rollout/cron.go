package rollout

import (
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Cron is a set of local times: those whose minute, hour, day of the month,
// month and day of the week are all in its five fields.
//
// A field is "*", a number, a range "1-5", a step "*/15", "8-18/2" or "5/10"
// (from 5 on), or a list of these with commas. Months and days of the week may
// be named by their first three English letters; Sunday is 0 and 7. If both the
// day of the month and the day of the week are given (neither begins with "*"),
// a day that is in one of the two is meant. @hourly, @daily, @weekly, @monthly
// and @yearly are the usual abbreviations.
//
// Where clocks are put forward, a local time that is skipped is meant to be the
// moment of the change, the first valid one after it; several skipped ones are
// that one moment. Where clocks are put back, a local time that comes twice is
// meant to be the first of the two. So a daily time comes once each day, always.
type Cron struct {
	minute, hour, day, month, week uint64 // bit n is the value n
	either                         bool   // day and week are both given
}

const (
	cronMost = 200 // bytes
	// cronYears is how far ahead the next time is looked for: 29 February may be
	// eight years away.
	cronYears = 9
)

type cronField struct {
	name        string
	least, most int
	names       []string // of values from least on
	expected    string
}

var cronFields = [...]cronField{
	{"minute", 0, 59, nil, "0 to 59"},
	{"hour", 0, 23, nil, "0 to 23"},
	{"day of the month", 1, 31, nil, "1 to 31"},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}, "1 to 12 or jan to dec"},
	{"day of the week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, "0 to 7 or sun to sat"},
}

var cronNames = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *",
}

// ParseCron reads five fields. The error, a [Fault] without path, says which
// field is wrong and what was expected there.
func ParseCron(text string) (*Cron, error) {
	if len(text) > cronMost {
		return nil, Fault{Reason: "has " + strconv.Itoa(len(text)) + " bytes", Expected: "at most " + strconv.Itoa(cronMost)}
	}
	if long, ok := cronNames[strings.TrimSpace(text)]; ok {
		text = long
	}
	parts := strings.Fields(text)
	if len(parts) != len(cronFields) {
		return nil, Fault{
			Reason:   "found " + quoted(text) + " with " + strconv.Itoa(len(parts)) + " fields",
			Expected: `five: minute, hour, day of the month, month, day of the week, such as "0 22 * * 1-5"`,
		}
	}
	var sets [len(cronFields)]uint64
	for i, part := range parts {
		var err error
		if sets[i], err = cronFields[i].parse(part); err != nil {
			return nil, err
		}
	}
	c := &Cron{sets[0], sets[1], sets[2], sets[3], sets[4], parts[2][0] != '*' && parts[4][0] != '*'}
	if c.week&(1<<7) != 0 {
		c.week |= 1
	}
	return c, nil
}

func (f *cronField) parse(text string) (uint64, error) {
	var set uint64
	for element := range strings.SplitSeq(text, ",") {
		s, ok := f.element(element)
		if !ok {
			return 0, Fault{Reason: "the " + f.name + " is " + quoted(element), Expected: f.expected + `, "*", a range or a step`}
		}
		set |= s
	}
	return set, nil
}

// element reads "*", "n", "n-m", each with a step or without.
func (f *cronField) element(text string) (set uint64, ok bool) {
	span, stepText, stepped := strings.Cut(text, "/")
	step := 1
	if stepped {
		if step, ok = number(stepText); !ok || step < 1 || step > f.most {
			return 0, false
		}
	}
	from, to := f.least, f.most
	if span != "*" {
		first, last, ranged := strings.Cut(span, "-")
		if from, ok = f.one(first); !ok {
			return 0, false
		}
		switch {
		case ranged:
			if to, ok = f.one(last); !ok || to < from {
				return 0, false
			}
		case !stepped:
			to = from
		}
	}
	for v := from; v <= to; v += step {
		set |= 1 << v
	}
	return set, true
}

func (f *cronField) one(text string) (int, bool) {
	for i, name := range f.names {
		if strings.EqualFold(name, text) {
			return f.least + i, true
		}
	}
	n, ok := number(text)
	return n, ok && n >= f.least && n <= f.most
}

// number reads one or two digits.
func number(text string) (int, bool) {
	if text == "" || len(text) > 2 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// Next is the first moment after a given one that the cron means in a zone, and
// zero if there is none within nine years.
func (c *Cron) Next(after time.Time, zone *time.Location) time.Time {
	local := after.In(zone)
	// at is the local time as if it were in UTC: arithmetic on it knows no changes
	// of the clock.
	at := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC)
	last := at.AddDate(cronYears, 0, 0)
	for {
		var ok bool
		if at, ok = c.first(at, last); !ok {
			return time.Time{}
		}
		if moment := firstMoment(at, zone); moment.After(after) {
			return moment
		}
		at = at.Add(time.Minute)
	}
}

// first is the first local time from at on that is in the fields.
func (c *Cron) first(at, last time.Time) (time.Time, bool) {
	for at.Before(last) {
		year, month, day := at.Date()
		switch {
		case c.month&(1<<month) == 0:
			at = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		case !c.onDay(day, at.Weekday()):
			at = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
			continue
		}
		minute := at.Minute()
		if c.hour&(1<<at.Hour()) == 0 {
			minute = 0
		} else if later := c.minute >> minute; later != 0 {
			return at.Add(time.Duration(bits.TrailingZeros64(later)) * time.Minute), true
		}
		at = time.Date(year, month, day, at.Hour()+1, 0, 0, 0, time.UTC)
	}
	return at, false
}

func (c *Cron) onDay(day int, week time.Weekday) bool {
	inMonth, inWeek := c.day&(1<<day) != 0, c.week&(1<<week) != 0
	if c.either {
		return inMonth || inWeek
	}
	return inMonth && inWeek
}

// firstMoment is the first moment at which clocks of the zone show the local
// time (given in UTC) or, if it is skipped, a later one.
func firstMoment(local time.Time, zone *time.Location) time.Time {
	year, month, day := local.Date()
	t := time.Date(year, month, day, local.Hour(), local.Minute(), 0, 0, zone)
	start, end := t.ZoneBounds()
	_, offset := t.Zone()
	switch shown := t.Unix() + int64(offset); {
	case shown < local.Unix(): // t lies before the change that skips it
		return end
	case shown > local.Unix():
		return start
	}
	if start.IsZero() {
		return t
	}
	_, before := start.Add(-time.Second).Zone()
	if earlier := time.Unix(local.Unix()-int64(before), 0); earlier.Before(start) && earlier.Before(t) {
		return earlier.In(zone)
	}
	return t
}
