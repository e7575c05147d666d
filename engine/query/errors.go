package query

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Error is what is wrong with a query's text.
type Error struct {
	Text     string // of the query
	At       int    // byte offset of what is wrong
	Found    string // what stands there
	Expected string // what would have been right, or what to do
}

// Column returns where the error stands, counted in characters from one.
func (e *Error) Column() int { return utf8.RuneCountInString(e.Text[:min(e.At, len(e.Text))]) + 1 }

// Error says where, what was found and what was expected, in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("column %d: found %s, expected %s", e.Column(), e.Found, e.Expected)
}

// Caret returns the part of the text around the error, and a line below it with
// a caret under its place. Dots stand for text that is left out, so that nobody
// takes what is left for what was asked.
func (e *Error) Caret() string {
	const around = 40
	dots := []rune("...")
	text := []rune(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, e.Text))
	at := min(e.Column()-1, len(text))
	from, to := max(0, at-around), min(len(text), at+around)
	part := slices.Clone(text[from:to])
	if from > 0 {
		copy(part, dots)
	}
	if to < len(text) {
		copy(part[len(part)-len(dots):], dots)
	}
	return string(part) + "\n" + strings.Repeat(" ", at-from) + "^"
}
