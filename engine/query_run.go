package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// QueryRequest asks for a page of a query's result.
type QueryRequest struct {
	Text   string       // a query, or
	Where  string       // a bare predicate on whole twins
	Source query.Source // of the predicate
	Max    int          // rows of the page; 0 or more than Limits.QueryPage means that
	Token  string       // of the page before; empty: the first
}

// QueryPage is a page of a query's result: whole twins, or rows.
type QueryPage struct {
	Item  QueryItem
	Twins []Twin            // of QueryTwins; of their identities what a twin shows
	Rows  []json.RawMessage // else
	Token string            // empty: no rows follow
	Plan  *query.Plan       // how the page was found
}

// QueryItem says what a result consists of; the texts are IoT Hub's.
type QueryItem string

// The kinds of item.
const (
	QueryTwins QueryItem = "Twin"
	QueryRaw   QueryItem = "Raw"
	QueryJobs  QueryItem = "DeviceJob"
)

// queryStart is how long a query waits for columns that are being built.
const queryStart = 2 * time.Second

// Query returns a page of a query's result. What was acknowledged before it
// began is in it. A text that is wrong answers CodeArgumentInvalid with a
// *query.Error as its cause, and one that costs more than a query may
// CodeQueryBudget with a *query.BudgetError; while the columns are built the
// answer is CodeUnavailable. It needs ServiceConnect.
func (h *Hub) Query(ctx context.Context, c Caller, r QueryRequest) (QueryPage, error) {
	if err := h.authorize(ctx, c, opQuery, "*"); err != nil {
		h.queries.count.refused.Add(1)
		return QueryPage{}, err
	}
	begun := time.Now()
	page, err := h.queries.answer(ctx, r)
	h.queries.observe(ctx, c, r, &page, err, time.Since(begun))
	return page, err
}

// ParseQuery parses the text or the predicate of a request under this hub's
// limits. Errors are as in Query.
func (h *Hub) ParseQuery(r QueryRequest) (*query.Query, error) {
	var q *query.Query
	var err error
	switch {
	case strings.TrimSpace(r.Text) != "" && r.Where != "":
		return nil, errf(CodeArgumentInvalid, "the request has a query and a predicate; expected one of them")
	case r.Where != "":
		var p *query.Predicate
		if p, err = query.ParsePredicate(r.Where); err == nil {
			q = query.Select(r.Source, p)
		}
	case strings.TrimSpace(r.Text) == "":
		return nil, errf(CodeArgumentNull, "the query is missing; expected a text such as SELECT * FROM devices")
	default:
		q, err = query.Parse(r.Text, query.Options{Strict: h.limits.Profile == ProfileAzure})
	}
	if err != nil {
		e := wrapf(CodeArgumentInvalid, err, "the query can't be read: %s", err.Error())
		e.Next = "Mend the query at that place; `muster schema` shows which properties there are."
		return nil, e
	}
	return q, nil
}

func (q *queries) answer(ctx context.Context, r QueryRequest) (QueryPage, error) {
	parsed, err := q.hub.ParseQuery(r)
	if err != nil {
		return QueryPage{}, err
	}
	most := q.hub.limits.QueryPage
	if r.Max > 0 {
		most = min(most, r.Max)
	}
	at := queryPlace{query: queryHash(parsed)}
	if r.Token != "" {
		if at, err = q.place(r.Token, at.query); err != nil {
			return QueryPage{}, err
		}
	}
	if parsed.Source() == query.Jobs {
		return q.jobRows(ctx, parsed, at, most)
	}
	if parsed.Source() == query.Runs {
		return q.runRows(ctx, parsed, at, most)
	}
	if err := q.waitReady(ctx); err != nil {
		return QueryPage{}, err
	}
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
	if parsed.Ordered() {
		return q.sorted(ctx, parsed, at, most)
	}
	page, err := q.run(ctx, parsed, at, most)
	for most > 1 && isLarge(err) { // a shorter page of large rows may do
		most = max(1, most/8)
		page, err = q.run(ctx, parsed, at, most)
	}
	if err != nil {
		return QueryPage{}, err
	}
	if len(page.Last) > tokenLast { // groups by long texts: a header has no room for them
		return q.sorted(ctx, parsed, at, most)
	}
	out := QueryPage{Item: QueryRaw, Plan: page.Plan}
	given := at.given + len(page.IDs) + len(page.Rows)
	if parsed.Star() {
		out.Item = QueryTwins
		read := 0
		if out.Twins, read, err = q.hub.twins(ctx, page.IDs); err != nil {
			return QueryPage{}, err
		}
		if read < len(page.IDs) { // the rest would make the page too large
			page.More, page.Last = true, page.IDs[read-1]
			given -= len(page.IDs) - read
		}
	} else {
		out.Rows = raw(page.Rows)
	}
	if page.More && page.Last != "" {
		out.Token = q.token(queryPlace{query: at.query, given: given, last: page.Last})
	}
	return out, nil
}

// isLarge reports whether a page took too much memory.
func isLarge(err error) bool {
	e, over := errors.AsType[*query.BudgetError](err)
	return over && e.Exceeded == "memory"
}

func raw(rows [][]byte) []json.RawMessage {
	list := make([]json.RawMessage, len(rows))
	for i, r := range rows {
		list[i] = r
	}
	return list
}

// run asks the columns.
func (q *queries) run(ctx context.Context, parsed *query.Query, at queryPlace, most int) (*query.Page, error) {
	if parsed.Reads("lastActivityTime") {
		q.takeActivity()
	}
	l := &q.hub.limits
	documents := hubDocuments{hub: q.hub, metadata: parsed.Reads("properties", "desired", "$metadata") || parsed.Reads("properties", "reported", "$metadata")}
	page, err := q.columns[parsed.Source()].Run(ctx, parsed, query.Ask{
		After: at.last, Given: at.given, Limit: most, Now: time.Now().UTC(), Documents: documents,
		Budget: query.Budget{Rows: int64(l.QueryDocuments), Time: l.QueryTime, Memory: l.QueryMemory},
	})
	if err != nil {
		return nil, queryRunError(err)
	}
	return page, nil
}

// queryRunError gives an error of the columns its code.
func queryRunError(err error) error {
	switch e, over := errors.AsType[*query.BudgetError](err); {
	case over:
		return wrapf(CodeQueryBudget, err, "%s", e.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return wrapf(CodeCanceled, err, "the caller went away before the query was answered")
	}
	return storeError(err, "answer a query")
}

// sorted runs a query whose rows only stand as a whole, and keeps them for the
// pages that follow.
func (q *queries) sorted(ctx context.Context, parsed *query.Query, at queryPlace, most int) (QueryPage, error) {
	bound := q.hub.limits.QuerySorted
	page, err := q.run(ctx, parsed, queryPlace{query: at.query}, bound)
	if err != nil {
		return QueryPage{}, err
	}
	if page.More {
		return QueryPage{}, &Error{
			Code:    CodeQueryBudget,
			Message: "the result has more than " + plural(bound, "row") + ", the most that can be sorted and paged",
			Next:    "Narrow WHERE, add TOP, or leave ORDER BY out: then any number of rows is paged.",
		}
	}
	list := &resultList{hash: at.query, ids: page.IDs, rows: raw(page.Rows)}
	at = queryPlace{query: at.query}
	if list.len() > most {
		at.list = q.lists.keep(list, time.Now())
	}
	out, err := q.listPage(ctx, list, at, most)
	out.Plan = page.Plan
	return out, err
}

// listPage cuts a page out of a sorted list. Its plan is that of a page behind the
// first.
func (q *queries) listPage(ctx context.Context, list *resultList, at queryPlace, most int) (QueryPage, error) {
	begun := time.Now()
	from := min(at.given, list.len())
	to := min(from+most, list.len())
	out := QueryPage{Item: QueryRaw}
	if len(list.rows) > 0 {
		out.Rows = list.rows[from:to]
	} else {
		var read int
		var err error
		out.Item = QueryTwins
		if out.Twins, read, err = q.hub.twins(ctx, list.ids[from:to]); err != nil {
			return QueryPage{}, err
		}
		to = from + read
	}
	n := int64(to - from)
	step := &query.Step{
		Kind: "kept rows", Estimate: -1, Rows: int64(list.len()), Selected: n, Time: time.Since(begun),
		Note: "the first page has put them in order; the token says where this one begins",
	}
	out.Plan = &query.Plan{Rows: step.Rows, Selected: n, Documents: int64(len(out.Twins)), Time: step.Time, Steps: []*query.Step{step}}
	if to < list.len() && at.list != 0 {
		out.Token = q.token(queryPlace{query: at.query, given: to, list: at.list})
	}
	return out, nil
}

// waitReady waits a moment for the columns, so that nobody who comes right
// after the start of a small hub has to come again.
func (q *queries) waitReady(ctx context.Context) error {
	select {
	case <-q.ready:
		return nil
	default:
	}
	t := time.NewTimer(queryStart)
	defer t.Stop()
	select {
	case <-q.ready:
		return nil
	case <-ctx.Done():
		return wrapf(CodeCanceled, ctx.Err(), "the caller went away before queries were ready")
	case <-t.C:
	}
	q.count.refused.Add(1)
	p := q.hub.QueryProgress()
	return errf(CodeUnavailable, "queries are not ready: %d of %d rows are read; everything else is served", min(p.Done, p.Total), p.Total)
}

// queryQueue is how long a query waits for its turn.
const queryQueue = 5 * time.Second

// queriesAtOnce is how many run at once. One takes a processor; more of them
// than processors only take them from everything else, but a slow one must not
// keep all others waiting.
func queriesAtOnce() int { return max(4, runtime.NumCPU()) }

// enter waits for a slot; leave gives it back.
func (q *queries) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-q.slots }
	select {
	case q.slots <- struct{}{}:
		return leave, nil
	default:
	}
	t := time.NewTimer(queryQueue)
	defer t.Stop()
	select {
	case q.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		return nil, wrapf(CodeCanceled, ctx.Err(), "the caller went away before its query's turn")
	case <-t.C:
		q.count.refused.Add(1)
		return nil, errf(CodeThrottled, "%d queries run and this one waited %d s for its turn; look at the slow-query log for what takes so long", cap(q.slots), int(queryQueue.Seconds()))
	}
}

// twins reads twins from one snapshot, and leaves out what is there no more. It
// stops, after read ids, when the page becomes too large.
func (h *Hub) twins(ctx context.Context, ids []string) (list []Twin, read int, err error) {
	list = make([]Twin, 0, len(ids))
	bytes := 0
	notes := h.queries.notes(ids)
	err = h.view(ctx, "read twins", func(r storage.Reader) error {
		storage.Remember(r) // who shows a page shows it again
		for read < len(ids) && bytes <= h.limits.QueryPageBytes {
			to := min(read+twinsAtOnce, len(ids))
			twins, err := h.readTwins(r, ids[read:to], notes.in(r, read, to))
			if err != nil {
				return err
			}
			for _, t := range twins {
				if bytes > h.limits.QueryPageBytes {
					return nil
				}
				read++
				if t.Tags == nil {
					continue // gone
				}
				bytes += t.Tags.Bytes() + t.Desired.Bytes() + t.Reported.Bytes()
				list = append(list, t)
			}
		}
		return nil
	})
	return list, read, err
}

// twinsAtOnce are read side by side: those of a query's page lie anywhere in
// the store, and each costs several blocks to unpack.
const twinsAtOnce = 50

// readTwins reads the twins of rows, whose notes are those of r, with all processors;
// what is gone is left zero.
func (h *Hub) readTwins(r storage.Reader, rows []string, notes []uint32) ([]Twin, error) {
	list := make([]Twin, len(rows))
	workers := min(runtime.NumCPU(), (len(rows)+7)/8)
	errs := make([]error, workers)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for i := w; i < len(rows) && errs[w] == nil; i += workers {
				var err error
				if list[i], err = h.queriedTwin(r, rows[i], notes[i]); !isGone(err) {
					errs[w] = err
				}
			}
		})
	}
	running.Wait()
	return list, errors.Join(errs...)
}

// queriedTwin is the twin of a row of the columns, which know some of it already:
// when it was active last, and most often all that it shows of its identity.
func (h *Hub) queriedTwin(r storage.Reader, row string, note uint32) (Twin, error) {
	id := twinIDOfRow(row)
	source, _ := id.row()
	columns := h.queries.columns[source]
	identity, t, err := h.loadQueried(r, id, note)
	if err != nil {
		return Twin{}, err
	}
	v, ok := columns.Value(row, rowPaths.lastActivityTime)
	stored, err := time.Parse(twinTimeLayout, v.Text())
	if !ok || err != nil || h.sessions.get(id) != nil {
		return h.twinView(r, id, identity, t)
	}
	i, err := h.fromRecord(id, identity, false)
	if err != nil {
		return Twin{}, err
	}
	if i.CloudToDeviceMessages, err = h.messagesWaiting(r, id); err != nil {
		return Twin{}, err
	}
	if stored.Year() > 1 {
		i.LastActivity = stored
	}
	i.LastActivity = h.sessions.activity.latest(id, i.LastActivity)
	configured, err := h.configured(r, id)
	if err != nil {
		return Twin{}, err
	}
	return h.twinOf(&i, t, configured), nil
}

// loadQueried is loadTwin, without a look at the identity if its row's note tells it.
func (h *Hub) loadQueried(r storage.Reader, id TwinID, note uint32) (identityRecord, twinRecord, error) {
	identity, ok := notedIdentity(note)
	if !ok {
		return h.loadTwin(r, id)
	}
	t, err := h.getTwin(r, id)
	if errors.Is(err, storage.ErrNotFound) {
		err = wrapf(CodeInternal, err, "identity %q has no twin", id)
	}
	return identity, t, err
}

func isGone(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == CodeDeviceNotFound || e.Code == CodeModuleNotFound)
}

// observe counts a query and tells of a slow one.
func (q *queries) observe(ctx context.Context, c Caller, r QueryRequest, page *QueryPage, err error, took time.Duration) {
	n := &q.count
	n.queries.Add(1)
	n.nanos.Add(int64(took))
	n.rows.Add(int64(len(page.Twins) + len(page.Rows)))
	if err != nil {
		n.failed.Add(1)
		if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeQueryBudget {
			n.overBudget.Add(1)
		}
	}
	if took < q.hub.limits.QuerySlow {
		return
	}
	n.slow.Add(1)
	text := r.Text
	if text == "" {
		text = r.Where
	}
	attrs := []slog.Attr{
		slog.String("query", clip(text)), slog.Duration("took", took.Round(time.Microsecond)),
		slog.String("caller", clip(c.Principal.String())), slog.String("request_id", clip(c.RequestID)),
	}
	if page.Plan != nil {
		attrs = append(attrs, slog.String("plan", clip(planSummary(page.Plan))))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	q.hub.log.LogAttrs(ctx, slog.LevelWarn, "slow query", attrs...)
}
