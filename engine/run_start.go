package engine

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// runStart is a run that is to begin.
type runStart struct {
	Pattern patternRecord
	Device  TwinID          // zero: of scope fleet
	Params  json.RawMessage // checked, with defaults
	Job     *queuedJob      // whose execution it is; nil: none
	Parent  string          // the run that starts it; empty: none
	Of      string          // the run of which it is a retry; empty: none
	Trigger string
	Attempt int // 0: the first

	depth int          // how many runs stand above it
	state *pattern.Run // where it goes on; nil: from the start
}

// runDepthMost is how many runs may stand above one: runs that start runs.
const runDepthMost = 8

// StartRun starts a run of a pattern without a job and returns it, durable and
// about to begin. It needs ServiceConnect. Errors: CodePatternNotFound,
// CodePatternState when the pattern is disabled, CodeArgumentInvalid,
// CodeDeviceNotFound, CodeTooManyRuns.
func (h *Hub) StartRun(ctx context.Context, c Caller, s RunSpec) (Run, error) {
	if err := h.authorize(ctx, c, opRunStart, s.Device.String()); err != nil {
		return Run{}, err
	}
	var made Run
	err := h.step(ctx, "run.start", func(tx *storage.Tx) error {
		p, err := h.pattern(tx, s.Pattern, s.Version)
		if err != nil {
			return err
		}
		if !p.Enabled {
			return errf(CodePatternState, "the pattern %s %s is disabled", p.Manifest.Name, p.Manifest.Version)
		}
		params, err := checkRunParams(&p, s.Params)
		if err != nil {
			return err
		}
		id, err := h.startRunTx(tx, c, runStart{Pattern: p, Device: s.Device, Params: params})
		if err != nil {
			return err
		}
		details, err := marshal(map[string]string{"run": id, "pattern": p.Manifest.Name, "version": p.Manifest.Version})
		if err != nil {
			return err
		}
		if err := h.auditTx(tx, c, opRunStart, s.Device.String(), details); err != nil {
			return err
		}
		made, err = h.showRun(tx, id)
		return err
	})
	return made, err
}

// checkRunParams checks the parameters of a run and fills in defaults.
func checkRunParams(p *patternRecord, params json.RawMessage) (json.RawMessage, error) {
	if len(params) > pattern.MaxValue {
		return nil, errf(CodeArgumentInvalid, "the parameters have %d bytes, at most %d are allowed", len(params), pattern.MaxValue)
	}
	full, err := p.Manifest.Complete(params)
	if err != nil {
		return nil, wrapf(CodeArgumentInvalid, err, "params: %v", err)
	}
	return full, nil
}

// startRunTx makes a run, which the loop begins once that is durable; whether its
// device is free is found then, too. CodeTooManyRuns, CodeDeviceNotFound.
func (h *Hub) startRunTx(tx *storage.Tx, c Caller, s runStart) (id string, err error) {
	t := &runTx{Tx: tx, hub: h}
	return t.start(c, s)
}

func (t *runTx) start(c Caller, s runStart) (id string, err error) {
	h := t.hub
	m := &s.Pattern.Manifest
	if n := h.runs.active.Load(); n >= int64(h.limits.RunsActive) {
		return "", errf(CodeTooManyRuns, "%d runs are under way, as many as may be", n)
	}
	generation := ""
	switch fleet := m.Scope == pattern.ScopeFleet; {
	case fleet && s.Device != (TwinID{}):
		return "", errf(CodeArgumentInvalid, "the pattern %s is of the whole fleet and takes no device", m.Name)
	case !fleet && s.Device == (TwinID{}):
		return "", errf(CodeArgumentNull, "the pattern %s is of a device, and none is named", m.Name)
	case !fleet:
		identity, err := loadIdentity(t.Tx, s.Device)
		if err != nil {
			return "", err
		}
		generation = identity.GenerationID
	}
	hash, err := hashBytes(s.Pattern.Hash)
	if err != nil {
		return "", err
	}
	id = t.hub.runs.ids.next(t.Now())
	r := &runInTx{id: id, whole: true, runRecord: runRecord{
		Pattern: m.Name, Version: m.Version, Hash: hash, Device: s.Device.DeviceID, Module: s.Device.ModuleID, Generation: generation,
		Params: s.Params, Attempt: max(1, s.Attempt), Job: s.Job, Parent: s.Parent, Depth: s.depth, Of: s.Of, Trigger: s.Trigger,
		Owner: jobOwner{c.Kind, c.Name}, Conflicts: m.Conflicts, Timeout: time.Duration(m.Timeout), Created: t.Now(),
	}}
	if s.state != nil {
		r.State = *s.state
	}
	r.State.State = pattern.Queued
	return id, t.store(r)
}

// startChild starts a run on behalf of another one, on the same device.
func (t *runTx) startChild(c Caller, r *runInTx, name string, params json.RawMessage) (id string, err error) {
	if r.Depth >= runDepthMost {
		return "", errf(CodeArgumentInvalid, "%d runs stand above this one already, as many as may: does the pattern start itself?", r.Depth)
	}
	p, err := t.hub.pattern(t.Tx, name, "")
	if err != nil {
		return "", err
	}
	if !p.Enabled {
		return "", errf(CodePatternState, "the pattern %s %s is disabled", p.Manifest.Name, p.Manifest.Version)
	}
	full, err := checkRunParams(&p, params)
	if err != nil {
		return "", err
	}
	return t.start(c, runStart{Pattern: p, Device: r.device(), Params: full, Parent: r.id, depth: r.Depth + 1})
}

// hashBytes and hashText are between the two forms of a bundle's hash.
func hashBytes(text string) ([]byte, error) { return hex.DecodeString(text) }

func hashText(hash []byte) string { return hex.EncodeToString(hash) }
