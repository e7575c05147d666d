package engine

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/query"
)

// What is known of a request comes to the columns after the session that ended
// later: it must not take the device's last activity back.
func TestActivityDoesNotGoBack(t *testing.T) {
	h, id := hubWithDevice(t)
	first := time.Now().UTC().Truncate(time.Second)
	later := first.Add(500 * time.Millisecond) // whose text sorts before that of first
	for _, c := range []struct{ at, want time.Time }{{first, first}, {first.Add(-time.Hour), first}, {later, later}, {first, later}} {
		h.sessions.activity.mu.Lock()
		h.sessions.activity.times = map[TwinID]time.Time{id: c.at}
		h.sessions.activity.mu.Unlock()
		h.queries.takeActivity()
		activityIs(t, h, id, c.want)
	}
}

// A session may be active after the columns were told that it ended, and before
// that is stored: the columns get what is stored.
func TestActivityOfASessionThatEnds(t *testing.T) {
	h, id := hubWithDevice(t)
	s := connect(t, h, id)
	s.Close(nil)
	last := time.Unix(0, s.activity.Load()).UTC().Add(time.Minute)
	s.activity.Store(last.UnixNano())
	h.recordEnd(s, errf(CodeConnectionClosed, "it ended"))
	// Nobody waits for what was submitted; a transaction that comes after it has seen it.
	if _, err := h.PatchTwin(t.Context(), everybody(), id, TwinUpdate{Tags: []byte(`{"a":1}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	activityIs(t, h, id, last)
}

// hubWithDevice is a hub whose columns have one device.
func hubWithDevice(t *testing.T) (*Hub, TwinID) {
	t.Helper()
	h := queryHub(t)
	makeDevices(t, h, 1, func(int) string { return `{}` })
	page, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices"})
	if err != nil || len(page.Twins) != 1 {
		t.Fatal(page, err)
	}
	return h, page.Twins[0].Identity.ID()
}

// activityIs looks at what the columns have, without bringing them up to date.
func activityIs(t *testing.T, h *Hub, id TwinID, want time.Time) {
	t.Helper()
	var f rowFields
	f.time(rowPaths.lastActivityTime, want)
	_, row := id.row()
	if v, ok := h.queries.columns[query.Devices].Value(row, rowPaths.lastActivityTime); !ok || v.Text() != f.list[0].Value.Text() {
		t.Errorf("the columns have %q, want %q", v.Text(), f.list[0].Value.Text())
	}
}
