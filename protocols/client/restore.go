package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// PastTwin is a twin as it was at a moment.
type PastTwin struct {
	DeviceID string          `json:"deviceId"`
	ModuleID string          `json:"moduleId,omitempty"`
	At       string          `json:"at"`
	Tags     json.RawMessage `json:"tags"`
	Desired  json.RawMessage `json:"desired"`
	Reported json.RawMessage `json:"reported"`
}

// TwinAsOf reads a twin as it was at a moment: a history entry's id or an RFC
// 3339 time.
func (s *Service) TwinAsOf(ctx context.Context, deviceID, moduleID, at string) (PastTwin, error) {
	var t PastTwin
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: identityPath("/api/v1/twins", deviceID, moduleID) + "/as-of", Query: url.Values{"at": {at}}}, &t)
	return t, err
}

// Restoration asks for an earlier state of tags, desired or both.
type Restoration struct {
	To       string   `json:"to"`
	Sections []string `json:"sections,omitempty"` // nil: both
	DryRun   bool     `json:"dryRun,omitempty"`
}

// RestoreTwin takes a twin back, or says what that would change. etag may be
// empty.
func (s *Service) RestoreTwin(ctx context.Context, deviceID, moduleID string, r Restoration, etag string) ([]Difference, error) {
	var out struct {
		Changes []Difference `json:"changes"`
	}
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: identityPath("/api/v1/twins", deviceID, moduleID) + "/restore", IfMatch: etag, Body: r}, &out)
	return out.Changes, err
}
