package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const (
	eventHeartbeat = 15 * time.Second // of a silent stream
	eventLook      = time.Second      // how often a waiting stream looks whether the hub goes
	eventWrite     = 10 * time.Second // a reader that takes nothing for so long is let go
	eventWaitMost  = time.Minute
)

func eventRoutes() []*route {
	return []*route{{
		method: http.MethodGet, pattern: "/api/v1/events", operation: "readEvents", tag: tagEvents, permission: auth.ServiceConnect, shape: shapeProblem,
		summary: "Reads changes and telemetry in order. With Accept: text/event-stream a stream of server-sent events that goes on until the client leaves; else a page.",
		query: []parameter{
			{name: "cursor", kind: "string", text: "Resume right after this one; start for the oldest event kept; absent: from now. A stream also takes it as Last-Event-ID."},
			{name: "device", kind: "string", text: "Only this device and its modules; repeatable; PREFIX* for many."},
			{name: "kind", kind: "string", text: "Only this kind, such as telemetry or twin.reported; repeatable; twin.* for many."},
			{name: "limit", kind: "integer", text: "At most so many events on a page, 1 to 1000; 100 when absent."},
			{name: "wait", kind: "integer", text: "Seconds to wait for a first event, up to 60; 0 when absent. Pages only."},
		},
		response: eventPage{}, handle: readEvents,
		also: map[int]string{http.StatusTooManyRequests: "As many streams as allowed are open."},
	}}
}

type eventPage struct {
	Events []eventDocument `json:"events"`
	Cursor string          `json:"cursor" doc:"Where the next page begins."`
}

type eventDocument struct {
	Cursor    string             `json:"cursor" doc:"Resumes right after this event."`
	Kind      string             `json:"kind" doc:"telemetry, twin.reported, identity.created, session.connected and so on; gap where events are gone."`
	Time      time.Time          `json:"time"`
	DeviceID  string             `json:"deviceId,omitempty"`
	ModuleID  string             `json:"moduleId,omitempty"`
	Principal string             `json:"principal,omitempty"`
	Cause     string             `json:"cause,omitempty"`
	Version   int64              `json:"version,omitempty"`
	Data      json.RawMessage    `json:"data,omitempty" doc:"What was written."`
	Message   *telemetryDocument `json:"message,omitempty" doc:"Of telemetry."`
}

type telemetryDocument struct {
	Body       any               `json:"body" doc:"JSON as it came, text as a string, anything else as base64."`
	Encoding   string            `json:"encoding" enum:"json,text,base64"`
	Properties map[string]string `json:"properties" doc:"The application's."`
	System     map[string]string `json:"systemProperties" doc:"By IoT Hub's names."`
}

func showEvent(e engine.Event) eventDocument {
	d := eventDocument{
		Cursor: e.Cursor, Kind: e.Kind, Time: e.Time, DeviceID: e.ID.DeviceID, ModuleID: e.ID.ModuleID,
		Principal: e.Principal, Cause: e.Cause, Version: e.Version, Data: e.Data,
	}
	if m := e.Message; m != nil {
		d.Message = &telemetryDocument{Properties: propertyMap(m.Properties), System: propertyMap(m.System)}
		switch {
		case json.Valid(m.Body):
			d.Message.Body, d.Message.Encoding = json.RawMessage(m.Body), "json"
		case utf8.Valid(m.Body):
			d.Message.Body, d.Message.Encoding = string(m.Body), "text"
		default:
			d.Message.Body, d.Message.Encoding = m.Body, "base64"
		}
	}
	return d
}

func propertyMap(list []engine.Property) map[string]string {
	m := make(map[string]string, len(list))
	for _, p := range list {
		m[p.Name] = p.Value
	}
	return m
}

func readEvents(c *call) (answer, error) {
	f := engine.EventFilter{Devices: c.query["device"], Kinds: c.query["kind"]}
	cursor := c.query.Get("cursor")
	if strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		if last := c.r.Header.Get("Last-Event-ID"); last != "" {
			cursor = last // the browser's resume is younger than the address
		}
		return c.streamEvents(f, cursor)
	}
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	wait, err := c.integer("wait", 0, 0, int(eventWaitMost.Seconds()))
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), time.Duration(wait)*time.Second)
	defer cancel()
	for {
		list, next, err := c.hub.ReadEvents(c.r.Context(), c.caller, f, cursor, limit)
		if err != nil {
			return answer{}, err
		}
		if len(list) > 0 || wait == 0 || !c.waitEvents(ctx, next) {
			page := eventPage{Events: make([]eventDocument, 0, len(list)), Cursor: next}
			for _, e := range list {
				page.Events = append(page.Events, showEvent(e))
			}
			return answer{body: page}, nil
		}
		cursor = next
	}
}

// waitEvents waits until there is something after the cursor. It is false
// when ctx ended or the hub shuts down.
func (c *call) waitEvents(ctx context.Context, cursor string) bool {
	for !c.hub.Draining() && ctx.Err() == nil {
		look, cancel := context.WithTimeout(ctx, eventLook)
		err := c.hub.WaitEvents(look, cursor)
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}

// streamEvents sends events until the client leaves, takes nothing any more,
// or the hub shuts down. Each ends where it can be resumed.
func (c *call) streamEvents(f engine.EventFilter, cursor string) (answer, error) {
	defer c.streams.Add(-1)
	if most := c.hub.Limits().EventStreams; c.streams.Add(1) > int64(most) {
		return answer{}, &engine.Error{Code: engine.CodeThrottled, Message: fmt.Sprintf("%d event streams are open, which is the most; close one, or read pages", most)}
	}
	ctx := c.r.Context()
	list, next, err := c.hub.ReadEvents(ctx, c.caller, f, cursor, pageMost)
	if err != nil {
		return answer{}, err
	}
	head := c.w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no") // a proxy must not gather events
	c.w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(c.w)
	done := answer{sent: true}
	write := func(text []byte) bool {
		if err := out.SetWriteDeadline(time.Now().Add(eventWrite)); err != nil {
			return false
		}
		if _, err := c.w.Write(text); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	if !write(fmt.Appendf(nil, "retry: 1000\nid: %s\n: connected\n\n", next)) {
		return done, nil
	}
	known := time.Now()
	for {
		var text []byte
		for _, e := range list {
			data, err := json.Marshal(showEvent(e))
			if err != nil {
				return done, nil
			}
			text = fmt.Appendf(text, "id: %s\nevent: %s\ndata: %s\n\n", e.Cursor, e.Kind, data)
		}
		if len(text) > 0 && !write(text) {
			return done, nil
		}
		silence, cancel := context.WithTimeout(ctx, eventHeartbeat)
		more := c.waitEvents(silence, next)
		cancel()
		if ctx.Err() != nil || c.hub.Draining() {
			return done, nil
		}
		list = nil
		if !more {
			// The id lets a reader with a narrow filter resume near the tail.
			if !write(fmt.Appendf(nil, "id: %s\n: alive\n\n", next)) {
				return done, nil
			}
			continue
		}
		// A token that ran out, or whose policy is gone, ends its stream.
		if now := time.Now(); now.Sub(known) >= eventHeartbeat {
			if c.caller.Principal, err = c.authenticate(); err != nil {
				return done, nil
			}
			known = now
		}
		if list, next, err = c.hub.ReadEvents(ctx, c.caller, f, next, pageMost); err != nil {
			return done, nil
		}
	}
}
