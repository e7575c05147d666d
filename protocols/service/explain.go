package service

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type explanationDocument struct {
	ID             string                           `json:"id" doc:"DEVICE or DEVICE/MODULE."`
	Error          string                           `json:"error,omitempty" doc:"Why its configurations can't be applied; absent: they are."`
	Configurations []explainedConfigurationDocument `json:"configurations" doc:"Those whose condition holds, or that it has; the strongest first."`
	Paths          []explainedPathDocument          `json:"paths" doc:"Its desired properties, by path."`
}

type explainedConfigurationDocument struct {
	ID       string    `json:"id"`
	Priority int       `json:"priority"`
	Created  time.Time `json:"createdTime" doc:"Of equal priorities the newer configuration is stronger."`
	Revision uint64    `json:"revision" doc:"That the twin has; 0: none yet."`
	Matches  bool      `json:"matches" doc:"Its condition holds now."`
	Status   string    `json:"status,omitempty" enum:"Targeted,Applied" doc:"As the twin shows it; absent: not yet."`
	Reason   string    `json:"reason,omitempty" doc:"Why it sets nothing although it matches."`
}

type explainedPathDocument struct {
	Path          string                `json:"path" doc:"Dotted, below properties.desired."`
	Value         json.RawMessage       `json:"value,omitempty" doc:"Absent: a configuration keeps it away."`
	Configuration string                `json:"configuration,omitempty" doc:"That sets it; absent: none does."`
	Principal     string                `json:"principal,omitempty" doc:"Who wrote the value. Absent, as cause, time and history: longer ago than history is kept."`
	Cause         string                `json:"cause,omitempty" doc:"On whose behalf: job:ID, configuration:ID and so on; absent: the principal's own."`
	Time          time.Time             `json:"time,omitzero"`
	History       string                `json:"history,omitempty" doc:"Id of the entry in the twin's history."`
	Lost          []lostSettingDocument `json:"lost" doc:"What other configurations would set, the strongest first."`
}

type lostSettingDocument struct {
	Configuration string          `json:"configuration"`
	Path          string          `json:"path" doc:"That it would set: this one, or one above or below it."`
	Value         json.RawMessage `json:"value" doc:"null: it would remove it."`
	Winner        string          `json:"winner" doc:"The configuration that it lost to."`
	Reason        string          `json:"reason"`
}

type whatIfBody struct {
	Tags json.RawMessage `json:"tags" schema:"object" doc:"A merge patch; null removes."`
}

type whatIfDocument struct {
	Gained []string             `json:"gained" doc:"Configurations whose condition would begin to hold."`
	Lost   []string             `json:"lost" doc:"Those whose condition would no longer hold."`
	Paths  []whatIfPathDocument `json:"paths" doc:"Desired properties that would change."`
}

type whatIfPathDocument struct {
	Path          string          `json:"path"`
	Before        json.RawMessage `json:"before,omitempty" doc:"Absent: it is not there."`
	After         json.RawMessage `json:"after,omitempty" doc:"Absent: it would not be there."`
	Configuration string          `json:"configuration,omitempty" doc:"That would set it; absent: it would be removed."`
}

// explainRoutes say why a twin has the desired properties that it has.
func explainRoutes() []*route {
	var table []*route
	for _, of := range []struct{ path, name, what string }{{"{id}", "Device", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		pattern := "/api/v1/devices/" + of.path + "/explain"
		table = append(table,
			&route{
				method: http.MethodGet, pattern: pattern, operation: "explain" + of.name, tag: tagConfigurations, permission: auth.ServiceConnect, shape: shapeProblem,
				summary:  "Says, for each desired property of " + of.what + ", which configuration, job or person set it, and which configurations lost and why.",
				response: explanationDocument{}, handle: explainTwin,
			},
			&route{
				method: http.MethodPost, pattern: pattern, operation: "explain" + of.name + "If", tag: tagConfigurations, permission: auth.ServiceConnect, shape: shapeProblem, reads: true,
				summary: "Says which configurations " + of.what + " would have, and which of its desired properties would change, if its tags were others. Nothing is changed.",
				request: whatIfBody{}, response: whatIfDocument{}, handle: explainIf,
			})
	}
	return table
}

func explainTwin(c *call) (answer, error) {
	e, err := c.hub.ExplainDevice(c.r.Context(), c.caller, c.target())
	return answer{body: explanationDocument{
		ID: e.ID.String(), Error: e.Error,
		Configurations: show(e.Configurations, func(g engine.ExplainedConfiguration) explainedConfigurationDocument {
			g.Created = g.Created.UTC()
			return explainedConfigurationDocument(g)
		}),
		Paths: show(e.Paths, func(p engine.ExplainedPath) explainedPathDocument {
			return explainedPathDocument{
				p.Path, p.Value, p.Configuration, p.Principal, p.Cause, p.Time.UTC(), p.History,
				show(p.Lost, func(l engine.LostSetting) lostSettingDocument { return lostSettingDocument(l) }),
			}
		}),
	}}, err
}

func explainIf(c *call) (answer, error) {
	f, err := c.members("tags")
	if err != nil {
		return answer{}, err
	}
	tags, ok := f.get("tags")
	if !ok {
		return answer{}, &engine.Error{Code: engine.CodeArgumentNull, Message: `tags are missing; expected a JSON object such as {"tags":{"site":"paris"}}`}
	}
	w, err := c.hub.WhatIf(c.r.Context(), c.caller, c.target(), tags)
	return answer{body: whatIfDocument{
		append([]string{}, w.Gained...), append([]string{}, w.Lost...),
		show(w.Paths, func(p engine.WhatIfPath) whatIfPathDocument { return whatIfPathDocument(p) }),
	}}, err
}
