package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// jobWork is what running a job needs of its spec, made ready. It never changes,
// and is safe for concurrent use.
type jobWork struct {
	created time.Time // of the job: another one of its name has another
	spec    jobSpecRecord
	plan    *rollout.Plan
	policy  *rollout.Policy
	confirm *query.Predicate // nil: no evidence is asked for
	gate    bool             // its pattern is asked before each further wave

	once   sync.Once // of targets
	parsed *jobTargets
	fault  error
}

// jobWorks keeps the work of the jobs that ran last: a spec may be large, and is
// read again when it is needed. It is safe for concurrent use; the zero value is
// ready.
type jobWorks struct {
	mu   sync.Mutex
	kept map[string]*jobWork
}

// jobWorksMost is how many are kept.
const jobWorksMost = 128

// targets are the job's, made ready to be compared with.
func (w *jobWork) targets(h *Hub) (*jobTargets, error) {
	w.once.Do(func() { w.parsed, w.fault = h.parseTargets(&w.spec.Spec, w.spec.Saved) })
	return w.parsed, w.fault
}

// get returns the work of a job.
func (w *jobWorks) get(h *Hub, r storage.Reader, id string, record *jobRecord) (*jobWork, error) {
	w.mu.Lock()
	work := w.kept[id]
	w.mu.Unlock()
	if work != nil && work.created.Equal(record.Created) {
		return work, nil
	}
	work = &jobWork{created: record.Created}
	var err error
	if work.spec, err = loadJobSpec(r, id); err != nil {
		return nil, err
	}
	s := &work.spec.Spec
	if work.plan, err = rollout.NewPlan(s.Policy); err != nil {
		return nil, wrapf(CodeInternal, err, "the policy of the job %q can't be used: %v", id, err)
	}
	work.policy = work.plan.Policy()
	if s.Action.Confirm != "" {
		if work.confirm, err = query.ParsePredicate(s.Action.Confirm); err != nil {
			return nil, wrapf(CodeInternal, err, "the condition of the job %q can't be used: %v", id, err)
		}
	}
	if a := s.Action.Run; a != nil {
		// One that was removed has no gate, and no run begins.
		record, err := h.pattern(r, a.Pattern, a.Version)
		if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Code != CodePatternNotFound) {
			return nil, err
		}
		work.gate = err == nil && record.Manifest.HasGate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kept == nil {
		w.kept = map[string]*jobWork{}
	}
	for other := range w.kept {
		if len(w.kept) < jobWorksMost {
			break
		}
		delete(w.kept, other)
	}
	w.kept[id] = work
	return work, nil
}

// drop forgets a job.
func (w *jobWorks) drop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.kept, id)
}

// lookLater marks a job for the loop after a pause.
func (j *jobRunner) lookLater(ctx context.Context, id string) {
	t := time.NewTimer(jobsRetry)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		j.look(id)
	}
}
