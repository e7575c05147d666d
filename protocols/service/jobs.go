package service

import (
	"net/http"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
)

const tagJobs = "Jobs"

// hubJobRoutes are IoT Hub's jobs, version 2.
func hubJobRoutes() []*route {
	const need = auth.ServiceConnect
	return []*route{
		{
			method: http.MethodPut, pattern: "/jobs/v2/{job}", operation: "createJob", tag: tagJobs, permission: need,
			summary: "Makes a job that changes twins or calls a direct method.", request: hubJobBody{}, response: hubJobDocument{}, held: true, handle: putHubJob,
		},
		{
			method: http.MethodGet, pattern: "/jobs/v2/{job}", operation: "getJob", tag: tagJobs, permission: need,
			summary: "Returns a job; of an id that there is not, one of the type and the status unknown.", response: hubJobDocument{}, handle: getHubJob,
		},
		{
			method: http.MethodPost, pattern: "/jobs/v2/{job}/cancel", operation: "cancelJob", tag: tagJobs, permission: need,
			summary: "Cancels a job that is not running yet.", response: hubJobDocument{}, handle: cancelHubJob,
		},
		{
			method: http.MethodGet, pattern: "/jobs/v2/query", operation: "queryJobs", tag: tagJobs, permission: need,
			query: []parameter{
				{name: "jobType", kind: "string", text: "Only jobs of this type; upper and lower case are alike."},
				{name: "jobStatus", kind: "string", text: "Only jobs of this status; upper and lower case are alike."},
			},
			summary: "Lists jobs, the newest first, page by page: x-ms-max-item-count (1 to 100) jobs, behind x-ms-continuation.", response: []hubJobDocument{}, handle: queryHubJobs,
		},
	}
}

func putHubJob(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	spec, err := hubJobSpec(c.params[0], body)
	if err != nil {
		return answer{}, err
	}
	return c.hubJob(c.hub.CreateJob(c.r.Context(), c.caller, spec, ""))
}

func (c *call) hubJob(j engine.Job, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return answer{body: showHubJob(&j)}, nil
}

// getHubJob answers an unknown id without an error, as IoT Hub does: its tools
// then look whether there is an import or export of that id.
func getHubJob(c *call) (answer, error) {
	j, err := c.hub.Job(c.r.Context(), c.caller, c.params[0])
	if err != nil && engine.AsError(err).Code == engine.CodeJobNotFound || err == nil && !isHubJob(j) {
		return answer{body: hubJobDocument{Type: unknownHubJob, Status: unknownHubJob}}, nil
	}
	return c.hubJob(j, err)
}

// cancelHubJob cancels a job that has not begun: IoT Hub refuses the others.
func cancelHubJob(c *call) (answer, error) {
	j, err := c.hub.Job(c.r.Context(), c.caller, c.params[0])
	if err == nil && j.Status() != rollout.JobQueued && j.Status() != rollout.JobScheduled {
		err = &engine.Error{Code: engine.CodeJobState, Message: "the job is " + hubJobStatus(&j) + "; only one that has not begun can be canceled here",
			Next: "`muster job cancel` also cancels one that runs."}
	}
	if err != nil {
		return answer{}, err
	}
	return c.hubJob(c.hub.CancelJob(c.r.Context(), c.caller, c.params[0], "", ""))
}

// isHubJob reports whether a job is of a kind that IoT Hub has: the SDKs know no
// other.
func isHubJob(j engine.Job) bool {
	return j.Kind != engine.JobConfigure && j.Kind != engine.JobRunPattern
}

func queryHubJobs(c *call) (answer, error) {
	var filter engine.JobFilter
	switch kind := strings.ToLower(c.query.Get("jobType")); kind {
	case "":
	case "scheduleupdatetwin":
		filter.Kind = engine.JobTwin
	case "scheduledevicemethod":
		filter.Kind = engine.JobMethod
	default:
		return answer{}, invalid("the query parameter jobType is %q; expected scheduleUpdateTwin or scheduleDeviceMethod", clip(kind))
	}
	if status := c.query.Get("jobStatus"); status != "" {
		if filter.Status = engineJobStatuses(status); filter.Status == nil {
			return answer{}, invalid("the query parameter jobStatus is %q; expected queued, scheduled, running, completed, failed or cancelled", clip(status))
		}
	}
	most, err := maxItems(c.r.Header)
	if err != nil {
		return answer{}, err
	}
	belongs := string(filter.Kind) + "\x01" + strings.Join(texts(filter.Status), ",")
	after, err := parseCursor(c.r.Header.Get("X-Ms-Continuation"), "jobs/v2", belongs)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Jobs(c.r.Context(), c.caller, filter, after, most)
	if err != nil {
		return answer{}, err
	}
	list = slices.DeleteFunc(list, func(j engine.Job) bool { return !isHubJob(j) })
	header := map[string]string{"x-ms-item-type": "JobResponse"}
	if next != "" {
		header["x-ms-continuation"] = makeCursor("jobs/v2", belongs, next)
	}
	return answer{header: header, body: show(list, func(j engine.Job) hubJobDocument { return showHubJob(&j) })}, nil
}
