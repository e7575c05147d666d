package engine

import (
	"context"
	"errors"

	"github.com/muster-hub/muster/engine/pattern"
)

// DecideRun answers what a run asks. CodeRunState when it asks nothing,
// CodeForbidden when somebody else is to decide. It needs ServiceConnect.
func (h *Hub) DecideRun(ctx context.Context, c Caller, id string, approve bool, reason string) (Run, error) {
	if err := h.authorize(ctx, c, opRunApprove, id); err != nil {
		return Run{}, err
	}
	var run Run
	err := h.step(ctx, "run.decide", h.inRuns(func(t *runTx) (err error) {
		if err := t.decide(c, id, approve, reason); err != nil {
			return err
		}
		run, err = h.showRun(t.Tx, id)
		return err
	}))
	return run, h.auditForbidden(c, opRunApprove, id, err)
}

// DecideRuns is DecideRun for all that a filter selects and that ask something
// which the caller may decide; it returns how many there were. An error may come
// after some were decided.
func (h *Hub) DecideRuns(ctx context.Context, c Caller, f RunFilter, approve bool, reason string) (int, error) {
	if err := h.authorize(ctx, c, opRunApprove, "*"); err != nil {
		return 0, err
	}
	f.Asks = true
	return h.eachSelected(ctx, f, func(ids []string) (n int, err error) {
		err = h.step(ctx, "run.decideAll", h.inRuns(func(t *runTx) error {
			n = 0
			for _, id := range ids {
				err := t.decide(c, id, approve, reason)
				if e, ok := errors.AsType[*Error](err); ok && (e.Code == CodeRunState || e.Code == CodeRunNotFound || e.Code == CodeForbidden) {
					continue
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

func (t *runTx) decide(c Caller, id string, approve bool, reason string) error {
	r, err := t.load(id)
	if err != nil {
		return err
	}
	s := r.State.Open()
	if s == nil || s.Op != opApprove {
		return errf(CodeRunState, "the run %s is %s and asks nothing", id, r.State.State)
	}
	args, fault := readArgs[pattern.ApproveArgs](s)
	if fault != nil {
		return errf(CodeInternal, "the run %s asks what can't be read: %s", id, fault.Message)
	}
	who := c.Principal.String()
	if args.By != "" && args.By != c.Principal.Name && args.By != who {
		return errf(CodeForbidden, "%s is to decide for the run %s, not %s", clip(args.By), id, who)
	}
	reason = clip(reason)
	answer, err := marshal(who)
	if err != nil {
		return err
	}
	if !approve {
		answer = nil
		if fault = faultf(pattern.FaultRejected, "%s declined", who); reason != "" {
			fault.Message += ": " + reason
		}
	}
	r.State.Settle(s.Ref, answer, fault, t.Now())
	details, err := marshal(map[string]any{"run": id, "question": clip(args.Question), "approved": approve, "reason": reason})
	return errors.Join(err, t.store(r), t.hub.auditTx(t.Tx, c, opRunApprove, id, details))
}
