package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// EventQuery says which events are wanted; a * at the end of an item makes it
// a prefix.
type EventQuery struct {
	Devices []string
	Kinds   []string
	Schema  string        // "" or "muster", or "iothub": then Event.IoTHub is set
	Cursor  string        // "" = from now, "start" = from the oldest
	Wait    time.Duration // of a page, for a first event: whole seconds up to a minute
	Limit   int           // of a page; 0 = 100
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
	Twin      json.RawMessage `json:"twin,omitempty"`
	Message   *EventMessage   `json:"message,omitempty"`

	IoTHub *IoTHubEvent    `json:"-"` // in IoT Hub's words, when they were asked for; only Cursor is set beside it
	Raw    json.RawMessage `json:"-"` // as it came
}

// EventMessage is the message of a telemetry event.
type EventMessage struct {
	Body       json.RawMessage   `json:"body"`
	Encoding   string            `json:"encoding"` // "json", "text", "base64"
	Properties map[string]string `json:"properties"`
	System     map[string]string `json:"systemProperties"`
}

// IoTHubEvent is an event as IoT Hub's built-in endpoint gives it.
type IoTHubEvent struct {
	Enqueued   Time              `json:"enqueuedTimeUtc"`
	System     map[string]any    `json:"systemProperties"`
	Properties map[string]string `json:"properties"`
	Body       json.RawMessage   `json:"body"`
	Encoding   string            `json:"bodyEncoding"` // "json", "text", "base64"
}

func (q EventQuery) values() url.Values {
	v := url.Values{"device": q.Devices, "kind": q.Kinds}
	if q.Schema != "" {
		v.Set("schema", q.Schema)
	}
	if q.Cursor != "" {
		v.Set("cursor", q.Cursor)
	}
	return v
}

// decode reads one event in the query's schema.
func (q EventQuery) decode(raw json.RawMessage) (e Event, err error) {
	if q.Schema == "iothub" {
		e.IoTHub = &IoTHubEvent{}
		err = json.Unmarshal(raw, e.IoTHub)
		var c struct{ Cursor string }
		err = errors.Join(err, json.Unmarshal(raw, &c))
		e.Cursor = c.Cursor
	} else {
		err = json.Unmarshal(raw, &e)
	}
	e.Raw = raw
	return e, err
}

// Events reads a page of events. next is where the following page begins.
func (s *Service) Events(ctx context.Context, q EventQuery) (list []Event, next string, err error) {
	query := q.values()
	if q.Wait > 0 {
		query.Set("wait", strconv.Itoa(int(q.Wait.Seconds())))
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	var page struct {
		Events []json.RawMessage `json:"events"`
		Cursor string            `json:"cursor"`
	}
	if err = s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/events", Query: query}, &page); err != nil {
		return nil, "", err
	}
	for _, raw := range page.Events {
		e, err := q.decode(raw)
		if err != nil {
			return nil, "", fmt.Errorf("read the hub's event: %w", err)
		}
		list = append(list, e)
	}
	return list, page.Cursor, nil
}

// followSilence is how long a stream may be silent: a hub that is there says
// so every 15 seconds.
const followSilence = 45 * time.Second

// followLine is the longest line of a stream: a message of 256 KiB in base64
// with its properties is shorter.
const followLine = 4 << 20

// Follow reads the stream of events (server-sent events) until see returns an
// error, which it returns, or the stream ends: then the error is an *Error
// when the hub refused it or said why it ends, else a *ConnectError. cursor is
// where the stream can be resumed, whatever the error is.
func (s *Service) Follow(ctx context.Context, q EventQuery, see func(Event) error) (cursor string, err error) {
	return s.follow(ctx, "/api/v1/events", q.values(), func(data []byte) (string, error) {
		e, err := q.decode(data)
		if err != nil {
			return "", fmt.Errorf("read the hub's event: %w", err)
		}
		return e.Cursor, see(e)
	})
}

// follow reads a stream of server-sent events. see is given each one's data,
// which it may keep, and returns the cursor behind it.
func (s *Service) follow(ctx context.Context, path string, values url.Values, see func(data []byte) (string, error)) (cursor string, err error) {
	cursor = values.Get("cursor")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := s.request(ctx, Request{Method: http.MethodGet, Path: path, Query: values})
	if err != nil {
		return cursor, err
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := s.http.Do(req)
	if err != nil {
		return cursor, &ConnectError{Target: s.target, Err: err}
	}
	defer func() { _ = res.Body.Close() }() // a stream has no end to read to
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
		if err != nil {
			return cursor, &ConnectError{Target: s.target, Err: err}
		}
		return cursor, parseError(res.StatusCode, res.Header, body)
	}
	silence := time.AfterFunc(followSilence, cancel)
	defer silence.Stop()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, followLine)
	kind, id := "", ""
	for lines.Scan() {
		silence.Reset(followSilence)
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch string(name) {
		case "id":
			id = string(value)
		case "event":
			kind = string(value)
		case "data":
			if kind == "end" {
				var why struct{ Code, Reason, Next string }
				_ = json.Unmarshal(value, &why) // an odd reason is none
				status := http.StatusServiceUnavailable
				switch why.Code {
				case "deleted":
					status = http.StatusNotFound
				case "error": // the hub can't read on, and could not the next time
					status = http.StatusInternalServerError
				}
				return cursor, &Error{Status: status, Code: why.Code, Message: "the hub ended the stream: " + why.Reason, Next: why.Next}
			}
			next, err := see(bytes.Clone(value))
			if err != nil {
				return cursor, err
			}
			cursor = next
		case "":
			if id != "" {
				cursor = id // of what is complete
			}
			kind = ""
		}
	}
	err = lines.Err()
	if err == nil || errors.Is(err, context.Canceled) {
		err = errors.New("the stream of events ended")
	}
	return cursor, &ConnectError{Target: s.target, Err: err}
}

// CursorCovers reports whether a reader at one cursor has seen everything that
// a reader at another has. Cursors of two epochs do not cover each other.
func CursorCovers(at, other string) bool {
	a, b := strings.Split(at, "."), strings.Split(other, ".")
	if len(a) != 3 || len(b) != 3 || a[0] != b[0] {
		return false
	}
	for i := 1; i < 3; i++ {
		x, err := strconv.ParseUint(a[i], 36, 64)
		y, err2 := strconv.ParseUint(b[i], 36, 64)
		if err != nil || err2 != nil || x < y {
			return false
		}
	}
	return true
}
