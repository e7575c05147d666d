package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
)

// Bounds of a configuration that no profile changes; the others are in the table of limits.
const (
	configurationIDBytes   = 128
	configurationTextBytes = 128 // of schemaVersion and contentType
	configurationLabels    = 50
	configurationPriority  = 1<<31 - 1
	configurationMarks     = "-+%_*!'"
)

// checkConfigurationID applies IoT Hub's rule.
func checkConfigurationID(id string) error {
	if id == "" {
		return errf(CodeArgumentNull, "the id of the configuration is missing")
	}
	if len(id) > configurationIDBytes {
		return errf(CodeArgumentInvalid, "the id of the configuration has %d characters; expected at most %d", len(id), configurationIDBytes)
	}
	for i, c := range id {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune(configurationMarks, c) {
			continue
		}
		return errf(CodeArgumentInvalid, "the id of the configuration has the character %q at position %d; expected lower-case ASCII letters, digits and %s", c, i, configurationMarks)
	}
	return nil
}

// checkConfiguration checks what a caller sends, and brings it in the form in
// which it is stored.
func (h *Hub) checkConfiguration(g *Configuration) error {
	if err := checkConfigurationID(g.ID); err != nil {
		return err
	}
	for name, text := range map[string]string{"schemaVersion": g.SchemaVersion, "contentType": g.ContentType} {
		if len(text) > configurationTextBytes {
			return errf(CodeArgumentInvalid, "%s has %d bytes; expected at most %d", name, len(text), configurationTextBytes)
		}
	}
	if g.Priority < 0 || g.Priority > configurationPriority {
		return errf(CodeArgumentInvalid, "priority is %d; expected 0 to %d", g.Priority, configurationPriority)
	}
	if err := checkConfigurationLabels(g.Labels); err != nil {
		return err
	}
	content, err := h.parseContent(&g.Content)
	if err != nil {
		return err
	}
	if _, g.TargetCondition, err = h.parseTarget(content.Kind(), g.TargetCondition); err != nil {
		return err
	}
	if err := h.checkConfigurationRollout(g.Rollout); err != nil {
		return err
	}
	if n, most := len(g.Metrics.Queries), h.limits.ConfigMetrics; n > most {
		return errf(CodeConfigurationMetrics, "metrics.queries has %d members; expected at most %d", n, most)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Metrics.Queries)) {
		if err := checkMetricName(name); err != nil {
			return err
		}
		if _, err := h.parseMetric(name, g.Metrics.Queries[name]); err != nil {
			return err
		}
	}
	r := configurationRecord{Content: g.Content, Condition: g.TargetCondition, Metrics: g.Metrics.Queries}
	if n, most := r.size(), int64(h.limits.ConfigBytes); n > most {
		return errf(CodeTooLarge, "the configuration has %d bytes; expected at most %d", n, most)
	}
	return nil
}

// checkConfigurationLabels takes any text for a name, as IoT Hub does.
func checkConfigurationLabels(labels map[string]string) error {
	if len(labels) > configurationLabels {
		return errf(CodeArgumentInvalid, "labels has %d members; expected at most %d", len(labels), configurationLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if key == "" || len(key) > labelKeyBytes {
			return errf(CodeArgumentInvalid, "the label %q has %d bytes; expected 1 to %d", clip(key), len(key), labelKeyBytes)
		}
		if n := len(labels[key]); n > labelValueBytes {
			return errf(CodeArgumentInvalid, "the value of label %q has %d bytes; expected at most %d", key, n, labelValueBytes)
		}
	}
	return nil
}

func checkMetricName(name string) error {
	if name == "" || len(name) > labelKeyBytes {
		return errf(CodeConfigurationMetrics, "the metric %q has a name of %d bytes; expected 1 to %d", clip(name), len(name), labelKeyBytes)
	}
	return nil
}

// parseContent reads a content, and makes it compact.
func (h *Hub) parseContent(c *ConfigurationContent) (*configuration.Content, error) {
	for _, part := range []*json.RawMessage{&c.Device, &c.Module, &c.Modules} {
		if *part == nil {
			continue
		}
		if n, most := len(*part), 2*h.limits.ConfigBytes; n > most {
			return nil, errf(CodeTooLarge, "the content has %d bytes; expected at most %d", n, most)
		}
		var b bytes.Buffer
		if err := json.Compact(&b, *part); err != nil {
			return nil, wrapf(CodeConfigurationContent, err, "the content is not JSON")
		}
		*part = b.Bytes()
		if b.String() == "null" {
			*part = nil // as some clients send what there is not
		}
	}
	content, err := configuration.Parse(configuration.Raw{Device: c.Device, Module: c.Module, Modules: c.Modules}, h.limits.twinLimits(twin.Desired))
	if err != nil {
		return nil, wrapf(CodeConfigurationContent, err, "%s", err.Error())
	}
	return content, nil
}

// parseTarget reads a target condition; an empty one selects nothing and is nil. It returns the
// condition as it is stored, in IoT Hub's language: outside of IoT Hub's limits it may be written
// as a bare predicate.
func (h *Hub) parseTarget(kind configuration.Kind, condition string) (*query.Query, string, error) {
	if strings.TrimSpace(condition) == "" {
		return nil, condition, nil
	}
	if n, most := len(condition), h.limits.SavedQueryBytes; n > most {
		return nil, "", errf(CodeConfigurationCondition, "targetCondition has %d bytes; expected at most %d", n, most)
	}
	source := query.Devices
	if kind == configuration.OfModule {
		source = query.Modules
	}
	var q *query.Query
	var err error
	if h.limits.Profile == ProfileAzure {
		q, err = query.ParseTarget(source, condition, query.Options{Strict: true})
	} else {
		q, condition, err = query.ParseWrittenTarget(source, condition)
	}
	if err != nil {
		return nil, "", wrapf(CodeConfigurationCondition, err, "targetCondition can't be read: %s", err.Error())
	}
	if n, most := len(condition), h.limits.SavedQueryBytes; n > most {
		return nil, "", errf(CodeConfigurationCondition, "targetCondition has %d bytes in IoT Hub's language; expected at most %d", n, most)
	}
	return q, condition, nil
}

// parseMetric reads the query of a metric.
func (h *Hub) parseMetric(name, text string) (*query.Query, error) {
	if n, most := len(text), h.limits.SavedQueryBytes; n > most {
		return nil, errf(CodeConfigurationMetrics, "the query of metric %q has %d bytes; expected at most %d", name, n, most)
	}
	q, err := query.Parse(text, query.Options{Strict: h.limits.Profile == ProfileAzure})
	if err != nil {
		return nil, wrapf(CodeConfigurationMetrics, err, "the query of metric %q can't be read: %s", name, err.Error())
	}
	if q.Source() == query.Jobs || q.Source() == query.Runs {
		return nil, errf(CodeConfigurationMetrics, "the query of metric %q reads %s; expected devices or devices.modules", name, q.Source())
	}
	return q, nil
}

// TestConfigurationQueries checks a target condition and metrics as
// PutConfiguration would. What is wrong with them is a result, not an error. It
// needs ServiceConnect.
func (h *Hub) TestConfigurationQueries(ctx context.Context, c Caller, condition string, metrics map[string]string) (ConfigurationTest, error) {
	if err := h.authorize(ctx, c, opConfigurationRead, "*"); err != nil {
		return ConfigurationTest{}, err
	}
	const most = 1000
	if len(metrics) > most {
		return ConfigurationTest{}, errf(CodeArgumentInvalid, "customMetricQueries has %d members; expected at most %d", len(metrics), most)
	}
	out := ConfigurationTest{Metrics: map[string]string{}}
	kind := configuration.OfDevice
	if words := strings.Fields(condition); len(words) > 0 && strings.EqualFold(words[0], "FROM") {
		kind = configuration.OfModule
	}
	if _, stored, err := h.parseTarget(kind, condition); err != nil {
		out.TargetCondition = AsError(err).Message
	} else if stored != condition {
		out.Translated = stored
	}
	names := slices.Sorted(maps.Keys(metrics))
	for i, name := range names {
		_, err := h.parseMetric(name, metrics[name])
		if err == nil {
			err = checkMetricName(name)
		}
		if err == nil && i >= h.limits.ConfigMetrics {
			err = errf(CodeConfigurationMetrics, "a configuration has at most %s, and this is the next one", plural(h.limits.ConfigMetrics, "metric"))
		}
		if err != nil {
			out.Metrics[name] = AsError(err).Message
		}
	}
	return out, nil
}
