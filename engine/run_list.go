package engine

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// ReadRun returns a run. CodeRunNotFound. It needs ServiceConnect.
func (h *Hub) ReadRun(ctx context.Context, c Caller, id string) (Run, error) {
	if err := h.authorize(ctx, c, opRunRead, id); err != nil {
		return Run{}, err
	}
	var run Run
	err := h.view(ctx, "read a run", func(r storage.Reader) (err error) {
		run, err = h.showRun(r, id)
		return err
	})
	return run, err
}

// RunTrace returns a run with what it did. It needs ServiceConnect.
func (h *Hub) RunTrace(ctx context.Context, c Caller, id string) (RunTrace, error) {
	if err := h.authorize(ctx, c, opRunRead, id); err != nil {
		return RunTrace{}, err
	}
	var trace RunTrace
	err := h.view(ctx, "read a run", func(r storage.Reader) error {
		record, err := loadWholeRun(r, id)
		if err != nil {
			return err
		}
		trace = RunTrace{Run: h.shownRun(id, &record), Steps: record.State.Steps, Kept: record.State.Kept}
		open := record.State.Open()
		if err := errors.Join(h.followProgress(r, &trace.Run), h.followCall(r, &trace.Run, open), nameHolder(r, &record, &trace.Run)); err != nil {
			return err
		}
		if open != nil {
			trace.Steps[len(trace.Steps)-1].Due = trace.Due
		}
		for n := range record.Logs {
			lines, err := runLogsTable.Get(r, runChunkKey(id, record.LogFirst+n))
			if err != nil {
				return err
			}
			trace.Logs = append(trace.Logs, lines...)
		}
		trace.Logs = append(trace.Logs, record.State.Logs...)
		if n := len(trace.Logs) - pattern.MaxLogs; n > 0 {
			trace.Logs = trace.Logs[n:]
		}
		return nil
	})
	return trace, err
}

// What one page of runs holds and looks at, at most.
const (
	runsPage = 1000
	runsLook = 5000
)

// Runs lists runs, the newest first. A page may hold fewer than limit; next is
// empty at the end. It needs ServiceConnect.
func (h *Hub) Runs(ctx context.Context, c Caller, f RunFilter, limit int, cursor string) (list []Run, next string, err error) {
	if err := h.authorize(ctx, c, opRunRead, "*"); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > runsPage {
		limit = runsPage
	}
	list = []Run{}
	calls := map[int]pattern.Step{} // open ones, by place in the list
	next, err = h.eachRun(ctx, f, cursor, runsLook, func(id string, r *runRecord) bool {
		if s := r.State.Open(); s != nil && s.Op == opCall {
			calls[len(list)] = *s
		}
		list = append(list, h.shownRun(id, r))
		return len(list) < limit
	})
	if err != nil || len(calls) == 0 {
		return list, next, err
	}
	err = h.view(ctx, "read calls of runs", func(r storage.Reader) error {
		for i, s := range calls {
			if err := h.followCall(r, &list[i], &s); err != nil {
				return err
			}
		}
		return nil
	})
	return list, next, err
}

// check refuses a filter that can't select anything.
func (f *RunFilter) check() error {
	for _, s := range f.States {
		if !slices.Contains(pattern.States(), s) {
			return errf(CodeArgumentInvalid, "state %q is not known, expected %s", clip(string(s)), stateNames())
		}
	}
	return nil
}

func stateNames() string {
	var names []string
	for _, s := range pattern.States() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// wants reports whether the filter selects a run.
func (f *RunFilter) wants(r *runRecord) bool {
	switch s := r.State.State; {
	case f.Pattern != "" && f.Pattern != r.Pattern,
		f.Device != (TwinID{}) && f.Device != r.device(),
		f.Job != "" && (r.Job == nil || r.Job.Job != f.Job),
		len(f.States) > 0 && !slices.Contains(f.States, s),
		f.Active && s.Final(),
		f.Asks && runAsks(r.State.Open()) != asksPerson:
		return false
	}
	return true
}

// ranges are where the runs that a filter selects are: places of one index, that
// are looked at one behind the other, the newest run of each first. An empty name
// is the table itself.
func (f *RunFilter) ranges() (index string, prefixes []storage.Key) {
	states := f.States
	if len(states) == 0 && f.Active {
		states = []pattern.State{pattern.Queued, pattern.Ready, pattern.Waiting}
	}
	switch {
	case f.Asks:
		return "asks", []storage.Key{storage.Tuple(asksPerson)}
	case f.Device != (TwinID{}):
		return "device", []storage.Key{storage.Tuple(f.Device.DeviceID, f.Device.ModuleID)}
	case f.Job != "":
		return "job", []storage.Key{storage.Tuple(f.Job)}
	case len(states) > 0:
		index = "state"
		for _, s := range states {
			if f.Pattern == "" {
				prefixes = append(prefixes, storage.Tuple(string(s)))
			} else {
				index = "pattern"
				prefixes = append(prefixes, storage.Tuple(f.Pattern, string(s)))
			}
		}
		return index, prefixes
	}
	return "", []storage.Key{nil}
}

// eachRun calls yield with the runs that a filter selects, until it returns false
// or some were looked at. next is where to go on; empty: there are no more. Runs
// of several states come state by state, each the newest first.
func (h *Hub) eachRun(ctx context.Context, f RunFilter, cursor string, look int, yield func(id string, r *runRecord) bool) (next string, err error) {
	if err := f.check(); err != nil {
		return "", err
	}
	index, prefixes := f.ranges()
	at, after := 0, storage.Key(nil)
	if cursor != "" {
		b, err := hex.DecodeString(cursor)
		if err != nil || len(b) < 2 || int(b[0]) >= len(prefixes) {
			return "", errf(CodeArgumentInvalid, "the cursor is not one that this list gave; start again without a cursor")
		}
		at, after = int(b[0]), b[1:]
	}
	err = h.view(ctx, "list runs", func(r storage.Reader) error {
		next = ""
		seen := 0
		for n := at; n < len(prefixes); n++ {
			g := storage.Range{Prefix: prefixes[n], Reverse: true}
			if n == at && after != nil {
				g.After = after
			}
			items := runTable.Scan(r, g)
			if index != "" {
				items = runTable.Lookup(r, index, g)
			}
			for item, err := range items {
				if err != nil {
					return err
				}
				id, err := runOfKey(item.Key)
				if err != nil {
					return err
				}
				seen++
				if (!f.wants(&item.Value) || yield(id, &item.Value)) && seen < look {
					continue
				}
				key := item.Key
				if index != "" {
					key = append(f.indexKey(index, &item.Value), item.Key...)
				}
				next = hex.EncodeToString(append([]byte{byte(n)}, key...))
				return nil
			}
		}
		return nil
	})
	return next, err
}

// indexKey is the key of a run in an index that ranges names.
func (f *RunFilter) indexKey(index string, r *runRecord) storage.Key {
	switch index {
	case "asks":
		return storage.Tuple(asksPerson)
	case "device":
		return storage.Tuple(r.Device, r.Module)
	case "job":
		return storage.Tuple(r.Job.Job, r.Job.Run)
	case "state":
		return storage.Tuple(string(r.State.State))
	}
	return storage.Tuple(r.Pattern, string(r.State.State))
}

// showRun reads a run as callers see it.
func (h *Hub) showRun(r storage.Reader, id string) (Run, error) {
	record, err := loadRun(r, id)
	if err != nil {
		return Run{}, err
	}
	run := h.shownRun(id, &record)
	err = errors.Join(h.followProgress(r, &run), h.followCall(r, &run, record.State.Open()), nameHolder(r, &record, &run))
	return run, err
}

// nameHolder names the run that has the device for which a run waits. Lists don't:
// that is another record for each row.
func nameHolder(r storage.Reader, record *runRecord, run *Run) error {
	if !record.Parked {
		return nil
	}
	d, err := loadRunDevice(r, run.Device)
	if err == nil && d.Holder != "" {
		run.Waits = "the run " + d.Holder + " on the device"
	}
	return err
}

// shownRun is a run as callers see it.
func (h *Hub) shownRun(id string, r *runRecord) Run {
	s := &r.State
	run := Run{
		ID: id, Pattern: r.Pattern, Version: r.Version, Hash: hashText(r.Hash), Device: r.device(), Params: r.Params, Attempt: r.Attempt,
		Parent: r.Parent, Of: r.Of, Trigger: r.Trigger, State: s.State, Entry: s.Entry, Report: s.Report, Result: s.Result, Fault: s.Fault,
		Canceling: !s.State.Final() && s.Entry != pattern.EntryUndo && (s.Cancel != nil || r.Stop != nil), Question: r.question(),
		Principal: r.Owner.principal().String(), Created: r.Created.UTC(), Started: r.Started.UTC(), Updated: r.Updated.UTC(), Ended: r.Ended.UTC(),
		ETag: savedETag(h.db.Epoch().Ordinal, r.Created, r.Revision), Cost: s.Cost, Hot: s.Hot, Step: len(s.Steps), Journal: s.Size(),
	}
	if run.Entry == "" {
		run.Entry = pattern.EntryRun
	}
	if r.Job != nil {
		run.Job = r.Job.Job
	}
	if n := len(r.Chunks); n > 0 {
		run.Step += r.Chunks[n-1]
		run.Journal += n * chunkBytes
	}
	if open := s.Open(); open != nil {
		run.Due, run.Waits = open.Due, waitsFor(open)
	}
	if r.Parked {
		run.Waits = "another run on the device"
	}
	return run
}

// waitsFor says in words what an open step waits for.
func waitsFor(s *pattern.Step) string {
	const most = 200
	text := s.Op
	switch s.Op {
	case opCall:
		a, _ := readArgs[pattern.CallArgs](s)
		text = "method " + a.Method
	case opWait:
		a, _ := readArgs[pattern.WaitArgs](s)
		text = a.Where
	case opApprove:
		text = "approval"
	case opChild, opFleetRun:
		a, _ := readArgs[pattern.RunArgs](s)
		text = "pattern " + a.Pattern
	case opHTTP:
		a, _ := readArgs[pattern.HTTPArgs](s)
		text = "request to " + a.URL
	case "ctx.sleep", "ctx.until_":
		text = "time"
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// followCall says of a run whose call has not been sent, since its device is not
// there, that it waits for that, and until when.
func (h *Hub) followCall(r storage.Reader, run *Run, s *pattern.Step) error {
	if s == nil || s.Op != opCall || h.callable(run.Device) != nil {
		return nil
	}
	call, err := queuedTable.Get(r, queuedKey(run.Device, s.Ref))
	if errors.Is(err, storage.ErrNotFound) {
		return nil // it has just ended
	}
	if err == nil && call.Status == QueuedWaiting {
		run.Waits, run.Due = "the device to connect, for "+waitsFor(s), call.Deadline.UTC()
	}
	return err
}

// followProgress takes a run's progress from the percentage that its device
// reports, if the program said where that stands.
func (h *Hub) followProgress(r storage.Reader, run *Run) error {
	path, ok := strings.CutPrefix(run.Report.Follow, "reported.")
	if !ok || run.State.Final() || run.Device == (TwinID{}) {
		return nil
	}
	_, record, err := h.loadTwin(r, run.Device)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	text, found := record.Reported.Get(path)
	var percent float64
	if found && json.Unmarshal(text, &percent) == nil {
		run.Report.Progress = math.Min(1, math.Max(0, percent/100))
	}
	return nil
}
