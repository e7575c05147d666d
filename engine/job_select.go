package engine

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sort"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// Why a target is left out.
const (
	leftExclude      = "exclude"
	leftExcludeWhere = "excludeWhere"
	leftNotFound     = "notFound" // an id that there is not
	leftApplies      = "the pattern does not apply"
)

// targetAsk says which of a job's targets are wanted.
type targetAsk struct {
	after string // the row behind which to begin
	limit int    // about how many will be taken; 0: all
	paths []query.Path
	left  func(reason, row string) // gets what is left out; nil: nobody
}

// eachTarget calls f with a job's targets in the order of their rows, some
// hundred at a time, until it returns false. The memory that it takes does not
// grow with their number. The columns must be ready.
func (h *Hub) eachTarget(ctx context.Context, t *jobTargets, a targetAsk, f func(rows []query.Row) bool) error {
	if a.left == nil {
		a.left = func(string, string) {}
	}
	if t.query == nil {
		return h.eachNamed(ctx, t, a, f)
	}
	excluded := sorted{t.exclude[sort.SearchStrings(t.exclude, a.after):]}
	var except *rowStream
	if t.except != nil {
		except = h.queries.stream(ctx, t.except, a.after)
		defer except.stop()
	}
	var applies *rowStream
	if t.applies != nil {
		applies = h.queries.stream(ctx, query.Select(t.source, t.applies), a.after)
		defer applies.stop()
	}
	var kept []query.Row
	err := h.queries.selectRows(ctx, t.query, a, func(rows []query.Row) bool {
		if len(t.exclude) == 0 && except == nil && applies == nil {
			return f(rows)
		}
		kept = kept[:0]
		for _, row := range rows {
			switch {
			case excluded.has(row.ID):
				a.left(leftExclude, row.ID)
			case except != nil && except.has(row.ID):
				a.left(leftExcludeWhere, row.ID)
			case applies != nil && !applies.has(row.ID):
				a.left(leftApplies, row.ID)
			default:
				kept = append(kept, row)
			}
		}
		if except.failed() != nil || applies.failed() != nil {
			return false
		}
		return len(kept) == 0 || f(kept)
	})
	return cmp.Or(except.failed(), applies.failed(), err)
}

// selectRows is Columns.Select under the hub's limits.
func (q *queries) selectRows(ctx context.Context, asked *query.Query, a targetAsk, f func(rows []query.Row) bool) error {
	if asked.Reads("lastActivityTime") {
		q.takeActivity()
	}
	l := &q.hub.limits
	documents := hubDocuments{hub: q.hub, metadata: asked.Reads("properties", "desired", "$metadata") || asked.Reads("properties", "reported", "$metadata")}
	err := q.columns[asked.Source()].Select(ctx, asked, query.Ask{
		After: a.after, Limit: a.limit, Now: time.Now().UTC(), Documents: documents,
		Budget: query.Budget{Rows: int64(l.QueryDocuments), Time: l.QueryTime, Memory: l.QueryMemory},
	}, a.paths, f)
	return queryRunError(err)
}

// sorted are rows that are left to compare with, in order.
type sorted struct{ list []string }

// has reports whether a row is in the list; rows are asked for in order.
func (s *sorted) has(row string) bool {
	for len(s.list) > 0 && s.list[0] < row {
		s.list = s.list[1:]
	}
	return len(s.list) > 0 && s.list[0] == row
}

// rowStream are the rows that a query selects, for who goes through others in
// the same order.
type rowStream struct {
	sorted
	next func() ([]string, bool)
	stop func()
	err  error
	done bool
}

// stream begins to read rows behind one; stop must be called.
func (q *queries) stream(ctx context.Context, asked *query.Query, after string) *rowStream {
	s := &rowStream{}
	s.next, s.stop = iter.Pull(func(yield func([]string) bool) {
		s.err = q.selectRows(ctx, asked, targetAsk{after: after}, func(rows []query.Row) bool {
			ids := make([]string, len(rows))
			for i := range rows {
				ids[i] = rows[i].ID
			}
			return yield(ids)
		})
	})
	return s
}

// failed is why the stream can't tell; nil: it can, also when there is none.
func (s *rowStream) failed() error {
	if s == nil {
		return nil
	}
	return s.err
}

// has reports whether the query selects a row; rows are asked for in order.
func (s *rowStream) has(row string) bool {
	for !s.done && (len(s.list) == 0 || s.list[len(s.list)-1] < row) {
		list, more := s.next()
		s.list, s.done = list, !more
	}
	return s.sorted.has(row)
}

// namedAtOnce is how many ids of a job's list are looked up in one go.
const namedAtOnce = 500

// eachNamed is eachTarget of ids that the job lists.
func (h *Hub) eachNamed(ctx context.Context, t *jobTargets, a targetAsk, f func(rows []query.Row) bool) error {
	list := t.ids[sort.SearchStrings(t.ids, a.after):]
	if len(list) > 0 && list[0] == a.after {
		list = list[1:]
	}
	excluded := sorted{t.exclude}
	for len(list) > 0 {
		if err := ctx.Err(); err != nil {
			return queryRunError(err)
		}
		some := list[:min(len(list), namedAtOnce)]
		list = list[len(some):]
		rows, err := h.lookUp(ctx, some, a.paths)
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(r query.Row) bool {
			switch {
			case r.Values == nil:
				a.left(leftNotFound, r.ID)
			case excluded.has(r.ID):
				a.left(leftExclude, r.ID)
				return true
			default:
				return false
			}
			return true
		})
		if t.unless != nil {
			if rows, err = h.dropMatching(ctx, t.unless, rows, leftExcludeWhere, true, a.left); err != nil {
				return err
			}
		}
		if t.applies != nil {
			if rows, err = h.dropMatching(ctx, t.applies, rows, leftApplies, false, a.left); err != nil {
				return err
			}
		}
		if len(rows) > 0 && !f(rows) {
			return nil
		}
	}
	return nil
}

// lookUp returns rows with their values at some paths, without values the ones
// that there are not.
func (h *Hub) lookUp(ctx context.Context, ids []string, paths []query.Path) ([]query.Row, error) {
	rows := make([]query.Row, len(ids))
	var of [querySources][]string
	var at [querySources][]int
	for i, id := range ids {
		source, _ := twinIDOfRow(id).row()
		rows[i].ID = id
		of[source], at[source] = append(of[source], id), append(at[source], i)
	}
	for source := range query.Source(querySources) {
		if len(of[source]) == 0 {
			continue
		}
		values, missing := h.queries.columns[source].Values(of[source], paths)
		if missing { // a path that has no column
			docs, err := hubDocuments{hub: h}.Documents(ctx, of[source])
			if err != nil {
				return nil, queryRunError(err)
			}
			for i, doc := range docs {
				if values[i] == nil || doc.Kind() == query.Undefined {
					continue
				}
				for k, p := range paths {
					values[i][k] = doc.Value(p)
				}
			}
		}
		for i, v := range values {
			rows[at[source][i]].Values = v
		}
	}
	return rows, nil
}

// dropMatching leaves out the rows whose twins a predicate matches, or those that
// it does not, for a reason.
func (h *Hub) dropMatching(ctx context.Context, p *query.Predicate, rows []query.Row, why string, matching bool, left func(reason, row string)) ([]query.Row, error) {
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	docs, err := hubDocuments{hub: h, metadata: true}.Documents(ctx, ids)
	if err != nil {
		return nil, queryRunError(err)
	}
	now := time.Now().UTC()
	kept := rows[:0]
	for i, row := range rows {
		if docs[i].Kind() != query.Undefined && p.Match(docs[i], now) == matching {
			left(why, row.ID)
			continue
		}
		kept = append(kept, row)
	}
	return kept, nil
}

// matches reports whether an identity is among the targets now.
func (t *jobTargets) matches(h *Hub, r storage.Reader, id TwinID, now time.Time) (bool, error) {
	if !t.mayHave(id) {
		return false, nil
	}
	doc, _, err := hubDocuments{hub: h, metadata: true}.document(r, id)
	if isGone(err) {
		return false, nil
	}
	return err == nil && t.has(id, doc, now), err
}

// mayHave reports whether an identity can be among the targets, as far as its id
// tells.
func (t *jobTargets) mayHave(id TwinID) bool {
	source, row := id.row()
	if _, excluded := slices.BinarySearch(t.exclude, row); excluded {
		return false
	}
	if t.query == nil {
		_, named := slices.BinarySearch(t.ids, row)
		return named
	}
	return source == t.source
}

// has reports whether a twin is among the targets; the zero Value is none.
func (t *jobTargets) has(id TwinID, doc query.Value, now time.Time) bool {
	return doc.Kind() != query.Undefined && t.mayHave(id) && (t.where == nil || t.where.Match(doc, now)) && (t.unless == nil || !t.unless.Match(doc, now)) &&
		(t.applies == nil || t.applies.Match(doc, now))
}

// noun is what the targets are.
func (t *jobTargets) noun() string {
	if t.source == query.Modules {
		return "module"
	}
	return "device"
}
