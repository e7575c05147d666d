package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// control changes a job for a caller; change says what, or why not.
func (h *Hub) control(ctx context.Context, c Caller, op operation, step, id, etag string, change func(tx *storage.Tx, r *jobRecord) error) (Job, error) {
	if err := h.authorize(ctx, c, op, id); err != nil {
		return Job{}, err
	}
	var out Job
	err := h.step(ctx, step, func(tx *storage.Tx) error {
		r, err := h.jobForTx(tx, id, etag)
		if err != nil {
			return err
		}
		if err := change(tx, &r); err != nil {
			return err
		}
		details := jobDetails(map[string]any{"job": id, "step": step, "status": r.State.Status, "reason": r.State.Reason})
		if err := errors.Join(h.storeJobTx(tx, c, id, &r), h.auditTx(tx, c, op, id, details)); err != nil {
			return err
		}
		out, err = h.showJob(tx, id, &r)
		return err
	})
	return out, err
}

// jobForTx loads a job that must have an ETag.
func (h *Hub) jobForTx(tx *storage.Tx, id, etag string) (jobRecord, error) {
	r, err := loadJob(tx, id)
	if err != nil {
		return r, err
	}
	return r, checkSavedETag(etag, savedETag(h.db.Epoch().Ordinal, r.Created, r.Revision), "the job "+strconv.Quote(id))
}

// jobState gives an error of rollout its code.
func jobState(id string, err error) error {
	if err == nil {
		return nil
	}
	return wrapf(CodeJobState, err, "the job %q: %s", id, err.Error())
}

// reasonBytes bounds what somebody says why.
const reasonBytes = 512

func checkReason(reason string) error {
	if len(reason) > reasonBytes {
		return errf(CodeArgumentInvalid, "reason has %d bytes; expected at most %d", len(reason), reasonBytes)
	}
	return nil
}

// PauseJob stops a job from starting anything; what is on its way goes on. etag
// is empty or "*", or the one that the job must have, as in all operations on
// jobs. CodeJobState when it is paused, canceling or has ended. It needs
// ServiceConnect.
func (h *Hub) PauseJob(ctx context.Context, c Caller, id, reason, etag string) (Job, error) {
	if err := checkReason(reason); err != nil {
		return Job{}, err
	}
	if reason == "" {
		reason = "paused by " + c.Principal.String()
	}
	return h.control(ctx, c, opJobControl, "job.pause", id, etag, func(_ *storage.Tx, r *jobRecord) error {
		return jobState(id, r.State.Pause(rollout.PausedByOperator, reason))
	})
}

// ResumeJob lets a paused job go on, and accepts the outcomes that made it
// pause. It acts with its owner's permissions still; if these are gone, whoever
// resumes it is its owner from now on. CodeJobState when it is not paused. It
// needs ServiceConnect.
func (h *Hub) ResumeJob(ctx context.Context, c Caller, id, etag string) (Job, error) {
	return h.control(ctx, c, opJobControl, "job.resume", id, etag, func(_ *storage.Tx, r *jobRecord) error {
		if err := r.State.Resume(); err != nil {
			return jobState(id, err)
		}
		if _, err := h.jobCaller(id, r); err == nil {
			return nil
		}
		r.Owner = jobOwner{c.Kind, c.Name}
		_, err := h.jobCaller(id, r)
		return err
	})
}

// CancelJob ends a job: nothing starts any more; what is on its way goes on to
// its end. One that repeats is not run again. CodeJobState when it has ended. It
// needs ServiceConnect.
func (h *Hub) CancelJob(ctx context.Context, c Caller, id, reason, etag string) (Job, error) {
	if err := checkReason(reason); err != nil {
		return Job{}, err
	}
	if reason == "" {
		reason = "canceled by " + c.Principal.String()
	}
	return h.control(ctx, c, opJobControl, "job.cancel", id, etag, func(_ *storage.Tx, r *jobRecord) error {
		if r.State.Status.Final() && !r.ended() { // between two runs
			r.NextRun = time.Time{}
			r.State.Status, r.State.Reason = rollout.JobCanceled, reason
			return nil
		}
		return jobState(id, r.State.Cancel(reason))
	})
}

// ApproveJob lets a wave begin that waits for it, or will; a negative one is
// the next that does. CodeJobState when there is none. It needs ServiceConnect.
func (h *Hub) ApproveJob(ctx context.Context, c Caller, id string, wave int, etag string) (Job, error) {
	return h.control(ctx, c, opJobApprove, "job.approve", id, etag, func(tx *storage.Tx, r *jobRecord) error {
		spec, err := loadJobSpec(tx, id)
		if err != nil {
			return err
		}
		p, s := &spec.Spec.Policy, &r.State
		which := wave
		if which < 0 {
			which = slices.IndexFunc(p.Waves, func(w rollout.Wave) bool { return w.Approval })
			for which >= 0 && s.Approve(p, which, c.Principal.String(), tx.Now()) != nil {
				next := slices.IndexFunc(p.Waves[which+1:], func(w rollout.Wave) bool { return w.Approval })
				if next < 0 {
					which = -1
					break
				}
				which += 1 + next
			}
			if which < 0 {
				return errf(CodeJobState, "the job %q has no wave that waits for approval, or will", id)
			}
			return nil
		}
		return jobState(id, s.Approve(p, which, c.Principal.String(), tx.Now()))
	})
}

// CloneJob returns what a job was made with, for another one: without its id,
// and without times that have passed. Overrides are as in JobFromTemplate. It
// needs ServiceConnect.
func (h *Hub) CloneJob(ctx context.Context, c Caller, id string, overrides json.RawMessage) (JobSpec, error) {
	j, err := h.Job(ctx, c, id)
	if err != nil {
		return JobSpec{}, err
	}
	s, now := j.JobSpec, time.Now()
	s.ID = ""
	for _, t := range []*time.Time{&s.Policy.Start, &s.Policy.End} {
		if t.Before(now) {
			*t = time.Time{}
		}
	}
	if s.Policy.End.IsZero() {
		s.Policy.AtEnd = "" // it would speak of an end that there is not
	}
	text, err := marshal(s)
	if err != nil {
		return JobSpec{}, err
	}
	return h.overridden(text, overrides)
}
