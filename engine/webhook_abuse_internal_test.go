package engine

import (
	"bytes"
	"context"
	"errors"
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

// TestWebhookOfADeviceThatFloods: a device whose events are taken slowly, or
// that sends more of them than can be taken one after another, goes at its own
// pace and the others at theirs; it loses nothing, keeps its order, and after
// a stop in the middle nobody's events come again but what was under way.
func TestWebhookOfADeviceThatFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flood, others = 2000, 5
		var mu sync.Mutex
		got := map[string][]string{}
		deliver := func(ctx context.Context, p WebhookPost) (WebhookAnswer, error) {
			wait := time.Millisecond
			if p.Header["Ce-Deviceid"] == "loud*" {
				wait = 50 * time.Millisecond // 20 a second
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return WebhookAnswer{}, ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			got[p.Header["Ce-Deviceid"]] = append(got[p.Header["Ce-Deviceid"]], string(p.Body))
			return WebhookAnswer{Status: 200}, nil
		}
		count := func(device string) int {
			mu.Lock()
			defer mu.Unlock()
			return len(got[device])
		}
		dir := t.TempDir()
		run := func() (*Hub, func()) {
			h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}, Deliver: deliver})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			return h, func() {
				cancel()
				if err := errors.Join(<-done, h.Close()); err != nil {
					t.Error(err)
				}
			}
		}
		h, end := run()
		putHook(t, h, EventTelemetry)
		synctest.Wait()
		for i := range flood / 100 {
			putMessages(t, h, "loud*", 100*i, 100)
			putMessages(t, h, "loud2", i, 1) // the other's id is its prefix
			for n := range others {
				putMessages(t, h, fmt.Sprint("d", n), i, 1)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		for n := range others {
			if c := count(fmt.Sprint("d", n)); c != flood/100 {
				t.Errorf("device %d: %d of %d events were posted while another one floods", n, c, flood/100)
			}
		}
		if c := count("loud*"); c > flood/2 || c < 50 {
			t.Errorf("%d of the flood were posted: not what the test is about", c)
		}
		w, err := h.Webhook(t.Context(), owner, "hook")
		if err != nil || w.State.Waiting > webhookWindow/2+webhookShare || w.State.Lag == 0 || w.State.LagTime < time.Second {
			t.Errorf("%+v, %v", w.State, err)
		}
		before := count("loud*")
		end() // in the middle
		h, end = run()
		defer end()
		time.Sleep(10 * time.Second)
		for n := range others {
			if c := count(fmt.Sprint("d", n)); c != flood/100 {
				t.Errorf("device %d: %d of %d events were posted after the restart", n, c, flood/100)
			}
		}
		putMessages(t, h, "d0", 1000, 1)
		time.Sleep(time.Second)
		if c := count("d0"); c != flood/100+1 {
			t.Errorf("after the restart the others wait for the flood: %d", c)
		}
		for range 100 {
			if count("loud*") >= flood {
				break
			}
			time.Sleep(5 * time.Second)
		}
		putMessages(t, h, "loud*", flood, 3)
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		loud := got["loud*"]
		if again := len(loud) - flood - 3; again < 0 || again > 2 {
			t.Errorf("%d of %d events came, %d before the stop", len(loud), flood+3, before)
		}
		if loud = slices.Compact(loud); !slices.Equal(loud, numbers(0, flood+3)) {
			t.Errorf("the flood came out of order or with holes: %d events", len(loud))
		}
		if !slices.Equal(got["loud2"], numbers(0, flood/100)) {
			t.Errorf("a device whose id begins like the loud one's got %v", got["loud2"])
		}
		if w, err := h.Webhook(t.Context(), owner, "hook"); err != nil || w.State.Lag != 0 || w.State.Waiting != 0 || len(w.State.Behind) != 0 {
			t.Errorf("at the end: %+v, %v", w.State, err)
		}
	})
}
