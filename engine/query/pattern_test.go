package query

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestLike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a"}},
		{"abc", []string{"abc"}, []string{"", "ab", "abcd", "ABC"}},
		{"%", []string{"", "a", "äö\n"}, nil},
		{"a%", []string{"a", "abc"}, []string{"", "ba"}},
		{"%a", []string{"a", "aa", "ba"}, []string{"", "ab"}},
		{"%b%", []string{"b", "abc", "bb"}, []string{"", "ac"}},
		{"a%a", []string{"aa", "aba"}, []string{"a", "ab"}},
		{"a%b%c", []string{"abc", "a1b2c", "abbc", "abcbc"}, []string{"acb", "ac", "abcd"}},
		{"_", []string{"a", "ä", "€"}, []string{"", "ab"}},
		{"__%", []string{"ab", "äöü"}, []string{"a"}},
		{"%_b", []string{"ab", "bb", "xäb"}, []string{"b"}},
		{"%a_c%", []string{"abc", "xaacy", "aaäc"}, []string{"ac", "abbc"}},
		{`100\%`, []string{"100%"}, []string{"1000"}},
		{`a\_b`, []string{"a_b"}, []string{"axb"}},
		{`\\%`, []string{`\`, `\x`}, []string{"x"}},
		{`a\`, []string{`a\`}, []string{"a"}},
		{`.*[`, []string{".*["}, []string{"x["}},
	} {
		l := compileLike(c.pattern)
		for _, s := range c.yes {
			if !l.match(s) {
				t.Errorf("%q LIKE %q: got false", s, c.pattern)
			}
		}
		for _, s := range c.no {
			if l.match(s) {
				t.Errorf("%q LIKE %q: got true", s, c.pattern)
			}
		}
	}
}

// TestLikeIsARegexp compares random patterns with the regular expressions that
// they stand for.
func TestLikeIsARegexp(t *testing.T) {
	t.Parallel()
	g := rand.New(rand.NewPCG(7, 8))
	text := func(alphabet string) string {
		var b strings.Builder
		for range g.IntN(8) {
			b.WriteRune([]rune(alphabet)[g.IntN(len([]rune(alphabet)))])
		}
		return b.String()
	}
	hits := 0
	for range 20_000 {
		pattern, s := text("abä%%__"), text("abä")
		re := regexp.MustCompile("(?s)^" + strings.NewReplacer("%", ".*", "_", ".").Replace(pattern) + "$")
		want := re.MatchString(s)
		if got := compileLike(pattern).match(s); got != want {
			t.Fatalf("%q LIKE %q: got %v", s, pattern, got)
		}
		if want {
			hits++
		}
	}
	if hits < 2000 {
		t.Errorf("only %d of 20000 match", hits)
	}
}

// TestRegexpCost: what would make a large machine is refused before it is made.
func TestRegexpCost(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"^site-[0-9]{1,4}$", "(a|b|c)*d?", "[^ ]+@[a-z0-9.-]+", "(?i)warn|error", strings.Repeat("a", 200), `\p{L}{1,100}`, "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
	} {
		if _, _, err := compileRegexp(pattern); err != nil {
			t.Errorf("%.40s: %v", pattern, err)
		}
	}
	for _, pattern := range []string{
		"[a-z]{1000}", strings.Repeat("[a-z]{900}", 90), "((a{30}){30})", "(a|b){600}", "(a?){200}", strings.Repeat("a", 900), "((((a{1000}){0,1000}){1000}){1000}){1000}", "((){1000}){1000}", "(", "a**", `\8`, "(?P<x", `\pQ`, "a{1001}",
	} {
		if _, _, err := compileRegexp(pattern); err == nil {
			t.Errorf("%.40s: taken", pattern)
		}
	}
	long := "SELECT * FROM devices WHERE tags.a %s '" + strings.Repeat("a", maxPattern+1) + "'"
	for _, op := range []string{"LIKE", "REGEXP"} {
		if _, err := Parse(strings.Replace(long, "%s", op, 1), Options{}); err == nil || !strings.Contains(err.Error(), "found a pattern of 1025 bytes, expected at most 1024 bytes") {
			t.Errorf("%s: got %v", op, err)
		}
	}
}
