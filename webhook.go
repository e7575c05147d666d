package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/protocols/outbound"
)

// webhookClient makes the outgoing client that the flags ask for.
func webhookClient(f cli.ServeFlags) (*outbound.Client, error) {
	allow, err := outbound.ParseAllow(f.WebhookAllow)
	if err != nil {
		return nil, fmt.Errorf("--webhook-allow: %w", err)
	}
	var roots *x509.CertPool
	if f.WebhookCA != "" {
		pem, err := os.ReadFile(f.WebhookCA)
		if err != nil {
			return nil, fmt.Errorf("--webhook-ca: %w", err)
		}
		if roots, err = outbound.Roots(pem); err != nil {
			return nil, fmt.Errorf("--webhook-ca %s: %w", f.WebhookCA, err)
		}
	}
	return outbound.New(allow, roots), nil
}

// deliverBy posts the engine's webhooks through the outgoing client.
func deliverBy(c *outbound.Client) engine.Deliver {
	return func(ctx context.Context, p engine.WebhookPost) (engine.WebhookAnswer, error) {
		header := make(http.Header, len(p.Header)+1)
		header["User-Agent"] = []string{"muster"}
		for k, v := range p.Header {
			header.Set(k, v)
		}
		r, err := c.Post(ctx, p.URL, header, p.Body)
		if errors.Is(err, outbound.ErrRefused) {
			return engine.WebhookAnswer{Next: allowNext(p.URL)}, err
		}
		if err != nil {
			return engine.WebhookAnswer{}, err
		}
		return engine.WebhookAnswer{Status: r.Status, RetryAfter: retryAfter(r.Header.Get("Retry-After"), time.Now())}, nil
	}
}

// allowNext is what to do about an endpoint whose address the hub does not reach.
func allowNext(target string) string {
	host := "HOST"
	if u, err := url.Parse(target); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	return "If it is meant, start the hub with --webhook-allow " + host + ", or with its address or prefix; else give the webhook another URL."
}

// retryAfter reads seconds or a date; 0 for anything else, and for what is
// over a day.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 && seconds <= 86400 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) && at.Sub(now) <= 24*time.Hour {
		return at.Sub(now)
	}
	return 0
}
