package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// CreateJob makes a job and returns it, durable and queued. With a token of
// PreviewJob it is refused with CodeJobPreviewChanged unless the spec and its
// targets are those of the preview; its targets are laid out at once, even if it
// starts later, and it fails before it touches a device if they have changed by
// then. Without one, a policy that can't be done with as many targets as match now
// is refused, and what may not be meant is in the job's Warnings. Of
// targets.condition a mistake counts when the job runs, as in IoT
// Hub; any other one is CodeArgumentInvalid. CodeJobAlreadyExists for an id that
// is taken; CodeTooManyJobs. It needs ServiceConnect.
func (h *Hub) CreateJob(ctx context.Context, c Caller, s JobSpec, token string) (Job, error) {
	return h.createJob(ctx, c, s, token, func(*storage.Tx) error { return nil })
}

// createJob is CreateJob for who has something to check in the job's transaction.
func (h *Hub) createJob(ctx context.Context, c Caller, s JobSpec, token string, check func(tx *storage.Tx) error) (Job, error) {
	if err := h.authorize(ctx, c, opJobCreate, s.ID); err != nil {
		return Job{}, err
	}
	now := time.Now().UTC()
	checked, err := h.prepareJob(ctx, c, s, now)
	if err != nil {
		return Job{}, err
	}
	plan := planRecord{Run: 1}
	if token != "" {
		if plan.Expect, err = h.redeemPreview(ctx, checked, token, now); err != nil {
			return Job{}, err
		}
	} else if err := cmp.Or(h.checkTargets(ctx, checked, now), h.checkDanger(ctx, checked)); err != nil {
		return Job{}, err
	}
	id := checked.spec.ID
	if id == "" {
		id = newJobID(now)
	}
	var made Job
	err = h.step(ctx, "job.create", func(tx *storage.Tx) error {
		if err := check(tx); err != nil {
			return err
		}
		made, err = h.createJobTx(tx, c, id, checked, plan)
		return err
	})
	if err != nil {
		return Job{}, err
	}
	if plan.Expect == nil {
		made.Warnings = ownWarnings(checked.warnings, &s.Policy)
		return made, nil
	}
	if !checked.spec.Policy.Start.After(now) {
		return made, nil
	}
	// What was previewed is fixed now. If this call is cut off, the job's start does it.
	for {
		if done, err := h.layOutStep(ctx, id); done || err != nil {
			break
		}
	}
	return h.Job(ctx, c, id)
}

func (h *Hub) createJobTx(tx *storage.Tx, c Caller, id string, checked *checkedJob, plan planRecord) (Job, error) {
	for _, taken := range []func() (bool, error){
		func() (bool, error) { return jobTable.Has(tx, jobKey(id)) },
		func() (bool, error) { return goneJobTable.Has(tx, goneJobKey(id, 0)) },
	} {
		if is, err := taken(); err != nil || is {
			return Job{}, errors.Join(err, errf(CodeJobAlreadyExists, "there is a job %q, or one was deleted so shortly ago that its executions are still being removed", id))
		}
	}
	n, err := storage.Counter(tx, counterJobsActive)
	if err != nil {
		return Job{}, err
	}
	if most := h.limits.JobsActive; n >= int64(most) {
		return Job{}, errf(CodeTooManyJobs, "%d jobs have not ended, and the limit is %d", n, most)
	}
	record := jobRecord{
		Revision: 1, Kind: checked.action.kind(), Priority: checked.spec.Policy.Priority, Owner: jobOwner{c.Kind, c.Name},
		Run: 1, State: rollout.NewState(checked.spec.Targets.Dynamic), Created: tx.Now(), Updated: tx.Now(), Ranked: true,
	}
	spec := jobSpecRecord{Spec: checked.spec, Saved: checked.saved}
	spec.Spec.ID = id
	tx.Add(counterJobsActive, 1)
	h.wakeJobTx(tx, id)
	details := jobDetails(map[string]any{"job": id, "kind": record.Kind, "previewed": plan.Expect != nil})
	err = errors.Join(
		jobTable.Put(tx, jobKey(id), record),
		jobSpecTable.Put(tx, jobKey(id), spec),
		planTable.Put(tx, jobKey(id), plan),
		appendChange(tx, c, changeJobCreated, TwinID{}, 0, details),
		h.auditTx(tx, c, opJobCreate, id, details),
	)
	if err != nil {
		return Job{}, err
	}
	return h.showJob(tx, id, &record)
}

// prepareJob checks a job for who makes it.
func (h *Hub) prepareJob(ctx context.Context, c Caller, s JobSpec, now time.Time) (*checkedJob, error) {
	var saved savedText
	if name := s.Targets.Query; name != "" {
		err := h.view(ctx, "read a saved query", func(r storage.Reader) error {
			record, err := h.savedQueries().get(r, name)
			saved = savedText{Text: record.Text, Source: record.Source}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var runs *patternRecord
	if s.Action.Run != nil {
		var err error
		if runs, err = h.prepareRun(ctx, &s); err != nil {
			return nil, err
		}
		saved.Applies = runs.Manifest.Applies
	}
	checked, err := h.checkJob(s, saved, now)
	if err != nil {
		return nil, err
	}
	checked.pattern = runs
	if op := checked.action.operation(); !c.Permissions.Has(op.info().Permission) {
		e := errf(CodeForbidden, "a job of the kind %s needs the permission %s, which %s does not have", checked.action.kind(), op.info().Permission, c.Principal)
		h.auditRefused(c, opJobCreate, s.ID, e)
		return nil, e
	}
	return checked, nil
}

// checkTargets refuses a job that would do nothing, and a policy that can't be done
// with so many targets. They are counted only for a policy of which that says
// something.
func (h *Hub) checkTargets(ctx context.Context, checked *checkedJob, now time.Time) error {
	if checked.spec.Targets.Condition != "" {
		return nil
	}
	sized := checked.spec.Policy.Sized()
	if checked.spec.AllowEmpty && !sized {
		return nil
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return err
	}
	ask, count, left := targetAsk{}, 0, map[string]int{}
	ask.left = func(reason, _ string) { left[reason]++ }
	if !sized {
		ask.limit = 1
	}
	err := h.eachTarget(ctx, checked.targets, ask, func(rows []query.Row) bool {
		count += len(rows)
		return sized && count <= h.limits.JobTargets
	})
	switch most := h.limits.JobTargets; {
	case err != nil:
		return err
	case count > most:
		return tooManyTargets(most)
	case count == 0 && !checked.spec.AllowEmpty:
		return noTargets(checked, left)
	case sized:
		checked.warnings, err = checked.sizedWarnings(now, count)
	}
	return err
}

// ownWarnings leaves out what is said of members that the job did not give, but its
// pattern: whoever wrote that meant fleets of many sizes.
func ownWarnings(list []rollout.Fault, given *rollout.Policy) []rollout.Fault {
	lent := map[string]bool{
		"waves": len(given.Waves) == 0, "pause": len(given.Pause) == 0, "abort": len(given.Abort) == 0, "retry": given.Retry == nil, "windows": len(given.Windows) == 0,
	}
	return slices.DeleteFunc(slices.Clone(list), func(f rollout.Fault) bool {
		member := strings.TrimPrefix(f.Path, "policy.")
		if end := strings.IndexAny(member, ".["); end >= 0 {
			member = member[:end]
		}
		return lent[member]
	})
}

func tooManyTargets(most int) error {
	return errf(CodeArgumentInvalid, "the job has more than %d targets, which is the limit", most)
}

// noTargets says why a job has no targets.
func noTargets(checked *checkedJob, left map[string]int) error {
	e := errf(CodeArgumentInvalid, "the job has no targets: nothing matches its condition now")
	e.Next = "Try the condition with `muster query`, or allow for an empty job with --allow-empty (in the REST API allowEmpty)."
	switch {
	case left[leftApplies] > 0:
		e.Message = "the job has no targets: the pattern applies to none of the " + plural(left[leftApplies], "device") + " that match (" + checked.saved.Applies + ")"
	case left[leftExclude]+left[leftExcludeWhere] > 0:
		e.Message = "the job has no targets: all " + plural(left[leftExclude]+left[leftExcludeWhere], "device") + " that match are excluded"
	case checked.targets.query == nil:
		e.Message = "the job has no targets: none of the " + plural(len(checked.targets.ids), "id") + " exists"
		e.Next = "Check the ids; `muster device list` shows what exists."
	}
	return e
}
