package engine_test

import (
	"bytes"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/storage"
)

// TestRestoredHubHoldsBack: what a backup had queued reaches nobody until the
// hub is resumed, and then it does.
func TestRestoredHubHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to, e := t.TempDir(), filepath.Join(t.TempDir(), "restored"), &endpoint{}
		h, end := running(t, from, e)
		id := engine.TwinID{DeviceID: "d"}
		grantOf := func(h *engine.Hub) engine.Grant {
			g, err := h.AuthenticateDevice(t.Context(), engine.Credentials{ID: id, Host: enginetest.HostName, Token: enginetest.Token(t, h, id, time.Now().Add(24*time.Hour))})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		grantOf(h) // makes the device
		addWebhook(t, h, "hook", "method.queued")
		if _, err := h.SendMessage(t.Context(), enginetest.Owner(), id.DeviceID, engine.DeviceboundMessage{Body: []byte("x"), Expires: time.Now().Add(24 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
		// Paused itself, so that its event is in the backup and still to be sent.
		hold := engine.Webhook{ID: "hook", URL: "https://example.com/hook", Kinds: []string{"method.queued"}}
		if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), hold, "*"); err != nil {
			t.Fatal(err)
		}
		call, err := h.QueueMethod(t.Context(), enginetest.Owner(), id, engine.MethodCall{Name: "reboot"}, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		hold.Enabled = true
		w, err := h.Webhook(t.Context(), enginetest.Owner(), "hook")
		if err != nil || w.State.Lag == 0 {
			t.Fatalf("nothing is left to send: %+v, %v", w, err)
		}
		end()

		options := storage.Options{Dir: from, Memory: 64 << 20}
		db, err := storage.Open(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		var backup bytes.Buffer
		if _, err := db.Backup(t.Context(), &backup, storage.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		options.MasterKeyFile, options.Dir = filepath.Join(from, "master.key"), to
		if _, err := storage.Restore(t.Context(), &backup, options, nil); err != nil {
			t.Fatal(err)
		}
		withKey := func(o *engine.Options) { o.Storage.MasterKeyFile = options.MasterKeyFile }

		h, end = running(t, to, e, withKey)
		if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), hold, "*"); err != nil {
			t.Fatal(err)
		}
		d := enginetest.Connect(t, h, id, engine.EndpointMethod)
		time.Sleep(time.Minute)
		if _, found, err := h.ReceiveMessage(t.Context(), grantOf(h), 0); err != nil || found {
			t.Errorf("a message was handed out: %v, %v", found, err)
		}
		if got := d.Methods(); len(got) != 0 {
			t.Errorf("a call was sent: %+v", got)
		}
		if got := e.of(""); len(got) != 0 {
			t.Errorf("a webhook was told: %v", got)
		}
		end()

		if db, err = storage.Open(t.Context(), options); err != nil {
			t.Fatal(err)
		}
		if err := db.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		h, end = running(t, to, e, withKey)
		defer end()
		if _, found, err := h.ReceiveMessage(t.Context(), grantOf(h), 0); err != nil || !found {
			t.Errorf("after the resume no message: %v", err)
		}
		d = enginetest.Connect(t, h, id, engine.EndpointMethod)
		d.Answer(func(enginetest.Method) (int, []byte) { return 200, nil })
		for range 60 {
			time.Sleep(time.Second)
		}
		if q, err := h.QueuedMethod(t.Context(), enginetest.Owner(), id, call.ID); err != nil || q.Status != engine.QueuedSucceeded {
			t.Errorf("after the resume the call is %+v, %v", q, err)
		}
		if got := e.of(""); len(got) != 1 {
			t.Errorf("after the resume the webhook was told %v", got)
		}
	})
}
