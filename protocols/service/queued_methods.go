package service

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// longPollMost is the longest wait of one request for a queued call's end.
const longPollMost = 60

// queuedBody is the body of a call to queue.
type queuedBody struct {
	Name            string          `json:"methodName"`
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Any JSON value; none is sent when absent."`
	ResponseTimeout int             `json:"responseTimeoutInSeconds,omitempty" doc:"5 to 300, 30 when absent."`
	Wait            int             `json:"waitForDeviceInSeconds" doc:"How long the call may wait for the device, 60 to 2592000."`
}

type queuedDocument struct {
	ID              string          `json:"id"`
	DeviceID        string          `json:"deviceId"`
	ModuleID        string          `json:"moduleId,omitempty"`
	Name            string          `json:"methodName"`
	Payload         json.RawMessage `json:"payload,omitempty"`
	ResponseTimeout int             `json:"responseTimeoutInSeconds"`
	Status          string          `json:"status" enum:"queued,sending,succeeded,failed,expired,canceled,uncertain"`
	Attempt         int             `json:"attempt"`
	Created         time.Time       `json:"createdTime"`
	Deadline        time.Time       `json:"deadlineTime"`
	Sent            time.Time       `json:"sentTime,omitzero"`
	Finished        time.Time       `json:"finishedTime,omitzero"`
	Response        *methodResult   `json:"response,omitempty" doc:"The device's answer, when the status is succeeded."`
	Code            string          `json:"code,omitempty"`
	Message         string          `json:"message,omitempty"`
	Principal       string          `json:"principal"`
	Cause           string          `json:"cause,omitempty"`
}

func showQueued(q engine.QueuedMethod) queuedDocument {
	d := queuedDocument{
		ID: q.ID, DeviceID: q.Target.DeviceID, ModuleID: q.Target.ModuleID, Name: q.Name, Payload: q.Payload,
		ResponseTimeout: int(q.ResponseTimeout / time.Second), Status: string(q.Status), Attempt: q.Attempt,
		Created: q.Created, Deadline: q.Deadline, Sent: q.Sent, Finished: q.Finished,
		Code: q.Code, Message: q.Message, Principal: q.Principal, Cause: q.Cause,
	}
	if q.Result != nil {
		d.Response = &methodResult{q.Result.Status, q.Result.Payload}
	}
	return d
}

func queuedMethodRoutes() []*route {
	const need = auth.ServiceConnect
	filters := []parameter{
		{name: "status", kind: "string", text: "Only calls of this status."},
		{name: "limit", kind: "integer", text: "At most so many items, 1 to 1000; 100 when absent."},
		{name: "cursor", kind: "string", text: "The cursor of the page before."},
	}
	table := []*route{{
		method: http.MethodGet, pattern: "/api/v1/method-calls", operation: "listAllMethodCalls", tag: tagMethods, permission: need, query: filters,
		summary: "Lists the queued method calls of the whole hub; a page may be shorter than limit.", response: page[queuedDocument]{}, handle: listAllQueued,
	}}
	for _, of := range []struct{ path, name, what string }{{"{id}", "", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		calls := "/api/v1/devices/" + of.path + "/method-calls"
		table = append(table,
			&route{
				method: http.MethodPost, pattern: calls, operation: "queue" + of.name + "MethodCall", tag: tagMethods, permission: need, idempotent: true,
				summary: "Queues a direct method call until " + of.what + " takes methods or the wait has passed.", status: http.StatusAccepted,
				request: queuedBody{}, response: queuedDocument{}, maxBody: methodBytes, held: true, handle: queueMethod,
			},
			&route{
				method: http.MethodGet, pattern: calls, operation: "list" + of.name + "MethodCalls", tag: tagMethods, permission: need, query: filters,
				summary: "Lists the queued method calls of " + of.what + ", the oldest first.", response: page[queuedDocument]{}, handle: listQueued,
			},
			&route{
				method: http.MethodGet, pattern: calls + "/{call}", operation: "get" + of.name + "MethodCall", tag: tagMethods, permission: need,
				query:   []parameter{{name: "wait", kind: "integer", text: "Seconds to wait for the call's end, 0 to 60; 0 when absent."}},
				summary: "Returns a queued method call of " + of.what + ".", response: queuedDocument{}, handle: getQueued,
			},
			&route{
				method: http.MethodPost, pattern: calls + "/{call}/cancel", operation: "cancel" + of.name + "MethodCall", tag: tagMethods, permission: need, idempotent: true,
				summary: "Takes back a queued method call of " + of.what + " that was not sent yet.", response: queuedDocument{}, handle: cancelQueued,
			},
		)
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func queueMethod(c *call) (answer, error) {
	f, err := c.members("methodName", "payload", "responseTimeoutInSeconds", "waitForDeviceInSeconds")
	if err != nil {
		return answer{}, err
	}
	m, err := methodOf(f)
	if err != nil {
		return answer{}, err
	}
	seconds, ok, err := f.integer("waitForDeviceInSeconds")
	if err != nil {
		return answer{}, err
	}
	if !ok {
		return answer{}, &engine.Error{Code: engine.CodeArgumentNull, Message: "waitForDeviceInSeconds is missing; expected how long the call may wait for the device, 60 to 2592000"}
	}
	if seconds < 0 || seconds > 1e9 {
		return answer{}, invalid("waitForDeviceInSeconds is out of range; expected 60 to 2592000")
	}
	q, err := c.hub.QueueMethod(c.r.Context(), c.caller, c.target(), m, time.Duration(seconds)*time.Second)
	return answer{status: http.StatusAccepted, body: showQueued(q)}, err
}

// queuedTarget splits the path of one call.
func (c *call) queuedTarget() (engine.TwinID, string) {
	id := engine.TwinID{DeviceID: c.params[0]}
	if len(c.params) > 2 {
		id.ModuleID = c.params[1]
	}
	return id, c.params[len(c.params)-1]
}

func getQueued(c *call) (answer, error) {
	seconds, err := c.integer("wait", 0, 0, longPollMost)
	if err != nil {
		return answer{}, err
	}
	wait := time.Duration(seconds) * time.Second
	c.wait(wait)
	id, name := c.queuedTarget()
	q, err := c.hub.WaitQueuedMethod(c.r.Context(), c.caller, id, name, wait)
	return answer{body: showQueued(q)}, err
}

func cancelQueued(c *call) (answer, error) {
	id, name := c.queuedTarget()
	q, err := c.hub.CancelQueuedMethod(c.r.Context(), c.caller, id, name)
	return answer{body: showQueued(q)}, err
}

func listQueued(c *call) (answer, error)    { return c.queuedPage(c.target()) }
func listAllQueued(c *call) (answer, error) { return c.queuedPage(engine.TwinID{}) }

func (c *call) queuedPage(id engine.TwinID) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	status := c.query.Get("status")
	filter := id.String() + " " + status
	after, err := parseCursor(c.query.Get("cursor"), "method-calls", filter)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.QueuedMethods(c.r.Context(), c.caller, id, engine.QueuedStatus(status), after, limit)
	return answer{body: page[queuedDocument]{show(list, showQueued), makeCursor("method-calls", filter, next)}}, err
}
