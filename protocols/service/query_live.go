package service

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
)

type livePage struct {
	Events []liveDocument `json:"events"`
	Cursor string         `json:"cursor" doc:"Resumes after these events."`
}

type liveDocument struct {
	Cursor   string          `json:"cursor,omitempty" doc:"Resumes right after this event."`
	Kind     string          `json:"kind" enum:"row,current,enter,change,leave,reset"`
	Time     time.Time       `json:"time"`
	DeviceID string          `json:"deviceId,omitempty"`
	ModuleID string          `json:"moduleId,omitempty"`
	Position uint64          `json:"position" doc:"Of the newest commit when this was so."`
	Row      json.RawMessage `json:"row,omitempty" schema:"object" doc:"What the query shows. SELECT * shows what columns hold: the twin without etag, version, $metadata and lastActivityTime."`
}

func liveRoutes() []*route {
	return []*route{{
		method: http.MethodGet, pattern: "/api/v1/query/live", operation: "followQuery", tag: tagQueries, permission: auth.ServiceConnect, shape: shapeProblem,
		summary: "Follows a query's result, with Accept: text/event-stream as server-sent events, or as a WebSocket of pages. First a row for each device that is selected, by id, and current when these are all; then enter, change and leave as devices change, in commit order. Whoever is behind gets reset, and all rows again.",
		query: []parameter{
			{name: "query", kind: "string", text: "A query, SELECT ... FROM devices or devices.modules. It, where, or name."},
			{name: "where", kind: "string", text: "A bare predicate, such as tags.site == \"A\"."},
			{name: "source", kind: "string", text: "What where is about: devices (when absent) or modules."},
			{name: "name", kind: "string", text: "A saved query."},
			{name: "cursor", kind: "string", text: "Resume right after the event that had this one; absent: from a snapshot. Also taken as Last-Event-ID."},
		},
		response: livePage{}, handle: followQuery,
		also: map[int]string{http.StatusSwitchingProtocols: "The WebSocket is open.", http.StatusTooManyRequests: "As many streams or distinct live queries as allowed are open."},
	}}
}

func followQuery(c *call) (answer, error) {
	r, err := c.liveRequest()
	if err != nil {
		return answer{}, err
	}
	if _, streams := c.upgrades(); !streams {
		return answer{}, invalid("a live query is a stream: send Accept: text/event-stream, or open a WebSocket")
	}
	return c.stream(func() (follower, error) {
		q, err := c.hub.LiveQuery(c.r.Context(), c.caller, r)
		return liveFollower{q}, err
	})
}

// liveRequest is what the request asks to follow.
func (c *call) liveRequest() (r engine.QueryRequest, err error) {
	given := 0
	for _, name := range []string{"query", "where", "name"} {
		if c.query.Get(name) != "" {
			given++
		}
	}
	if given != 1 {
		return r, invalid("%d of the parameters query, where and name are given; expected one of them", given)
	}
	r = engine.QueryRequest{Text: c.query.Get("query"), Where: c.query.Get("where")}
	switch source := c.query.Get("source"); {
	case source != "" && r.Where == "":
		return r, invalid("source goes with where; a query names its own behind FROM")
	case source == "modules":
		r.Source = query.Modules
	case source != "" && source != "devices":
		return r, invalid("the source is %q; expected devices or modules", clip(source))
	}
	if name := c.query.Get("name"); name != "" {
		saved, err := c.hub.SavedQuery(c.r.Context(), c.caller, name, 0)
		if err != nil {
			return r, err
		}
		r = saved.Request()
	}
	r.Token = c.streamCursor()
	return r, nil
}

// liveFollower tells what a live query does.
type liveFollower struct{ *engine.LiveQuery }

func (f liveFollower) next(ctx context.Context, idle time.Duration) (tellable, error) {
	list, err := f.Next(ctx, idle)
	return liveList(list), err
}

func (liveFollower) schema() int { return 0 }

// liveList is events of a live query. Cursors and kinds are put between what all
// queries that show the same of a row share.
type liveList []query.LiveEvent

func (l liveList) count() int { return len(l) }

func (l liveList) appendText(b []byte, i int) []byte {
	e := &l[i]
	b = append(b, "id: "...)
	from := len(b)
	b = e.AppendCursor(b)
	cursor := b[from:]
	b = append(append(append(b, "\nevent: "...), e.Kind.String()...), dataField...)
	b = appendLive(b, e, cursor)
	return append(b, "\n\n"...)
}

func (l liveList) appendDocument(b []byte, i int) []byte {
	var room [64]byte
	return appendLive(b, &l[i], l[i].AppendCursor(room[:0]))
}

// appendLive adds a liveDocument.
func appendLive(b []byte, e *query.LiveEvent, cursor []byte) []byte {
	b = append(b, '{')
	if e.Kind != query.LiveReset {
		b = append(append(append(b, `"cursor":"`...), cursor...), `",`...)
	}
	b = append(append(append(b, `"kind":"`...), e.Kind.String()...), '"')
	return append(append(b, e.Text()...), '}')
}
