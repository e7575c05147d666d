package service

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// eventWaitMost is how long a page waits at most.
const eventWaitMost = time.Minute

func eventRoutes() []*route {
	return []*route{{
		method: http.MethodGet, pattern: "/api/v1/events", operation: "readEvents", tag: tagEvents, permission: auth.ServiceConnect, shape: shapeProblem,
		summary: "Reads changes and telemetry in order. With Accept: text/event-stream a stream of server-sent events, as a WebSocket a stream of pages, that go on until the client leaves; else a page.",
		query: []parameter{
			{name: "cursor", kind: "string", text: "Resume right after this one; start for the oldest event kept; a time such as 2026-01-31T08:00:00Z for the first event of then or later; absent: from now. A stream also takes it as Last-Event-ID."},
			{name: "device", kind: "string", text: "Only this device and its modules; repeatable; PREFIX* for many."},
			{name: "kind", kind: "string", text: "Only this kind, such as telemetry or twin.reported; repeatable; twin.* for many."},
			{name: "schema", kind: "string", text: "muster (when absent) or iothub: IoT Hub's messages, with their system and application properties; kinds that IoT Hub does not have are left out."},
			{name: "limit", kind: "integer", text: "At most so many events on a page, 1 to 1000; 100 when absent."},
			{name: "wait", kind: "integer", text: "Seconds to wait for a first event, up to 60; 0 when absent. Pages only; who waits counts as a stream."},
		},
		response: eventPage{}, handle: readEvents,
		also: map[int]string{http.StatusSwitchingProtocols: "The WebSocket is open.", http.StatusTooManyRequests: "As many streams as allowed are open, in all or of this principal; who waits for a page counts as one."},
	}}
}

func readEvents(c *call) (answer, error) {
	f := engine.EventFilter{Devices: c.query["device"], Kinds: c.query["kind"]}
	form, err := c.eventForm()
	if err != nil {
		return answer{}, err
	}
	if _, streams := c.upgrades(); streams {
		return c.stream(func() (follower, error) {
			sub, err := c.hub.Subscribe(c.r.Context(), c.caller, f, c.streamCursor())
			return eventFollower{sub, form}, err
		})
	}
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	wait, err := c.integer("wait", 0, 0, int(eventWaitMost.Seconds()))
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.ReadEvents(c.r.Context(), c.caller, f, c.query.Get("cursor"), limit)
	if err != nil {
		return answer{}, err
	}
	events := make([]*engine.Event, len(list))
	for i := range list {
		events[i] = &list[i]
	}
	page, shown := appendPage(nil, eventList{form, events}, next)
	if shown == 0 && wait > 0 {
		page, err = c.awaitEvents(f, form, next, limit, time.Duration(wait)*time.Second)
	}
	return answer{body: json.RawMessage(page)}, err
}

// awaitEvents waits for a first event behind the cursor. Who waits is a reader
// like those of streams, and counts as one.
func (c *call) awaitEvents(f engine.EventFilter, form eventForm, cursor string, limit int, wait time.Duration) ([]byte, error) {
	sub, err := c.hub.Subscribe(c.r.Context(), c.caller, f, cursor)
	if err != nil {
		c.countRefused(err)
		return nil, err
	}
	defer sub.Close()
	c.wait(wait)
	for until := time.Now().Add(wait); ; {
		list, err := sub.Next(c.r.Context(), time.Until(until))
		next := sub.Cursor()
		switch {
		case err != nil && c.hub.Draining():
			list = nil // the page ends, as the wait does
		case c.r.Context().Err() != nil:
			return nil, &engine.Error{Code: engine.CodeCanceled, Message: "the caller went away before there was an event"}
		case err != nil:
			return nil, err
		case len(list) > limit:
			list = list[:limit]
			next = list[limit-1].Cursor
		}
		page, shown := appendPage(nil, eventList{form, list}, next)
		if shown > 0 || len(list) == 0 || len(list) == limit || !time.Now().Before(until) {
			return page, nil
		}
	}
}

// eventForm is the schema that the request names.
func (c *call) eventForm() (eventForm, error) {
	name := c.query.Get("schema")
	for _, f := range eventForms(c.hub) {
		if f.name == name || name == "" {
			return f, nil
		}
	}
	return eventForm{}, invalid("the schema %.40q is not known; expected muster or iothub", name)
}
