package query

import (
	"fmt"
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
// a caret under its place.
func (e *Error) Caret() string {
	const around = 40
	text := []rune(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, e.Text))
	at := min(e.Column()-1, len(text))
	from, to := max(0, at-around), min(len(text), at+around)
	return string(text[from:to]) + "\n" + strings.Repeat(" ", at-from) + "^"
}
