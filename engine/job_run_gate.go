package engine

import (
	"context"
	"errors"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// besideLoop is something that is found out about a job beside its loop, since it
// may take long: one at a time, and what came of it. mu of the job guards it.
type besideLoop[T any] struct {
	busy   bool
	result *T // that nobody has taken over
}

// findOut has f find something out about a job; what comes of it wakes the loop.
func findOut[T any](ctx context.Context, l *jobLoop, a *activeJob, b *besideLoop[T], f func(ctx context.Context) (T, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.busy {
		return
	}
	b.busy, b.result = true, nil
	id := a.id
	l.gates.Go(func() {
		result, err := f(ctx)
		a.mu.Lock()
		b.busy = false
		if err == nil {
			b.result = &result
		}
		a.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.hub.jobs.lookLater(ctx, id)
			return
		}
		l.hub.jobs.look(id)
	})
}

// check looks at the health of the targets that a job has reached.
func (l *jobLoop) check(ctx context.Context, a *activeJob, c rollout.HealthCheck) {
	id, run := a.id, a.run
	findOut(ctx, l, a, &a.health, func(ctx context.Context) (rollout.HealthResult, error) {
		return l.hub.checkHealth(ctx, id, run, c)
	})
}

// healthPage is how many devices in bad health are looked up together.
const healthPage = 1000

// checkHealth counts the targets of the waves up to one that match a condition.
// The error is one of the store, or of a hub that can't answer queries yet; what
// is wrong with the condition is the result's fault.
func (h *Hub) checkHealth(ctx context.Context, job string, run uint64, c rollout.HealthCheck) (rollout.HealthResult, error) {
	result := rollout.HealthResult{Wave: c.Wave}
	p, err := query.ParsePredicate(c.Where)
	if err != nil {
		result.Fault = err.Error()
		return result, nil
	}
	err = h.view(ctx, "read a job", func(r storage.Reader) error {
		record, err := loadJob(r, job)
		if err != nil {
			return err
		}
		for w := range min(c.Wave+1, len(record.State.Waves)) {
			t := &record.State.Waves[w]
			result.Reached += t.Size - t.Pending - t.Canceled - t.Removed
		}
		return nil
	})
	if err != nil {
		return result, err
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return result, err
	}
	for source := range query.Source(querySources) {
		at := queryPlace{}
		for {
			page, err := h.healthPage(ctx, query.Select(source, p), at)
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeQueryBudget {
				result.Fault = e.Message
				return result, nil
			}
			if err != nil {
				return result, err
			}
			n, err := h.countReached(ctx, job, run, c.Wave, page.IDs)
			if err != nil {
				return result, err
			}
			result.Bad += n
			if !page.More {
				break
			}
			at.given += len(page.IDs)
			at.last = page.Last
		}
	}
	return result, nil
}

func (h *Hub) healthPage(ctx context.Context, q *query.Query, at queryPlace) (*query.Page, error) {
	leave, err := h.queries.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return h.queries.run(ctx, q, at, healthPage)
}

// countReached counts the rows that are targets which a job has reached.
func (h *Hub) countReached(ctx context.Context, job string, run uint64, wave int, rows []string) (n int, err error) {
	err = h.view(ctx, "look at a job's targets", func(r storage.Reader) error {
		n = 0
		for _, row := range rows {
			e, err := executionTable.Get(r, executionKey(job, run, twinIDOfRow(row)))
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if e.Wave <= wave && e.Status != rollout.ExecutionCanceled && e.Status != rollout.ExecutionRemoved {
				n++
			}
		}
		return nil
	})
	return n, err
}
