package query

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseWait(t *testing.T) {
	twin, err := ParseValue([]byte(`{"connectionState":"Connected","tags":{"site":"A"},"properties":{"reported":{"boot":{"count":4},"state":"idle"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	names, err := ParseValue([]byte(`{"before":3,"later":4,"site":"A","none":null,"yes":true,"states":["idle","off"],"empty":[],"wanted":{"site":"A","x":{"y":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]Value{}
	for _, m := range names.Members() {
		vars[m.Key] = m.Value
	}
	for _, c := range []struct {
		text  string
		match bool
		found string // of the error; empty: none
	}{
		{"reported.boot.count > before", true, ""},
		{"reported.boot.count > later", false, ""},
		{"before < reported.boot.count and tags.site == site", true, ""},
		{"tags.site == wanted.site", true, ""},
		{"reported.boot.count > wanted.x.y", true, ""},
		{"reported.state in states", true, ""},
		{"reported.state in empty", false, ""},
		{"not (reported.state in states)", false, ""},
		{"connected", true, ""},
		{"connected == yes", true, ""},
		{"reported.missing == none", false, ""},
		{"reported.missing == wanted.nothing", false, ""},
		{"site == 'A' and connected", true, ""},
		{"reported.state == wanted", false, "whose value is an object"},
		{"lastActivityTime < now() - '5m'", false, "now() in a condition"},
		{"now() > before", false, "now() in a condition"},
		{"reported.x > other", false, "other"},
		{"reported.boot.count >", false, "the end of the text"},
		{"reported.boot.count before", false, `"before"`},
	} {
		p, err := ParseWait(c.text, vars)
		if c.found != "" {
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(e.Found, c.found) {
				t.Errorf("%s: %v, want an error that found %s", c.text, err, c.found)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := p.Match(twin, time.Time{}); got != c.match {
			t.Errorf("%s is %t, want %t", c.text, got, c.match)
		}
	}
	if _, err := ParsePredicate("reported.boot.count > before"); err == nil {
		t.Error("a name without a value is taken")
	}
}
