package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/outbound"
)

// deliverBy posts the engine's webhooks through the outgoing client.
func deliverBy(c *outbound.Client) engine.Deliver {
	return func(ctx context.Context, p engine.WebhookPost) (engine.WebhookAnswer, error) {
		header := http.Header{"User-Agent": {"muster"}}
		for k, v := range p.Header {
			header.Set(k, v)
		}
		r, err := c.Post(ctx, p.URL, header, p.Body)
		if err != nil {
			return engine.WebhookAnswer{}, err
		}
		seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
		if err != nil || seconds < 0 || seconds > 86400 {
			seconds = 0
		}
		return engine.WebhookAnswer{Status: r.Status, RetryAfter: time.Duration(seconds) * time.Second}, nil
	}
}
