package service

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// formScript has a parameter for each kind of control, and an author who would
// like to be markup.
func formScript() enginetest.Script {
	return enginetest.Script{
		Manifest: pattern.Manifest{
			Name: "fill", Title: "<b>Fill</b>", Summary: "Takes </script><img src=x onerror=alert(1)> everything.", Danger: true, Required: []string{"reason"},
			Params: json.RawMessage(`{"reason":{"type":"string","minLength":3,"title":"<i>Reason</i>","description":"Why & \"what for\"."},"delay":{"type":"integer","minimum":0,"maximum":60,"default":5},` +
				`"share":{"type":"number","maximum":1},"keep":{"type":"boolean","default":true},"force":{"type":"boolean"},"how":{"enum":["soft","<hard>"],"default":"soft"},` +
				`"tuning":{"type":"object","default":{"level":1}},"tags":{"type":"array","items":{"type":"string"}},"text":{"type":"string","default":"a\nb"},"token":{"type":"string","format":"secret","default":"smtp"}}`),
		},
		Run: func(*enginetest.Play) (any, error) { return nil, nil },
	}
}

func TestPatternForms(t *testing.T) {
	older := rebootScript()
	older.Manifest.Version = "0.9.0"
	scripts := enginetest.NewScripts(rebootScript(), older, formScript(), fleetScript())
	f := newFixture(t, enginetest.WithScripts(scripts))
	enginetest.InstallScripts(t, f.hub, scripts)
	if _, err := f.hub.PutPolicy(t.Context(), enginetest.Owner(), auth.SharedAccessPolicy{Name: "status", Permissions: auth.StatusRead}); err != nil {
		t.Fatal(err)
	}
	f.learnKeys()
	status := f.as("status")
	const root = "/api/v1/pattern-forms"

	f.do("GET", root, "", status).want(200).golden("pattern-forms")
	first := f.do("GET", root+"?limit=3", "", status).want(200).is("items.2.version", `"1.0.0"`)
	f.do("GET", root+"?limit=3&cursor="+first.text("cursor"), "", status).want(200).is("items.0.version", `"0.9.0"`).is("items.0.default", "false").is("cursor", `""`)
	form := f.do("GET", root+"/fill", "", status).want(200).golden("pattern-form")
	if strings.Contains(string(form.body), "smtp") {
		t.Errorf("the form tells the name of a secret: %s", form.body)
	}
	f.do("GET", root+"/audit", "", status).want(200).is("fleet", "true").is("fields", "[]")
	f.do("GET", root+"/reboot?version=0.9.0", "", status).want(200).is("version", `"0.9.0"`).is("fields.0.value", `"5"`)
	f.do("GET", root+"/none", "", status).want(404).is("code", `"PatternNotFound"`)
	f.do("GET", root+"/reboot?version=9.0.0", "", status).want(404)

	// The permission is that of the status page, and gives no more.
	for _, path := range []string{root, root + "/reboot"} {
		f.do("GET", path, "", f.as("service")).want(403)
	}
	f.do("POST", root+"/reboot/check", "{}", f.as("service")).want(403)
	f.do("GET", "/api/v1/patterns/reboot", "", status).want(403)
}

func TestPatternFormChecks(t *testing.T) {
	scripts := enginetest.NewScripts(rebootScript(), formScript(), fleetScript())
	f := newFixture(t, enginetest.WithScripts(scripts))
	enginetest.InstallScripts(t, f.hub, scripts)
	f.create("d1")
	f.create("d2")
	check := func(name, body string) *reply {
		t.Helper()
		return f.do("POST", "/api/v1/pattern-forms/"+name+"/check", body)
	}

	// What is wrong is told by its place, all at once, and nothing else is.
	check("fill", `{"texts":{"delay":"61","force":"perhaps","token":"hunter 2","tuning":"{"},"targets":{"where":"tags.site =="}}`).want(200).golden("pattern-form-wrong")
	for _, c := range []struct{ body, path, reason, expected string }{
		{`{}`, "targets", "are missing", "ids of devices, or a condition"},
		{`{"targets":{"where":"*","ids":["d1"]}}`, "targets.where", "is there beside ids of devices", "one of them"},
		{`{"targets":{"ids":["d1","d 2"]}}`, "targets.ids", "targets.ids[1]: the device id has the character ' ' at position 1; allowed are ASCII letters, digits and -:.+%_#*?!(),=@;$'", ""},
		{`{"targets":{"ids":["d1","@x"]}}`, "targets.ids", "@x begins with @, which the command line takes for a file", "it alone, or a condition in place of ids"},
		{`{"targets":{"where":"tags.a == '\u009b'"}}`, "targets.where", "has a control character", "a text without it: what has one goes by REST, or into a file for --params"},
		{`{"texts":{"dealy":"1"},"targets":{"ids":["d1"]}}`, "params.dealy", "is no parameter", `delay; did you mean "delay"?`},
	} {
		want := encode(obj{"path": c.path, "reason": c.reason, "expected": c.expected})
		if c.expected == "" {
			want = encode(obj{"path": c.path, "reason": c.reason})
		}
		check("reboot", c.body).want(200).is("faults", "["+string(want)+"]").is("command", "").is("request", "")
	}
	check("audit", `{"targets":{"ids":["d1"]}}`).want(200).is("faults.0.path", `"targets.ids"`)

	// What is right gives a command and a request, which begins what it says.
	one := check("reboot", `{"texts":{"delay":"7"},"targets":{"ids":["d1"]}}`).want(200).is("faults", "[]").is("params", `{"delay":7}`).
		is("command", `"muster pattern run reboot --version=1.0.0 --device=d1 --param=delay=7"`)
	f.do("POST", one.text("request.path"), one.at("request.body")).want(201).is("deviceId", `"d1"`).is("params", `{"delay":7}`)
	check("reboot", `{"texts":{"delay":"5"},"targets":{"ids":["d1/m"]}}`).want(200).is("request.body", `{"deviceId":"d1","moduleId":"m","pattern":"reboot","version":"1.0.0"}`)
	many := check("reboot", `{"targets":{"ids":["d1","d2"]}}`).want(200).is("request.preview", "false").is("command", `"muster pattern run reboot --version=1.0.0 --ids=d1,d2"`)
	f.do("POST", many.text("request.path"), many.at("request.body")).want(201).is("targets.ids", `["d1","d2"]`)
	careful := check("fill", `{"texts":{"reason":"it's $HOME"},"targets":{"where":"deviceId == 'd1'"}}`).want(200).is("request.preview", "true").
		is("command", string(encode(`muster pattern run fill --version=1.0.0 --where='deviceId == '\''d1'\''' --param=reason='it'\''s $HOME'`)))
	f.do("POST", careful.text("request.path"), careful.at("request.body")).want(400)
	token := f.do("POST", "/api/v1/jobs/preview", careful.at("request.body")).want(200).at("token")
	f.do("POST", careful.text("request.path"), strings.TrimSuffix(careful.at("request.body"), "}")+`,"token":`+token+`}`).want(201)
	check("audit", `{}`).want(200).is("command", `"muster pattern run audit --version=1.0.0"`).is("request.body", `{"pattern":"audit","version":"1.0.0"}`)

	// Nothing of the check itself was begun.
	f.do("GET", "/api/v1/runs?pattern=audit", "").want(200).is("items", "[]")
	for body, status := range map[string]int{
		"": 400, "[]": 400, `{"texts":{"delay":5}}`: 400, `{"texts":[]}`: 400, `{"other":1}`: 400, `{"targets":{"query":"x"}}`: 400, `{"targets":{"ids":[1]}}`: 400,
		`{"targets":{"ids":[` + strings.Repeat(`"d",`, formIDsMost) + `"d"]}}`: 400, `{"texts":{"a":"` + strings.Repeat("x", formBytes) + `"}}`: 413,
	} {
		check("reboot", body).want(status)
	}
	check("none", `{}`).want(404)
}

// TestFormCommand has a real shell take a command apart.
func TestFormCommand(t *testing.T) {
	t.Parallel()
	device := func(ids ...string) engine.FormEntry {
		e := engine.FormEntry{}
		for _, id := range ids {
			e.IDs = append(e.IDs, engine.TwinID{DeviceID: id})
		}
		return e
	}
	for _, c := range []struct {
		entry engine.FormEntry
		texts []string
		want  []string // behind the version
	}{
		{device("d1"), nil, []string{"--device=d1"}},
		{device("@a;b$c'"), nil, []string{"--device=@a;b$c'"}},
		{device("a,b", "c"), nil, []string{`--ids=a\,b,c`}},
		{engine.FormEntry{Where: "tags.a == \"x\" and\n not `b` or '$(id)' != \\"}, nil, []string{"--where=tags.a == \"x\" and\n not `b` or '$(id)' != \\"}},
		{device("d"), []string{"a=", "b=-x", "c='", "d=é", "e=a=b", `f={"x":"y z"}`, "g=!x;#|&<>~*?[]"}, []string{"--device=d", "--param=a=", "--param=b=-x", "--param=c='", "--param=d=é", "--param=e=a=b", `--param=f={"x":"y z"}`, "--param=g=!x;#|&<>~*?[]"}},
	} {
		p := &engine.FormCheck{PatternForm: engine.PatternForm{Name: "fill", Version: "1.0.0-rc.1+x"}, Filled: pattern.Filled{Texts: c.texts}}
		command := formCommand(p, c.entry)
		arguments, ok := strings.CutPrefix(command, "muster ")
		if !ok {
			t.Fatal(command)
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\0' `+arguments).Output()
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		want := append([]string{"pattern", "run", "fill", "--version=1.0.0-rc.1+x"}, c.want...)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: a shell makes of it %q, %v; want %q", command, got, err, want)
		}
	}
}
