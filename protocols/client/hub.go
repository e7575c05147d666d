package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
)

// Listener is an address where a hub accepts connections.
type Listener struct {
	Kind    string `json:"kind"` // "https", "mqtts", "http"
	Address string `json:"address"`
}

// HubInfo describes a hub.
type HubInfo struct {
	Name        string     `json:"name"`
	Hosts       []string   `json:"hosts"`
	Version     string     `json:"version"`
	Epoch       string     `json:"epoch"`
	Limits      string     `json:"limits"`
	StartedTime Time       `json:"startedTime"`
	Ready       bool       `json:"ready"`
	NotReady    []string   `json:"notReady,omitempty"`
	Paused      bool       `json:"paused"`
	Listeners   []Listener `json:"listeners,omitempty"`
}

// Hub asks what the hub is.
func (s *Service) Hub(ctx context.Context) (HubInfo, error) {
	var h HubInfo
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/hub"}, &h)
	return h, err
}

// Status is a snapshot of a hub for people.
type Status struct {
	Hub     HubInfo `json:"hub"`
	Devices struct {
		Total     int64 `json:"total"`
		Enabled   int64 `json:"enabled"`
		Disabled  int64 `json:"disabled"`
		Connected int64 `json:"connected"`
	} `json:"devices"`
	Modules int64              `json:"modules"`
	Runs    map[string]int64   `json:"runs"` // of patterns, that have not ended, by state
	Rates   map[string]float64 `json:"rates"`
	Totals  map[string]any     `json:"totals"`

	Raw json.RawMessage `json:"-"` // the whole document as it came
}

// Status reads the snapshot.
func (s *Service) Status(ctx context.Context) (Status, error) {
	var st Status
	if err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/status"}, &st.Raw); err != nil {
		return st, err
	}
	raw := st.Raw
	err := json.Unmarshal(raw, &st)
	st.Raw = raw
	return st, err
}

// Policy is a shared access policy. Keys are empty where the hub leaves them out.
type Policy struct {
	Name         string     `json:"name"`
	Permissions  StringList `json:"permissions"`
	PrimaryKey   string     `json:"primaryKey,omitempty"`
	SecondaryKey string     `json:"secondaryKey,omitempty"`
}

// StringList is a JSON array of strings, or one string with commas.
type StringList []string

// UnmarshalJSON takes both forms.
func (l *StringList) UnmarshalJSON(b []byte) error {
	var list []string
	if json.Unmarshal(b, &list) == nil {
		*l = list
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*l = splitList(s)
	return nil
}

// Policies lists the shared access policies by name.
func (s *Service) Policies(ctx context.Context) ([]Policy, error) {
	var raw json.RawMessage
	if err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/policies"}, &raw); err != nil {
		return nil, err
	}
	var list []Policy
	if json.Unmarshal(raw, &list) == nil {
		return list, nil
	}
	var p page[Policy]
	err := json.Unmarshal(raw, &p)
	return p.Items, err
}

func policyPath(name string) string { return "/api/v1/policies/" + url.PathEscape(name) }

// Policy reads one policy.
func (s *Service) Policy(ctx context.Context, name string) (Policy, error) {
	var p Policy
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: policyPath(name)}, &p)
	return p, err
}

// PutPolicy makes or changes a policy; empty keys are kept, or generated.
func (s *Service) PutPolicy(ctx context.Context, p Policy) (Policy, error) {
	var out Policy
	err := s.Do(ctx, Request{Method: http.MethodPut, Path: policyPath(p.Name), Body: p}, &out)
	return out, err
}

// DeletePolicy removes a policy.
func (s *Service) DeletePolicy(ctx context.Context, name string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: policyPath(name)}, nil)
}

// RotatePolicy gives a policy a new key in slot "primary" or "secondary".
func (s *Service) RotatePolicy(ctx context.Context, name, slot string) (Policy, error) {
	var out Policy
	err := s.Do(ctx, Request{
		Method: http.MethodPost, Path: policyPath(name) + "/rotate", Body: map[string]string{"key": slot},
	}, &out)
	return out, err
}

// PolicyConnectionString returns a policy's connection string; slot is
// "primary" or "secondary".
func (s *Service) PolicyConnectionString(ctx context.Context, name, slot string) (string, error) {
	return s.connectionString(ctx, policyPath(name)+"/connection-string", slot)
}

// AuditEntry is one link of the audit chain.
type AuditEntry struct {
	Position  uint64          `json:"position"`
	Time      Time            `json:"time"`
	Principal string          `json:"principal"`
	Cause     string          `json:"cause,omitempty"`
	Operation string          `json:"operation"`
	Target    string          `json:"target"`
	Outcome   string          `json:"outcome"`
	Code      string          `json:"code,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Address   string          `json:"address,omitempty"`
	Details   json.RawMessage `json:"details,omitempty"`
	Hash      json.RawMessage `json:"hash,omitempty"`
}

// Audit walks the audit log, newest first.
func (s *Service) Audit(ctx context.Context) iter.Seq2[AuditEntry, error] {
	return pages[AuditEntry](ctx, s, "/api/v1/audit", nil, 200)
}

// AuditCheck is the outcome of VerifyAudit.
type AuditCheck struct {
	Entries  uint64 `json:"entries"`
	OK       bool   `json:"ok"`
	FirstBad uint64 `json:"firstBad,omitempty"`
}

// VerifyAudit has the hub recompute the whole audit chain.
func (s *Service) VerifyAudit(ctx context.Context) (AuditCheck, error) {
	var c AuditCheck
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/audit/verify"}, &c)
	return c, err
}

// Finding is one result of Doctor.
type Finding struct {
	Check string `json:"check"`
	Level string `json:"level"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"`
}

// Doctor has the hub look at itself.
func (s *Service) Doctor(ctx context.Context) ([]Finding, error) {
	var out struct {
		Findings []Finding `json:"findings"`
	}
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/doctor"}, &out)
	return out.Findings, err
}

// splitList splits at commas, trims, and drops what is empty.
func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
