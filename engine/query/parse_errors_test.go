package query

import (
	"errors"
	"strings"
	"testing"
)

// TestParseErrors shows what is said of a wrong query. The place is where the
// text has ‸, which is taken out before it is parsed.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	const where = "SELECT * FROM devices WHERE "
	for _, c := range []struct{ text, found, expected string }{
		{"‸", "the end of the text", "SELECT"},
		{"‸SELEC nonsense", `"SELEC"`, "SELECT; did you mean SELECT?"},
		{"‸tags.a = 1", `"tags"`, "SELECT"},
		{"SELECT‸", "the end of the text", "*, a path or an aggregate"},
		{"SELECT ‸FROM devices", `"FROM"`, "*, a path or an aggregate"},
		{"SELECT deviceId,‸", "the end of the text", "*, a path or an aggregate"},
		{"SELECT *‸, deviceId FROM devices", `","`, "FROM: an asterisk is selected alone"},
		{"SELECT ‸DISTINCT tags.a FROM devices", "DISTINCT", "COUNT(DISTINCT path), or GROUP BY, which gives each value once"},
		{"SELECT TOP ‸x * FROM devices", `"x"`, "a whole number behind TOP"},
		{"SELECT TOP ‸1.5 * FROM devices", "the number 1.5", "a whole number behind TOP"},
		{"SELECT TOP ‸99999999999 * FROM devices", "the number 99999999999", "a whole number behind TOP"},
		{"SELECT TOP (2 ‸* FROM devices", `"*"`, `")"`},
		{"SELECT * ‸FORM devices", `"FORM"`, "FROM and what to read: devices, devices.modules, devices.jobs or devices.runs; did you mean FROM?"},
		{"SELECT deviceId ‸FORM devices", `"FORM"`, "FROM; did you mean FROM?"},
		{"SELECT deviceId AS ‸FROM devices", `the reserved word "FROM"`, "a name, quoted if it is this one: [[FROM]]"},
		{"SELECT deviceId AS ‸5 FROM devices", "the number 5", "a name behind AS"},
		{"SELECT * FROM ‸c", `"c"`, "devices, devices.modules, devices.jobs or devices.runs"},
		{"SELECT * FROM ‸device", `"device"`, "devices, devices.modules, devices.jobs or devices.runs; did you mean devices?"},
		{"SELECT * FROM devices.‸module", `"module"`, "devices, devices.modules, devices.jobs or devices.runs; did you mean modules?"},
		{"SELECT * FROM devices ‸d WHERE d.x = 1", `"d"`, "no other name for devices: paths begin with attributes, or with devices."},
		{"SELECT * FROM devices ‸JOIN devices.modules", `"JOIN"`, "no JOIN: a query reads one collection"},
		{"SELECT * FROM devices ‸WERE x = 1", `"WERE"`, "WHERE, ORDER BY, LIMIT, OFFSET or the end of the text; did you mean WHERE?"},
		{"SELECT * FROM devices‸; DROP", `";"`, "no semicolon: a query ends where its text does"},
		{"SELECT ‸LENGTH(tags.a) FROM devices", `the function "LENGTH"`, "a path or an aggregate: COUNT, AVG, SUM, MIN or MAX; functions stand behind WHERE"},
		{"SELECT ‸CONT() FROM devices", `the function "CONT"`, "a path or an aggregate: COUNT, AVG, SUM, MIN or MAX; did you mean COUNT?"},
		{"SELECT AVG(‸) FROM devices", `")"`, "a path in AVG"},
		{"SELECT AVG(‸DISTINCT tags.a) FROM devices", `"DISTINCT"`, "a path: DISTINCT stands in COUNT only"},
		{"SELECT COUNT(tags.a ‸FROM devices", `"FROM"`, `")"`},
		{"SELECT ‸connected FROM devices", "the condition connected", "connectionState"},
		{"SELECT properties.reported.battery, ‸properties.desired.battery FROM devices", `a second item with the name "battery"`, "another name behind AS: an item before has this one"},
		{"SELECT deviceId, ‸DEVICEID FROM devices", `a second item with the name "deviceId"`, "another name behind AS: an item before has this one"},
		{"SELECT COUNT(tags.a), COUNT() n, ‸COUNT(DISTINCT tags.a) FROM devices", `a second item with the name "count_a"`, "another name behind AS: an item before has this one"},
		{"SELECT tags.a AS b, ‸tags.b FROM devices", `a second item with the name "b"`, "another name behind AS: an item before has this one"},
		{"SELECT ‸tags.a, COUNT() FROM devices", "a path that differs within a group", "an aggregate of it, or GROUP BY with this path"},
		{"SELECT tags.a, ‸tags.b FROM devices GROUP BY tags.a", "a path that differs within a group", "an aggregate of it, or GROUP BY with this path"},
		{"SELECT * FROM devices ‸GROUP BY tags.a", "GROUP BY", "paths and aggregates behind SELECT: a group is no twin"},
		{"SELECT tags.a FROM devices GROUP ‸tags.a", `"tags"`, "BY behind GROUP"},
		{"SELECT tags.a FROM devices GROUP BY ‸5", "the number 5", "a path behind GROUP BY"},
		{"SELECT deviceId FROM devices ‸HAVING COUNT() > 1", "HAVING", "WHERE: there are no groups and no aggregates"},
		{"SELECT COUNT() FROM devices HAVING ‸tags.a > 1", "a path that differs within a group", "an aggregate, its name, or a path of GROUP BY"},
		{"SELECT COUNT() FROM devices ORDER BY ‸tags.a", "a path that differs within a group", "the name of an aggregate, or a path of GROUP BY"},
		{"SELECT COUNT() FROM devices ORDER BY ‸AVG(tags.a)", "an aggregate that is not selected", "it behind SELECT, too"},
		{"SELECT * FROM devices ORDER ‸deviceId", `"deviceId"`, "BY behind ORDER"},
		{"SELECT * FROM devices ORDER BY ‸1", "the number 1", "a path or the name of what is selected"},
		{"SELECT * FROM devices LIMIT ‸-1", `"-"`, "a whole number behind LIMIT"},
		{"SELECT tags.a FROM devices ‸5", "the number 5", "WHERE, GROUP BY, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT tags.a FROM devices ‸GRUOP BY tags.a", `"GRUOP"`, "WHERE, GROUP BY, ORDER BY, LIMIT, OFFSET or the end of the text; did you mean GROUP?"},
		{"SELECT COUNT() FROM devices ‸5", "the number 5", "WHERE, GROUP BY, HAVING, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT tags.a FROM devices WHERE connected ‸x", `"x"`, "AND, OR, an operator, GROUP BY, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT tags.a FROM devices GROUP BY tags.a ‸x", `"x"`, "HAVING, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT tags.a FROM devices GROUP BY tags.a HAVING COUNT() > 1 ‸x", `"x"`, "AND, OR, an operator, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT * FROM devices ORDER BY tags.a ‸DESCC", `"DESCC"`, "ASC, DESC, LIMIT, OFFSET or the end of the text; did you mean DESC?"},
		{"SELECT * FROM devices ORDER BY tags.a DESC, tags.b ASC ‸x", `"x"`, "LIMIT, OFFSET or the end of the text"},
		{"SELECT TOP 5 * FROM devices ORDER BY tags.a ASC ‸x", `"x"`, "OFFSET or the end of the text"},
		{"SELECT * FROM devices LIMIT 5 ‸x", `"x"`, "OFFSET or the end of the text"},
		{"SELECT * FROM devices LIMIT 5 OFFSET 1 ‸x", `"x"`, "the end of the text"},
		{"SELECT * FROM devices OFFSET 1 ‸x", `"x"`, "LIMIT or the end of the text"},
		{"SELECT TOP 5 * FROM devices OFFSET 1 ‸x", `"x"`, "the end of the text"},
		{"SELECT * FROM devices OFFSET 1 LIMIT 2 ‸OFFSET 1", `"OFFSET"`, "each clause once and in its order: WHERE, GROUP BY, HAVING, ORDER BY, LIMIT, OFFSET"},
		{"SELECT * FROM devices ORDER BY tags.a ‸WHERE connected", `"WHERE"`, "each clause once and in its order: WHERE, GROUP BY, HAVING, ORDER BY, LIMIT, OFFSET"},
		{"SELECT * FROM devices.jobs WHERE jobId = 'j' ‸x", `"x"`, "AND, OR, an operator, LIMIT, OFFSET or the end of the text"},
		{"SELECT runId FROM devices.runs ‸x", `"x"`, "WHERE, GROUP BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT phase FROM devices.runs GROUP BY phase ‸x", `"x"`, "HAVING, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{"SELECT COUNT() FROM devices GROUP BY ‸LOWER(tags.s)", `the function "LOWER"`, "a path behind GROUP BY; functions stand behind WHERE"},
		{"SELECT COUNT() FROM devices GROUP BY tags.a, ‸count()", "the aggregate COUNT", "a path behind GROUP BY; aggregates stand behind SELECT, and in HAVING"},
		{"SELECT TOP 3 * FROM devices ‸LIMIT 5", "LIMIT beside TOP", "one of both"},
		{"SELECT ‸deviceId FROM devices.jobs", "a selection", "SELECT *: jobs are selected whole"},
		{"SELECT ‸COUNT() AS n FROM devices.jobs", "a selection", "SELECT *: jobs are selected whole"},
		{"SELECT * FROM devices.jobs WHERE ‸tags.a = 1", `"tags"`, "an attribute of a job's device: deviceId, moduleId, jobId, jobType, status, startTimeUtc, endTimeUtc, createdDateTimeUtc, lastUpdatedDateTimeUtc, outcome, error"},
		{"SELECT ‸moduleId FROM devices", `"moduleId"`, "an attribute of devices; moduleId is one of devices.modules"},
		{where + "‸", "the end of the text", "a path, a value, a function or a bracket"},
		{where + "tags.‸group.name = 'g1'", `the reserved word "group"`, "a name, quoted if it is this one: tags.[[group]]"},
		{where + "tags.[[a b]].‸group = 1", `the reserved word "group"`, "a name, quoted if it is this one: tags.[[a b]].[[group]]"},
		{where + "tags.[[a b]].‸5g = 1", `"5g"`, "a name, quoted if it begins with a digit: tags.[[a b]].[[5g]]"},
		{where + "‸[[my-tag]].x = 1", `"my-tag"`, "tags.[[my-tag]].x, properties.desired.[[my-tag]].x or properties.reported.[[my-tag]].x for a property of your own, or an attribute: " + strings.Join(twinRoots[:], ", ")},
		{where + "tags.my-‸key = 1", `"key" behind a minus`, "a number or an attribute; a name with a dash is written [[my-key]]"},
		{where + "tags.‸5g = 1", `"5g"`, "a name, quoted if it begins with a digit: tags.[[5g]]"},
		{where + "tags.‸= 1", `"="`, "a name behind the dot"},
		{where + "tags.list‸[0] = 1", `"["`, "an operator; elements of an array have no path: see ARRAY_CONTAINS"},
		{where + "‸[[]] = 1", "[[ ]] without a name", "a property's name in it, as in tags.[[my-key]]"},
		{where + "tags.‸[[a = 1", "[[ without its end", "]] behind the quoted name"},
		{where + "tags.‸[[a]]]] = 1", "[[ without its end", "]] behind the quoted name; ]]]] is ]] in it"},
		{where + "tags.a ‸[[b]]]]c]] = 1", "[[b]]]]c]]", "AND, OR, an operator, ORDER BY, LIMIT, OFFSET or the end of the text"},
		{where + "‸myProp = 1", `"myProp"`, "tags.myProp, properties.desired.myProp or properties.reported.myProp for a property of your own, or an attribute: deviceId, etag, deviceEtag, version, status, statusReason, statusUpdateTime, connectionState, lastActivityTime, cloudToDeviceMessageCount, authenticationType, x509Thumbprint, capabilities, deviceScope, parentScopes, modelId, tags, properties, configurations"},
		{where + "‸tag.a = 1", `"tag"`, "an attribute; did you mean tags?"},
		{where + "‸generationId = '1'", `"generationId", which is part of the identity and not of the twin`, "one of deviceId, etag, deviceEtag, version, status, statusReason, statusUpdateTime, connectionState, lastActivityTime, cloudToDeviceMessageCount, authenticationType, x509Thumbprint, capabilities, deviceScope, parentScopes, modelId, tags, properties, configurations"},
		{where + "properties.‸reportd.a = 1", `"reportd" below properties`, "desired or reported; did you mean reported?"},
		{where + "capabilities.‸edge = true", `"edge" below capabilities`, "iotEdge"},
		{where + "‸devices.modules.moduleId = 'm'", `"devices.modules"`, "an attribute of devices, which the query reads"},
		{where + "connected.‸x = 1", `"x" below connected`, "nothing below it: connected is true or false"},
		{where + "tags.a = 1 ‸ADN tags.b = 2", `"ADN"`, "AND, OR, an operator, ORDER BY, LIMIT, OFFSET or the end of the text; did you mean AND?"},
		{where + "tags.a ‸IS NULL", `"IS"`, "= null, or a function: IS_DEFINED(path), IS_NULL(path)"},
		{where + "tags.a ‸contains 'x'", `"contains"`, "it as a function: CONTAINS(path, 'text')"},
		{where + "tags.a ‸matches 'x'", `"matches"`, "REGEXP, the operator for regular expressions"},
		{where + "tags.a ‸ILIKE 'x'", `"ILIKE"`, "LIKE, with LOWER(path) on its left"},
		{where + "tags.a = ‸berlin", `"berlin"`, "a string in quotes, 'berlin', or an attribute"},
		{where + "tags.a ‸== 1", `"=="`, `"="`},
		{where + "tags.a =‸! 1", `"!"`, "NOT"},
		{where + "tags.a = 1 ‸&& tags.b = 2", `"&&"`, "AND"},
		{where + "tags.a = 1 ‸|| tags.b = 2", `"||"`, "OR"},
		{where + "1 < tags.a ‸< 5", "a second comparison", "AND between comparisons"},
		{where + "tags.a ‸=~ 'x'", `"=~"`, "REGEXP, the operator for regular expressions"},
		{where + "tags.ring IN ‸(1,2)", `"("`, "square brackets: IN ['a', 'b']"},
		{where + "tags.ring IN ‸tags.list", `"tags"`, "a list in square brackets: ['a', 'b']; for an array in the twin see ARRAY_CONTAINS"},
		{where + "tags.ring IN [1‸; 2]", `";"`, `"," or "]"`},
		{where + "tags.ring IN [1, ‸tags.b]", `"tags"`, "a constant: a number, a string, true, false, null or undefined"},
		{where + "tags.ring IN [-‸'a']", `the string "a"`, "a number behind the minus"},
		{where + "tags.a NOT ‸LIK 'x'", `"LIK"`, "IN, LIKE, BETWEEN or REGEXP behind NOT; did you mean LIKE?"},
		{where + "tags.a LIKE ‸tags.b", "what is no string", "a pattern in quotes"},
		{where + "tags.a REGEXP ‸'('", "a regular expression that can't be used", "RE2's syntax: error parsing regexp: missing closing ): `(`"},
		{where + "tags.a REGEXP ‸'a{900}b{900}'", "a regular expression that can't be used", "a simpler one: its parts and repetitions make more than 250 steps a character"},
		{where + "tags.a BETWEEN 1 ‸OR 2", `"OR"`, "AND between the bounds of BETWEEN"},
		{where + "(tags.a BETWEEN 1 ‸AND 2) BETWEEN 3 AND 4", "a condition within what is compared twice", "a path, a value or a function of these"},
		{where + strings.Repeat("tags.a REGEXP '[a-z]{200}' OR ", 4) + "tags.a REGEXP ‸'[a-z]{200}'", "a pattern too much", "fewer or simpler ones: together they make more than 1000 steps a character"},
		{where + "(tags.a = 1‸", "the end of the text", `")"`},
		{where + "tags.a = 1‸)", `")"`, "no bracket that was not opened"},
		{where + "tags.a = ‸'abc", "a string without its end", "' behind it"},
		{where + "tags.a = 'x'‸'y'", "a doubled quote", `a backslash before a quote in a string: \'`},
		{where + `tags.a = 'x‸\d'`, `the unknown escape \d`, `one of \' \" \\ \n \r \t \uXXXX; a backslash itself is \\`},
		{where + `tags.a = 'x‸\u12'`, `a broken \u escape`, `\u and four hexadecimal digits, as in \u00e9; two of them for what is beyond \uffff`},
		{where + "tags.a = ‸0xZZ", `"0xZZ"`, "a hexadecimal number such as 0xFF, of at most 16 digits"},
		{where + "tags.a = ‸1e999", `"1e999"`, "a number that a 64-bit float can hold"},
		{where + "tags.a = ‸15m", `"15m"`, "a number; a duration stands only behind now() - "},
		{where + "tags.a = ‸#", "'#'", "a name, a value or an operator"},
		{where + "tags.a = 1 ‸/* x", "a comment without its end", "*/ behind it"},
		{where + "‸\xff = 1", "a byte that is not UTF-8", "a name, a value or an operator"},
		{where + "‸STARTWITH(deviceId, 'd')", `the function "STARTWITH"`, "a function that there is; did you mean STARTSWITH?"},
		{where + "‸FOO(deviceId)", `the function "FOO"`, "one of " + strings.Join(functionNames(), ", ")},
		{where + "‸COUNT() > 1", "the aggregate COUNT", "a condition on single devices; what counts or sums stands behind SELECT, or in HAVING"},
		{where + "‸CONTAINS(deviceId)", "CONTAINS with 1 argument", "CONTAINS(string, part)"},
		{where + "IS_DEFINED(tags.a, ‸tags.b)", "IS_DEFINED with 2 arguments", "IS_DEFINED(path)"},
		{where + "CONTAINS(deviceId ‸'d')", `the string "d"`, `"," or ")"`},
		{where + "‸now() = 5", "now()", "it in a comparison with <, <=, > or >= and a path on the other side, as in lastActivityTime < now() - 15m"},
		{where + "5 < ‸now()", "now()", "it in a comparison with <, <=, > or >= and a path on the other side, as in lastActivityTime < now() - 15m"},
		{where + "lastActivityTime < now() - ‸15x", `"15x"`, "a duration such as 15m, 12h or 7d, of the units ms, s, m, h, d and w"},
		{where + "lastActivityTime < now() - ‸5", "the number 5", "a duration such as 15m, 12h or 7d, of the units ms, s, m, h, d and w"},
		{where + "lastActivityTime < now() - 30000d - ‸30000d", `"30000d"`, "at most a hundred years from now"},
		{where + strings.Repeat("(", 100) + "‸", "the end of the text", "a path, a value, a function or a bracket"},
		{where + strings.Repeat("(", 100) + "‸(1", `"(" nested more than 100 levels deep`, "a flatter condition"},
		{where + "tags" + strings.Repeat(".a", 63) + ".‸b = 1", "a path of more than 64 names", "a shorter one: twins nest less deeply"},
	} {
		checkError(t, c.text, c.found, c.expected, func(text string) error { _, err := Parse(text, Options{}); return err })
	}
}

// checkError parses a text, from which the mark of the place is taken, and
// compares the error.
func checkError(t *testing.T, marked, found, expected string, parse func(string) error) {
	t.Helper()
	at := strings.Index(marked, "‸")
	text := strings.Replace(marked, "‸", "", 1)
	e, ok := errors.AsType[*Error](parse(text))
	if !ok {
		t.Errorf("%s: got no *Error", marked)
		return
	}
	if e.At != at || e.Found != found || e.Expected != expected || e.Text != text {
		t.Errorf("%s\n got %d %s; %s\nwant %d %s; %s\n%s", marked, e.At, e.Found, e.Expected, at, found, expected, e.Caret())
	}
}

func TestStrictErrors(t *testing.T) {
	t.Parallel()
	const where = "SELECT * FROM devices WHERE "
	const strictly = "IoT Hub's own language: the hub runs with IoT Hub's limits, which refuse extensions"
	for _, c := range []struct{ text, what string }{
		{where + "‸STARTS_WITH(deviceId, 'd')", "STARTS_WITH"},
		{"SELECT moduleId, COUNT() AS n FROM devices.modules ‸GROUP BY moduleId", "GROUP BY on modules"},
		{"SELECT tags.a, COUNT() AS n FROM devices GROUP BY tags.a, ‸tags.b", "a second path in GROUP BY"},
		{"SELECT * FROM devices ‸ORDER BY deviceId", "ORDER BY"},
		{"SELECT * FROM devices ‸LIMIT 5", "LIMIT"},
		{"SELECT * FROM devices ‸OFFSET 5", "OFFSET"},
		{"SELECT TOP ‸(5) * FROM devices", "TOP with brackets"},
		{"SELECT COUNT(‸*) FROM devices", "COUNT(*)"},
		{"SELECT COUNT(‸tags.a) FROM devices", "COUNT(path)"},
		{"SELECT COUNT(‸DISTINCT tags.a) FROM devices", "COUNT(DISTINCT path)"},
		{"SELECT tags.a, COUNT() FROM devices GROUP BY tags.a ‸HAVING COUNT() > 1", "HAVING"},
		{where + "tags.a ‸LIKE 'x'", "LIKE"},
		{where + "tags.a ‸NOT IN [1]", "NOT IN"},
		{where + "tags.a ‸REGEXP 'x'", "REGEXP"},
		{where + "tags.a ‸BETWEEN 1 AND 2", "BETWEEN"},
		{where + "lastActivityTime < ‸now() - 5m", "NOW"},
		{where + "‸GEO_DISTANCE(1, 2, 3, 4) < 5", "GEO_DISTANCE"},
		{where + "‸contains(deviceId, 'd')", "CONTAINS"},
		{where + "‸IS_STRING(tags.a)", "IS_STRING"},
		{where + "‸reported.a = 1", "the alias reported"},
		{where + "‸desired.a = 1", "the alias desired"},
		{where + "‸connected", "the alias connected"},
	} {
		checkError(t, c.text, c.what+", an extension of Muster's", strictly, func(text string) error { _, err := Parse(text, Options{Strict: true}); return err })
		if _, err := Parse(strings.Replace(c.text, "‸", "", 1), Options{}); err != nil {
			t.Errorf("%s: refused though it is an extension: %v", c.text, err)
		}
	}
}

// TestStrictClauses names no extension where the end was expected.
func TestStrictClauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, expected string }{
		{"SELECT * FROM devices ‸5", "WHERE or the end of the text"},
		{"SELECT * FROM devices WHERE tags.a = 1 ‸5", "AND, OR, an operator or the end of the text"},
		{"SELECT COUNT() FROM devices ‸5", "WHERE, GROUP BY or the end of the text"},
		{"SELECT moduleId FROM devices.modules ‸5", "WHERE or the end of the text"},
		{"SELECT tags.a, COUNT() FROM devices GROUP BY tags.a ‸5", "the end of the text"},
	} {
		checkError(t, c.text, "the number 5", c.expected, func(text string) error { _, err := Parse(text, Options{Strict: true}); return err })
	}
	checkError(t, "SELECT tags.a FROM devices GROUP BY tags.a ‸WHERE x", `"WHERE"`, "each clause once and in its order: WHERE, GROUP BY", func(text string) error { _, err := Parse(text, Options{Strict: true}); return err })
}

// TestCaretOfLongText: what is left out of a long text is seen to be, and the caret
// stands where it would.
func TestCaretOfLongText(t *testing.T) {
	t.Parallel()
	before, after := strings.Repeat("é", 60), strings.Repeat("z", 60)
	for _, c := range []struct{ before, after, want string }{
		{"", "", "x\n^"},
		{before[:40*2], after[:39], before[:40*2] + "x" + after[:39] + "\n" + strings.Repeat(" ", 40) + "^"},
		{before, after, "..." + before[:37*2] + "x" + after[:36] + "...\n" + strings.Repeat(" ", 40) + "^"},
		{before, "", "..." + before[:37*2] + "x\n" + strings.Repeat(" ", 40) + "^"},
	} {
		e := &Error{Text: c.before + "x" + c.after, At: len(c.before)}
		if got := e.Caret(); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
}

// TestTextLength bounds what is read, and what the error holds on to.
func TestTextLength(t *testing.T) {
	t.Parallel()
	long := "SELECT * FROM devices WHERE tags.a = '" + strings.Repeat("é", 8300) + "'"
	if _, err := Parse(long, Options{}); err != nil {
		t.Errorf("a long query: %v", err)
	}
	_, err := Parse(long, Options{Strict: true})
	if want := "column 8193: found 8339 characters, expected at most 8192 characters in IoT Hub's language"; err == nil || !strings.HasSuffix(err.Error(), "at most 8192 characters in IoT Hub's language") {
		t.Errorf("got %v, want something like %s", err, want)
	}
	huge := strings.Repeat("x", 10<<20)
	for name, parse := range map[string]func() error{
		"query":     func() error { _, err := Parse(huge, Options{}); return err },
		"predicate": func() error { _, err := ParsePredicate(huge); return err },
	} {
		e, ok := errors.AsType[*Error](parse())
		if !ok || e.At != maxText || len(e.Text) != maxText || e.Found != "10485760 bytes" {
			t.Errorf("%s: got %v", name, e)
		}
	}
}

func TestBareErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, found, expected string }{
		{"‸", "the end of the text", "a path, a value, a function or a closing bracket"},
		{"tags.a ‸= 1", `"="`, "== to compare"},
		{"tags.a ‸<> 1", `"<>"`, "!="},
		{"tags.a == 1 ‸AND tags.b == 2", `"AND"`, "and"},
		{"‸NOT connected", `"NOT"`, "not"},
		{"tags.a ‸LIKE 'x%'", `"LIKE"`, "contains, startsWith, endsWith or matches"},
		{"tags.a ‸IS nil", `"IS"`, "== nil, or IS_DEFINED(path)"},
		{"‸not tags.a == 1", `"not", which here applies to the left side alone`, "brackets: not (a == b)"},
		{"(tags.a == 1‸", "the end of the text", "a path, a value, a function or a closing bracket"},
		{"tags.a == 1‸)", `")"`, "an operator such as ==, and, or, in, or the end of the text"},
		{"tags.a == \"x‸", "the end of the line within a string", "its closing quote"},
		{"tags.a == ‸5m", "a number with a letter behind it", `a number, or a duration in quotes: now() - "15m"`},
		{"tags.a == 'é' and ‸foo.bar == 1", `"foo"`, "tags.foo.bar, properties.desired.foo.bar or properties.reported.foo.bar for a property of your own, or an attribute: deviceId, etag, deviceEtag, version, status, statusReason, statusUpdateTime, connectionState, lastActivityTime, cloudToDeviceMessageCount, authenticationType, x509Thumbprint, capabilities, deviceScope, parentScopes, modelId, tags, properties, configurations"},
		{"‸reportd.a == 1", `"reportd"`, "an attribute; did you mean reported?"},
		{"properties.‸x.a == 1", `"x" below properties`, "desired or reported"},
		{"tags.a == ‸berlin", `"berlin"`, "a string in quotes, 'berlin', or an attribute"},
		{"tags.a[‸0] == 1", "what is no name", `a name in quotes, as in tags["my-key"]; elements of an array have no path: see ARRAY_CONTAINS`},
		{"tags.a[0‸:1] == 1", `":"`, "no slices and no choice between values"},
		{"tags.a ‸? 1 : 2", `"?"`, "and, or: there is no choice between values"},
		{"tags.a ‸?? 1", `"??"`, "a comparison: see IS_DEFINED(path)"},
		{"tags.a in 1‸..5", `".."`, "two comparisons, as in 1 <= path and path <= 5"},
		{"tags.a ‸** 2 > 1", `"**"`, "POWER(number, exponent)"},
		{"‸let x = 1; x", `"let"`, "a condition without variables"},
		{"‸len(tags.a) > 1", `the function "len"`, "a function that there is; did you mean LENGTH?"},
		{"‸filter(tags.a, true)", `the function "filter"`, "one of " + strings.Join(functionNames(), ", ")},
		{"filter(tags.a, ‸# > 1)", `"#"`, "a path"},
		{"tags.a ‸| LENGTH()", `"|"`, "or between conditions: there are no pipes"},
		{"‸{\"a\": 1} == 1", `"{"`, "a path, a value, a function or a bracket"},
		{"tags.a matches ‸tags.b", "what is no string", "a pattern in quotes"},
		{"tags.a matches ‸\"(\"", "a regular expression that can't be used", "RE2's syntax: error parsing regexp: missing closing ): `(`"},
		{"tags.a in [1, ‸tags.b]", "what is no constant", "a constant: a number, a string, true, false or nil"},
		{"tags.a in ‸5", "what is no list", "a list, as in [1, 2], or the path of an array"},
		{"‸now() == 5", "now()", `it in a comparison with <, <=, > or >= and a path on the other side, as in lastActivityTime < now() - "15m"`},
		{"lastActivityTime < now() - ‸5", "what is no duration", durationExpected + `, in quotes: now() - "15m"`},
		{"lastActivityTime < now() - ‸\"5x\"", `the string "5x"`, durationExpected},
		{"tags.a == ‸b\"x\"", "a string of bytes", "a string without the b before its quote"},
		{"tags.a.‸LENGTH() > 1", "a function of a value", "a function's name: LENGTH(path) or CONTAINS(path, text)"},
		{"1 < (1 ‸< tags.a) < 5", "a condition within what is compared twice", "a path, a value or a function of these"},
		{strings.Repeat("(1 < ", 50) + "(1 ‸< tags.a) < 5" + strings.Repeat(") < 5", 50), "a condition within what is compared twice", "a path, a value or a function of these"},
		{"connected.‸x", `"x" below connected`, "nothing below it: connected is true or false"},
		{strings.Repeat("(", 100) + "‸(1", `"(" nested more than 100 levels deep`, "a flatter condition"},
		{strings.Repeat("!", 100) + "‸!true", `"!" nested more than 100 levels deep`, "a flatter condition"},
		{"tags.a == \"‸\xff\"", "a byte that is not UTF-8", "UTF-8"},
		{"tags.a == \"x\\‸q\"", "an unknown escape in a string", `one of \' \" \\ \n \t \uXXXX; a backslash itself is \\`},
		{`tags.a == "x‸\ud83d"`, brokenEscape, escapeExpected},
		{`tags.a == "‸\ud83dx\ude00"`, brokenEscape, escapeExpected},
		{`tags["‸\ude00\ud83d"] == 1`, brokenEscape, escapeExpected},
		{`tags.a == "‸\u{d83d}\u{de00}"`, brokenEscape, escapeExpected},
		{`tags.a == "‸\U0000d83d"`, brokenEscape, escapeExpected},
		{`tags.a == "é\ud83d\ude00" and tags["\ud83d\ude00"] == ‸berlin`, `"berlin"`, "a string in quotes, 'berlin', or an attribute"},
		{`tags.a == "\ud83d\ude00" and "\ud83d\ude00" == 1‸)`, `")"`, "an operator such as ==, and, or, in, or the end of the text"},
		{`tags["\ud83d\ude00"] == ‸`, "the end of the text", "a path, a value, a function or a closing bracket"},
		{"tags.a == 1 ‸/* x", "a comment without its end", "*/ behind it"},
		{"tags.a == ‸999999999999999999999", "a number that is too large", "a number that a 64-bit float can hold, with a decimal point"},
	} {
		checkError(t, c.text, c.found, c.expected, func(text string) error { _, err := ParsePredicate(text); return err })
	}
}
