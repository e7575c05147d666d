package service

import (
	"encoding/json"
	"math"
	"net/http"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const tagConfigurations = "Automatic configurations"

// listedConfigurations bounds what IoT Hub's list, which has no pages, holds.
const listedConfigurations = 16 << 20 // bytes of content

// configurationDocument is a configuration as IoT Hub shows it.
type configurationDocument struct {
	ID                 string               `json:"id"`
	SchemaVersion      *string              `json:"schemaVersion"`
	Labels             *map[string]string   `json:"labels" doc:"null when there are none."`
	Content            configurationContent `json:"content"`
	ContentType        string               `json:"contentType,omitempty"`
	TargetCondition    string               `json:"targetCondition" doc:"Of devices; from devices.modules where ... of modules; * all devices; empty: none."`
	CreatedTimeUTC     string               `json:"createdTimeUtc"`
	LastUpdatedTimeUTC string               `json:"lastUpdatedTimeUtc"`
	Priority           int                  `json:"priority" doc:"Where two set the same path, the higher one does, of equal ones the newer."`
	SystemMetrics      configurationMetrics `json:"systemMetrics"`
	Metrics            configurationMetrics `json:"metrics"`
	ETag               string               `json:"etag" doc:"Without quotes; the ETag header has them."`
}

// configurationContent is what a configuration sets; exactly one member is there.
type configurationContent struct {
	Device  json.RawMessage `json:"deviceContent,omitempty" schema:"object" doc:"Keys are properties.desired or properties.desired.PATH."`
	Module  json.RawMessage `json:"moduleContent,omitempty" schema:"object" doc:"The same, of modules."`
	Modules json.RawMessage `json:"modulesContent,omitempty" schema:"object" doc:"The same, by the name of the module of an edge device, $edgeAgent among them."`
}

type configurationMetrics struct {
	Results map[string]int64  `json:"results" doc:"How many rows each query selects. One that can't be counted now is missing."`
	Queries map[string]string `json:"queries"`
}

// configurationBody is what a client sends; members that the hub sets are ignored.
type configurationBody struct {
	ID              string               `json:"id,omitempty" doc:"Must equal the path's."`
	SchemaVersion   *string              `json:"schemaVersion,omitempty"`
	Labels          map[string]string    `json:"labels,omitempty"`
	Content         configurationContent `json:"content"`
	ContentType     string               `json:"contentType,omitempty"`
	TargetCondition string               `json:"targetCondition,omitempty"`
	Priority        int                  `json:"priority,omitempty"`
	Metrics         *metricQueries       `json:"metrics,omitempty"`
}

type metricQueries struct {
	Queries map[string]string `json:"queries" doc:"Whole queries by name, such as SELECT deviceId FROM devices WHERE properties.reported.fw = '2.0'."`
}

type testQueriesBody struct {
	TargetCondition     string            `json:"targetCondition,omitempty"`
	CustomMetricQueries map[string]string `json:"customMetricQueries,omitempty"`
}

type testQueriesResult struct {
	TargetConditionError    string            `json:"targetConditionError,omitempty" doc:"Absent when nothing is wrong."`
	TargetCondition         string            `json:"targetCondition,omitempty" doc:"Of a bare predicate: the condition in IoT Hub's language, as a configuration would have it."`
	CustomMetricQueryErrors map[string]string `json:"customMetricQueryErrors" doc:"By name, of those that are wrong."`
}

// configurationRoutes are IoT Hub's.
func configurationRoutes() []*route {
	const connect, path = auth.ServiceConnect, "/configurations/{configuration}"
	return []*route{
		{
			method: http.MethodGet, pattern: "/configurations", operation: "listConfigurations", tag: tagConfigurations, permission: connect,
			query:   []parameter{{name: "top", kind: "integer", text: "At most so many; all when absent."}},
			summary: "Lists the automatic configurations by id, without paging.", response: []configurationDocument{}, handle: listConfigurations,
		},
		{
			method: http.MethodPost, pattern: "/configurations/testQueries", operation: "testConfigurationQueries", tag: tagConfigurations, permission: connect,
			summary: "Checks a target condition and metrics; what is wrong with them is a result, not an error.",
			request: testQueriesBody{}, response: testQueriesResult{}, handle: testQueries,
		},
		{
			method: http.MethodGet, pattern: path, operation: "getConfiguration", tag: tagConfigurations, permission: connect,
			summary: "Returns a configuration with the results of its metrics.", response: configurationDocument{}, handle: getConfiguration,
		},
		{
			method: http.MethodPut, pattern: path, operation: "putConfiguration", tag: tagConfigurations, permission: connect, ifMatch: optional,
			summary: "Creates a configuration, or changes it when If-Match is there. Under the azure limits the content of one that exists stays as it is, as in IoT Hub.",
			request: configurationBody{}, response: configurationDocument{}, held: true, handle: putConfiguration,
		},
		{
			method: http.MethodDelete, pattern: path, operation: "deleteConfiguration", tag: tagConfigurations, permission: connect, ifMatch: optional,
			summary: "Deletes a configuration. What it has set stays in the twins.", status: http.StatusNoContent, handle: deleteConfiguration,
		},
		{
			method: http.MethodPost, pattern: "/devices/{id}/applyConfigurationContent", operation: "applyConfigurationContent", tag: tagConfigurations, permission: connect,
			summary: "Replaces the desired properties of an edge device's modules, once, and makes those that it has not.",
			request: configurationContent{}, status: http.StatusNoContent, handle: applyConfigurationContent,
		},
	}
}

func showConfiguration(g engine.Configuration) configurationDocument {
	d := configurationDocument{
		ID: g.ID, SchemaVersion: orNull(g.SchemaVersion),
		Content: configurationContent(g.Content), ContentType: g.ContentType,
		TargetCondition: g.TargetCondition, CreatedTimeUTC: twinTime(g.Created), LastUpdatedTimeUTC: twinTime(g.Updated),
		Priority: g.Priority, SystemMetrics: showMetrics(g.SystemMetrics), Metrics: showMetrics(g.Metrics), ETag: g.ETag,
	}
	if len(g.Labels) > 0 {
		d.Labels = &g.Labels
	}
	return d
}

// showMetrics has no null: C# reads both members of a new configuration.
func showMetrics(m engine.ConfigurationMetrics) configurationMetrics {
	d := configurationMetrics{m.Results, m.Queries}
	if d.Results == nil {
		d.Results = map[string]int64{}
	}
	if d.Queries == nil {
		d.Queries = map[string]string{}
	}
	return d
}

func listConfigurations(c *call) (answer, error) {
	top, err := c.integer("top", math.MaxInt32, 1, math.MaxInt32)
	if err != nil {
		return answer{}, err
	}
	list, size := []configurationDocument{}, 0
	for after, more := "", true; more && len(list) < top; more = after != "" {
		var some []engine.Configuration
		if some, after, err = c.hub.Configurations(c.r.Context(), c.caller, after, min(top-len(list), pageMost)); err != nil {
			return answer{}, err
		}
		for _, g := range some {
			list = append(list, showConfiguration(g))
			size += len(g.Content.Device) + len(g.Content.Module) + len(g.Content.Modules)
		}
		if size > listedConfigurations {
			return answer{}, &engine.Error{Code: engine.CodeQuotaExceeded, Message: "the configurations are too large for one list; ask for fewer with top, or for pages at /api/v1/configurations"}
		}
	}
	return answer{body: list}, nil
}

func getConfiguration(c *call) (answer, error) {
	g, err := c.hub.Configuration(c.r.Context(), c.caller, c.params[0])
	return answer{body: showConfiguration(g), etag: g.ETag}, err
}

func putConfiguration(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return answer{}, err
	}
	g, err := configurationFrom(f, c.params[0])
	if err != nil {
		return answer{}, err
	}
	// An ETag in the body counts for nothing: az sends "*" there to create.
	g, err = c.hub.PutConfiguration(c.r.Context(), c.caller, g, c.ifMatch())
	return answer{body: showConfiguration(g), etag: g.ETag}, err
}

// configurationFrom reads what a client sets of the configuration that the path
// names. What must be there, and what it must be, is the engine's to say.
func configurationFrom(f fields, id string) (engine.Configuration, error) {
	g := engine.Configuration{ID: id}
	var named string
	err := firstError(
		func() (err error) { named, err = f.text("id"); return err },
		func() (err error) { g.SchemaVersion, err = f.text("schemaVersion"); return err },
		func() (err error) { g.ContentType, err = f.text("contentType"); return err },
		func() (err error) { g.TargetCondition, err = f.text("targetCondition"); return err },
		func() (err error) { g.Labels, err = f.textMap("labels"); return err },
		func() (err error) { g.Content, err = contentFrom(f, "content"); return err },
		func() (err error) { g.Priority, err = f.priority(); return err },
		func() error {
			m, err := f.object("metrics")
			if err == nil {
				g.Metrics.Queries, err = m.textMap("queries")
			}
			return err
		},
	)
	if err == nil && named != "" && named != id {
		err = invalid("id in the body is not the one in the path; expected %q", id)
	}
	return g, err
}

// contentFrom reads content below a member, or f itself when key is empty.
func contentFrom(f fields, key string) (engine.ConfigurationContent, error) {
	if key != "" {
		var err error
		if f, err = f.object(key); err != nil {
			return engine.ConfigurationContent{}, err
		}
	}
	var content engine.ConfigurationContent
	content.Device, _ = f.get("deviceContent")
	content.Module, _ = f.get("moduleContent")
	content.Modules, _ = f.get("modulesContent")
	return content, nil
}

func (f fields) priority() (int, error) {
	n, _, err := f.integer("priority")
	if err == nil && (n < 0 || n > math.MaxInt32) {
		err = invalid("priority is %d; expected 0 to %d", n, math.MaxInt32)
	}
	return int(n), err
}

// textMap returns an object whose members are strings; nil when it is absent or null.
func (f fields) textMap(key string) (map[string]string, error) {
	o, err := f.object(key)
	if err != nil || o.members == nil {
		return nil, err
	}
	texts := make(map[string]string, len(o.members))
	for name := range o.members {
		if texts[name], err = o.text(name); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func deleteConfiguration(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteConfiguration(c.r.Context(), c.caller, c.params[0], c.ifMatch())
}

func testQueries(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return answer{}, err
	}
	condition, err := f.text("targetCondition")
	if err != nil {
		return answer{}, err
	}
	metrics, err := f.textMap("customMetricQueries")
	if err != nil {
		return answer{}, err
	}
	t, err := c.hub.TestConfigurationQueries(c.r.Context(), c.caller, condition, metrics)
	if t.Metrics == nil {
		t.Metrics = map[string]string{}
	}
	return answer{body: testQueriesResult{t.TargetCondition, t.Translated, t.Metrics}}, err
}

func applyConfigurationContent(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return answer{}, err
	}
	content, err := contentFrom(f, "")
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, c.hub.ApplyConfigurationContent(c.r.Context(), c.caller, c.params[0], content)
}
