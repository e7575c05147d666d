package engine

import (
	"encoding/json"
	"testing"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// A store of an earlier hub may lack an edge device's system modules, since
// that hub let them be deleted. Content makes them again, as the hub makes them
// with their device: without keys, which nobody would use.
func TestContentMakesMissingSystemModules(t *testing.T) {
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	c := Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: auth.AllPermissions}}
	if _, err := h.CreateIdentity(t.Context(), c, Identity{DeviceID: "e", Edge: true}); err != nil {
		t.Fatal(err)
	}
	if err := h.update(t.Context(), "lose modules", func(tx *storage.Tx) error { return h.deleteSystemModulesTx(tx, c, "e") }); err != nil {
		t.Fatal(err)
	}
	content := ConfigurationContent{Modules: json.RawMessage(`{"$edgeAgent":{"properties.desired":{"a":1}},"$edgeHub":{"properties.desired":{"b":2}}}`)}
	if err := h.ApplyConfigurationContent(t.Context(), c, "e", content); err != nil {
		t.Fatal(err)
	}
	for module, want := range map[string]string{"$edgeAgent": `{"a":1}`, "$edgeHub": `{"b":2}`} {
		id := TwinID{"e", module}
		i, err := h.Identity(t.Context(), c, id)
		if err != nil || i.Authentication != (Authentication{Type: AuthNone}) || i.ManagedBy != "iotEdge" {
			t.Errorf("%s is %+v, %v", module, i, err)
		}
		w, err := h.Twin(t.Context(), c, id)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(w.Desired.Plain(nil)); got != want {
			t.Errorf("%s has %s, want %s", module, got, want)
		}
	}
}
