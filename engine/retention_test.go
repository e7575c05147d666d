package engine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// openHub opens a hub for tests that look inside.
func openHub(t *testing.T) *Hub {
	t.Helper()
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, Hosts: []string{"hub.muster.test"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Error(err)
		}
	})
	return h
}

// owner is a caller with every permission.
var owner = Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: auth.AllPermissions}}

func TestRetentionDropsWhatIsOld(t *testing.T) {
	h := openHub(t)
	for i := range 5 {
		if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: fmt.Sprint("d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (changes, history int) {
		t.Helper()
		err := h.db.View(t.Context(), func(r storage.Reader) error {
			for _, err := range changeLog.Read(r, 0) {
				if err != nil {
					return err
				}
				changes++
			}
			for _, err := range historyTable.Scan(r, storage.Range{}) {
				if err != nil {
					return err
				}
				history++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return changes, history
	}
	for _, c := range []struct {
		later            time.Duration
		changes, history int
	}{
		{0, 5, 5},
		{changeLogAge + time.Hour, 1, 5}, // the newest change carries the position on
		{h.limits.HistoryDesiredAge + time.Hour, 1, 0},
	} {
		if err := h.retain(t.Context(), time.Now().Add(c.later)); err != nil {
			t.Fatal(err)
		}
		if changes, history := count(); changes != c.changes || history != c.history {
			t.Errorf("after %s: %d changes and %d history entries, want %d and %d", c.later, changes, history, c.changes, c.history)
		}
	}
}
