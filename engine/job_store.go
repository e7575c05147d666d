package engine

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// storeJobTx stores a job that was changed otherwise than by its executions,
// with its event, and has the loop look at it.
func (h *Hub) storeJobTx(tx *storage.Tx, c Caller, job string, r *jobRecord) error {
	before, err := loadJob(tx, job)
	if err != nil {
		return err
	}
	r.Revision++
	r.Updated = tx.Now()
	switch final := r.State.Status.Final(); {
	case final && r.Ended.IsZero():
		r.Ended = tx.Now()
	case !final:
		r.Ended = time.Time{}
	}
	tx.Add(counterJobsActive, active(r)-active(&before))
	h.wakeJobTx(tx, job)
	details, err := marshal(jobStatusChange{job, r.Run, r.State.Status, r.State.WaitsFor, r.State.Reason})
	return errors.Join(err, jobTable.Put(tx, jobKey(job), *r), appendChange(tx, c, changeJobStatus, TwinID{}, 0, details))
}

// jobStatusChange is the data of a change of a job.
type jobStatusChange struct {
	Job      string            `json:"job"`
	Run      uint64            `json:"run"`
	Status   rollout.JobStatus `json:"status"`
	WaitsFor rollout.WaitsFor  `json:"waitsFor,omitempty"`
	Reason   string            `json:"reason,omitempty"`
}

// active is 1 of a job that has something to do, now or at its next run.
func active(r *jobRecord) int64 {
	if r.State.Status.Final() && r.NextRun.IsZero() {
		return 0
	}
	return 1
}

// ended reports whether nothing of the job is to come.
func (r *jobRecord) ended() bool { return active(r) == 0 }

// newJobID makes an id that sorts by time and that nobody else makes.
func newJobID(now time.Time) string {
	return strconv.FormatInt(now.UnixMilli(), 36) + "-" + strconv.FormatUint(rand.Uint64()|1<<63, 36)
}

// showJob reads a job as callers see it.
func (h *Hub) showJob(r storage.Reader, id string, record *jobRecord) (Job, error) {
	spec, err := loadJobSpec(r, id)
	if err != nil {
		return Job{}, err
	}
	j := Job{
		JobSpec: spec.Spec, Kind: record.Kind, ETag: savedETag(h.db.Epoch().Ordinal, record.Created, record.Revision), QueryText: spec.Saved.Text,
		Run: record.Run, State: record.State.Clone(), Principal: record.Owner.principal().String(),
		Created: record.Created.UTC(), Updated: record.Updated.UTC(), Started: record.Started.UTC(), Ended: record.Ended.UTC(), NextRun: record.NextRun.UTC(),
	}
	j.ID, j.Undo = id, record.Undo.show()
	if record.State.LaidOut {
		total := record.State.Total()
		j.Found = int64(total.Size)
		return j, nil
	}
	plan, err := planTable.Get(r, jobKey(id))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return j, err
	}
	j.Found = plan.Found
	return j, nil
}

func (o jobOwner) principal() auth.Principal { return auth.Principal{Kind: o.Kind, Name: o.Name} }

// jobCaller returns the caller as whom a job acts now: its owner, with the
// permissions that the owner has at the moment. The error says why it may not.
func (h *Hub) jobCaller(job string, r *jobRecord) (Caller, error) {
	return h.ownerCaller(r.Owner, jobOperation(r.Kind), "the job", "job:"+job)
}

// ownerCaller returns the caller as whom something acts that somebody has left
// behind, what it is called and its cause, with the permissions that its owner has
// at the moment. The error says why it may not.
func (h *Hub) ownerCaller(owner jobOwner, op operation, what, cause string) (Caller, error) {
	p := owner.principal()
	switch p.Kind {
	case auth.Local:
		p.Permissions = auth.AllPermissions
	case auth.Policy:
		policy, ok := (*h.policies.Load())[p.Name]
		if !ok {
			return Caller{}, errf(CodeForbidden, "the shared access policy %q, with whose permissions %s acts, was deleted", p.Name, what)
		}
		p.Permissions = policy.Permissions
	default:
		return Caller{}, errf(CodeForbidden, "%s was made by %s, who may not have it act", what, p)
	}
	if !p.Permissions.Has(op.info().Permission) {
		return Caller{}, errf(CodeForbidden, "%s, with whose permissions %s acts, may not %s any more: that needs %s", p, what, op.info().Name, op.info().Permission)
	}
	return Caller{Principal: p, Cause: cause}, nil
}

// jobOperation is what the owner of a job must be allowed to do.
func jobOperation(k JobKind) operation {
	switch k {
	case JobMethod:
		return opMethodInvoke
	case JobConfigure:
		return opConfigurationWrite
	case JobRunPattern:
		return opRunStart
	default:
		return opTwinUpdate
	}
}

// jobDetails are what the audit keeps of a change of a job.
func jobDetails(more map[string]any) json.RawMessage {
	b, err := marshal(more)
	if err != nil { // plain values always marshal
		return nil
	}
	return b
}
