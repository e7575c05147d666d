package query

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine/wording"
)

// faults collects what is wrong with a text; the first fault counts.
type faults struct {
	text   string
	strict bool
	bare   bool // a predicate, in which durations stand in quotes
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
		return bracketed(clip(t.value))
	}
	return strconv.Quote(clip(t.value))
}

// meant appends a guess to what was expected.
func meant(word string, candidates []string, expected string) string {
	if s := wording.Nearest(word, candidates); s != "" {
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
