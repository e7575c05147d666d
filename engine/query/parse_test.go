package query

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// outline shows a query's parts in one line.
func outline(q *Query) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", q.source)
	if q.star {
		b.WriteString(" *")
	}
	for _, i := range q.items {
		fmt.Fprintf(&b, " %s=", i.key)
		if i.aggregate == notAggregated {
			b.WriteString(i.path.String())
		} else {
			write(&b, &aggregated{aggregate: i.aggregate, distinct: i.distinct, path: i.path}, 0)
		}
	}
	if q.where != nil {
		b.WriteString(" where " + format(q.where))
	}
	for _, p := range q.group {
		b.WriteString(" group " + p.String())
	}
	if q.having != nil {
		b.WriteString(" having " + format(q.having))
	}
	for _, o := range q.order {
		fmt.Fprintf(&b, " order %s%s", o.path, o.key)
		if o.key != "" {
			b.WriteString(" (key)")
		}
		if o.descending {
			b.WriteString(" down")
		}
	}
	if q.top >= 0 {
		fmt.Fprintf(&b, " top %d", q.top)
	}
	if q.offset > 0 {
		fmt.Fprintf(&b, " offset %d", q.offset)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"SELECT * FROM devices", "devices *"},
		{"select * from DEVICES where STATUS = 'enabled'", "devices * where status = 'enabled'"},
		{"SELECT TOP 2 * FROM devices", "devices * top 2"},
		{"SELECT TOP(0) deviceId FROM devices.modules", "devices.modules deviceId=deviceId top 0"},
		{"/* one */ SELECT /* two */ * FROM devices /* three", ""},
		{"/* one */ SELECT /* two */ * FROM devices /* three */", "devices *"},
		{"SELECT DeviceId, LastActivityTime FROM devices", "devices deviceId=deviceId lastActivityTime=lastActivityTime"},
		{"SELECT devices.deviceId AS id, tags.[[a b]] x, tags.c [[d e]] FROM devices", "devices id=deviceId x=tags.[[a b]] d e=tags.c"},
		{"SELECT tags.a.name, tags.b.name AS b, tags.Name FROM devices", "devices name=tags.a.name b=tags.b.name Name=tags.Name"},
		{"SELECT tags, properties, properties.reported, reported.$version FROM devices", "devices tags=tags properties=properties reported=properties.reported $version=properties.reported.$version"},
		{"SELECT COUNT(), COUNT(*) AS n, SUM(tags.a), AVG(tags.a) AS mean, MIN(deviceId), COUNT(DISTINCT tags.a) FROM devices", "devices count=COUNT() n=COUNT() sum_a=SUM(tags.a) mean=AVG(tags.a) min_deviceId=MIN(deviceId) count_a=COUNT(DISTINCT tags.a)"},
		{"SELECT tags.limit, tags.order AS offset, tags.like having FROM devices", "devices limit=tags.limit offset=tags.order having=tags.like"},
		{"SELECT tags.a, COUNT() AS n FROM devices WHERE connected GROUP BY TAGS.a", "devices a=tags.a n=COUNT() where connectionState = 'Connected' group tags.a"},
		{"SELECT tags.a AS x FROM devices GROUP BY tags.a, tags.b HAVING x > 1 AND tags.b < 2 AND AVG(reported.n) = 3 ORDER BY tags.b, x DESC", "devices x=tags.a group tags.a group tags.b having tags.a > 1 AND tags.b < 2 AND AVG(properties.reported.n) = 3 order tags.b order x (key) down"},
		{"SELECT tags.a AS x, COUNT() FROM devices GROUP BY tags.a ORDER BY count ASC, COUNT() DESC", "devices x=tags.a count=COUNT() group tags.a order count (key) order count (key) down"},
		{"SELECT tags.a AS x FROM devices ORDER BY x DESC, tags.b ASC LIMIT 10 OFFSET 5", "devices x=tags.a order tags.a down order tags.b top 10 offset 5"},
		{"SELECT * FROM devices OFFSET 5 LIMIT 10", "devices * top 10 offset 5"},
		{"SELECT * FROM devices ORDER BY order.x", ""},
		{"SELECT * FROM devices.modules WHERE devices.modules.moduleId='$edgeAgent' AND MODULEID != 'x'", "devices.modules * where moduleId = '$edgeAgent' AND moduleId != 'x'"},
		{"SELECT * FROM devices.jobs WHERE devices.jobs.jobId='j1' AND devices.jobs.createdTimeUtc > '2023-09-01'", "devices.jobs * where jobId = 'j1' AND createdDateTimeUtc > '2023-09-01'"},
		{"SELECT * FROM devices WHERE configurations.[[my-cfg]].status='Applied'", "devices * where configurations.[[my-cfg]].status = 'Applied'"},
		{"SELECT * FROM devices WHERE x509thumbprint.PrimaryThumbprint = 'A'", "devices * where x509Thumbprint.primaryThumbprint = 'A'"},
		{`SELECT * FROM devices WHERE tags.a = "it's" AND tags.b = 'say \"\u0041\ud83d\ude00\"' AND tags.c = '\\'`, `devices * where tags.a = 'it\'s' AND tags.b = 'say "A😀"' AND tags.c = '\\'`},
		{"SELECT * FROM devices WHERE tags.a = .5 OR tags.a = 1. OR tags.a = 1.5e-3 OR tags.a = 0XfF", "devices * where tags.a = 0.5 OR tags.a = 1 OR tags.a = 0.0015 OR tags.a = 255"},
		{"SELECT * FROM devices WHERE tags.é = 'ü'", "devices * where tags.é = 'ü'"},
		{"SELECT * FROM devices WHERE [[tags]].[[x]]]]]] = 1", "devices * where tags.[[x]]]]]] = 1"},
		{"SELECT tags.[[a]]]]b]] FROM devices", "devices a]]b=tags.[[a]]]]b]]"},
		{"SELECT tags.[[a]b]] , tags.[[]]]]]]], tags.[[]]]]]b]] FROM devices", "devices a]b=tags.[[a]b]] ]]]=tags.[[]]]]]]] ]]]b=tags.[[]]]]]b]]"},
		{"SELECT * FROM devices WHERE [[tags]].[[x]]]] = 1", ""},
		{"SELECT tags.[[a]]b]] FROM devices", ""},
		{"SELECT * FROM devices WHERE tags.[[x]]] = 1", "devices * where tags.[[x]]] = 1"},
		{"SELECT * FROM devices WHERE a.b = 1", ""},
	} {
		q, err := Parse(c.text, Options{})
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: taken as %s", c.text, outline(q))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := outline(q); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
		if q.Text() != c.text {
			t.Errorf("%s: Text is %s", c.text, q.Text())
		}
	}
}

// TestStrict has what IoT Hub's language contains, strictly taken.
func TestStrict(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"SELECT * FROM devices WHERE tags.location.region = 'US' AND properties.reported.n >= 60",
		"SELECT * FROM devices WHERE properties.reported.st NIN ['Success','Pending'] OR tags.ring = 0xA",
		"SELECT * FROM devices WHERE NOT IS_DEFINED(tags.location) AND STARTSWITH(deviceId, 'd') AND ARRAY_CONTAINS(parentScopes, 'x')",
		"SELECT properties.reported.st AS status, COUNT() AS n FROM devices GROUP BY properties.reported.st",
		"SELECT TOP 5 AVG(properties.reported.n) AS a, MIN(tags.x) lo FROM devices WHERE properties.desired.$version * 2 - 1 > 5 % 3",
		"SELECT deviceId, moduleId FROM devices.modules WHERE moduleId = '$edgeAgent'",
		"SELECT * FROM devices.jobs WHERE devices.jobs.status = 'failed'",
		"SELECT * FROM devices WHERE tags.order = 1 AND tags.limit = 2 AND tags.connected = 3 AND tags.reported = 4",
	} {
		if _, err := Parse(text, Options{Strict: true}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestNamesTwice: IoT Hub takes two items of one name, and the last one counts.
func TestNamesTwice(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"SELECT tags.a.name, tags.b.name FROM devices":                            "devices name=tags.b.name",
		"SELECT deviceId AS x, tags.a, COUNT() AS x FROM devices GROUP BY tags.a": "devices a=tags.a x=COUNT() group tags.a",
	} {
		if q, err := Parse(text, Options{Strict: true}); err != nil || outline(q) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestLongChains parses as much as fits into a text, in bounded depth.
func TestLongChains(t *testing.T) {
	t.Parallel()
	const where = "SELECT * FROM devices WHERE "
	for name, text := range map[string]string{
		"AND": where + strings.TrimSuffix(strings.Repeat("tags.a=1 AND ", 4900), " AND "),
		"OR":  where + strings.TrimSuffix(strings.Repeat("(tags.a=1)OR ", 4900), "OR "),
		"IN":  where + "tags.a IN [1" + strings.Repeat(",1", 32_000) + "]",
		"+":   where + "1" + strings.Repeat("+1", 1000) + " = 1001",
	} {
		q, err := Parse(text, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := depth(q.where); d > 16 && name != "+" {
			t.Errorf("%s: the tree is %d deep", name, d)
		}
		q.Predicate().Match(Value{}, time.Time{})
	}
	for name, text := range map[string]string{
		"+":        where + "1" + strings.Repeat("+1", 1001) + " = 1",
		"NOT":      where + strings.Repeat("NOT ", 101) + "true",
		"-":        where + strings.Repeat("- ", 101) + "1 = 1",
		"call":     where + strings.Repeat("ABS(", 101) + "1" + strings.Repeat(")", 101) + " = 1",
		"brackets": where + strings.Repeat("(", 30_000),
		"items":    "SELECT a" + strings.Repeat(",a", 1001) + " FROM devices",
		"order":    "SELECT * FROM devices ORDER BY tags.a" + strings.Repeat(",tags.a", 1001),
		"group":    "SELECT COUNT() FROM devices GROUP BY tags.a" + strings.Repeat(",tags.a", 1001),
	} {
		if _, err := Parse(text, Options{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, text := range map[string]string{
		"and": strings.TrimSuffix(strings.Repeat("tags.a==1 and ", 600), " and "),
		"in":  "tags.a in [1" + strings.Repeat(",1", 5000) + "]",
	} {
		if _, err := ParsePredicate(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"+":   "1" + strings.Repeat("+1", 3000) + " == 1",
		"and": strings.Repeat("tags.a==1 and ", 4000) + "true",
		"==":  "true" + strings.Repeat("==true", 5000),
	} {
		if _, err := ParsePredicate(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func depth(e expr) int {
	switch e := e.(type) {
	case *unary:
		return 1 + depth(e.x)
	case *binary:
		return 1 + max(depth(e.left), depth(e.right))
	}
	return 1
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"15m": 15 * time.Minute, "250ms": 250 * time.Millisecond, "1h30m": 90 * time.Minute, "1.5d": 36 * time.Hour, "2W": 14 * 24 * time.Hour, "0s": 0,
	} {
		if got, ok := parseDuration(text); !ok || got != want {
			t.Errorf("%s: got %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "5", "m", "5x", "5m3", "-5m", "1..5m", "36501d", "1e9d", "99999999999999999999w", "5 m", "20000d20000d"} {
		if got, ok := parseDuration(text); ok {
			t.Errorf("%s: taken as %v", text, got)
		}
	}
	for _, text := range []string{"15m", "90m", "250ms", "2w", "36h"} {
		d, _ := parseDuration(text)
		if got := formatDuration(d); got != text {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

// TestBare shows what bare predicates are in SQL.
func TestBare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{`tags.face == "\ud83d\ude00"`, "tags.face = '😀'"},
		{`tags.face == '\u00e9\ud83d\ude00\u{1F600}\U0001F600\x41'`, "tags.face = 'é😀😀😀A'"},
		{`tags["\ud83d\ude00"].a == 1`, "tags.[[😀]].a = 1"},
		{`tags.a == "\\ud83d\\ude00"`, `tags.a = '\\ud83d\\ude00'`},
		{"tags.a == `\\ud83d\\ude00`", `tags.a = '\\ud83d\\ude00'`},
		{"tags.a == \"\\\"\\ud83d\\ude00\" /* \"\\ud83d\" */ and tags.é in ['\\ud83d\\ude00']", `tags.a = '"😀' AND tags.é IN ['😀']`},
		{`contains(tags.a, "x") and startsWith(tags.a, "x") || endsWith (tags.a, "x")`, "CONTAINS(tags.a, 'x') AND STARTSWITH(tags.a, 'x') OR ENDSWITH(tags.a, 'x')"},
		{`not contains(tags.a, "x") and not not contains(tags.a, "x") and !startsWith(tags.a, "x")`, "NOT CONTAINS(tags.a, 'x') AND NOT NOT CONTAINS(tags.a, 'x') AND NOT STARTSWITH(tags.a, 'x')"},
		{`true in [true] and contains(CONCAT(tags.a, LOWER(tags.b)), "x") == (endsWith(tags.a, "x"))`, "true IN [true] AND CONTAINS(CONCAT(tags.a, LOWER(tags.b)), 'x') = ENDSWITH(tags.a, 'x')"},
		{`tags.a contains ("x") and tags.contains contains ("x") and tags.a not startsWith ("x")`, "CONTAINS(tags.a, 'x') AND CONTAINS(tags.contains, 'x') AND NOT STARTSWITH(tags.a, 'x')"},
		{`tags.not contains ("x") and tags.in endsWith ("x") and tags["a"] contains ("x") and (tags.a) not contains ("x")`, "CONTAINS(tags.[[not]], 'x') AND ENDSWITH(tags.[[in]], 'x') AND CONTAINS(tags.a, 'x') AND NOT CONTAINS(tags.a, 'x')"},
	} {
		p, err := ParsePredicate(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := format(p.where); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

// TestBareStatements gives queries and other statements where a condition is
// expected, and conditions that begin with the same words.
func TestBareStatements(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, found, expected string }{
		{"SELECT * FROM devices", "SELECT", "a condition, as stands behind WHERE"},
		{" select deviceId FROM devices", "select", "a condition, as stands behind WHERE"},
		{"FROM devices WHERE tags.a = 1", "FROM", "a condition, as stands behind WHERE"},
		{"WHERE tags.a == 1", "WHERE", "the condition alone"},
		{"DELETE FROM devices WHERE tags.a = 1", "DELETE", "a condition: a query changes nothing, a job does"},
		{"update devices set tags.a = 1", "update", "a condition: a query changes nothing, a job does"},
	} {
		_, err := ParsePredicate(c.text)
		e, is := errors.AsType[*Error](err)
		if !is || e.Found != quoted(c.found) || e.Expected != c.expected || e.At != strings.Index(c.text, c.found) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	for path, want := range map[string]string{ // properties of one's own without what they lie in
		"select": "tags.select,", "delete.a": "tags.delete.a,", "where": "tags.where,", `mine["a-b"]`: `tags.mine["a-b"],`,
	} {
		_, err := ParsePredicate(path + " == 1")
		if e, is := errors.AsType[*Error](err); !is || !strings.HasPrefix(e.Expected, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestFunctionsInAnyCase calls each function in several spellings, in both languages.
func TestFunctionsInAnyCase(t *testing.T) {
	t.Parallel()
	for _, f := range functions {
		if f.name == nowName {
			continue
		}
		args := "(tags.a" + strings.Repeat(", tags.a", f.least-1) + ")"
		want := f.name + args
		camel := map[string]string{"STARTSWITH": "startsWith", "ENDSWITH": "endsWith"}[f.name]
		for _, name := range []string{f.name, strings.ToLower(f.name), f.name[:1] + strings.ToLower(f.name[1:]), camel} {
			if name == "" {
				continue
			}
			text := name + args + " = tags.b"
			if q, err := Parse("SELECT * FROM devices WHERE "+text, Options{}); err != nil || format(q.where) != want+" = tags.b" {
				t.Errorf("%s: %v", text, err)
			}
			text = "tags.b == " + name + args
			if p, err := ParsePredicate(text); err != nil || format(p.where) != "tags.b = "+want {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// TestPathsAreReadAgain prints paths of random keys and parses them.
func TestPathsAreReadAgain(t *testing.T) {
	t.Parallel()
	g := grower{Rand: rand.New(rand.NewPCG(7, 8))}
	check := func(keys ...string) {
		path := append(Path{"tags"}, keys...)
		text := "SELECT " + path.String() + " AS x FROM devices WHERE " + path.String() + " = 1"
		q, err := Parse(text, Options{})
		if err != nil || !samePath(q.items[0].path, path) || !samePath(q.where.(*binary).left.(*ref).path, path) {
			t.Errorf("%q: %v", text, err)
		}
		text = path.Bare() + " == 1"
		p, err := ParsePredicate(text)
		if err != nil || !samePath(p.where.(*binary).left.(*ref).path, path) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, word := range []string{"and", "or", "not", "in", "if", "else", "let", "matches", "contains", "startsWith", "endsWith", "nil", "null", "true", "false", "Infinity", "1st", "group", "AND", "IN", "LIKE", "all", "filter", "map", "now", "connected", "tags", "len"} {
		check(word, word)
	}
	for n := range 13 {
		brackets := strings.Repeat("]", n)
		check(brackets + "a")
		check("a"+brackets, "[["+brackets+"]")
	}
	for range 5000 {
		keys := make([]string, 1+g.IntN(3))
		for i := range keys {
			for range 1 + g.IntN(8) {
				keys[i] += g.pick("]", "]", "]]", "[", "[[", "a", "é", ".", "'", "\\", " ", "5", "=", "select", "😀", "\n", "$")
			}
		}
		check(keys...)
	}
}

// TestStrictQuotes: IoT Hub's language has no way to write ]] in a name.
func TestStrictQuotes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"[[x]]": "x", "[[x]]]": "x]", "[[x]]]]": "x]]", "[[x]]]]]": "x]]]", "[[a]b]]": "a]b"} {
		q, err := Parse("SELECT tags."+text+" FROM devices", Options{Strict: true})
		if err != nil || q.items[0].key != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"[[a]]b]]", "[[a]]]]b]]"} {
		if _, err := Parse("SELECT tags."+text+" FROM devices", Options{Strict: true}); err == nil {
			t.Errorf("%s: taken", text)
		}
	}
}
