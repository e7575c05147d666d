package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// endpoint is a receiver whose answers a test chooses. It notes what it took.
type endpoint struct {
	mu     sync.Mutex
	answer func(url, subject string, attempt int) (engine.WebhookAnswer, error)
	taken  []string // "subject type", in order
	tries  map[string]int
}

func (e *endpoint) deliver(ctx context.Context, p engine.WebhookPost) (engine.WebhookAnswer, error) {
	var event struct{ ID, Type, Subject string }
	if err := json.Unmarshal(p.Body, &event); err != nil {
		return engine.WebhookAnswer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tries == nil {
		e.tries = map[string]int{}
	}
	e.tries[p.URL+event.ID]++
	if e.answer != nil {
		if a, err := e.answer(p.URL, event.Subject, e.tries[p.URL+event.ID]); err != nil || a.Status != 200 {
			return a, err
		}
	}
	e.taken = append(e.taken, strings.TrimPrefix(event.Subject, "devices/")+" "+strings.TrimPrefix(event.Type, "muster."))
	return engine.WebhookAnswer{Status: 200}, ctx.Err()
}

func (e *endpoint) of(subject string) (list []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.taken {
		if strings.HasPrefix(t, subject) {
			list = append(list, t)
		}
	}
	return list
}

// running is a hub at work; end stops it.
func running(t *testing.T, dir string, e *endpoint, options ...enginetest.Option) (h *engine.Hub, end func()) {
	t.Helper()
	h = enginetest.New(t, append(options, enginetest.Dir(dir), func(o *engine.Options) { o.Deliver = e.deliver })...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	return h, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func addWebhook(t *testing.T, h *engine.Hub, id string, kinds ...string) {
	t.Helper()
	w, err := h.PutWebhook(t.Context(), enginetest.Owner(), engine.Webhook{ID: id, URL: "https://example.com/" + id, Kinds: kinds, Enabled: true}, "")
	if err != nil || !strings.HasPrefix(w.Secret, "whsec_") {
		t.Fatal(w, err)
	}
}

func create(t *testing.T, h *engine.Hub, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
	}
}

func tag(t *testing.T, h *engine.Hub, id string, n int) {
	t.Helper()
	u := engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, n)}
	if _, err := h.PatchTwin(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: id}, u, engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, h *engine.Hub, id string) engine.WebhookState {
	t.Helper()
	w, err := h.Webhook(t.Context(), enginetest.Owner(), id)
	if err != nil {
		t.Fatal(err)
	}
	return w.State
}

// TestWebhookRetries: what fails twice arrives all the same, after the pause
// that the endpoint asked for, in the order of its device.
func TestWebhookRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(_, subject string, attempt int) (engine.WebhookAnswer, error) {
			switch {
			case subject == "devices/slow" && attempt == 1:
				return engine.WebhookAnswer{}, errors.New("connection refused")
			case subject == "devices/slow" && attempt == 2:
				return engine.WebhookAnswer{Status: 503, RetryAfter: time.Minute}, nil
			}
			return engine.WebhookAnswer{Status: 200}, nil
		}}
		h, end := running(t, t.TempDir(), e)
		defer end()
		addWebhook(t, h, "hook", "identity.*", "twin.*")
		began := time.Now()
		create(t, h, "slow", "fast")
		for i := range 3 {
			tag(t, h, "slow", i)
			tag(t, h, "fast", i)
		}
		const want = "%[1]s identity.created %[1]s twin.tags %[1]s twin.tags %[1]s twin.tags"
		for len(e.of("fast")) < 4 || len(e.of("slow")) < 4 {
			if time.Since(began) > time.Hour {
				t.Fatalf("an hour later: %v", e.taken)
			}
			time.Sleep(time.Second)
		}
		for _, id := range []string{"slow", "fast"} {
			if got := strings.Join(e.of(id), " "); got != fmt.Sprintf(want, id) {
				t.Errorf("got %s", got)
			}
		}
		if took := time.Since(began); took < 4*time.Minute {
			t.Errorf("four events took %s, although each was asked to wait a minute", took)
		}
		for state(t, h, "hook").Lag > 0 {
			time.Sleep(time.Second)
		}
		if s := state(t, h, "hook"); s.Delivered != 8 || s.Dead != 0 || !strings.Contains(s.LastError, "503") && !strings.Contains(s.LastError, "refused") {
			t.Errorf("%+v", s)
		}
	})
}

// TestWebhookGivesUp: what an endpoint breaks over costs eight attempts an
// event, which are dead letters then, and disturbs no other webhook.
func TestWebhookGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(url, _ string, _ int) (engine.WebhookAnswer, error) {
			if strings.HasSuffix(url, "/broken") {
				return engine.WebhookAnswer{Status: 500}, nil
			}
			return engine.WebhookAnswer{Status: 200}, nil
		}}
		h, end := running(t, t.TempDir(), e)
		defer end()
		addWebhook(t, h, "broken", "identity.created")
		addWebhook(t, h, "well", "identity.created")
		create(t, h, "a", "b")
		for len(e.of("")) < 2 {
			time.Sleep(time.Millisecond)
		}
		if s := state(t, h, "broken"); s.Dead > 0 || !strings.Contains(s.LastError, "500") || s.FailingSince.IsZero() || s.Retry.IsZero() {
			t.Errorf("when the other webhook was served: %+v", s)
		}
		for state(t, h, "broken").Dead < 2 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		dead, _, err := h.WebhookDeadLetters(t.Context(), enginetest.Owner(), "broken", 0, 10)
		if err != nil || len(dead) != 2 || dead[0].Attempts != 8 || !strings.Contains(dead[0].Error, "500") || !strings.Contains(string(dead[0].Event), `"devices/`) {
			t.Errorf("dead letters %+v, %v", dead, err)
		}
	})
}

// TestWebhookGoesOnAfterRestart: what happened while nobody took it, and while
// the webhook was paused, is delivered after a restart, once.
func TestWebhookGoesOnAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, e := t.TempDir(), &endpoint{}
		h, end := running(t, dir, e)
		addWebhook(t, h, "hook", "identity.created")
		create(t, h, "a")
		for state(t, h, "hook").Delivered < 1 {
			time.Sleep(time.Second)
		}
		pause := engine.Webhook{ID: "hook", URL: "https://example.com/hook", Kinds: []string{"identity.created"}}
		w, err := h.PutWebhook(t.Context(), enginetest.Owner(), pause, "*")
		if err != nil || w.Secret != "" {
			t.Fatal(w, err)
		}
		create(t, h, "b")
		time.Sleep(10 * time.Minute)
		end()
		h, end = running(t, dir, e)
		defer end()
		create(t, h, "c")
		time.Sleep(10 * time.Minute)
		if got := e.of(""); !slices.Equal(got, []string{"a identity.created"}) {
			t.Fatalf("a paused webhook delivered %v", got)
		}
		pause.Enabled = true
		if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), pause, w.ETag); err != nil {
			t.Fatal(err)
		}
		for state(t, h, "hook").Delivered < 3 {
			time.Sleep(time.Second)
		}
		got := e.of("")
		slices.Sort(got)
		if !slices.Equal(got, []string{"a identity.created", "b identity.created", "c identity.created"}) {
			t.Errorf("delivered %v", got)
		}
		if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), pause, w.ETag); engine.AsError(err).Code != engine.CodePreconditionFailed {
			t.Errorf("an old ETag: %v", err)
		}
	})
}

func TestWebhookRefuses(t *testing.T) {
	h := enginetest.New(t)
	for name, change := range map[string]func(w *engine.Webhook){
		"id":         func(w *engine.Webhook) { w.ID = "../x" },
		"no scheme":  func(w *engine.Webhook) { w.URL = "example.com" },
		"file":       func(w *engine.Webhook) { w.URL = "file:///etc/passwd" },
		"user":       func(w *engine.Webhook) { w.URL = "https://me:secret@example.com" },
		"no host":    func(w *engine.Webhook) { w.URL = "https:///x" },
		"long url":   func(w *engine.Webhook) { w.URL += strings.Repeat("x", 2048) },
		"many kinds": func(w *engine.Webhook) { w.Kinds = make([]string, 101) },
		"empty kind": func(w *engine.Webhook) { w.Kinds = []string{""} },
		"no kind":    func(w *engine.Webhook) { w.Kinds = []string{"twin.*", "twin.reprted"} },
		"no prefix":  func(w *engine.Webhook) { w.Kinds = []string{"twins*"} },
		"port":       func(w *engine.Webhook) { w.URL = "https://example.com:65536/x" },
		"port 0":     func(w *engine.Webhook) { w.URL = "https://example.com:0/x" },
		"text":       func(w *engine.Webhook) { w.Description = strings.Repeat("x", 513) },
	} {
		w := engine.Webhook{ID: "hook", URL: "https://example.com/x"}
		change(&w)
		if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), w, ""); engine.AsError(err).Code != engine.CodeArgumentInvalid {
			t.Errorf("%s: %v, want CodeArgumentInvalid", name, err)
		}
	}
	if _, err := h.PutWebhook(t.Context(), engine.Caller{}, engine.Webhook{ID: "hook", URL: "https://example.com/x"}, ""); engine.AsError(err).Code != engine.CodeForbidden {
		t.Errorf("nobody: %v", err)
	}
}
