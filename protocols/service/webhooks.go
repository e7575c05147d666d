package service

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const tagWebhooks = "Webhooks"

type webhookBody struct {
	URL         string            `json:"url" doc:"Absolute, http or https."`
	Description string            `json:"description,omitempty"`
	Devices     []string          `json:"devices,omitempty" doc:"Device ids, or beginnings with * after them; all when absent."`
	Kinds       []string          `json:"kinds,omitempty" doc:"Kinds of event such as twin.reported or twin.*; all but telemetry when absent. telemetry, or *, asks for it."`
	Mode        string            `json:"mode,omitempty" enum:"structured,batch,binary" doc:"How events are put into requests: structured (one each, as JSON; when absent), batch (a JSON array), binary (attributes as headers)."`
	Headers     map[string]string `json:"headers,omitempty" doc:"Sent with each request, such as Authorization. Never shown; those before stay when absent."`
	Paused      bool              `json:"paused,omitempty" doc:"Keeps the place and sends nothing."`
}

type webhookDocument struct {
	ID          string   `json:"id"`
	URL         string   `json:"url"`
	Description string   `json:"description,omitempty"`
	Devices     []string `json:"devices,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
	Mode        string   `json:"mode" enum:"structured,batch,binary"`
	HeaderNames []string `json:"headerNames,omitempty"`
	Paused      bool     `json:"paused,omitempty"`
	Reason      string   `json:"pausedReason,omitempty" doc:"Why the hub paused it."`
	Status      string   `json:"status" enum:"active,failing,paused"`
	Secret      string   `json:"secret,omitempty" doc:"Only in the answer that made it."`
	OldSecret   string   `json:"oldSecretUntil,omitempty" doc:"Until when the secret before also signs."`
	ETag        string   `json:"etag"`

	CreatedTime time.Time `json:"createdTime"`
	UpdatedTime time.Time `json:"updatedTime"`

	Cursor     string  `json:"cursor" doc:"Behind the last event that is dealt with; as of the event stream."`
	Lag        uint64  `json:"lag" doc:"Entries of the logs after it, wanted or not."`
	LagSeconds float64 `json:"lagSeconds" doc:"Age of the oldest event that is not dealt with."`
	InFlight   int     `json:"inFlight" doc:"Requests under way."`
	Waiting    int     `json:"waiting" doc:"Events read and not dealt with, at most 1024."`
	Delivered  uint64  `json:"delivered" doc:"Events taken."`
	Failed     uint64  `json:"failed" doc:"Requests that failed."`
	Dead       uint64  `json:"dead" doc:"Events given up so far."`
	DeadKept   int     `json:"deadLetters" doc:"Of them, how many are kept."`
	Dropped    uint64  `json:"deadDropped" doc:"Of them, how many fell out of the bound."`

	LastSuccess  *time.Time `json:"lastSuccess,omitempty"`
	LastFailure  *time.Time `json:"lastFailure,omitempty"`
	LastError    string     `json:"lastError,omitempty"`
	FailingSince *time.Time `json:"failingSince,omitempty" doc:"First failure after the last success."`
	NextAttempt  *time.Time `json:"nextAttempt,omitempty"`
}

type webhookDeadDocument struct {
	Number   uint64    `json:"number"`
	Time     time.Time `json:"time"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	Event    string    `json:"event" doc:"The CloudEvent as JSON, in any mode."`
}

type webhookTryDocument struct {
	Delivered bool    `json:"delivered"`
	Status    int     `json:"status,omitempty" doc:"The endpoint's answer; absent when there was none."`
	Latency   float64 `json:"latencyMilliseconds"`
	Error     string  `json:"error,omitempty"`
	Next      string  `json:"next,omitempty" doc:"What to do about the error, where that is known."`
	EventID   string  `json:"eventId"`
}

type webhookReplayBody struct {
	From string `json:"from" doc:"The cursor of an event, start, or a time such as 2026-01-31T08:00:00Z."`
}

type webhookRotateBody struct {
	Overlap int `json:"overlapInSeconds,omitempty" doc:"How long the secret before also signs, 0 to 604800; a day when absent."`
}

type webhookDeletedDocument struct {
	Deleted int `json:"deleted"`
}

func webhookRoutes() []*route {
	const (
		manage = auth.HubManage
		dead   = "/api/v1/webhooks/{name}/dead-letters"
	)
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/webhooks", operation: "listWebhooks", tag: tagWebhooks, permission: manage,
			query:   listQuery("webhooks"),
			summary: "Lists the webhooks by id.", response: page[webhookDocument]{}, handle: listWebhooks,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/webhooks/{name}", operation: "getWebhook", tag: tagWebhooks, permission: manage,
			summary: "Returns a webhook and how far it has come.", response: webhookDocument{}, handle: getWebhook,
		},
		{
			method: http.MethodPut, pattern: "/api/v1/webhooks/{name}", operation: "putWebhook", tag: tagWebhooks, permission: manage, ifMatch: optional,
			summary: "Makes a webhook, whose answer holds its secret, or replaces one.", request: webhookBody{}, response: webhookDocument{}, handle: putWebhook,
		},
		{
			method: http.MethodDelete, pattern: "/api/v1/webhooks/{name}", operation: "deleteWebhook", tag: tagWebhooks, permission: manage,
			summary: "Deletes a webhook with its dead letters.", status: http.StatusNoContent, handle: deleteWebhook,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/webhooks/{name}/test", operation: "testWebhook", tag: tagWebhooks, permission: manage, idempotent: true,
			summary: "Posts a test event, once, and returns what the endpoint answered.", response: webhookTryDocument{}, handle: testWebhook,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/webhooks/{name}/replay", operation: "replayWebhook", tag: tagWebhooks, permission: manage, idempotent: true,
			summary: "Lets a webhook go on from another place.", request: webhookReplayBody{}, response: webhookDocument{}, handle: replayWebhook,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/webhooks/{name}/rotate-secret", operation: "rotateWebhookSecret", tag: tagWebhooks, permission: manage, idempotent: true,
			summary: "Gives a webhook a new secret, which is in the answer.", request: webhookRotateBody{}, response: webhookDocument{}, handle: rotateWebhook,
		},
		{
			method: http.MethodGet, pattern: dead, operation: "listWebhookDeadLetters", tag: tagWebhooks, permission: manage, query: listQuery("dead letters"),
			summary: "Lists the events that a webhook gave up, oldest first.", response: page[webhookDeadDocument]{}, handle: listWebhookDead,
		},
		{
			method: http.MethodDelete, pattern: dead, operation: "deleteWebhookDeadLetters", tag: tagWebhooks, permission: manage,
			summary: "Deletes all dead letters of a webhook.", response: webhookDeletedDocument{}, handle: deleteWebhookDead,
		},
		{
			method: http.MethodDelete, pattern: dead + "/{number}", operation: "deleteWebhookDeadLetter", tag: tagWebhooks, permission: manage,
			summary: "Deletes a dead letter.", response: webhookDeletedDocument{}, handle: deleteWebhookDead,
		},
		{
			method: http.MethodPost, pattern: dead + "/{number}/retry", operation: "retryWebhookDeadLetter", tag: tagWebhooks, permission: manage, idempotent: true,
			summary: "Posts a dead letter again, once, and deletes it when the endpoint takes it.", response: webhookTryDocument{}, handle: retryWebhookDead,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func showWebhook(w engine.Webhook) webhookDocument {
	d := webhookDocument{
		ID: w.ID, URL: w.URL, Description: w.Description, Devices: w.Devices, Kinds: w.Kinds, Mode: string(w.Mode), HeaderNames: slices.Sorted(maps.Keys(w.Headers)),
		Paused: !w.Enabled, Reason: w.Paused, Status: "active", Secret: w.Secret, ETag: w.ETag, CreatedTime: w.Created, UpdatedTime: w.Updated,
		Cursor: w.State.Cursor, Lag: w.State.Lag, LagSeconds: w.State.LagTime.Seconds(), InFlight: w.State.InFlight, Waiting: w.State.Waiting,
		Delivered: w.State.Delivered, Failed: w.State.Failed, Dead: w.State.Dead, DeadKept: w.State.DeadKept, Dropped: w.State.DeadDropped,
		LastSuccess: moment(w.State.LastSuccess), LastFailure: moment(w.State.LastFailure), LastError: w.State.LastError,
		FailingSince: moment(w.State.FailingSince), NextAttempt: moment(w.State.Retry),
	}
	if !w.OldSecret.IsZero() {
		d.OldSecret = w.OldSecret.Format(time.RFC3339)
	}
	switch {
	case !w.Enabled:
		d.Status = "paused"
	case d.FailingSince != nil:
		d.Status = "failing"
	}
	return d
}

func showTry(t engine.WebhookTry) webhookTryDocument {
	return webhookTryDocument{t.Error == "", t.Status, float64(t.Latency.Microseconds()) / 1000, t.Error, t.Next, t.EventID}
}

func listQuery(what string) []parameter {
	return []parameter{
		{name: "limit", kind: "integer", text: "At most so many " + what + ", 1 to 1000; 100 when absent."},
		{name: "cursor", kind: "string", text: "The cursor of the page before."},
	}
}

func listWebhooks(c *call) (answer, error) {
	limit, err := c.integer("limit", 100, 1, 1000)
	if err != nil {
		return answer{}, err
	}
	list, err := c.hub.Webhooks(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	if cursor := c.query.Get("cursor"); cursor != "" {
		list = slices.DeleteFunc(list, func(w engine.Webhook) bool { return w.ID <= cursor })
	}
	body := page[webhookDocument]{}
	if len(list) > limit {
		list, body.Cursor = list[:limit], list[limit-1].ID
	}
	body.Items = show(list, showWebhook)
	return answer{body: body}, nil
}

func getWebhook(c *call) (answer, error) {
	w, err := c.hub.Webhook(c.r.Context(), c.caller, c.params[0])
	return answer{body: showWebhook(w), etag: w.ETag}, err
}

func putWebhook(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return answer{}, err
	}
	for key := range f.members {
		switch key {
		case "url", "description", "devices", "kinds", "mode", "headers", "paused":
		default:
			return answer{}, invalid("%q is not a member of a webhook; expected url, description, devices, kinds, mode, headers and paused", clip(key))
		}
	}
	w := engine.Webhook{ID: c.params[0]}
	var paused bool
	err = firstError(
		func() (err error) { w.URL, err = f.text("url"); return err },
		func() (err error) { w.Description, err = f.text("description"); return err },
		func() (err error) { w.Devices, err = f.texts("devices", 100); return err },
		func() (err error) { w.Kinds, err = f.texts("kinds", 100); return err },
		func() (err error) {
			mode, err := f.text("mode")
			w.Mode = engine.WebhookMode(mode)
			return err
		},
		func() (err error) { w.Headers, err = webhookHeaders(f); return err },
		func() (err error) { paused, err = f.boolean("paused"); return err },
	)
	if err != nil {
		return answer{}, err
	}
	w.Enabled = !paused
	w, err = c.hub.PutWebhook(c.r.Context(), c.caller, w, strings.Trim(c.r.Header.Get("If-Match"), `"`))
	return answer{body: showWebhook(w), etag: w.ETag}, err
}

func deleteWebhook(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteWebhook(c.r.Context(), c.caller, c.params[0])
}

// webhookHeaders is nil when there are none in the body.
func webhookHeaders(f fields) (map[string]string, error) {
	if _, ok := f.get("headers"); !ok {
		return nil, nil
	}
	inner, err := f.object("headers")
	if err != nil {
		return nil, err
	}
	headers := map[string]string{}
	for name := range inner.members {
		if headers[name], err = inner.text(name); err != nil {
			return nil, err
		}
	}
	return headers, nil
}

// webhookWait is a little more than the longest time that an endpoint gets.
func (c *call) webhookWait() { c.wait(c.hub.Limits().WebhookTimeout + 5*time.Second) }

func testWebhook(c *call) (answer, error) {
	c.webhookWait()
	t, err := c.hub.TestWebhook(c.r.Context(), c.caller, c.params[0])
	return answer{body: showTry(t)}, err
}

func replayWebhook(c *call) (answer, error) {
	f, err := c.members("from")
	if err != nil {
		return answer{}, err
	}
	from, err := f.text("from")
	if err != nil {
		return answer{}, err
	}
	w, err := c.hub.ReplayWebhook(c.r.Context(), c.caller, c.params[0], from)
	return answer{body: showWebhook(w), etag: w.ETag}, err
}

func rotateWebhook(c *call) (answer, error) {
	f, err := c.members("overlapInSeconds")
	if err != nil {
		return answer{}, err
	}
	seconds, ok, err := f.integer("overlapInSeconds")
	if err != nil {
		return answer{}, err
	}
	if !ok {
		seconds = 24 * 3600
	}
	if seconds < 0 || seconds > 7*24*3600 {
		return answer{}, invalid("overlapInSeconds is %d; expected 0 to 604800", seconds)
	}
	w, err := c.hub.RotateWebhookSecret(c.r.Context(), c.caller, c.params[0], time.Duration(seconds)*time.Second)
	return answer{body: showWebhook(w), etag: w.ETag}, err
}

// members reads a body that is an object of no other members than these.
func (c *call) members(names ...string) (fields, error) {
	body, err := c.body()
	if err != nil {
		return fields{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return fields{}, err
	}
	for key := range f.members {
		if !slices.Contains(names, key) {
			return fields{}, invalid("%q is not a member here; expected %s", clip(key), strings.Join(names, ", "))
		}
	}
	return f, nil
}

func listWebhookDead(c *call) (answer, error) {
	limit, err := c.integer("limit", 100, 1, 1000)
	if err != nil {
		return answer{}, err
	}
	var after uint64
	if cursor := c.query.Get("cursor"); cursor != "" {
		if after, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return answer{}, invalid("the cursor is not one that this hub gave; expected the cursor of the page before")
		}
	}
	list, next, err := c.hub.WebhookDeadLetters(c.r.Context(), c.caller, c.params[0], after, limit)
	body := page[webhookDeadDocument]{Items: show(list, func(d engine.WebhookDead) webhookDeadDocument {
		return webhookDeadDocument{d.Number, d.Time, d.Error, d.Attempts, string(d.Event)}
	})}
	if next > 0 {
		body.Cursor = strconv.FormatUint(next, 10)
	}
	return answer{body: body}, err
}

// letter is the number of a dead letter in the path.
func (c *call) letter() (uint64, error) {
	n, err := strconv.ParseUint(c.params[1], 10, 64)
	if err != nil || n == 0 {
		return 0, invalid("%q is not the number of a dead letter; the list shows them", clip(c.params[1]))
	}
	return n, nil
}

func deleteWebhookDead(c *call) (answer, error) {
	var number uint64 // all of them
	if len(c.params) > 1 {
		var err error
		if number, err = c.letter(); err != nil {
			return answer{}, err
		}
	}
	n, err := c.hub.DeleteWebhookDead(c.r.Context(), c.caller, c.params[0], number)
	return answer{body: webhookDeletedDocument{n}}, err
}

func retryWebhookDead(c *call) (answer, error) {
	number, err := c.letter()
	if err != nil {
		return answer{}, err
	}
	c.webhookWait()
	t, err := c.hub.RetryWebhookDead(c.r.Context(), c.caller, c.params[0], number)
	return answer{body: showTry(t)}, err
}
