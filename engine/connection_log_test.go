package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestConnectionsSayWhyTheyEnded(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "pump"}
	for range 60 {
		enginetest.Connect(t, h, id).Session.Close(errors.New("keep_alive_timeout"))
	}
	enginetest.Connect(t, h, id)
	enginetest.Connect(t, h, id) // takes over
	// A change that is waited for is behind all that was submitted before it.
	if _, err := h.PatchTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Tags: []byte(`{"a":1}`)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
	first, next, err := h.Connections(t.Context(), enginetest.Owner(), id, "", 30)
	if err != nil || len(first) != 30 || next == "" || !strings.Contains(first[0].Reason, "took over") || !strings.Contains(first[1].Reason, "keep_alive_timeout") {
		t.Fatalf("first page: %+v, next %q, %v", first, next, err)
	}
	rest, next, err := h.Connections(t.Context(), enginetest.Owner(), id, next, 30)
	if err != nil || len(rest) != 20 || next != "" || rest[0].Number != first[29].Number-1 {
		t.Errorf("second page: %d entries, next %q, %v", len(rest), next, err)
	}
	for range 3 {
		if _, err := h.AuthenticateDevice(t.Context(), engine.Credentials{ID: id, Token: "nonsense", Protocol: "https", Address: "192.0.2.9:1"}); err == nil {
			t.Fatal("nonsense opened the door")
		}
	}
	if _, err := h.AuthenticateDevice(t.Context(), engine.Credentials{ID: engine.TwinID{DeviceID: "nobody"}}); err == nil {
		t.Fatal("nobody was let in")
	}
	if _, err := h.PatchTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Tags: []byte(`{"a":2}`)}, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
	refused, _, err := h.Connections(t.Context(), enginetest.Owner(), id, "", 2)
	if err != nil || refused[0].Refused != 3 || refused[0].Address != "192.0.2.9:1" || refused[0].Protocol != "https" || refused[1].Refused != 0 || refused[1].Number != first[0].Number {
		t.Errorf("after refusals: %+v, %v", refused, err)
	}
	if err := h.DeleteIdentity(t.Context(), enginetest.Owner(), id, engine.IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	if list, _, err := h.Connections(t.Context(), enginetest.Owner(), id, "", 0); err != nil || len(list) != 0 {
		t.Errorf("the next identity of the name has %+v, %v", list, err)
	}
}
