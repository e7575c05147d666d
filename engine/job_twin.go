package engine

import (
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/engine/twin"
)

// jobUpdate is a job's change of twins.
func (w *jobWork) update() TwinUpdate {
	p := w.spec.Spec.Action.Twin
	return TwinUpdate{Tags: p.Tags, Desired: p.Desired}
}

// errTwinRefused says that a change of a twin was refused, perhaps after a part
// of it was made: the transaction is begun again, carefully.
var errTwinRefused = errors.New("a change of a twin was refused")

// beginTwin changes a target's twin as its execution's attempt: with what the
// execution becomes, it is one transaction. Many targets share one, which is
// what lets a job be nearly as fast as updates one by one. What is wrong with
// one twin, such as a patch that makes it too large, fails its execution only.
func (t *jobTx) beginTwin(j *jobInTx, id TwinID, e *executionRecord, r *twinRecord) error {
	h, u := t.hub, j.work.update()
	if t.careful {
		if err := h.tryTwinUpdate(id, r, u, t.Now()); err != nil {
			refused, ok := errors.AsType[*Error](err)
			if !ok {
				return err
			}
			t.attempt(e, "")
			return t.endAttempt(j, id, e, rollout.AttemptFailed, refused.Code.String(), clip(refused.Message), 0)
		}
	}
	if _, err := h.applyTwinUpdateTx(t.Tx, j.caller, id, r, u, true); err != nil {
		if _, ok := errors.AsType[*Error](err); ok && !t.careful {
			return errTwinRefused
		}
		return err
	}
	r.Revision++
	r.Version++
	if err := twinTable.Put(t.Tx, id.key(), *r); err != nil {
		return err
	}
	t.attempt(e, "")
	if j.work.confirm != nil {
		return t.effect(j, id, e)
	}
	a := e.newest()
	a.Ended, a.Outcome = t.Now(), rollout.ExecutionSucceeded
	return t.move(j, id, e, rollout.ExecutionSucceeded, true)
}

// tryTwinUpdate says whether a change of a twin would be taken, without making
// it.
func (h *Hub) tryTwinUpdate(id TwinID, r *twinRecord, u TwinUpdate, now time.Time) error {
	for _, part := range []struct {
		kind twin.Kind
		body []byte
	}{{twin.Tags, u.Tags}, {twin.Desired, u.Desired}} {
		if part.body == nil {
			continue
		}
		limits := h.limits.twinLimits(part.kind)
		limits.Special = twin.DropSpecial
		p, err := twin.ParseSection(part.kind, part.body, 24*limits.MaxBytes+64*kib)
		if err != nil {
			return twinError(err)
		}
		before := *r.section(part.kind)
		next, _, err := before.Merge(p, now, limits)
		if err != nil {
			return twinError(err)
		}
		if _, err := h.checkDeclared(now, id, before, next); err != nil {
			return err
		}
	}
	return nil
}

// auditTargetsTx records what a step of a job changed: one entry of all of them,
// since history says of each twin which job changed it and when.
func (t *jobTx) auditTargetsTx(j *jobInTx, op operation, targets int) error {
	if targets == 0 {
		return nil
	}
	m := beginMembers(nil)
	m.text("job", j.id)
	m.number("run", int64(j.Run))
	m.number("targets", int64(targets))
	return t.hub.auditTx(t.Tx, j.caller, op, "job:"+j.id, m.end())
}
