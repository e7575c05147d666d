package engine

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// DeviceExplanation says why a twin has the desired properties that it has.
type DeviceExplanation struct {
	ID             TwinID
	Configurations []ExplainedConfiguration // all whose condition holds, or that it has; the strongest first
	Paths          []ExplainedPath          // by path
	Error          string                   // of the strongest one that the twin does not take: why; empty: it takes all
}

// ExplainedConfiguration is a configuration of a twin.
type ExplainedConfiguration struct {
	ID       string
	Priority int
	Created  time.Time
	Revision uint64 // that the twin has; 0: none yet
	Matches  bool   // its condition holds now
	Status   string // Targeted or Applied, as the twin shows it; empty: not yet
	Reason   string // why it sets nothing although it matches; empty otherwise
}

// ExplainedPath is one desired property: a value that is no object, or an empty
// object, or one of which a configuration wants that it is an object.
type ExplainedPath struct {
	Path          string          // dotted, below desired
	Value         json.RawMessage // nil: it is not there, and a configuration keeps it away
	Configuration string          // that sets it; empty: none does
	Principal     string          // who wrote the value; empty: longer ago than history is kept
	Cause         string          // on whose behalf: "job:ID", "configuration:ID", ...; empty: the principal itself
	Time          time.Time       // when; zero: longer ago than history is kept
	History       string          // id of the history entry
	Lost          []LostSetting   // of other configurations that would set it, the strongest first
}

// LostSetting is what a configuration would set, if it were not for another one.
type LostSetting struct {
	Configuration string
	Path          string          // that it would set: this one, or one above or below it
	Value         json.RawMessage // null: it would remove it
	Winner        string          // the configuration that it lost to
	Reason        string          // one sentence
}

// What an explanation reads of a twin's history, at most.
const explainedBytes = 16 << 20

// ExplainDevice says, for each desired property of a device or module, which
// configuration, job, run or person set it and when, and which configurations
// lost and why. It needs ServiceConnect.
func (h *Hub) ExplainDevice(ctx context.Context, c Caller, id TwinID) (DeviceExplanation, error) {
	if err := h.authorize(ctx, c, opExplain, id.String()); err != nil {
		return DeviceExplanation{}, err
	}
	var out DeviceExplanation
	err := h.view(ctx, "explain a twin", func(r storage.Reader) error {
		set, err := h.configurationSetAt(r)
		if err != nil {
			return err
		}
		e, err := h.evaluate(r, set, id, time.Now())
		if err != nil {
			return err
		}
		out = DeviceExplanation{ID: id, Configurations: e.explainConfigurations(set), Paths: e.explainPaths()}
		for _, g := range out.Configurations {
			if fault := e.faults[g.ID]; fault != "" {
				out.Error = g.ID + ": " + fault
				break
			}
		}
		return h.explainHistory(r, e, out.Paths)
	})
	return out, err
}

// explainConfigurations lists those that select the twin, and those that it has.
func (e *evaluation) explainConfigurations(set *configurationSet) []ExplainedConfiguration {
	list := []ExplainedConfiguration{}
	known := map[string]bool{}
	for i := range e.resolved.Candidates {
		g := &e.resolved.Candidates[i]
		known[g.ID] = true
		x := ExplainedConfiguration{ID: g.ID, Priority: g.Priority, Created: g.Created.UTC(), Matches: true, Reason: g.Refused}
		if x.Reason == "" && !e.resolved.Applied(i) {
			x.Reason = "all that it would set is set by stronger ones"
		}
		if len(g.Settings) == 0 {
			x.Reason = "there is nothing in it for this twin"
		}
		if b := e.before.find(g.ID); b != nil && b.Created == g.Created.UnixNano() {
			x.Revision, x.Status = b.Effect, string(b.status())
		}
		list = append(list, x)
	}
	for i := range e.before.Has {
		b := &e.before.Has[i]
		if known[b.ID] {
			continue
		}
		x := ExplainedConfiguration{ID: b.ID, Created: time.Unix(0, b.Created).UTC(), Revision: b.Effect, Status: string(b.status())}
		if m := set.member(b.ID); m != nil && set.has(b.ID, time.Unix(0, b.Created)) {
			x.Priority = m.record.Priority
		}
		list = append(list, x)
	}
	return list
}

// explainPaths lists what the twin has, and what configurations keep away.
func (e *evaluation) explainPaths() []ExplainedPath {
	list := []ExplainedPath{}
	at := map[string]int{}
	add := func(path string, value []byte) {
		at[path] = len(list)
		list = append(list, ExplainedPath{Path: path, Value: value})
	}
	for _, leaf := range configuration.Leaves(e.twin.Desired) {
		add(leaf.Path, []byte(leaf.Value))
	}
	for _, p := range e.before.Owned {
		if _, ok := at[p.Path]; !ok {
			value, _ := e.twin.Desired.Get(p.Path) // an object that is not empty, or nothing
			add(p.Path, value)
		}
		by := e.before.Of[p.By]
		list[at[p.Path]].Configuration = by.ID
	}
	for _, l := range e.resolved.Lost {
		w := e.resolved.Won[l.Winner]
		i, ok := at[w.Path]
		if !ok {
			continue // it is not there yet
		}
		list[i].Lost = append(list[i].Lost, LostSetting{
			Configuration: e.resolved.Candidates[l.Of].ID, Path: l.Path, Value: json.RawMessage(l.Value),
			Winner: e.resolved.Candidates[w.By].ID, Reason: e.resolved.Reason(l),
		})
	}
	slices.SortStableFunc(list, func(a, b ExplainedPath) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// explainHistory finds out who wrote each value.
func (h *Hub) explainHistory(r storage.Reader, e *evaluation, paths []ExplainedPath) error {
	open := make([]int, len(paths))
	for i := range open {
		open[i] = i
	}
	read := 0
	for entry, err := range scanHistory(r, e.id, e.identity.GenerationID, HistoryDesired, math.MaxUint64) {
		if err != nil {
			return err
		}
		if read += len(entry.Patch); len(open) == 0 || read > explainedBytes {
			break
		}
		patch, err := twin.ParsePatch(entry.Patch, len(entry.Patch))
		if err != nil {
			return err
		}
		left := open[:0]
		for _, i := range open {
			p := &paths[i]
			if patch.IsNull() || configuration.Touches(patch.View(), p.Path) {
				p.Principal, p.Cause, p.Time, p.History = entry.Principal, entry.Cause, entry.Time, entry.ID
				continue
			}
			left = append(left, i)
		}
		open = left
	}
	return nil
}

// WhatIfResult says what a change of tags would do to a twin.
type WhatIfResult struct {
	Gained []string // configurations whose condition would begin to hold
	Lost   []string // whose condition would no longer hold
	Paths  []WhatIfPath
}

// WhatIfPath is a desired property that would change.
type WhatIfPath struct {
	Path          string
	Before, After json.RawMessage // nil: not there
	Configuration string          // that would set it, or remove it; empty: nobody sets it any more
}

// WhatIf says which configurations a device or module would have, and which of
// its desired properties would change, if tags were merged into its own. Nothing
// is changed. tags is a JSON object, null removes. It needs ServiceConnect.
func (h *Hub) WhatIf(ctx context.Context, c Caller, id TwinID, tags []byte) (WhatIfResult, error) {
	if err := h.authorize(ctx, c, opExplain, id.String()); err != nil {
		return WhatIfResult{}, err
	}
	limits := h.limits.twinLimits(twin.Tags)
	patch, err := twin.ParseSection(twin.Tags, tags, 24*limits.MaxBytes+64*kib)
	if err != nil {
		return WhatIfResult{}, twinError(err)
	}
	var out WhatIfResult
	err = h.view(ctx, "try tags", func(r storage.Reader) error {
		set, err := h.configurationSetAt(r)
		if err != nil {
			return err
		}
		now := time.Now()
		e, err := h.evaluate(r, set, id, now)
		if err != nil {
			return err
		}
		if err := h.finish(e, now); err != nil {
			return err
		}
		then := &evaluation{id: id, identity: e.identity, twin: e.twin, before: e.after}
		if then.twin.Tags, _, err = e.twin.Tags.Merge(patch, now, limits); err != nil {
			return twinError(err)
		}
		plain, layered, err := h.selecting(r, set, then, now)
		if err != nil {
			return err
		}
		h.resolveTwin(set, then, plain, layered, now)
		if err := h.finish(then, now); err != nil {
			return err
		}
		out = compareEvaluations(e, then)
		return nil
	})
	return out, err
}

// finish takes the steps of an evaluation, in memory.
func (h *Hub) finish(e *evaluation, now time.Time) error {
	for _, s := range e.steps {
		patch, err := twin.ParsePatch(s.Patch, 0)
		if err != nil {
			return twinError(err)
		}
		if e.twin.Desired, _, err = e.twin.Desired.Merge(patch, now, h.limits.twinLimits(twin.Desired)); err != nil {
			return twinError(err)
		}
	}
	return nil
}

func compareEvaluations(now, then *evaluation) WhatIfResult {
	out := WhatIfResult{Gained: []string{}, Lost: []string{}, Paths: []WhatIfPath{}}
	for i := range then.after.Has {
		if now.after.find(then.after.Has[i].ID) == nil {
			out.Gained = append(out.Gained, then.after.Has[i].ID)
		}
	}
	for i := range now.after.Has {
		if then.after.find(now.after.Has[i].ID) == nil {
			out.Lost = append(out.Lost, now.after.Has[i].ID)
		}
	}
	before := map[string]string{}
	for _, leaf := range configuration.Leaves(now.twin.Desired) {
		before[leaf.Path] = leaf.Value
	}
	for _, leaf := range configuration.Leaves(then.twin.Desired) {
		value, had := before[leaf.Path]
		delete(before, leaf.Path)
		if had && value == leaf.Value {
			continue
		}
		p := WhatIfPath{Path: leaf.Path, After: json.RawMessage(leaf.Value)}
		if had {
			p.Before = json.RawMessage(value)
		}
		if w, ok := then.resolved.Winner(leaf.Path); ok {
			p.Configuration = then.resolved.Candidates[w.By].ID
		}
		out.Paths = append(out.Paths, p)
	}
	for path, value := range before {
		p := WhatIfPath{Path: path, Before: json.RawMessage(value)}
		if w, ok := then.resolved.Winner(path); ok { // it keeps the path away
			p.Configuration = then.resolved.Candidates[w.By].ID
		}
		out.Paths = append(out.Paths, p)
	}
	slices.SortFunc(out.Paths, func(a, b WhatIfPath) int { return strings.Compare(a.Path, b.Path) })
	return out
}
