package service

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
)

// previewTime is how long a preview may take over a large fleet.
const previewTime = time.Minute

// ownJobRoutes are Muster's own jobs.
func ownJobRoutes() []*route {
	const need, root = auth.ServiceConnect, "/api/v1/jobs"
	const one = root + "/{job}"
	table := []*route{
		{
			method: http.MethodGet, pattern: root, operation: "listJobs", tag: tagJobs, permission: need,
			query: append(listQuery("jobs"),
				parameter{name: "status", kind: "string", text: "Only jobs of these statuses, separated by commas; active for all that have not ended."},
				parameter{name: "kind", kind: "string", text: "Only scheduleUpdateTwin, scheduleDeviceMethod, applyConfiguration, runPattern, import or export."},
				parameter{name: "label", kind: "string", text: "Only those with this label: KEY, or KEY=VALUE."},
			),
			summary: "Lists jobs, and imports and exports for callers with RegistryRead, the newest first; a page may be shorter than limit.", response: page[jobDocument]{}, handle: listJobs,
		},
		{
			method: http.MethodPost, pattern: root, operation: "postJob", tag: tagJobs, permission: need, idempotent: true, status: http.StatusCreated,
			summary: "Makes a job. With a preview's token it is refused when its targets are no longer those of the preview.",
			request: jobBody{}, response: jobDocument{}, maxBody: jobBytes, held: true, handle: postJob,
		},
		{
			method: http.MethodPost, pattern: root + "/preview", operation: "previewJob", tag: tagJobs, permission: need, reads: true,
			summary: "Says what a job would do, to how many targets exactly, and gives a token that binds its start to this.",
			request: jobBody{}, response: previewDocument{}, maxBody: jobBytes, handle: previewJob,
		},
		{
			method: http.MethodGet, pattern: one, operation: "showJob", tag: tagJobs, permission: need,
			summary: "Returns a job as it stands.", response: jobDocument{}, handle: getJob,
		},
		{
			method: http.MethodDelete, pattern: one, operation: "deleteJob", tag: tagJobs, permission: need, ifMatch: optional,
			summary: "Deletes a job that has ended, with its executions.", status: http.StatusNoContent, handle: deleteJob,
		},
		{
			method: http.MethodPost, pattern: one + "/pause", operation: "pauseJob", tag: tagJobs, permission: need, ifMatch: optional, idempotent: true,
			summary: "Stops a job from starting anything; what is on its way goes on.", request: jobReason{}, response: jobDocument{}, handle: pauseJob,
		},
		{
			method: http.MethodPost, pattern: one + "/resume", operation: "resumeJob", tag: tagJobs, permission: need, ifMatch: optional, idempotent: true,
			summary: "Lets a paused job go on, and accepts the outcomes that made it pause.", response: jobDocument{}, held: true, handle: resumeJob,
		},
		{
			method: http.MethodPost, pattern: one + "/cancel", operation: "stopJob", tag: tagJobs, permission: need, ifMatch: optional, idempotent: true,
			summary: "Ends a job: nothing starts any more, what is on its way goes on to its end.", request: jobReason{}, response: jobDocument{}, handle: cancelJob,
		},
		{
			method: http.MethodPost, pattern: one + "/undo", operation: "undoJob", tag: tagJobs, permission: need, ifMatch: optional, idempotent: true,
			summary: "Takes back what the runs of a job did, by the undo of its pattern: those under way are canceled first, and so is the job. It goes on by itself; undo in the job shows how far it is.", request: jobReason{}, response: jobDocument{}, held: true, handle: undoJob,
		},
		{
			method: http.MethodPost, pattern: one + "/approve", operation: "approveJob", tag: tagJobs, permission: need, ifMatch: optional, idempotent: true,
			summary: "Lets a wave begin that waits for approval, or will.", request: jobApproval{}, response: jobDocument{}, held: true, handle: approveJob,
		},
		{
			method: http.MethodPost, pattern: one + "/retry", operation: "retryJob", tag: tagJobs, permission: need, ifMatch: optional, idempotent: true,
			summary: "Lets executions that ended badly begin again. A job that had ended runs again.", request: jobOutcomes{}, response: jobRetried{}, held: true, handle: retryJob,
		},
		{
			method: http.MethodPost, pattern: one + "/clone", operation: "cloneJob", tag: tagJobs, permission: need, idempotent: true, status: http.StatusCreated,
			summary: "Makes a job of what another one was made with. Members of the body stand over it; null takes one away.",
			request: jobBody{}, response: jobDocument{}, maxBody: jobBytes, held: true, handle: postJob,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// postJob makes a job: of its body alone, or of the job in the path as well.
func postJob(c *call) (answer, error) {
	base := ""
	if len(c.params) > 0 {
		base = c.params[0]
	}
	a, err := c.jobAsk(base)
	if err != nil {
		return answer{}, err
	}
	if a.sample != 0 {
		return answer{}, invalid("sample goes with a preview")
	}
	c.wait(previewTime)
	j, err := c.hub.CreateJob(c.r.Context(), c.caller, a.spec, a.token)
	return answer{status: http.StatusCreated, body: showJob(j), etag: j.ETag}, err
}

func getJob(c *call) (answer, error) {
	a, err := shownJob(c.hub.Job(c.r.Context(), c.caller, c.params[0]))
	return c.identityJobInstead(a, err, func() (engine.IdentityJob, error) { return c.hub.IdentityJob(c.r.Context(), c.caller, c.params[0]) })
}

func shownJob(j engine.Job, err error) (answer, error) {
	return answer{body: showJob(j), etag: j.ETag}, err
}

func listJobs(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	f := engine.JobFilter{Label: c.query.Get("label"), Kind: engine.JobKind(c.query.Get("kind"))}
	if f.Kind != "" && !slices.Contains(jobKinds(), f.Kind) {
		return answer{}, invalid("the query parameter kind is %q; expected one of %s", clip(string(f.Kind)), strings.Join(texts(jobKinds()), ", "))
	}
	if f.Status, err = c.jobStatuses(); err != nil {
		return answer{}, err
	}
	filter := strings.Join([]string{c.query.Get("status"), string(f.Kind), f.Label}, "\x01")
	after, err := parseCursor(c.query.Get("cursor"), "jobs", filter)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.mergedJobs(f, parseJobsCursor(after), limit)
	if err != nil {
		return answer{}, err
	}
	return answer{body: page[jobDocument]{list, makeCursor("jobs", filter, next.String())}}, nil
}

// jobStatuses reads the query parameter status.
func (c *call) jobStatuses() (list []rollout.JobStatus, err error) {
	text := c.query.Get("status")
	if text == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		known := false
		for _, s := range rollout.JobStatuses() {
			if name == string(s) || name == "active" && !s.Final() {
				list, known = append(list, s), true
			}
		}
		if !known {
			return nil, invalid("the query parameter status has %q; expected active, or some of %s", clip(name), strings.Join(texts(rollout.JobStatuses()), ", "))
		}
	}
	return list, nil
}

// texts are the values of a closed list as texts.
func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

func deleteJob(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteJob(c.r.Context(), c.caller, c.params[0], c.condition())
}

type jobReason struct {
	Reason string `json:"reason,omitempty" doc:"For people; it is shown with the job."`
}

func (c *call) jobReason() (string, error) {
	f, err := c.optionalMembers("reason")
	if err != nil {
		return "", err
	}
	return f.text("reason")
}

func pauseJob(c *call) (answer, error) {
	reason, err := c.jobReason()
	if err != nil {
		return answer{}, err
	}
	return shownJob(c.hub.PauseJob(c.r.Context(), c.caller, c.params[0], reason, c.condition()))
}

func resumeJob(c *call) (answer, error) {
	return shownJob(c.hub.ResumeJob(c.r.Context(), c.caller, c.params[0], c.condition()))
}

func cancelJob(c *call) (answer, error) {
	reason, err := c.jobReason()
	if err != nil {
		return answer{}, err
	}
	a, err := shownJob(c.hub.CancelJob(c.r.Context(), c.caller, c.params[0], reason, c.condition()))
	return c.identityJobInstead(a, err, func() (engine.IdentityJob, error) {
		return c.hub.CancelIdentityJob(c.r.Context(), c.caller, c.params[0])
	})
}

func undoJob(c *call) (answer, error) {
	reason, err := c.jobReason()
	if err != nil {
		return answer{}, err
	}
	return shownJob(c.hub.UndoJob(c.r.Context(), c.caller, c.params[0], reason, c.condition()))
}

type jobApproval struct {
	Wave int `json:"wave,omitempty" doc:"Number of the wave, from 1; the next one that asks for approval when absent."`
}

func approveJob(c *call) (answer, error) {
	f, err := c.optionalMembers("wave")
	if err != nil {
		return answer{}, err
	}
	wave, given, err := f.integer("wave")
	if err != nil {
		return answer{}, err
	}
	if given && (wave < 1 || wave > waveNumbers) {
		return answer{}, invalid("wave is %d; expected the number of a wave, from 1", wave)
	}
	return shownJob(c.hub.ApproveJob(c.r.Context(), c.caller, c.params[0], int(wave)-1, c.condition()))
}

type jobOutcomes struct {
	Outcomes []string `json:"outcomes,omitempty" doc:"Of failed, timedOut, rejected, uncertain and canceled; the first four when absent."`
}

type jobRetried struct {
	Retried int         `json:"retried" doc:"Executions that begin again."`
	Job     jobDocument `json:"job"`
}

func retryJob(c *call) (answer, error) {
	f, err := c.optionalMembers("outcomes")
	if err != nil {
		return answer{}, err
	}
	names, err := f.texts("outcomes", len(rollout.ExecutionStatuses()))
	if err != nil {
		return answer{}, err
	}
	outcomes := make([]rollout.ExecutionStatus, 0, len(names))
	for _, name := range names {
		outcomes = append(outcomes, rollout.ExecutionStatus(name))
	}
	c.wait(previewTime)
	j, n, err := c.hub.RetryFailedJob(c.r.Context(), c.caller, c.params[0], outcomes, c.condition())
	return answer{body: jobRetried{n, showJob(j)}, etag: j.ETag}, err
}
