package engine

import (
	"slices"
	"testing"

	"github.com/muster-hub/muster/storage"
)

// TestPresenceThatWasOvertaken replays what two goroutines of one identity can
// do in the wrong order.
func TestPresenceThatWasOvertaken(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	settle := func() (kinds []string, p presenceRecord) {
		t.Helper()
		// What was submitted before an update that is waited for has settled too.
		if err := h.update(t.Context(), "", func(tx *storage.Tx) error { tx.Add("settled", 1); return nil }); err != nil {
			t.Fatal(err)
		}
		changes, err := h.recentChanges(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			kinds = append(kinds, c.Kind)
		}
		slices.Reverse(kinds)
		err = h.view(t.Context(), "", func(r storage.Reader) error {
			p, err = presenceTable.Get(r, id.key())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return kinds, p
	}
	want := []string{changeIdentityCreated, changeConnected}

	first := connect(t, h, id)
	first.announce() // sooner than by itself
	if kinds, _ := settle(); !slices.Equal(kinds, want) {
		t.Errorf("connected: %v, want %v", kinds, want)
	}
	first.Close(nil)
	want = append(want, changeDisconnected)
	kinds, ended := settle()
	if !slices.Equal(kinds, want) {
		t.Errorf("disconnected: %v, want %v", kinds, want)
	}
	first.submitBegin()
	if err := h.update(t.Context(), "", func(tx *storage.Tx) error { return h.storeActivityTx(tx, first) }); err != nil {
		t.Fatal(err)
	}
	if kinds, p := settle(); !slices.Equal(kinds, want) || !p.Updated.Equal(ended.Updated) {
		t.Errorf("what came late was stored: %v at %s, want %v at %s", kinds, p.Updated, want, ended.Updated)
	}
	connect(t, h, id).announce()
	h.recordEnd(first, errf(CodeConnectionClosed, "late"))
	want = append(want, changeConnected)
	if kinds, _ := settle(); !slices.Equal(kinds, want) {
		t.Errorf("connected again: %v, want %v", kinds, want)
	}
}
