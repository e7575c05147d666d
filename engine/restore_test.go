package engine_test

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestRestoreTwin(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "pump"}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	patch := func(tags, desired string) {
		t.Helper()
		u := engine.TwinUpdate{Desired: []byte(desired)}
		if tags != "" {
			u.Tags = []byte(tags)
		}
		if _, err := h.PatchTwin(t.Context(), enginetest.Owner(), id, u, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"site":"lyon"}`, `{"a":1,"b":{"c":[1,2]}}`) // desired:1
	patch(`{"site":"rome","x":1}`, `{"a":null,"b":{"d":2}}`)
	patch("", `{"a":3}`)

	was, err := h.TwinAsOf(t.Context(), enginetest.Owner(), id, "desired:1")
	if err != nil || string(was.Desired.JSON(nil, false)) != `{"b":{"c":[1,2]},"a":1,"$version":2}` {
		t.Fatalf("as of desired:1: %s, %v", was.Desired.JSON(nil, false), err)
	}
	for _, c := range []struct {
		to   string
		want engine.Code
	}{
		{"", engine.CodeArgumentNull},
		{"yesterday", engine.CodeArgumentInvalid},
		{"desired:99", engine.CodeHistoryNotFound},
		{"2001-01-01T00:00:00Z", engine.CodeHistoryNotFound},
		{time.Now().Add(time.Hour).Format(time.RFC3339), engine.CodeArgumentInvalid},
	} {
		_, err := h.TwinAsOf(t.Context(), enginetest.Owner(), id, c.to)
		wantCode(t, err, c.want)
		_, _, err = h.RestoreTwin(t.Context(), enginetest.Owner(), id, engine.Restoration{To: c.to, Desired: true}, engine.IfMatch{})
		wantCode(t, err, c.want)
	}
	_, _, err = h.RestoreTwin(t.Context(), enginetest.Owner(), id, engine.Restoration{To: "desired:1"}, engine.IfMatch{})
	wantCode(t, err, engine.CodeArgumentInvalid)

	d := enginetest.Connect(t, h, id, engine.EndpointDesired)
	restore := engine.Restoration{To: "desired:1", Desired: true, DryRun: true}
	changes, dry, err := h.RestoreTwin(t.Context(), enginetest.Owner(), id, restore, engine.IfMatch{})
	if err != nil || len(changes) != 2 { // a is 1 again, b.d goes
		t.Errorf("changes: %+v, %v", changes, err)
	}
	restore.DryRun = false
	_, after, err := h.RestoreTwin(t.Context(), enginetest.Owner(), id, restore, engine.IfMatch{Present: true, ETag: dry.ETag})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(after.Desired.JSON(nil, false)); got != `{"b":{"c":[1,2]},"a":1,"$version":5}` {
		t.Errorf("desired after the restore: %s", got)
	}
	if got := string(after.Tags.JSON(nil, false)); got != `{"site":"rome","x":1}` {
		t.Errorf("tags, which were not named: %s", got)
	}
	if n := d.Notifications(); len(n) != 1 || n[0].Version != 5 {
		t.Errorf("the device was told %+v", n)
	}
	list, _, err := h.TwinHistory(t.Context(), enginetest.Owner(), id, engine.HistoryDesired, "", 1)
	if err != nil || list[0].Cause != "restore:desired:1" {
		t.Errorf("history: %+v, %v", list, err)
	}
	// Again: nothing differs, nothing is written.
	changes, same, err := h.RestoreTwin(t.Context(), enginetest.Owner(), id, restore, engine.IfMatch{})
	if err != nil || len(changes) != 0 || same.ETag != after.ETag {
		t.Errorf("a second restore: %+v, etag %s then %s, %v", changes, after.ETag, same.ETag, err)
	}
	_, _, err = h.RestoreTwin(t.Context(), enginetest.Owner(), id, restore, engine.IfMatch{Present: true, ETag: "old"})
	wantCode(t, err, engine.CodePreconditionFailed)
}

// A caller's clock may be ahead of the hub's: its now is one here.
func TestMomentJustAhead(t *testing.T) {
	h := enginetest.New(t)
	mustCreate(t, h, engine.Identity{DeviceID: "d"})
	id := engine.TwinID{DeviceID: "d"}
	if _, err := h.TwinAsOf(t.Context(), enginetest.Owner(), id, time.Now().Add(30*time.Second).Format(time.RFC3339)); err != nil {
		t.Error(err)
	}
}
