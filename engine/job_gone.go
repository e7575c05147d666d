package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/storage"
)

// goneJobTable names runs whose executions and targets are to be removed: a job
// that is deleted is gone at once, what belongs to it goes in steps. (job, run);
// run 0 stands for all.
var goneJobTable = storage.NewTable("job_gone", 1, storage.JSON[struct{}]())

func goneJobKey(job string, run uint64) storage.Key { return storage.Tuple(job, run) }

const (
	// jobRunsKept is how many runs of a job that repeats keep their executions,
	// the newest one included.
	jobRunsKept = 10
	// goneBatch is how many records a step removes.
	goneBatch = 250
)

// DeleteJob removes a job that has ended, with its executions. CodeJobState
// when it has not. It needs ServiceConnect.
func (h *Hub) DeleteJob(ctx context.Context, c Caller, id, etag string) error {
	if err := h.authorize(ctx, c, opJobControl, id); err != nil {
		return err
	}
	return h.step(ctx, "job.delete", func(tx *storage.Tx) error {
		r, err := h.jobForTx(tx, id, etag)
		if err != nil {
			return err
		}
		if !r.ended() {
			stands := string(r.State.Status)
			if !r.NextRun.IsZero() {
				stands = "to run again at " + r.NextRun.UTC().Format(time.RFC3339)
			}
			e := errf(CodeJobState, "the job %q is %s; only a job that has ended can be deleted", id, stands)
			e.Next = "Cancel it first: `muster job cancel JOB`."
			return e
		}
		return errors.Join(h.deleteJobTx(tx, c, id), h.auditTx(tx, c, opJobControl, id, jobDetails(map[string]any{"job": id, "deleted": true})))
	})
}

func (h *Hub) deleteJobTx(tx *storage.Tx, c Caller, id string) error {
	h.wakeJobTx(tx, id)
	return errors.Join(
		jobTable.Delete(tx, jobKey(id)),
		jobSpecTable.Delete(tx, jobKey(id)),
		planTable.Delete(tx, jobKey(id)),
		goneJobTable.Put(tx, goneJobKey(id, 0), struct{}{}),
		appendChange(tx, c, changeJobDeleted, TwinID{}, 0, jobDetails(map[string]any{"job": id})),
	)
}

// sweepJobs removes what belonged to jobs that are gone, and jobs that ended
// longer ago than they are kept.
func (h *Hub) sweepJobs(ctx context.Context, now time.Time) error {
	for {
		more, err := h.removeGone(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if !more {
			break
		}
		rest := time.NewTimer(retainPause)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
	return h.expireJobs(ctx, now.Add(-h.limits.JobAge))
}

// removeGone removes the next records of what is gone.
func (h *Hub) removeGone(ctx context.Context) (more bool, err error) {
	var gone []storage.Key    // what is done when nothing is left of the first of them
	var list [3][]storage.Key // of executions, blocks and queues
	err = h.view(ctx, "look for what is gone", func(r storage.Reader) error {
		for item, err := range goneJobTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil || len(parts) != 2 {
				return errors.Join(err, errors.New("key is not that of a job that is gone"))
			}
			prefix := storage.Tuple(parts[0])
			if run, _ := parts[1].(uint64); run != 0 {
				prefix = slices.Clone(item.Key)
			}
			g := storage.Range{Prefix: prefix}
			if gone, err = firstKeys(goneJobTable, r, g, goneBatch); err != nil {
				return err
			}
			if list[0], err = firstKeys(executionTable, r, g, goneBatch); err != nil {
				return err
			}
			if list[1], err = firstKeys(targetTable, r, g, goneBatch-len(list[0])); err != nil {
				return err
			}
			list[2], err = firstKeys(targetQueueTable, r, g, goneBatch-len(list[0])-len(list[1]))
			return err
		}
		return nil
	})
	if err != nil || gone == nil {
		return false, err
	}
	err = h.step(ctx, "job.remove", func(tx *storage.Tx) error {
		n := 0
		for _, k := range list[0] {
			if err := executionTable.Delete(tx, k); err != nil {
				return err
			}
			n++
		}
		for _, k := range list[1] {
			if err := targetTable.Delete(tx, k); err != nil {
				return err
			}
			n++
		}
		for _, k := range list[2] {
			if err := targetQueueTable.Delete(tx, k); err != nil {
				return err
			}
			n++
		}
		if n == goneBatch {
			return nil
		}
		for _, k := range gone {
			if err := goneJobTable.Delete(tx, k); err != nil {
				return err
			}
		}
		return nil
	})
	return err == nil, err
}

// firstKeys returns the first keys of a range, at most most.
func firstKeys[T any](t *storage.Table[T], r storage.Reader, g storage.Range, most int) (keys []storage.Key, err error) {
	if most <= 0 {
		return nil, nil
	}
	for item, err := range t.Scan(r, g) {
		if err != nil {
			return nil, err
		}
		if keys = append(keys, slices.Clone(item.Key)); len(keys) == most {
			break
		}
	}
	return keys, nil
}

// expireJobs deletes jobs that ended before a time.
func (h *Hub) expireJobs(ctx context.Context, before time.Time) error {
	for {
		var ids []string
		err := h.view(ctx, "look for old jobs", func(r storage.Reader) error {
			ids = nil
			for item, err := range jobTable.Lookup(r, "ended", storage.Range{End: storage.Tuple(before)}) {
				if err != nil {
					return err
				}
				parts, err := item.Key.Parts()
				if err != nil {
					return err
				}
				id, _ := parts[0].(string)
				if ids = append(ids, id); len(ids) == goneBatch {
					return nil
				}
			}
			return nil
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		err = h.step(ctx, "job.expire", func(tx *storage.Tx) error {
			for _, id := range ids {
				r, err := loadJob(tx, id)
				if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeJobNotFound {
					continue
				}
				if err != nil {
					return err
				}
				if !r.ended() || !r.Ended.Before(before) {
					continue
				}
				if err := h.deleteJobTx(tx, hubCaller("retention"), id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// dropOldRunTx has the executions of the run removed that a new one pushes out.
func dropOldRunTx(tx *storage.Tx, job string, newest uint64) error {
	if newest <= jobRunsKept {
		return nil
	}
	return goneJobTable.Put(tx, goneJobKey(job, newest-jobRunsKept), struct{}{})
}
