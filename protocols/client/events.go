package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// EventQuery says which events are wanted; a * at the end of an item makes it
// a prefix.
type EventQuery struct {
	Devices []string
	Kinds   []string
	Cursor  string        // "" = from now, "start" = from the oldest
	Wait    time.Duration // for a first event, whole seconds up to a minute
	Limit   int           // 0 = 100
}

// Event is a change, a device-to-cloud message or a gap.
type Event struct {
	Cursor    string          `json:"cursor"`
	Kind      string          `json:"kind"`
	Time      Time            `json:"time"`
	DeviceID  string          `json:"deviceId,omitempty"`
	ModuleID  string          `json:"moduleId,omitempty"`
	Principal string          `json:"principal,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Version   int64           `json:"version,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Message   *EventMessage   `json:"message,omitempty"`
}

// EventMessage is the message of a telemetry event.
type EventMessage struct {
	Body       json.RawMessage   `json:"body"`
	Encoding   string            `json:"encoding"` // "json", "text", "base64"
	Properties map[string]string `json:"properties"`
	System     map[string]string `json:"systemProperties"`
}

// Events reads a page of events. next is where the following page begins.
func (s *Service) Events(ctx context.Context, q EventQuery) (list []Event, next string, err error) {
	query := url.Values{"device": q.Devices, "kind": q.Kinds}
	if q.Cursor != "" {
		query.Set("cursor", q.Cursor)
	}
	if q.Wait > 0 {
		query.Set("wait", strconv.Itoa(int(q.Wait.Seconds())))
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	var page struct {
		Events []Event `json:"events"`
		Cursor string  `json:"cursor"`
	}
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/events", Query: query}, &page)
	return page.Events, page.Cursor, err
}
