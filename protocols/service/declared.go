package service

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type declaredBody struct {
	Tags     json.RawMessage `json:"tags,omitempty" schema:"object" doc:"A JSON Schema of tags; absent where anything goes. So the others."`
	Desired  json.RawMessage `json:"desired,omitempty" schema:"object" doc:"Of desired properties, without $version and $metadata."`
	Reported json.RawMessage `json:"reported,omitempty" schema:"object"`
	Mode     string          `json:"mode,omitempty" enum:"warn,reject" doc:"What becomes of a change that the schema does not allow: warn, when absent, stores, logs, counts and tells it as an event; reject refuses it."`
}

type declaredDocument struct {
	declaredBody
	Version     uint64              `json:"version"`
	ETag        string              `json:"etag"`
	CreatedTime time.Time           `json:"createdTime"`
	UpdatedTime time.Time           `json:"updatedTime"`
	Violations  []violationDocument `json:"violations" doc:"Since the hub's start or the schema's last change, the most frequent first."`
}

type violationDocument struct {
	Path     string    `json:"path" doc:"With its section; indexes are []. Further paths than are counted apart are ... ."`
	Warned   uint64    `json:"warned" doc:"Changes that were stored all the same."`
	Rejected uint64    `json:"rejected" doc:"Changes that were refused."`
	Device   string    `json:"lastDevice"`
	Found    string    `json:"lastFound"`
	Expected string    `json:"expected"`
	Last     time.Time `json:"lastTime"`
}

func declaredRoutes() []*route {
	const path = "/api/v1/schema/declared"
	table := []*route{
		{
			method: http.MethodGet, pattern: path, operation: "getDeclaredSchema", tag: tagQueries, permission: auth.ServiceConnect,
			summary: "Returns the schema that is declared for devices' twins, and what was found against it.", response: declaredDocument{}, handle: getDeclared,
		},
		{
			method: http.MethodPut, pattern: path, operation: "putDeclaredSchema", tag: tagQueries, permission: auth.HubManage, ifMatch: optional,
			summary: "Declares a schema for devices' twins, instead of the one before. Changes are checked from then on.", request: declaredBody{}, response: declaredDocument{}, handle: putDeclared,
		},
		{
			method: http.MethodDelete, pattern: path, operation: "deleteDeclaredSchema", tag: tagQueries, permission: auth.HubManage, ifMatch: optional,
			summary: "Drops the declared schema.", status: http.StatusNoContent, handle: deleteDeclared,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func showDeclared(d engine.DeclaredSchema) declaredDocument {
	return declaredDocument{
		declaredBody: declaredBody{d.Tags, d.Desired, d.Reported, string(d.Mode)}, Version: d.Version, ETag: d.ETag, CreatedTime: d.Created, UpdatedTime: d.Updated,
		Violations: show(d.Violations, func(v engine.SchemaViolation) violationDocument {
			return violationDocument{v.Path, v.Warned, v.Rejected, v.Device, v.Found, v.Expected, v.Last}
		}),
	}
}

func getDeclared(c *call) (answer, error) {
	d, err := c.hub.DeclaredSchema(c.r.Context(), c.caller)
	return answer{body: showDeclared(d), etag: d.ETag}, err
}

func putDeclared(c *call) (answer, error) {
	f, err := c.members("tags", "desired", "reported", "mode")
	if err != nil {
		return answer{}, err
	}
	var d engine.DeclaredSchema
	mode, err := f.text("mode")
	if err != nil {
		return answer{}, err
	}
	d.Mode = engine.SchemaMode(mode)
	for name, text := range map[string]*json.RawMessage{"tags": &d.Tags, "desired": &d.Desired, "reported": &d.Reported} {
		if raw, ok := f.get(name); ok {
			*text = raw
		}
	}
	d, err = c.hub.DeclareSchema(c.r.Context(), c.caller, d, c.condition())
	return answer{body: showDeclared(d), etag: d.ETag}, err
}

func deleteDeclared(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DropDeclaredSchema(c.r.Context(), c.caller, c.condition())
}
