package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

const (
	rebootManifest = `{"name":"reboot","version":"1.2.0","api":1,"title":"Reboot","summary":"Restarts a device and waits for it.","author":"Muster",` +
		`"params":{"delay":{"type":"integer","minimum":0,"maximum":600,"default":5,"description":"Seconds before it restarts."},"how":{"type":"string","enum":["soft","hard"],"default":"soft"},"note":{"type":"string"},"force":{"type":"boolean"},"tags":{"type":"array","items":{"type":"string"}}},` +
		`"needs":["twin:read","method:reboot"],"applies":"reported.boot.count >= 0","conflicts":"queue","timeout":"1h","rollout":{"waves":[{"size":"1","soak":"1m"},{"size":"100%"}]},` +
		`"triggers":[{"when":"reported.health == \"bad\"","where":"tags.site == \"lyon\"","params":{"delay":1}},{"cron":"0 3 * * 0"}],"hasUndo":true}`
	rebootPattern = `{"name":"reboot","version":"1.2.0","title":"Reboot","summary":"Restarts a device and waits for it.","manifest":` + rebootManifest + `,"parameters":{},` +
		`"needs":[{"need":"twin:read","text":"Read the device's twin and wait for it to change.","granted":true},{"need":"method:reboot","text":"Call this direct method of the device.","granted":true}],` +
		`"hash":"h1","origin":"shipped","enabled":true,"default":true,"active":3,"principal":"hub","installedTime":"2026-11-30T09:00:00Z","etag":"p1",` +
		`"cost":{"runs":12,"ended":{"succeeded":10,"failed":2},"activations":60,"instructions":4200,"calls":90,"journalBytes":12000,"seconds":0.0123,"slowestSeconds":0.0021,"slowestRun":"r-7","hot":[{"line":"pattern.lua:44","instructions":2560},{"line":"lib/trial.lua:7","instructions":512}]}}`
	oldPattern = `{"name":"reboot","version":"1.1.0","manifest":{"name":"reboot","version":"1.1.0","api":1},"parameters":{},"needs":[],"hash":"h0","origin":"signed","signer":"acme","enabled":false,"default":false,"active":0,"principal":"local:uid=0","installedTime":"2026-11-29T09:00:00Z","etag":"p0","cost":{"runs":0,"activations":0,"instructions":0,"calls":0,"journalBytes":0,"seconds":0,"slowestSeconds":0}}`
	// wipeManifest is of a dangerous one, and auditManifest of one of the fleet.
	wipePattern  = `{"name":"wipe","version":"2.0.0","manifest":{"name":"wipe","version":"2.0.0","api":1,"danger":true,"most":10},"parameters":{},"needs":[],"hash":"h2","origin":"unsigned","enabled":true,"default":true,"active":0,"installedTime":"2026-11-29T09:00:00Z","etag":"p2","cost":{"runs":0,"activations":0,"instructions":0,"calls":0,"journalBytes":0,"seconds":0,"slowestSeconds":0}}`
	auditPattern = `{"name":"audit","version":"0.1.0","manifest":{"name":"audit","version":"0.1.0","api":1,"scope":"fleet"},"parameters":{},"needs":[],"hash":"h3","origin":"unsigned","enabled":false,"default":true,"active":0,"missing":["alerts"],"installedTime":"2026-11-29T09:00:00Z","etag":"p3","cost":{"runs":0,"activations":0,"instructions":0,"calls":0,"journalBytes":0,"seconds":0,"slowestSeconds":0}}`
	// countPattern is one of the fleet that runs, felledPattern a dangerous one.
	countPattern  = `{"name":"count","version":"1.0.0","manifest":{"name":"count","version":"1.0.0","api":1,"scope":"fleet"},"parameters":{},"needs":[],"hash":"h4","origin":"shipped","enabled":true,"default":true,"active":0,"installedTime":"2026-11-29T09:00:00Z","etag":"p4","cost":{"runs":0,"activations":0,"instructions":0,"calls":0,"journalBytes":0,"seconds":0,"slowestSeconds":0}}`
	felledPattern = `{"name":"felled","version":"1.0.0","manifest":{"name":"felled","version":"1.0.0","api":1,"scope":"fleet","danger":true},"parameters":{},"needs":[],"hash":"h5","origin":"shipped","enabled":true,"default":true,"active":0,"installedTime":"2026-11-29T09:00:00Z","etag":"p5","cost":{"runs":0,"activations":0,"instructions":0,"calls":0,"journalBytes":0,"seconds":0,"slowestSeconds":0}}`

	runCostText = `"cost":{"activations":3,"instructions":210,"calls":9,"peakInstructions":80,"seconds":0.0042,"journalBytes":900,"hot":[{"line":"pattern.lua:17","instructions":128},{"line":"lib/trial.lua:7","instructions":21}]}`
	runWaiting  = `"runId":"r-1","pattern":"reboot","version":"1.2.0","hash":"h1","deviceId":"d1","params":{"delay":5},"attempt":1,"jobId":"j1","state":"waiting","final":false,"entry":"run",` +
		`"waitsFor":"reported.boot.count > before","dueTime":"2026-11-30T09:10:00Z","phase":"restarting","progress":0.5,"stepCount":3,"principal":"policy:service","createdTime":"2026-11-30T09:00:00Z","startedTime":"2026-11-30T09:00:00.1Z","updatedTime":"2026-11-30T09:00:01Z","etag":"e1",` + runCostText
	runFailed = `"runId":"r-2","pattern":"reboot","version":"1.2.0","hash":"h1","deviceId":"d2","moduleId":"m","attempt":2,"retryOf":"r-0","state":"failed","final":true,"entry":"run","phase":"restarting","stepCount":4,` +
		`"fault":{"code":"timeout","message":"dev.wait: not within 5m0s","line":"pattern.lua:21","trace":["pattern.lua:21: in run"]},"principal":"local:uid=0","createdTime":"2026-11-30T08:00:00Z","startedTime":"2026-11-30T08:00:00Z","updatedTime":"2026-11-30T08:05:01Z","endedTime":"2026-11-30T08:05:01Z","etag":"e2",` + runCostText
	runAsks = `"runId":"r-3","pattern":"wipe","version":"2.0.0","hash":"h2","deviceId":"d3","attempt":1,"state":"waiting","final":false,"entry":"run","waitsFor":"approval","question":"Wipe d3?","stepCount":1,` +
		`"principal":"local:uid=0","createdTime":"2026-11-30T07:00:00Z","startedTime":"2026-11-30T07:00:00Z","updatedTime":"2026-11-30T07:00:01Z","etag":"e3",` + runCostText
	traceSteps = `"steps":[` +
		`{"number":1,"entry":"run","op":"dev.get","args":{"path":"reported.boot.count"},"state":"done","result":7,"line":"pattern.lua:17","source":"local before = dev:get(\"reported.boot.count\")","begunTime":"2026-11-30T08:00:00.1Z","endedTime":"2026-11-30T08:00:00.1Z"},` +
		`{"number":2,"entry":"run","op":"dev.call","args":{"method":"reboot","payload":{"delay":5},"timeout":"30s"},"state":"done","result":{"status":200,"payload":{"ok":true}},"line":"pattern.lua:19","source":"dev:call(\"reboot\", {delay = p.delay})","tries":2,"ref":"q-1","begunTime":"2026-11-30T08:00:00.12Z","endedTime":"2026-11-30T08:00:00.5Z"},` +
		`{"number":3,"entry":"run","op":"dev.wait","args":{"where":"reported.boot.count > before","vars":{"before":7},"timeout":"5m"},"state":"failed","fault":{"code":"timeout","message":"dev.wait: not within 5m0s"},"line":"pattern.lua:21","begunTime":"2026-11-30T08:00:00.6Z","endedTime":"2026-11-30T08:05:00.6Z"},` +
		`{"number":4,"entry":"run","op":"dev.tag","args":{"patch":{"reboot":{"failed":true}}},"state":"done","line":"pattern.lua:11","source":"dev:tag({reboot = {failed = true}})","deferred":true,"begunTime":"2026-11-30T08:05:00.7Z","endedTime":"2026-11-30T08:05:00.7Z"}],` +
		`"logs":[{"time":"2026-11-30T08:00:00.11Z","line":"pattern.lua:18","text":"restarting \u001b[31m now"},{"time":"2026-11-30T08:05:01Z","text":"given up"}],"kept":{"before":7}`
	traceOpen = `"steps":[{"number":1,"entry":"run","op":"ctx.approve","args":{"question":"Wipe d3?","timeout":"24h"},"state":"waiting","line":"pattern.lua:4","source":"ctx:approve(\"Wipe \" .. dev.id)","begunTime":"2026-11-30T07:00:00Z","dueTime":"2026-12-01T07:00:00Z"}],"logs":[]`

	runJob = `{"id":"j1","targets":{"where":"true"},"action":{"run":{"pattern":"reboot","version":"1.2.0","params":{"delay":5}}},"policy":{},"kind":"runPattern","etag":"e1","status":"running","run":1,"wave":1,` +
		`"waves":[{"number":1,"status":"running","size":120,"active":120}],"total":{"size":120,"active":120},"principal":"policy:service","createdTime":"2026-11-30T09:00:00Z","updatedTime":"2026-11-30T09:20:00Z"}`
	runPreview = `{"job":{"targets":{"where":"true"},"action":{"run":{"pattern":"wipe","version":"2.0.0"}},"policy":{}},"kind":"runPattern","count":120,"waves":[{"number":1,"size":120}],"firstTime":"2026-12-01T21:00:00Z",` +
		`"sample":[{"deviceId":"d7","wave":1,"connected":true,"pattern":"wipe 2.0.0"},{"deviceId":"d8","wave":1,"connected":false,"pattern":"wipe 2.0.0"},{"deviceId":"d9","wave":1,"connected":true,"pattern":"wipe 2.0.0","fault":"its battery is low"}],` +
		`"excluded":[{"reason":"the pattern does not apply","count":3,"sample":["a","b","c"]}],"conflicts":[],"warnings":[],"confirm":"wipe","token":"TOKEN","expiresTime":"2026-11-30T10:00:00Z"}`
	counted = `{"items":[{"pattern":"reboot","version":"1.2.0","state":"waiting","phase":"restarting","step":"dev.wait","count":80},{"pattern":"reboot","version":"1.2.0","state":"queued","count":9},{"pattern":"reboot","version":"1.2.0","state":"succeeded","count":31}],"cursor":""}`
)

// patternHub answers as a hub with patterns and runs. It notes what was sent.
func patternHub(sent *[]string) http.Handler {
	m := http.NewServeMux()
	answer := func(pattern, body string) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && sent != nil {
				data, _ := io.ReadAll(r.Body)
				line := r.Method + " " + r.URL.Path
				if r.URL.RawQuery != "" {
					query, _ := url.QueryUnescape(r.URL.RawQuery)
					line += "?" + query
				}
				if len(data) > 0 {
					line += " " + string(data)
				}
				if e := r.Header.Get("If-Match"); e != "" {
					line += " if " + e
				}
				*sent = append(*sent, line)
			}
			if body == "" {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			_, _ = io.WriteString(w, body)
		})
	}
	answer("GET /api/v1/patterns", `{"items":[`+auditPattern+`,`+rebootPattern+`,`+oldPattern+`,`+wipePattern+`],"cursor":""}`)
	m.HandleFunc("POST /api/v1/patterns", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		data, _ := io.ReadAll(r.Body)
		if sent != nil {
			*sent = append(*sent, "POST /api/v1/patterns grant="+query.Get("grant")+" inspect="+query.Get("inspect")+" unsigned="+query.Get("unsigned")+" disabled="+query.Get("disabled")+" "+string(data))
		}
		p := strings.NewReplacer(`"origin":"shipped"`, `"origin":"unsigned"`, `"granted":true`, `"granted":false`).Replace(rebootPattern)
		if query.Get("inspect") == "true" {
			p = strings.NewReplacer(`,"installedTime":"2026-11-30T09:00:00Z"`, "", `"default":true`, `"default":false`, `"enabled":true`, `"enabled":false`).Replace(p)
		}
		_, _ = io.WriteString(w, p)
	})
	for name, p := range map[string]string{"reboot": rebootPattern, "wipe": wipePattern, "audit": auditPattern, "count": countPattern, "felled": felledPattern} {
		answer("GET /api/v1/patterns/"+name, p)
		for _, operation := range []string{"enable", "disable", "default"} {
			answer("POST /api/v1/patterns/"+name+"/"+operation, p)
		}
	}
	answer("GET /api/v1/patterns/reboot/files", `{"items":[{"path":"lib/x.lua","content":"return {}\n"},{"path":"pattern.lua","content":"return pattern{\n\tname = \"reboot\",\n}\n"}],"cursor":""}`)
	answer("DELETE /api/v1/patterns/{name}", "")
	answer("GET /api/v1/pattern-keys", `{"items":[{"name":"acme","key":"AAAA","createdTime":"2026-11-30T09:00:00Z"}],"cursor":""}`)
	answer("PUT /api/v1/pattern-keys/{name}", `{"name":"acme","key":"AAAA","createdTime":"2026-11-30T09:00:00Z"}`)
	answer("DELETE /api/v1/pattern-keys/{name}", "")
	answer("GET /api/v1/pattern-secrets", `{"items":[{"name":"smtp","updatedTime":"2026-11-30T09:00:00Z","principal":"local:uid=0"}],"cursor":""}`)
	answer("PUT /api/v1/pattern-secrets/{name}", "")
	answer("DELETE /api/v1/pattern-secrets/{name}", "")
	answer("GET /api/v1/runs", `{"items":[{`+runWaiting+`},{`+runFailed+`},{`+runAsks+`}],"cursor":""}`)
	answer("POST /api/v1/runs", `{`+runWaiting+`}`)
	answer("GET /api/v1/runs/counts", counted)
	m.HandleFunc("GET /api/v1/runs/export", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Query().Get("format")+" of "+r.URL.Query().Get("pattern")+"\n")
	})
	answer("POST /api/v1/runs/decide", `{"decided":2}`)
	answer("POST /api/v1/runs/cancel", `{"canceled":4}`)
	for id, r := range map[string]string{"r-1": runWaiting, "r-2": runFailed, "r-3": runAsks} {
		answer("GET /api/v1/runs/"+id, `{`+r+`}`)
		for _, operation := range []string{"cancel", "undo", "retry", "decide"} {
			answer("POST /api/v1/runs/"+id+"/"+operation, `{`+r+`}`)
		}
	}
	answer("GET /api/v1/runs/r-2/trace", `{`+runFailed+`,`+traceSteps+`}`)
	answer("GET /api/v1/runs/r-3/trace", `{`+runAsks+`,`+traceOpen+`}`)
	answer("POST /api/v1/jobs/preview", runPreview)
	answer("POST /api/v1/jobs", runJob)
	return m
}

// enoughUnderRace ends a list of cases early under the race detector, which takes
// seconds to build the command tree; test/run.sh runs all of them without it.
func enoughUnderRace(done int) bool { return raceDetector && done == 2 }

func TestPatternOutputs(t *testing.T) {
	dir := fakeHub(t, patternHub(nil))
	for i, c := range []struct{ name, args string }{
		{"pattern-list-all", "pattern list --all"},
		{"pattern-show", "pattern show reboot"},
		{"pattern-show-csv", "pattern show reboot -o csv"},
		{"pattern-source", "pattern show reboot --source"},
		{"pattern-counts", "pattern counts reboot"},
		{"pattern-key-list", "pattern key list"},
		{"pattern-secret-list", "pattern secret list"},
		{"run-list", "run list"},
		{"run-show", "run show r-1"},
		{"run-show-failed", "run show r-2"},
		{"run-trace", "run trace r-2"},
		{"run-trace-open", "run trace r-3"},
		{"run-trace-csv", "run trace r-2 -o csv"},
		{"run-export", "run export --to - --pattern reboot"},
	} {
		if enoughUnderRace(i) {
			break
		}
		t.Run(c.name, func(t *testing.T) {
			got := call{args: append(words(c.args), "--data", dir)}.run(t)
			if got.code != ExitOK {
				t.Errorf("exit code %d", got.code)
			}
			golden(t, c.name, got.out+"--- standard error\n"+got.err)
		})
	}
	narrow := call{args: append(words("run trace r-2"), "--data", dir), width: 50}.run(t)
	for line := range strings.Lines(narrow.out) {
		if w := displayWidth(strings.TrimSuffix(line, "\n")); w > 50 {
			t.Errorf("a line of the story is %d wide: %q", w, line)
		}
	}
}

func TestPatternSends(t *testing.T) {
	done := 0
	t.Chdir(t.TempDir())
	if err := os.WriteFile("p.yaml", []byte("delay: 9\nhow: hard\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("A", 43) + "="
	if err := os.WriteFile("key.pub", []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const run = `POST /api/v1/jobs {"action":{"run":{"pattern":"reboot","version":"1.2.0","params":`
	for args, want := range map[string]string{
		"pattern enable audit --etag E":                          `POST /api/v1/patterns/audit/enable if "E"`,
		"pattern default reboot --version 1.2.0":                 `POST /api/v1/patterns/reboot/default?version=1.2.0`,
		"pattern remove reboot --version 1.1.0 --yes":            `DELETE /api/v1/patterns/reboot?version=1.1.0`,
		"pattern remove reboot --yes":                            `DELETE /api/v1/patterns/reboot?version=1.2.0`,
		"pattern key add acme " + key:                            `PUT /api/v1/pattern-keys/acme {"key":"` + key + `"}`,
		"pattern key remove acme --yes":                          `DELETE /api/v1/pattern-keys/acme`,
		"pattern secret set smtp":                                `PUT /api/v1/pattern-secrets/smtp {"value":"hush"}`,
		"pattern run reboot --device d1 --no-watch":              `POST /api/v1/runs {"pattern":"reboot","version":"1.2.0","deviceId":"d1","params":{"delay":5,"how":"soft"}}`,
		"pattern run reboot --device d1/m --no-watch -p note=12": `POST /api/v1/runs {"pattern":"reboot","version":"1.2.0","deviceId":"d1","moduleId":"m","params":{"delay":5,"how":"soft","note":"12"}}`,
		"pattern run count --no-watch":                           `POST /api/v1/runs {"pattern":"count","version":"1.0.0","params":{}}`,
		"pattern run reboot --all --yes -o json":                 run + `{"delay":5,"how":"soft"}}},"targets":{"where":"true"}}`,
		`pattern run reboot --ids a,b --yes --no-watch --params p.yaml -p delay=7 -p force=true -p tags=["x"] --waves 1,100% --description d`: `POST /api/v1/jobs {"action":{"run":{"pattern":"reboot","version":"1.2.0","params":{"delay":7,"force":true,"how":"hard","tags":["x"]}}},"description":"d","policy":{"waves":[{"size":"1"},{"size":"100%"}]},"targets":{"ids":["a","b"]}}`,
		"run approve r-3 --reason ok":                                `POST /api/v1/runs/r-3/decide {"approve":true,"reason":"ok"}`,
		"run approve --job j1 --yes":                                 `POST /api/v1/runs/decide {"filter":{"jobId":"j1","asks":true},"approve":true}`,
		"run cancel r-1 --undo --reason why":                         `POST /api/v1/runs/r-1/cancel {"reason":"why","undo":true}`,
		"run cancel --pattern reboot --yes --now":                    `POST /api/v1/runs/cancel {"filter":{"pattern":"reboot","state":"active"},"now":true}`,
		"run undo r-2":                                               `POST /api/v1/runs/r-2/undo`,
		"run retry r-2 --from 3 --version 1.3.0":                     `POST /api/v1/runs/r-2/retry {"from":3,"version":"1.3.0"}`,
		"pattern run wipe --where true --yes --over-most --no-watch": `POST /api/v1/jobs {"action":{"run":{"pattern":"wipe","version":"2.0.0","params":{}}},"targets":{"where":"true"},"token":"TOKEN"}`,
	} {
		if enoughUnderRace(done) {
			break
		}
		done++
		t.Run(args, func(t *testing.T) {
			var sent []string
			dir := fakeHub(t, patternHub(&sent))
			got := call{args: append(words(args), "--data", dir), in: "hush\n"}.run(t)
			sent = slices.DeleteFunc(sent, func(s string) bool { return strings.Contains(s, "/jobs/preview") })
			if got.code != ExitOK || len(sent) != 1 || sent[0] != want {
				t.Errorf("exit code %d, sent %q, want %q\n%s", got.code, sent, want, got.err)
			}
		})
	}
}

// Who removes a pattern without a version hears which one went, and which runs now.
func TestPatternRemoveSays(t *testing.T) {
	versions := []string{"1.2.0", "1.1.0"}
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			versions = versions[1:]
			w.WriteHeader(http.StatusNoContent)
		case len(versions) == 0:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = io.WriteString(w, `{"name":"reboot","version":"`+versions[0]+`"}`)
		}
	}))
	for _, want := range []string{
		"Removed reboot 1.2.0.\nreboot 1.1.0 runs when no version is named; `muster pattern list --all` shows what is left.\n",
		"Removed reboot 1.1.0.\n",
	} {
		if got := (call{args: append(words("pattern remove reboot --yes"), "--data", dir)}).run(t); got.code != ExitOK || got.err != want {
			t.Errorf("exit code %d, %q; want %q", got.code, got.err, want)
		}
	}
}

func TestPatternRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	var sent []string
	dir := fakeHub(t, patternHub(&sent))
	for _, c := range []struct {
		args string
		code int
		err  string
	}{
		{"pattern run reboot", ExitUsage, "nothing says on which devices"},
		{"pattern run reboot --all --where true --yes", ExitUsage, "--all is every device"},
		{"pattern run reboot --device d1 --waves 1,100%", ExitUsage, "--device is one run"},
		{"pattern run reboot --all", ExitUsage, "--yes"},
		{"pattern run audit", ExitConflict, "is disabled"},
		{"pattern run wipe --where true --yes", ExitUsage, "there are 120 targets, more than the 10 that wipe is for"},
		{"pattern run wipe --where true --yes", ExitUsage, "--over-most"},
		{"pattern run felled", ExitUsage, "Start felled on the fleet?"},
		{"pattern run reboot --device a/b/c", ExitUsage, "not an id"},
		{"pattern default reboot", ExitUsage, "--version"},
		{"pattern install nowhere --yes", ExitUsage, "no folder or file nowhere"},
		{"pattern install . --yes", ExitUsage, "no pattern.lua"},
		{"pattern install nowhere", ExitUsage, "not a terminal"},
		{"run approve", ExitUsage, "one by one, or by a filter"},
		{"run approve r-3 --job j1", ExitUsage, "one by one, or by a filter"},
		{"run cancel r-1 --undo --now", ExitUsage, "one of them"},
		{"run cancel --job j1", ExitUsage, "--yes"},
		{"run retry r-2 --from=-1", ExitUsage, "negative"},
		{"run show r-9", ExitNotFound, ""},
	} {
		got := call{args: append(words(c.args), "--data", dir)}.run(t)
		if got.code != c.code || !strings.Contains(got.err, c.err) {
			t.Errorf("%s: exit code %d, want %d:\n%s", c.args, got.code, c.code, got.err)
		}
	}
	sent = slices.DeleteFunc(sent, func(s string) bool { return strings.Contains(s, "/jobs/preview") })
	if len(sent) > 0 {
		t.Errorf("something was sent: %q", sent)
	}
}

func TestParameters(t *testing.T) {
	var m pattern.Manifest
	if err := json.Unmarshal([]byte(rebootManifest), &m); err != nil {
		t.Fatal(err)
	}
	place := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(place, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := write("p.yaml", "- delay\n")
	large := write("large.json", `{"note":"`+strings.Repeat("x", 3<<20)+`"}`)
	twice := write("twice.json", `{"delay":1,"how":"soft","delay":2}`)
	deep := write("deep.json", `{"delay":1,"tags":["x",{"y":{"x":1,"z":[],"x":2}}]}`)
	same := write("same.json", `{"note":"delay","delay":5,"tags":["a","a"]}`)
	yamlTwice := write("twice.yaml", "delay: 1\ndelay: 2\n")
	for _, c := range []struct {
		flags ParamFlags
		want  string // the parameters, or what the error has
	}{
		{ParamFlags{}, `{"delay":5,"how":"soft"}`},
		{ParamFlags{Param: []string{"note=12", "delay=7"}}, `{"delay":7,"how":"soft","note":"12"}`},
		{ParamFlags{Param: []string{`note="a"`}}, `{"delay":5,"how":"soft","note":"\"a\""}`},
		{ParamFlags{Param: []string{"dela=3"}}, "Did you mean delay?"},
		{ParamFlags{Param: []string{"colour=3"}}, "It has"},
		{ParamFlags{Param: []string{"delay"}}, "NAME=VALUE"},
		{ParamFlags{Param: []string{"delay=soon"}}, `--param delay: found "soon"; expected a whole number`},
		{ParamFlags{Param: []string{"force=maybe"}}, "expected true or false"},
		{ParamFlags{Param: []string{"delay=9999"}}, "600"},
		{ParamFlags{Param: []string{"how=never"}}, "how"},
		{ParamFlags{Params: "none.json"}, "none.json"},
		{ParamFlags{Params: file}, "not an object"},
		{ParamFlags{Params: large}, "larger than 1 MiB"},
		{ParamFlags{Params: twice}, `has the member "delay" twice`},
		{ParamFlags{Params: deep}, `has the member "x" twice`},
		{ParamFlags{Params: same}, `{"delay":5,"how":"soft","note":"delay","tags":["a","a"]}`},
		{ParamFlags{Params: yamlTwice}, "is not valid YAML"},
		{ParamFlags{Param: []string{`tags=[{"x":1,"x":2}]`}}, `has the member "x" twice`},
	} {
		got, err := c.flags.parameters(&m)
		text := string(got)
		if err != nil {
			text = err.Error()
			if p, ok := err.(*problem); ok { //nolint:errorlint // made there
				text += p.next
			}
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%+v: %s, want %s", c.flags, text, c.want)
		}
	}
}

// TestPatternRunAsks: a dangerous one wants its name, any other a yes, and what
// starts is what was shown.
func TestPatternRunAsks(t *testing.T) {
	for _, c := range []struct {
		args, in string
		code     int
	}{
		{"pattern run wipe --where true --no-watch", "y\n", ExitCancelled},
		{"pattern run wipe --where true --no-watch", "\n", ExitCancelled},
		{"pattern run wipe --where true --no-watch", "wipe\n", ExitOK},
	} {
		var sent []string
		dir := fakeHub(t, patternHub(&sent))
		got := call{args: append(words(c.args), "--data", dir), in: c.in, terminal: true}.run(t)
		started := len(sent) == 2 && strings.HasPrefix(sent[1], "POST /api/v1/jobs ") && strings.Contains(sent[1], `"token":"TOKEN"`)
		if got.code != c.code || started != (c.code == ExitOK) || !strings.Contains(got.err, "120 targets") {
			t.Errorf("%q: exit code %d, sent %q\n%s", c.in, got.code, sent, got.err)
		}
		if c.code == ExitOK {
			golden(t, "pattern-run-preview", got.err)
		}
	}
}

func TestPatternInstall(t *testing.T) {
	place := t.TempDir()
	mine, one := filepath.Join(place, "mine"), filepath.Join(place, "one.lua")
	wrong, archive := filepath.Join(place, "wrong.lua"), filepath.Join(place, "wrong.zip")
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{filepath.Join(mine, "pattern.lua"): "return pattern{}", one: "one", wrong: "wrong", archive: "zip"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hooks := Hooks{Author: AuthorHooks{Pack: func(f PatternPackFlags, std IO) error {
		_, _ = io.WriteString(std.Out, "packed")
		return os.WriteFile(f.Out, []byte("packed "+filepath.Base(f.Dir)), 0o600)
	}, Lint: func(path string, std IO) (int, error) {
		_, _ = io.WriteString(std.Err, "looked at "+filepath.Base(path)+"\n") // a warning
		return strings.Count(path, "wrong"), nil
	}}}
	for _, c := range []struct {
		args, in string
		code     int
		sent     []string
	}{
		{"pattern install mine --yes --unsigned", "", ExitOK, []string{"grant= inspect=true unsigned=true disabled= packed mine", "grant=twin:read,method:reboot inspect= unsigned=true disabled= packed mine"}},
		{"pattern install one.lua --grant-all --disabled", "", ExitOK, []string{"grant= inspect=true unsigned= disabled=true one", "grant=twin:read,method:reboot inspect= unsigned= disabled=true one"}},
		{"pattern install mine", "y\ny\n", ExitOK, []string{"grant= inspect=true unsigned= disabled= packed mine", "grant=twin:read,method:reboot inspect= unsigned=true disabled= packed mine"}},
		{"pattern install mine", "y\nn\n", ExitCancelled, []string{"grant= inspect=true unsigned= disabled= packed mine"}},
		{"pattern install mine", "n\n", ExitCancelled, []string{"grant= inspect=true unsigned= disabled= packed mine"}},
		{"pattern install mine --inspect", "", ExitOK, []string{"grant= inspect=true unsigned= disabled= packed mine"}},
		{"pattern install wrong.lua --yes", "", ExitFailed, nil},
		{"pattern install wrong.lua --yes --unchecked", "", ExitOK, []string{"grant= inspect=true unsigned= disabled= wrong", "grant=twin:read,method:reboot inspect= unsigned= disabled= wrong"}},
		{"pattern install wrong.zip --yes", "", ExitOK, []string{"grant= inspect=true unsigned= disabled= zip", "grant=twin:read,method:reboot inspect= unsigned= disabled= zip"}},
	} {
		var sent []string
		dir := fakeHub(t, patternHub(&sent))
		args := strings.NewReplacer("install mine", "install "+mine, "install one.lua", "install "+one, "install wrong", "install "+filepath.Join(place, "wrong")).Replace(c.args)
		got := call{args: append(words(args), "--data", dir), in: c.in, hooks: hooks, terminal: c.in != ""}.run(t)
		for i := range sent {
			sent[i] = strings.TrimPrefix(sent[i], "POST /api/v1/patterns ")
		}
		if got.code != c.code || !slices.Equal(sent, c.sent) {
			t.Errorf("%s %q: exit code %d, sent %q\n%s", c.args, c.in, got.code, sent, got.err)
		}
		if strings.Contains(got.err, "in place of") {
			t.Errorf("%s: the version was the default before, and it says\n%s", c.args, got.err)
		}
		looked := !strings.Contains(c.args, "--inspect") && !strings.Contains(c.args, "--unchecked") && !strings.Contains(c.args, "zip")
		if strings.Contains(got.err, "looked at ") != looked {
			t.Errorf("%s: the source was to be looked at: %v; it says\n%s", c.args, looked, got.err)
		}
		if c.in == "y\ny\n" {
			golden(t, "pattern-install", got.out+"--- standard error\n"+got.err)
		}
	}
}

// TestPatternInstallMovesDefault: a higher version becomes the default, and the
// command says so.
func TestPatternInstallMovesDefault(t *testing.T) {
	one := filepath.Join(t.TempDir(), "one.lua")
	if err := os.WriteFile(one, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := patternHub(nil)
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/api/v1/patterns/reboot" {
			_, _ = io.WriteString(w, oldPattern)
			return
		}
		m.ServeHTTP(w, r)
	}))
	got := call{args: append(words("pattern install --yes --unsigned"), one, "--data", dir)}.run(t)
	if got.code != ExitOK || !strings.Contains(got.err, "Installed reboot 1.2.0.\nIt is the default version now, in place of 1.1.0.\n") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
}

// TestPatternCountsOfNone: no runs of a pattern that is there are none, and one
// that is not there is told as that.
func TestPatternCountsOfNone(t *testing.T) {
	m := patternHub(nil)
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/runs/counts":
			_, _ = io.WriteString(w, `{"items":[],"cursor":""}`)
		case "/api/v1/patterns/nope":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"PatternNotFound","detail":"there is no pattern nope"}`)
		default:
			m.ServeHTTP(w, r)
		}
	}))
	for args, code := range map[string]int{"pattern counts nope": ExitNotFound, "pattern counts reboot": ExitOK, "pattern counts": ExitOK} {
		if got := (call{args: append(words(args), "--data", dir)}).run(t); got.code != code || code == ExitOK && !strings.Contains(got.out+got.err, "No runs.") {
			t.Errorf("%s: exit code %d, want %d: %s%s", args, got.code, code, got.out, got.err)
		}
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"plain":                  "plain",
		"a\nb":                   "a; b",
		"it fell:\n\tat x\r\n\n": "it fell: at x",
		"\n a.\nb\n":             "a. b",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestCompletePatterns(t *testing.T) {
	dir := fakeHub(t, patternHub(nil))
	for _, c := range []struct {
		words []string
		want  []string
		not   string
	}{
		{[]string{"pattern", "run", "--data", dir, "re"}, []string{"reboot\tRestarts a device"}, "wipe"},
		{[]string{"pattern", "run", "--data", dir, "reboot", "--param", "d"}, []string{"delay=\tinteger 0 to 600: Seconds"}, "how="},
		{[]string{"pattern", "run", "--data", dir, "reboot", "-p", "how=h"}, []string{"how=hard"}, "soft"},
		{[]string{"pattern", "run", "--data", dir, "reboot", "-p", "force="}, []string{"force=true", "force=false"}, ""},
		{[]string{"pattern", "show", "--data", dir, "reboot", "--version", "1"}, []string{"1.2.0\tenabled", "1.1.0\tdisabled"}, "2.0.0"},
		{[]string{"run", "trace", "--data", dir, "r-"}, []string{"r-1\treboot on d1, waiting", "r-2\treboot on d2/m, failed"}, ""},
		{[]string{"run", "list", "--data", dir, "--pattern", "w"}, []string{"wipe\t"}, "reboot"},
		{[]string{"pattern", "key", "remove", "--data", dir, ""}, []string{"acme\tkey"}, ""},
	} {
		got := call{args: append([]string{"__complete", "--"}, c.words...)}.run(t)
		for _, w := range c.want {
			if !strings.Contains("\n"+got.out, "\n"+w) {
				t.Errorf("%q lacks %q:\n%s%s", c.words[len(c.words)-2:], w, got.out, got.err)
			}
		}
		if c.not != "" && strings.Contains("\n"+got.out, "\n"+c.not) {
			t.Errorf("%q has %q:\n%s", c.words[len(c.words)-2:], c.not, got.out)
		}
	}
}

// runProgress is an event of a run's stream.
func runProgress(cursor, kind, state, more string) string {
	data, _ := json.Marshal(json.RawMessage(`{"cursor":"` + cursor + `","kind":"` + kind + `","time":"2026-11-30T09:00:00Z","runId":"r-1","pattern":"reboot","version":"1.2.0","hash":"h","deviceId":"d1","attempt":1,"entry":"run","stepCount":2,"principal":"p","createdTime":"2026-11-30T09:00:00Z","startedTime":"2026-11-30T09:00:00Z","updatedTime":"2026-11-30T09:00:00Z","etag":"e",` + runCostText + `,"state":"` + state + `"` + more + `}`))
	return "id: " + cursor + "\nevent: " + kind + "\ndata: " + string(data) + "\n\n"
}

func TestRunWatch(t *testing.T) {
	going := runProgress("c1", "progress", "waiting", `,"final":false,"phase":"restarting","progress":0.25,"waitsFor":"an answer"`)
	for _, c := range []struct {
		name   string
		events []string
		code   int
		out    []string
		err    string
	}{
		{"well", []string{going, runProgress("c2", "ended", "succeeded", `,"final":true,"result":{"count":8}`)}, ExitOK, []string{"waiting  2 steps  restarting 25 %; waits for an answer", `succeeded  2 steps  {"count":8}`}, ""},
		{"badly", []string{going, runProgress("c2", "ended", "failed", `,"final":true,"fault":{"code":"timeout","message":"not in time"}`)}, ExitFailed, []string{"failed  2 steps  timeout: not in time"}, "muster run trace r-1"},
		{"uncertain", []string{runProgress("c1", "ended", "uncertain", `,"final":true,"fault":{"code":"uncertain","message":"perhaps"}`)}, ExitFailed, nil, "nobody knows"},
		{"canceled", []string{runProgress("c1", "ended", "canceled", `,"final":true,"fault":{"code":"canceled","message":"enough"}`)}, ExitCancelled, nil, "enough"},
		{"gone", []string{going, "event: end\ndata: {\"code\":\"deleted\",\"reason\":\"the run is kept no longer\"}\n\n"}, ExitNotFound, nil, "kept no longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := streamHub(t, c.events...)
			got := call{args: append(words("run watch r-1"), "--data", dir)}.run(t)
			if got.code != c.code || !strings.Contains(got.err, c.err) {
				t.Errorf("exit code %d, want %d:\n%s%s", got.code, c.code, got.out, got.err)
			}
			for _, want := range c.out {
				if !strings.Contains(got.out, want) {
					t.Errorf("lacks %q:\n%s", want, got.out)
				}
			}
			if c.name != "well" {
				return
			}
			on := call{args: append(words("run watch r-1"), "--data", dir), width: 40}.run(t)
			for line := range strings.Lines(on.out) {
				for part := range strings.SplitSeq(strings.TrimRight(line, "\n"), "\x1b[J") {
					if w := displayWidth(part[strings.LastIndexByte(part, '\r')+1:]); w > 40 {
						t.Errorf("a line is %d wide: %q", w, part)
					}
				}
			}
		})
	}
	dir := streamHub(t, going)
	if got := (call{args: append(words("run watch r-1 --for 300ms"), "--data", dir)}).run(t); got.code != ExitTimeout || !strings.Contains(got.err, "it goes on") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
}

// TestPatternRunFollows: a job of runs shows how many are where, and at its end
// what failed and what to do.
func TestPatternRunFollows(t *testing.T) {
	m := patternHub(nil)
	events := []string{
		progressOf(1, "running", `"wave":1,"waves":[{"number":1,"status":"running","size":10,"active":10}],"total":{"size":10,"active":10}`),
		progressOf(2, "completed", `"wave":1,"waves":[{"number":1,"status":"ended","size":10,"succeeded":8,"failed":2}],"total":{"size":10,"succeeded":8,"failed":2}`),
	}
	stream := func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/progress"):
			w.Header().Set("Content-Type", "text/event-stream")
			switch r.URL.Query().Get("cursor") {
			case "":
				_, _ = io.WriteString(w, events[0])
			case "c1":
				_, _ = io.WriteString(w, events[1])
			}
		case strings.HasSuffix(r.URL.Path, "/failures"):
			_, _ = io.WriteString(w, `{"items":[{"status":"failed","code":"offline","count":2,"message":"d1 is not there","deviceId":"d1"}],"complete":true}`)
		default:
			return false
		}
		return true
	}
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !stream(w, r) {
			m.ServeHTTP(w, r)
		}
	}))
	for _, width := range []int{0, 100} {
		got := call{args: append(words("pattern run reboot --all --yes"), "--data", dir), width: width}.run(t)
		if got.code != ExitPartly {
			t.Errorf("exit code %d: %s", got.code, got.err)
		}
		for _, want := range []string{"80 restarting, waiting for the device; 9 queued", "offline 2  d1 is not there (d1)"} {
			if !strings.Contains(got.out, want) {
				t.Errorf("width %d lacks %q:\n%s", width, want, got.out)
			}
		}
		for _, want := range []string{"2 of 10 targets ended badly", "muster run list --job j1 --state failed,uncertain", "muster job retry j1"} {
			if !strings.Contains(got.err, want) {
				t.Errorf("lacks %q:\n%s", want, got.err)
			}
		}
	}
	// It pauses, and nobody sees the screen: what failed is told, and what to do.
	events[1] = progressOf(2, "paused", `"reason":"2 of 10 failed","wave":1,"waves":[{"number":1,"status":"running","size":10,"succeeded":8,"failed":2}],"total":{"size":10,"succeeded":8,"failed":2}`)
	got := call{args: append(words("pattern run reboot --all --yes"), "--data", dir)}.run(t)
	if got.code != ExitPartly || strings.Count(got.out, "paused: 2 of 10 failed") != 1 || !strings.Contains(got.out, "offline 2  d1 is not there (d1)") || !strings.Contains(got.err, "muster job resume j1") {
		t.Errorf("paused: exit code %d: %s%s", got.code, got.out, got.err)
	}
}
