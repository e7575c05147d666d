package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
)

// Configuration is an automatic configuration: desired properties that every
// device or module has for which a condition holds.
type Configuration struct {
	ID string `json:"id"`
	ConfigurationSettings
	SystemMetrics ConfigurationMetrics `json:"systemMetrics"`
	ETag          string               `json:"etag"`
	RolloutJob    string               `json:"rolloutJob,omitempty"` // that spreads the newest revision; empty: none, or it has completed
	Warnings      []JobFault           `json:"warnings,omitempty"`   // of the answer that begins a rollout
	Revision      uint64               `json:"revision"`             // counts up with each change, from 1
	Principal     string               `json:"principal"`            // who made this revision
	Created       Time                 `json:"createdTime"`
	Updated       Time                 `json:"updatedTime"`
}

// ConfigurationSettings are the parts of a configuration that one sets.
type ConfigurationSettings struct {
	SchemaVersion   *string              `json:"schemaVersion,omitempty"`
	Labels          map[string]string    `json:"labels,omitempty"`
	Content         ConfigurationContent `json:"content"`
	ContentType     string               `json:"contentType,omitempty"`
	TargetCondition string               `json:"targetCondition"`
	Priority        int                  `json:"priority"`
	Metrics         ConfigurationMetrics `json:"metrics,omitzero"`
	// Rollout says how a revision spreads over its twins; nil: to all at once.
	Rollout *JobPolicy `json:"rollout,omitempty"`
}

// ConfigurationContent is what a configuration sets; one field is there. Keys
// are properties.desired or properties.desired.PATH, those of Modules names of
// modules with such an object each.
type ConfigurationContent struct {
	Device  map[string]json.RawMessage `json:"deviceContent,omitempty"`
	Module  map[string]json.RawMessage `json:"moduleContent,omitempty"`
	Modules map[string]json.RawMessage `json:"modulesContent,omitempty"`
}

// ConfigurationMetrics are queries by name, and how many rows each selects.
type ConfigurationMetrics struct {
	Queries map[string]string `json:"queries,omitempty"`
	Results map[string]int64  `json:"results,omitempty"`
}

// ConfigurationMetric is a metric of a configuration and its result now.
type ConfigurationMetric struct {
	Name   string `json:"name"`
	System bool   `json:"system"` // the hub's own
	Query  string `json:"query"`
	Result *int64 `json:"result"` // nil: it can't be counted now
}

// ConfigurationProgress is how far a configuration is spread over the twins that
// its condition selects.
type ConfigurationProgress struct {
	Revision uint64 `json:"revision"`
	Working  bool   `json:"working"` // twins are being looked for, or worked through
	Targeted int64  `json:"targeted"`
	Settled  int64  `json:"settled"` // they have this revision
	Applied  int64  `json:"applied"` // it sets one path at least
	Pending  int64  `json:"pending"`
	Failed   int64  `json:"failed"` // they can't take it
}

// ConfigurationTest says what is wrong with a condition and metrics.
type ConfigurationTest struct {
	TargetCondition string            `json:"targetConditionError,omitempty"` // empty: nothing
	Translated      string            `json:"targetCondition,omitempty"`      // of a bare predicate: as a configuration would have it
	Metrics         map[string]string `json:"customMetricQueryErrors"`        // by name, of those that are wrong
}

func configurationPath(id string) string { return "/api/v1/configurations/" + url.PathEscape(id) }

func (s *Service) configuration(ctx context.Context, r Request) (g Configuration, err error) {
	err = s.Do(ctx, r, &g)
	return g, err
}

// Configurations walks the configurations by id.
func (s *Service) Configurations(ctx context.Context) iter.Seq2[Configuration, error] {
	return pages[Configuration](ctx, s, "/api/v1/configurations", nil, 100)
}

// ConfigurationRevisions walks the revisions of a configuration that are kept,
// newest first and without metric results.
func (s *Service) ConfigurationRevisions(ctx context.Context, id string) iter.Seq2[Configuration, error] {
	return pages[Configuration](ctx, s, configurationPath(id)+"/revisions", nil, 100)
}

// Configuration returns a configuration with the results of its metrics.
func (s *Service) Configuration(ctx context.Context, id string) (Configuration, error) {
	return s.configuration(ctx, Request{Method: http.MethodGet, Path: configurationPath(id)})
}

// PutConfiguration makes a configuration when etag is empty, and changes it
// otherwise: when it has that etag, or whichever with *.
func (s *Service) PutConfiguration(ctx context.Context, id string, settings ConfigurationSettings, etag string) (Configuration, error) {
	return s.configuration(ctx, Request{Method: http.MethodPut, Path: configurationPath(id), Body: settings, IfMatch: etag})
}

// DeleteConfiguration deletes a configuration; etag may be empty.
func (s *Service) DeleteConfiguration(ctx context.Context, id, etag string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: configurationPath(id), IfMatch: etag}, nil)
}

// RollBackConfiguration makes a new revision that is as an earlier one was; etag
// may be empty.
func (s *Service) RollBackConfiguration(ctx context.Context, id string, revision uint64, etag string) (Configuration, error) {
	return s.configuration(ctx, Request{
		Method: http.MethodPost, Path: configurationPath(id) + "/rollback", IfMatch: etag, Key: rand.Text(),
		Body: map[string]uint64{"revision": revision},
	})
}

// ConfigurationMetrics counts what a configuration's metrics select.
func (s *Service) ConfigurationMetrics(ctx context.Context, id string) ([]ConfigurationMetric, error) {
	var p page[ConfigurationMetric]
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: configurationPath(id) + "/metrics"}, &p)
	return p.Items, err
}

// ConfigurationProgress says how far a configuration is spread.
func (s *Service) ConfigurationProgress(ctx context.Context, id string) (p ConfigurationProgress, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: configurationPath(id) + "/progress"}, &p)
	return p, err
}

// TestConfiguration checks a condition and metrics; what is wrong with them is
// no error.
func (s *Service) TestConfiguration(ctx context.Context, condition string, metrics map[string]string) (t ConfigurationTest, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/configurations/testQueries", Body: map[string]any{
		"targetCondition": condition, "customMetricQueries": metrics,
	}}, &t)
	return t, err
}

// Explanation says why a twin has the desired properties that it has.
type Explanation struct {
	ID             string                   `json:"id"`
	Error          string                   `json:"error,omitempty"` // why its configurations can't be applied
	Configurations []ExplainedConfiguration `json:"configurations"`  // the strongest first
	Paths          []ExplainedPath          `json:"paths"`
}

// ExplainedConfiguration is a configuration of a twin.
type ExplainedConfiguration struct {
	ID       string `json:"id"`
	Priority int    `json:"priority"`
	Created  Time   `json:"createdTime"`
	Revision uint64 `json:"revision"`         // that the twin has; 0: none yet
	Matches  bool   `json:"matches"`          // its condition holds now
	Status   string `json:"status,omitempty"` // Targeted or Applied
	Reason   string `json:"reason,omitempty"` // why it sets nothing although it matches
}

// ExplainedPath is a desired property, who set it, and who lost.
type ExplainedPath struct {
	Path          string          `json:"path"`
	Value         json.RawMessage `json:"value,omitempty"` // nil: a configuration keeps it away
	Configuration string          `json:"configuration,omitempty"`
	Principal     string          `json:"principal,omitempty"`
	Cause         string          `json:"cause,omitempty"`
	Time          Time            `json:"time,omitzero"`
	History       string          `json:"history,omitempty"`
	Lost          []LostSetting   `json:"lost"`
}

// LostSetting is what a configuration would set, if it were not for another one.
type LostSetting struct {
	Configuration string          `json:"configuration"`
	Path          string          `json:"path"`
	Value         json.RawMessage `json:"value"`
	Winner        string          `json:"winner"`
	Reason        string          `json:"reason"`
}

// WhatIf says what a change of tags would do to a twin.
type WhatIf struct {
	Gained []string     `json:"gained"` // configurations that would begin to match
	Lost   []string     `json:"lost"`   // those that would no longer match
	Paths  []WhatIfPath `json:"paths"`
}

// WhatIfPath is a desired property that would change.
type WhatIfPath struct {
	Path          string          `json:"path"`
	Before        json.RawMessage `json:"before,omitempty"` // nil: not there
	After         json.RawMessage `json:"after,omitempty"`
	Configuration string          `json:"configuration,omitempty"` // that would set it
}

// Explain says why a twin has its desired properties; moduleID is empty for a
// device's.
func (s *Service) Explain(ctx context.Context, deviceID, moduleID string) (e Explanation, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: identityPath("/api/v1/devices", deviceID, moduleID) + "/explain"}, &e)
	return e, err
}

// ExplainIf says what a merge patch of tags would do to a twin. Nothing is changed.
func (s *Service) ExplainIf(ctx context.Context, deviceID, moduleID string, tags json.RawMessage) (w WhatIf, err error) {
	err = s.Do(ctx, Request{
		Method: http.MethodPost, Path: identityPath("/api/v1/devices", deviceID, moduleID) + "/explain",
		Body: map[string]json.RawMessage{"tags": tags},
	}, &w)
	return w, err
}
