package twin

import (
	"strconv"
	"strings"
)

// InvalidError says why a document or a patch was refused. Path is dotted and
// begins with the section where it is known ("desired.motor.speed"), Reason
// says what was found and where, Expected what would have been right. Values
// of strings are never quoted. TooLarge marks what exceeded a size in bytes,
// which IoT Hub answers differently.
type InvalidError struct {
	Path     string
	Reason   string
	Expected string
	TooLarge bool
}

// Error is one sentence: "desired.a: found null in an array; expected ...".
func (e *InvalidError) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	if e.Expected != "" {
		b.WriteString("; expected ")
		b.WriteString(e.Expected)
	}
	return b.String()
}

const maxQuoted = 80 // bytes of a key that an error shows

// quote shows a key in an error, bounded and with control characters escaped.
func quote(key string) string {
	if len(key) <= maxQuoted {
		return strconv.Quote(key)
	}
	return strconv.Quote(strings.ToValidUTF8(key[:maxQuoted], "")) + "..."
}

// trail is the way from the root to the value in hand, one key a level; arrays
// add nothing to it.
type trail []string

const maxTrail = 512 // bytes of a path that an error shows

func (t trail) String() string { return strings.Join(t, ".") }

// shown is String, bounded and printable, for errors.
func (t trail) shown() string {
	s := t.String()
	if len(s) > maxTrail {
		s = strings.ToValidUTF8(s[:maxTrail], "") + "..."
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
