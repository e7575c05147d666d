package rollout

import (
	"time"
)

// Duration is a time.Duration whose text may have days: "90s", "1h30m", "2d".
type Duration time.Duration

// Share is a count ("5") or a percentage ("2.5%", to four decimals). The zero
// value is the count 0. It is comparable.
type Share struct {
	n       int64 // a count, or ten-thousandths of a percent
	percent bool
}

// Count is a share that is a count.
func Count(n int) Share { return Share{n: int64(n)} }

// Percent is a share that is a percentage.
func Percent(p float64) Share { return Share{} }

// IsPercent reports whether the share is a percentage.
func (s Share) IsPercent() bool { return s.percent }

// Of is how many of total the share is: a percentage is rounded up, so that one
// above zero is never nothing; a count is at most total.
func (s Share) Of(total int) int { return 0 }
