package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/outbound"
)

// TestWebhookAddressThatIsNotAllowed: whoever is told that an endpoint is not reached
// is told which setting lets the hub reach it.
func TestWebhookAddressThatIsNotAllowed(t *testing.T) {
	deliver := deliverBy(outbound.New(outbound.Allow{}, nil))
	for target, host := range map[string]string{"http://127.0.0.1:1/in": "127.0.0.1", "http://[::1]:1/in": "::1"} {
		answer, err := deliver(t.Context(), engine.WebhookPost{URL: target})
		if !errors.Is(err, outbound.ErrRefused) || !strings.Contains(answer.Next, "--webhook-allow "+host+",") {
			t.Errorf("%s: %v, next %q", target, err, answer.Next)
		}
	}
}
