package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

const (
	// gateTime is how long a pattern's gate may take, all its counts included.
	gateTime = time.Minute
	// gateActivations is how often a gate is activated: each count is one more.
	gateActivations = 50
)

// askGate asks the pattern of a job whether its next wave may begin.
func (l *jobLoop) askGate(ctx context.Context, a *activeJob, wave int) {
	id, run := a.id, a.run
	findOut(ctx, l, a, &a.gate, func(ctx context.Context) (rollout.GateResult, error) {
		return l.hub.runGate(ctx, id, run, wave)
	})
}

// gateRun is what a gate is asked with.
type gateRun struct {
	hub     *Hub
	job     string
	run     uint64
	wave    int
	pattern patternRecord
	params  json.RawMessage
	told    json.RawMessage // of the wave
	ctx     context.Context // of the one call of runGate
}

// runGate runs a pattern's gate behind a wave, in a run that is never stored. The
// error is for what has nothing to do with the program; what the program does wrong
// is a result without a verdict.
func (h *Hub) runGate(ctx context.Context, job string, run uint64, wave int) (rollout.GateResult, error) {
	result := rollout.GateResult{Wave: wave}
	g := &gateRun{hub: h, job: job, run: run, wave: wave}
	err := h.view(ctx, "read a job", g.load)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodePatternNotFound {
		result.Reason, result.At = e.Message, time.Now().UTC()
		return result, nil
	}
	if err != nil {
		return result, err
	}
	scripts, err := h.interpreter()
	if err != nil {
		return result, err
	}
	bundle, err := h.program(ctx, g.pattern.Hash)
	if err != nil {
		return result, err
	}
	bounded, cancel := context.WithTimeout(ctx, gateTime)
	defer cancel()
	g.ctx = bounded
	state := pattern.Run{State: pattern.Ready, Entry: pattern.EntryGate}
	seed := rand.Uint64()
	for range gateActivations {
		now := time.Now().UTC()
		a := pattern.Activation{Run: job, Attempt: 1, Params: g.params, Now: now, Seed: seed, Wave: g.told}
		state.Fill(&a)
		outcomes, err := scripts.Activate(bounded, bundle, []pattern.Activation{a})
		if err == nil && len(outcomes) == 1 {
			err = state.Take(&outcomes[0], g, g.pattern.Granted, now)
		}
		switch {
		case ctx.Err() != nil:
			return result, ctx.Err()
		case bounded.Err() != nil:
			result.Reason, result.At = fmt.Sprintf("the gate was not done within %s", gateTime), now
			return result, nil
		case err != nil:
			return result, err
		case state.State.Final():
			result.At = now
			result.Verdict, result.Reason = verdict(&state)
			return result, nil
		}
	}
	result.Reason, result.At = fmt.Sprintf("the gate counts more than %d times", gateActivations), time.Now().UTC()
	return result, nil
}

func (g *gateRun) load(r storage.Reader) error {
	record, err := loadJob(r, g.job)
	if err != nil {
		return err
	}
	spec, err := loadJobSpec(r, g.job)
	if err != nil {
		return err
	}
	a := spec.Spec.Action.Run
	if a == nil || record.Run != g.run || g.wave >= len(record.State.Waves) {
		return errf(CodeJobState, "the job %q has no such wave any more", g.job)
	}
	g.params = a.Params
	if g.pattern, err = g.hub.pattern(r, a.Pattern, a.Version); err != nil {
		return err
	}
	t, total := &record.State.Waves[g.wave], record.State.Total()
	g.told, err = json.Marshal(map[string]int{
		"number": g.wave + 1, "size": t.Size, "succeeded": t.Succeeded, "failed": t.Failed + t.TimedOut + t.Rejected, "uncertain": t.Uncertain, "total": total.Size,
	})
	return err
}

// Begin implements pattern.World: a gate may count among the targets of its job
// that were reached so far, and nothing else.
func (g *gateRun) Begin(_ *pattern.Run, s *pattern.Step) (pattern.Answer, error) {
	refuse := func(code pattern.FaultCode, format string, args ...any) (pattern.Answer, error) {
		return pattern.Answer{Fault: &pattern.Fault{Code: code, Message: fmt.Sprintf(format, args...)}}, nil
	}
	if s.Op != "run.count" {
		return refuse(pattern.FaultDenied, "%s: a gate may count devices and nothing else", s.Op)
	}
	var args pattern.FleetArgs
	if err := json.Unmarshal(s.Args, &args); err != nil || args.Where == "" {
		return refuse(pattern.FaultInvalid, "run.count takes a condition on devices")
	}
	result, err := g.hub.checkHealth(g.ctx, g.job, g.run, rollout.HealthCheck{Wave: g.wave, Where: args.Where})
	if err != nil {
		return pattern.Answer{}, err
	}
	if result.Fault != "" {
		return refuse(pattern.FaultInvalid, "run.count: %s", result.Fault)
	}
	return pattern.Answer{Result: json.RawMessage(fmt.Sprint(result.Bad))}, nil
}

// Withdraw implements pattern.World. Nothing of a gate is ever open.
func (g *gateRun) Withdraw(*pattern.Run, *pattern.Step) error { return nil }

// gateReason bounds what a gate gives as its reason, in bytes.
const gateReason = reasonBytes

// verdict reads what a gate gave.
func verdict(r *pattern.Run) (rollout.GateVerdict, string) {
	if r.State != pattern.Succeeded {
		if r.Fault != nil {
			return "", clip(r.Fault.Error())
		}
		return "", "it ended as " + string(r.State)
	}
	var given struct {
		Decision rollout.GateVerdict `json:"decision"`
		Reason   string              `json:"reason"`
	}
	if err := json.Unmarshal(r.Result, &given); err != nil {
		return "", "it gave no decision"
	}
	if len(given.Reason) > gateReason {
		given.Reason = clip(given.Reason)
	}
	switch given.Decision {
	case rollout.GateGo, rollout.GatePause, rollout.GateAbort, rollout.GateUndo:
		return given.Decision, given.Reason
	}
	return "", fmt.Sprintf("it gave the decision %q; expected go, pause, abort or undo", clip(string(given.Decision)))
}
