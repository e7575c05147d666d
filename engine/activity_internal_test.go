package engine

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/query"
)

// What is known of a request comes to the columns after the session that ended
// later: it must not take the device's last activity back.
func TestActivityDoesNotGoBack(t *testing.T) {
	h := queryHub(t)
	makeDevices(t, h, 1, func(int) string { return `{}` })
	page, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices"})
	if err != nil || len(page.Twins) != 1 {
		t.Fatal(page, err)
	}
	id := page.Twins[0].Identity.ID()
	request := time.Now().UTC().Truncate(time.Second).Add(500 * time.Millisecond) // "...5Z", which sorts before "...Z"
	for _, c := range []struct{ at, want time.Time }{
		{request, request}, {request.Add(-time.Hour), request}, {request.Add(500 * time.Millisecond), request.Add(500 * time.Millisecond)}, {request, request.Add(500 * time.Millisecond)},
	} {
		h.sessions.activity.mu.Lock()
		h.sessions.activity.times = map[TwinID]time.Time{id: c.at}
		h.sessions.activity.mu.Unlock()
		h.queries.takeActivity()
		var f rowFields
		f.time(rowPaths.lastActivityTime, c.want)
		_, row := id.row()
		if v, ok := h.queries.columns[query.Devices].Value(row, rowPaths.lastActivityTime); !ok || v.Text() != f.list[0].Value.Text() {
			t.Errorf("noted %v: the columns have %q, want %q", c.at, v.Text(), f.list[0].Value.Text())
		}
	}
}
