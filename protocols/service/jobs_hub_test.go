package service

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/rollout"
)

// What clients of IoT Hub send, as the engine gets it.
func TestHubJobSpec(t *testing.T) {
	hour := rollout.Policy{Timeout: rollout.Duration(time.Hour)}
	twin := func(where, tags, desired string, p rollout.Policy) engine.JobSpec {
		patch := &engine.JobTwinPatch{}
		if tags != "" {
			patch.Tags = json.RawMessage(tags)
		}
		if desired != "" {
			patch.Desired = json.RawMessage(desired)
		}
		return engine.JobSpec{ID: "j", AllowEmpty: true, Targets: engine.JobTargets{Condition: where}, Action: engine.JobAction{Twin: patch}, Policy: p}
	}
	at := time.Date(2026, 12, 1, 22, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, body string
		want       engine.JobSpec
	}{
		{"Node", `{"jobId":"j","type":"scheduleUpdateTwin","updateTwin":{"etag":"*","tags":{"a":1}},"startTime":null,"maxExecutionTimeInSeconds":3600,"queryCondition":"*"}`, twin("*", `{"a":1}`, "", hour)},
		{"C#", `{"jobId":"j","type":"scheduleUpdateTwin","cloudToDeviceMethod":null,"updateTwin":{"deviceId":null,"moduleId":null,"etag":"*","version":null,"properties":{"desired":{"x":{"y":null}},"reported":{}},"tags":null},"queryCondition":"deviceId IN ['a']","startTime":"2026-12-01T22:00:00.0000000Z","maxExecutionTimeInSeconds":60,"status":null}`,
			twin("deviceId IN ['a']", "", `{"x":{"y":null}}`, rollout.Policy{Start: at, Timeout: rollout.Duration(time.Minute)})},
		{"no zone", `{"type":"ScheduleUpdateTwin","updateTwin":{"etag":"\"*\"","tags":{}},"startTime":"2026-12-01T22:00:00.5","queryCondition":"*"}`,
			twin("*", `{}`, "", rollout.Policy{Start: at.Add(time.Second / 2), Timeout: rollout.Duration(time.Hour)})},
		{"method", `{"type":"SCHEDULEDEVICEMETHOD","cloudToDeviceMethod":{"methodName":"m","payload":null,"responseTimeoutInSeconds":10,"connectTimeoutInSeconds":null},"updateTwin":null,"queryCondition":"*"}`, engine.JobSpec{
			ID: "j", AllowEmpty: true, Targets: engine.JobTargets{Condition: "*"}, Policy: hour,
			Action: engine.JobAction{Method: &engine.JobMethodCall{Name: "m", Payload: json.RawMessage("null"), ResponseTimeout: rollout.Duration(10 * time.Second)}, Offline: engine.JobOfflineFail, AnyAnswer: true},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := hubJobSpec("j", []byte(c.body))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v\n%v", got, c.want, err)
			}
		})
	}
}

func TestHubJobSpecRefused(t *testing.T) {
	const good = `"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"a":1}}`
	for body, want := range map[string]string{
		`[]`:                                     "the body is an array",
		`null`:                                   "the body is null",
		`{}`:                                     "type is missing",
		`{"type":null,"queryCondition":"*"}`:     "type is missing",
		`{"type":5,"queryCondition":"*"}`:        "type is a number",
		`{"type":"export","queryCondition":"*"}`: `type is "export"; expected scheduleUpdateTwin`,
		`{"type":"scheduleUpdateTwin"}`:          "queryCondition is missing",
		`{"type":"scheduleUpdateTwin","queryCondition":" "}`:                                                                         "queryCondition is missing",
		`{"type":"scheduleUpdateTwin","queryCondition":[]}`:                                                                          "queryCondition is an array",
		`{"type":"scheduleUpdateTwin","queryCondition":"*"}`:                                                                         "updateTwin is missing",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":[]}`:                                                         "updateTwin is an array",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"tags":{}}}`:                                                "Missing or invalid etag for job type ScheduleUpdateTwin",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"AAA=","tags":{}}}`:                                  "Missing or invalid etag",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":7,"tags":{}}}`:                                       "Missing or invalid etag",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":[1]}}`:                                    "updateTwin.tags is an array",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","properties":5}}`:                                "updateTwin.properties is a number",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","properties":{"desired":"x"}}}`:                  "updateTwin.properties.desired is a string",
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","etag":"*"}}`:                                    "updateTwin.etag comes twice",
		`{"type":"scheduleDeviceMethod","queryCondition":"*"}`:                                                                       "cloudToDeviceMethod is missing",
		`{"type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{}}`:                                              "cloudToDeviceMethod.methodName is missing",
		`{"type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{"methodName":"m","responseTimeoutInSeconds":0}}`: "cloudToDeviceMethod.responseTimeoutInSeconds is out of range",
		`{"jobId":"other",` + good + `}`:                                                                                             "jobId in the body is not the one in the path",
		`{"jobId":{},` + good + `}`:                                                                                                  "jobId is an object",
		`{"startTime":"tomorrow",` + good + `}`:                                                                                      `startTime is "tomorrow"; expected a time`,
		`{"startTime":17,` + good + `}`:                                                                                              "startTime is a number",
		`{"startTime":"2026-13-01T00:00:00Z",` + good + `}`:                                                                          "expected a time",
		`{"maxExecutionTimeInSeconds":-1,` + good + `}`:                                                                              "maxExecutionTimeInSeconds is -1",
		`{"maxExecutionTimeInSeconds":1e9,` + good + `}`:                                                                             "maxExecutionTimeInSeconds is 1000000000",
		`{"maxExecutionTimeInSeconds":99999999,` + good + `}`:                                                                        "maxExecutionTimeInSeconds is 99999999",
		`{"maxExecutionTimeInSeconds":"60",` + good + `}`:                                                                            "maxExecutionTimeInSeconds is not a whole number",
	} {
		if _, err := hubJobSpec("j", []byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", body, err, want)
		}
	}
}

// hubJob is a job of each kind and state, as the engine gives it.
func hubJob(status rollout.JobStatus) engine.Job {
	at := time.Date(2026, 11, 30, 9, 0, 0, 123456700, time.UTC)
	j := engine.Job{
		JobSpec: engine.JobSpec{
			ID: "j", Targets: engine.JobTargets{Condition: "tags.a = 1"}, Action: engine.JobAction{Twin: &engine.JobTwinPatch{Tags: json.RawMessage(`{"a":{"b":null}}`)}},
			Policy: rollout.Policy{Timeout: rollout.Duration(time.Hour)},
		},
		Kind: engine.JobTwin, Created: at, Updated: at, Run: 1,
		State: rollout.State{Status: status},
	}
	if status != rollout.JobQueued {
		j.State.LaidOut = true
		j.State.Waves = []rollout.Tally{{Size: 11, Succeeded: 1, Failed: 1, TimedOut: 1, Rejected: 1, Uncertain: 1, Canceled: 1, Removed: 1, Active: 1, Pending: 1, Waiting: 1, Retrying: 1}}
	}
	if status.Final() {
		j.Ended = at.Add(time.Minute)
		j.State.Reason = "why it ended"
	}
	return j
}

func TestShowHubJob(t *testing.T) {
	golden := func(name string, j engine.Job) {
		t.Helper()
		text := encode(showHubJob(&j))
		if strings.Contains(string(text), "null") && !strings.Contains(string(text), `{"b":null}`) {
			t.Errorf("%s has a null: %s", name, text)
		}
		// Golden files have neither times nor ETags.
		if !strings.Contains(string(text), `"createdTime":"2026-11-30T09:00:00.1234567Z"`) || j.Action.Twin != nil && !strings.Contains(string(text), `"updateTwin":{"etag":"*"`) {
			t.Errorf("%s: %s", name, text)
		}
		(&reply{TB: t, what: name, body: text}).golden("hubjob-" + name)
	}
	golden("queued", hubJob(rollout.JobQueued))
	golden("running", hubJob(rollout.JobRunning))
	golden("failed", hubJob(rollout.JobFailed))
	method := hubJob(rollout.JobCompleted)
	method.Kind, method.Action.Twin = engine.JobMethod, nil
	method.Action.Method = &engine.JobMethodCall{Name: "m", Payload: json.RawMessage(`[1]`), ResponseTimeout: rollout.Duration(10 * time.Second)}
	method.Policy.Start = method.Created.Add(-time.Hour)
	golden("method", method)
	own := hubJob(rollout.JobPaused)
	own.Targets, own.Action.Twin = engine.JobTargets{IDs: []engine.TwinID{{DeviceID: "d"}}}, &engine.JobTwinPatch{Desired: json.RawMessage(`{"x":1}`)}
	golden("own", own)
	canceling := hubJob(rollout.JobCanceling)
	canceling.State.Verdict = rollout.JobCanceled
	if got := hubJobStatus(&canceling); got != "cancelled" {
		t.Errorf("a job that is being canceled is %s", got)
	}
	canceling.State.Verdict = rollout.JobFailed
	if got := hubJobStatus(&canceling); got != "running" {
		t.Errorf("a job that is being aborted is %s", got)
	}
}

// Each status of a job is found by the word that it is shown with.
func TestHubJobStatuses(t *testing.T) {
	for _, s := range rollout.JobStatuses() {
		j := hubJob(s)
		j.State.Verdict = rollout.JobCanceled
		shown := hubJobStatus(&j)
		for _, word := range []string{shown, strings.ToUpper(shown[:1]) + shown[1:]} {
			found := false
			for _, other := range engineJobStatuses(word) {
				found = found || other == s
			}
			if !found {
				t.Errorf("%s is shown as %s and not found by %s", s, shown, word)
			}
		}
	}
	if got := engineJobStatuses("nonsense"); got != nil {
		t.Errorf("nonsense is %v", got)
	}
}

func TestJobETA(t *testing.T) {
	began := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	now := began.Add(10 * time.Minute)
	for _, c := range []struct {
		name string
		edit func(j *engine.Job)
		want time.Duration // from now; 0: nobody can tell
	}{
		{"half is done", func(*engine.Job) {}, 10 * time.Minute},
		{"the rate is slower", func(j *engine.Job) {
			j.Policy.Rate = &rollout.Rate{PerMinute: 2}
			j.State.Waves[0].Pending, j.State.Waves[0].Active = 50, 0
		}, 25 * time.Minute},
		{"soaks are to come", func(j *engine.Job) {
			j.Policy.Waves = []rollout.Wave{{Soak: rollout.Duration(time.Hour)}, {}}
			j.State.Waves = append(j.State.Waves, rollout.Tally{})
		}, 70 * time.Minute},
		{"soaked before", func(j *engine.Job) {
			j.Policy.Waves = []rollout.Wave{{Soak: rollout.Duration(5 * time.Minute)}, {}}
			j.State.Waves = append([]rollout.Tally{{}}, j.State.Waves...)
			j.State.Wave = 1
		}, 5 * time.Minute},
		{"approval is to come", func(j *engine.Job) {
			j.Policy.Waves = []rollout.Wave{{}, {Approval: true}}
			j.State.Waves = append(j.State.Waves, rollout.Tally{})
		}, 0},
		{"waits for approval", func(j *engine.Job) { j.State.WaitsFor = rollout.WaitsForApproval }, 0},
		{"waits for devices", func(j *engine.Job) { j.State.WaitsFor = rollout.WaitsForDevices }, 0},
		{"as many as may are under way", func(j *engine.Job) { j.State.WaitsFor, j.Policy.Parallel = rollout.WaitsForDevices, 50 }, 10 * time.Minute},
		{"paused", func(j *engine.Job) { j.State.Status = rollout.JobPaused }, 0},
		{"dynamic", func(j *engine.Job) { j.State.Dynamic = true }, 0},
		{"nothing has ended", func(j *engine.Job) { j.State.Waves[0] = rollout.Tally{Size: 100, Pending: 100} }, 0},
		{"nothing is left", func(j *engine.Job) { j.State.Waves[0] = rollout.Tally{Size: 100, Succeeded: 100} }, 0},
		{"the clock went back", func(j *engine.Job) { j.Started = now.Add(time.Hour) }, time.Second},
	} {
		j := hubJob(rollout.JobRunning)
		j.Started = began
		j.State.Waves = []rollout.Tally{{Size: 100, Succeeded: 50, Active: 50}}
		c.edit(&j)
		var want time.Time
		if c.want != 0 {
			want = now.Add(c.want)
		}
		if got := jobETA(&j, now); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}

func TestWaveStatus(t *testing.T) {
	for i, c := range []struct {
		state rollout.State
		want  string
	}{
		{rollout.State{Status: rollout.JobScheduled}, "pending pending pending"},
		{rollout.State{Status: rollout.JobRunning, Wave: 1, WaitsFor: rollout.WaitsForApproval}, "ended approval pending"},
		{rollout.State{Status: rollout.JobRunning, Wave: 1, Opened: true, WaitsFor: rollout.WaitsForRate}, "ended running pending"},
		{rollout.State{Status: rollout.JobRunning, Wave: 1, Opened: true, WaitsFor: rollout.WaitsForSoak}, "ended soaking pending"},
		{rollout.State{Status: rollout.JobRunning, Wave: 1, Opened: true, WaitsFor: rollout.WaitsForHealth}, "ended checking pending"},
		{rollout.State{Status: rollout.JobPaused, Wave: 2}, "ended ended pending"},
		{rollout.State{Status: rollout.JobCompleted, Wave: 2, Opened: true}, "ended ended ended"},
		{rollout.State{Status: rollout.JobCanceled, Wave: 0, Opened: true}, "ended ended ended"},
	} {
		c.state.Waves = make([]rollout.Tally, 3)
		var got []string
		for w := range c.state.Waves {
			got = append(got, waveStatus(&c.state, w))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", strconv.Itoa(i), got, c.want)
		}
	}
}
