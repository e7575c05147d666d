package engine

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/storage"
)

// lockedLog is a log that several write and one reads.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestWebhookThatCantRead: one whose next events are damaged, or whose own
// state is, says so in the list; the others are shown, and deliver.
func TestWebhookThatCantRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, sink, log := t.TempDir(), &hookSink{}, &lockedLog{}
		o := Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}, Deliver: sink.deliver, Logger: slog.New(slog.NewTextHandler(log, nil))}
		h, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []Webhook{
			{ID: "other", Kinds: []string{"identity.*"}, Enabled: true},
			{ID: "reader", Kinds: []string{EventTelemetry}, Enabled: true},
			{ID: "stateless", Kinds: []string{"identity.*"}, Enabled: true},
			{ID: "stopped", Kinds: []string{EventTelemetry}},
		} {
			w.URL, w.Mode = "https://example.com", WebhookBinary
			if _, err := h.PutWebhook(t.Context(), owner, w, ""); err != nil {
				t.Fatal(err)
			}
		}
		broken := storage.NewTable("webhookstate", 1, storage.JSON[string]())
		if err := h.update(t.Context(), "break", func(tx *storage.Tx) error { return broken.Put(tx, storage.Tuple("stateless"), "broken") }); err != nil {
			t.Fatal(err)
		}
		putMessages(t, h, "d", 0, 5)
		if _, err := h.db.Messages().Trim(time.Now().Add(time.Hour), 0); err != nil { // closes the segment
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		segments, err := filepath.Glob(filepath.Join(dir, "messages", "*"))
		if err != nil || len(segments) < 2 {
			t.Fatalf("%q, %v", segments, err)
		}
		text, err := os.ReadFile(segments[0])
		if err != nil {
			t.Fatal(err)
		}
		for i := range text[:min(len(text), 200)] {
			text[i] ^= 0xff
		}
		if err := os.WriteFile(segments[0], text, 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err = Open(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		look := func(damaged ...string) {
			t.Helper()
			list, err := h.WebhookStats(t.Context())
			if err != nil || len(list) != 4 {
				t.Fatalf("%+v, %v", list, err)
			}
			var got []string
			for _, w := range list {
				if w.State.LastError != "" {
					got = append(got, w.ID)
				}
				if w.ID == "reader" && !strings.Contains(w.State.LastError, "damaged") {
					t.Errorf("%+v", w.State)
				}
			}
			if strings.Join(got, " ") != strings.Join(damaged, " ") {
				t.Errorf("with an error: %q, expected %q", got, damaged)
			}
		}
		look("reader", "stateless", "stopped")

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		makeDevice(t, h, "d1")
		time.Sleep(time.Minute)
		look("reader", "stateless", "stopped")
		if got := sink.take(); len(got) != 1 {
			t.Errorf("the other posted %q", got)
		}
		w, err := h.Webhook(t.Context(), owner, "reader")
		if s := w.State; err != nil || time.Since(s.FailingSince) < 50*time.Second || s.LagTime < 50*time.Second {
			t.Errorf("%+v, %v", s, err)
		}
		f := h.doctorWebhooks(t.Context())
		if f.Level != "warn" || f.Next == "" || !strings.Contains(f.Text, "failing: reader for ") || !strings.Contains(f.Text, "stored data is damaged") || !strings.HasSuffix(f.Text, "paused by whoever runs them: stopped") {
			t.Errorf("%+v", f)
		}
		if got := log.String(); !strings.Contains(got, "webhook=reader") || !strings.Contains(got, "messages/00000000000000000001.log at byte 0") {
			t.Errorf("the log does not say where: %.1000s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
}
