package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Twin is a device's or module's twin as IoT Hub shows it to services.
// Sections are kept as they came, so that numbers keep their text.
type Twin struct {
	DeviceID         string          `json:"deviceId"`
	ModuleID         string          `json:"moduleId,omitempty"`
	ETag             string          `json:"etag"`
	Version          int64           `json:"version"`
	Status           string          `json:"status,omitempty"`
	ConnectionState  string          `json:"connectionState,omitempty"`
	LastActivityTime Time            `json:"lastActivityTime,omitzero"`
	ModelID          string          `json:"modelId,omitempty"`
	Tags             json.RawMessage `json:"tags,omitempty"`
	Properties       TwinProperties  `json:"properties"`

	// Configurations are those that select the twin, by id.
	Configurations map[string]TwinConfiguration `json:"configurations,omitempty"`

	Raw json.RawMessage `json:"-"` // the whole document as it came
}

// TwinConfiguration is how a configuration stands on a twin.
type TwinConfiguration struct {
	Status string `json:"status"` // Targeted or Applied
}

// TwinProperties are the two sections of properties with their $metadata.
type TwinProperties struct {
	Desired  json.RawMessage `json:"desired,omitempty"`
	Reported json.RawMessage `json:"reported,omitempty"`
}

func (s *Service) twin(ctx context.Context, r Request) (Twin, error) {
	var t Twin
	if err := s.Do(ctx, r, &t.Raw); err != nil {
		return t, err
	}
	raw := t.Raw
	err := json.Unmarshal(raw, &t)
	t.Raw = raw
	return t, err
}

// Twin reads a twin; moduleID is empty for a device's.
func (s *Service) Twin(ctx context.Context, deviceID, moduleID string) (Twin, error) {
	return s.twin(ctx, Request{Method: http.MethodGet, Path: identityPath("/twins", deviceID, moduleID)})
}

// PatchTwin merges a document with tags and properties.desired into a twin;
// null deletes. etag may be empty.
func (s *Service) PatchTwin(ctx context.Context, deviceID, moduleID string, patch json.RawMessage, etag string) (Twin, error) {
	return s.twin(ctx, Request{Method: http.MethodPatch, Path: identityPath("/twins", deviceID, moduleID), IfMatch: etag, Body: patch})
}

// ReplaceTwin replaces the sections that the document holds. etag may be empty.
func (s *Service) ReplaceTwin(ctx context.Context, deviceID, moduleID string, doc json.RawMessage, etag string) (Twin, error) {
	return s.twin(ctx, Request{Method: http.MethodPut, Path: identityPath("/twins", deviceID, moduleID), IfMatch: etag, Body: doc})
}

// HistoryEntry is one change of an identity or of a section of its twin.
type HistoryEntry struct {
	ID        string          `json:"id"`
	Section   string          `json:"section"`
	Version   int64           `json:"version"`
	Time      Time            `json:"time"`
	Principal string          `json:"principal"`
	Cause     string          `json:"cause,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Patch     json.RawMessage `json:"patch,omitempty"`
	Undo      json.RawMessage `json:"undo,omitempty"`
}

// TwinHistory walks a twin's changes, newest first, of one section or of all
// when section is empty.
func (s *Service) TwinHistory(ctx context.Context, deviceID, moduleID, section string) iter.Seq2[HistoryEntry, error] {
	q := url.Values{}
	if section != "" {
		q.Set("section", section)
	}
	return pages[HistoryEntry](ctx, s, identityPath("/api/v1/twins", deviceID, moduleID)+"/history", q, 100)
}

// Difference is one path that differs between two states of a twin.
type Difference struct {
	Path   string          `json:"path"`
	Before json.RawMessage `json:"before,omitempty"` // absent when there was none
	After  json.RawMessage `json:"after,omitempty"`
}

// TwinDiff compares a twin at two moments: a history entry's id, an RFC 3339
// time or "now".
func (s *Service) TwinDiff(ctx context.Context, deviceID, moduleID, from, to string) ([]Difference, error) {
	var out struct {
		Changes []Difference `json:"changes"`
	}
	err := s.Do(ctx, Request{
		Method: http.MethodGet, Path: identityPath("/api/v1/twins", deviceID, moduleID) + "/diff",
		Query: url.Values{"from": {from}, "to": {to}},
	}, &out)
	return out.Changes, err
}

// MethodCall is a direct method to invoke.
type MethodCall struct {
	Name            string
	Payload         json.RawMessage // any JSON; nil sends none
	ResponseTimeout time.Duration   // whole seconds, 5 to 300; 0 = the hub's default
	ConnectTimeout  time.Duration   // whole seconds to wait for a device that is offline
}

// MethodResult is what the device answered.
type MethodResult struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"`
}

// InvokeMethod calls a direct method and waits for the device's answer.
func (s *Service) InvokeMethod(ctx context.Context, deviceID, moduleID string, c MethodCall) (MethodResult, error) {
	body := struct {
		Name            string          `json:"methodName"`
		Payload         json.RawMessage `json:"payload,omitempty"`
		ResponseTimeout int             `json:"responseTimeoutInSeconds,omitempty"`
		ConnectTimeout  int             `json:"connectTimeoutInSeconds,omitempty"`
	}{c.Name, c.Payload, int(c.ResponseTimeout / time.Second), int(c.ConnectTimeout / time.Second)}
	var out MethodResult
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: identityPath("/twins", deviceID, moduleID) + "/methods", Body: body}, &out)
	return out, err
}
