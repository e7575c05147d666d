package service

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
)

// configurationRecord is a configuration in Muster's own API: IoT Hub's document
// and what every record of Muster has.
type configurationRecord struct {
	configurationDocument
	Rollout    *rollout.Policy `json:"rollout,omitempty" schema:"object" doc:"How this revision spreads, as policy of a job; absent: to all at once."`
	RolloutJob string          `json:"rolloutJob,omitempty" doc:"The job that spreads the newest revision with a rollout, until it has completed."`
	Warnings   []jobFault      `json:"warnings,omitempty" doc:"What may not be meant in the rollout: in the answer that begins it."`

	Revision  uint64    `json:"revision" doc:"Counts up with each change, from 1."`
	Principal string    `json:"principal" doc:"Who made this revision."`
	Created   time.Time `json:"createdTime"`
	Updated   time.Time `json:"updatedTime" doc:"When this revision was made."`
}

// ownConfigurationBody is what a client sends to Muster's own API.
type ownConfigurationBody struct {
	configurationBody
	Rollout *jobPolicy `json:"rollout,omitempty" doc:"How this revision spreads over the twins that it selects, as policy of a job: each keeps what it had until its turn comes. All get it at once when absent."`
}

type progressDocument struct {
	Revision uint64 `json:"revision"`
	Working  bool   `json:"working" doc:"Twins are being looked for, or worked through."`
	Targeted int64  `json:"targeted" doc:"Twins that the condition selects."`
	Settled  int64  `json:"settled" doc:"Of them those that have this revision: all that it sets is there, or set by another configuration."`
	Applied  int64  `json:"applied" doc:"Those in which it sets one path at least."`
	Pending  int64  `json:"pending" doc:"Targeted and not settled yet."`
	Failed   int64  `json:"failed" doc:"Those that can't take it: their size or the declared schema refuses it."`
}

type metricDocument struct {
	Name   string `json:"name"`
	System bool   `json:"system" doc:"The hub's, not one of the configuration's own."`
	Query  string `json:"query"`
	Result *int64 `json:"result" doc:"How many rows it selects now; null when that can't be counted now."`
}

type rollbackBody struct {
	Revision uint64 `json:"revision" doc:"One that is kept."`
}

// ownConfigurationRoutes are Muster's.
func ownConfigurationRoutes() []*route {
	const connect, path = auth.ServiceConnect, "/api/v1/configurations/{configuration}"
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/configurations", operation: "pageConfigurations", tag: tagConfigurations, permission: connect,
			query:   listQuery("configurations"),
			summary: "Lists the configurations by id, page by page.", response: page[configurationRecord]{}, handle: pageConfigurations,
		},
		{
			method: http.MethodGet, pattern: path, operation: "getConfigurationRecord", tag: tagConfigurations, permission: connect,
			summary: "Returns a configuration with its revision and the results of its metrics.", response: configurationRecord{}, handle: getConfigurationRecord,
		},
		{
			method: http.MethodPut, pattern: path, operation: "putConfigurationRecord", tag: tagConfigurations, permission: connect, ifMatch: optional,
			summary: "Creates a configuration, or with If-Match makes a new revision of one. A member that is not known is refused.",
			request: ownConfigurationBody{}, response: configurationRecord{}, held: true, handle: putConfigurationRecord,
		},
		{
			method: http.MethodDelete, pattern: path, operation: "deleteConfigurationRecord", tag: tagConfigurations, permission: connect, ifMatch: optional,
			summary: "Deletes a configuration with its revisions. What it has set stays in the twins.", status: http.StatusNoContent, handle: deleteConfiguration,
		},
		{
			method: http.MethodGet, pattern: path + "/revisions", operation: "listConfigurationRevisions", tag: tagConfigurations, permission: connect, query: listQuery("revisions"),
			summary: "Lists the revisions of a configuration that are kept, newest first.", response: page[configurationRecord]{}, handle: listRevisions,
		},
		{
			method: http.MethodPost, pattern: path + "/rollback", operation: "rollBackConfiguration", tag: tagConfigurations, permission: connect, ifMatch: optional, idempotent: true,
			summary: "Makes a new revision that is as an earlier one was.", request: rollbackBody{}, response: configurationRecord{}, held: true, handle: rollBackConfiguration,
		},
		{
			method: http.MethodGet, pattern: path + "/metrics", operation: "getConfigurationMetrics", tag: tagConfigurations, permission: connect,
			summary: "Counts what the queries of a configuration's metrics select, the hub's first.", response: page[metricDocument]{}, handle: getMetrics,
		},
		{
			method: http.MethodGet, pattern: path + "/progress", operation: "getConfigurationProgress", tag: tagConfigurations, permission: connect,
			summary: "Says how far a configuration is spread over the twins that its condition selects.", response: progressDocument{}, handle: getProgress,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func showConfigurationRecord(g engine.Configuration) configurationRecord {
	return configurationRecord{showConfiguration(g), g.Rollout, g.RolloutJob, show(g.Warnings, showJobFault), g.Revision, g.Principal, g.Created.UTC(), g.Updated.UTC()}
}

func pageConfigurations(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	after, err := parseCursor(c.query.Get("cursor"), "configurations", "")
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Configurations(c.r.Context(), c.caller, after, limit)
	return answer{body: page[configurationRecord]{show(list, showConfigurationRecord), makeCursor("configurations", "", next)}}, err
}

func getConfigurationRecord(c *call) (answer, error) {
	g, err := c.hub.Configuration(c.r.Context(), c.caller, c.params[0])
	return answer{body: showConfigurationRecord(g), etag: g.ETag}, err
}

func putConfigurationRecord(c *call) (answer, error) {
	// Those of a record that the hub sets may be sent back, and count for nothing.
	f, err := c.members("id", "schemaVersion", "labels", "content", "contentType", "targetCondition", "priority", "metrics", "rollout",
		"rolloutJob", "warnings", "systemMetrics", "createdTimeUtc", "lastUpdatedTimeUtc", "etag", "revision", "principal", "createdTime", "updatedTime")
	if err != nil {
		return answer{}, err
	}
	g, err := configurationFrom(f, c.params[0])
	if err != nil {
		return answer{}, err
	}
	if text, ok := f.get("rollout"); ok {
		p, err := rollout.Parse(text, "rollout")
		if err != nil {
			return answer{}, invalid("%s", err.Error())
		}
		g.Rollout = &p
	}
	g, err = c.hub.PutConfiguration(c.r.Context(), c.caller, g, c.ifMatch())
	return answer{body: showConfigurationRecord(g), etag: g.ETag}, err
}

func listRevisions(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	id := c.params[0]
	text, err := parseCursor(c.query.Get("cursor"), "revisions", id)
	if err != nil {
		return answer{}, err
	}
	var before uint64
	if text != "" {
		if before, err = strconv.ParseUint(text, 10, 64); err != nil {
			return answer{}, invalid("the cursor is not one that this list gave; start again without a cursor")
		}
	}
	list, next, err := c.hub.ConfigurationRevisions(c.r.Context(), c.caller, id, before, limit)
	body := page[configurationRecord]{Items: show(list, showConfigurationRecord)}
	if next > 0 {
		body.Cursor = makeCursor("revisions", id, strconv.FormatUint(next, 10))
	}
	return answer{body: body}, err
}

func rollBackConfiguration(c *call) (answer, error) {
	f, err := c.members("revision")
	if err != nil {
		return answer{}, err
	}
	n, there, err := f.integer("revision")
	if err != nil {
		return answer{}, err
	}
	if !there {
		return answer{}, &engine.Error{Code: engine.CodeArgumentNull, Message: "revision is missing; expected the number of a revision that is kept"}
	}
	if n < 1 {
		return answer{}, invalid("revision is %d; expected at least 1", n)
	}
	g, err := c.hub.RollbackConfiguration(c.r.Context(), c.caller, c.params[0], uint64(n), c.ifMatch())
	return answer{body: showConfigurationRecord(g), etag: g.ETag}, err
}

func getMetrics(c *call) (answer, error) {
	g, err := c.hub.Configuration(c.r.Context(), c.caller, c.params[0])
	if err != nil {
		return answer{}, err
	}
	body := page[metricDocument]{Items: []metricDocument{}}
	for _, m := range []struct {
		engine.ConfigurationMetrics
		system bool
	}{{g.SystemMetrics, true}, {g.Metrics, false}} {
		for _, name := range slices.Sorted(maps.Keys(m.Queries)) {
			d := metricDocument{Name: name, System: m.system, Query: m.Queries[name]}
			if n, ok := m.Results[name]; ok {
				d.Result = &n
			}
			body.Items = append(body.Items, d)
		}
	}
	return answer{body: body}, nil
}

func getProgress(c *call) (answer, error) {
	p, err := c.hub.ConfigurationProgress(c.r.Context(), c.caller, c.params[0])
	return answer{body: progressDocument(p)}, err
}
