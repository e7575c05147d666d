package service

import (
	"fmt"
	"os"
	"path/filepath"
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

// TestQueriedTwinIsTheTwin: a twin on a page of a query is what a read of the twin
// shows, whatever its identity is, after each change of it, and after restarts with
// columns that were kept and built.
func TestQueriedTwinIsTheTwin(t *testing.T) {
	dir, owner, ctx := t.TempDir(), enginetest.Owner(), t.Context()
	hub := enginetest.New(t, enginetest.Dir(dir))
	selfSigned := engine.Authentication{Type: engine.AuthSelfSigned, PrimaryThumbprint: "0123456789012345678901234567890123456789"}
	all := []engine.Identity{
		{DeviceID: "plain"}, {DeviceID: "plain", ModuleID: "m"}, {DeviceID: "managed"}, {DeviceID: "managed", ModuleID: "m", ManagedBy: "me"},
		{DeviceID: "off", Disabled: true}, {DeviceID: "why", StatusReason: "because"},
		{DeviceID: "edge", Edge: true}, {DeviceID: "print", Authentication: selfSigned},
		{DeviceID: "authority", Authentication: engine.Authentication{Type: engine.AuthCertificateAuthority}},
		{DeviceID: "managed", ModuleID: "none", Authentication: engine.Authentication{Type: engine.AuthNone}},
	}
	compare := func(when string) {
		t.Helper()
		shown := 0
		for _, source := range []string{"devices", "devices.modules"} {
			page, err := hub.Query(ctx, owner, engine.QueryRequest{Text: "SELECT * FROM " + source})
			if err != nil {
				t.Fatal(err)
			}
			for i := range page.Twins {
				id := page.Twins[i].Identity.ID()
				twin, err := hub.Twin(ctx, owner, id)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := string(appendTwin(nil, &page.Twins[i])), string(encode(showTwin(twin))); got != want {
					t.Errorf("%s, %s:\n got %s\nwant %s", when, id, got, want)
				}
				shown++
			}
		}
		if shown < len(all) {
			t.Errorf("%s: %d twins", when, shown)
		}
	}
	create := func(i engine.Identity) {
		t.Helper()
		if _, err := hub.CreateIdentity(ctx, owner, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range all {
		create(i)
	}
	compare("created")
	edge, err := hub.Identity(ctx, owner, engine.TwinID{DeviceID: "edge"})
	if err != nil {
		t.Fatal(err)
	}
	create(engine.Identity{DeviceID: "leaf", DeviceScope: edge.DeviceScope})
	change := func(when, device string, f func(i *engine.Identity)) {
		t.Helper()
		i, err := hub.Identity(ctx, owner, engine.TwinID{DeviceID: device})
		if err != nil {
			t.Fatal(err)
		}
		f(&i)
		if _, err := hub.UpdateIdentity(ctx, owner, i, engine.IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
		compare(when)
	}
	for _, columns := range []string{"new", "kept", "built"} {
		if columns != "new" {
			if err := hub.Close(); err != nil {
				t.Fatal(err)
			}
			if columns == "built" {
				if err := os.Remove(filepath.Join(dir, "KEPT")); err != nil {
					t.Fatal(err)
				}
			}
			hub = enginetest.New(t, enginetest.Dir(dir))
		}
		compare(columns)
		change(columns+", other keys", "plain", func(i *engine.Identity) {
			i.Authentication.PrimaryKey, i.Authentication.SecondaryKey = i.Authentication.SecondaryKey, i.Authentication.PrimaryKey
		})
		change(columns+", disabled", "plain", func(i *engine.Identity) { i.Disabled = true })
		change(columns+", enabled again", "plain", func(i *engine.Identity) { i.Disabled = false })
		change(columns+", a reason", "managed", func(i *engine.Identity) { i.StatusReason = "reason" })
		change(columns+", no reason", "managed", func(i *engine.Identity) { i.StatusReason = "" })
		change(columns+", a certificate", "why", func(i *engine.Identity) { i.StatusReason, i.Authentication = "", selfSigned })
		if err := hub.DeleteIdentity(ctx, owner, engine.TwinID{DeviceID: "plain"}, engine.IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
		create(all[0])
		create(all[1])
		compare(columns + ", deleted and made again")
	}
}
