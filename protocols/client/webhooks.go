package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Webhook is an endpoint to which a hub posts events.
type Webhook struct {
	ID             string   `json:"id"`
	URL            string   `json:"url"`
	Description    string   `json:"description,omitempty"`
	Devices        []string `json:"devices,omitempty"`
	Kinds          []string `json:"kinds,omitempty"`
	Mode           string   `json:"mode,omitempty"` // structured, batch, binary
	HeaderNames    []string `json:"headerNames,omitempty"`
	Paused         bool     `json:"paused,omitempty"`
	PausedReason   string   `json:"pausedReason,omitempty"` // why the hub paused it
	Status         string   `json:"status"`                 // active, failing, paused
	Secret         string   `json:"secret,omitempty"`       // only in the answer that made it
	OldSecretUntil Time     `json:"oldSecretUntil,omitzero"`
	ETag           string   `json:"etag"`
	Created        Time     `json:"createdTime"`
	Updated        Time     `json:"updatedTime"`

	Cursor      string  `json:"cursor"`
	Lag         uint64  `json:"lag"`
	LagSeconds  float64 `json:"lagSeconds"`
	InFlight    int     `json:"inFlight"`
	Waiting     int     `json:"waiting"`
	Delivered   uint64  `json:"delivered"`
	Failed      uint64  `json:"failed"`
	Dead        uint64  `json:"dead"`
	DeadLetters int     `json:"deadLetters"`
	DeadDropped uint64  `json:"deadDropped"`

	LastSuccess  Time   `json:"lastSuccess,omitzero"`
	LastFailure  Time   `json:"lastFailure,omitzero"`
	LastError    string `json:"lastError,omitempty"`
	FailingSince Time   `json:"failingSince,omitzero"`
	NextAttempt  Time   `json:"nextAttempt,omitzero"`
}

// Settings are what PutWebhook takes of a webhook.
func (w *Webhook) Settings() WebhookSettings {
	return WebhookSettings{URL: w.URL, Description: w.Description, Devices: w.Devices, Kinds: w.Kinds, Mode: w.Mode, Paused: w.Paused}
}

// WebhookSettings are the parts of a webhook that one sets.
type WebhookSettings struct {
	URL         string   `json:"url"`
	Description string   `json:"description,omitempty"`
	Devices     []string `json:"devices,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
	Mode        string   `json:"mode,omitempty"`
	// Headers are sent with each request; nil leaves those before.
	Headers map[string]string `json:"headers,omitzero"`
	Paused  bool              `json:"paused,omitempty"`
}

// WebhookDead is an event that a webhook gave up.
type WebhookDead struct {
	Number   uint64 `json:"number"`
	Time     Time   `json:"time"`
	Error    string `json:"error"`
	Attempts int    `json:"attempts"`
	Event    string `json:"event"` // the CloudEvent as JSON
}

// WebhookTry is what came of one request.
type WebhookTry struct {
	Delivered bool    `json:"delivered"`
	Status    int     `json:"status,omitempty"` // 0: no answer
	Latency   float64 `json:"latencyMilliseconds"`
	Error     string  `json:"error,omitempty"`
	Next      string  `json:"next,omitempty"` // what to do about it; empty: nobody knows
	EventID   string  `json:"eventId"`
}

func webhookPath(name string) string { return "/api/v1/webhooks/" + url.PathEscape(name) }

// Webhooks walks the webhooks by id.
func (s *Service) Webhooks(ctx context.Context) iter.Seq2[Webhook, error] {
	return pages[Webhook](ctx, s, "/api/v1/webhooks", nil, 100)
}

// Webhook returns one webhook.
func (s *Service) Webhook(ctx context.Context, name string) (Webhook, error) {
	return s.webhook(ctx, Request{Method: http.MethodGet, Path: webhookPath(name)})
}

func (s *Service) webhook(ctx context.Context, r Request) (w Webhook, err error) {
	err = s.Do(ctx, r, &w)
	return w, err
}

// PutWebhook makes a webhook, with its secret in the answer, or replaces one.
// etag is empty, * when it must exist, or the one that it must have.
func (s *Service) PutWebhook(ctx context.Context, name string, settings WebhookSettings, etag string) (Webhook, error) {
	return s.webhook(ctx, Request{Method: http.MethodPut, Path: webhookPath(name), Body: settings, IfMatch: etag})
}

// DeleteWebhook deletes a webhook with its dead letters.
func (s *Service) DeleteWebhook(ctx context.Context, name string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: webhookPath(name)}, nil)
}

// TestWebhook has a test event posted and waits for the answer.
func (s *Service) TestWebhook(ctx context.Context, name string) (t WebhookTry, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: webhookPath(name) + "/test"}, &t)
	return t, err
}

// ReplayWebhook lets a webhook go on from a cursor, "start", or a time in RFC 3339.
func (s *Service) ReplayWebhook(ctx context.Context, name, from string) (Webhook, error) {
	return s.webhook(ctx, Request{Method: http.MethodPost, Path: webhookPath(name) + "/replay", Body: map[string]string{"from": from}})
}

// RotateWebhookSecret gives a webhook a new secret, which is in the answer; the
// one before also signs for overlap, in whole seconds.
func (s *Service) RotateWebhookSecret(ctx context.Context, name string, overlap time.Duration) (Webhook, error) {
	return s.webhook(ctx, Request{
		Method: http.MethodPost, Path: webhookPath(name) + "/rotate-secret", Body: map[string]int{"overlapInSeconds": int(overlap / time.Second)},
	})
}

// WebhookDeadLetters walks the events that a webhook gave up, oldest first.
func (s *Service) WebhookDeadLetters(ctx context.Context, name string) iter.Seq2[WebhookDead, error] {
	return pages[WebhookDead](ctx, s, webhookPath(name)+"/dead-letters", nil, 100)
}

// RetryWebhookDead has a dead letter posted again; when it is taken, it is
// gone from the list.
func (s *Service) RetryWebhookDead(ctx context.Context, name string, number uint64) (t WebhookTry, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: deadPath(name, number) + "/retry"}, &t)
	return t, err
}

// DeleteWebhookDead deletes a dead letter, or with number 0 all of them, and
// returns how many.
func (s *Service) DeleteWebhookDead(ctx context.Context, name string, number uint64) (int, error) {
	path := webhookPath(name) + "/dead-letters"
	if number > 0 {
		path = deadPath(name, number)
	}
	var out struct {
		Deleted int `json:"deleted"`
	}
	err := s.Do(ctx, Request{Method: http.MethodDelete, Path: path}, &out)
	return out.Deleted, err
}

func deadPath(name string, number uint64) string {
	return webhookPath(name) + "/dead-letters/" + strconv.FormatUint(number, 10)
}
