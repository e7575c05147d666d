package query

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse: whatever the text, there is a query or an error whose place is in
// the text, and a query says the same when it is printed and parsed again.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"SELECT * FROM devices",
		"select top 5 deviceId, tags.a as x from devices where is_defined(tags.[[my-key]]) and tags.b != 'it\\'s'",
		"SELECT tags.a, COUNT() AS n, AVG(reported.b) FROM devices WHERE tags.a IN [1, 'x', null] GROUP BY tags.a HAVING n > 1 ORDER BY n DESC LIMIT 3 OFFSET 1",
		"/* c */ SELECT * FROM devices.modules WHERE lastActivityTime < now() - 1h30m OR NOT connected",
		"SELECT * FROM devices.jobs WHERE devices.jobs.status = \"failed\"",
		"SELECT * FROM devices WHERE tags.a LIKE 'a%_\\\\' AND tags.b REGEXP '^(a|b)*$' AND tags.c NOT BETWEEN -1.5e3 AND 0xFF",
		"SELECT * FROM devices WHERE GEO_DISTANCE(tags.lat, tags.lon, 52.5, 13.4) / 1000 % 7 >= -(tags.x + 1)",
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, strict bool) {
		q, err := Parse(text, Options{Strict: strict})
		if err != nil {
			checkPlace(t, text, err)
			return
		}
		q.Predicate().Match(ObjectValue([]Member{{"tags", ObjectValue([]Member{{"a", StringValue("ab")}})}}), exampleNow())
		if q.where != nil {
			again := "SELECT * FROM " + q.source.String() + " WHERE " + format(q.where)
			r, err := Parse(again, Options{})
			if err != nil && len(again) < maxText {
				t.Fatalf("%q: %q: %v", text, again, err)
			}
			if err == nil && !sameTree(q.where, r.where) {
				t.Fatalf("%q: %q: %q", text, again, format(r.where))
			}
		}
	})
}

// FuzzParsePredicate is FuzzParse for the other front.
func FuzzParsePredicate(f *testing.F) {
	for _, text := range []string{
		`tags.site == "A" and reported.battery < 20`,
		`tags["my-key"] in ['a', 1.5, nil] || not (connected) && 1 < tags.a <= 5`,
		`lastActivityTime < now() - duration("15m") or tags.a matches "^x" or tags.b not contains 'y'`,
		`GEO_DISTANCE(tags.lat, tags.lon, 52.5, 13.4) / 1000 % 7 >= -(tags.x + 1) // comment`,
		`tags["\ud83d\ude00"] == "\ud83d\ude00" and tags.é == '\u{d83d}' or tags.b == "\U0001F600"`,
		"tags?.a.b == `raw` or \"x\" in reported.list",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePredicate(text)
		if err != nil {
			checkPlace(t, text, err)
			return
		}
		p.Match(ObjectValue([]Member{{"tags", ObjectValue([]Member{{"a", StringValue("ab")}})}}), exampleNow())
	})
}

func checkPlace(t *testing.T, text string, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%q: %T", text, err)
	}
	if e.At < 0 || e.At > len(text) || e.At > len(e.Text) || e.Found == "" || e.Expected == "" || len(e.Found) > 300 || len(e.Expected) > 3000 {
		t.Fatalf("%q: %+v", text, e)
	}
	if utf8.ValidString(text) && (!utf8.ValidString(e.Error()) || e.At < len(e.Text) && !utf8.RuneStart(e.Text[e.At])) {
		t.Fatalf("%q: %q stands within a character", text, e.Error())
	}
	e.Caret()
}

// FuzzParseValue: whatever the text, there is a value that prints and reads
// the same, or an error.
func FuzzParseValue(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(`{"a":1,"a":[-0.5e-7,"\ud83d\ude00\n"],"b":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := ParseValue(text)
		if err != nil {
			return
		}
		printed := v.AppendJSON(nil)
		w, err := ParseValue(printed)
		if err != nil || string(w.AppendJSON(nil)) != string(printed) {
			t.Fatalf("%q: %q: %v", text, printed, err)
		}
	})
}

// TestTokenSoup puts tokens together at random: nothing panics, and what is
// refused is refused at a place in the text.
func TestTokenSoup(t *testing.T) {
	t.Parallel()
	g := grower{Rand: rand.New(rand.NewPCG(5, 6))}
	sql := strings.Split("SELECT * FROM devices devices.modules WHERE TOP 5 ( ) [ ] [[x-y]] , . tags tags.a COUNT() AVG( AS n GROUP BY HAVING ORDER DESC LIMIT OFFSET AND OR NOT IN NIN LIKE 'a%' \"b\" BETWEEN REGEXP = != < + - * / % 1 0xF 1e3 15m now() IS_DEFINED( CONTAINS( null true undefined connected reported.b /**/ é [1,2]", " ")
	bare := strings.Split(`tags .a tags["a"] reported.b ( ) [ ] , and or not && || ! == != < <= in contains matches "a" 'b' 1 -1 1.5 nil true + - * / % now() "5m" IS_DEFINED( CONTAINS( duration( ?. ? : ; | .. ** # { } let if é connected`, " ")
	kept := 0
	n := scaled(20_000)
	for range n {
		text := soup(g, sql)
		if g.IntN(2) == 0 {
			text = "SELECT * FROM devices WHERE " + text
		}
		if _, err := Parse(text, Options{Strict: g.IntN(2) == 0}); err != nil {
			checkPlace(t, text, err)
		} else {
			kept++
		}
		text = soup(g, bare)
		if _, err := ParsePredicate(text); err != nil {
			checkPlace(t, text, err)
		} else {
			kept++
		}
	}
	if kept < n/200 {
		t.Errorf("only %d of %d are taken", kept, 2*n)
	}
}

func soup(g grower, words []string) string {
	var b strings.Builder
	for range 1 + g.IntN(9) {
		b.WriteString(g.pick(words...))
		if g.IntN(8) > 0 {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
