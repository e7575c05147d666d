package engine

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

const (
	// previewChecks is how many twins a pattern's check looks at together.
	previewChecks = 100
	// previewRunsSeen is how many runs of a device are looked at, the newest first.
	previewRunsSeen = 20
)

// previewRuns says what runs of a job's pattern would meet on some twins: whether
// another run is in their way, and what the pattern's own check says. Those that are
// gone have no effect.
func (h *Hub) previewRuns(ctx context.Context, checked *checkedJob, twins []Twin) ([]JobEffect, error) {
	list := make([]JobEffect, len(twins))
	manifest := &checked.pattern.Manifest
	documents := make([]json.RawMessage, len(twins))
	reads := checked.pattern.Granted.Allows("twin:read")
	err := h.view(ctx, "look at runs", func(r storage.Reader) error {
		for i := range twins {
			if twins[i].Tags == nil {
				continue
			}
			id := twins[i].Identity.ID()
			list[i] = checked.action.preview(h, &twins[i])
			behind, err := runUnderWay(r, id)
			if err != nil {
				return err
			}
			if behind != "" && manifest.Conflicts != pattern.ConflictShare {
				list[i].Behind, list[i].Conflict = behind, conflictText(manifest.Conflicts, behind)
			}
			if !manifest.HasCheck || !reads {
				continue
			}
			doc, _, err := hubDocuments{hub: h}.document(r, id)
			if isGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			documents[i] = doc.AppendJSON(nil)
		}
		return nil
	})
	if err != nil || !manifest.HasCheck {
		return list, err
	}
	return list, h.checkTwins(ctx, checked, twins, documents, list)
}

// runUnderWay returns the newest run on a device that has not ended and that
// another one would meet; empty: there is none.
func runUnderWay(r storage.Reader, id TwinID) (string, error) {
	seen := 0
	for item, err := range runTable.Lookup(r, "device", storage.Range{Prefix: storage.Tuple(id.DeviceID, id.ModuleID), Reverse: true}) {
		if err != nil {
			return "", err
		}
		if seen++; seen > previewRunsSeen {
			break
		}
		if !item.Value.State.State.Final() && item.Value.Conflicts != pattern.ConflictShare {
			return firstPart(item.Key)
		}
	}
	return "", nil
}

// conflictText says what becomes of a run that meets another one.
func conflictText(c pattern.Conflict, behind string) string {
	switch c {
	case pattern.ConflictSkip:
		return "would be skipped: run " + behind + " is under way"
	case pattern.ConflictReject:
		return "would fail: run " + behind + " is under way"
	case pattern.ConflictReplace:
		return "would cancel run " + behind + " and wait for its end"
	default:
		return "would wait behind run " + behind
	}
}

// checkTwins asks the pattern's check about twins, in runs that are never stored.
func (h *Hub) checkTwins(ctx context.Context, checked *checkedJob, twins []Twin, documents []json.RawMessage, list []JobEffect) error {
	scripts, err := h.interpreter()
	if err != nil {
		return err
	}
	bundle, err := h.program(ctx, checked.pattern.Hash)
	if err != nil {
		return err
	}
	params := checked.spec.Action.Run.Params
	var at []int
	var activations []pattern.Activation
	flush := func() error {
		outcomes, err := scripts.Activate(ctx, bundle, activations)
		if err != nil || len(outcomes) != len(activations) {
			return wrapf(CodeUnavailable, err, "the pattern's check could not be run: %v", err)
		}
		for k := range outcomes {
			if why := leftOut(&outcomes[k]); why != "" && list[at[k]].Fault == "" {
				list[at[k]].Fault = why
			}
		}
		at, activations = at[:0], activations[:0]
		return nil
	}
	now := time.Now().UTC()
	for i := range twins {
		if twins[i].Tags == nil {
			continue
		}
		id := twins[i].Identity.ID()
		at = append(at, i)
		activations = append(activations, pattern.Activation{
			Run: "preview", Attempt: 1, Entry: pattern.EntryCheck, Device: id.DeviceID, Module: id.ModuleID, Params: params,
			Twin: documents[i], Now: now, Seed: rand.Uint64(),
		})
		if len(activations) == previewChecks {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(activations) == 0 {
		return nil
	}
	return flush()
}

// leftOut is why a check leaves its device out; empty: it does not.
func leftOut(o *pattern.Outcome) string {
	switch o.Ending {
	case pattern.EndReturned:
		var why *string
		if len(o.Result) > 0 && json.Unmarshal(o.Result, &why) != nil {
			return "its check gives neither nil nor a text"
		}
		if why != nil {
			return strings.TrimSpace("its check leaves it out: " + clip(*why))
		}
		return ""
	case pattern.EndSkipped:
		return "its check skips it"
	case pattern.EndSuspended:
		return "its check takes a step that is more than a look"
	}
	if o.Fault != nil {
		return "its check fails: " + clip(o.Fault.Error())
	}
	return "its check fails"
}
