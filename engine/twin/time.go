package twin

import "time"

// Metadata times are ticks of 100 ns since the start of year 1, the unit and
// the zero of IoT Hub's own timestamps.
const (
	tick          = 100 * time.Nanosecond
	ticksPerSec   = int64(time.Second / tick)
	yearOneToUnix = 62135596800 // seconds from the start of year 1 to 1970
	maxTicks      = 315537897600*ticksPerSec - 1
)

// ticks converts t, clamped to years 1 to 9999.
func ticks(t time.Time) int64 {
	const last = maxTicks / ticksPerSec
	sec := t.Unix() + yearOneToUnix
	switch {
	case sec < 0:
		return 0
	case sec > last:
		return maxTicks
	}
	return sec*ticksPerSec + int64(t.Nanosecond())/int64(tick)
}

// appendTime writes ticks in RFC 3339, in UTC, with the fraction's zeros cut. A page of
// twins has thousands of them: time.AppendFormat, which reads its layout each time, takes
// four times as long.
func appendTime(dst []byte, n int64) []byte {
	t := time.Unix(n/ticksPerSec-yearOneToUnix, 0).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(appendPair(appendPair(dst, year/100), year%100), '-')
	dst = append(appendPair(dst, int(month)), '-')
	dst = append(appendPair(dst, day), 'T')
	dst = append(appendPair(dst, hour), ':')
	dst = append(appendPair(dst, minute), ':')
	dst = appendPair(dst, second)
	if fraction := n % ticksPerSec; fraction > 0 {
		dst = append(dst, '.')
		for unit := ticksPerSec / 10; fraction > 0; unit /= 10 {
			dst = append(dst, '0'+byte(fraction/unit))
			fraction %= unit
		}
	}
	return append(dst, 'Z')
}

// appendPair writes a number of two digits.
func appendPair(dst []byte, n int) []byte { return append(dst, '0'+byte(n/10), '0'+byte(n%10)) }
