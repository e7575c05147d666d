package service

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/rollout"
)

// Times of IoT Hub's jobs.
const (
	hubJobTime     = time.Hour           // how long an execution may take when the request doesn't say
	hubJobTimeMost = 30 * 24 * time.Hour // as long as an ended job is kept
)

// hubJobBody is a JobRequest of IoT Hub. Members of the job's other type may be
// null, and members that one reads are ignored.
type hubJobBody struct {
	JobID            string      `json:"jobId,omitempty" doc:"As in the path."`
	Type             string      `json:"type" enum:"scheduleUpdateTwin,scheduleDeviceMethod"`
	QueryCondition   string      `json:"queryCondition" doc:"What stands behind WHERE, or * for all devices. It is read when the job runs."`
	UpdateTwin       *hubJobTwin `json:"updateTwin,omitempty" doc:"Of scheduleUpdateTwin."`
	Method           *methodBody `json:"cloudToDeviceMethod,omitempty" doc:"Of scheduleDeviceMethod."`
	StartTime        *time.Time  `json:"startTime,omitempty" doc:"Now when absent or null."`
	MaxExecutionTime int         `json:"maxExecutionTimeInSeconds,omitempty" doc:"How long a device may take; 3600 when absent."`
}

type hubJobTwin struct {
	ETag       string             `json:"etag" enum:"*"`
	Tags       json.RawMessage    `json:"tags,omitempty" schema:"object"`
	Properties *hubJobTwinSection `json:"properties,omitempty"`
}

type hubJobTwinSection struct {
	Desired json.RawMessage `json:"desired,omitempty" schema:"object"`
}

// hubJobDocument is a JobResponse. No member is ever null, and each date has
// one spelling: Java refuses both.
type hubJobDocument struct {
	JobID            string            `json:"jobId,omitempty" doc:"Absent when the job is unknown."`
	Type             string            `json:"type" enum:"unknown,scheduleUpdateTwin,scheduleDeviceMethod"`
	Status           string            `json:"status" enum:"unknown,queued,scheduled,running,completed,failed,cancelled"`
	QueryCondition   string            `json:"queryCondition,omitempty"`
	CreatedTime      string            `json:"createdTime,omitempty"`
	StartTime        string            `json:"startTime,omitempty"`
	EndTime          string            `json:"endTime,omitempty"`
	MaxExecutionTime int64             `json:"maxExecutionTimeInSeconds,omitempty"`
	Method           *hubJobMethod     `json:"cloudToDeviceMethod,omitempty"`
	UpdateTwin       *hubJobTwin       `json:"updateTwin,omitempty"`
	FailureReason    string            `json:"failureReason,omitempty"`
	StatusMessage    string            `json:"statusMessage,omitempty" doc:"Why it stands so."`
	Statistics       *hubJobStatistics `json:"deviceJobStatistics,omitempty" doc:"As soon as the job's devices are known."`
}

type hubJobMethod struct {
	Name            string          `json:"methodName"`
	Payload         json.RawMessage `json:"payload,omitempty"`
	ResponseTimeout int64           `json:"responseTimeoutInSeconds"`
	ConnectTimeout  int64           `json:"connectTimeoutInSeconds"`
}

type hubJobStatistics struct {
	DeviceCount    int `json:"deviceCount"`
	FailedCount    int `json:"failedCount" doc:"Canceled ones among them."`
	SucceededCount int `json:"succeededCount"`
	RunningCount   int `json:"runningCount"`
	PendingCount   int `json:"pendingCount"`
}

// hubJobSpec is a JobRequest as the engine takes it: whatever a device answers
// is an answer, and one that is not there in time has failed.
func hubJobSpec(id string, body []byte) (engine.JobSpec, error) {
	s := engine.JobSpec{ID: id, AllowEmpty: true}
	f, err := object(body, "")
	if err != nil {
		return s, err
	}
	var given, kind string
	err = firstError(
		func() error { return f.into("jobId", &given) },
		func() error { return f.into("type", &kind) },
		func() error { return f.into("queryCondition", &s.Targets.Condition) },
		func() (err error) { s.Policy.Start, err = f.moment("startTime"); return err },
	)
	switch {
	case err != nil:
		return s, err
	case given != "" && given != id:
		return s, invalid("jobId in the body is not the one in the path; expected %q", clip(id))
	case kind == "":
		return s, missing("type", "scheduleUpdateTwin or scheduleDeviceMethod")
	case strings.TrimSpace(s.Targets.Condition) == "":
		return s, missing("queryCondition", "what stands behind WHERE, or * for all devices")
	}
	seconds, given2, err := f.integer("maxExecutionTimeInSeconds")
	if err != nil {
		return s, err
	}
	if seconds < 0 || seconds > int64(hubJobTimeMost/time.Second) {
		return s, invalid("maxExecutionTimeInSeconds is %d; expected 1 to %d", seconds, hubJobTimeMost/time.Second)
	}
	s.Policy.Timeout = rollout.Duration(hubJobTime)
	if given2 && seconds > 0 {
		s.Policy.Timeout = rollout.Duration(time.Duration(seconds) * time.Second)
	}
	switch {
	case strings.EqualFold(kind, string(engine.JobTwin)):
		s.Action.Twin, err = hubJobPatch(f)
	case strings.EqualFold(kind, string(engine.JobMethod)):
		s.Action.Offline, s.Action.AnyAnswer = engine.JobOfflineFail, true
		s.Action.Method, err = hubJobCall(f)
	default:
		err = invalid("type is %q; expected scheduleUpdateTwin or scheduleDeviceMethod", clip(kind))
	}
	return s, err
}

func missing(name, expected string) error {
	return &engine.Error{Code: engine.CodeArgumentNull, Message: name + " is missing; expected " + expected}
}

// moment returns a time; the zero time when it is absent or null. One without
// a zone is UTC.
func (f fields) moment(key string) (time.Time, error) {
	text, err := f.text(key)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, invalid("%s is %q; expected a time such as 2026-12-01T22:00:00Z", f.name(key), clip(text))
}

// hubJobPatch reads updateTwin. IoT Hub takes no other ETag than *, since the
// job is for many twins.
func hubJobPatch(f fields) (*engine.JobTwinPatch, error) {
	if _, ok := f.get("updateTwin"); !ok {
		return nil, missing("updateTwin", "an object with etag \"*\", tags and properties.desired")
	}
	u, err := f.object("updateTwin")
	if err != nil {
		return nil, err
	}
	if etag, err := u.text("etag"); err != nil || strings.Trim(etag, `"`) != "*" {
		return nil, invalid("Missing or invalid etag for job type ScheduleUpdateTwin; expected updateTwin.etag to be \"*\"")
	}
	tags, desired, err := sections(u, false)
	return &engine.JobTwinPatch{Tags: tags, Desired: desired}, err
}

// hubJobCall reads cloudToDeviceMethod.
func hubJobCall(f fields) (*engine.JobMethodCall, error) {
	if _, ok := f.get("cloudToDeviceMethod"); !ok {
		return nil, missing("cloudToDeviceMethod", "an object with methodName")
	}
	o, err := f.object("cloudToDeviceMethod")
	if err != nil {
		return nil, err
	}
	m, err := methodOf(o)
	return &engine.JobMethodCall{
		Name: m.Name, Payload: m.Payload, ResponseTimeout: rollout.Duration(m.ResponseTimeout), ConnectTimeout: rollout.Duration(m.ConnectTimeout),
	}, err
}

const unknownHubJob = "unknown"

// hubJobStatus is a job's status in IoT Hub's words.
func hubJobStatus(j *engine.Job) string {
	switch j.Status() {
	case rollout.JobPaused:
		return "running"
	case rollout.JobCanceled:
		return "cancelled"
	case rollout.JobCanceling:
		if j.State.Verdict == rollout.JobCanceled {
			return "cancelled"
		}
		return "running"
	}
	return string(j.Status())
}

// engineJobStatuses are the statuses that IoT Hub shows as one; nil for a word
// that is none.
func engineJobStatuses(text string) []rollout.JobStatus {
	switch strings.ToLower(text) {
	case "enqueued", "queued":
		return []rollout.JobStatus{rollout.JobQueued}
	case "running":
		return []rollout.JobStatus{rollout.JobRunning, rollout.JobPaused}
	case "cancelled", "canceled":
		return []rollout.JobStatus{rollout.JobCanceled, rollout.JobCanceling}
	case "scheduled", "completed", "failed":
		return []rollout.JobStatus{rollout.JobStatus(strings.ToLower(text))}
	}
	return nil
}

// showHubJob is any job as IoT Hub's clients read it. What they have no words
// for, such as targets by name, is left out.
func showHubJob(j *engine.Job) hubJobDocument {
	d := hubJobDocument{
		JobID: j.ID, Type: string(j.Kind), Status: hubJobStatus(j), QueryCondition: j.Targets.Condition + j.Targets.Where,
		CreatedTime: hubJobMoment(j.Created), StartTime: hubJobMoment(j.Policy.Start), EndTime: hubJobMoment(j.Ended),
		MaxExecutionTime: seconds(j.Policy.Timeout),
	}
	if d.StartTime == "" {
		d.StartTime = d.CreatedTime
	}
	if j.Status() == rollout.JobFailed {
		d.FailureReason = j.State.Reason
	} else {
		d.StatusMessage = j.State.Reason
	}
	if t := j.Action.Twin; t != nil {
		d.UpdateTwin = &hubJobTwin{ETag: "*", Tags: t.Tags}
		if t.Desired != nil {
			d.UpdateTwin.Properties = &hubJobTwinSection{t.Desired}
		}
	}
	if m := j.Action.Method; m != nil {
		d.Method = &hubJobMethod{m.Name, m.Payload, seconds(m.ResponseTimeout), seconds(m.ConnectTimeout)}
	}
	if j.State.LaidOut {
		t := j.State.Total()
		d.Statistics = &hubJobStatistics{
			DeviceCount: t.Size, SucceededCount: t.Succeeded, RunningCount: t.Active, PendingCount: t.Pending + t.Waiting + t.Retrying,
			FailedCount: t.Failed + t.TimedOut + t.Rejected + t.Uncertain + t.Canceled + t.Removed,
		}
	}
	return d
}

func hubJobMoment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeLayout)
}

func seconds(d rollout.Duration) int64 { return int64(time.Duration(d) / time.Second) }
