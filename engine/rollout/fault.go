package rollout

import (
	"strconv"
	"strings"
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

// near is the candidate that word is a slip of the finger from, as the end of a
// sentence, or nothing.
func near(word string, candidates []string) string {
	if len(word) > 40 {
		return ""
	}
	best, least := "", 3
	for _, c := range candidates {
		if d := slips(strings.ToLower(word), strings.ToLower(c)); d < least && d < len(c)-1 {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(best) + "?"
}

// slips counts the letters that were left out, put in or exchanged between two
// words, and half of those that swapped places with their neighbour.
func slips(a, b string) int {
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			next[j+1] = min(last[j]+change, last[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, last, next = last, next, before
	}
	return last[len(b)]
}

// oneOf lists words for a sentence: "a, b or c".
func oneOf[T ~string](words []T) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// texts are words as plain strings.
func texts[T ~string](words []T) []string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return list
}
