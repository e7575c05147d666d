package engine

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// TestIdentitiesThatChangeUnderTheirSessions lets devices connect, write and
// leave while their identities are disabled, deleted and made again. In the
// end nothing is left of an identity that is gone, and what was stored last of
// a presence is true.
func TestIdentitiesThatChangeUnderTheirSessions(t *testing.T) {
	h := openHub(t)
	ids := []TwinID{{"a", ""}, {"a", "m"}, {"b", ""}}
	key := auth.NewKey()
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	identity := func(id TwinID, disabled bool) Identity {
		return Identity{DeviceID: id.DeviceID, ModuleID: id.ModuleID, Disabled: disabled, Authentication: Authentication{Type: AuthSAS, PrimaryKey: key, SecondaryKey: key}}
	}
	anyETag := IfMatch{Present: true, Any: true}
	end := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	for n := range 12 {
		id := ids[n%len(ids)]
		wg.Go(func() { // a device; what it is refused does not matter
			for time.Now().Before(end) {
				resource := "hub.muster.test/devices/" + id.DeviceID
				if id.ModuleID != "" {
					resource += "/modules/" + id.ModuleID
				}
				token := auth.SignToken(resource, raw, "", time.Now().Add(time.Hour))
				grant, err := h.AuthenticateDevice(t.Context(), Credentials{ID: id, Token: token})
				if err != nil {
					continue
				}
				s, err := h.Connect(t.Context(), Connection{Grant: grant, Clean: rand.IntN(4) == 0, ModelID: "dtmi:a;1", Outbox: deaf{}})
				if err != nil {
					continue
				}
				var all Subscriptions
				_ = s.Subscribe(t.Context(), all)
				_, _ = s.PatchReported(t.Context(), []byte(`{"a":1}`), -1)
				if rand.IntN(2) == 0 {
					s.Close(nil)
				}
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(end) {
			id := ids[rand.IntN(len(ids))]
			switch rand.IntN(6) {
			case 0:
				_ = h.DeleteIdentity(t.Context(), owner, id, anyETag)
			case 1:
				_, _ = h.UpdateIdentity(t.Context(), owner, identity(id, id.ModuleID == ""), anyETag)
			case 2:
				_ = h.flushPresence(t.Context())
			default:
				if _, err := h.CreateIdentity(t.Context(), owner, identity(id, false)); err != nil {
					_, _ = h.UpdateIdentity(t.Context(), owner, identity(id, false), anyETag)
				}
			}
		}
	})
	wg.Wait()

	_ = h.DeleteIdentity(t.Context(), owner, ids[2], anyETag)
	// What was submitted before an update that is waited for has settled too.
	if err := h.update(t.Context(), "", func(tx *storage.Tx) error { tx.Add("settled", 1); return nil }); err != nil {
		t.Fatal(err)
	}
	err = h.db.View(t.Context(), func(r storage.Reader) error {
		exists := map[TwinID]bool{}
		for _, id := range ids {
			_, err := loadIdentity(r, id)
			exists[id] = err == nil
			if live := h.sessions.get(id); live != nil && (err != nil || live.Err() != nil) {
				t.Errorf("%s: a session is live, identity %v, session %v", id, err, live.Err())
			}
			if _, err := presenceTable.Get(r, id.key()); err == nil && !exists[id] {
				t.Errorf("%s: presence of an identity that is gone", id)
			}
			if _, err := subscriptionTable.Get(r, id.key()); err == nil && !exists[id] {
				t.Errorf("%s: subscriptions of an identity that is gone", id)
			}
		}
		last := map[TwinID]string{}
		for e, err := range changeLog.Read(r, 0) {
			if err != nil {
				return err
			}
			c, err := decodeChange(e)
			if err != nil {
				return err
			}
			if c.Kind == changeConnected || c.Kind == changeDisconnected {
				last[c.ID] = c.Kind
			}
		}
		for id, kind := range last {
			if live := h.sessions.get(id) != nil; live != (kind == changeConnected) && exists[id] {
				t.Errorf("%s: live %v, and %s came last", id, live, kind)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lost := h.Totals().PresenceLost; lost > 0 {
		t.Logf("%d presence changes were lost", lost)
	}
	if h.Totals().Connects == 0 || h.Totals().SessionsReplaced == 0 {
		t.Error("nobody connected or took over")
	}
}
