package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

const (
	jobTwoWaves = `"targets":{"where":"tags.site == 'lyon'"},"action":{"twin":{"tags":{"old":null},"desired":{"fan":{"speed":3},"interval":30}}},` +
		`"policy":{"waves":[{"size":"1","diverse":true,"soak":"10m","health":{"where":"reported.health != 'good'","atMost":"2%","otherwise":"pause"}},{"size":"10%","soak":"10m"},{"size":"100%","approval":true}],` +
		`"rate":{"perMinute":50,"factor":2,"every":1000,"of":"succeeded","most":10000},"parallel":20,"windows":[{"cron":"0 22 * * 1-5","duration":"6h","timeZone":"Europe/Paris","zoneTag":"tags.timezone"}],` +
		`"start":"2026-12-01T21:00:00Z","timeout":"1h","attemptTimeout":"5m","retry":{"attempts":3,"on":["failed","offline"],"backoff":"30s","factor":2,"most":"10m"},"pause":[{"share":"5%","of":["failed"],"least":20,"per":"wave"}],"priority":5}`
	jobRunning = `{"id":"j1",` + jobTwoWaves + `,"description":"fans \u001b[31m","labels":{"team":"a"},"kind":"scheduleUpdateTwin","etag":"e1","status":"running","waitsFor":"approval","run":1,"wave":3,` +
		`"waves":[{"number":1,"status":"ended","size":1,"succeeded":1},{"number":2,"status":"ended","size":11,"succeeded":9,"failed":2},{"number":3,"status":"approval","size":108,"pending":108}],` +
		`"total":{"size":120,"succeeded":10,"failed":2,"pending":108},"principal":"policy:service","createdTime":"2026-11-30T09:00:00Z","updatedTime":"2026-11-30T09:20:00Z","startedTime":"2026-11-30T09:00:01Z"}`
	jobDone     = `{"id":"j0","targets":{"ids":["d1","d2","d3","d4","d5"]},"action":{"method":{"name":"reboot"}},"policy":{"waves":[{"size":"100%"}],"timeout":"1h"},"kind":"scheduleDeviceMethod","etag":"e0","status":"completed","run":1,"wave":1,"waves":[{"number":1,"status":"ended","size":5,"succeeded":5}],"total":{"size":5,"succeeded":5},"principal":"local:uid=0","createdTime":"2026-11-29T09:00:00Z","updatedTime":"2026-11-29T09:01:00Z","startedTime":"2026-11-29T09:00:01Z","endedTime":"2026-11-29T09:01:00Z"}`
	executionsA = `{"jobId":"j1","kind":"scheduleUpdateTwin","run":1,"deviceId":"d1","wave":2,"status":"failed","final":true,"attempts":3,"code":"DeviceNotOnline","message":"d1 is not there","createdTime":"2026-11-30T09:00:00Z","startedTime":"2026-11-30T09:00:01Z","updatedTime":"2026-11-30T09:01:00Z","endedTime":"2026-11-30T09:01:00Z"},` +
		`{"jobId":"j1","kind":"scheduleDeviceMethod","run":1,"deviceId":"d2","moduleId":"m","wave":2,"status":"succeeded","final":true,"attempts":1,"response":{"status":200,"payload":{"up":true}},"createdTime":"2026-11-30T09:00:00Z","startedTime":"2026-11-30T09:00:01Z","updatedTime":"2026-11-30T09:01:00Z","endedTime":"2026-11-30T09:01:00Z"},` +
		`{"jobId":"j1","kind":"scheduleUpdateTwin","run":1,"deviceId":"d3","wave":3,"status":"waiting","final":false,"blockedBy":"j0","attempts":0,"createdTime":"2026-11-30T09:00:00Z","updatedTime":"2026-11-30T09:01:00Z"}`
	previewText = `{"job":{` + jobTwoWaves + `},"count":120,"waves":[{"number":1,"size":1,"targets":["d7"]},{"number":2,"size":11},{"number":3,"size":108,"approval":true}],"firstTime":"2026-12-01T21:00:00Z",` +
		`"sample":[{"deviceId":"d7","wave":1,"connected":true,"changes":[{"path":"desired.interval","before":60,"after":30},{"path":"tags.old","before":"x"},{"path":"desired.fan.speed","after":3}]},{"deviceId":"d8","moduleId":"m","wave":2,"connected":false},{"deviceId":"d9","wave":2,"connected":false,"fault":"desired would be 33 KiB; at most 32 KiB"},{"deviceId":"d10","wave":3,"connected":false,"method":"reboot"}],` +
		`"excluded":[{"reason":"excludeWhere","count":7,"sample":["d11","d12"]},{"reason":"notFound","count":1,"sample":["gone"]}],"conflicts":[{"jobId":"j0","status":"running","priority":1,"targets":2}],` +
		`"warnings":[{"path":"policy.rate","reason":"takes 2 days for 120 targets","expected":"the end is earlier"}],"token":"TOKEN","expiresTime":"2026-11-30T10:00:00Z"}`
)

// jobHub answers as a hub with two jobs. It notes what was sent.
func jobHub(sent *[]string) http.Handler {
	m := http.NewServeMux()
	answer := func(pattern, body string) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && sent != nil {
				data, _ := io.ReadAll(r.Body)
				line := r.Method + " " + r.URL.Path + " " + string(data)
				if e := r.Header.Get("If-Match"); e != "" {
					line += " if " + e
				}
				*sent = append(*sent, line)
			}
			if body == "" {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			_, _ = w.Write([]byte(body))
		})
	}
	answer("GET /api/v1/jobs", `{"items":[`+jobRunning+`,`+jobDone+`],"cursor":""}`)
	answer("GET /api/v1/jobs/j1", jobRunning)
	answer("GET /api/v1/jobs/j0", jobDone)
	answer("DELETE /api/v1/jobs/{id}", "")
	answer("GET /api/v1/jobs/j1/failures", `{"items":[{"status":"failed","code":"DeviceNotOnline","count":2,"message":"d1 is not there","deviceId":"d1"}],"complete":true}`)
	answer("POST /api/v1/jobs/preview", previewText)
	answer("POST /api/v1/jobs", jobRunning)
	for _, operation := range []string{"pause", "resume", "approve", "cancel", "undo"} {
		answer("POST /api/v1/jobs/j1/"+operation, jobRunning)
	}
	answer("POST /api/v1/jobs/j1/retry", `{"retried":2,"job":`+jobRunning+`}`)
	m.HandleFunc("GET /api/v1/jobs/j1/executions", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("format") {
		case "csv":
			_, _ = io.WriteString(w, "jobId,deviceId\nj1,d1\n")
		case "ndjson":
			_, _ = io.WriteString(w, "{\"deviceId\":\"d1\"}\n")
		default:
			_, _ = io.WriteString(w, `{"items":[`+executionsA+`],"cursor":""}`)
		}
	})
	answer("GET /api/v1/devices/d1/jobs", `{"items":[`+executionsA+`],"cursor":""}`)
	answer("GET /api/v1/job-templates", `{"items":[{"name":"nightly","description":"at night","job":{"policy":{"priority":3}},"version":2,"principal":"local:uid=0","etag":"t2","createdTime":"2026-11-29T09:00:00Z","updatedTime":"2026-11-29T10:00:00Z"}],"cursor":""}`)
	answer("GET /api/v1/job-templates/nightly", `{"name":"nightly","description":"at night","job":{"policy":{"priority":3}},"version":2,"principal":"local:uid=0","etag":"t2","createdTime":"2026-11-29T09:00:00Z","updatedTime":"2026-11-29T10:00:00Z"}`)
	answer("PUT /api/v1/job-templates/nightly", `{"name":"nightly","job":{"policy":{"priority":3}},"version":3,"principal":"local:uid=0","etag":"t3","createdTime":"2026-11-29T09:00:00Z","updatedTime":"2026-11-29T10:00:00Z"}`)
	answer("DELETE /api/v1/job-templates/nightly", "")
	return m
}

func TestJobOutputs(t *testing.T) {
	dir := fakeHub(t, jobHub(nil))
	for _, c := range []struct{ name, args string }{
		{"job-list", "job list"},
		{"job-list-csv", "job list -o csv"},
		{"job-show", "job show j1"},
		{"job-show-done", "job show j0"},
		{"job-show-json", "job show j0 -o json"},
		{"job-executions", "job executions j1"},
		{"job-executions-csv", "job executions j1 -o csv"},
		{"job-executions-device", "job executions --device d1"},
		{"job-preview", "job preview --where true --method m"},
		{"job-preview-csv", "job preview --where true --method m -o csv"},
		{"job-retry", "job retry j1"},
		{"job-template-list", "job template list"},
		{"job-template-show", "job template show nightly"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call{args: append(words(c.args), "--data", dir)}.run(t)
			if got.code != ExitOK {
				t.Errorf("exit code %d", got.code)
			}
			golden(t, c.name, got.out+"--- standard error\n"+got.err)
		})
	}
}

func TestJobSends(t *testing.T) {
	for args, want := range map[string]string{
		"job pause j1 --reason odd --etag E":                              `POST /api/v1/jobs/j1/pause {"reason":"odd"} if "E"`,
		"job resume j1":                                                   `POST /api/v1/jobs/j1/resume `,
		"job approve j1":                                                  `POST /api/v1/jobs/j1/approve `,
		"job approve j1 --wave 2":                                         `POST /api/v1/jobs/j1/approve {"wave":2}`,
		"job cancel j1 --yes":                                             `POST /api/v1/jobs/j1/cancel `,
		"job undo j1 --yes --reason sick":                                 `POST /api/v1/jobs/j1/undo {"reason":"sick"}`,
		"job retry j1 --outcome failed,canceled":                          `POST /api/v1/jobs/j1/retry {"outcomes":["failed","canceled"]}`,
		"job delete j0 j2 --yes":                                          "DELETE /api/v1/jobs/j0 \nDELETE /api/v1/jobs/j2 ",
		"job create --yes --where true --method m":                        `POST /api/v1/jobs {"action":{"method":{"name":"m"}},"targets":{"where":"true"}}`,
		"job create --yes --id x --ids d --method m":                      `POST /api/v1/jobs {"action":{"method":{"name":"m"}},"id":"x","targets":{"ids":["d"]}}`,
		"job clone j1 --yes --priority 3":                                 `POST /api/v1/jobs {"clone":"j1","policy":{"priority":3}}`,
		"job template save nightly --priority 3 --description d --etag *": `PUT /api/v1/job-templates/nightly {"description":"d","job":{"description":"d","policy":{"priority":3}}} if *`,
		"job template delete nightly --yes":                               "DELETE /api/v1/job-templates/nightly ",
	} {
		t.Run(args, func(t *testing.T) {
			var sent []string
			dir := fakeHub(t, jobHub(&sent))
			got := call{args: append(words(args), "--data", dir)}.run(t)
			if all := strings.Join(sent, "\n"); got.code != ExitOK || all != want {
				t.Errorf("exit code %d, sent\n%s\nwant\n%s\n%s", got.code, all, want, got.err)
			}
		})
	}
}

// Without --yes a job is made only after a question, which needs a terminal;
// what is asked about is bound to the preview.
func TestJobAsks(t *testing.T) {
	var sent []string
	dir := fakeHub(t, jobHub(&sent))
	args := append(words("job create --where true --method m"), "--data", dir)
	if got := (call{args: args}).run(t); got.code != ExitUsage || !strings.Contains(got.err, "--yes") || len(sent) != 0 {
		t.Errorf("exit code %d, sent %q:\n%s", got.code, sent, got.err)
	}
	for answer, want := range map[string]int{"n\n": ExitCancelled, "\n": ExitCancelled, "y\n": ExitOK} {
		sent = nil
		got := call{args: args, in: answer, terminal: true}.run(t)
		made := len(sent) == 2 && strings.HasPrefix(sent[1], "POST /api/v1/jobs ") && strings.Contains(sent[1], `"token":"TOKEN"`)
		if got.code != want || made != (want == ExitOK) || !strings.Contains(got.err, "Start on 120 targets? [y/N]") {
			t.Errorf("%q: exit code %d, sent %q:\n%s", answer, got.code, sent, got.err)
		}
	}
}

// What a preview would have told is told of a job that was made without one.
func TestJobWarnings(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Replace(jobDone, "{", `{"warnings":[{"path":"policy.end","reason":"may come first","expected":"a later end"}],`, 1))
	}))
	got := call{args: append(words("job create --yes --where true --method m"), "--data", dir)}.run(t)
	if want := "Warning: policy.end may come first; expected a later end.\n"; got.code != ExitOK || !strings.Contains(got.err, want) {
		t.Errorf("exit code %d, %q; want %q", got.code, got.err, want)
	}
}

// Of an import nobody knows how many lines are to come.
func TestJobListOfImports(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"items":[{"id":"a","kind":"import","status":"running","total":{"size":32,"succeeded":30,"failed":2}},{"id":"b","kind":"import","status":"completed","total":{"size":40,"succeeded":40}}],"cursor":""}`)
	}))
	got := call{args: append(words("job list -o csv"), "--data", dir)}.run(t)
	for _, want := range []string{"a,running,32 so far,2,", "b,completed,40/40,0,"} {
		if got.code != ExitOK || !strings.Contains(got.out, want) {
			t.Errorf("exit code %d, lacks %q:\n%s%s", got.code, want, got.out, got.err)
		}
	}
}

// A job that waits for devices says which other one holds them.
func TestJobThatAnotherOneHoldsUp(t *testing.T) {
	const job = `{"id":"a","kind":"scheduleDeviceMethod","action":{"method":{"name":"m"}},"status":"running","waitsFor":"devices","blockedBy":"b","total":{"size":2,"waiting":2}}`
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/jobs/a" {
			_, _ = io.WriteString(w, job)
			return
		}
		_, _ = io.WriteString(w, `{"items":[`+job+`],"cursor":""}`)
	}))
	for args, want := range map[string]string{
		"job list -o csv": "a,running: devices held by b,0/2,",
		"job show a":      "running: waits for devices on which the job b is in progress",
	} {
		got := call{args: append(words(args), "--data", dir)}.run(t)
		if got.code != ExitOK || !strings.Contains(got.out, want) {
			t.Errorf("%s: exit code %d, lacks %q:\n%s%s", args, got.code, want, got.out, got.err)
		}
	}
}

// What a job waits for is told by what is left of it: devices are not when all have
// been asked, and a job that repeats has not ended.
func TestJobListTellsWhatIsLeft(t *testing.T) {
	for want, state := range map[string]string{
		"running: devices":           `"status":"running","waitsFor":"devices","total":{"size":2,"waiting":1,"active":1}`,
		"running: what is under way": `"status":"running","waitsFor":"devices","total":{"size":2,"active":1,"retrying":1}`,
		"running: retries":           `"status":"running","waitsFor":"devices","total":{"size":2,"retrying":1}`,
		"running: rate":              `"status":"running","waitsFor":"rate","total":{"size":2,"active":1}`,
		"completed: repeats":         `"status":"completed","nextRunTime":"2026-12-01T10:00:00Z","total":{"size":2,"succeeded":2}`,
		"completed":                  `"status":"completed","total":{"size":2,"succeeded":2}`,
	} {
		job := `{"id":"a","kind":"scheduleDeviceMethod","action":{"method":{"name":"m"}},` + state + `}`
		dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"items":[`+job+`],"cursor":""}`)
		}))
		got := call{args: []string{"job", "list", "-o", "csv", "--data", dir}}.run(t)
		if got.code != ExitOK || !strings.Contains(got.out, "a,"+want+",") {
			t.Errorf("exit code %d, lacks %q:\n%s%s", got.code, want, got.out, got.err)
		}
	}
}

func TestJobNext(t *testing.T) {
	for want, p := range map[string]client.JobProgress{
		"`muster job resume j` lets it go on; `muster job cancel j` ends the job":                                                                         {Status: "paused"},
		"`muster job executions j --status rejected` shows what failed; `muster job resume j` accepts it and goes on; `muster job cancel j` ends the job": {Status: "paused", Total: client.JobTally{Size: 3, Rejected: 1}},
		"`muster job executions j --status rejected` shows what failed; `muster job retry j` tries it again":                                              {Status: "completed", Total: client.JobTally{Size: 3, Rejected: 1}},
		"`muster job executions j --status timedOut` shows what failed (there are also failed, uncertain); `muster job retry j` tries it again":           {Status: "completed", Total: client.JobTally{Size: 9, Failed: 1, TimedOut: 3, Uncertain: 1}},
		"`muster job approve j` lets wave 2 begin; `muster job cancel j` ends the job":                                                                    {Status: "running", WaitsFor: "approval", Wave: 2},
		"it goes on by itself when that job is done with them; `muster job show k` says how far it is":                                                    {Status: "running", WaitsFor: "devices", Blocked: "k"},
		"": {Status: "completed"},
	} {
		if got := jobNext("j", &p); got != want {
			t.Errorf("%+v: %s, want %s", p, got, want)
		}
	}
}

func TestRateText(t *testing.T) {
	for perMinute, want := range map[float64]string{50: "50 a minute", 1. / 60: "1 an hour", 0.5: "30 an hour", 1000. / 60: "16.667 a minute", 5 * 60: "300 a minute"} {
		if got := rateText(perMinute); got != want {
			t.Errorf("%g: %s, want %s", perMinute, got, want)
		}
	}
}

// A time that was foretold and has passed is not shown: something holds the job up.
func TestETAHasPassed(t *testing.T) {
	at := func(d time.Duration) *client.JobProgress {
		return &client.JobProgress{ETA: client.Time{Time: time.Now().Add(d)}}
	}
	if got := eta(at(-time.Second)); got != "" {
		t.Errorf("passed: %q", got)
	}
	if got := eta(&client.JobProgress{}); got != "" {
		t.Errorf("unknown: %q", got)
	}
	if got := eta(at(time.Hour + 500*time.Millisecond)); got != "eta 1:00:00" {
		t.Errorf("to come: %q", got)
	}
}

func TestJobExport(t *testing.T) {
	dir := fakeHub(t, jobHub(nil))
	to := filepath.Join(t.TempDir(), "out.csv")
	args := append(words("job export j1 --to"), to, "--data", dir)
	if got := (call{args: args}).run(t); got.code != ExitOK {
		t.Fatal(got.err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "jobId,deviceId\nj1,d1\n" {
		t.Errorf("%q: %v", text, err)
	}
	if got := (call{args: args}).run(t); got.code != ExitConflict || !strings.Contains(got.err, "--force") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	if got := (call{args: append(args, "--force")}).run(t); got.code != ExitOK {
		t.Error(got.err)
	}
	// An answer that is cut off leaves nothing.
	cut := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<16))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	other := filepath.Join(t.TempDir(), "out.jsonl")
	got := call{args: append(words("job export j1 --to"), other, "--data", cut)}.run(t)
	left, err := os.ReadDir(filepath.Dir(other))
	if got.code != ExitConnect || !strings.Contains(got.err, "cut off") || err != nil || len(left) != 0 {
		t.Errorf("exit code %d, %d files: %s", got.code, len(left), got.err)
	}
}

// progressOf is an event of a job's stream.
func progressOf(n int, status, more string) string {
	kind := "progress"
	if status == "completed" || status == "failed" || status == "canceled" {
		kind = "ended"
	}
	return fmt.Sprintf("id: c%d\nevent: %s\ndata: {\"cursor\":\"c%d\",\"kind\":\"%s\",\"time\":\"2026-11-30T09:00:00Z\",\"jobId\":\"j1\",\"etag\":\"e\",\"status\":\"%s\",\"run\":1,\"updatedTime\":\"2026-11-30T09:00:00Z\",%s}\n\n", n, kind, n, kind, status, more)
}

// streamHub streams these events, then leaves; asked again, it goes on.
func streamHub(t *testing.T, events ...string) string {
	return fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/failures") {
			_, _ = io.WriteString(w, `{"items":[{"status":"failed","code":"DeviceNotOnline","count":2,"message":"m","deviceId":"d1"}],"complete":true}`)
			return
		}
		from := 0
		_, _ = fmt.Sscanf(r.URL.Query().Get("cursor"), "c%d", &from)
		w.Header().Set("Content-Type", "text/event-stream")
		if from < len(events) {
			_, _ = io.WriteString(w, events[from]) // one at a time: the reader comes again with its cursor
		}
	}))
}

func TestJobWatch(t *testing.T) {
	const (
		first = `"wave":1,"waves":[{"number":1,"status":"running","size":1,"active":1},{"number":2,"status":"pending","size":9,"pending":9}],"total":{"size":10,"active":1,"pending":9}`
		mid   = `"waitsFor":"approval","wave":2,"waves":[{"number":1,"status":"ended","size":1,"succeeded":1},{"number":2,"status":"approval","size":9,"pending":9}],"total":{"size":10,"succeeded":1,"pending":9}`
		good  = `"wave":2,"waves":[{"number":1,"status":"ended","size":1,"succeeded":1},{"number":2,"status":"ended","size":9,"succeeded":9}],"total":{"size":10,"succeeded":10}`
		some  = `"wave":2,"waves":[{"number":1,"status":"ended","size":1,"succeeded":1},{"number":2,"status":"ended","size":9,"succeeded":7,"failed":2}],"total":{"size":10,"succeeded":8,"failed":2}`
		none  = `"total":{"size":2,"failed":2}`
	)
	for _, c := range []struct {
		name   string
		events []string
		code   int
		out    []string
		err    string
	}{
		{"crossed", []string{progressOf(1, "running", first), progressOf(2, "completed", `"reason":"the threshold is 2",`+some)}, ExitPartly, []string{"completed: the threshold is 2  10/10"}, "why:  the threshold is 2"},
		{"sick", []string{progressOf(1, "running", first), progressOf(2, "completed", `"reason":"9 of 10 are in bad health",`+good)}, ExitPartly, nil, "why:  9 of 10 are in bad health"},
		{"well", []string{progressOf(1, "running", first), progressOf(2, "running", mid), progressOf(3, "completed", good)}, ExitOK, []string{"running  0/10  wave 1/2  under way 1, pending 9", "wave 2 waits for approval  1/10", "  `muster job approve j1` lets wave 2 begin; `muster job cancel j1` ends the job\n", "completed  10/10"}, ""},
		{"partly", []string{progressOf(1, "running", first), progressOf(2, "completed", some)}, ExitPartly, []string{"completed  10/10  wave 2/2  succeeded 8, failed 2"}, "2 of 10 targets ended badly"},
		{"none", []string{progressOf(1, "completed", none)}, ExitFailed, nil, "all of 2 targets ended badly"},
		{"failed", []string{progressOf(1, "failed", `"reason":"5% of wave 1 failed","total":{"size":2,"failed":1,"canceled":1}`)}, ExitFailed, nil, "5% of wave 1 failed"},
		{"canceled", []string{progressOf(1, "canceled", `"total":{"size":2,"canceled":2}`)}, ExitCancelled, nil, "canceled"},
		{"deleted", []string{progressOf(1, "running", first), "event: end\ndata: {\"code\":\"deleted\",\"reason\":\"the job was deleted\"}\n\n"}, ExitNotFound, nil, "deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := streamHub(t, c.events...)
			got := call{args: append(words("job watch j1"), "--data", dir)}.run(t)
			if got.code != c.code || !strings.Contains(got.err, c.err) {
				t.Errorf("exit code %d, want %d:\n%s%s", got.code, c.code, got.out, got.err)
			}
			for _, want := range c.out {
				if !strings.Contains(got.out, want) {
					t.Errorf("lacks %q:\n%s", want, got.out)
				}
			}
			on := call{args: append(words("job watch j1"), "--data", dir), width: 60}.run(t)
			for line := range strings.Lines(on.out) {
				for part := range strings.SplitSeq(strings.TrimRight(line, "\n"), "\x1b[J") {
					if w := displayWidth(part[strings.LastIndexByte(part, '\r')+1:]); w > 60 {
						t.Errorf("a line is %d wide: %q", w, part)
					}
				}
			}
			lines := call{args: append(words("job watch j1 -o jsonl"), "--data", dir)}.run(t)
			if n := strings.Count(lines.out, "\n"); lines.code != c.code || n != strings.Count(strings.Join(c.events, ""), "event: progress")+strings.Count(strings.Join(c.events, ""), "event: ended") {
				t.Errorf("exit code %d, %d lines:\n%s", lines.code, n, lines.out)
			}
		})
	}
	t.Run("paused", func(t *testing.T) {
		const stopped = `"reason":"20% of wave 2 failed",` + some
		dir := streamHub(t, progressOf(1, "running", first), progressOf(2, "paused", stopped), progressOf(3, "completed", good))
		for _, c := range []struct {
			args  string
			width int
			code  int
			out   string
			err   string
		}{
			{"job watch j1", 0, ExitPartly, "paused: 20% of wave 2 failed  10/10", "`muster job resume j1` accepts it"},
			{"job watch j1 -o jsonl", 0, ExitPartly, `"status":"paused"`, "--through-pauses"},
			{"job watch j1 --through-pauses", 0, ExitOK, "completed  10/10", ""},
			{"job watch j1", 160, ExitOK, "`muster job resume j1` accepts it", ""},
		} {
			got := call{args: append(words(c.args), "--data", dir), width: c.width}.run(t)
			if got.code != c.code || !strings.Contains(got.out, c.out) || !strings.Contains(got.err, c.err) {
				t.Errorf("%s: exit code %d, want %d:\n%s%s", c.args, got.code, c.code, got.out, got.err)
			}
			if n := strings.Count(got.out, "  paused"); c.width == 0 && c.code == ExitPartly && n > 1 {
				t.Errorf("%s tells %d times that it is paused:\n%s", c.args, n, got.out)
			}
		}
	})
	t.Run("too long", func(t *testing.T) {
		dir := streamHub(t, progressOf(1, "running", first))
		got := call{args: append(words("job watch j1 --for 300ms"), "--data", dir)}.run(t)
		if got.code != ExitTimeout || !strings.Contains(got.err, "it goes on") {
			t.Errorf("exit code %d: %s", got.code, got.err)
		}
	})
	t.Run("picture", func(t *testing.T) {
		dir := streamHub(t, progressOf(1, "running", mid), progressOf(2, "completed", some))
		got := call{args: append(words("job watch j1"), "--data", dir), width: 100}.run(t)
		for _, want := range []string{
			"job j1  running: wave 2 waits for approval\n", "  wave 1   ████████████████████████ 1/1  ended\n", "  wave 2   ░░░░░░░░░░░░░░░░░░░░░░░░ 0/9  waits for approval\n",
			"muster job approve j1", "  wave 2   ██████████████████▓▓▓▓▓▓ 9/9  ended\n", "failed by code: DeviceNotOnline 2\n",
		} {
			if !strings.Contains(got.out, want) {
				t.Errorf("lacks %q:\n%s", want, got.out)
			}
		}
	})
}

// TestJobWatchForetells: where nobody sees that a job goes on and on, the watching
// says first how long it may last, and how to bound it.
func TestJobWatchForetells(t *testing.T) {
	const method = `"action":{"method":{"name":"reboot"}},"policy":{"timeout":"1d"}`
	waits := "which waits for devices that are away, up to 1d for each. `muster job watch j1 --for SPAN` ends the watching earlier, with the exit code 7."
	for _, c := range []struct {
		name, job, args string
		width           int
		want            string // "": nothing of it
	}{
		{"a method", method, "", 0, waits},
		{"its events alone", method, "-o jsonl", 0, waits},
		{"bounded", method, "--for 1h", 0, ""},
		{"a terminal", method, "", 100, ""},
		{"no device is waited for", `"action":{"method":{"name":"reboot"},"offline":"fail"}`, "", 0, ""},
		{"twins", `"action":{"twin":{"tags":{"a":1}}}`, "", 0, ""},
		{"evidence", `"action":{"twin":{"tags":{"a":1}},"confirm":"reported.a == 1"}`, "", 0, "which waits for devices that are away. `"},
		{"who comes to match", `"action":{"twin":{"tags":{"a":1}}},"targets":{"where":"true","dynamic":true}`, "", 0, "goes on until it is canceled. `"},
		{"and an end", `"action":{"twin":{"tags":{"a":1}}},"targets":{"where":"true","dynamic":true},"policy":{"end":"2026-12-01T09:00:00Z"}`, "", 0, "until 2026-12-01T09:00:00Z. `"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/progress") {
					_, _ = io.WriteString(w, `{"id":"j1","status":"running",`+c.job+`}`)
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, progressOf(1, "completed", `"total":{"size":1,"succeeded":1}`))
			}))
			got := call{args: words("job watch j1 --data " + dir + " " + c.args), width: c.width}.run(t)
			told := strings.Contains(got.err, "--for SPAN")
			if got.code != ExitOK || told != (c.want != "") || !strings.Contains(got.err, c.want) {
				t.Errorf("exit code %d, want %q:\n%s%s", got.code, c.want, got.out, got.err)
			}
		})
	}
}

func TestJobCompletion(t *testing.T) {
	dir := fakeHub(t, jobHub(nil))
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"job", "watch", "--data", dir, "j"}, "j1\trunning, tags.old=null desired.fan.speed=3 desired.interval=30\nj0\tcompleted, method reboot\n"},
		{[]string{"job", "template", "show", "--data", dir, ""}, "nightly\tat night\n"},
	} {
		got := call{args: append([]string{"__complete", "--"}, c.words...)}.run(t)
		if got.code != ExitOK || got.out != c.want {
			t.Errorf("%q gives %q, want %q\n%s", c.words, got.out, c.want, got.err)
		}
	}
}

func TestReachBar(t *testing.T) {
	for _, c := range []struct {
		from, to, total int
		want            string
	}{
		{0, 1, 100000, "█░░░░░░░░░░░░░░░░░░░░░░░"},
		{1, 12, 120, "██░░░░░░░░░░░░░░░░░░░░░░"},
		{12, 120, 120, "▒▒██████████████████████"},
		{119, 120, 120, "▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒█"},
		{0, 0, 120, "░░░░░░░░░░░░░░░░░░░░░░░░"},
		{0, 0, 0, "░░░░░░░░░░░░░░░░░░░░░░░░"},
	} {
		if got := reachBar(c.from, c.to, c.total); got != c.want {
			t.Errorf("%d to %d of %d is %s, want %s", c.from, c.to, c.total, got, c.want)
		}
	}
}
