package service

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// follow opens a stream of events.
func (f *fixture) follow(path string) *liveSource {
	f.Helper()
	res := f.send(f.Context(), http.MethodGet, path, "", header("Accept", "text/event-stream"), header("Accept-Encoding", "identity"))
	if res.StatusCode != http.StatusOK {
		f.Fatalf("status %d", res.StatusCode)
	}
	return &liveSource{TB: f.TB, lines: bufio.NewScanner(res.Body), close: res.Body.Close}
}

// untilEvent reads events until one is as asked for.
func (s *liveSource) untilEvent(what string, is func(e map[string]any) bool) map[string]any {
	s.Helper()
	kind := ""
	for s.lines.Scan() {
		switch name, value, _ := strings.Cut(s.lines.Text(), ": "); name {
		case "id":
			s.cursor = value
		case "event":
			kind = value
		case "data":
			var e map[string]any
			if err := json.Unmarshal([]byte(value), &e); err != nil || kind != "end" && (e["kind"] != kind || e["cursor"] != s.cursor) {
				s.Fatalf("%q of %s: %v", value, kind, err)
			}
			if is(e) {
				return e
			}
		}
	}
	s.Fatalf("the stream ended before %s: %v", what, s.lines.Err())
	return nil
}

// runsFixture is a hub that runs scripts, with devices d1 to dN.
func runsFixture(t *testing.T, devices int, list ...enginetest.Script) *fixture {
	t.Helper()
	scripts := enginetest.NewScripts(list...)
	f := jobFixture(t, devices, enginetest.WithScripts(scripts))
	enginetest.InstallScripts(t, f.hub, scripts)
	return f
}

// start starts a run and returns its id.
func (f *fixture) start(body string) string {
	f.Helper()
	return f.do("POST", "/api/v1/runs", body).want(201).text("runId")
}

// standing waits until a run is in a state.
func (f *fixture) standing(id, state string) {
	f.Helper()
	s := f.follow("/api/v1/runs/" + id + "/stream")
	defer func() { _ = s.close() }()
	s.untilEvent(state, func(e map[string]any) bool { return e["state"] == state })
}

func TestRun(t *testing.T) {
	f := runsFixture(t, 1, rebootScript())
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "d1"}, engine.EndpointMethod)
	report := func(count int) {
		t.Helper()
		if _, err := d.Session.PatchReported(t.Context(), fmt.Appendf(nil, `{"boot":{"count":%d}}`, count), -1); err != nil {
			t.Fatal(err)
		}
	}
	report(7)
	d.Answer(func(enginetest.Method) (int, []byte) { return 200, []byte(`{"ok":true}`) })
	id := f.start(`{"pattern":"reboot","deviceId":"d1","params":{"delay":3}}`)
	one := "/api/v1/runs/" + id
	s := f.follow(one + "/stream")
	waits := s.untilEvent("that it waits for the device", func(e map[string]any) bool { return e["phase"] == "restarting" })
	if waits["deviceId"] != "d1" || waits["progress"] != 0.5 || waits["final"] != false {
		t.Errorf("%v", waits)
	}
	f.do("GET", one, "").want(200).is("waitsFor", `"reported.boot.count > before"`).is("stepCount", "3").is("params", `{"delay":3}`)
	f.do("POST", one+"/undo", "").want(409).is("code", `"RunState"`)
	f.do("POST", one+"/retry", "").want(409)
	f.do("POST", one+"/decide", `{"approve":true}`).want(409)
	report(8)
	end := s.untilEvent("its end", func(e map[string]any) bool { return e["kind"] == "ended" })
	if end["state"] != "succeeded" || end["final"] != true {
		t.Errorf("%v", end)
	}
	trace := f.do("GET", one+"/trace", "").want(200)
	var doc runTrace
	if err := json.Unmarshal(trace.body, &doc); err != nil || len(doc.Steps) != 4 {
		t.Fatalf("%v %s", err, trace.body)
	}
	if s := doc.Steps[1]; s.Number != 2 || s.Op != "dev.call" || s.State != "done" || s.Line != "pattern.lua:2" || s.Begun.IsZero() || s.Ended.Before(s.Begun) || !strings.Contains(string(s.Result), "200") {
		t.Errorf("%+v", s)
	}
	if s := doc.Steps[0].Source; s != "-- a program in Go: reboot 1.0.0" {
		t.Errorf("the source of line 1 is %q", s)
	}
	if len(doc.Logs) != 1 || doc.Logs[0].Text != "asks d1" {
		t.Errorf("%+v", doc.Logs)
	}
	f.do("GET", "/api/v1/patterns/reboot", "").want(200).is("cost.runs", "1").is("cost.ended.succeeded", "1")
	f.do("POST", one+"/cancel", "").want(409).is("code", `"RunState"`)
	f.do("POST", one+"/undo", "{}").want(200).is("entry", `"undo"`)
	f.standing(id, "undone")
	trace = f.do("GET", one+"/trace", "").want(200)
	if trace.at("steps.4.entry") != `"undo"` || trace.at("steps.4.number") != "1" {
		t.Errorf("the undo's step: %s", trace.at("steps.4"))
	}
	f.do("GET", one+"/stream", "").want(400)
	f.do("GET", "/api/v1/runs/r-none", "").want(404).is("code", `"RunNotFound"`)
	f.do("GET", "/api/v1/runs/r-none/trace", "").want(404)
}

func TestRunsAreListed(t *testing.T) {
	f := runsFixture(t, 3, askScript(), fleetScript())
	var ids []string
	for i := 1; i <= 3; i++ {
		ids = append(ids, f.start(fmt.Sprintf(`{"pattern":"ask","deviceId":"d%d"}`, i)))
	}
	for _, id := range ids {
		f.standing(id, "waiting")
	}
	audit := f.start(`{"pattern":"audit"}`)
	f.standing(audit, "succeeded")
	list := f.do("GET", "/api/v1/runs?limit=2", "").want(200).is("items.0.pattern", `"audit"`).is("items.1.deviceId", `"d3"`)
	f.do("GET", "/api/v1/runs?limit=2&cursor="+list.text("cursor"), "").want(200).is("items.0.deviceId", `"d2"`).is("items.1.deviceId", `"d1"`)
	f.do("GET", "/api/v1/runs?pattern=ask&limit=2&cursor="+list.text("cursor"), "").want(400)
	for query, want := range map[string]string{
		"deviceId=d2": ids[1], "asks=true&deviceId=d1": ids[0], "pattern=audit": audit, "state=succeeded,failed": audit, "state=active&pattern=ask&deviceId=d3": ids[2],
	} {
		f.do("GET", "/api/v1/runs?"+query, "").want(200).is("items.0.runId", string(encode(want))).is("items.1", "")
	}
	f.do("GET", "/api/v1/runs?state=queued", "").want(200).is("items", "[]")
	f.do("GET", "/api/v1/runs/counts", "").want(200).is("items.0.pattern", `"ask"`).is("items.0.count", "3").is("items.1.state", `"succeeded"`)
	for _, query := range []string{"state=sleeping", "state=active,failed", "asks=perhaps", "moduleId=m", "limit=0", "cursor=x"} {
		f.do("GET", "/api/v1/runs?"+query, "").want(400).is("code", `"ArgumentInvalid"`)
	}

	res, data := f.read(f.send(f.Context(), http.MethodGet, "/api/v1/runs/export?pattern=ask", ""))
	if res.Header.Get("Content-Type") != "application/x-ndjson; charset=utf-8" || strings.Count(string(data), "\n") != 3 {
		t.Errorf("%s %s", res.Header.Get("Content-Type"), data)
	}
	var first runDocument
	if err := json.Unmarshal([]byte(strings.SplitN(string(data), "\n", 2)[0]), &first); err != nil || first.RunID != ids[2] || first.Question != "Shall d3 be wiped?" {
		t.Errorf("%v %+v", err, first)
	}
	_, data = f.read(f.send(f.Context(), http.MethodGet, "/api/v1/runs/export?format=csv", ""))
	rows, err := csv.NewReader(strings.NewReader(string(data))).ReadAll()
	if err != nil || len(rows) != 5 || rows[0][0] != "runId" || rows[1][0] != audit || rows[2][3] != "d3" {
		t.Errorf("%v %q", err, rows)
	}
	f.do("GET", "/api/v1/runs/export?format=xml", "").want(400)

	f.do("POST", "/api/v1/runs/"+ids[0]+"/decide", `{"approve":true,"reason":"looked at"}`).want(200)
	f.standing(ids[0], "succeeded")
	f.do("POST", "/api/v1/runs/"+ids[1]+"/decide", `{"approve":false,"reason":"not today"}`).want(200)
	f.standing(ids[1], "failed")
	f.do("GET", "/api/v1/runs/"+ids[1], "").want(200).is("fault.code", `"rejected"`)
	f.do("POST", "/api/v1/runs/cancel", `{"filter":{"pattern":"ask"},"reason":"enough"}`).want(200).is("canceled", "1")
	f.standing(ids[2], "canceled")
	again := f.do("POST", "/api/v1/runs/"+ids[2]+"/retry", `{}`).want(201).is("retryOf", string(encode(ids[2]))).is("attempt", "2").text("runId")
	f.standing(again, "waiting")
	f.do("POST", "/api/v1/runs/"+again+"/cancel", `{"now":true}`).want(200)
	f.standing(again, "canceled")
}

func TestRunsRefused(t *testing.T) {
	f := runsFixture(t, 1, rebootScript(), fleetScript())
	for body, status := range map[string]int{
		`{}`: 400, `{"pattern":"none","deviceId":"d1"}`: 404, `{"pattern":"reboot"}`: 400, `{"pattern":"reboot","deviceId":"none"}`: 404, `{"pattern":"audit","deviceId":"d1"}`: 400,
		`{"pattern":"reboot","deviceId":"d1","params":{"delay":600}}`: 400, `{"pattern":"reboot","deviceId":"d1","params":{"dealy":1}}`: 400, `{"pattern":"reboot","deviceId":"d1","params":[]}`: 400,
		`{"pattern":"reboot","moduleId":"m"}`: 400, `{"pattern":"reboot","device":"d1"}`: 400, `{"pattern":3}`: 400, `{"pattern":"reboot","deviceId":"d1","version":"9.9.9"}`: 404,
	} {
		f.do("POST", "/api/v1/runs", body).want(status)
	}
	if a := f.do("POST", "/api/v1/runs", `{"pattern":"reboot","deviceId":"d1","params":{"delay":600}}`); !strings.Contains(a.text("detail"), "delay") || a.at("faults.0.path") == "" {
		t.Errorf("a wrong parameter is told so: %s", a.body)
	}
	for path, bodies := range map[string][]string{
		"/api/v1/runs/decide":     {`{}`, `{"approve":true}`, `{"filter":{},"approve":true}`, `{"filter":{"jobId":"j"}}`, `{"filter":{"job":"j"},"approve":true}`, `{"filter":{"state":"odd"},"approve":true}`, `{"filter":[],"approve":true}`},
		"/api/v1/runs/cancel":     {`{}`, `{"filter":{}}`, `{"filter":{"jobId":"j"},"now":true,"undo":true}`, `{"filter":{"moduleId":"m"}}`, `{"filter":{"asks":"yes"}}`},
		"/api/v1/runs/r-1/cancel": {`{"why":"x"}`, `{"now":"x"}`, `{"now":true,"undo":true}`},
		"/api/v1/runs/r-1/undo":   {`{"x":1}`},
		"/api/v1/runs/r-1/retry":  {`{"from":0}`, `{"from":"1"}`, `{"from":99999}`, `{"version":1}`},
		"/api/v1/runs/r-1/decide": {`{}`, `{"approve":1}`, `{"approve":true,"reason":1}`},
	} {
		for _, body := range bodies {
			f.do("POST", path, body).want(400)
		}
	}
	for _, path := range []string{"/api/v1/runs", "/api/v1/runs/counts", "/api/v1/runs/export", "/api/v1/runs/r-1", "/api/v1/runs/r-1/trace"} {
		f.do("GET", path, "", f.as("registryRead")).want(403)
	}
	for _, path := range []string{"/api/v1/runs", "/api/v1/runs/cancel", "/api/v1/runs/decide", "/api/v1/runs/r-1/cancel", "/api/v1/runs/r-1/decide"} {
		f.do("POST", path, `{"filter":{"jobId":"j"},"approve":true}`, f.as("registryRead")).want(403)
	}
}
