package service

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type faultBody struct {
	Drop            float64 `json:"drop,omitempty" doc:"Share of messages lost in each direction, 0 to 1."`
	Delay           float64 `json:"delaySeconds,omitempty" doc:"How long what the device sends is held back, up to 30."`
	DisconnectEvery float64 `json:"disconnectEverySeconds,omitempty" doc:"How old a connection gets, 1 or more; 0 sets no bound."`
	For             float64 `json:"forSeconds,omitempty" doc:"How long the fault lasts, up to 86400; 600 when absent."`
}

type faultDocument struct {
	DeviceID        string    `json:"deviceId"`
	ModuleID        string    `json:"moduleId,omitempty"`
	Drop            float64   `json:"drop"`
	Delay           float64   `json:"delaySeconds"`
	DisconnectEvery float64   `json:"disconnectEverySeconds"`
	Created         time.Time `json:"createdTime"`
	Expires         time.Time `json:"expiresTime"`
	Principal       string    `json:"principal"`
}

func showFault(f engine.Fault) faultDocument {
	return faultDocument{f.Target.DeviceID, f.Target.ModuleID, f.Drop, f.Delay.Seconds(), f.DisconnectEvery.Seconds(), f.Created, f.Expires, f.Principal}
}

func faultRoutes() []*route {
	table := []*route{{
		method: http.MethodGet, pattern: "/api/v1/faults", operation: "listFaults", tag: tagDevices, permission: auth.StatusRead,
		query: []parameter{
			{name: "limit", kind: "integer", text: "At most so many items, 1 to 1000; 100 when absent."},
			{name: "cursor", kind: "string", text: "The cursor of the page before."},
		},
		summary: "Lists the injected faults in force.", response: page[faultDocument]{}, handle: listFaults,
	}}
	for _, of := range []struct{ path, name, what string }{{"{id}", "", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		table = append(table,
			&route{
				method: http.MethodPut, pattern: "/api/v1/devices/" + of.path + "/fault", operation: "put" + of.name + "Fault", tag: tagDevices, permission: auth.HubManage,
				summary: "Makes the connection of " + of.what + " bad on purpose, for a while.", request: faultBody{}, response: faultDocument{}, handle: putFault,
			},
			&route{
				method: http.MethodDelete, pattern: "/api/v1/devices/" + of.path + "/fault", operation: "delete" + of.name + "Fault", tag: tagDevices, permission: auth.HubManage,
				summary: "Ends the injected fault of " + of.what + ".", status: http.StatusNoContent, handle: deleteFault,
			},
		)
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func putFault(c *call) (answer, error) {
	f, err := c.members("drop", "delaySeconds", "disconnectEverySeconds", "forSeconds")
	if err != nil {
		return answer{}, err
	}
	var b faultBody
	for _, m := range []struct {
		name string
		to   *float64
	}{{"drop", &b.Drop}, {"delaySeconds", &b.Delay}, {"disconnectEverySeconds", &b.DisconnectEvery}, {"forSeconds", &b.For}} {
		raw, ok := f.members[m.name]
		if !ok {
			continue
		}
		if json.Unmarshal(raw, m.to) != nil || *m.to < 0 || *m.to > 1e6 {
			return answer{}, invalid("%s is not a number from 0 on, or too large", m.name)
		}
	}
	span := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
	made, err := c.hub.AddFault(c.r.Context(), c.caller, engine.Fault{
		Target: c.target(), Drop: b.Drop, Delay: span(b.Delay), DisconnectEvery: span(b.DisconnectEvery),
	}, span(b.For))
	return answer{body: showFault(made)}, err
}

func deleteFault(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.RemoveFault(c.r.Context(), c.caller, c.target())
}

func listFaults(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	after, err := parseCursor(c.query.Get("cursor"), "faults", "")
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Faults(c.r.Context(), c.caller, after, limit)
	return answer{body: page[faultDocument]{show(list, showFault), makeCursor("faults", "", next)}}, err
}
