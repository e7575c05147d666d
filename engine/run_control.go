package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// CancelRunOptions say how a run is canceled.
type CancelRunOptions struct {
	Reason string
	Undo   bool // its undo follows, if it has one
	Now    bool // at once: nothing of the program runs any more, deferred functions neither
}

// RetryRunOptions say how a run is begun again.
type RetryRunOptions struct {
	From    int    // the step that is taken again, and those behind it; 0: from the start
	Version string // of the pattern; empty: the run's own
}

// CancelRun asks a run to end: the program finds the fault "canceled" where it
// waits, and deferred functions run. CodeRunState when it has ended. It needs
// ServiceConnect.
func (h *Hub) CancelRun(ctx context.Context, c Caller, id string, o CancelRunOptions) (Run, error) {
	if err := h.authorize(ctx, c, opRunControl, id); err != nil {
		return Run{}, err
	}
	var run Run
	err := h.step(ctx, "run.cancel", h.inRuns(func(t *runTx) (err error) {
		if err := t.cancel(c, id, o); err != nil {
			return err
		}
		run, err = h.showRun(t.Tx, id)
		return err
	}))
	return run, err
}

func (t *runTx) cancel(c Caller, id string, o CancelRunOptions) error {
	r, err := t.loadWhole(id)
	if err != nil {
		return err
	}
	s := &r.State
	if s.State.Final() {
		return errf(CodeRunState, "the run %s is %s; only a run that has not ended can be canceled", id, s.State)
	}
	if s.Entry == pattern.EntryUndo && !o.Now {
		return errf(CodeRunState, "the undo of the run %s is under way; it can only be ended at once", id)
	}
	undo, err := t.hasUndo(r, o.Undo)
	if err != nil {
		return err
	}
	why := "canceled by " + c.Principal.String()
	if o.Reason != "" {
		why += ": " + clip(o.Reason)
	}
	w := &runWorld{t: t, r: r}
	r.Stop = nil
	if o.Now {
		err = s.Kill(w, why, t.Now())
	} else {
		err = r.stop(w, why, undo, t.Now())
	}
	if err != nil {
		return err
	}
	details, err := marshal(map[string]any{"run": id, "canceled": true, "undo": undo, "now": o.Now, "reason": clip(o.Reason)})
	return errors.Join(err, t.store(r), t.hub.auditTx(t.Tx, c, opRunControl, id, details))
}

// hasUndo reports whether an undo that was asked for is there.
func (t *runTx) hasUndo(r *runInTx, asked bool) (bool, error) {
	if !asked {
		return false, nil
	}
	p, err := t.hub.pattern(t.Tx, r.Pattern, r.Version)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodePatternNotFound {
		return false, nil
	}
	return p.Manifest.HasUndo, err
}

// runsAtOnce is how many runs are canceled or decided in one transaction.
const runsAtOnce = 50

// CancelRuns is CancelRun for all that a filter selects and that have not ended;
// it returns how many there were. An error may come after some were canceled.
func (h *Hub) CancelRuns(ctx context.Context, c Caller, f RunFilter, o CancelRunOptions) (int, error) {
	if err := h.authorize(ctx, c, opRunControl, "*"); err != nil {
		return 0, err
	}
	f.Active = true
	return h.eachSelected(ctx, f, func(ids []string) (n int, err error) {
		err = h.step(ctx, "run.cancelAll", h.inRuns(func(t *runTx) error {
			n = 0
			for _, id := range ids {
				err := t.cancel(c, id, o)
				if e, ok := errors.AsType[*Error](err); ok && (e.Code == CodeRunState || e.Code == CodeRunNotFound) {
					continue // it has ended just now
				}
				if err != nil {
					return err
				}
				n++
			}
			return nil
		}))
		return n, err
	})
}

// eachSelected calls do with the runs that a filter selects now, some at a time.
func (h *Hub) eachSelected(ctx context.Context, f RunFilter, do func(ids []string) (int, error)) (sum int, err error) {
	cursor := ""
	for {
		var ids []string
		next, err := h.eachRun(ctx, f, cursor, runsLook, func(id string, _ *runRecord) bool {
			ids = append(ids, id)
			return true
		})
		if err != nil {
			return sum, err
		}
		for some := range slices.Chunk(ids, runsAtOnce) {
			n, err := do(some)
			sum += n
			if err != nil {
				return sum, err
			}
		}
		if next == "" {
			return sum, nil
		}
		cursor = next
	}
}

// UndoRun has the program's undo run, after the end of a run. CodeRunState. It
// needs ServiceConnect.
func (h *Hub) UndoRun(ctx context.Context, c Caller, id string) (Run, error) {
	if err := h.authorize(ctx, c, opRunControl, id); err != nil {
		return Run{}, err
	}
	var run Run
	err := h.step(ctx, "run.undo", h.inRuns(func(t *runTx) error {
		if err := t.undo(id); err != nil {
			return err
		}
		details, err := marshal(map[string]any{"run": id, "undo": true})
		if err := errors.Join(err, h.auditTx(t.Tx, c, opRunControl, id, details)); err != nil {
			return err
		}
		run, err = h.showRun(t.Tx, id)
		return err
	}))
	return run, err
}

// undo begins the undo of a run that has ended.
func (t *runTx) undo(id string) error {
	r, err := t.loadWhole(id)
	if err != nil {
		return err
	}
	p, err := t.hub.pattern(t.Tx, r.Pattern, r.Version)
	if err != nil {
		return err
	}
	if !p.Manifest.HasUndo {
		return errf(CodeRunState, "the pattern %s %s has no undo", r.Pattern, r.Version)
	}
	if err := r.State.BeginUndo(); err != nil {
		return errf(CodeRunState, "the run %s is %s: %v", id, r.State.State, err)
	}
	r.State.State = pattern.Queued // until it has its device
	return t.store(r)
}

// RetryRun begins a run again that has ended, as a new run: from its start, or
// from a step if its pattern is resumable. CodeRunState. It needs ServiceConnect.
func (h *Hub) RetryRun(ctx context.Context, c Caller, id string, o RetryRunOptions) (Run, error) {
	if err := h.authorize(ctx, c, opRunControl, id); err != nil {
		return Run{}, err
	}
	var run Run
	err := h.step(ctx, "run.retry", h.inRuns(func(t *runTx) error {
		made, err := t.retry(c, id, o)
		if err != nil {
			return err
		}
		details, err := marshal(map[string]any{"run": id, "retry": made, "from": o.From})
		if err := errors.Join(err, h.auditTx(t.Tx, c, opRunControl, id, details)); err != nil {
			return err
		}
		run, err = h.showRun(t.Tx, made)
		return err
	}))
	return run, err
}

func (t *runTx) retry(c Caller, id string, o RetryRunOptions) (made string, err error) {
	r, err := t.loadWhole(id)
	if err != nil {
		return "", err
	}
	if !r.State.State.Final() {
		return "", errf(CodeRunState, "the run %s is %s; only a run that has ended can be begun again", id, r.State.State)
	}
	version := o.Version
	if version == "" {
		version = r.Version
	}
	p, err := t.hub.pattern(t.Tx, r.Pattern, version)
	if err != nil {
		return "", err
	}
	switch {
	case !p.Enabled:
		return "", errf(CodePatternState, "the pattern %s %s is disabled", r.Pattern, version)
	case o.From < 0:
		return "", errf(CodeArgumentInvalid, "from is %d, expected the number of a step", o.From)
	case o.From > 1 && !p.Manifest.Resumable:
		return "", errf(CodeRunState, "the pattern %s %s is not resumable: its runs begin from their start", r.Pattern, version)
	case o.From > 1 && p.Hash != hashText(r.Hash):
		return "", errf(CodeRunState, "steps of the version %s can't be gone on from by the version %s", r.Version, version)
	}
	state, err := r.State.Again(max(1, o.From))
	if err != nil {
		return "", errf(CodeArgumentInvalid, "%v", err)
	}
	if o.From <= 1 {
		state.Kept = nil
	}
	params, err := checkRunParams(&p, r.Params)
	if err != nil {
		return "", err
	}
	return t.start(c, runStart{Pattern: p, Device: r.device(), Params: params, Of: id, Attempt: r.Attempt + 1, state: &state})
}

// stopRunTx asks a run to end, as CancelRun does, once the transaction is
// durable. A run that has ended, or is gone, is left as it is.
func (h *Hub) stopRunTx(tx *storage.Tx, id, why string, undo bool) error {
	t := &runTx{Tx: tx, hub: h}
	if undo {
		r, err := t.load(id)
		if isRunGone(err) {
			return nil
		}
		if err == nil {
			undo, err = t.hasUndo(r, undo)
		}
		if err != nil {
			return err
		}
	}
	return t.stopLater(id, why, undo)
}

// undoRunTx has the undo of a run that has ended run, once the transaction is
// durable; CodeRunState when it can't.
func (h *Hub) undoRunTx(tx *storage.Tx, id string) error {
	return (&runTx{Tx: tx, hub: h}).undo(id)
}
