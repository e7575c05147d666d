package service

import (
	"fmt"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// TestItemsJSON compares the fast form of a page with the plain one.
func TestItemsJSON(t *testing.T) {
	hub, owner := enginetest.New(t), enginetest.Owner()
	for _, d := range []struct {
		identity engine.Identity
		update   engine.TwinUpdate
	}{
		{engine.Identity{DeviceID: "plain"}, engine.TwinUpdate{}},
		{engine.Identity{DeviceID: "edge", Edge: true}, engine.TwinUpdate{Tags: []byte(`{"a":"<&> \" \u00e4","n":1.50,"o":{"x":[1,"x",{}]}}`)}},
		{engine.Identity{DeviceID: "off", Disabled: true, StatusReason: `"why" <not>`}, engine.TwinUpdate{Desired: []byte(`{"a":{"b":true}}`)}},
		{engine.Identity{DeviceID: "off", ModuleID: "m"}, engine.TwinUpdate{Tags: []byte(`{"a":1}`), Desired: []byte(`{"n":-4503599627370496}`)}},
	} {
		if _, err := hub.CreateIdentity(t.Context(), owner, d.identity); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.PatchTwin(t.Context(), owner, d.identity.ID(), d.update, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3*twinsWritten + 1 { // a page that is written in parts
		if _, err := hub.CreateIdentity(t.Context(), owner, engine.Identity{DeviceID: fmt.Sprint("many", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{
		"SELECT * FROM devices", "SELECT TOP 1 * FROM devices", "SELECT * FROM devices.modules", "SELECT * FROM devices WHERE deviceId = 'none'",
		"SELECT deviceId, tags.a FROM devices", "SELECT COUNT() AS n FROM devices",
	} {
		page, err := hub.Query(t.Context(), owner, engine.QueryRequest{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(itemsJSON(page)), string(encode(queryItems(page))); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}
