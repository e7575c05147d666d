package query

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// faults collects what is wrong with a text; the first fault counts.
type faults struct {
	text   string
	strict bool
	err    *Error
	steps  int // that the patterns so far take for a character
}

func (f *faults) fail(at int, found, expected string) {
	if f.err == nil {
		f.err = &Error{Text: f.text, At: min(max(at, 0), len(f.text)), Found: found, Expected: expected}
	}
}

// extension fails in strict mode: what is not part of IoT Hub's language.
func (f *faults) extension(at int, what string) {
	if f.strict {
		f.fail(at, what+", an extension of Muster's", "IoT Hub's own language: the hub runs with IoT Hub's limits, which refuse extensions")
	}
}

// failure returns the error as the interface it goes out as.
func (f *faults) failure() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// checkText bounds a text before it is read.
func (f *faults) checkText() {
	if n := utf8.RuneCountInString(f.text); f.strict && n > maxTextStrict {
		f.cutText(fmt.Sprintf("%d characters", n), fmt.Sprintf("at most %d characters in IoT Hub's language", maxTextStrict), maxTextStrict)
	} else if n := len(f.text); n > maxText {
		f.cutText(fmt.Sprintf("%d bytes", n), fmt.Sprintf("at most %d bytes", maxText), maxText)
	}
}

// cutText fails at a place and keeps no more than what is before it.
func (f *faults) cutText(found, expected string, at int) {
	for at > 0 && !utf8.RuneStart(f.text[at]) {
		at--
	}
	f.text = strings.ToValidUTF8(f.text[:at], "?")
	f.fail(len(f.text), found, expected)
}

// clip shortens what is shown of a text in an error.
func clip(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// describe names a token as an error shows it.
func (t token) describe() string {
	switch t.kind {
	case tokenEnd:
		return "the end of the text"
	case tokenString:
		return "the string " + strconv.Quote(clip(t.value))
	case tokenNumber:
		return "the number " + clip(t.value)
	case tokenQuoted:
		return "[[" + clip(t.value) + "]]"
	}
	return strconv.Quote(clip(t.value))
}

// similar returns the candidate that word is a slip of the finger from, and "".
func similar(word string, candidates []string) string {
	word = strings.ToUpper(word)
	best, least := "", 3
	if len(word) <= 4 {
		least = 2
	}
	if word == "" || len(word) > 40 {
		return ""
	}
	for _, c := range candidates {
		upper := strings.ToUpper(c)
		d := distance(word, upper)
		if d < len(c) && (d < least || d == least && best != "" && upper[0] == word[0] && strings.ToUpper(best)[0] != word[0]) {
			best, least = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b.
func distance(a, b string) int {
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(last[j]+1, next[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, last, next = last, next, before
	}
	return last[len(b)]
}

// meant appends a guess to what was expected.
func meant(word string, candidates []string, expected string) string {
	if s := similar(word, candidates); s != "" {
		return expected + "; did you mean " + s + "?"
	}
	return expected
}

func quoted(s string) string { return strconv.Quote(clip(s)) }

// count says how many there are of something.
func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return strconv.Itoa(n) + " " + of
}

// oneOf joins alternatives.
func oneOf(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}
