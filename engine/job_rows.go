package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// FROM devices.jobs: a row for each device or module of each job, of its newest
// run. Rows come by job, those that have begun before those that are pending. They
// have no columns: each is made and compared. A page ends when it is full or when
// it has looked at enough, so that none takes long, however few rows match.
const (
	jobRowsSeen = 50_000          // rows looked at for one page
	jobRowsTime = 2 * time.Second // spent on one page
)

var (
	jobRowsJob    = query.Path{"jobId"}
	jobRowsDevice = query.Path{"deviceId"}
)

// DeviceJobStatus returns the status of an execution as IoT Hub's rows of a
// device of a job have it.
func (e *Execution) DeviceJobStatus() string {
	switch e.Status {
	case rollout.ExecutionPending:
		return "pending"
	case rollout.ExecutionWaiting:
		return "scheduled"
	case rollout.ExecutionSucceeded:
		return "completed"
	case rollout.ExecutionCanceled:
		return "canceled"
	case rollout.ExecutionFailed, rollout.ExecutionTimedOut, rollout.ExecutionRejected, rollout.ExecutionRemoved:
		return "failed"
	}
	if !e.Ended.IsZero() { // uncertain, for good
		return "failed"
	}
	return "running"
}

// row is an execution as a row of devices.jobs. No date is missing: some clients
// read no row without one. What has not happened is of the year 1.
func (e *Execution) row() []byte {
	m := beginMembers(make([]byte, 0, 512))
	m.text("deviceId", e.Target.DeviceID)
	m.textUnlessEmpty("moduleId", e.Target.ModuleID)
	m.text("jobId", e.Job)
	m.text("jobType", string(e.Kind))
	m.text("status", e.DeviceJobStatus())
	for _, date := range []struct {
		name string
		at   time.Time
	}{{"startTimeUtc", e.Started}, {"endTimeUtc", e.Ended}, {"createdDateTimeUtc", e.Created}, {"lastUpdatedDateTimeUtc", e.Updated}} {
		m.text(date.name, date.at.UTC().Format(twinTimeLayout))
	}
	if e.Kind == JobMethod {
		outcome := beginMembers(nil)
		var response []byte
		if e.Result != nil {
			r := beginMembers(nil)
			r.number("status", int64(e.Result.Status))
			r.raw("payload", e.Result.Payload)
			response = r.end()
		}
		outcome.raw("deviceMethodResponse", response)
		m.raw("outcome", outcome.end())
	}
	if status := e.DeviceJobStatus(); status == "failed" || e.Code != "" {
		fault := beginMembers(nil)
		code := e.Code
		if code == "" {
			code = string(e.Status)
		}
		fault.text("code", code)
		fault.text("description", e.Message)
		m.raw("error", fault.end())
	}
	return m.end()
}

// jobRows answers a query over devices.jobs.
func (q *queries) jobRows(ctx context.Context, parsed *query.Query, at queryPlace, most int) (QueryPage, error) {
	if parsed.Ordered() {
		return QueryPage{}, errf(CodeArgumentInvalid, "the query has ORDER BY over devices.jobs, whose rows come by job and device; expected a query without it")
	}
	top, offset := parsed.Bounds()
	if top >= 0 {
		most = min(most, top-at.given)
	}
	out := QueryPage{Item: QueryJobs, Rows: []json.RawMessage{}, Plan: &query.Plan{}}
	if most <= 0 {
		return out, nil
	}
	begun := time.Now()
	where := parsed.Predicate()
	s := &jobRowScan{
		ctx: ctx, where: where, now: begun.UTC(), most: most, until: begun.Add(min(jobRowsTime, q.hub.limits.QueryTime)),
		skip: offset, page: &out,
	}
	if at.last != "" {
		s.skip = int(at.list)
		if err := s.resume(at.last); err != nil {
			return QueryPage{}, err
		}
	}
	s.jobs, s.byJob = where.Requires(jobRowsJob)
	s.devices, s.byDevice = where.Requires(jobRowsDevice)
	slices.Sort(s.jobs)
	slices.Sort(s.devices)
	s.jobs, s.devices = slices.Compact(s.jobs), slices.Compact(s.devices)
	err := q.hub.view(ctx, "read the rows of jobs", s.scan)
	if err != nil {
		return QueryPage{}, err
	}
	var keys []string
	if s.byJob {
		keys = append(keys, jobRowsJob.String())
	}
	if s.byDevice {
		keys = append(keys, jobRowsDevice.String())
	}
	out.Plan = rowsPlan(query.Jobs, keys, s.seen, len(out.Rows), time.Since(begun))
	if s.more && (top < 0 || at.given+len(out.Rows) < top) {
		out.Token = q.token(queryPlace{query: at.query, given: at.given + len(out.Rows), list: uint64(s.skip), last: s.place()})
	}
	return out, nil
}

// rowsPlan is the plan of a page of rows that have no columns: either keys that the
// condition compares said which rows there can be, or all were looked at.
func rowsPlan(source query.Source, keys []string, seen, given int, took time.Duration) *query.Plan {
	step := &query.Step{Kind: "scan by id", Path: source.String(), Estimate: -1, Rows: int64(seen), Selected: int64(given), Time: took}
	if len(keys) > 0 {
		step.Kind, step.Path = "key lookup", strings.Join(keys, ", ")
	}
	return &query.Plan{Rows: int64(seen), Selected: int64(given), Documents: int64(seen), Time: took, Steps: []*query.Step{step}}
}

// jobRowScan makes a page of rows.
type jobRowScan struct {
	ctx      context.Context
	where    *query.Predicate
	now      time.Time
	until    time.Time
	most     int
	skip     int // rows of OFFSET still to be left out
	jobs     []string
	byJob    bool // only these jobs can match
	devices  []string
	byDevice bool
	page     *QueryPage
	bytes    int

	job  string          // where the page begins, then where it ended
	at   executionCursor // in that job
	seen int
	more bool
}

// place is where the page ended, for its token.
func (s *jobRowScan) place() string {
	return string(storage.Tuple(s.job, s.at.run, s.at.pending, []byte(s.at.after), uint64(s.at.skip)))
}

func (s *jobRowScan) resume(place string) error {
	parts, err := storage.Key(place).Parts()
	if err != nil || len(parts) != 5 {
		return errf(CodeArgumentInvalid, "the continuation token is not one of a query over devices.jobs; begin with the first page")
	}
	s.job, _ = parts[0].(string)
	s.at.run, _ = parts[1].(uint64)
	s.at.pending, _ = parts[2].(bool)
	after, _ := parts[3].([]byte)
	skip, _ := parts[4].(uint64)
	s.at.after, s.at.skip = after, int(min(skip, targetBlockSize))
	return nil
}

// scan goes through the jobs in the order of their ids.
func (s *jobRowScan) scan(r storage.Reader) error {
	job, at := s.job, s.at
	s.page.Rows, s.seen, s.more, s.bytes = s.page.Rows[:0], 0, false, 0
	visit := func(id string, record *jobRecord) (full bool, err error) {
		if id != job {
			at = executionCursor{run: record.Run}
		}
		if at.run == 0 {
			at.run = record.Run
		}
		s.job, s.at = id, at
		return s.rows(r, id, record)
	}
	if s.byJob {
		for _, id := range s.jobs {
			if id < job {
				continue
			}
			record, err := loadJob(r, id)
			if isGoneJob(err) {
				continue
			}
			if err != nil {
				return err
			}
			if full, err := visit(id, &record); err != nil || full {
				return err
			}
		}
		return nil
	}
	for item, err := range jobTable.Scan(r, storage.Range{Start: jobKey(job)}) {
		if err != nil {
			return err
		}
		parts, err := item.Key.Parts()
		if err != nil {
			return err
		}
		id, _ := parts[0].(string)
		if full, err := visit(id, &item.Value); err != nil || full {
			return err
		}
	}
	return nil
}

// rows takes the rows of one job from s.at on; full says that the page is.
func (s *jobRowScan) rows(r storage.Reader, job string, record *jobRecord) (full bool, err error) {
	if s.byDevice {
		return s.rowsOf(r, job, record)
	}
	for {
		l := &executionLister{r: r, job: job, record: record, at: s.at, limit: 500, track: true}
		more, err := l.page()
		if err != nil {
			return false, err
		}
		for i := range l.list {
			if full, err := s.take(&l.list[i]); err != nil || full {
				s.at, s.more = l.places[i], true
				return full, err
			}
		}
		if !more {
			return false, s.ctx.Err()
		}
		s.at = l.at
		if s.spent() {
			s.more = true
			return true, s.ctx.Err()
		}
	}
}

// rowsOf takes the rows of one job on the devices that alone can match. In its
// cursor pending says that the job is done, and after is the last row's key.
func (s *jobRowScan) rowsOf(r storage.Reader, job string, record *jobRecord) (full bool, err error) {
	if s.at.pending {
		return false, nil
	}
	for _, device := range s.devices {
		ids, err := identitiesOf(r, job, s.at.run, device)
		if err != nil {
			return false, err
		}
		for _, id := range ids {
			key := executionKey(job, s.at.run, id)
			if slices.Compare(key, s.at.after) <= 0 {
				continue
			}
			e, found, err := executionOn(r, job, s.at.run, record, id)
			if err != nil {
				return false, err
			}
			if s.seen++; !found {
				continue
			}
			if full, err := s.take(&e); err != nil || full {
				s.at.after, s.more = key, true
				return full, err
			}
		}
	}
	s.at.pending = true
	if s.spent() {
		s.more = true
		return true, s.ctx.Err()
	}
	return false, nil
}

// identitiesOf returns a device and its modules, also those that a job has an
// execution of and that are gone, in the order of their keys.
func identitiesOf(r storage.Reader, job string, run uint64, device string) ([]TwinID, error) {
	ids := []TwinID{{DeviceID: device}}
	for item, err := range moduleTable.Scan(r, storage.Range{Prefix: storage.Tuple(device)}) {
		if err != nil {
			return nil, err
		}
		id, err := (TwinID{}).fromKey(item.Key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	for item, err := range executionTable.Scan(r, storage.Range{Prefix: storage.Tuple(job, run, device)}) {
		if err != nil {
			return nil, err
		}
		_, _, id, err := executionOfKey(item.Key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b TwinID) int { return slices.Compare(a.key(), b.key()) })
	return slices.Compact(ids), nil
}

// take puts a row on the page if it matches; full says that there is no room
// for another one.
func (s *jobRowScan) take(e *Execution) (full bool, err error) {
	s.seen++
	row := e.row()
	doc, err := query.ParseValue(row)
	if err != nil {
		return false, errors.Join(err, errors.New("a row of a job is not JSON"))
	}
	if !s.where.Match(doc, s.now) {
		return false, nil
	}
	if s.skip > 0 {
		s.skip--
		return false, nil
	}
	s.page.Rows = append(s.page.Rows, row)
	s.bytes += len(row)
	return len(s.page.Rows) >= s.most || s.bytes >= historyBytes, nil
}

// spent reports whether the page has cost what it may.
func (s *jobRowScan) spent() bool {
	return s.seen >= jobRowsSeen || time.Now().After(s.until) || s.ctx.Err() != nil
}
