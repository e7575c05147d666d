// Package wording has what all messages about bad input share: which known word
// was meant, and how alternatives are listed. A message that names the nearest
// word saves its reader the look into the documentation.
package wording

import "strings"

const (
	// wordMost bounds the work for a word from outside: nobody mistypes a longer one.
	wordMost = 64
	// A word this short is one slip away from many others: only one is forgiven.
	wordShort = 4
	// What begins like a known word needs so many letters to mean it.
	prefixLeast = 3
)

// Nearest returns the known word that word is a slip of the finger from: one edit
// away, two if it is longer than four letters, three if longer than nine. Upper
// and lower case are the same. Of words that are as near, the one with the same
// first letter is meant, then the first in known's order. Without one, it is the
// first known word that begins with word, if that has three letters or more; else
// "".
//
// An edit is a letter put in, left out, exchanged, or swapped with its neighbour:
// the optimal string alignment distance, over bytes.
func Nearest(word string, known []string) string {
	if word == "" || len(word) > wordMost {
		return ""
	}
	lower := strings.ToLower(word)
	forgiven := 1
	if len(lower) > wordShort {
		forgiven = 2 + min(len(lower)/10, 1)
	}
	best, least, sameFirst := "", forgiven+1, false
	for _, k := range known {
		if k == "" || k == word || len(k) > wordMost {
			continue
		}
		candidate := strings.ToLower(k)
		d, first := edits(lower, candidate), candidate[0] == lower[0]
		if d < min(least, len(k)) || d == least && best != "" && first && !sameFirst {
			best, least, sameFirst = k, d, first
		}
	}
	if best != "" || len(lower) < prefixLeast {
		return best
	}
	for _, k := range known {
		if strings.HasPrefix(strings.ToLower(k), lower) && k != word {
			return k
		}
	}
	return ""
}

// edits is how many edits make b of a.
func edits(a, b string) int {
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

// OneOf lists alternatives for a sentence: "a", "a or b", "a, b or c"; nothing of
// none.
func OneOf[T ~string](words []T) string {
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
