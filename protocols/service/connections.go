package service

import (
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type connectionDocument struct {
	Number   uint64    `json:"number"`
	Began    time.Time `json:"beganTime"`
	Ended    time.Time `json:"endedTime"`
	Seconds  float64   `json:"seconds" doc:"How long it lasted."`
	Protocol string    `json:"protocol"`
	Address  string    `json:"address"`
	Code     string    `json:"code"`
	Reason   string    `json:"reason"`
	Refused  int       `json:"refused,omitempty" doc:"Refused attempts in a row; the entry shows the last. Absent for a connection."`
}

func connectionRoutes() []*route {
	var table []*route
	for _, of := range []struct{ path, name, what string }{{"{id}", "", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		table = append(table, &route{
			method: http.MethodGet, pattern: "/api/v1/devices/" + of.path + "/connections", operation: "list" + of.name + "Connections", tag: tagDevices,
			permission: auth.RegistryRead, shape: shapeProblem,
			query: []parameter{
				{name: "limit", kind: "integer", text: "At most so many items, 1 to 50; 50 when absent."},
				{name: "cursor", kind: "string", text: "The cursor of the page before."},
			},
			summary: "Lists the last 50 ended connections of " + of.what + " with why they ended, newest first.", response: page[connectionDocument]{}, handle: listConnections,
		})
	}
	return table
}

func listConnections(c *call) (answer, error) {
	limit, err := c.integer("limit", 50, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	filter := c.target().String()
	after, err := parseCursor(c.query.Get("cursor"), "connections", filter)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Connections(c.r.Context(), c.caller, c.target(), after, limit)
	return answer{body: page[connectionDocument]{show(list, func(e engine.ConnectionEnd) connectionDocument {
		return connectionDocument{e.Number, e.Began, e.Ended, e.Ended.Sub(e.Began).Seconds(), e.Protocol, e.Address, e.Code, e.Reason, e.Refused}
	}), makeCursor("connections", filter, next)}}, err
}
