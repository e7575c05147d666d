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

// appendTime writes ticks in RFC 3339, in UTC, with the fraction's zeros cut.
func appendTime(dst []byte, n int64) []byte {
	t := time.Unix(n/ticksPerSec-yearOneToUnix, n%ticksPerSec*int64(tick)).UTC()
	return t.AppendFormat(dst, "2006-01-02T15:04:05.9999999Z")
}
