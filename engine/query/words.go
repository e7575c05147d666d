package query

import (
	"slices"
	"strings"
)

// The words that can't be a name unless they are quoted. What only extensions
// use is none of them, so that tags.limit stays a path.
var reserved = [...]string{"SELECT", "FROM", "WHERE", "GROUP", "BY", "AS", "TOP", "AND", "OR", "NOT", "IN", "NIN", "TRUE", "FALSE", "NULL", "UNDEFINED"}

// changes reports whether a word begins a statement of SQL's that changes something.
func changes(word string) bool {
	return slices.ContainsFunc([]string{"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "TRUNCATE", "CREATE", "ALTER", "DROP"},
		func(w string) bool { return strings.EqualFold(w, word) })
}

const changesNothing = "a query changes nothing, a job does"

func isReserved(name string) bool {
	return slices.ContainsFunc(reserved[:], func(w string) bool { return strings.EqualFold(w, name) })
}

// is reports whether the token is a keyword, in any case, or a sign.
func (t token) is(word string) bool {
	return (t.kind == tokenWord || t.kind == tokenSign) && strings.EqualFold(t.value, word)
}

// isAny reports whether the token is one of several.
func (t token) isAny(words ...string) bool { return slices.ContainsFunc(words, t.is) }

// plainName reports whether a path's name needs no quotes.
func plainName(name string) bool {
	l := lexer{faults: faults{text: name}}
	t := l.next()
	return t.kind == tokenWord && t.at == 0 && t.end == len(name) && !isReserved(name)
}
