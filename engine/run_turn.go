package engine

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

const (
	// runFailuresMost is how often a run is tried to be activated in a row.
	runFailuresMost = 8
	// runGrace is how long the deferred functions of a run may take whose time is up.
	runGrace = 10 * time.Minute
	// runRestMost is the longest pause between two attempts.
	runRestMost = time.Minute
)

// runTurn is a run in a batch: what was read of it, what its program did then, and
// whether it may be stored.
type runTurn struct {
	id         string
	revision   uint64
	older      []pattern.Step // of its journal, outside its record: as long as it has this revision
	now        time.Time
	activation *pattern.Activation // nil: nothing is run
	hash       string
	grants     pattern.Needs
	gone       *pattern.Fault // the run can't go on
	job        bool           // its end is that of an execution

	outcome *pattern.Outcome
	failure error // it could not be activated
}

// turnRuns lets runs go on, each by one activation at most: all of them are read
// from one snapshot, their programs are run, and what these did is stored in one
// transaction, for those that nobody else has moved meanwhile.
func (h *Hub) turnRuns(ctx context.Context, ids []string) error {
	turns, err := h.readTurns(ctx, ids)
	if err != nil || len(turns) == 0 {
		return err
	}
	h.activate(ctx, turns)
	if err := ctx.Err(); err != nil {
		return err
	}
	err = h.storeTurns(ctx, turns)
	if err == nil || len(turns) == 1 || ctx.Err() != nil {
		return h.runStuck(ctx, turns, err)
	}
	// One of them may be why.
	for i := range turns {
		if one := h.storeTurns(ctx, turns[i:i+1]); one != nil {
			if err := h.runStuck(ctx, turns[i:i+1], one); err != nil {
				return err
			}
		}
	}
	return nil
}

// runStuck ends a run whose step can't be stored whatever is tried; other errors
// are those of a store that takes nothing now.
func (h *Hub) runStuck(ctx context.Context, turns []*runTurn, err error) error {
	if err == nil || len(turns) != 1 || ctx.Err() != nil {
		return err
	}
	code := AsError(err).Code
	if code != CodeInternal && code != CodeTooLarge {
		return err
	}
	h.log.Error("a step of a run can't be stored; the run ends", slog.String("run", turns[0].id), slog.Any("error", err))
	return h.step(ctx, "run.stuck", h.inRuns(func(t *runTx) error {
		r, err := t.loadWhole(turns[0].id)
		if isRunGone(err) {
			return nil
		}
		if err != nil || r.State.State.Final() {
			return err
		}
		if err := r.State.Kill(withdrawer{}, "", t.Now()); err != nil {
			return err
		}
		r.State.Fail(faultf(pattern.FaultTooBig, "what the step did can't be stored: %v", err))
		return t.store(r)
	}))
}

// readTurns reads runs and prepares their activations.
func (h *Hub) readTurns(ctx context.Context, ids []string) (turns []*runTurn, err error) {
	err = h.view(ctx, "read runs", func(r storage.Reader) error {
		turns = nil
		patterns := map[string]patternRecord{}
		now := time.Now().UTC()
		for _, id := range ids {
			record, err := loadRun(r, id)
			if isRunGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			if record.State.State.Final() || record.Parked && record.Stop == nil {
				continue
			}
			turn := &runTurn{id: id, revision: record.Revision, now: now, job: record.Job != nil}
			if turn.older, err = loadSteps(r, id, &record); err != nil {
				return err
			}
			record.completed(turn.older)
			if err := h.prepareTurn(r, turn, &record, patterns); err != nil {
				return err
			}
			turns = append(turns, turn)
		}
		return nil
	})
	return turns, err
}

// prepareTurn does to a copy of a run what the transaction will do, up to its
// activation.
func (h *Hub) prepareTurn(reader storage.Reader, turn *runTurn, r *runRecord, patterns map[string]patternRecord) error {
	name := r.Pattern + "@" + r.Version
	p, known := patterns[name]
	if !known {
		var err error
		p, err = h.pattern(reader, r.Pattern, r.Version)
		if e, ok := errors.AsType[*Error](err); ok && e.Code == CodePatternNotFound {
			turn.gone = faultf(pattern.FaultGone, "the pattern %s is not installed any more", name)
			return nil
		}
		if err != nil {
			return err
		}
		patterns[name] = p
	}
	turn.grants = p.Granted
	if r.Device != "" {
		identity, err := loadIdentity(reader, r.device())
		if err != nil && !isGone(err) {
			return err
		}
		if err != nil || identity.GenerationID != r.Generation {
			turn.gone = faultf(pattern.FaultGone, "the device %s was deleted", r.device())
			return nil
		}
	}
	if r.Stop != nil || r.overdue(h, turn.now) {
		return nil
	}
	if r.State.State == pattern.Queued {
		if r.alone() {
			d, err := loadRunDevice(reader, r.device())
			if err != nil || d.Holder != "" && d.Holder != turn.id {
				return err
			}
		}
		r.State.State = pattern.Ready
	}
	if due := r.stepDue(h); !due.IsZero() && !turn.now.Before(due) {
		if _, err := r.State.Expire(withdrawer{}, turn.now); err != nil {
			return err
		}
	}
	if r.State.State != pattern.Ready || r.Retry.After(turn.now) {
		return nil
	}
	a := &pattern.Activation{
		Run: turn.id, Attempt: r.Attempt, Device: r.Device, Module: r.Module, Params: r.Params, Now: turn.now, Seed: runSeed(turn.id),
	}
	r.State.Fill(a)
	if r.Device != "" && p.Granted.Allows("twin:read") {
		if c, fault := h.runCaller(turn.id, r); fault == nil && mayStep(c, opWait) == nil {
			doc, _, err := hubDocuments{hub: h}.document(reader, r.device())
			if err != nil {
				return err
			}
			a.Twin = withConnected(doc).AppendJSON(nil)
		}
	}
	turn.activation, turn.hash = a, hashText(r.Hash)
	return nil
}

// runSeed makes the seed of a run's random steps: always the same.
func runSeed(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum64()
}

// overdue reports whether the run's time is up.
func (r *runRecord) overdue(h *Hub, now time.Time) bool {
	return !r.Deadline.IsZero() && !now.Before(h.jobs.clock.later(r.Deadline, r.Started))
}

// withdrawer is a world of a run of which only a copy is moved, or whose steps
// need not be taken back.
type withdrawer struct{}

func (withdrawer) Begin(*pattern.Run, *pattern.Step) (pattern.Answer, error) {
	return pattern.Answer{}, errors.New("a step is begun without a transaction")
}
func (withdrawer) Withdraw(*pattern.Run, *pattern.Step) error { return nil }

// activate runs the programs of a batch.
func (h *Hub) activate(ctx context.Context, turns []*runTurn) {
	groups := map[string][]*runTurn{}
	for _, t := range turns {
		if t.activation != nil {
			groups[t.hash] = append(groups[t.hash], t)
		}
	}
	for hash, group := range groups {
		bundle, err := h.program(ctx, hash)
		switch e, ok := errors.AsType[*Error](err); {
		case ok && e.Code == CodePatternNotFound:
			for _, t := range group {
				t.activation, t.gone = nil, faultf(pattern.FaultGone, "the files of the pattern are not there any more")
			}
			continue
		case err != nil:
			for _, t := range group {
				t.failure = err
			}
			continue
		}
		h.activateGroup(ctx, bundle, group)
	}
}

func (h *Hub) activateGroup(ctx context.Context, b *pattern.Bundle, group []*runTurn) {
	list := make([]pattern.Activation, len(group))
	for i, t := range group {
		list[i] = *t.activation
	}
	var outcomes []pattern.Outcome
	scripts, err := h.interpreter()
	if err == nil {
		outcomes, err = scripts.Activate(ctx, b, list)
	}
	if err == nil && len(outcomes) != len(list) {
		err = errors.New("the interpreter gave another number of outcomes")
	}
	switch {
	case err == nil:
		for i, t := range group {
			t.outcome = &outcomes[i]
		}
	case ctx.Err() != nil:
	case len(group) > 1: // one of them may be why
		for i := range group {
			h.activateGroup(ctx, b, group[i:i+1])
		}
	default:
		h.runs.stats.failed(err)
		group[0].failure = err
	}
}

// storeTurns stores what a batch of activations did.
func (h *Hub) storeTurns(ctx context.Context, turns []*runTurn) error {
	for _, t := range turns {
		if t.job && (t.outcome == nil || t.outcome.Ending != pattern.EndSuspended) {
			// It may end an execution; see jobRunner.
			h.jobs.writing.Lock()
			defer h.jobs.writing.Unlock()
			break
		}
	}
	return h.step(ctx, "run.turn", h.inRuns(func(t *runTx) error {
		for _, turn := range turns {
			if err := t.turn(turn); err != nil {
				return err
			}
		}
		return nil
	}))
}

// turn moves one run by what was found of it.
func (t *runTx) turn(turn *runTurn) error {
	record, err := loadRun(t.Tx, turn.id)
	if isRunGone(err) {
		return nil
	}
	if err != nil || record.Revision != turn.revision {
		return err // it was moved, and the loop was told
	}
	record.completed(turn.older)
	r := t.loaded(turn.id, record, true)
	s, now := &r.State, turn.now
	w := &runWorld{t: t, r: r}
	switch {
	case turn.gone != nil:
		if err := s.Kill(w, turn.gone.Message, now); err != nil {
			return err
		}
		s.Fail(turn.gone)
		return t.store(r)
	case r.Stop != nil:
		stop := r.Stop
		r.Stop = nil
		if err := r.stop(w, stop.Why, stop.Undo, now); err != nil {
			return err
		}
		return t.store(r)
	case r.overdue(t.hub, now):
		if err := r.timeOut(w, now); err != nil {
			return err
		}
		return t.store(r)
	}
	if s.State == pattern.Queued {
		ok, err := t.acquire(r)
		if err != nil {
			return err
		}
		if !ok {
			return t.store(r)
		}
		s.State = pattern.Ready
	}
	if due := r.stepDue(t.hub); !due.IsZero() && !now.Before(due) {
		if _, err := s.Expire(w, now); err != nil {
			return err
		}
	}
	switch {
	case s.State != pattern.Ready:
	case turn.failure != nil:
		r.failed(turn.failure, now)
	case turn.outcome != nil:
		if err := t.take(r, turn, w); err != nil {
			return err
		}
	}
	return t.store(r)
}

// stop asks a run to end; one that was asked before may be asked for its undo now.
func (r *runInTx) stop(w pattern.World, why string, undo bool, now time.Time) error {
	s := &r.State
	if s.Cancel != nil && s.Entry != pattern.EntryUndo && !s.State.Final() {
		s.Undo = s.Undo || undo
		return nil
	}
	return s.Stop(w, why, undo, now)
}

// take puts what an activation did into its run.
func (t *runTx) take(r *runInTx, turn *runTurn, w *runWorld) error {
	r.Failures, r.Retry = 0, time.Time{}
	steps := len(r.State.Steps)
	if err := r.State.Take(turn.outcome, w, turn.grants, turn.now); err != nil {
		return err
	}
	o, name, version, id, n := turn.outcome, r.Pattern, r.Version, r.id, len(r.State.Steps)-steps
	t.OnCommit(func(uint64) { t.hub.runs.stats.activated(name, version, id, o, n) })
	return nil
}

// failed takes note that a run could not be activated: it is tried again, some
// times.
func (r *runInTx) failed(err error, now time.Time) {
	if r.Failures++; r.Failures >= runFailuresMost {
		r.State.Fail(faultf(pattern.FaultUnavailable, "the program could not be run, %d times in a row: %v", r.Failures, err))
		return
	}
	r.Retry = now.Add(min(runRestMost, time.Second<<(r.Failures-1)))
}

// timeOut asks a run to end whose time is up, and ends it when it was asked
// before.
func (r *runInTx) timeOut(w pattern.World, now time.Time) error {
	s := &r.State
	undo := s.Entry == pattern.EntryUndo
	why := "the run has taken longer than " + r.timeout().String()
	if undo {
		why = "the undo has taken longer than " + r.timeout().String()
	}
	fault := faultf(pattern.FaultTimeout, "%s", why)
	if undo || r.Late {
		if err := s.Kill(w, why, now); err != nil {
			return err
		}
		s.Fail(fault)
		return nil
	}
	r.Late, r.Deadline = true, now.Add(runGrace)
	if s.Cancel != nil { // it was to end before
		return nil
	}
	if err := s.Stop(w, why, false, now); err != nil {
		return err
	}
	if s.Cancel != nil {
		s.Cancel.Code = pattern.FaultTimeout // also where it waits: they are one
	}
	if s.State == pattern.Canceled {
		s.Fail(fault)
	}
	return nil
}

// withConnected adds to a twin's document what predicates know as connected, which
// programs ask for by that name, too.
func withConnected(doc query.Value) query.Value {
	members := slices.Clone(doc.Members())
	there := slices.ContainsFunc(members, func(m query.Member) bool {
		return m.Key == "connectionState" && m.Value.Text() == stateConnected
	})
	return query.ObjectValue(append(members, query.Member{Key: "connected", Value: query.BoolValue(there)}))
}
