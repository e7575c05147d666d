package service

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// jobFixture is a hub that runs jobs, with devices d1 to dN whose tag n is
// their number.
func jobFixture(t *testing.T, devices int, options ...enginetest.Option) *fixture {
	t.Helper()
	f := newFixture(t, options...)
	for i := 1; i <= devices; i++ {
		id := fmt.Sprint("d", i)
		f.create(id)
		tagDevice(t, f, id, fmt.Sprintf(`{"n":%d}`, i))
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f.hub.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return f
}

// jobSource is a job's stream.
type jobSource struct {
	*liveSource
}

func (f *fixture) followJob(id, cursor string) *jobSource {
	f.Helper()
	options := []option{header("Accept", "text/event-stream"), header("Accept-Encoding", "identity")}
	if cursor != "" {
		options = append(options, header("Last-Event-ID", cursor))
	}
	res := f.send(f.Context(), http.MethodGet, "/api/v1/jobs/"+id+"/progress", "", options...)
	if res.StatusCode != http.StatusOK {
		f.Fatalf("status %d", res.StatusCode)
	}
	return &jobSource{&liveSource{TB: f.TB, lines: bufio.NewScanner(res.Body), close: res.Body.Close}}
}

// event reads the next event.
func (s *jobSource) event() jobEvent {
	s.Helper()
	for kind := ""; s.lines.Scan(); {
		switch name, value, _ := strings.Cut(s.lines.Text(), ": "); name {
		case "id":
			s.cursor = value
		case "event":
			kind = value
		case "data":
			var e jobEvent
			if err := json.Unmarshal([]byte(value), &e); err != nil || e.Kind != kind || e.Cursor != s.cursor {
				s.Fatalf("%q of %s behind %s: %v", value, kind, s.cursor, err)
			}
			return e
		}
	}
	s.Fatalf("the stream ended: %v", s.lines.Err())
	return jobEvent{}
}

// until reads events until one is as asked for.
func (s *jobSource) until(what string, f func(*jobEvent) bool) jobEvent {
	s.Helper()
	for {
		e := s.event()
		if f(&e) {
			return e
		}
		if e.Kind == "ended" {
			s.Fatalf("the job has ended, not %s: %+v", what, e)
		}
	}
}

// endJob follows a job to its end.
func (f *fixture) endJob(id string) jobEvent {
	f.Helper()
	s := f.followJob(id, "")
	defer func() { _ = s.close() }()
	return s.until("its end", func(e *jobEvent) bool { return e.Kind == "ended" })
}

const patchJob = `{"id":"%s","targets":{"where":"tags.n <= 3"},"action":{"twin":{"desired":{"x":1},"tags":{"mark":"%s"}}}}`

func TestJobLife(t *testing.T) {
	f := jobFixture(t, 5)
	const jobs = "/api/v1/jobs"
	preview := f.do("POST", jobs+"/preview", `{"targets":{"where":"tags.n <= 3","exclude":["d2","gone"]},"action":{"twin":{"desired":{"x":1},"tags":{"n":null}}},"policy":{"waves":[{"size":"1"},{"size":"100%"}]},"sample":5}`).want(200).
		is("count", "2").is("kind", `"scheduleUpdateTwin"`).is("waves.0.number", "1").is("waves.0.size", "1").is("waves.1.size", "1").is("excluded.0.count", "1").is("excluded.0.sample", `["d2"]`).is("warnings", "[]")
	if n := strings.Count(preview.at("sample"), `"path":"desired.x"`); n != 2 || !strings.Contains(preview.at("sample"), `{"before":1,"path":"tags.n"}`) {
		t.Errorf("sample %s", preview.at("sample"))
	}
	made := f.do("POST", jobs, fmt.Sprintf(patchJob, "j1", "one")).want(201).is("id", `"j1"`).is("status", `"queued"`).is("kind", `"scheduleUpdateTwin"`).is("principal", `"policy:iothubowner"`)
	if made.header.Get("Etag") != `"`+made.text("etag")+`"` {
		t.Errorf("ETag %s, want %s", made.header.Get("Etag"), made.text("etag"))
	}
	f.do("POST", jobs, fmt.Sprintf(patchJob, "j1", "one")).want(409).is("code", `"JobAlreadyExists"`)
	if e := f.endJob("j1"); e.Status != "completed" || e.Total.Succeeded != 3 || e.Total.Size != 3 || e.Waves[0].Status != "ended" {
		t.Errorf("ended as %+v", e)
	}
	f.do("GET", "/twins/d3", "").want(200).is("tags.mark", `"one"`).is("properties.desired.x", "1")
	f.do("GET", "/twins/d4", "").want(200).is("tags.mark", "")
	f.do("GET", jobs+"/j1", "").want(200).is("status", `"completed"`).is("policy.waves.0.size", `"100%"`).is("total.succeeded", "3").is("targets.where", `"tags.n <= 3"`)

	f.do("GET", jobs+"/j1/executions?limit=2", "").want(200).is("items.0.status", `"succeeded"`).is("items.0.wave", "1").is("items.0.final", "true").is("items.0.attempts", "1").is("items.2", "")
	first := f.do("GET", jobs+"/j1/executions?limit=2", "").text("cursor")
	f.do("GET", jobs+"/j1/executions?limit=2&cursor="+first, "").want(200).is("items.1", "").is("cursor", `""`)
	f.do("GET", jobs+"/j1/executions?limit=2&status=failed&cursor="+first, "").want(400).is("code", `"ArgumentInvalid"`)
	f.do("GET", jobs+"/j1/executions?status=failed", "").want(200).is("items", "[]")
	f.do("GET", jobs+"/j1/executions?wave=2", "").want(400).is("code", `"ArgumentInvalid"`)
	f.do("GET", jobs+"/j1/failures", "").want(200).is("items", "[]").is("complete", "true")
	f.do("GET", "/api/v1/devices/d1/jobs", "").want(200).is("items.0.jobId", `"j1"`).is("items.1", "")
	f.do("GET", "/api/v1/devices/d5/jobs", "").want(200).is("items", "[]")

	f.do("POST", jobs+"/j1/clone", `{"id":"j2","action":{"twin":{"tags":{"mark":"two"}}},"policy":{"priority":3}}`).want(201).is("id", `"j2"`).is("policy.priority", "3")
	f.endJob("j2")
	f.do("GET", "/twins/d1", "").want(200).is("tags.mark", `"two"`)
	f.do("POST", jobs, `{"id":"j3","clone":"j1","labels":{"team":"a"}}`).want(201).is("labels", `{"team":"a"}`)
	f.endJob("j3")
	f.do("GET", jobs, "").want(200).is("items.0.id", `"j3"`).is("items.1.id", `"j2"`).is("items.2.id", `"j1"`).is("items.3", "")
	f.do("GET", jobs+"?label=team%3Da", "").want(200).is("items.0.id", `"j3"`).is("items.1", "")
	f.do("GET", jobs+"?status=completed&kind=scheduleDeviceMethod", "").want(200).is("items", "[]")
	f.do("GET", jobs+"?status=active", "").want(200).is("items", "[]")
	page := f.do("GET", jobs+"?limit=1", "").want(200).is("items.0.id", `"j3"`).text("cursor")
	f.do("GET", jobs+"?limit=1&cursor="+page, "").want(200).is("items.0.id", `"j2"`)
	f.do("GET", jobs+"?limit=1&label=team&cursor="+page, "").want(400)

	f.do("DELETE", jobs+"/j1", "", ifMatch("nonsense")).want(412)
	f.do("DELETE", jobs+"/j1", "").want(204)
	f.do("GET", jobs+"/j1", "").want(404).is("code", `"JobNotFound"`)
	f.do("GET", "/jobs/v2/j1", "").want(200).is("status", `"unknown"`)
	f.do("GET", jobs+"/j1/executions", "").want(404)
	f.do("GET", jobs+"/j1/progress", "", header("Accept", "text/event-stream")).want(404)
}

// A token of a preview is for its job over its targets, and for no other.
func TestJobToken(t *testing.T) {
	f := jobFixture(t, 3)
	const spec = `"targets":{"where":"tags.n < 10"},"action":{"twin":{"tags":{"a":1}}}`
	token := f.do("POST", "/api/v1/jobs/preview", `{`+spec+`}`).want(200).is("count", "3").text("token")
	make := func(id, token, spec string) *reply {
		return f.do("POST", "/api/v1/jobs", fmt.Sprintf(`{"id":%q,"token":%q,%s}`, id, token, spec))
	}
	make("j1", token, strings.Replace(spec, `"a":1`, `"a":2`, 1)).want(412).is("code", `"JobRunPreconditionFailed"`)
	make("j1", "x"+token, spec).want(400).is("code", `"ArgumentInvalid"`)
	make("j1", token, spec).want(201)
	f.endJob("j1")
	token = f.do("POST", "/api/v1/jobs/preview", `{`+spec+`}`).want(200).text("token")
	tagDevice(t, f, "d3", `{"n":11}`)
	make("j2", token, spec).want(412).is("code", `"JobRunPreconditionFailed"`)
	f.do("GET", "/api/v1/jobs/j2", "").want(404)
}

func TestJobControl(t *testing.T) {
	f := jobFixture(t, 4)
	const job = "/api/v1/jobs/j"
	f.do("POST", "/api/v1/jobs", `{"id":"j","targets":{"ids":["d1","d2","d3","d4"]},"action":{"twin":{"tags":{"a":1}}},"policy":{"waves":[{"size":"1"},{"size":"50%","approval":true},{"size":"100%","approval":true}]}}`).want(201)
	s := f.followJob("j", "")
	e := s.until("waiting for approval", func(e *jobEvent) bool { return e.WaitsFor == "approval" })
	if e.Wave != 2 || e.Waves[0].Status != "ended" || e.Waves[1].Status != "approval" || e.Waves[2].Status != "pending" || !e.ETA.IsZero() {
		t.Errorf("stands as %+v", e)
	}
	f.do("POST", job+"/approve", `{"wave":9}`).want(409).is("code", `"OperationNotAllowedInCurrentState"`)
	f.do("POST", job+"/approve", `{"wave":0}`).want(400)
	f.do("POST", job+"/approve", `{"waves":1}`).want(400)
	f.do("POST", job+"/pause", `{"reason":"look"}`, ifMatch("nonsense")).want(412)
	f.do("POST", job+"/pause", `{"reason":"look"}`, ifMatch(e.ETag)).want(200).is("status", `"paused"`).is("reason", `"look"`)
	f.do("POST", job+"/pause", "").want(409)
	f.do("POST", job+"/resume", "").want(200).is("status", `"running"`)
	f.do("POST", job+"/resume", "").want(409)
	f.do("POST", job+"/retry", "").want(409)
	f.do("DELETE", job, "").want(409).is("code", `"OperationNotAllowedInCurrentState"`)
	// An Idempotency-Key gives the first answer again.
	f.do("POST", job+"/approve", "", header("Idempotency-Key", "a")).want(200)
	if again := f.do("POST", job+"/approve", "", header("Idempotency-Key", "a")).want(200); again.header.Get(replayedField) != "true" {
		t.Error("a wave was approved again")
	}
	e = s.until("waiting for the next approval", func(e *jobEvent) bool { return e.WaitsFor == "approval" && e.Wave == 3 })
	if e.Waves[1].Approved != "policy:iothubowner" || e.Waves[1].ApprovedAt.IsZero() || e.Total.Succeeded != 2 {
		t.Errorf("stands as %+v", e)
	}
	f.do("POST", job+"/cancel", `{"reason":"enough"}`).want(200)
	if e = s.until("its end", func(e *jobEvent) bool { return e.Kind == "ended" }); e.Status != "canceled" || e.Total.Canceled != 2 || !strings.Contains(e.Reason, "enough") {
		t.Errorf("ended as %+v", e)
	}
	f.do("POST", job+"/cancel", "").want(409)
	f.do("GET", "/jobs/v2/j", "").want(200).is("status", `"cancelled"`).is("deviceJobStatistics", `{"deviceCount":4,"failedCount":2,"pendingCount":0,"runningCount":0,"succeededCount":2}`)
	f.do("POST", job+"/retry", `{"outcomes":["succeeded"]}`).want(400)
	f.do("POST", job+"/retry", `{"outcomes":["canceled"]}`).want(200).is("retried", "2")
	// The wave that was never approved still is not.
	f.followJob("j", "").until("waiting for the last approval", func(e *jobEvent) bool { return e.WaitsFor == "approval" })
	f.do("POST", job+"/approve", "").want(200)
	if e = f.endJob("j"); e.Total.Succeeded != 4 {
		t.Errorf("after the retry it ended as %+v", e)
	}
	for _, operation := range []string{"pause", "resume", "cancel", "approve", "retry"} {
		f.do("POST", "/api/v1/jobs/none/"+operation, "").want(404).is("code", `"JobNotFound"`)
		f.do("POST", job+"/"+operation, "", f.as("registryRead")).want(403)
	}
}

// What devices answer, and that one does not come, is told in executions, their
// exports, failures and IoT Hub's rows.
func TestJobMethods(t *testing.T) {
	f := jobFixture(t, 3)
	for i, status := range []int{200, 500} {
		d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: fmt.Sprint("d", i+1)}, engine.EndpointMethod)
		d.Answer(func(enginetest.Method) (int, []byte) { return status, []byte(`{"a,b":"\"c\"\n"}`) })
	}
	f.do("POST", "/api/v1/jobs", `{"id":"own","targets":{"where":"true"},"action":{"method":{"name":"m","payload":[1]},"offline":"fail"}}`).want(201)
	if e := f.endJob("own"); e.Status != "completed" || e.Total.Succeeded != 1 || e.Total.Rejected != 1 || e.Total.Failed != 1 {
		t.Errorf("ended as %+v", e)
	}
	f.do("GET", "/api/v1/jobs/own/executions?status=rejected", "").want(200).is("items.0.deviceId", `"d2"`).is("items.0.response.status", "500").is("items.1", "")
	f.do("GET", "/api/v1/jobs/own/executions?status=failed", "").want(200).is("items.0.deviceId", `"d3"`).is("items.0.code", `"DeviceNotOnline"`)
	f.do("GET", "/api/v1/jobs/own/failures", "").want(200).is("items.0.count", "1").is("items.1.count", "1").is("items.2", "")

	w, text := f.read(f.send(f.Context(), "GET", "/api/v1/jobs/own/executions?format=csv", ""))
	rows, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil || len(rows) != 4 || w.Header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Fatalf("%d rows of %s: %v", len(rows), w.Header.Get("Content-Type"), err)
	}
	column := func(name string) int { return slices.Index(rows[0], name) }
	if r := rows[2]; r[column("deviceId")] != "d2" || r[column("status")] != "rejected" || r[column("answer")] != `{"a,b":"\"c\"\n"}` || r[column("answerStatus")] != "500" {
		t.Errorf("row %q", r)
	}
	w, text = f.read(f.send(f.Context(), "GET", "/api/v1/jobs/own/executions", "", header("Accept", "application/x-ndjson")))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var one executionDocument
	if err := json.Unmarshal([]byte(lines[0]), &one); err != nil || len(lines) != 3 || one.DeviceID != "d1" || one.Response.Status != 200 || w.Header.Get("Content-Type") != "application/x-ndjson; charset=utf-8" {
		t.Errorf("%d lines, %s: %v", len(lines), lines[0], err)
	}
	f.do("GET", "/api/v1/jobs/own/executions?format=xml", "").want(400)
	f.do("GET", "/api/v1/jobs/own/executions?format=csv&limit=3", "").want(400)

	f.do("PUT", "/jobs/v2/hub", `{"jobId":"hub","type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{"methodName":"m"}}`).want(200).is("status", `"queued"`).golden("hubjob-created")
	if e := f.endJob("hub"); e.Total.Succeeded != 2 || e.Total.Failed != 1 {
		t.Errorf("ended as %+v", e)
	}
	f.do("POST", "/api/v1/query", `{"query":"SELECT * FROM devices.jobs"}`).want(200).is("itemType", `"DeviceJob"`).is("columns.0", `"deviceId"`).is("columns.2", `"jobId"`)
	if _, text = f.read(f.send(f.Context(), "POST", "/api/v1/query?format=csv", `{"query":"SELECT * FROM devices.jobs"}`)); !strings.HasPrefix(string(text), "deviceId,moduleId,jobId,") {
		t.Errorf("the rows of jobs as CSV are %s", text)
	}
	rowsOf := f.do("POST", "/devices/query", `{"query":"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'hub'"}`).want(200)
	if rowsOf.header.Get("X-Ms-Item-Type") != "DeviceJob" || strings.Count(string(rowsOf.body), `"jobId":"hub"`) != 3 {
		t.Errorf("%s", rowsOf.body)
	}
	rowsOf.golden("hubjob-rows")
}

// A stream that is resumed says nothing that was said, and tells what has
// changed meanwhile; its job's end is not its own.
func TestJobStream(t *testing.T) {
	f := jobFixture(t, 2)
	f.do("POST", "/api/v1/jobs", `{"id":"j","targets":{"where":"true"},"action":{"twin":{"tags":{"a":1}}},"policy":{"waves":[{"size":"1"},{"size":"100%","approval":true}]}}`).want(201)
	s := f.followJob("j", "")
	seen := s.until("waiting", func(e *jobEvent) bool { return e.WaitsFor == "approval" })
	if seen.JobID != "j" || seen.Total.Size != 2 {
		t.Errorf("%+v", seen)
	}
	_ = s.close()
	again := f.followJob("j", seen.Cursor)
	f.do("POST", "/api/v1/jobs/j/approve", "").want(200)
	if e := again.event(); e.WaitsFor == "approval" && e.Waves[1].Approved == "" {
		t.Errorf("the first event is the one that was seen: %+v", e)
	}
	again.until("its end", func(e *jobEvent) bool { return e.Kind == "ended" })
	f.do("DELETE", "/api/v1/jobs/j", "").want(204)
	for again.lines.Scan() {
		if again.lines.Text() == "event: end" {
			break
		}
	}
	if again.lines.Scan(); !strings.Contains(again.lines.Text(), `"code":"deleted"`) {
		t.Errorf("the stream of a deleted job says %q", again.lines.Text())
	}
	f.do("GET", "/api/v1/jobs/j/progress", "").want(400).is("code", `"ArgumentInvalid"`)
}

func TestJobTemplates(t *testing.T) {
	f := jobFixture(t, 2)
	const path = "/api/v1/job-templates/nightly"
	f.do("GET", path, "").want(404).is("code", `"JobTemplateNotFound"`)
	made := f.do("PUT", path, `{"description":"at night","job":{"action":{"twin":{"tags":{"a":1,"b":2}}},"policy":{"priority":4}}}`).want(200).is("version", "1").is("job.policy.priority", "4")
	f.do("PUT", path, `{"job":{"action":{"twin":{"tags":{"a":1}}},"policy":{"priority":5}}}`, ifMatch("nonsense")).want(412)
	f.do("PUT", path, `{"job":{"action":{"twin":{"tags":{"a":1}}},"policy":{"priority":5}}}`, ifMatch(made.text("etag"))).want(200).is("version", "2")
	f.do("GET", path+"?version=1", "").want(200).is("job.policy.priority", "4")
	f.do("GET", path+"/versions", "").want(200).is("items.0.version", "2").is("items.1.version", "1").is("items.2", "")
	page := f.do("GET", path+"/versions?limit=1", "").want(200).text("cursor")
	f.do("GET", path+"/versions?limit=1&cursor="+page, "").want(200).is("items.0.version", "1").is("cursor", `""`)
	f.do("GET", "/api/v1/job-templates", "").want(200).is("items.0.name", `"nightly"`).is("items.1", "")
	f.do("POST", "/api/v1/jobs", `{"id":"j","template":"nightly","targets":{"where":"true"},"policy":{"parallel":7}}`).want(201).is("policy.priority", "5").is("policy.parallel", "7").is("action.twin.tags", `{"a":1}`)
	f.endJob("j")
	f.do("POST", "/api/v1/jobs", `{"template":"none","targets":{"where":"true"}}`).want(404).is("code", `"JobTemplateNotFound"`)
	f.do("POST", "/api/v1/jobs", `{"template":"nightly","clone":"j"}`).want(400)
	for body, want := range map[string]string{
		`{}`: "job is missing", `{"job":null}`: "job is missing", `{"job":[]}`: "job is an array", `{"job":{"polcy":{}}}`: "polcy", `{"job":{"policy":{"waves":[{"size":"2x"}]}}}`: "waves[0].size", `{"jobs":{}}`: "not a member",
	} {
		if a := f.do("PUT", path, body).want(400); !strings.Contains(a.text("detail"), want) {
			t.Errorf("%s: %s, want %q", body, a.body, want)
		}
	}
	f.do("DELETE", path, "", f.as("registryRead")).want(403)
	f.do("DELETE", path, "").want(204)
	f.do("DELETE", path, "").want(404)
}

// Whatever is wrong with a job is said with its place, all of it at once where
// one can, and never makes one.
func TestJobRefused(t *testing.T) {
	f := jobFixture(t, 2)
	const action = `"action":{"twin":{"tags":{"a":1}}}`
	with := func(policy string) string {
		return `{"targets":{"where":"true"},` + action + `,"policy":` + policy + `}`
	}
	for _, c := range []struct {
		body string
		path string // of the first fault, when there are faults
		want string // in the detail
	}{
		{``, "", "is missing"},
		{`[]`, "", "an array"},
		{`"x"`, "", "a string"},
		{`{`, "", "not valid JSON"},
		{strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), "", "nested deeper than 64"},
		{`{"targets":{"where":"true"},"targets":{}}`, "", "targets comes twice"},
		{`{"targets":{"where":"true","where":"false"},` + action + `}`, "targets.where", "twice"},
		{`{"template":5}`, "", "template is a number"},
		{`{"sample":5,"targets":{"where":"true"},` + action + `}`, "", "sample goes with a preview"},
		{`{"token":[],"targets":{"where":"true"},` + action + `}`, "", "token is an array"},
		{`{` + action + `}`, "", "targets"},
		{`{"targets":{},` + action + `}`, "", "targets"},
		{`{"targets":null,` + action + `}`, "", "targets"},
		{`{"targets":{"where":"true","ids":["d1"]},` + action + `}`, "", "targets"},
		{`{"targets":{"where":"tags.n =="},` + action + `}`, "", "targets.where"},
		{`{"targets":{"where":"tags.n > 1","excludeWhere":"tags.n =="},` + action + `}`, "", "targets.excludeWhere"},
		{`{"targets":{"where":5},` + action + `}`, "targets.where", "targets.where"},
		{`{"targets":{"ids":["d1",5]},` + action + `}`, "targets.ids[1]", "targets.ids[1]"},
		{`{"targets":{"ids":["d1/m/x"]},` + action + `}`, "", "targets.ids"},
		{`{"targets":{"ids":[""]},` + action + `}`, "", "targets.ids"},
		{`{"targets":{"ids":["d1"],"dynamic":true},` + action + `}`, "", "dynamic"},
		{`{"targets":{"query":"none"},` + action + `}`, "", "none"},
		{`{"targets":{"where":"true","source":"jobs"},` + action + `}`, "", "source"},
		{`{"targets":{"where":"tags.n > 100"},` + action + `}`, "", "match"},
		{`{"targets":{"where":"true"}}`, "", "action"},
		{`{"targets":{"where":"true"},"action":{}}`, "", "action"},
		{`{"targets":{"where":"true"},"action":{"twin":{"tags":{}},"method":{"name":"m"}}}`, "", "action"},
		{`{"targets":{"where":"true"},"action":{"twin":{"tags":[1]}}}`, "", "action.twin"},
		{`{"targets":{"where":"true"},"action":{"twin":{"desired":{"a.b":1}}}}`, "", "a.b"},
		{`{"targets":{"where":"true"},"action":{"method":{"name":""}}}`, "", "action.method"},
		{`{"targets":{"where":"true"},"action":{"method":{"name":"m","responseTimeout":"1h"}}}`, "", "responseTimeout"},
		{`{"targets":{"where":"true"},"action":{"method":{"name":"m"},"offline":"maybe"}}`, "", "offline"},
		{`{"targets":{"where":"true"},"action":{"method":{"name":"m"},"confirm":"reported."}}`, "", "confirm"},
		{`{"targts":{"where":"true"},` + action + `}`, "", "did you mean \"targets\"?"},
		{with(`{"waves":[{"size":"1"},{"sise":"2"}]}`), "policy.waves[1]", "did you mean \"size\"?"},
		{with(`{"waves":[{"size":"x"}]}`), "policy.waves[0].size", "policy.waves[0].size"},
		{with(`{"waves":[{"size":"1"},{"size":"50%"}]}`), "policy.waves[1].size", "100%"},
		{with(`{"waves":[{"size":"50%"},{"size":"10%"},{"size":"100%"}]}`), "policy.waves[1].size", "policy.waves[1].size"},
		{with(`{"waves":{}}`), "policy.waves", "policy.waves"},
		{with(`{"waves":[{"size":"100%","health":{"where":""}}]}`), "policy.waves[0].health.where", "health"},
		{with(`{"rate":{"perMinute":-1}}`), "policy.rate.perMinute", "perMinute"},
		{with(`{"parallel":1.5}`), "policy.parallel", "whole number"},
		{with(`{"windows":[{"cron":"61 * * * *","duration":"1h"}]}`), "policy.windows[0].cron", "cron"},
		{with(`{"windows":[{"cron":"0 0 * * *","duration":"1h","timeZone":"Mars/Olympus"}]}`), "policy.windows[0].timeZone", "Mars/Olympus"},
		{with(`{"windows":[{"cron":"0 0 30 2 *","duration":"1h"}]}`), "policy.windows[0].cron", "cron"},
		{with(`{"start":"tomorrow"}`), "policy.start", "policy.start"},
		{with(`{"end":"2020-01-01T00:00:00Z"}`), "policy.end", "policy.end"},
		{with(`{"timeout":"soon"}`), "policy.timeout", "policy.timeout"},
		{with(`{"timeout":-5}`), "policy.timeout", "policy.timeout"},
		{with(`{"retry":{"attempts":1000}}`), "policy.retry.attempts", "attempts"},
		{with(`{"retry":{"attempts":2,"on":["sunshine"]}}`), "policy.retry.on", "sunshine"},
		{with(`{"pause":[{"share":"101%"}]}`), "policy.pause[0].share", "share"},
		{with(`{"pause":[{"share":"5%","per":"fleet"}]}`), "policy.pause[0].per", "fleet"},
		{with(`{"priority":1000}`), "policy.priority", "priority"},
		{with(`{"repeat":"each day"}`), "policy.repeat", "repeat"},
	} {
		for _, path := range []string{"/api/v1/jobs", "/api/v1/jobs/preview"} {
			if strings.HasSuffix(path, "preview") && strings.Contains(c.want, "preview") {
				continue
			}
			a := f.do("POST", path, c.body)
			if a.status < 400 || a.status >= 500 || !strings.Contains(a.text("detail"), c.want) {
				t.Errorf("%s %.200s: %d %s, want %q", path, c.body, a.status, a.body, c.want)
				continue
			}
			if got := a.at("faults.0.path"); c.path != "" && !strings.HasPrefix(got, `"`+c.path) {
				t.Errorf("%s %.200s: the first fault is at %s, want %s: %s", path, c.body, got, c.path, a.body)
			}
		}
	}
	a := f.do("POST", "/api/v1/jobs", with(`{"waves":[{"size":"x"},{"size":"y"}],"parallel":"z"}`)).want(400)
	a.golden("problem-job")
	big := f.do("POST", "/api/v1/jobs", `{"description":"`+strings.Repeat("x", 1<<20)+`"}`)
	if big.status != 413 {
		t.Errorf("a body of more than 1 MiB: %d", big.status)
	}
	for _, query := range []string{"?status=odd", "?kind=other", "?limit=0", "?cursor=x"} {
		f.do("GET", "/api/v1/jobs"+query, "").want(400)
	}
	for _, query := range []string{"?status=odd", "?wave=0", "?run=-1", "?limit=1001", "?cursor=x"} {
		f.do("GET", "/api/v1/jobs/none/executions"+query, "").want(400)
	}
	f.do("GET", "/api/v1/jobs", "").want(200).is("items", "[]")
	f.do("POST", "/api/v1/jobs", `{"targets":{"where":"true"},`+action+`}`, f.as("registryRead")).want(403)
}
