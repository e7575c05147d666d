package pattern

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const shownMost = 80 // bytes of what was found that a message shows

// clip cuts what a message shows of somebody's text.
func clip(s string) string {
	if len(s) <= shownMost {
		return s
	}
	cut := shownMost
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// quote shows a text, bounded, with control characters escaped.
func quote(s string) string { return strconv.Quote(clip(strings.ToValidUTF8(s, "\uFFFD"))) }

// nearest is the candidate that word is a slip of the finger from; empty: none.
func nearest(word string, candidates []string) string {
	if len(word) > 40 {
		return ""
	}
	best, least := "", 3
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d > 0 && d < least && 2*d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// distance is how many letters were put in, left out or exchanged.
func distance(a, b string) int {
	last, next := make([]int, len(b)+1), make([]int, len(b)+1)
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
		}
		last, next = next, last
	}
	return last[len(b)]
}

// oneOf lists words for a sentence: "a, b or c"; none is what to say of no words.
func oneOf(words []string, none string) string {
	switch n := len(words); n {
	case 0:
		return none
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
}
