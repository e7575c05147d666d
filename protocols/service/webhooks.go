package service

import (
	"net/http"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const tagWebhooks = "Webhooks"

type webhookBody struct {
	URL         string   `json:"url" doc:"Absolute, http or https."`
	Description string   `json:"description,omitempty"`
	Devices     []string `json:"devices,omitempty" doc:"Device ids, or beginnings with * after them; all when absent."`
	Kinds       []string `json:"kinds,omitempty" doc:"Kinds of change such as twin.reported or twin.*; all when absent."`
	Paused      bool     `json:"paused,omitempty" doc:"Keeps the cursor and sends nothing."`
}

type webhookDocument struct {
	ID string `json:"id"`
	webhookBody
	Secret      string     `json:"secret,omitempty" doc:"Only in the answer that made the webhook."`
	ETag        string     `json:"etag"`
	CreatedTime time.Time  `json:"createdTime"`
	UpdatedTime time.Time  `json:"updatedTime"`
	Lag         uint64     `json:"lag" doc:"Changes of the hub that it has not dealt with."`
	Delivered   uint64     `json:"delivered"`
	Dead        uint64     `json:"dead" doc:"Events given up so far."`
	LastSuccess *time.Time `json:"lastSuccess,omitempty"`
	LastFailure *time.Time `json:"lastFailure,omitempty"`
	LastError   string     `json:"lastError,omitempty"`
}

type webhookDeadDocument struct {
	Position uint64    `json:"position"`
	Time     time.Time `json:"time"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	Event    string    `json:"event" doc:"The CloudEvent as it was sent."`
}

func webhookRoutes() []*route {
	const manage = auth.HubManage
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/webhooks", operation: "listWebhooks", tag: tagWebhooks, permission: manage,
			summary: "Lists the webhooks by id, at most 100.", response: page[webhookDocument]{}, handle: listWebhooks,
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
			method: http.MethodGet, pattern: "/api/v1/webhooks/{name}/dead", operation: "listWebhookDead", tag: tagWebhooks, permission: manage,
			summary: "Lists the events that a webhook gave up, at most 1000, oldest first.", response: page[webhookDeadDocument]{}, handle: listWebhookDead,
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
	return webhookDocument{
		ID: w.ID, webhookBody: webhookBody{w.URL, w.Description, w.Devices, w.Kinds, !w.Enabled}, Secret: w.Secret, ETag: w.ETag,
		CreatedTime: w.Created, UpdatedTime: w.Updated, Lag: w.State.Lag, Delivered: w.State.Delivered, Dead: w.State.Dead,
		LastSuccess: moment(w.State.LastSuccess), LastFailure: moment(w.State.LastFailure), LastError: w.State.LastError,
	}
}

func listWebhooks(c *call) (answer, error) {
	list, err := c.hub.Webhooks(c.r.Context(), c.caller)
	return answer{body: page[webhookDocument]{Items: show(list, showWebhook)}}, err
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
		case "url", "description", "devices", "kinds", "paused":
		default:
			return answer{}, invalid("%q is not a member of a webhook; expected url, description, devices, kinds and paused", clip(key))
		}
	}
	w := engine.Webhook{ID: c.params[0]}
	var paused bool
	err = firstError(
		func() (err error) { w.URL, err = f.text("url"); return err },
		func() (err error) { w.Description, err = f.text("description"); return err },
		func() (err error) { w.Devices, err = f.texts("devices", 100); return err },
		func() (err error) { w.Kinds, err = f.texts("kinds", 100); return err },
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

func listWebhookDead(c *call) (answer, error) {
	list, err := c.hub.WebhookDeadLetters(c.r.Context(), c.caller, c.params[0])
	return answer{body: page[webhookDeadDocument]{Items: show(list, func(d engine.WebhookDead) webhookDeadDocument {
		return webhookDeadDocument{d.Position, d.Time, d.Error, d.Attempts, string(d.Event)}
	})}}, err
}
