package scenario

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
)

// start makes a run of a pattern that the test knows, after a look at its
// parameters.
func (h *hub) start(name, device string, params json.RawMessage) (*run, *pattern.Fault) {
	p := h.lab.programs[name]
	if p == nil {
		return nil, &pattern.Fault{Code: pattern.FaultGone, Message: fmt.Sprintf("the pattern %q is not there; a test brings it with t:pattern", name)}
	}
	r := &run{Pattern: name, Device: device, Params: params}
	if p.manifest != nil {
		var err error
		if r.Params, err = p.manifest.Complete(params); err != nil {
			return nil, &pattern.Fault{Code: pattern.FaultInvalid, Message: err.Error()}
		}
		r.Grants = slices.Clone(p.manifest.Needs)
	}
	if name == h.lab.main {
		r.Grants = h.lab.grants(r.Grants)
	}
	return r, nil
}

func (w *world) child(s *pattern.Step, a pattern.RunArgs) (pattern.Answer, error) {
	timeout, f := spanOf(s, "timeout", a.Timeout, pattern.MaxWait, pattern.MaxWait)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	r, f := w.start(a.Pattern, w.run.Device, a.Params)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	r.Parent, r.Ref = w.run.ID, w.memory.named("child-")
	w.begin(r)
	w.lab.effect("%s: run of %s %s", w.run.Device, a.Pattern, canonical(a.Params))
	return pattern.Answer{Open: true, Due: w.lab.now.Add(timeout), Ref: r.Ref}, nil
}

// pretend ends a run of a pattern for which a function of the test stands.
func (h *hub) pretend(r *run, p *loaded) error {
	result, f, err := p.stub(r.Device, r.Params)
	if err != nil {
		return err
	}
	r.State.Cost.Activations++
	r.State.State, r.State.Result = pattern.Succeeded, result
	if f != nil {
		r.State.Fail(f)
		if f.Code == pattern.FaultUncertain {
			r.State.State = pattern.Uncertain
		}
	}
	return h.stored(r, "the end of a run of "+r.Pattern)
}

// tellParent brings the end of a run to the one that waits for it.
func (h *hub) tellParent(r *run) {
	parent := h.memory.run(r.Parent)
	if parent == nil {
		return
	}
	if r.Job != "" {
		h.tellJob(parent, r)
		return
	}
	f := r.State.Fault
	if r.State.State != pattern.Succeeded && r.State.State != pattern.Skipped && f == nil {
		f = &pattern.Fault{Code: pattern.FaultLua, Message: "the run of " + r.Pattern + " ended as " + string(r.State.State)}
	}
	if r.State.State == pattern.Succeeded || r.State.State == pattern.Skipped {
		f = nil
	}
	parent.State.Settle(r.Ref, r.State.Result, f, h.lab.now)
}

// tellJob ends the step that waits for a job when its last run has ended.
func (h *hub) tellJob(parent, r *run) {
	total, succeeded, failed := 0, 0, 0
	for _, o := range h.memory.Runs {
		if o.Job != r.Job {
			continue
		}
		total++
		switch {
		case !o.State.State.Final():
			return
		case o.State.State == pattern.Succeeded || o.State.State == pattern.Skipped:
			succeeded++
		default:
			failed++
		}
	}
	answer := result(map[string]any{"job": r.Job, "succeeded": succeeded, "failed": failed, "total": total})
	parent.State.Settle(r.Ref, answer.Result, nil, h.lab.now)
}

// selected returns the devices that a predicate selects, in order of their ids;
// the empty one and "*" select all.
func (w *world) selected(where string) ([]*identity, error) {
	var p *query.Predicate
	if where != "" && where != "*" {
		var err error
		if p, err = query.ParsePredicate(where); err != nil {
			return nil, err
		}
	}
	var list []*identity
	for _, id := range sortedKeys(w.memory.Twins) {
		i := w.memory.Twins[id]
		if p == nil || p.Match(i.value(), w.lab.now) {
			list = append(list, i)
		}
	}
	return list, nil
}

func (w *world) query(_ *pattern.Step, a pattern.FleetArgs) (pattern.Answer, error) {
	list, err := w.selected(a.Where)
	if err != nil {
		return invalid("%v", err), nil
	}
	limit := a.Limit
	if limit == 0 {
		limit = 100
	}
	if limit < 0 || limit > pattern.MaxRows {
		return invalid("limit is %d, at most %d rows are given", a.Limit, pattern.MaxRows), nil
	}
	paths := a.Select
	if len(paths) == 0 {
		paths = []string{"deviceId"}
	}
	rows := []map[string]json.RawMessage{}
	for _, i := range list[:min(limit, len(list))] {
		row := map[string]json.RawMessage{}
		for _, path := range paths {
			if v := at(i.value(), path); v.Kind() != query.Undefined {
				row[path] = v.AppendJSON(nil)
			}
		}
		rows = append(rows, row)
	}
	return result(rows), nil
}

func (w *world) count(s *pattern.Step, a pattern.FleetArgs) (pattern.Answer, error) {
	list, err := w.selected(a.Where)
	if err != nil {
		return invalid("%v", err), nil
	}
	if s.Op == "run.count" {
		list = w.ownOf(list)
	}
	return result(len(list)), nil
}

// ownOf leaves the devices on which the pattern has run; all, if it has on none
// yet.
func (w *world) ownOf(list []*identity) []*identity {
	own := map[string]bool{}
	for _, r := range w.memory.Runs {
		if r.Pattern == w.lab.main {
			own[r.Device] = true
		}
	}
	if len(own) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(i *identity) bool { return !own[i.ID] })
}

func (w *world) groupBy(_ *pattern.Step, a pattern.FleetArgs) (pattern.Answer, error) {
	list, err := w.selected(a.Where)
	if err != nil {
		return invalid("%v", err), nil
	}
	groups := map[string]int{}
	for _, i := range list {
		switch v := at(i.value(), a.Path); v.Kind() {
		case query.Undefined, query.Null, query.Object, query.Array:
		case query.String:
			groups[v.Text()]++
		default:
			groups[string(v.AppendJSON(nil))]++
		}
	}
	return result(map[string]any{"groups": groups, "total": len(list)}), nil
}

func (w *world) fleetRun(s *pattern.Step, a pattern.RunArgs) (pattern.Answer, error) {
	list, err := w.selected(a.Where)
	if err != nil {
		return invalid("%v", err), nil
	}
	timeout, f := spanOf(s, "timeout", a.Timeout, pattern.MaxWait, pattern.MaxWait)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	job, ref := w.memory.named("job-"), w.memory.named("child-")
	w.lab.effect("job of %s on %d devices", a.Pattern, len(list))
	for _, i := range list {
		r, f := w.start(a.Pattern, i.ID, a.Params)
		if f != nil {
			return pattern.Answer{Fault: f}, nil
		}
		r.Job = job
		if a.Wait {
			r.Parent, r.Ref = w.run.ID, ref
		}
		w.begin(r)
	}
	switch {
	case !a.Wait:
		return result(map[string]string{"job": job}), nil
	case len(list) == 0:
		return result(map[string]any{"job": job, "succeeded": 0, "failed": 0, "total": 0}), nil
	}
	return pattern.Answer{Open: true, Due: w.lab.now.Add(timeout), Ref: ref}, nil
}
