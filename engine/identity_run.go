package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// Pauses of the runner of identity jobs: while there is nothing to do and
// nobody says that there is, and after work that failed.
const (
	identityJobIdle  = 10 * time.Second
	identityJobRetry = 2 * time.Second
)

// errJobEnded ends the work of a job that has ended meanwhile.
var errJobEnded = errors.New("the job has ended")

// runIdentityJobs runs imports and exports, one after the other, until ctx
// ends. After a restart the job that was running goes on where it stood.
func (h *Hub) runIdentityJobs(ctx context.Context) {
	var told time.Time
	for ctx.Err() == nil {
		some, err := h.advanceIdentityJobs(ctx)
		pause := identityJobIdle
		switch {
		case err != nil && ctx.Err() == nil:
			if time.Since(told) >= toldEvery {
				told = time.Now()
				h.log.Warn("an import or export can't go on; it will be tried again", slog.Any("error", err))
			}
			pause = identityJobRetry
		case some:
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-h.imports.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// advanceIdentityJobs does what is to be done for the oldest job that is not
// done with; some is false when there is none. An error is one that may pass.
func (h *Hub) advanceIdentityJobs(ctx context.Context) (some bool, err error) {
	if h.db.Paused() {
		return false, nil
	}
	var id string
	var r identityJobRecord
	var place identityJobPlace
	err = h.view(ctx, "look for jobs", func(rd storage.Reader) error {
		for item, err := range identityJobTable.Lookup(rd, "open", storage.Range{}) {
			if err != nil {
				return err
			}
			if id, err = firstText(item.Key); err != nil {
				return err
			}
			r, place, err = loadIdentityJob(rd, id)
			return err
		}
		return nil
	})
	if err != nil || id == "" {
		return false, err
	}
	switch r.Stage {
	case stageWork:
		err = h.workIdentityJob(ctx, id, r, place)
	case stageLog:
		err = h.writeImportLog(ctx, id, r)
	case stageTidy:
		err = h.tidyImportLog(ctx, id)
	case stageDone:
	}
	if errors.Is(err, errJobEnded) {
		err = nil
	}
	return true, err
}

// workIdentityJob does a job's work to its end. What can't pass by itself makes
// the job fail.
func (h *Hub) workIdentityJob(ctx context.Context, id string, r identityJobRecord, place identityJobPlace) error {
	err := h.beginIdentityJob(ctx, id, &r, &place)
	if err == nil {
		work := h.runImport
		if r.Type == IdentityExport {
			work = h.runExport
		}
		err = work(ctx, id, r, place)
	}
	if err == nil || errors.Is(err, errJobEnded) {
		return err
	}
	return h.failIdentityJob(ctx, id, err)
}

// beginIdentityJob says that a job runs. A dry run knows what its lines would
// have made only while the process lives, and begins again.
func (h *Hub) beginIdentityJob(ctx context.Context, id string, r *identityJobRecord, place *identityJobPlace) error {
	if r.Status == IdentityJobRunning && !r.DryRun {
		return nil
	}
	return h.step(ctx, "import.begin", func(tx *storage.Tx) error {
		now, np, err := loadIdentityJob(tx, id)
		if err != nil {
			return err
		}
		if now.Status.Final() {
			return errJobEnded
		}
		if now.DryRun {
			np = identityJobPlace{Total: np.Total}
		}
		np.Moved = tx.Now().UTC()
		*place = np
		if now.Status != IdentityJobRunning {
			now.Status, now.Started = IdentityJobRunning, np.Moved
			details, err := identityJobDetails(id, &now)
			if err := errors.Join(err, appendChange(tx, importCaller(now.Owner, id), changeJobStatus, TwinID{}, 0, details)); err != nil {
				return err
			}
		}
		*r = now
		return errors.Join(identityJobTable.Put(tx, identityJobKey(id), now), identityJobPlaceTable.Put(tx, identityJobKey(id), np))
	})
}

// failIdentityJob ends a job for an error that stays, and returns one that may
// pass.
func (h *Hub) failIdentityJob(ctx context.Context, id string, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	e := AsError(cause)
	switch e.Code {
	case CodeReadOnly, CodeUncertain, CodeClosed, CodeUnavailable, CodeThrottled, CodeCanceled, CodeGatewayTimeout:
		return cause
	case CodeInternal:
		h.log.Error("an import or export failed", slog.String("job", id), slog.Any("error", cause))
	}
	return h.step(ctx, "import.fail", func(tx *storage.Tx) error {
		r, _, err := loadIdentityJob(tx, id)
		if err != nil || r.Status.Final() {
			return err
		}
		return h.endIdentityJobTx(tx, importCaller(r.Owner, id), id, &r, IdentityJobFailed, e.Message)
	})
}

// importCaller is as whom an identity job acts.
func importCaller(o identityJobOwner, job string) Caller {
	return Caller{Principal: o.principal(), Cause: "job:" + job}
}

// mayGoOn checks that a job's owner still may do what it does.
func (h *Hub) mayGoOn(o identityJobOwner, op operation) error {
	p := o.principal()
	if p.Kind != auth.Policy {
		return nil // of this machine
	}
	policy, ok := (*h.policies.Load())[o.Name]
	need := op.info().Permission
	if !ok {
		return errf(CodeForbidden, "the job acts for %s, which is gone", p)
	}
	if !policy.Permissions.Has(need) {
		return errf(CodeForbidden, "the job acts for %s, which no longer has the permission %s", p, need)
	}
	return nil
}

// retainIdentityJobs removes jobs that ended too long ago, or are too many.
func (h *Hub) retainIdentityJobs(ctx context.Context) error {
	return h.repeatStep(ctx, "import.retain", func(tx *storage.Tx) (more bool, err error) {
		ended := 0
		var oldest storage.Key
		var when time.Time
		for item, err := range identityJobTable.Lookup(tx, "ended", storage.Range{}) {
			if err != nil {
				return false, err
			}
			if ended++; ended == 1 {
				oldest, when = append(storage.Key(nil), item.Key...), item.Value.Ended
			}
			if ended > h.limits.IdentityJobs {
				break
			}
		}
		if ended == 0 || ended <= h.limits.IdentityJobs && tx.Now().Sub(when) < h.limits.JobAge {
			return false, nil
		}
		id, err := firstText(oldest)
		if err != nil {
			return false, err
		}
		details, err := marshal(struct {
			Job string `json:"job"`
		}{id})
		return true, errors.Join(err, identityJobTable.Delete(tx, oldest), identityJobPlaceTable.Delete(tx, oldest),
			appendChange(tx, hubCaller("retention"), changeJobDeleted, TwinID{}, 0, details))
	})
}
