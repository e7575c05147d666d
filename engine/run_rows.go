package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// FROM devices.runs: a row for each run that is kept, in the order of their ids,
// which is that of time. They have no columns: each is made and compared. A page
// ends when it is full or when it has looked at enough, so that none takes long,
// however few rows match. Groups need all rows at once: as many as fit into the
// time of a query.

// row is a run as a row of devices.runs; what is not there has no member.
func (r *runRecord) row(id string) query.Value {
	m := make([]query.Member, 0, 28)
	text := func(key, v string) {
		if v != "" {
			m = append(m, query.Member{Key: key, Value: query.StringValue(v)})
		}
	}
	number := func(key string, v float64) {
		m = append(m, query.Member{Key: key, Value: query.NumberValue(v)})
	}
	date := func(key string, at time.Time) {
		if !at.IsZero() {
			text(key, at.UTC().Format(twinTimeLayout))
		}
	}
	s := &r.State
	text("runId", id)
	text("deviceId", r.Device)
	text("moduleId", r.Module)
	text("pattern", r.Pattern)
	text("version", r.Version)
	text("state", string(s.State))
	text("entry", string(entryOf(s)))
	due := s.Due()
	if open := s.Open(); open != nil {
		text("step", open.Op)
		if open.Op == "ctx.approve" {
			var a pattern.ApproveArgs
			if json.Unmarshal(open.Args, &a) == nil {
				text("question", a.Question)
			}
		}
	}
	number("stepCount", float64(r.stepCount()))
	text("phase", s.Report.Phase)
	number("progress", s.Report.Progress)
	text("text", s.Report.Text)
	if r.Job != nil {
		text("jobId", r.Job.Job)
	}
	text("parentRunId", r.Parent)
	text("retryOf", r.Of)
	text("trigger", r.Trigger)
	number("attempt", float64(r.Attempt))
	date("createdTime", r.Created)
	date("startedTime", r.Started)
	date("updatedTime", r.Updated)
	date("endedTime", r.Ended)
	date("dueTime", due)
	if f := s.Fault; f != nil {
		text("code", string(f.Code))
		text("message", f.Message)
	}
	if len(s.Result) > 0 {
		if v, err := query.ParseValue(s.Result); err == nil {
			m = append(m, query.Member{Key: "result", Value: v})
		}
	}
	text("principal", r.Owner.principal().String())
	return query.ObjectValue(m)
}

func entryOf(r *pattern.Run) pattern.Entry {
	if r.Entry == "" {
		return pattern.EntryRun
	}
	return r.Entry
}

// stepCount is how many steps the run took, those of its undo included.
func (r *runRecord) stepCount() int {
	n := len(r.State.Steps)
	if k := len(r.Chunks); k > 0 {
		n += r.Chunks[k-1]
	}
	return n
}

// runScan goes through the runs that a query may select.
type runScan struct {
	where   *query.Predicate
	now     time.Time
	runs    []string // only these; nil: any
	devices []string // only those of these devices
	jobs    []string // only those of these jobs
	byRun   bool
	byDev   bool
	byJob   bool
	pattern []string // only those of these patterns
	byPat   bool
}

func newRunScan(where *query.Predicate, now time.Time) *runScan {
	s := &runScan{where: where, now: now}
	texts := func(member string) ([]string, bool) {
		list, ok := where.Requires(query.Path{member})
		slices.Sort(list)
		return slices.Compact(list), ok
	}
	s.runs, s.byRun = texts("runId")
	s.devices, s.byDev = texts("deviceId")
	s.jobs, s.byJob = texts("jobId")
	s.pattern, s.byPat = texts("pattern")
	return s
}

// keys is the attribute by which each finds runs; none when it looks at all.
func (s *runScan) keys(paged bool) []string {
	switch {
	case s.byRun:
		return []string{"runId"}
	case s.byDev:
		return []string{"deviceId"}
	case s.byJob:
		return []string{"jobId"}
	case s.byPat && !paged:
		return []string{"pattern"}
	}
	return nil
}

// each calls f for the runs that can match, behind a place, until it says that it
// has enough. Places are of one way through the runs, which the condition alone
// decides. Paged ways go by keys that no run changes.
func (s *runScan) each(r storage.Reader, after storage.Key, paged bool, f func(place storage.Key, id string, record *runRecord) (enough bool, err error)) error {
	visit := func(part string, index storage.Key, item storage.Item[runRecord]) (bool, error) {
		id, err := firstPart(item.Key)
		if err != nil {
			return true, err
		}
		return f(storage.Tuple(part, []byte(slices.Concat(index, item.Key))), id, &item.Value)
	}
	begin, behind, err := rowPlace(after)
	if err != nil {
		return err
	}
	switch {
	case s.byRun:
		for _, id := range s.runs {
			if id <= begin && after != nil {
				continue
			}
			record, err := loadRun(r, id)
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeRunNotFound {
				continue
			}
			if err != nil {
				return err
			}
			if enough, err := f(storage.Tuple(id, []byte{}), id, &record); err != nil || enough {
				return err
			}
		}
		return nil
	case s.byDev:
		return s.indexed(r, "device", s.devices, begin, behind, visit)
	case s.byJob:
		return s.indexed(r, "job", s.jobs, begin, behind, visit)
	case s.byPat && !paged: // a run changes its place there with its state
		return s.indexed(r, "pattern", s.pattern, begin, behind, visit)
	}
	for item, err := range runTable.Scan(r, storage.Range{After: behind}) {
		if err != nil {
			return err
		}
		if enough, err := visit("", nil, item); err != nil || enough {
			return err
		}
	}
	return nil
}

// indexed goes through the runs of some values of an index, in order.
func (s *runScan) indexed(r storage.Reader, index string, values []string, begin string, behind storage.Key, visit func(part string, index storage.Key, item storage.Item[runRecord]) (bool, error)) error {
	for _, v := range values {
		if v < begin {
			continue
		}
		g := storage.Range{Prefix: storage.Tuple(v)}
		if v == begin {
			g.After = behind
		}
		for item, err := range runTable.Lookup(r, index, g) {
			if err != nil {
				return err
			}
			if enough, err := visit(v, indexOf(index, &item.Value), item); err != nil || enough {
				return err
			}
		}
	}
	return nil
}

// indexOf is where a run is in an index of runs that no change of it moves.
func indexOf(index string, r *runRecord) storage.Key {
	switch {
	case index == "device":
		return storage.Tuple(r.Device, r.Module)
	case index == "job" && r.Job != nil:
		return storage.Tuple(r.Job.Job, r.Job.Run)
	}
	return nil
}

// rowPlace reads a place: what of the way it is in, and the key behind which it goes
// on.
func rowPlace(place storage.Key) (part string, behind storage.Key, err error) {
	if place == nil {
		return "", nil, nil
	}
	parts, err := place.Parts()
	if err != nil || len(parts) != 2 {
		return "", nil, errf(CodeArgumentInvalid, "the continuation token is not one of a query over devices.runs; begin with the first page")
	}
	part, _ = parts[0].(string)
	key, _ := parts[1].([]byte)
	return part, key, nil
}

// runRows answers a query over devices.runs.
func (q *queries) runRows(ctx context.Context, parsed *query.Query, at queryPlace, most int) (QueryPage, error) {
	if parsed.Grouped() {
		return q.runGroups(ctx, parsed, at, most)
	}
	if parsed.Ordered() {
		return QueryPage{}, errf(CodeArgumentInvalid, "the query has ORDER BY over devices.runs, whose rows come in the order of time; expected a query without it, or with groups")
	}
	top, offset := parsed.Bounds()
	if top >= 0 {
		most = min(most, top-at.given)
	}
	out := QueryPage{Item: QueryRaw, Rows: []json.RawMessage{}, Plan: &query.Plan{}}
	if most <= 0 {
		return out, nil
	}
	begun := time.Now()
	scan := newRunScan(parsed.Predicate(), begun.UTC())
	skip := offset
	var after, place storage.Key
	if at.last != "" {
		after, skip = storage.Key(at.last), int(at.list)
	}
	skipped := skip
	until := begun.Add(min(jobRowsTime, q.hub.limits.QueryTime))
	seen, size, more := 0, 0, false
	err := q.hub.view(ctx, "read the rows of runs", func(r storage.Reader) error {
		out.Rows, seen, size, more, skip = out.Rows[:0], 0, 0, false, skipped
		return scan.each(r, after, true, func(p storage.Key, id string, record *runRecord) (bool, error) {
			if more { // the one behind the page: there is one
				return true, nil
			}
			seen++
			doc := record.row(id)
			if scan.where.Match(doc, scan.now) {
				if skip > 0 {
					skip--
				} else {
					row := parsed.Project(doc)
					out.Rows, size = append(out.Rows, row), size+len(row)
				}
			}
			if len(out.Rows) >= most || size >= historyBytes || seen >= jobRowsSeen || seen%100 == 0 && time.Now().After(until) {
				place, more = p, true
			}
			return false, ctx.Err()
		})
	})
	if err != nil {
		return QueryPage{}, err
	}
	out.Plan = rowsPlan(query.Runs, scan.keys(true), seen, len(out.Rows), time.Since(begun))
	if more && (top < 0 || at.given+len(out.Rows) < top) {
		out.Token = q.token(queryPlace{query: at.query, given: at.given + len(out.Rows), list: uint64(skip), last: string(place)})
	}
	return out, nil
}

// runGroups answers a query over devices.runs whose rows are groups.
func (q *queries) runGroups(ctx context.Context, parsed *query.Query, at queryPlace, most int) (QueryPage, error) {
	if at.list != 0 {
		list, err := q.lists.find(at.list, at.query, time.Now())
		if err != nil {
			return QueryPage{}, err
		}
		return q.listPage(ctx, list, at, most)
	}
	leave, err := q.enter(ctx)
	if err != nil {
		return QueryPage{}, err
	}
	defer leave()
	l := &q.hub.limits
	begun := time.Now()
	scan := newRunScan(parsed.Predicate(), begun.UTC())
	groups, err := query.NewGroups(parsed, query.Ask{Limit: l.QuerySorted, Now: scan.now, Budget: query.Budget{Memory: l.QueryMemory}})
	if err != nil {
		return QueryPage{}, queryRunError(err)
	}
	seen, passed := 0, 0
	err = q.hub.view(ctx, "group the rows of runs", func(r storage.Reader) error {
		return scan.each(r, nil, false, func(_ storage.Key, id string, record *runRecord) (bool, error) {
			if seen++; seen%1000 == 0 && time.Since(begun) > l.QueryTime {
				return true, errf(CodeQueryBudget, "the groups of %d runs were not counted within %s; narrow the condition, by pattern, job or device", seen, l.QueryTime)
			}
			doc := record.row(id)
			if !scan.where.Match(doc, scan.now) {
				return false, ctx.Err()
			}
			passed++
			return false, groups.Add(doc)
		})
	})
	if err != nil {
		return QueryPage{}, queryRunError(err)
	}
	scanned := time.Since(begun)
	page, err := groups.Page()
	if err != nil {
		return QueryPage{}, queryRunError(err)
	}
	if page.More {
		return QueryPage{}, errf(CodeQueryBudget, "the result has more than %s, the most that can be sorted and paged", plural(l.QuerySorted, "group"))
	}
	list := &resultList{hash: at.query, rows: raw(page.Rows)}
	place := queryPlace{query: at.query}
	if list.len() > most {
		place.list = q.lists.keep(list, time.Now())
	}
	out, err := q.listPage(ctx, list, place, most)
	out.Item, out.Plan = QueryRaw, page.Plan
	found := rowsPlan(query.Runs, scan.keys(false), seen, passed, scanned)
	out.Plan.Rows, out.Plan.Selected, out.Plan.Documents = found.Rows, found.Selected, found.Documents
	out.Plan.Steps = append(found.Steps, out.Plan.Steps...)
	if out.Rows == nil {
		out.Rows = []json.RawMessage{}
	}
	return out, err
}
