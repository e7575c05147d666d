package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/rollout"
)

// whole has every member of a manifest.
const whole = `{
	"name": "firmware-update", "version": "1.2.0", "api": 1, "title": "Firmware", "summary": "Updates.\nWith care.", "author": "Ada",
	"params": {
		"url":    {"type": "string", "format": "uri", "title": "Where from"},
		"soak":   {"type": "string", "format": "duration", "default": "5m", "description": "Watch it for"},
		"slots":  {"type": "integer", "minimum": 1, "maximum": 4, "default": 2},
		"mode":   {"enum": ["fast", "safe"], "default": "safe"},
		"tuning": {"type": "object", "properties": {"rate": {"type": "number", "default": 1.5}}, "additionalProperties": false}
	},
	"required": ["url"],
	"needs": ["twin:read", "twin:desired:firmware", "method:firmwareConfirm", "http:hooks.example.net:8443", "secret:smtp"],
	"applies": "reported.firmware.slots == 2 and connected",
	"scope": "device", "conflicts": "replace", "timeout": "2d", "danger": true, "most": 100, "resumable": true,
	"rollout": {"waves": [{"size": 1, "soak": "10m", "health": {"where": "reported.health.errors > 0"}}, {"size": "100%"}], "parallel": 200,
		"abort": [{"share": "5%", "least": 3}]},
	"triggers": [
		{"when": "reported.firmware.state == 'failed'", "params": {"url": "https://a.example/x"}},
		{"event": "connected", "where": "tags.site == 'A'", "params": {"url": "https://a.example/x"}},
		{"cron": "0 3 * * *", "zone": "Europe/Paris", "params": {"url": "https://a.example/x"}}
	],
	"hasUndo": true, "hasGate": true, "hasCheck": true
}`

func TestParseManifest(t *testing.T) {
	t.Parallel()
	m, err := ParseManifest([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if m.Conflicts != ConflictReplace || m.Triggers[2].Zone != "Europe/Paris" || m.Rollout.Parallel != 200 || !m.HasGate {
		t.Errorf("read as %+v", m)
	}
	again, err := ParseManifest(marshal(m))
	if err != nil || !reflect.DeepEqual(marshal(again), marshal(m)) {
		t.Errorf("its own JSON form is read otherwise: %v", err)
	}
	least, err := ParseManifest([]byte(`{"name": "a", "version": "0.1.0", "needs": {}, "required": { }, "rollout": {"waves": {}}}`))
	if err != nil || least.API != API || least.Scope != ScopeDevice || least.Conflicts != ConflictQueue {
		t.Errorf("the least manifest: %+v, %v", least, err)
	}
}

// TestManifestMembers has each wrong member named by its path, with what was
// found and expected.
func TestManifestMembers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 70)
	for _, c := range []struct{ change, path, found, expected string }{
		{`"name": ""`, "name", "is missing", "small letters"},
		{`"name": "Firmware"`, "name", `is "Firmware"`, "small letters"},
		{`"name": "a--b"`, "name", `is "a--b"`, "small letters"},
		{`"name": "-a"`, "name", `is "-a"`, "small letters"},
		{`"name": "1a"`, "name", `is "1a"`, "small letters"},
		{`"name": "` + long + `"`, "name", "has 70 characters", "at most 64"},
		{`"name": "keys"`, "name", "a meaning of its own", "another"},
		{`"name": 7`, "name", "found 7", "a text"},
		{`"version": "1.2"`, "version", `is "1.2"`, "a semantic version"},
		{`"version": ""`, "version", "is missing", "a semantic version"},
		{`"api": 2`, "api", "is 2", "1, the host API"},
		{`"title": "` + strings.Repeat(long, 2) + `"`, "title", "has 140 characters", "at most 128"},
		{`"title": "a\u0007b"`, "title", "no text", "printable"},
		{`"author": "a\nb"`, "author", "no text", "printable"},
		{`"nmae": "x"`, "manifest", `no member "nmae"`, `did you mean "name"?`},
		{`"name": "a", "name": "b"`, "name", "comes twice", ""},
		{`"params": []`, "params", "found []", "an object"},
		{`"params": {"a b": {}}`, "params.a b", `is called "a b"`, "letters"},
		{`"params": {"a": 5}`, "params.a", "found 5", "a JSON Schema"},
		{`"params": {"a": {"type": "text"}}, "required": []`, "params", `found "text"`, ""},
		{`"params": {"a": {"type": "string", "format": "durable"}}`, "params.a.format", `is "durable"`, "duration, query"},
		{`"params": {"a": {"type": "string", "pattern": "(("}}`, "params", "", ""},
		{`"params": {"a": {"$ref": "https://x.example/y"}}`, "params", "outside", ""},
		{`"params": {"a": {"type": "integer", "default": "x"}}, "required": []`, "params.a.default", `found "x"`, "integer"},
		{`"params": {"a": {"type": "string", "format": "duration", "default": "soon"}}`, "params.a.default", `found "soon"`, "a duration such as"},
		{`"params": {"a": {"type": "string", "format": "query", "default": "a =="}}`, "params.a.default", `found "a =="`, "a predicate"},
		{`"params": {"a": {"type": "string", "format": "secret", "default": "a b"}}`, "params.a.default", `found "a b"`, "the name of a secret"},
		{`"params": {"a": {"type": "string", "format": "regex", "default": "("}}`, "params.a.default", `found "("`, "a regular expression"},
		{`"required": ["urk"]`, "required[0]", `is "urk", which is no parameter`, "mode, slots"},
		{`"required": ["url", "url"]`, "required[1]", "comes twice", ""},
		{`"needs": ["twin:red"]`, "needs[0]", `"twin:red" is not a capability`, "twin:read, twin:desired or twin:tags"},
		{`"needs": ["twin:read", "twin:read"]`, "needs[1]", "comes twice", ""},
		{`"needs": ["method"]`, "needs[0]", "lacks what it is for", "method:NAME"},
		{`"needs": ["method:a b"]`, "needs[0]", "names no method", "ASCII"},
		{`"needs": ["http:127.0.0.1"]`, "needs[0]", "names no host", "its full name"},
		{`"needs": ["http:localhost"]`, "needs[0]", "names no host", "its full name"},
		{`"needs": ["http:*.example.net"]`, "needs[0]", "names no host", "its full name"},
		{`"needs": ["http:a.example:99999"]`, "needs[0]", "names no host", "its full name"},
		{`"needs": ["http:a.example/x"]`, "needs[0]", "names no host", "its full name"},
		{`"needs": ["twin:desired:a..b"]`, "needs[0]", "names no property", "dots between"},
		{`"needs": ["secret:a/b"]`, "needs[0]", "names no secret", "letters"},
		{`"needs": "twin:read"`, "needs", "found", "a list"},
		{`"applies": "tags.site = "`, "applies", "at column", ""},
		{`"applies": "` + strings.Repeat("a", 9000) + `"`, "applies", "has 9000 bytes", "at most 8192"},
		{`"scope": "galaxy"`, "scope", `is "galaxy"`, "device or fleet"},
		{`"scope": "fleet"`, "applies", "the scope is fleet", "nothing"},
		{`"conflicts": "fight"`, "conflicts", `is "fight"`, "queue, skip"},
		{`"timeout": "0.5s"`, "timeout", "is 500ms", "1s to"},
		{`"timeout": "later"`, "timeout", "", ""},
		{`"most": -1`, "most", "is -1", "0 (any number)"},
		{`"rollout": {"waves": [{"size": 5}, {"size": 3}]}`, "rollout.waves[1].size", "", ""},
		{`"rollout": {"wave": []}`, "rollout", `no member "wave"`, "waves"},
		{`"rollout": {"end": "2030-01-01T00:00:00Z"}`, "rollout.start", "", "a job's own"},
		{`"rollout": {"repeat": "0 3 * * *"}`, "rollout.repeat", "", "trigger"},
		{`"rollout": {"waves": [{"size": 1, "health": {"where": "a =="}}]}`, "rollout.waves[0].health.where", "at column", ""},
		{`"triggers": [{}]`, "triggers[0]", "doesn't say when", "exactly one"},
		{`"triggers": [{"cron": "0 3 * * *", "event": "connected"}]`, "triggers[0]", "has event and cron", "exactly one"},
		{`"triggers": [{"cron": "0 3 * *", "params": {"url": "x:y"}}]`, "triggers[0].cron", "", ""},
		{`"triggers": [{"cron": "0 3 * * *", "zone": "Mars/Base", "params": {"url": "x:y"}}]`, "triggers[0].zone", "no time zone", "an IANA name"},
		{`"triggers": [{"event": "conected", "params": {"url": "x:y"}}]`, "triggers[0].event", `is "conected"`, "connected, disconnected or created"},
		{`"triggers": [{"when": "a ==", "params": {"url": "x:y"}}]`, "triggers[0].when", "at column", ""},
		{`"triggers": [{"event": "created", "where": "a ==", "params": {"url": "x:y"}}]`, "triggers[0].where", "at column", ""},
		{`"triggers": [{"event": "created", "zone": "UTC", "params": {"url": "x:y"}}]`, "triggers[0].zone", "without cron", ""},
		{`"triggers": [{"event": "created"}]`, "triggers[0].params.url", "found nothing", "a value"},
		{`"triggers": [{"event": "created", "params": {"url": "x:y", "sots": 1}}]`, "triggers[0].params.sots", "is no parameter", `did you mean "slots"?`},
		{`"triggers": [{"event": "created", "params": {"url": "x:y"}}, {"event": "created", "params": {"url": "x:y"}}]`, "triggers[1]", "the same as triggers[0]", ""},
		{`"triggers": [{"evnt": "created"}]`, "triggers[0]", `no member "evnt"`, "event"},
	} {
		text := changed(t, c.change)
		_, err := ParseManifest(text)
		faults, ok := errors.AsType[rollout.Faults](err)
		if !ok {
			t.Errorf("%s: got %v, want a fault at %s", c.change, err, c.path)
			continue
		}
		if !slices.ContainsFunc(faults, func(f rollout.Fault) bool {
			return f.Path == c.path && strings.Contains(f.Reason, c.found) && strings.Contains(f.Expected, c.expected)
		}) {
			t.Errorf("%s: got %v, want %q at %s, expected %q", c.change, err, c.found, c.path, c.expected)
		}
	}
}

// changed is the whole manifest with members in the place of those that it has.
func changed(t *testing.T, change string) []byte {
	t.Helper()
	m, own := members([]byte(whole)), members([]byte("{"+change+"}"))
	if own == nil {
		t.Fatalf("%s is not JSON", change)
	}
	for name := range own {
		delete(m, name)
	}
	rest := marshal(m)
	return []byte("{" + change + "," + string(rest[1:]))
}

func TestManifestIsBounded(t *testing.T) {
	t.Parallel()
	many := func(n int, one func(i int) string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = one(i)
		}
		return strings.Join(list, ",")
	}
	for name, text := range map[string][]byte{
		"large":    []byte(`{"summary": "` + strings.Repeat("a", MaxManifest) + `"}`),
		"deep":     []byte(strings.Repeat(`{"a":`, 100_000)),
		"params":   changed(t, `"params": {`+many(70, func(i int) string { return fmt.Sprintf(`"a%d": {}`, i) })+`}`),
		"needs":    changed(t, `"needs": [`+many(200, func(i int) string { return fmt.Sprintf(`"method:a%d"`, i) })+`]`),
		"triggers": changed(t, `"triggers": [`+many(30, func(int) string { return `{"event": "created"}` })+`]`),
		"costly":   changed(t, `"params": {"a": {"anyOf": [`+many(600, func(int) string { return `{"type": "string"}` })+`]}}`),
		"nothing":  nil,
		"a list":   []byte(`[]`),
		"null":     []byte(`null`),
	} {
		_, err := ParseManifest(text)
		if faults, ok := errors.AsType[rollout.Faults](err); !ok || len(faults) > faultsMost || len(err.Error()) > 20_000 {
			t.Errorf("%s: got %.300v", name, err)
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	m, err := ParseManifest([]byte(`{"name": "a", "version": "1.0.0", "needs": ["identity:sign", "identity:revoke", "alert"],
		"params": {"r": {"type": "string", "format": "release"}}, "triggers": [{"enrolled": true}, {"alert": "x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Missing(), []string{"certificates", "alerts", "provisioning", "releases"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	m, err := ParseManifest([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ given, want string }{
		{`{"url": "https://a.example/<x>"}`, `{"mode":"safe","slots":2,"soak":"5m","url":"https://a.example/<x>"}`},
		{`{"url": "a:b", "soak": "1h", "tuning": {}}`, `{"mode":"safe","slots":2,"soak":"1h","tuning":{"rate":1.5},"url":"a:b"}`},
	} {
		got, err := m.Complete(json.RawMessage(c.given))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s and %v, want %s", c.given, got, err, c.want)
		}
		again, err := m.Complete(got)
		if err != nil || string(again) != c.want {
			t.Errorf("%s a second time: got %s and %v", c.given, again, err)
		}
	}
	for _, c := range []struct{ given, path, found, expected string }{
		{``, "url", "nothing", "it is required"},
		{`null`, "url", "nothing", "it is required"},
		{`[]`, "params", "found []", "a JSON object"},
		{`{"url": "a:b"} {}`, "params", "more than one", "a JSON object"},
		{`{"url": "a:b", "slots": 5}`, "slots", "found 5", "at most 4"},
		{`{"url": "a:b", "slots": 1.5}`, "slots", "found 1.5", "integer"},
		{`{"url": "a:b", "soak": "soon"}`, "soak", `found "soon"`, "a duration such as"},
		{`{"url": "a:b", "mode": "slow"}`, "mode", `found "slow"`, `"fast", "safe"`},
		{`{"url": "a:b", "tuning": {"rte": 1}}`, "tuning.rte", "found 1", "nothing"},
		{`{"url": "a:b", "Slots": 1}`, "Slots", "is no parameter", "mode, slots"},
		{`{"url": 1e999}`, "params", "out of range", ""},
		{`{"url": "` + strings.Repeat("a", MaxValue) + `"}`, "params", "bytes", "at most"},
		{strings.Repeat(`{"url":`, 50) + "1" + strings.Repeat("}", 50), "params", "too deep", "at most 32"},
	} {
		_, err := m.Complete(json.RawMessage(c.given))
		faults, _ := errors.AsType[rollout.Faults](err)
		if !slices.ContainsFunc(faults, func(f rollout.Fault) bool {
			return f.Path == c.path && strings.Contains(f.Reason, c.found) && strings.Contains(f.Expected, c.expected)
		}) {
			t.Errorf("%.60s: got %.300v, want %q at %s, expected %q", c.given, err, c.found, c.path, c.expected)
		}
	}
	none := &Manifest{}
	if got, err := none.Complete(nil); err != nil || string(got) != "{}" {
		t.Errorf("without parameters: got %s and %v", got, err)
	}
	if _, err := none.Complete(json.RawMessage(`{"a": 1}`)); err == nil || !strings.Contains(err.Error(), "has no parameters") {
		t.Errorf("one too many: got %v", err)
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	m, err := ParseManifest([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range m.Parameters() {
		low := "-"
		if p.Minimum != nil {
			low = fmt.Sprint(*p.Minimum)
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%t|%s|%d|%s", p.Name, p.Title, p.Type, p.Format, p.Required, p.Default, len(p.Enum), low))
	}
	want := []string{
		`url|Where from|string|uri|true||0|-`, `mode|mode|||false|"safe"|2|-`, `slots|slots|integer||false|2|0|1`,
		`soak|soak|string|duration|false|"5m"|0|-`, `tuning|tuning|object||false||0|-`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParameterValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, text, want string }{
		{"string", "12", `"12"`},
		{"string", `a "b"`, `"a \"b\""`},
		{"integer", " 12 ", "12"},
		{"integer", "x", ""},
		{"boolean", "true", "true"},
		{"object", `{"a": 1}`, `{"a": 1}`},
		{"array", `a,b`, ""},
		{"", "12", "12"},
		{"", "abc", `"abc"`},
	} {
		p := Parameter{Name: "a", Type: c.kind}
		got, err := p.Value(c.text)
		if string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q as %q: got %s and %v, want %s", c.text, c.kind, got, err, c.want)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(whole), []byte(`{"url": "a:b", "soak": "1h"}`))
	f.Add([]byte(`{"name": "a", "version": "1.0.0", "params": {"a": true}}`), []byte(`{"a": [1, null]}`))
	f.Fuzz(func(t *testing.T, text, params []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		form := marshal(m)
		again, err := ParseManifest(form)
		if err != nil || string(marshal(again)) != string(form) {
			t.Fatalf("its own JSON form is not read: %v\n%s", err, form)
		}
		m.Parameters()
		done, err := m.Complete(params)
		if err != nil {
			return
		}
		if twice, err := m.Complete(done); err != nil || string(twice) != string(done) {
			t.Fatalf("what was completed is not complete: %v\n%s\n%s", err, done, twice)
		}
	})
}
