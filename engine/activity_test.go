package engine

import (
	"testing"
	"time"
)

// A device that only sends over HTTPS is seen as active at once, and still
// after a restart.
func TestActivityOverHTTPS(t *testing.T) {
	dir := t.TempDir()
	h, c, g := openMessages(t, dir)
	activity := func() time.Time {
		t.Helper()
		i, err := h.Identity(t.Context(), c, g.ID)
		if err != nil {
			t.Fatal(err)
		}
		return i.LastActivity
	}
	if at := activity(); !at.IsZero() {
		t.Fatalf("active at %s before it sent anything", at)
	}
	before := time.Now()
	if err := h.SendTelemetry(t.Context(), g, []Message{{Body: []byte("x"), QoS: 1}}); err != nil {
		t.Fatal(err)
	}
	sent := activity()
	if sent.Before(before) {
		t.Fatalf("active at %s after sending at %s", sent, before)
	}
	if err := h.flushPresence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(h.sessions.activity.times); n != 0 {
		t.Errorf("%d times wait after a flush", n)
	}
	if _, _, err := h.ReceiveMessage(t.Context(), g, 0); err != nil {
		t.Fatal(err)
	}
	received := activity()
	if !received.After(sent) {
		t.Errorf("receiving left the activity at %s", received)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h, c, _ = openMessages(t, dir)
	defer h.Close()
	if at := activity(); !at.Equal(received) {
		t.Errorf("active at %s after a restart, want %s", at, received)
	}
}

func TestActivityLogIsBounded(t *testing.T) {
	var l activityLog
	for i := range maxActivities + 10 {
		l.note(TwinID{DeviceID: time.Duration(i).String()})
	}
	if n := len(l.times); n != maxActivities {
		t.Errorf("%d identities are noted, want %d", n, maxActivities)
	}
}
