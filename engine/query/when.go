package query

import (
	"strconv"
	"strings"
	"time"
)

// due is a comparison of a path with now(): the path's time, compared with now
// plus offset.
type due struct {
	path   Path
	op     operator // opLess, opLessEqual, opGreater or opGreaterEqual
	offset time.Duration
}

// dueOf returns an expression as a comparison with now(), the path on the left.
func dueOf(e expr) (due, bool) {
	b, ok := e.(*binary)
	if !ok || b.op < opLess || b.op > opGreaterEqual {
		return due{}, false
	}
	left, right, op := b.left, b.right, b.op
	if isNow(left) {
		left, right, op = right, left, mirrored(op)
	}
	r, ok := left.(*ref)
	if !ok || !isNow(right) {
		return due{}, false
	}
	return due{r.path, op, nowOffset(right.(*call))}, true
}

// nowOffset returns what is added to the time in a call of now().
func nowOffset(c *call) time.Duration {
	return time.Duration(c.args[0].(*literal).value.Number()) * time.Millisecond
}

// test compares a value with the time.
func (d due) test(v Value, now time.Time) truth {
	if v.kind != String {
		return truthUnknown
	}
	t, err := time.Parse(time.RFC3339, v.text)
	if err != nil {
		return truthUnknown
	}
	return truthOf(holds(d.op, t.Compare(now.Add(d.offset))))
}

// The units of durations.
var units = [...]struct {
	name string
	of   time.Duration
}{
	{"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour},
}

// parseDuration reads 15m, 1h30m or 1.5d, at most a hundred years.
func parseDuration(s string) (time.Duration, bool) {
	var sum time.Duration
	rest := s
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if n <= 0 {
			return 0, false
		}
		x, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, false
		}
		rest = rest[n:]
		n = strings.IndexAny(rest, "0123456789.")
		if n < 0 {
			n = len(rest)
		}
		unit := time.Duration(0)
		for _, u := range units {
			if strings.EqualFold(u.name, rest[:n]) {
				unit = u.of
			}
		}
		if unit == 0 || x*float64(unit) > float64(maxShift) {
			return 0, false
		}
		if sum += time.Duration(x * float64(unit)); sum > maxShift {
			return 0, false
		}
		rest = rest[n:]
	}
	return sum, s != ""
}

// formatDuration writes a duration of whole milliseconds in one unit.
func formatDuration(d time.Duration) string {
	best := units[0]
	for _, u := range units {
		if d%u.of == 0 {
			best = u
		}
	}
	return strconv.FormatInt(int64(d/best.of), 10) + best.name
}

// durationExpected is what errors say of a duration.
const durationExpected = "a duration such as 15m, 12h or 7d, of the units ms, s, m, h, d and w"
