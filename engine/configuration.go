package engine

import (
	"context"
	"encoding/json"
	"time"
)

// Configuration is an automatic configuration: desired properties that every
// device or module has for which a condition holds, for as long as it holds.
// Fields under "set by the hub" are ignored on input.
type Configuration struct {
	ID              string // at most 128 lower-case letters, digits and -+%_*!'
	SchemaVersion   string // anything; empty: none
	ContentType     string // anything; empty: none
	Labels          map[string]string
	Content         ConfigurationContent
	TargetCondition string // of devices, "from devices.modules where ..." for modules, "*" for all devices; empty: nothing
	Priority        int    // where two set the same path the higher one does, of equal ones the newer
	Metrics         ConfigurationMetrics

	// Set by the hub.
	SystemMetrics ConfigurationMetrics
	ETag          string // without quotes
	Revision      uint64 // counts up with each change, from 1
	Principal     string // who made this revision
	Created       time.Time
	Updated       time.Time // when this revision was made
}

// ConfigurationContent is what a configuration sets, in IoT Hub's form: exactly
// one field is there. Each is a JSON object whose keys are properties.desired or
// properties.desired.PATH; of Modules it is one such object for each module.
type ConfigurationContent struct {
	Device  json.RawMessage `json:"deviceContent,omitempty"`
	Module  json.RawMessage `json:"moduleContent,omitempty"`
	Modules json.RawMessage `json:"modulesContent,omitempty"` // of an edge device
}

// ConfigurationMetrics are queries by name, and how many rows each selects.
// Results are set by the hub; one that can't be counted now is missing.
type ConfigurationMetrics struct {
	Queries map[string]string
	Results map[string]int64
}

// Names of the system metrics. Those of what was reported are of edge
// configurations only.
const (
	MetricTargeted           = "targetedCount"
	MetricApplied            = "appliedCount"
	MetricReportedSuccessful = "reportedSuccessfulCount"
	MetricReportedFailed     = "reportedFailedCount"
)

// PutConfiguration makes a configuration when the condition is absent, and
// changes it otherwise; what it leaves out is taken away. Twins follow at once,
// in the background. Under the azure limits the content of one that exists stays
// as it is, and another one is ignored, as IoT Hub does. Errors:
// CodeConfigurationAlreadyExists, CodeConfigurationNotFound,
// CodePreconditionFailed, CodeConfigurationCondition, CodeConfigurationContent,
// CodeConfigurationMetrics, CodeTooManyConfigurations. It needs ServiceConnect.
func (h *Hub) PutConfiguration(ctx context.Context, c Caller, g Configuration, m IfMatch) (Configuration, error) {
	return Configuration{}, errf(CodeUnavailable, "configurations are not built yet")
}

// Configuration returns a configuration with the results of its metrics. It
// needs ServiceConnect.
func (h *Hub) Configuration(ctx context.Context, c Caller, id string) (Configuration, error) {
	return Configuration{}, errf(CodeUnavailable, "configurations are not built yet")
}

// Configurations lists configurations by id, those behind the id after; at most
// limit of them (0: as many as the hub gives at once), fewer when they are large.
// next is the after of the next page, empty at the end. It needs ServiceConnect.
func (h *Hub) Configurations(ctx context.Context, c Caller, after string, limit int) (list []Configuration, next string, err error) {
	return nil, "", errf(CodeUnavailable, "configurations are not built yet")
}

// DeleteConfiguration removes a configuration; an absent condition means any.
// What it has set stays in the twins, where no other one sets it. It needs
// ServiceConnect.
func (h *Hub) DeleteConfiguration(ctx context.Context, c Caller, id string, m IfMatch) error {
	return errf(CodeUnavailable, "configurations are not built yet")
}

// ConfigurationTest says what is wrong with the queries of a configuration.
type ConfigurationTest struct {
	TargetCondition string            // empty: nothing
	Metrics         map[string]string // by name, of those that are wrong
}

// TestConfigurationQueries checks a target condition and metrics as
// PutConfiguration would. What is wrong with them is a result, not an error. It
// needs ServiceConnect.
func (h *Hub) TestConfigurationQueries(ctx context.Context, c Caller, condition string, metrics map[string]string) (ConfigurationTest, error) {
	return ConfigurationTest{}, errf(CodeUnavailable, "configurations are not built yet")
}

// ApplyConfigurationContent replaces the desired properties of an edge device's
// modules, once, and makes those that it has not. The content is modulesContent
// with properties.desired as the only key of each module; anything else is
// CodeConfigurationContent, a device that is no edge device CodeArgumentInvalid.
// It needs ServiceConnect.
func (h *Hub) ApplyConfigurationContent(ctx context.Context, c Caller, deviceID string, content ConfigurationContent) error {
	return errf(CodeUnavailable, "configurations are not built yet")
}

// ConfigurationRevisions lists the revisions of a configuration that are kept,
// newest first and without metric results; at most limit of those below before,
// fewer when they are large. 0 stands for all of either. next is the before of
// the next page, 0 at the end. It needs ServiceConnect.
func (h *Hub) ConfigurationRevisions(ctx context.Context, c Caller, id string, before uint64, limit int) (list []Configuration, next uint64, err error) {
	return nil, 0, errf(CodeUnavailable, "configurations are not built yet")
}

// RollbackConfiguration makes a new revision that is as an earlier one was:
// content, condition, priority, metrics and labels. The condition is as in
// DeleteConfiguration. Under the azure limits the content stays. It needs
// ServiceConnect.
func (h *Hub) RollbackConfiguration(ctx context.Context, c Caller, id string, revision uint64, m IfMatch) (Configuration, error) {
	return Configuration{}, errf(CodeUnavailable, "configurations are not built yet")
}

// ConfigurationProgress says how far a configuration is spread over the twins
// that its condition selects now.
type ConfigurationProgress struct {
	Revision uint64
	Working  bool  // twins are being looked for, or worked through
	Targeted int64 // twins that the condition selects
	Settled  int64 // that have this revision: all it sets is there, or set by another one
	Applied  int64 // in which it sets one path at least
	Pending  int64 // targeted, and not settled yet
	Failed   int64 // that can't take it: their size or the declared schema refuses it
}

// ConfigurationProgress returns how far a configuration is spread. It is cheap.
// It needs ServiceConnect.
func (h *Hub) ConfigurationProgress(ctx context.Context, c Caller, id string) (ConfigurationProgress, error) {
	return ConfigurationProgress{}, errf(CodeUnavailable, "configurations are not built yet")
}
