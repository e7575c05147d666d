package engine

import (
	"context"
	"testing"
	"time"
)

func TestNobodyWaitsForever(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx     context.Context
		timeout time.Duration
		want    Code
	}{
		{t.Context(), 0, CodeDeviceNotOnline},
		{t.Context(), time.Millisecond, CodeDeviceNotOnline},
		{canceled, time.Hour, CodeCanceled},
	} {
		if _, err := h.awaitCallable(c.ctx, id, c.timeout); err == nil || AsError(err).Code != c.want {
			t.Errorf("waiting %s: %v, want %s", c.timeout, err, c.want)
		}
	}
	if n := len(h.sessions.shard(id.DeviceID).waiting); n != 0 {
		t.Errorf("%d arrivals are still waited for", n)
	}
}
