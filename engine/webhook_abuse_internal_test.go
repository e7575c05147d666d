package engine

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/storage"
)

// hookSink keeps the subjects and bodies that were posted, and answers 200
// when hold, if it is set, has returned.
type hookSink struct {
	mu   sync.Mutex
	got  []string
	hold func()
}

func (s *hookSink) deliver(_ context.Context, p WebhookPost) (WebhookAnswer, error) {
	s.mu.Lock()
	s.got = append(s.got, p.Header["Ce-Subject"]+p.Header["Ce-Type"]+string(p.Body))
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		hold()
	}
	return WebhookAnswer{Status: 200}, nil
}

func (s *hookSink) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// runHub opens a hub that works until end is called.
func runHub(t *testing.T, o storage.Options, s *hookSink) (h *Hub, end func()) {
	t.Helper()
	h, err := Open(t.Context(), Options{Storage: o, Deliver: s.deliver})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	return h, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func makeDevice(t *testing.T, h *Hub, id string) {
	t.Helper()
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: id}); err != nil {
		t.Fatal(err)
	}
}

func putHook(t *testing.T, h *Hub, kinds ...string) {
	t.Helper()
	if _, err := h.PutWebhook(t.Context(), owner, Webhook{ID: "hook", URL: "https://example.com", Mode: WebhookBinary, Kinds: kinds, Enabled: true}, ""); err != nil {
		t.Fatal(err)
	}
}

// TestWebhookWhoseStateCantBeStored: while the store takes no writes, events
// are posted once, and not again and again.
func TestWebhookWhoseStateCantBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hookSink{}
		h, end := runHub(t, storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, s)
		defer end()
		putHook(t, h, "identity.*")
		time.Sleep(time.Minute)
		// A record that can't be read fails the pump's transactions, and no others.
		var good WebhookState
		broken := storage.NewTable("webhookstate", 1, storage.JSON[string]())
		err := h.update(t.Context(), "break", func(tx *storage.Tx) (err error) {
			if good, err = webhookStateTable.Get(tx, storage.Tuple("hook")); err != nil {
				return err
			}
			return broken.Put(tx, storage.Tuple("hook"), "broken")
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			makeDevice(t, h, fmt.Sprint("d", i))
		}
		time.Sleep(time.Minute)
		if got := s.take(); len(got) != 5 {
			t.Fatalf("while nothing could be stored: %q", got)
		}
		err = h.update(t.Context(), "mend", func(tx *storage.Tx) error { return webhookStateTable.Put(tx, storage.Tuple("hook"), good) })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := s.take(); len(got) != 0 {
			t.Errorf("posted again: %q", got)
		}
		if w, err := h.Webhook(t.Context(), owner, "hook"); err != nil || w.State.Lag != 0 || w.State.Delivered != 5 {
			t.Errorf("%+v, %v", w.State, err)
		}
	})
}

// TestWebhookMadeAgainIsAnother: the last word of the one before, which may
// come late, does not take the new one back to events from before it was made.
func TestWebhookMadeAgainIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, release := &hookSink{}, make(chan struct{})
		s.hold = func() { <-release } // an endpoint that does not look at who has left
		h, end := runHub(t, storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, s)
		defer end()
		putHook(t, h, "identity.*")
		synctest.Wait()
		for i := range 20 {
			makeDevice(t, h, fmt.Sprint("before-", i))
		}
		time.Sleep(time.Second)
		if err := h.DeleteWebhook(t.Context(), owner, "hook"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		putHook(t, h, "identity.*")
		s.take()
		close(release)
		time.Sleep(time.Minute)
		makeDevice(t, h, "after")
		time.Sleep(time.Minute)
		if got := s.take(); len(got) != 1 || got[0][:len("devices/after")] != "devices/after" {
			t.Errorf("the new webhook got %q", got)
		}
		if w, err := h.Webhook(t.Context(), owner, "hook"); err != nil || w.State.Delivered != 1 {
			t.Errorf("%+v, %v", w.State, err)
		}
	})
}

// TestRestoredWebhookMissesNoTelemetry: the backup holds no messages, and
// devices send before the hub is resumed.
func TestRestoredWebhookMissesNoTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, s := storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, &hookSink{}
		h, end := runHub(t, from, s)
		putHook(t, h, EventTelemetry)
		putMessages(t, h, "d", 0, 5)
		time.Sleep(time.Minute)
		for range 2 { // the second takes what the first closed
			if _, err := h.db.Messages().Trim(time.Now().Add(time.Hour), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := len(s.take()); n != 5 || h.db.Messages().First() != 6 {
			t.Fatalf("%d were posted, and the log begins at %d", n, h.db.Messages().First())
		}
		var backup bytes.Buffer
		if _, err := h.db.Backup(t.Context(), &backup, storage.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		end()
		to := storage.Options{Dir: filepath.Join(t.TempDir(), "restored"), Memory: 64 << 20, MasterKeyFile: filepath.Join(from.Dir, "master.key")}
		if _, err := storage.Restore(t.Context(), &backup, to, nil); err != nil {
			t.Fatal(err)
		}
		h, end = runHub(t, to, s)
		putMessages(t, h, "d", 10, 7)
		time.Sleep(time.Minute)
		if err := h.db.Resume(); err != nil {
			t.Fatal(err)
		}
		end()
		_, end = runHub(t, to, s)
		defer end()
		time.Sleep(time.Minute)
		got := s.take()
		for i := range got {
			got[i] = got[i][len(got[i])-2:]
		}
		if !slices.Equal(got, numbers(10, 7)) {
			t.Errorf("posted %q", got)
		}
	})
}
