package query

import (
	"strings"
	"testing"
	"time"
)

// example is the document that expressions of these tests are evaluated on.
const example = `{
	"deviceId": "d1", "status": "enabled", "statusReason": null, "connectionState": "Connected",
	"lastActivityTime": "2026-01-10T12:00:00.5Z", "capabilities": {"iotEdge": false}, "version": 7,
	"parentScopes": ["ms-azure-iot-edge://d4-1", 5],
	"tags": {"n": 5, "zero": 0, "neg": -2.5, "s": "abc", "S": "ABC", "u": "äöü€", "e": "", "t": true, "f": false, "nul": null,
		"o": {"x": 1}, "a": [1, "x", null, true, {}], "my-key": "k", "group": {"name": "g1"}, "when": "2026-01-10T11:00:00+01:00", "bad": "yesterday"},
	"properties": {"desired": {"n": 5, "$version": 4}, "reported": {"n": 4, "$metadata": {"$lastUpdated": "2026-01-01T00:00:00Z"}, "lat": 52.52, "lon": 13.405}}
}`

// exampleNow is the time at which they are evaluated.
func exampleNow() time.Time { return time.Date(2026, 1, 10, 12, 15, 0, 0, time.UTC) }

// TestExpressions has every rule about values as an example: true, false or
// undefined in SQL, and the same in a bare predicate where there is one.
func TestExpressions(t *testing.T) {
	t.Parallel()
	doc, err := ParseValue([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ want, sql, bare string }{
		// Undefined and null.
		{"undefined", "tags.missing", "tags.missing"},
		{"undefined", "tags.missing = 1", "tags.missing == 1"},
		{"undefined", "tags.missing != 1", "tags.missing != 1"},
		{"undefined", "tags.missing = tags.gone", "tags.missing == tags.gone"},
		{"undefined", "tags.missing = undefined", "tags.missing == undefined"},
		{"undefined", "tags.n = undefined", "tags.n == undefined"},
		{"undefined", "tags.missing = null", "tags.missing == nil"},
		{"undefined", "tags.s.x = 1", "tags.s.x == 1"},
		{"undefined", "tags.a.x = 1", "tags.a.x == 1"},
		{"true", "statusReason = null", "statusReason == nil"},
		{"false", "statusReason != null", "statusReason != null"},
		{"false", "tags.n = null", "tags.n == nil"},
		{"true", "tags.n != null", "tags.n != nil"},
		{"undefined", "tags.nul < 1", "tags.nul < 1"},
		{"undefined", "tags.nul <= null", "tags.nul <= nil"},
		{"true", "IS_DEFINED(tags.nul)", "IS_DEFINED(tags.nul)"},

		// Logic.
		{"false", "false AND tags.missing", "false and tags.missing"},
		{"undefined", "true AND tags.missing", "true && tags.missing"},
		{"true", "true OR tags.missing", "true or tags.missing"},
		{"undefined", "false OR tags.missing", "false || tags.missing"},
		{"false", "tags.missing AND false", "tags.missing and false"},
		{"true", "tags.missing OR true", "tags.missing or true"},
		{"undefined", "NOT tags.missing", "not tags.missing"},
		{"undefined", "NOT tags.s", "!tags.s"},
		{"undefined", "tags.n AND true", "tags.n and true"},
		{"false", "tags.n AND false", "tags.n and false"},
		{"true", "NOT tags.f", "not tags.f"},
		{"true", "tags.t AND NOT tags.f AND tags.t", "tags.t and !tags.f and tags.t"},
		{"undefined", "tags.t AND tags.missing AND tags.t", "tags.t and tags.missing and tags.t"},
		{"false", "tags.t AND tags.missing AND tags.f", "tags.t and tags.missing and tags.f"},
		{"true", "tags.f OR tags.missing OR tags.t", "tags.f or tags.missing or tags.t"},
		{"undefined", "tags.f OR tags.missing OR tags.f", "tags.f or tags.missing or tags.f"},
		{"true", "NOT tags.n = 6", "not (tags.n == 6)"},
		{"true", "NOT tags.n = 6 AND NOT tags.n > 5", "not (tags.n == 6) and not (tags.n > 5)"},
		{"true", "tags.f AND tags.f OR tags.t", "tags.f and tags.f or tags.t"},
		{"false", "tags.f AND (tags.f OR tags.t)", "tags.f and (tags.f or tags.t)"},
		{"true", "(tags.n = 5) = true", "(tags.n == 5) == true"},
		{"true", "tags.f = NOT tags.t", ""},

		// Equality.
		{"true", "tags.n = 5", "tags.n == 5"},
		{"true", "tags.n = 5.0", "tags.n == 5.0"},
		{"true", "tags.n = 0x5", "tags.n == 0x5"},
		{"true", "5 = tags.n", "5 == tags.n"},
		{"false", "tags.n = '5'", "tags.n == '5'"},
		{"true", "tags.n != '5'", `tags.n != "5"`},
		{"true", "tags.n <> '5'", ""},
		{"false", "tags.t = 1", "tags.t == 1"},
		{"true", "tags.s = 'abc'", "tags.s == 'abc'"},
		{"false", "tags.s = 'ABC'", "tags.s == 'ABC'"},
		{"true", "tags.t = true", "tags.t == true"},
		{"false", "tags.t = tags.f", "tags.t == tags.f"},
		{"undefined", "tags.o = tags.o", "tags.o == tags.o"},
		{"undefined", "tags.o != 1", "tags.o != 1"},
		{"undefined", "tags.a = 1", "tags.a == 1"},
		{"undefined", "tags.a = [1]", "tags.a == [1]"},
		{"true", "properties.desired.n = tags.n", "desired.n == tags.n"},

		// Order.
		{"true", "tags.n > 4", "tags.n > 4"},
		{"true", "tags.n >= 5", "tags.n >= 5"},
		{"false", "tags.n < 5", "tags.n < 5"},
		{"true", "4 < tags.n", "4 < tags.n"},
		{"true", "4.5 <= tags.n", "4.5 <= tags.n"},
		{"false", "5 < tags.n", "5 < tags.n"},
		{"false", "6 <= tags.n", "6 <= tags.n"},
		{"true", "6 > tags.n", "6 > tags.n"},
		{"true", "5 >= tags.n", "5 >= tags.n"},
		{"true", "4 < tags.n AND tags.n < 6", "4 < tags.n < 6"},
		{"undefined", "tags.n > '4'", "tags.n > '4'"},
		{"undefined", "tags.s > 4", "tags.s > 4"},
		{"true", "tags.s > 'ab'", "tags.s > 'ab'"},
		{"true", "tags.S < tags.s", "tags.S < tags.s"},
		{"undefined", "tags.t > tags.f", "tags.t > tags.f"},
		{"undefined", "tags.o > 1", "tags.o > 1"},
		{"true", "lastActivityTime > '2026-01-09'", "lastActivityTime > '2026-01-09'"},

		// Lists.
		{"true", "tags.n IN [1, 5]", "tags.n in [1, 5]"},
		{"false", "tags.n IN [1, 6, '5']", "tags.n in [1, 6, '5']"},
		{"true", "tags.s IN ['x', 'abc']", "tags.s in ['x', 'abc']"},
		{"false", "tags.s NIN ['x', 'abc']", "tags.s not in ['x', 'abc']"},
		{"true", "tags.s NOT IN ['x']", "tags.s not in ['x']"},
		{"undefined", "tags.missing IN [1]", "tags.missing in [1]"},
		{"undefined", "tags.missing NIN [1]", "tags.missing not in [1]"},
		{"undefined", "tags.missing NIN []", "tags.missing not in []"},
		{"undefined", "tags.o IN [1]", "tags.o in [1]"},
		{"false", "tags.n IN []", "tags.n in []"},
		{"true", "tags.nul IN [null]", "tags.nul in [nil]"},
		{"true", "tags.t IN [false, true]", "tags.t in [false, true]"},
		{"false", "tags.nul IN [false, true]", "tags.nul in [false, true]"},
		{"undefined", "tags.n IN [undefined, 6]", "tags.n in [undefined, 6]"},
		{"true", "tags.n IN [undefined, 5]", "tags.n in [undefined, 5]"},
		{"true", "tags.neg IN [-2.5]", "tags.neg in [-2.5]"},
		{"true", "tags.n BETWEEN 5 AND 6", "5 <= tags.n <= 6"},
		{"false", "tags.n NOT BETWEEN 5 AND 6", ""},
		{"undefined", "tags.s BETWEEN 5 AND 6", ""},
		{"true", "tags.n BETWEEN 1 AND 5 AND tags.t", ""},

		// Arithmetic.
		{"true", "tags.n + 1 = 6", "tags.n + 1 == 6"},
		{"true", "tags.n - 1 - 1 = 3", "tags.n - 1 - 1 == 3"},
		{"true", "tags.n - (1 - 1) = 5", "tags.n - (1 - 1) == 5"},
		{"true", "1 + tags.n * 2 = 11", "1 + tags.n * 2 == 11"},
		{"true", "tags.n / 2 = 2.5", "tags.n / 2 == 2.5"},
		{"true", "tags.n % 3 = 2", "tags.n % 3 == 2"},
		{"true", "tags.neg % 2 = -0.5", "tags.neg % 2 == -0.5"},
		{"true", "-tags.neg = 2.5", "-tags.neg == 2.5"},
		{"true", "- -tags.n = 5", "- -tags.n == 5"},
		{"true", "+tags.n = 5", "+tags.n == 5"},
		{"undefined", "tags.n / 0 = 1", "tags.n / 0 == 1"},
		{"undefined", "tags.n % 0 = 1", "tags.n % 0 == 1"},
		{"undefined", "tags.zero / tags.zero = 1", "tags.zero / tags.zero == 1"},
		{"undefined", "1e308 * 10 > 0", "1e308 * 10 > 0"},
		{"undefined", "tags.s + 1 = 1", "tags.s + 1 == 1"},
		{"undefined", "tags.s + 'd' = 'abcd'", "tags.s + 'd' == 'abcd'"},
		{"undefined", "-tags.s = 1", "-tags.s == 1"},
		{"undefined", "tags.t + 1 = 2", "tags.t + 1 == 2"},

		// Patterns.
		{"true", "tags.s LIKE 'a%'", ""},
		{"true", "tags.s LIKE '_b_'", ""},
		{"false", "tags.s LIKE 'b%'", ""},
		{"true", "tags.s NOT LIKE 'b%'", ""},
		{"undefined", "tags.n LIKE '5'", ""},
		{"undefined", "tags.n NOT LIKE '5'", ""},
		{"true", "tags.u LIKE '__ü_'", ""},
		{"true", "tags.s REGEXP '^a.c$'", "tags.s matches '^a.c$'"},
		{"true", "tags.s REGEXP 'b'", "tags.s matches 'b'"},
		{"false", "tags.s REGEXP '^b'", "tags.s matches '^b'"},
		{"true", `tags.s NOT REGEXP '\\d'`, `tags.s not matches "\\d"`},
		{"undefined", "tags.missing REGEXP 'a'", "tags.missing matches 'a'"},

		// Time.
		{"true", "lastActivityTime < now() - 10m", `lastActivityTime < now() - "10m"`},
		{"false", "lastActivityTime < now() - 15m", `lastActivityTime < now() - "15m"`},
		{"true", "lastActivityTime < now() - '10m'", `lastActivityTime < now() - duration("10m")`},
		{"true", "lastActivityTime > NOW() - 1h30m", `lastActivityTime > NOW() - "1h30m"`},
		{"true", "now() - 15m < lastActivityTime", `now() - "15m" < lastActivityTime`},
		{"true", "now() > lastActivityTime", "now() > lastActivityTime"},
		{"true", "now() + 1d - 12h >= lastActivityTime", `now() + "1d" - "12h" >= lastActivityTime`},
		{"true", "tags.when <= now() - 2h", `tags.when <= now() - "2h"`},
		{"undefined", "tags.bad < now()", "tags.bad < now()"},
		{"undefined", "tags.n < now()", "tags.n < now()"},
		{"undefined", "tags.missing < now()", "tags.missing < now()"},
		{"true", "lastActivityTime BETWEEN now() - 1h AND now()", ""},

		// Paths.
		{"true", "DEVICEID = 'd1'", `DEVICEID == "d1"`},
		{"true", "devices.deviceId = 'd1'", `devices.deviceId == "d1"`},
		{"true", "Properties.Desired.$version = 4", "Properties.Desired.$version == 4"},
		{"undefined", "properties.desired.N = 5", "properties.desired.N == 5"},
		{"true", "properties.reported.$metadata.$lastUpdated > '2025'", "properties.reported.$metadata.$lastUpdated > '2025'"},
		{"true", "capabilities.IOTEDGE = false", "capabilities.IOTEDGE == false"},
		{"true", "tags.[[my-key]] = 'k'", `tags["my-key"] == "k"`},
		{"true", "tags.[[group]].name = 'g1'", "tags.group.name == 'g1'"},
		{"true", "[[tags]].[[n]] = 5", "tags['n'] == 5"},
		{"true", "reported.n = 4", "reported.n == 4"},
		{"true", "connected", "connected"},
		{"false", "NOT connected", "not connected"},
		{"true", "connected = true", "connected == true"},
		{"undefined", "tags.o", "tags.o"},
		{"undefined", "tags", "tags"},
	} {
		checkExpression(t, doc, c.want, c.sql, c.bare)
	}
}

func checkExpression(t *testing.T, doc Value, want, sql, bare string) {
	t.Helper()
	q, err := Parse("SELECT * FROM devices WHERE "+sql, Options{})
	if err != nil {
		t.Errorf("%s: %v", sql, err)
		return
	}
	p, err := compile(q.where)
	if err != nil {
		t.Errorf("%s: %v", sql, err)
		return
	}
	if got := shown(p.eval(doc, exampleNow()).truth()); got != want {
		t.Errorf("%s: got %s, want %s", sql, got, want)
	}
	if got := q.Predicate().Match(doc, exampleNow()); got != (want == "true") {
		t.Errorf("%s: Match is %v", sql, got)
	}
	if bare == "" {
		return
	}
	b, err := ParsePredicate(bare)
	if err != nil {
		t.Errorf("%s: %v", bare, err)
		return
	}
	if got := shown(b.program.truth(doc, exampleNow())); got != want {
		t.Errorf("%s: got %s, want %s", bare, got, want)
	}
}

func shown(t truth) string { return [...]string{"undefined", "false", "true"}[t] }

// TestFunctionValues has the functions, by the value that they give.
func TestFunctionValues(t *testing.T) {
	t.Parallel()
	doc, err := ParseValue([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{nowName: true} // by TestExpressions
	for _, c := range []struct{ expr, want string }{
		{"ABS(tags.neg)", "2.5"}, {"ABS(tags.s)", "undefined"}, {"ABS(tags.missing)", "undefined"},
		{"ARRAY_CONTAINS(tags.a, 'x')", "true"}, {"ARRAY_CONTAINS(tags.a, 1)", "true"}, {"ARRAY_CONTAINS(tags.a, null)", "true"}, {"ARRAY_CONTAINS(tags.a, 'y')", "false"},
		{"ARRAY_CONTAINS(tags.a, tags.missing)", "undefined"}, {"ARRAY_CONTAINS(tags.n, 5)", "undefined"}, {"ARRAY_CONTAINS(tags.missing, 5)", "undefined"}, {"ARRAY_CONTAINS(tags.a, tags.o)", "false"},
		{"ARRAY_CONTAINS([1, 5], tags.n)", "true"}, {"array_contains(parentScopes, 'ms-azure-iot-edge://d4-1')", "true"},
		{"ARRAY_LENGTH(tags.a)", "5"}, {"ARRAY_LENGTH(tags.s)", "undefined"}, {"ARRAY_LENGTH([])", "0"},
		{"AS_NUMBER('12.5')", "12.5"}, {"AS_NUMBER('-1e2')", "-100"}, {"AS_NUMBER('0x10')", "undefined"}, {"AS_NUMBER(' 1')", "undefined"}, {"AS_NUMBER('')", "undefined"}, {"AS_NUMBER('01')", "undefined"}, {"AS_NUMBER(tags.n)", "5"}, {"AS_NUMBER('1e999')", "undefined"}, {"AS_NUMBER('inf')", "undefined"}, {"AS_NUMBER(true)", "undefined"},
		{"CEILING(tags.neg)", "-2"}, {"CEILING(1.1)", "2"}, {"FLOOR(tags.neg)", "-3"}, {"FLOOR('1')", "undefined"},
		{"CONCAT(tags.s, '-', tags.u)", "abc-äöü€"}, {"CONCAT(tags.s, tags.n)", "undefined"}, {"CONCAT('', '')", ""},
		{"CONTAINS(tags.s, 'bc')", "true"}, {"CONTAINS(tags.s, '')", "true"}, {"CONTAINS(tags.s, 'B')", "false"}, {"CONTAINS(tags.n, '5')", "undefined"}, {"CONTAINS(tags.a, 'x')", "undefined"}, {"CONTAINS(tags.s, tags.missing)", "undefined"},
		{"ENDSWITH(tags.s, 'bc')", "true"}, {"endsWith(tags.s, 'ab')", "false"},
		{"STARTSWITH(tags.s, 'ab')", "true"}, {"STARTS_WITH(tags.s, 'bc')", "false"}, {"startsWith(deviceId, tags.n)", "undefined"},
		{"EXP(0)", "1"}, {"EXP(1000)", "undefined"}, {"POWER(2, 10)", "1024"}, {"POWER(-8, 0.5)", "undefined"}, {"POWER(0, -1)", "undefined"}, {"POWER('2', 1)", "undefined"},
		{"SIGN(tags.neg)", "-1"}, {"SIGN(0)", "0"}, {"SIGN(9)", "1"}, {"SQRT(9)", "3"}, {"SQRT(-1)", "undefined"}, {"SQUARE(tags.n)", "25"}, {"SQUARE(1e200)", "undefined"},
		{"FLOOR(GEO_DISTANCE(reported.lat, reported.lon, 48.8566, 2.3522) / 1000)", "877"}, {"GEO_DISTANCE(1, 2, 1, 2)", "0"}, {"FLOOR(GEO_DISTANCE(0, 179.5, 0, -179.5) / 1000)", "111"}, {"GEO_DISTANCE(91, 0, 0, 0)", "undefined"}, {"GEO_DISTANCE(0, 181, 0, 0)", "undefined"}, {"GEO_DISTANCE(tags.missing, 0, 0, 0)", "undefined"}, {"FLOOR(GEO_DISTANCE(90, 0, -90, 0) / 1000)", "20015"},
		{"INDEX_OF(tags.u, 'ü')", "2"}, {"INDEX_OF(tags.u, 'x')", "-1"}, {"INDEX_OF(tags.s, '')", "0"}, {"INDEX_OF(tags.n, '5')", "undefined"},
		{"LENGTH(tags.u)", "4"}, {"LENGTH(tags.e)", "0"}, {"LENGTH(tags.a)", "undefined"},
		{"LOWER(tags.S)", "abc"}, {"UPPER(tags.u)", "ÄÖÜ€"}, {"LOWER(5)", "undefined"}, {"UPPER(tags.nul)", "undefined"},
		{"SUBSTRING(tags.u, 1, 2)", "öü"}, {"SUBSTRING(tags.u, 2)", "ü€"}, {"SUBSTRING(tags.s, 5)", ""}, {"SUBSTRING(tags.s, 0, 0)", ""}, {"SUBSTRING(tags.s, -1)", "undefined"}, {"SUBSTRING(tags.s, 0.5)", "undefined"}, {"SUBSTRING(tags.s, 0, 1e300)", "abc"}, {"SUBSTRING(tags.s, 1, '1')", "undefined"},
		{"IS_ARRAY(tags.a)", "true"}, {"IS_ARRAY(tags.o)", "false"}, {"IS_ARRAY(tags.missing)", "false"},
		{"IS_BOOL(tags.f)", "true"}, {"IS_BOOL(tags.n)", "false"}, {"IS_BOOL(tags.n = 1)", "true"}, {"IS_BOOL(tags.missing = 1)", "false"},
		{"IS_DEFINED(tags.o)", "true"}, {"IS_DEFINED(tags.missing)", "false"}, {"is_defined(tags.nul)", "true"}, {"IS_DEFINED(tags.a)", "true"}, {"IS_DEFINED(1 / 0)", "false"},
		{"IS_NULL(tags.nul)", "true"}, {"IS_NULL(tags.missing)", "false"}, {"IS_NULL(tags.n)", "false"},
		{"IS_NUMBER(tags.n)", "true"}, {"IS_NUMBER('5')", "false"}, {"IS_OBJECT(tags.o)", "true"}, {"IS_OBJECT(tags.a)", "false"},
		{"IS_PRIMITIVE(tags.nul)", "true"}, {"IS_PRIMITIVE(tags.s)", "true"}, {"IS_PRIMITIVE(tags.o)", "false"}, {"IS_PRIMITIVE(tags.missing)", "false"},
		{"IS_STRING(tags.e)", "true"}, {"IS_STRING(tags.n)", "false"},
	} {
		q, err := Parse("SELECT * FROM devices WHERE "+c.expr, Options{})
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		p, err := compile(q.where)
		if err != nil {
			t.Fatal(err)
		}
		v := p.eval(doc, exampleNow())
		got := string(v.AppendJSON(nil))
		switch v.Kind() {
		case Undefined:
			got = "undefined"
		case String:
			got = v.Text()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.expr, got, c.want)
		}
		walk(q.where, func(e expr) {
			if c, ok := e.(*call); ok {
				tested[c.name] = true
			}
		})
	}
	names := ""
	for _, f := range Functions() {
		if !tested[f.Name] {
			t.Errorf("%s has no case", f.Name)
		}
		if f.Name <= names {
			t.Errorf("%s is not in order", f.Name)
		}
		if names = f.Name; f.Arguments == "" || f.Does == "" {
			t.Errorf("%s is not described", f.Name)
		}
	}
}

// TestBuiltStrings bounds what functions build.
func TestBuiltStrings(t *testing.T) {
	t.Parallel()
	at := func(n int) Value {
		return ObjectValue([]Member{{"tags", ObjectValue([]Member{{"s", StringValue(strings.Repeat("ⱥ", n))}})}}) // 3 bytes; Ⱥ in upper case has 2
	}
	q, err := Parse("SELECT * FROM devices WHERE LENGTH(CONCAT(tags.s, tags.s)) > 0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := q.Predicate()
	if !p.Match(at(maxBuilt/6), exampleNow()) || p.Match(at(maxBuilt/6+1), exampleNow()) {
		t.Error("CONCAT isn't bounded where it should be")
	}
	for _, op := range []string{"LIKE '%'", "REGEXP ''"} {
		if q, err = Parse("SELECT * FROM devices WHERE CONCAT(tags.s, 'x') "+op, Options{}); err != nil {
			t.Fatal(err)
		}
		if p := q.Predicate(); !p.Match(at(maxMatched/3), exampleNow()) || p.Match(at(maxMatched/3+1), exampleNow()) {
			t.Errorf("%s isn't bounded where it should be", op)
		}
	}
}

func TestPredicate(t *testing.T) {
	t.Parallel()
	const text = `tags.b == 1 and (reported.a < tags.b or lastActivityTime < now() - "1h" or connected)`
	p, err := ParsePredicate(text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, path := range p.Paths() {
		got = append(got, path.String())
	}
	if want := "tags.b properties.reported.a lastActivityTime connectionState"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p.Text() != text || !hasNow(p.where) {
		t.Errorf("got %q, %v", p.Text(), hasNow(p.where))
	}
	q := p.Query(Modules)
	if q.Source() != Modules || !q.star || format(q.where) != format(p.where) || q.top != -1 || q.Text() != text {
		t.Errorf("got %+v", q)
	}
	all, err := Parse("SELECT deviceId FROM devices", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if p := all.Predicate(); !p.Match(Value{}, exampleNow()) || len(p.Paths()) != 0 {
		t.Error("a query without WHERE matches everything")
	}
}

// TestAggregatesAreNoRows: HAVING is evaluated over groups, by others.
func TestAggregatesAreNoRows(t *testing.T) {
	t.Parallel()
	q, err := Parse("SELECT COUNT() AS n FROM devices HAVING n > 1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compile(q.having); err == nil {
		t.Error("an aggregate compiles to something over rows")
	}
}

// BenchmarkProgram is what a row costs that no column answers.
func BenchmarkProgram(b *testing.B) {
	p, err := ParsePredicate(`tags.site == "A" and reported.battery < 20 and reported.n + 1 > 3`)
	if err != nil {
		b.Fatal(err)
	}
	r := fixedRow{StringValue("A"), NumberValue(10), NumberValue(7)}
	now := exampleNow()
	b.ReportAllocs()
	for b.Loop() {
		if p.program.truth(&r, now) != truthYes {
			b.Fatal("the row isn't selected")
		}
	}
}

// fixedRow is a row of three properties.
type fixedRow [3]Value

func (r *fixedRow) Value(p Path) Value {
	switch p[len(p)-1] {
	case "site":
		return r[0]
	case "battery":
		return r[1]
	default:
		return r[2]
	}
}
