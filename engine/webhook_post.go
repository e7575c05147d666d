package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// webhookTarget is all that a request to a webhook needs.
type webhookTarget struct {
	url       string
	mode      WebhookMode
	headers   map[string]string
	secret    []byte
	oldSecret []byte
	oldUntil  time.Time
	timeout   time.Duration
}

func (h *Hub) webhookTarget(id string, r webhookRecord) (t webhookTarget, err error) {
	t = webhookTarget{url: r.URL, mode: r.mode(), oldUntil: r.OldUntil, timeout: h.limits.WebhookTimeout}
	if t.secret, err = h.db.Unseal(r.Sealed, "webhook:"+id); err != nil {
		return t, err
	}
	if len(r.OldSealed) > 0 {
		if t.oldSecret, err = h.db.Unseal(r.OldSealed, "webhook:"+id); err != nil {
			return t, err
		}
	}
	if len(r.Headers) > 0 {
		text, err := h.db.Unseal(r.Headers, "webhookheaders:"+id)
		if err != nil {
			return t, err
		}
		if err := json.Unmarshal(text, &t.headers); err != nil {
			return t, err
		}
	}
	return t, nil
}

// webhookClass is what becomes of an event after a request.
type webhookClass uint8

const (
	webhookTaken   webhookClass = iota
	webhookRefused              // the event itself is wrong for the endpoint: repeating it changes nothing
	webhookBroken               // the endpoint failed over it: some attempts, then it is given up
	webhookAway                 // the endpoint is not there, or not set up: any event would fare the same
	webhookGone                 // the endpoint says that it is gone for good
)

// webhookResult is the end of a request.
type webhookResult struct {
	class      webhookClass
	status     int // 0: no answer
	retryAfter time.Duration
	took       time.Duration
	text       string // of a failure
	next       string // what to do about it; empty: nobody knows
}

// classifyWebhook decides by the status. Documented in how-to/webhooks.
func classifyWebhook(status int) webhookClass {
	switch {
	case status >= 200 && status < 300:
		return webhookTaken
	case slices.Contains([]int{400, 413, 415, 422}, status):
		return webhookRefused
	case status == 410:
		return webhookGone
	case status == 408 || status >= 500 && !slices.Contains([]int{502, 503, 504}, status):
		return webhookBroken
	}
	return webhookAway
}

// post sends events in one request and waits for the answer, at most the
// webhook's timeout.
func (h *Hub) postWebhook(ctx context.Context, t webhookTarget, list []cloudEvent, attempt int) webhookResult {
	id, header, body, err := webhookRequest(t.mode, list)
	if err != nil {
		return webhookResult{class: webhookRefused, text: "the event can't be written as JSON: " + clip(err.Error())}
	}
	maps.Copy(header, t.headers)
	began := time.Now()
	signature := signWebhook(t.secret, id, began, body)
	if len(t.oldSecret) > 0 && began.Before(t.oldUntil) {
		signature += " " + signWebhook(t.oldSecret, id, began, body)
	}
	header["Webhook-Id"], header["Webhook-Timestamp"], header["Webhook-Signature"] = id, strconv.FormatInt(began.Unix(), 10), signature
	header["Muster-Attempt"] = strconv.Itoa(attempt)
	limited, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	answer, err := h.webhooks.deliver(limited, WebhookPost{URL: t.url, Header: header, Body: body})
	r := webhookResult{status: answer.Status, retryAfter: answer.RetryAfter, took: time.Since(began)}
	switch {
	case err != nil && errors.Is(limited.Err(), context.DeadlineExceeded):
		r.class, r.status, r.text = webhookAway, 0, fmt.Sprintf("no answer within %s", t.timeout)
	case err != nil:
		r.class, r.status, r.text, r.next = webhookAway, 0, clip(withoutURL(err).Error()), answer.Next
	default:
		if r.class = classifyWebhook(answer.Status); r.class != webhookTaken {
			r.text = fmt.Sprintf("the endpoint answered %d; expected 200 to 299", answer.Status)
			if answer.Status >= 300 && answer.Status < 400 {
				r.text += ", and redirects are not followed"
			}
		}
	}
	return r
}

// withoutURL is what lies behind an error that names a request's URL. The path of a webhook's
// may be a secret, as of those that chat services give out, and the error is shown in doctor's bundle.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

const (
	webhookBackoff = time.Second
	webhookLongest = 5 * time.Minute
)

// webhookBackOff returns the pause after attempt n (1 is the first): doubled
// each time, with a random half so that endpoints don't see all come at once,
// and at least what the endpoint asked for; never above five minutes.
func webhookBackOff(n int, asked time.Duration) time.Duration {
	d := webhookBackoff << min(max(n, 1)-1, 10)
	d = d/2 + rand.N(d/2+1)
	return min(max(d, asked), webhookLongest)
}
