package engine

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
)

// liveQueries follows the results of queries: one evaluation of each distinct
// query, told to whoever subscribed to it. Changes come through sets, in commit
// order and before they are acknowledged; a goroutine of its own wakes the
// subscribers and does what time alone does.
type liveQueries struct {
	queries *queries
	sets    [querySources]*query.Live

	telling   sync.Mutex // of Tell; taken before the queries' lock
	refreshed time.Time  // when the columns last took the times of activity
	// Many subscriptions wait and few have events, so they borrow the room for these.
	taken sync.Pool // *[]query.LiveEvent

	mu         sync.Mutex
	open       int
	principals map[string]int // open subscriptions of each
}

const (
	liveBytes  = 64 << 20        // of events that are kept for those who are behind or come again, a source
	liveLinger = 2 * time.Minute // how long a query is followed that nobody reads: they come again
	liveTake   = 512             // events that a subscription takes in one go
	// Pages that a subscription gets when the hub shuts down: one that others had before, and what has
	// gathered since.
	liveLast = 2
	// How long events gather of a query of which many come, before its readers are
	// told: for each open subscription, and at most. A turn of a subscription, in
	// which it is woken and writes, takes 20 to 50 us of a processor, so that all of
	// them take 1 to 2 % of one, however much changes.
	liveEach   = 2400 * time.Microsecond
	liveGather = 250 * time.Millisecond
	// How old the times of activity may be in what live queries show, and how
	// often they are looked at when conditions wait for them.
	liveActivity     = 5 * time.Second
	liveActivityWait = time.Second
)

// newLiveQueries makes the live queries over the columns of queries, which must
// be changed through sets from then on.
func newLiveQueries(q *queries, limits *Limits) *liveQueries {
	var instance [6]byte
	_, _ = rand.Read(instance[:]) // it never fails
	l := &liveQueries{queries: q, principals: map[string]int{}}
	for i, c := range q.columns {
		l.sets[i] = query.NewLive(c, query.LiveOptions{
			Queries: limits.LiveQueries, Bytes: liveBytes, Linger: liveLinger, Text: LiveText, Instance: base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(instance[:]), Quiet: []string{"lastActivityTime"},
		})
	}
	return l
}

// LiveQuery is a subscription to the result of a query, for one goroutine at a
// time. Its events are, by their Kind:
//
//   - row: a row of the snapshot, by id. Between them come events of rows that
//     were given already.
//   - current: the snapshot is whole, and this is the result at Position.
//   - enter, change, leave: a row is selected from now on, shows something
//     else, or is selected no longer; in commit order.
//   - reset: events are gone, or the hub was restarted. All rows are to be
//     forgotten, a snapshot follows.
type LiveQuery struct {
	live      *liveQueries
	reader    *query.LiveReader
	source    query.Source
	principal string
	timer     *time.Timer
	last      int                // pages taken since the hub began to shut down
	taken     *[]query.LiveEvent // room for what Next returned; nil when that was given back, or is not there
}

// LiveQuery subscribes to the result of a query, from a snapshot on or, with a
// cursor of one of its events in r.Token, right after that event. Close must be
// called. Errors are those of Query; CodeArgumentInvalid also for a query that
// can't be followed, CodeThrottled when as many as allowed are followed. It
// needs ServiceConnect.
func (h *Hub) LiveQuery(ctx context.Context, c Caller, r QueryRequest) (*LiveQuery, error) {
	if err := h.authorize(ctx, c, opQueryLive, "*"); err != nil {
		return nil, err
	}
	q, err := h.ParseQuery(r)
	if err != nil {
		return nil, err
	}
	if err := query.CheckLive(q); err != nil {
		return nil, liveError(err)
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return nil, err
	}
	l := h.queries.following
	principal := c.Principal.String()
	if err := l.enter(principal); err != nil {
		return nil, err
	}
	l.tell(time.Now(), q.Source(), q.Reads("lastActivityTime"))
	reader, err := l.sets[q.Source()].Open(q, r.Token)
	if err != nil {
		l.leave(principal)
		return nil, liveError(err)
	}
	s := &LiveQuery{live: l, reader: reader, source: q.Source(), principal: principal, timer: time.NewTimer(time.Hour)}
	return s, nil
}

// liveError gives an error of package query its code.
func liveError(err error) error {
	switch {
	case errors.Is(err, query.ErrLiveFull):
		return &Error{Code: CodeThrottled, Message: err.Error(), Next: "Follow a query that is followed already, or come again."}
	case errors.Is(err, query.ErrLiveCursor):
		return &Error{Code: CodeArgumentInvalid, Message: err.Error(), Next: "Send one from an event of the same query, or none to begin with a snapshot."}
	}
	e := wrapf(CodeArgumentInvalid, err, "the query can't be followed: %s", err.Error())
	e.Next = "Mend the query at that place, or ask it again and again: `muster query --watch`."
	if _, ok := errors.AsType[*query.LiveError](err); ok {
		e.Next = "Ask for paths that have a column (`muster schema` shows which), or ask again and again: `muster query --watch`."
	}
	return e
}

// enter counts a subscription of a principal, within the limits.
func (l *liveQueries) enter(principal string) error {
	hub := l.queries.hub
	limits := &hub.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case hub.draining.Load():
		return errf(CodeClosed, "the hub is shutting down")
	case l.open >= limits.LiveStreams:
		return &Error{Code: CodeThrottled, Message: plural(limits.LiveStreams, "live query stream") + " are open, the most of this hub", Next: "Close one, or read pages."}
	case l.principals[principal] >= limits.LiveStreamsEach:
		return &Error{Code: CodeThrottled, Message: plural(limits.LiveStreamsEach, "live query stream") + " of " + principal + " are open, the most of one principal", Next: "Close one, use another policy, or read pages."}
	}
	l.open++
	l.principals[principal]++
	return nil
}

// leave is the other end of enter.
func (l *liveQueries) leave(principal string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.principals[principal]--; l.principals[principal] == 0 {
		delete(l.principals, principal)
	}
}

// Close ends the subscription.
func (s *LiveQuery) Close() {
	s.timer.Stop()
	s.reader.Close()
	s.live.leave(s.principal)
}

// Cursor resumes after all that Next has returned. It is empty while only the
// one that LiveQuery was given would do: a reset is yet to come.
func (s *LiveQuery) Cursor() string { return s.reader.Cursor() }

// Batch returns the id of the list that Next returned last. shared is false
// when nobody else gets the same.
func (s *LiveQuery) Batch() (id BatchID, shared bool) {
	b := s.reader.Batch()
	if b.Query == 0 {
		return BatchID{}, false
	}
	return BatchID{b.Query, b.From, "live " + s.source.String() + " " + strconv.FormatUint(b.To, 36)}, true
}

// Next waits for events and returns them, at most so many that one can write
// them at once. It returns none when nothing came for idle. Errors: ctx's,
// CodeClosed when the hub shuts down, and CodeArgumentInvalid when the query
// can't be followed any more. Others may have the list, too; it is good until
// Release or the next call.
func (s *LiveQuery) Next(ctx context.Context, idle time.Duration) ([]query.LiveEvent, error) {
	s.timer.Reset(idle)
	s.Release()
	drained := s.live.queries.hub.events.drained
	for {
		draining := false
		select {
		case <-drained:
			draining = true
		case <-ctx.Done():
			return nil, ctx.Err()
		default:
		}
		if s.last == liveLast {
			return nil, errf(CodeClosed, "the hub is shutting down")
		}
		list, more, err := s.take()
		if err != nil {
			return nil, liveError(err)
		}
		if len(list) > 0 {
			if draining {
				s.last++
			}
			return list, nil
		}
		if draining {
			s.last = liveLast // all has been said
			continue
		}
		select {
		case <-more:
		case <-s.timer.C:
			return nil, nil
		case <-drained:
		case <-ctx.Done():
		}
	}
}

// Release lets go of what Next returned, which may be much, before what is
// made of it is sent to somebody who may be slow.
func (s *LiveQuery) Release() {
	if s.taken != nil {
		clear(*s.taken)
		s.live.taken.Put(s.taken)
		s.taken = nil
	}
}

// take lists what comes next.
func (s *LiveQuery) take() (list []query.LiveEvent, more <-chan struct{}, err error) {
	t, ok := s.live.taken.Get().(*[]query.LiveEvent)
	if !ok {
		t = new([]query.LiveEvent)
	}
	s.taken = t
	list, more, err = s.reader.Next(liveTake, (*t)[:0])
	if s.reader.Batch().Query == 0 {
		*t = list
	}
	if s.reader.Batch().Query > 0 || len(list) == 0 {
		s.Release()
	}
	return list, more, err
}

// LiveIdentity returns whose row an event of a live query is about.
func LiveIdentity(e *query.LiveShown) TwinID { return twinIDOfRow(e.ID()) }

// LiveText adds the members that the document of an event has behind its kind, each
// with a comma before it, up to its row, which comes last. Text of an event is this
// with the row.
func LiveText(b []byte, row string, position uint64, at time.Time, shows query.LiveRowText) []byte {
	b = at.UTC().AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano)
	b = append(b, '"')
	id := twinIDOfRow(row)
	if id.DeviceID != "" {
		b = twin.AppendString(append(b, `,"deviceId":`...), id.DeviceID)
	}
	if id.ModuleID != "" {
		b = twin.AppendString(append(b, `,"moduleId":`...), id.ModuleID)
	}
	b = strconv.AppendUint(append(b, `,"position":`...), position, 10)
	switch shows {
	case query.PartialRow:
		b = append(b, `,"partial":true,"row":`...)
	case query.WholeRow:
		b = append(b, `,"row":`...)
	case query.NoRow:
	}
	return b
}

// run wakes subscribers, and does what time does, until ctx ends.
func (l *liveQueries) run(ctx context.Context) {
	next := time.NewTimer(time.Hour)
	defer next.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.sets[query.Devices].Attention():
		case <-l.sets[query.Modules].Attention():
		case <-next.C:
		}
		now := time.Now()
		wait := time.Hour
		l.mu.Lock()
		gather := min(liveGather, time.Duration(l.open)*liveEach)
		l.mu.Unlock()
		for source := range query.Source(querySources) {
			for _, at := range [...]time.Time{l.tell(now, source, false), l.sets[source].Wake(now, gather)} {
				if !at.IsZero() {
					wait = min(wait, at.Sub(now))
				}
			}
		}
		next.Reset(max(wait, time.Millisecond))
		pause.Reset(feedLeast)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// tell has a source's live queries do what time does. It returns when it is to be
// called again; zero: at their attention. Times of activity are in memory, and are
// taken over before conditions wait for them: else a device would be told of as
// silent that was not. activity says that a query is about to be followed that
// reads them.
func (l *liveQueries) tell(now time.Time, source query.Source, activity bool) (next time.Time) {
	l.telling.Lock()
	defer l.telling.Unlock()
	set := l.sets[source]
	if !activity && !set.Follows(query.Path{"lastActivityTime"}) {
		return set.Tell(now)
	}
	if now.Sub(l.refreshed) >= liveActivityWait || activity && source != query.Devices {
		l.queries.takeActivity()
		l.refreshed = now
	}
	next = set.Tell(l.refreshed)
	if least := l.refreshed.Add(liveActivityWait); next.Before(least) && !next.IsZero() {
		next = least
	}
	if most := l.refreshed.Add(liveActivity); next.IsZero() || next.After(most) {
		next = most
	}
	return next
}

// LiveQueryStats are figures of live queries.
type LiveQueryStats struct {
	Queries       int64 // distinct ones that are followed
	Subscriptions int64
	Lagged        int64 // how often a subscription was left behind and got a snapshot again
}

// LiveQueryStats returns the figures of live queries, for metrics.
func (h *Hub) LiveQueryStats() (sum LiveQueryStats) {
	for _, set := range h.queries.following.sets {
		s := set.Stats()
		sum.Queries += int64(s.Queries)
		sum.Subscriptions += int64(s.Readers)
		sum.Lagged += s.Lagged
	}
	return sum
}
