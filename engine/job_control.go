package engine

import (
	"context"

	"github.com/muster-hub/muster/engine/rollout"
)

// CreateJob makes a job and returns it, durable and queued. With a token of
// PreviewJob it is refused with CodeJobPreviewChanged unless the spec and its
// targets are those of the preview, and it fails before it touches a device if
// they have changed by the time that it lays them out. CodeJobAlreadyExists for
// an id that is taken; CodeTooManyJobs. It needs ServiceConnect.
func (h *Hub) CreateJob(ctx context.Context, c Caller, s JobSpec, token string) (Job, error) {
	return Job{}, errf(CodeInternal, "not built")
}

// Job returns a job; CodeJobNotFound when there is none. It needs ServiceConnect.
func (h *Hub) Job(ctx context.Context, c Caller, id string) (Job, error) {
	return Job{}, errf(CodeInternal, "not built")
}

// JobFilter selects jobs; what is empty selects all.
type JobFilter struct {
	Status []rollout.JobStatus
	Kind   JobKind
	Label  string // "key" or "key=value"
}

// Jobs lists jobs, the newest first. A page may hold fewer than limit; next is
// empty at the end. It needs ServiceConnect.
func (h *Hub) Jobs(ctx context.Context, c Caller, f JobFilter, cursor string, limit int) (list []Job, next string, err error) {
	return nil, "", errf(CodeInternal, "not built")
}

// PauseJob stops a job from starting anything; what is on its way goes on. etag
// is empty or "*", or the one that the job must have, as in all operations on
// jobs. CodeJobState when it is paused, canceling or has ended. It needs
// ServiceConnect.
func (h *Hub) PauseJob(ctx context.Context, c Caller, id, reason, etag string) (Job, error) {
	return Job{}, errf(CodeInternal, "not built")
}

// ResumeJob lets a paused job go on, and accepts the outcomes that made it
// pause. The job acts with its owner's permissions still. CodeJobState when it
// is not paused. It needs ServiceConnect.
func (h *Hub) ResumeJob(ctx context.Context, c Caller, id, etag string) (Job, error) {
	return Job{}, errf(CodeInternal, "not built")
}

// CancelJob ends a job: nothing starts any more; what is on its way goes on to
// its end. CodeJobState when it has ended. It needs ServiceConnect.
func (h *Hub) CancelJob(ctx context.Context, c Caller, id, reason, etag string) (Job, error) {
	return Job{}, errf(CodeInternal, "not built")
}

// ApproveJob lets a wave begin that waits for it, or will; a negative one is
// the next that does. CodeJobState when there is none. It needs ServiceConnect.
func (h *Hub) ApproveJob(ctx context.Context, c Caller, id string, wave int, etag string) (Job, error) {
	return Job{}, errf(CodeInternal, "not built")
}

// RetryFailedJob puts executions back that ended with one of the outcomes
// (failed, timedOut, rejected, uncertain, canceled; empty: the first four), and
// says how many. A job that had ended runs again. Called again after an error,
// it goes on where it stood. It needs ServiceConnect.
func (h *Hub) RetryFailedJob(ctx context.Context, c Caller, id string, outcomes []rollout.ExecutionStatus, etag string) (j Job, retried int, err error) {
	return Job{}, 0, errf(CodeInternal, "not built")
}

// CloneJob returns what a job was made with, for another one: without its id,
// and without times that have passed. It needs ServiceConnect.
func (h *Hub) CloneJob(ctx context.Context, c Caller, id string) (JobSpec, error) {
	return JobSpec{}, errf(CodeInternal, "not built")
}

// DeleteJob removes a job that has ended, with its executions. CodeJobState
// when it has not. It needs ServiceConnect.
func (h *Hub) DeleteJob(ctx context.Context, c Caller, id, etag string) error {
	return errf(CodeInternal, "not built")
}

// jobCaller returns the caller as whom a job acts now: its owner, with the
// permissions that the owner has at the moment. The error says why it may not.
func (h *Hub) jobCaller(job string, r *jobRecord) (Caller, error) {
	return Caller{}, errf(CodeInternal, "not built")
}
