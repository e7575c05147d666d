package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// rowsOfJobs runs a query over devices.jobs to its end, and gives device, job and
// status of each row.
func rowsOfJobs(t testing.TB, h *Hub, text string, most int) (got []string, pages int) {
	t.Helper()
	for token := ""; ; {
		page, err := h.Query(t.Context(), everybody(), QueryRequest{Text: text, Max: most, Token: token})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if page.Item != QueryJobs || most > 0 && len(page.Rows) > most {
			t.Fatalf("%s: %d rows of %s", text, len(page.Rows), page.Item)
		}
		for _, row := range page.Rows {
			var r struct{ DeviceID, ModuleID, JobID, Status string }
			if err := json.Unmarshal(row, &r); err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimSuffix(r.DeviceID+"/"+r.ModuleID, "/")+" "+r.JobID+" "+r.Status)
		}
		if pages++; page.Token == "" {
			return got, pages
		}
		if pages > 10_000 {
			t.Fatalf("%s never ends", text)
		}
		token = page.Token
	}
}

func TestRowsOfJobs(t *testing.T) {
	h := jobFleet(t, 6)
	twin := twinJob("")
	twin.ID, twin.Targets.IDs = "j1", []TwinID{{DeviceID: "d00001"}, {DeviceID: "d00002"}, {DeviceID: "d00003"}}
	createJob(t, h, twin)
	method := JobSpec{ID: "j2", Targets: JobTargets{IDs: []TwinID{{DeviceID: "d00001"}}}, Action: JobAction{Method: &JobMethodCall{Name: "m"}}}
	createJob(t, h, method)
	for _, id := range []string{"j1", "j2"} {
		layOutAll(t, h, id)
	}
	runSome(t, h, "j1", 2, func(id TwinID) executionRecord {
		if id.DeviceID == "d00002" {
			return executionRecord{Status: rollout.ExecutionTimedOut, Code: "GatewayTimeout", Message: "no answer"}
		}
		return executionRecord{Status: rollout.ExecutionSucceeded}
	})
	runSome(t, h, "j2", 1, func(TwinID) executionRecord {
		return executionRecord{Status: rollout.ExecutionSucceeded, Answered: true, AnswerCode: 200, Answer: []byte(`{"a":1}`)}
	})
	all := []string{"d00001 j1 completed", "d00002 j1 failed", "d00003 j1 pending", "d00001 j2 completed"}
	for text, want := range map[string][]string{
		"SELECT * FROM devices.jobs":                                                                                                                  all,
		"SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = 'd00001'":                                                                           {all[0], all[3]},
		"SELECT * FROM devices.jobs WHERE devices.jobs.jobId='j1'":                                                                                    all[:3],
		"SELECT * FROM devices.jobs WHERE jobId = 'ghost'":                                                                                            nil,
		"SELECT * FROM devices.jobs WHERE deviceId = 'ghost'":                                                                                         nil,
		"SELECT * FROM devices.jobs WHERE deviceId = 'd00003' AND jobId='j1'":                                                                         {all[2]},
		"SELECT * FROM devices.jobs WHERE deviceId IN ['d00003', 'd00001']":                                                                           {all[0], all[2], all[3]},
		"SELECT * FROM devices.jobs WHERE devices.jobs.status = 'failed'":                                                                             {all[1]},
		"SELECT * FROM devices.jobs WHERE jobType = 'scheduleDeviceMethod'":                                                                           {all[3]},
		"SELECT * FROM devices.jobs WHERE outcome.deviceMethodResponse.status >= 200":                                                                 {all[3]},
		"SELECT * FROM devices.jobs WHERE error.code = 'GatewayTimeout'":                                                                              {all[1]},
		"SELECT * FROM devices.jobs WHERE devices.jobs.jobId='j1' AND devices.jobs.status='completed' AND devices.jobs.createdTimeUtc > '2023-09-01'": {all[0]},
		"SELECT * FROM devices.jobs WHERE createdDateTimeUtc > '2999-01-01'":                                                                          nil,
		"SELECT * FROM devices.jobs WHERE endTimeUtc > '2023-09-01'":                                                                                  {all[0], all[1], all[3]},
		"SELECT TOP 2 * FROM devices.jobs":                                                                                                            all[:2],
		"SELECT * FROM devices.jobs LIMIT 2 OFFSET 1":                                                                                                 all[1:3],
	} {
		for _, most := range []int{0, 1, 2, 3} {
			if got, _ := rowsOfJobs(t, h, text, most); !slices.Equal(got, want) {
				t.Errorf("%s by %d:\ngot  %q\nwant %q", text, most, got, want)
			}
		}
	}
	for _, text := range []string{"SELECT deviceId FROM devices.jobs", "SELECT COUNT() AS n FROM devices.jobs", "SELECT * FROM devices.jobs ORDER BY jobId"} {
		_, err := h.Query(t.Context(), everybody(), QueryRequest{Text: text})
		refusal(t, err, CodeArgumentInvalid)
	}
	page, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices.jobs", Max: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices.jobs WHERE jobId = 'j2'", Token: page.Token})
	refusal(t, err, CodeArgumentInvalid, "another query's")

	page, err = h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices.jobs"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range page.Rows {
		var m map[string]any
		if err := json.Unmarshal(row, &m); err != nil {
			t.Fatal(err)
		}
		for _, date := range []string{"startTimeUtc", "endTimeUtc", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"} {
			s, _ := m[date].(string)
			if _, err := time.Parse(time.RFC3339, s); err != nil {
				t.Errorf("%s of %v is %q", date, m["deviceId"], s)
			}
		}
		if _, both := m["type"]; both {
			t.Error("a row has type beside jobType")
		}
	}
	if got := string(page.Rows[3]); !strings.Contains(got, `"outcome":{"deviceMethodResponse":{"status":200,"payload":{"a":1}}}`) {
		t.Errorf("the outcome of a method: %s", got)
	}
	if got := string(page.Rows[1]); !strings.Contains(got, `"error":{"code":"GatewayTimeout","description":"no answer"}`) {
		t.Errorf("the error: %s", got)
	}
}

// TestRowsOfManyJobs pages through more rows than a page looks at, by conditions
// that few rows meet.
func TestRowsOfManyJobs(t *testing.T) {
	h := jobFleet(t, 1200)
	var want []string
	for k := range 4 {
		s := twinJob("*")
		s.ID = fmt.Sprintf("j%d", k)
		createJob(t, h, s)
		layOutAll(t, h, s.ID)
		runSome(t, h, s.ID, 700, func(id TwinID) executionRecord {
			if id.DeviceID == "d00650" {
				want = append(want, id.DeviceID+" "+s.ID+" failed")
				return executionRecord{Status: rollout.ExecutionFailed}
			}
			return executionRecord{Status: rollout.ExecutionSucceeded}
		})
	}
	for _, most := range []int{1, 100, 0} {
		if got, _ := rowsOfJobs(t, h, "SELECT * FROM devices.jobs WHERE status = 'failed'", most); !slices.Equal(got, want) {
			t.Errorf("failed: %q", got)
		}
	}
	got, pages := rowsOfJobs(t, h, "SELECT * FROM devices.jobs", 0)
	if len(got) != 4*1200 || pages < 5 {
		t.Errorf("%d rows on %d pages", len(got), pages)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 4*1200 {
		t.Error("rows come twice")
	}
	if got, _ := rowsOfJobs(t, h, "SELECT * FROM devices.jobs WHERE deviceId = 'd01100'", 2); len(got) != 4 || got[0] != "d01100 j0 pending" {
		t.Errorf("of a device: %q", got)
	}
}

func TestDeviceJobStatus(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		status rollout.ExecutionStatus
		ended  time.Time
		want   string
	}{
		{rollout.ExecutionPending, time.Time{}, "pending"}, {rollout.ExecutionWaiting, time.Time{}, "scheduled"},
		{rollout.ExecutionRunning, time.Time{}, "running"}, {rollout.ExecutionConfirming, time.Time{}, "running"},
		{rollout.ExecutionRetrying, time.Time{}, "running"}, {rollout.ExecutionUncertain, time.Time{}, "running"},
		{rollout.ExecutionUncertain, now, "failed"}, {rollout.ExecutionSucceeded, now, "completed"},
		{rollout.ExecutionFailed, now, "failed"}, {rollout.ExecutionTimedOut, now, "failed"}, {rollout.ExecutionRejected, now, "failed"},
		{rollout.ExecutionRemoved, now, "failed"}, {rollout.ExecutionCanceled, now, "canceled"},
	} {
		e := Execution{Status: c.status, Ended: c.ended}
		if got := e.DeviceJobStatus(); got != c.want {
			t.Errorf("%s is %s, want %s", c.status, got, c.want)
		}
	}
}

func TestJobTemplates(t *testing.T) {
	h := jobFleet(t, 10)
	ctx, c := t.Context(), everybody()
	put := func(name, spec, etag string) (JobTemplate, error) {
		return h.PutJobTemplate(ctx, c, JobTemplate{Name: name, Spec: json.RawMessage(spec)}, etag)
	}
	const spec = `{"targets":{"where":"tags.site == 's3'","exclude":["d00003"]},"action":{"twin":{"desired":{"a":1,"b":null}}},
		"policy":{"waves":[{"size":"1"},{"size":"100%"}],"priority":3}}`
	for name, bad := range map[string]string{
		"unknown": `{"target":{}}`, "twice": `{"labels":{},"labels":{}}`, "id": `{"id":"x"}`, "json": `{`, "kind": `{"targets":{"ids":[5]}}`, "list": `[]`,
	} {
		if _, err := put("t", bad, ""); AsError(err) == nil || AsError(err).Code != CodeArgumentInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := put("t", `{"targets":{"wher":"a"}}`, "")
	refusal(t, err, CodeArgumentInvalid, `job.targets: has no member "wher"`)
	_, err = put("bad name", spec, "")
	refusal(t, err, CodeArgumentInvalid, "name of a job template")
	_, err = put("t", spec, "*")
	refusal(t, err, CodeJobTemplateNotFound, "muster job template list")
	one, err := put("t", spec, "")
	if err != nil || one.Version != 1 || one.ETag == "" {
		t.Fatalf("%+v, %v", one, err)
	}
	if same, err := put("t", spec, one.ETag); err != nil || same.Version != 1 {
		t.Errorf("the same again: %+v, %v", same, err)
	}
	two, err := put("t", `{"action":{"method":{"name":"reboot","responseTimeout":"1m"}}}`, one.ETag)
	if err != nil || two.Version != 2 {
		t.Fatalf("%+v, %v", two, err)
	}
	_, err = put("t", spec, one.ETag)
	refusal(t, err, CodePreconditionFailed)
	if list, err := h.JobTemplateVersions(ctx, c, "t"); err != nil || len(list) != 2 || list[0].Version != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := h.JobTemplates(ctx, c); err != nil || len(list) != 1 || list[0].Name != "t" || list[0].Version != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	_, err = h.JobTemplate(ctx, c, "t", 3)
	refusal(t, err, CodeJobTemplateNotFound, "no version 3")

	s, err := h.JobFromTemplate(ctx, c, "t", 1, []byte(`{"id":"from-t","targets":{"where":"*","exclude":null},"policy":{"priority":9},"action":{"confirm":"reported.a == 1"}}`))
	if err != nil || s.ID != "from-t" || s.Targets.Where != "*" || s.Targets.Exclude != nil || s.Policy.Priority != 9 || len(s.Policy.Waves) != 2 ||
		string(s.Action.Twin.Desired) != `{"a":1,"b":null}` || s.Action.Confirm != "reported.a == 1" {
		t.Errorf("%+v, %v", s, err)
	}
	if j := createJob(t, h, s); j.ID != "from-t" {
		t.Errorf("%+v", j)
	}
	s, err = h.JobFromTemplate(ctx, c, "t", 0, nil)
	if err != nil || s.Action.Method.Name != "reboot" || time.Duration(s.Action.Method.ResponseTimeout) != time.Minute {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = h.JobFromTemplate(ctx, c, "t", 0, []byte(`{"polcy":{}}`))
	refusal(t, err, CodeArgumentInvalid, `overrides: has no member "polcy"`)
	_, err = h.JobFromTemplate(ctx, c, "ghost", 0, nil)
	refusal(t, err, CodeJobTemplateNotFound)
	h.limits.JobTemplates = 1
	_, err = put("second", spec, "")
	refusal(t, err, CodeQuotaExceeded, "1 job templates")
	refusal(t, h.DeleteJobTemplate(ctx, c, "t", one.ETag), CodePreconditionFailed)
	if err := h.DeleteJobTemplate(ctx, c, "t", two.ETag); err != nil {
		t.Fatal(err)
	}
	refusal(t, h.DeleteJobTemplate(ctx, c, "t", ""), CodeJobTemplateNotFound)
	if list, err := h.JobTemplates(ctx, c); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if again, err := put("second", spec, ""); err != nil || again.Version != 1 {
		t.Errorf("%+v, %v", again, err)
	}
}
