package rollout

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration whose text may have days: "90s", "1h30m", "2d",
// "1d12h". It is never negative in a valid policy.
type Duration time.Duration

const day = Duration(24 * time.Hour)

const durationExpected = `a duration such as "90s", "1h30m" or "2d"`

// ParseDuration reads the text of a duration.
func ParseDuration(text string) (Duration, error) {
	fault := Fault{Reason: "found " + quoted(text), Expected: durationExpected}
	if text == "" || len(text) > 50 || text[0] == '-' || text[0] == '+' {
		return 0, fault
	}
	rest, days := text, int64(0)
	if before, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 32)
		if err != nil || after != "" && (after[0] == '-' || after[0] == '+') {
			return 0, fault
		}
		rest, days = after, int64(n)
	}
	var d time.Duration
	if rest != "" && rest != "0" {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, fault
		}
	}
	if days > maxDays || d > time.Duration(DurationMost) || Duration(d)+Duration(days)*day > DurationMost {
		return 0, Fault{Reason: "found " + quoted(text), Expected: "at most " + DurationMost.String()}
	}
	return Duration(d) + Duration(days)*day, nil
}

// String is the shortest text that ParseDuration reads as d.
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	if d >= day {
		b.WriteString(strconv.FormatInt(int64(d/day), 10) + "d")
		if d %= day; d == 0 {
			return b.String()
		}
	}
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return b.String() + text
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalJSON reads what ParseDuration does.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return Fault{Reason: "found " + kindOf(text), Expected: durationExpected}
	}
	v, err := ParseDuration(s)
	if err == nil {
		*d = v
	}
	return err
}

// Share is a count ("5") or a percentage ("2.5%", to four decimals). The zero
// value is the count 0. It is comparable.
type Share struct {
	n       int64 // a count, or ten-thousandths of a percent
	percent bool
}

const (
	wholePercent  = 100 * 10_000 // 100 % in the unit of a share
	shareMost     = 1_000_000_000
	shareExpected = `a count such as "5" or a percentage such as "2.5%"`
)

// Count is a share that is a count.
func Count(n int) Share { return Share{n: int64(n)} }

// Percent is a share that is a percentage.
func Percent(p float64) Share { return Share{n: int64(math.Round(p * 10_000)), percent: true} }

// ParseShare reads the text of a share.
func ParseShare(text string) (Share, error) {
	fault := Fault{Reason: "found " + quoted(text), Expected: shareExpected}
	digits, percent := strings.CutSuffix(text, "%")
	if len(digits) == 0 || len(digits) > 20 || strings.Trim(digits, "0123456789.") != "" {
		return Share{}, fault
	}
	if !percent {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > shareMost {
			return Share{}, fault
		}
		return Share{n: n}, nil
	}
	whole, decimals, _ := strings.Cut(digits, ".")
	n, err := strconv.ParseInt(whole+(decimals + "0000")[:4], 10, 64)
	if err != nil || whole == "" || len(decimals) > 4 || strings.HasSuffix(digits, ".") || n > 10*wholePercent {
		return Share{}, fault
	}
	return Share{n: n, percent: true}, nil
}

// IsPercent reports whether the share is a percentage.
func (s Share) IsPercent() bool { return s.percent }

// Of is how many of total the share is: a percentage is rounded up, so that one
// above zero is never nothing; neither is more than total.
func (s Share) Of(total int) int {
	if total <= 0 || s.n <= 0 {
		return 0
	}
	if !s.percent {
		return int(min(s.n, int64(total)))
	}
	if s.n >= wholePercent {
		return total
	}
	return int((int64(total)*s.n + wholePercent - 1) / wholePercent)
}

// reachedBy reports whether n of total are at least the share. Nothing never
// is.
func (s Share) reachedBy(n, total int) bool {
	if n <= 0 {
		return false
	}
	if !s.percent {
		return int64(n) >= s.n
	}
	return int64(n)*wholePercent >= s.n*int64(total)
}

// exceededBy reports whether n of total are more than the share.
func (s Share) exceededBy(n, total int) bool {
	if !s.percent {
		return int64(n) > s.n
	}
	return int64(n)*wholePercent > s.n*int64(total)
}

// String is the shortest text that ParseShare reads as s.
func (s Share) String() string {
	if !s.percent {
		return strconv.FormatInt(s.n, 10)
	}
	text := strconv.FormatInt(s.n/10_000, 10)
	if rest := s.n % 10_000; rest != 0 {
		text += "." + strings.TrimRight(strconv.FormatInt(10_000+rest, 10)[1:], "0")
	}
	return text + "%"
}

// MarshalText is String.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalJSON reads what ParseShare does, and a count that is a number.
func (s *Share) UnmarshalJSON(text []byte) error {
	var word string
	var n int64
	if json.Unmarshal(text, &word) != nil {
		if json.Unmarshal(text, &n) != nil || n < 0 {
			return Fault{Reason: "found " + kindOf(text), Expected: shareExpected}
		}
		word = strconv.FormatInt(n, 10)
	}
	v, err := ParseShare(word)
	if err == nil {
		*s = v
	}
	return err
}
