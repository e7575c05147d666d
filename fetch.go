package main

import (
	"context"
	"net/http"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols/outbound"
)

// fetchBy sends the requests of patterns' http steps through the outgoing
// client, which reaches what webhooks may reach.
func fetchBy(c *outbound.Client) engine.Fetch {
	return func(ctx context.Context, r engine.FetchRequest) (engine.FetchAnswer, bool, error) {
		header := make(http.Header, len(r.Header)+1)
		header["User-Agent"] = []string{"muster"}
		for k, v := range r.Header {
			header.Set(k, v)
		}
		a, sent, err := c.Fetch(ctx, outbound.Request{Method: r.Method, URL: r.URL, Header: header, Body: r.Body}, pattern.MaxHTTPBody)
		if err != nil {
			return engine.FetchAnswer{}, sent, err
		}
		return engine.FetchAnswer{Status: a.Status, Type: a.Header.Get("Content-Type"), Body: a.Body}, true, nil
	}
}
