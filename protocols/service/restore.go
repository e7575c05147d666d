package service

import (
	"encoding/json"
	"net/http"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type pastTwin struct {
	DeviceID string          `json:"deviceId"`
	ModuleID string          `json:"moduleId,omitempty"`
	At       string          `json:"at" doc:"The moment that was asked for."`
	Tags     json.RawMessage `json:"tags"`
	Desired  json.RawMessage `json:"desired"`
	Reported json.RawMessage `json:"reported"`
}

type restoreBody struct {
	To       string   `json:"to" doc:"A history id (the twin right after it) or an RFC 3339 time."`
	Sections []string `json:"sections,omitempty" doc:"tags, desired or both; both when absent."`
	DryRun   bool     `json:"dryRun,omitempty" doc:"Only say what would change."`
}

type restoreResult struct {
	Changes []difference `json:"changes" doc:"What the restore changes, from now to then."`
	DryRun  bool         `json:"dryRun"`
	ETag    string       `json:"etag" doc:"Of the twin after it."`
	Version int64        `json:"version"`
}

func restoreRoutes() []*route {
	var table []*route
	for _, of := range []struct{ path, name, what string }{{"{id}", "", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		table = append(table,
			&route{
				method: http.MethodGet, pattern: "/api/v1/twins/" + of.path + "/as-of", operation: "get" + of.name + "TwinAsOf", tag: tagHistory, permission: auth.ServiceConnect,
				query:   []parameter{{name: "at", kind: "string", required: true, text: "A history id (the twin right after it) or an RFC 3339 time."}},
				summary: "Returns the twin of " + of.what + " as it was, with $version and without $metadata.", response: pastTwin{}, handle: getTwinAsOf,
			},
			&route{
				method: http.MethodPost, pattern: "/api/v1/twins/" + of.path + "/restore", operation: "restore" + of.name + "Twin", tag: tagHistory, permission: auth.ServiceConnect,
				ifMatch: optional, idempotent: true,
				summary: "Takes tags or desired properties of " + of.what + " back to an earlier state, in one transaction.",
				request: restoreBody{}, response: restoreResult{}, handle: restoreTwin,
			},
		)
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func getTwinAsOf(c *call) (answer, error) {
	at := c.query.Get("at")
	t, err := c.hub.TwinAsOf(c.r.Context(), c.caller, c.target(), at)
	if err != nil {
		return answer{}, err
	}
	return answer{body: pastTwin{
		t.Identity.DeviceID, t.Identity.ModuleID, at, t.Tags.JSON(nil, false), t.Desired.JSON(nil, false), t.Reported.JSON(nil, false),
	}}, nil
}

func restoreTwin(c *call) (answer, error) {
	f, err := c.members("to", "sections", "dryRun")
	if err != nil {
		return answer{}, err
	}
	var o engine.Restoration
	if o.To, err = f.text("to"); err != nil {
		return answer{}, err
	}
	if raw, ok := f.members["dryRun"]; ok && json.Unmarshal(raw, &o.DryRun) != nil {
		return answer{}, invalid("dryRun is not a boolean; expected true or false")
	}
	sections, err := f.texts("sections", 2)
	if err != nil {
		return answer{}, err
	}
	if _, given := f.members["sections"]; !given {
		sections = []string{"tags", "desired"}
	}
	for _, s := range sections {
		switch s {
		case "tags":
			o.Tags = true
		case "desired":
			o.Desired = true
		default:
			return answer{}, invalid("a section is not known; expected tags or desired (only a device writes its reported properties)")
		}
	}
	list, t, err := c.hub.RestoreTwin(c.r.Context(), c.caller, c.target(), o, c.ifMatch())
	if err != nil {
		return answer{}, err
	}
	out := restoreResult{Changes: make([]difference, 0, len(list)), DryRun: o.DryRun, ETag: t.ETag, Version: t.Version}
	for _, d := range list {
		out.Changes = append(out.Changes, difference{d.Path, d.Before, d.After})
	}
	return answer{body: out, etag: t.ETag}, nil
}
