package wording

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"temperature", "battery", "site", "state", "FROM", "COUNT", "id"}
	for _, c := range []struct{ word, want string }{
		{"temprature", "temperature"},     // left out
		{"temmperature", "temperature"},   // put in
		{"tempereture", "temperature"},    // exchanged
		{"tmepreature", "temperature"},    // swapped, twice
		{"temmperratuure", "temperature"}, // three edits are forgiven in a long word
		{"batery", "battery"},
		{"bettary", "battery"},
		{"bxttxrx", ""}, // three are not in one of seven letters
		{"sit", "site"},
		{"sate", "site"}, // site and state are as near: the first
		{"FORM", "FROM"},
		{"form", "FROM"},
		{"from", "FROM"}, // case alone
		{"FROM", ""},     // it is known: nothing else was meant
		{"stae", "state"},
		{"xd", "id"},
		{"xy", ""},
		{"bat", "battery"}, // begins like it
		{"ba", ""},
		{"", ""},
		{strings.Repeat("a", wordMost+1), ""},
		{"pressure", ""},
	} {
		if got := Nearest(c.word, known); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
	if got := Nearest("cat", []string{"bat", "car"}); got != "car" {
		t.Errorf("of two words that are as near, %q was meant instead of the one with the same first letter", got)
	}
	if got := Nearest("word", nil); got != "" {
		t.Errorf("%q is near though nothing is known", got)
	}
}

func TestOneOf(t *testing.T) {
	type name string
	for _, c := range []struct {
		words []name
		want  string
	}{{nil, ""}, {[]name{"a"}, "a"}, {[]name{"a", "b"}, "a or b"}, {[]name{"a", "b", "c"}, "a, b or c"}} {
		if got := OneOf(c.words); got != c.want {
			t.Errorf("OneOf(%v) = %q, want %q", c.words, got, c.want)
		}
	}
}
