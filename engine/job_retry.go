package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// retryBatch is how many executions a step puts back.
const retryBatch = 200

// retryable are the outcomes after which an execution can be retried, those
// that are when nobody says which first.
var retryable = []rollout.ExecutionStatus{
	rollout.ExecutionFailed, rollout.ExecutionTimedOut, rollout.ExecutionRejected, rollout.ExecutionUncertain, rollout.ExecutionCanceled,
}

// RetryFailedJob puts executions back that ended with one of the outcomes
// (failed, timedOut, rejected, uncertain, canceled; empty: the first four), and
// says how many. Their attempts are counted anew. A job that had ended runs
// again. What ends once it has begun stays. Called again after an error, it goes
// on where it stood. It needs ServiceConnect.
func (h *Hub) RetryFailedJob(ctx context.Context, c Caller, id string, outcomes []rollout.ExecutionStatus, etag string) (j Job, retried int, err error) {
	if err := h.authorize(ctx, c, opJobControl, id); err != nil {
		return Job{}, 0, err
	}
	if len(outcomes) == 0 {
		outcomes = retryable[:4]
	}
	for _, o := range outcomes {
		if !slices.Contains(retryable, o) {
			return Job{}, 0, errf(CodeArgumentInvalid, "an execution that is %q can't be retried; expected some of %s", clip(string(o)), words(retryable))
		}
	}
	begun := time.Now()
	first := true
	for _, outcome := range outcomes {
		var after storage.Key
		for {
			var keys []storage.Key
			var run uint64
			err := h.view(ctx, "look for executions to retry", func(r storage.Reader) error {
				record, err := loadJob(r, id)
				if err != nil {
					return err
				}
				run = record.Run
				keys, after, err = endedBefore(r, id, run, outcome, begun, after)
				return err
			})
			if err != nil {
				return j, retried, err
			}
			if len(keys) > 0 || first {
				var n int
				if j, n, err = h.retryStep(ctx, c, id, run, etag, first, keys); err != nil {
					return j, retried, err
				}
				first, retried, etag = false, retried+n, ""
			}
			if after == nil {
				break
			}
		}
	}
	if retried == 0 {
		return j, 0, errf(CodeJobState, "the job %q has no execution to retry: none has ended so", id)
	}
	j, err = h.Job(ctx, c, id)
	return j, retried, err
}

// endedBefore returns the keys of a run's executions that ended with an outcome
// before a time, and where to go on.
func endedBefore(r storage.Reader, job string, run uint64, outcome rollout.ExecutionStatus, when time.Time, after storage.Key) (keys []storage.Key, next storage.Key, err error) {
	prefix := storage.Tuple(job, run, string(outcome))
	seen := 0
	for item, err := range executionTable.Lookup(r, "status", storage.Range{Prefix: prefix, After: after}) {
		if err != nil {
			return nil, nil, err
		}
		if item.Value.final() && item.Value.Ended.Before(when) {
			keys = append(keys, slices.Clone(item.Key))
		}
		if seen++; len(keys) == retryBatch || seen == 10*retryBatch {
			return keys, slices.Concat(prefix, item.Key), nil
		}
	}
	return keys, nil, nil
}

// retryStep puts some executions back that have not moved meanwhile.
func (h *Hub) retryStep(ctx context.Context, c Caller, id string, run uint64, etag string, first bool, keys []storage.Key) (j Job, n int, err error) {
	err = h.step(ctx, "job.retry", func(tx *storage.Tx) error {
		n = 0
		r, err := h.jobForTx(tx, id, etag)
		if err != nil {
			return err
		}
		if r.Run != run {
			return errf(CodeJobState, "the job %q has begun its next run", id)
		}
		if r.State.Ended || r.State.Status == rollout.JobCanceling {
			return errf(CodeJobState, "the job %q takes nothing back: its end has come, or it is canceling", id)
		}
		type place struct {
			wave int
			from rollout.ExecutionStatus
		}
		counts := map[place]int{}
		for _, key := range keys {
			e, err := executionTable.Get(tx, key)
			if errors.Is(err, storage.ErrNotFound) || err == nil && (!e.final() || !slices.Contains(retryable, e.Status)) {
				continue
			}
			if err != nil {
				return err
			}
			if e.Generation == "" { // it was canceled before its turn came
				if e.Generation, err = generationOfKey(tx, key); err != nil {
					return err
				}
			}
			counts[place{e.Wave, e.Status}]++
			n++
			e.Status, e.Ended, e.Due = rollout.ExecutionRetrying, time.Time{}, tx.Now()
			e.Created, e.Updated, e.Retried = tx.Now(), tx.Now(), e.Attempts
			e.Code, e.Message, e.Answered, e.Answer, e.AnswerCode = "", "", false, nil, 0
			if err := executionTable.Put(tx, key, e); err != nil {
				return err
			}
		}
		for p, count := range counts {
			if err := r.State.Retry(p.wave, p.from.Phase(true), count); err != nil {
				return jobState(id, err)
			}
		}
		if !first && n == 0 {
			return nil
		}
		if n > 0 {
			r.NextRun = time.Time{} // this run goes on instead
			due := tx.Now()
			tx.OnCommit(func(uint64) { h.jobs.count(jobGauge{due: due}) })
		}
		details := jobDetails(map[string]any{"job": id, "retried": n})
		return errors.Join(h.storeJobTx(tx, c, id, &r), h.auditTx(tx, c, opJobControl, id, details))
	})
	return j, n, err
}

// generationOfKey returns the generation of an execution's identity, "" when it
// is gone: whoever looks at the execution finds that out.
func generationOfKey(r storage.Reader, key storage.Key) (string, error) {
	_, _, id, err := executionOfKey(key)
	if err != nil {
		return "", err
	}
	credentials, err := loadCredentials(r, id)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	return credentials.GenerationID, err
}
