package rollout

import (
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

const (
	faultsMost = 20
	quotedMost = 80 // bytes of what was found that a fault shows
)

// Fault is what is wrong with one member of what an operator wrote.
type Fault struct {
	Path     string // such as "policy.windows[0].cron"
	Reason   string // what was found
	Expected string // what would have been right; may be empty
}

// Error is one sentence.
func (f Fault) Error() string {
	var b strings.Builder
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Reason)
	if f.Expected != "" {
		b.WriteString("; expected " + f.Expected)
	}
	return b.String()
}

// Faults is the error of what an operator wrote: all that is wrong, in the order
// of its members, at most twenty.
type Faults []Fault

// Error is one line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, ". ")
}

// add appends a fault, up to the most that are told.
func (f *Faults) add(path, reason, expected string) {
	if len(*f) < faultsMost {
		*f = append(*f, Fault{path, reason, expected})
	}
}

// err is f as an error; nil if nothing is wrong.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// quoted shows what was found, bounded and with control characters escaped.
func quoted(s string) string {
	if len(s) > quotedMost {
		return strconv.Quote(strings.ToValidUTF8(s[:quotedMost], "")) + "..."
	}
	return strconv.Quote(s)
}

// near names the candidate that word is a slip of the finger from, as the end of a
// sentence, or nothing.
func near(word string, candidates []string) string {
	if best := wording.Nearest(word, candidates); best != "" {
		return "; did you mean " + strconv.Quote(best) + "?"
	}
	return ""
}

// texts are words as plain strings.
func texts[T ~string](words []T) []string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return list
}
