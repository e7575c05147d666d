package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

const (
	fleetRowsUsual  = 100  // of a query without a limit
	fleetPathsMost  = 50   // of a row
	fleetGroupsMost = 1000 // of one answer
	fleetNameBytes  = 256  // of a group's value
)

// queryForRun answers a query of a run.
func (h *Hub) queryForRun(ctx context.Context, task *runTask) error {
	args, fault := readArgs[pattern.FleetArgs](&task.step)
	if fault != nil {
		task.fault = fault
		return nil
	}
	asked, err := fleetQuery(args.Where)
	if err != nil {
		return err
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return err
	}
	leave, err := h.queries.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	switch task.step.Op {
	case opFleetQuery:
		task.last, err = h.fleetRows(ctx, asked, &args)
	case opFleetCount:
		n := 0
		err = h.queries.selectRows(ctx, asked, targetAsk{}, func(rows []query.Row) bool { n += len(rows); return true })
		if err == nil {
			task.last, err = marshal(n)
		}
	case opFleetGroup:
		task.last, err = h.fleetGroups(ctx, asked, args.Path)
	default:
		err = errRunTask
	}
	return err
}

// fleetQuery is the query for the devices that a bare predicate selects; nothing
// and * select all.
func fleetQuery(where string) (*query.Query, error) {
	if w := strings.TrimSpace(where); w == "" || w == "*" {
		return query.Parse("SELECT * FROM devices", query.Options{})
	}
	p, err := query.ParsePredicate(where)
	if err != nil {
		message := err.Error()
		if e, ok := errors.AsType[*query.Error](err); ok {
			message += "\n" + e.Caret()
		}
		return nil, errf(CodeArgumentInvalid, "the condition can't be read: %s", message)
	}
	return query.Select(query.Devices, p), nil
}

// fleetPath is a path that a program names.
type fleetPath struct {
	name      string
	path      query.Path
	connected bool // the alias, which is true or false
}

func newFleetPath(name string) (fleetPath, error) {
	if name == "connected" {
		return fleetPath{name, query.Path{"connectionState"}, true}, nil
	}
	path, err := parsePath("the path", name)
	return fleetPath{name, path, false}, err
}

// value is what stands at the path in a row.
func (p *fleetPath) value(v query.Value) query.Value {
	if p.connected {
		return query.BoolValue(v.Text() == stateConnected)
	}
	return v
}

func (h *Hub) fleetRows(ctx context.Context, asked *query.Query, args *pattern.FleetArgs) (json.RawMessage, error) {
	names := args.Select
	if len(names) == 0 {
		names = []string{"deviceId"}
	}
	if len(names) > fleetPathsMost {
		return nil, errf(CodeArgumentInvalid, "select has %d paths, at most %d are allowed", len(names), fleetPathsMost)
	}
	var paths []fleetPath
	ask := targetAsk{limit: args.Limit}
	if ask.limit == 0 {
		ask.limit = fleetRowsUsual
	}
	for _, name := range names {
		p, err := newFleetPath(name)
		if err != nil {
			return nil, err
		}
		paths, ask.paths = append(paths, p), append(ask.paths, p.path)
	}
	n := 0
	out := []byte{'['}
	err := h.queries.selectRows(ctx, asked, ask, func(rows []query.Row) bool {
		for i := range rows {
			if n++; n > 1 {
				out = append(out, ',')
			}
			m := beginMembers(out)
			for k := range paths {
				if k < len(rows[i].Values) && rows[i].Values[k].Kind() != query.Undefined {
					m.raw(string(appendName(paths[k].name)), paths[k].value(rows[i].Values[k]).AppendJSON(nil))
				}
			}
			if out = m.end(); n == ask.limit || len(out) > pattern.MaxValue {
				return false
			}
		}
		return true
	})
	return append(out, ']'), err
}

// appendName is a name as it may stand in an object without an escape: a path
// that was parsed has neither a quote nor a backslash, but within brackets.
func appendName(name string) []byte {
	text, err := json.Marshal(name)
	if err != nil || len(text) < 2 {
		return nil
	}
	return text[1 : len(text)-1]
}

func (h *Hub) fleetGroups(ctx context.Context, asked *query.Query, path string) (json.RawMessage, error) {
	p, err := newFleetPath(path)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Groups map[string]int `json:"groups"`
		Total  int            `json:"total"`
	}
	answer.Groups = map[string]int{}
	many := false
	err = h.queries.selectRows(ctx, asked, targetAsk{paths: []query.Path{p.path}}, func(rows []query.Row) bool {
		for i := range rows {
			answer.Total++
			if len(rows[i].Values) == 0 || rows[i].Values[0].Kind() == query.Undefined {
				continue
			}
			v := p.value(rows[i].Values[0])
			name := v.Text()
			if v.Kind() != query.String {
				name = string(v.AppendJSON(nil))
			}
			if len(name) > fleetNameBytes {
				name = name[:fleetNameBytes]
			}
			if answer.Groups[strings.ToValidUTF8(name, "")]++; len(answer.Groups) > fleetGroupsMost {
				many = true
				return false
			}
		}
		return true
	})
	if many {
		return nil, errf(CodeArgumentInvalid, "%q has more than %d values; group by something coarser", clip(path), fleetGroupsMost)
	}
	if err != nil {
		return nil, err
	}
	return marshal(answer)
}

// jobForRun makes the job that a run starts. Its id is that of the step, so that
// it is made once whatever happens.
func (h *Hub) jobForRun(ctx context.Context, task *runTask) error {
	args, fault := readArgs[pattern.RunArgs](&task.step)
	if fault != nil {
		task.fault = fault
		return nil
	}
	id := task.id + "-" + task.step.Ref
	spec := JobSpec{
		ID: id, Targets: JobTargets{Where: args.Where}, AllowEmpty: true,
		Action: JobAction{Run: &JobRun{Pattern: args.Pattern, Params: args.Params}},
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return err
	}
	_, err := h.createJob(ctx, task.owner, spec, "", func(tx *storage.Tx) error {
		// Who has stopped waiting has looked for the job to cancel it, see
		// withdrawJob: it must not be made behind that.
		r, err := loadRun(tx, task.id)
		if err != nil {
			return err
		}
		if open := r.State.Open(); open == nil || open.Ref != task.step.Ref {
			return errf(CodeRunState, "the run %s waits for the job no more", task.id)
		}
		return nil
	})
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeJobAlreadyExists {
		err = nil // made before the hub stopped
	}
	if err != nil {
		return err
	}
	if args.Wait {
		task.ref = refJob + id
		return nil
	}
	task.last, err = marshal(map[string]string{"job": id})
	return err
}

// withdrawJob cancels the job of a step that waits for it no more. Runs of the job
// that are under way are told to end, as whenever a job is canceled.
func (t *runTx) withdrawJob(r *runInTx, s *pattern.Step) error {
	args, fault := readArgs[pattern.RunArgs](s)
	if fault != nil || !args.Wait {
		return nil // what was started without waiting goes on by itself
	}
	id := jobOfRef(s.Ref)
	if id == "" { // a worker may have made it, and not said so yet
		id = r.id + "-" + s.Ref
	}
	j, err := t.jobs.job(id)
	if isGoneJob(err) || err == nil && j.State.Status.Final() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := j.State.Cancel("the run " + r.id + " waits for it no more"); err != nil {
		return err
	}
	j.changed = true
	r.State.Logs = append(r.State.Logs, pattern.LogLine{Time: t.Now(), Text: "the job " + id + " was canceled: the run waits for it no more"})
	return nil
}

// runsOfJob returns the runs that wait for a job that has ended.
func (h *Hub) runsOfJob(r storage.Reader, job string, into []runMatch) ([]runMatch, error) {
	if !strings.HasPrefix(job, "r-") { // that of a run is named after it
		return into, nil
	}
	for item, err := range runTable.Lookup(r, "asks", storage.Range{Prefix: storage.Tuple(asksJob)}) {
		if err != nil {
			return into, err
		}
		s := item.Value.State.Open()
		if s == nil || jobOfRef(s.Ref) != job {
			continue
		}
		run, err := runOfKey(item.Key)
		if err != nil {
			return into, err
		}
		m, err := h.jobEnd(r, run, s.Ref)
		if err != nil {
			return into, err
		}
		if m.id != "" {
			into = append(into, m)
		}
	}
	return into, nil
}

// jobEnd is what a run gets of the job that it waits for; empty: it has not ended.
func (h *Hub) jobEnd(r storage.Reader, run, ref string) (m runMatch, err error) {
	job := jobOfRef(ref)
	var answer struct {
		Job       string `json:"job"`
		Succeeded int    `json:"succeeded"`
		Failed    int    `json:"failed"`
		Total     int    `json:"total"`
	}
	answer.Job = job
	record, err := loadJob(r, job)
	switch e, ok := errors.AsType[*Error](err); {
	case ok && e.Code == CodeJobNotFound: // deleted: nothing more comes of it
	case err != nil:
		return m, err
	case !record.State.Status.Final():
		return m, nil
	default:
		total := record.State.Total()
		answer.Succeeded, answer.Total = total.Succeeded, total.Size
		answer.Failed = total.Size - total.Succeeded
	}
	text, err := marshal(answer)
	return runMatch{run, ref, text}, err
}
