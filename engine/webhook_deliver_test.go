package engine_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// posted is a request that a sink got.
type posted struct {
	engine.WebhookPost
	at     time.Time
	events []posting
}

// posting is a CloudEvent in JSON.
type posting struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Subject string `json:"subject"`
	Data    struct {
		DeviceID   string            `json:"deviceId"`
		Body       json.RawMessage   `json:"body"`
		Encoding   string            `json:"encoding"`
		Properties map[string]string `json:"properties"`
		Change     json.RawMessage   `json:"change"`
	} `json:"data"`
}

// sink is an endpoint that keeps requests; answer decides, nil takes all.
type sink struct {
	mu     sync.Mutex
	answer func(ctx context.Context, p posted) (engine.WebhookAnswer, error)
	posts  []posted // all
	taken  []posting
}

func (s *sink) deliver(ctx context.Context, p engine.WebhookPost) (engine.WebhookAnswer, error) {
	got := posted{WebhookPost: p, at: time.Now()}
	switch p.Header["Content-Type"] {
	case "application/cloudevents-batch+json":
		if err := json.Unmarshal(p.Body, &got.events); err != nil {
			return engine.WebhookAnswer{}, err
		}
	case "application/cloudevents+json":
		got.events = make([]posting, 1)
		if err := json.Unmarshal(p.Body, &got.events[0]); err != nil {
			return engine.WebhookAnswer{}, err
		}
	default:
		got.events = []posting{{ID: p.Header["Ce-Id"], Type: p.Header["Ce-Type"], Subject: p.Header["Ce-Subject"]}}
	}
	s.mu.Lock()
	s.posts = append(s.posts, got)
	answer := s.answer
	s.mu.Unlock()
	a := engine.WebhookAnswer{Status: 200}
	var err error
	if answer != nil {
		if a, err = answer(ctx, got); err != nil {
			return a, err
		}
	}
	if a.Status == 200 {
		s.mu.Lock()
		s.taken = append(s.taken, got.events...)
		s.mu.Unlock()
	}
	return a, nil
}

func (s *sink) set(answer func(ctx context.Context, p posted) (engine.WebhookAnswer, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// took lists what of a kind was taken, in order.
func (s *sink) took(kind string) (list []posting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.taken {
		if strings.HasPrefix(e.Type, "muster."+kind) {
			list = append(list, e)
		}
	}
	return list
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.posts)
}

func (s *sink) last() posted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts[len(s.posts)-1]
}

func status(n int) func(context.Context, posted) (engine.WebhookAnswer, error) {
	return func(context.Context, posted) (engine.WebhookAnswer, error) {
		return engine.WebhookAnswer{Status: n}, nil
	}
}

// sinking is a hub at work that posts to a sink.
func sinking(t *testing.T, s *sink, options ...enginetest.Option) *engine.Hub {
	t.Helper()
	h := enginetest.New(t, append(options, func(o *engine.Options) { o.Deliver = s.deliver })...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func putWebhook(t *testing.T, h *engine.Hub, w engine.Webhook) engine.Webhook {
	t.Helper()
	w.Enabled = true
	if w.URL == "" {
		w.URL = "https://example.com/" + w.ID
	}
	w, err := h.PutWebhook(t.Context(), enginetest.Owner(), w, "")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// until waits in steps until something is so.
func until(t *testing.T, what string, most, step time.Duration, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); time.Sleep(step) {
		if time.Since(began) > most {
			t.Fatalf("%s: not within %s", what, most)
		}
	}
}

func signedBy(p posted, secret string) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(p.Header["Webhook-Id"] + "." + p.Header["Webhook-Timestamp"] + "."))
	m.Write(p.Body)
	for one := range strings.SplitSeq(p.Header["Webhook-Signature"], " ") {
		if one == "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)) {
			return true
		}
	}
	return false
}

func TestWebhookModesAndTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sinks := &sink{}
		h := sinking(t, sinks)
		d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
		for _, row := range []struct {
			mode engine.WebhookMode
			body string
			want string // of the body in JSON, or the whole body in binary mode
			kind string // of the content
		}{
			{engine.WebhookStructured, `{"t": 1}`, `{"t":1}`, "application/cloudevents+json"},
			{engine.WebhookStructured, "hot <&>", `"hot <&>"`, "application/cloudevents+json"},
			{engine.WebhookStructured, "\xff\x00", `"/wA="`, "application/cloudevents+json"},
			{engine.WebhookStructured, "\x01\x02\x03\x04", `"AQIDBA=="`, "application/cloudevents+json"},
			{engine.WebhookStructured, "", `""`, "application/cloudevents+json"},
			{engine.WebhookBatch, `[1]`, `[1]`, "application/cloudevents-batch+json"},
			{engine.WebhookBinary, "\xff\x00", "\xff\x00", "application/x-own"},
			{engine.WebhookBinary, `{"t": 1}`, `{"t": 1}`, "application/x-own"},
		} {
			w := putWebhook(t, h, engine.Webhook{ID: "hook", Mode: row.mode, Kinds: []string{"telemetry"}, Headers: map[string]string{"Authorization": "Bearer x"}})
			synctest.Wait()
			before := sinks.count()
			m := engine.Message{QoS: 1, Body: []byte(row.body), Properties: []engine.Property{{Name: "p q", Value: "ä&"}}, System: []engine.Property{{Name: "content-type", Value: "application/x-own"}}}
			if err := d.Telemetry(m); err != nil {
				t.Fatal(err)
			}
			until(t, "a post", time.Minute, time.Second, func() bool { return sinks.count() > before })
			p := sinks.last()
			got := string(p.Body)
			if row.mode != engine.WebhookBinary {
				got = string(p.events[0].Data.Body)
				if p.events[0].Data.DeviceID != "a" || p.events[0].Data.Properties["p q"] != "ä&" {
					t.Errorf("%s: data %+v", row.mode, p.events[0].Data)
				}
			} else if p.Header["Muster-Properties"] != "p+q=%C3%A4%26" || p.Header["Ce-Deviceid"] != "a" {
				t.Errorf("binary headers %v", p.Header)
			}
			if got != row.want || p.Header["Content-Type"] != row.kind || p.events[0].Type != "muster.telemetry" || p.Header["Authorization"] != "Bearer x" || !signedBy(p, w.Secret) {
				t.Errorf("%s %q: body %q of %v", row.mode, row.body, got, p.Header)
			}
			if err := h.DeleteWebhook(t.Context(), enginetest.Owner(), "hook"); err != nil {
				t.Fatal(err)
			}
		}
		// Without kinds telemetry is not posted.
		putWebhook(t, h, engine.Webhook{ID: "all"})
		time.Sleep(2 * time.Second)
		before := len(sinks.took("telemetry"))
		if err := d.Telemetry(engine.Message{QoS: 1, Body: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		create(t, h, "b")
		until(t, "the change", time.Minute, time.Second, func() bool { return len(sinks.took("identity")) == 1 })
		if n := len(sinks.took("telemetry")); n != before {
			t.Errorf("%d messages were posted to a webhook without kinds", n-before)
		}
	})
}

func TestWebhookSecretRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		h := sinking(t, s)
		first := putWebhook(t, h, engine.Webhook{ID: "hook"})
		second, err := h.RotateWebhookSecret(t.Context(), enginetest.Owner(), "hook", 10*time.Minute)
		if err != nil || second.Secret == first.Secret || second.OldSecret.IsZero() {
			t.Fatal(second, err)
		}
		for _, row := range []struct {
			after time.Duration
			old   bool
		}{{0, true}, {15 * time.Minute, false}} {
			time.Sleep(row.after)
			if try, err := h.TestWebhook(t.Context(), enginetest.Owner(), "hook"); err != nil || try.Error != "" || try.Status != 200 {
				t.Fatal(try, err)
			}
			if p := s.last(); !signedBy(p, second.Secret) || signedBy(p, first.Secret) != row.old || p.events[0].Type != "muster.test" {
				t.Errorf("%s later: %v", row.after, p.Header)
			}
		}
		if _, err := h.RotateWebhookSecret(t.Context(), enginetest.Owner(), "hook", 8*24*time.Hour); engine.AsError(err).Code != engine.CodeArgumentInvalid {
			t.Errorf("a long overlap: %v", err)
		}
	})
}

// TestWebhookAdvice: what is known to do about a failure comes with it, and the URL, whose path may
// be a secret, does not.
func TestWebhookAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		h := sinking(t, s)
		putWebhook(t, h, engine.Webhook{ID: "hook"})
		s.set(func(context.Context, posted) (engine.WebhookAnswer, error) {
			return engine.WebhookAnswer{Next: "Allow it."}, errors.New("the address is private")
		})
		if try, err := h.TestWebhook(t.Context(), enginetest.Owner(), "hook"); err != nil || try.Error != "the address is private" || try.Next != "Allow it." {
			t.Errorf("%+v, %v", try, err)
		}
		s.set(func(context.Context, posted) (engine.WebhookAnswer, error) {
			return engine.WebhookAnswer{}, fmt.Errorf("send: %w", &url.Error{Op: "Post", URL: "https://chat.example/services/SECRET", Err: errors.New("connection refused")})
		})
		if try, err := h.TestWebhook(t.Context(), enginetest.Owner(), "hook"); err != nil || try.Error != "connection refused" {
			t.Errorf("%+v, %v", try, err)
		}
	})
}

// TestWebhookSlowEvent: an event that gets no answer holds up its device only.
func TestWebhookSlowEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		s.set(func(ctx context.Context, p posted) (engine.WebhookAnswer, error) {
			if p.events[0].Subject == "devices/slow" {
				<-ctx.Done()
				return engine.WebhookAnswer{}, ctx.Err()
			}
			return engine.WebhookAnswer{Status: 200}, nil
		})
		h := sinking(t, s)
		putWebhook(t, h, engine.Webhook{ID: "hook", Kinds: []string{"identity.*"}})
		began := time.Now()
		create(t, h, "slow")
		for i := range 50 {
			create(t, h, fmt.Sprintf("quick-%d", i))
		}
		until(t, "the others", 10*time.Second, 10*time.Millisecond, func() bool { return len(s.took("identity")) == 50 })
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the others took %s", took)
		}
		until(t, "the error", time.Minute, time.Second, func() bool { return strings.Contains(state(t, h, "hook").LastError, "no answer within 15s") })
		if st := state(t, h, "hook"); st.Lag == 0 || st.LagTime < 10*time.Second || st.Delivered != 50 {
			t.Errorf("while one is slow: %+v", st)
		}
	})
}

// TestWebhookAway: an endpoint that is away loses nothing, gets few requests
// meanwhile, and everything in the order of each device when it is back.
func TestWebhookAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []engine.WebhookMode{engine.WebhookStructured, engine.WebhookBatch} {
			s := &sink{}
			h := sinking(t, s)
			s.set(func(context.Context, posted) (engine.WebhookAnswer, error) {
				return engine.WebhookAnswer{}, errors.New("connection refused")
			})
			putWebhook(t, h, engine.Webhook{ID: "hook", Mode: mode, Kinds: []string{"identity.*", "twin.*"}})
			const devices, changes = 20, 5
			for i := range devices {
				create(t, h, fmt.Sprintf("d%02d", i))
			}
			for n := range changes {
				for i := range devices {
					tag(t, h, fmt.Sprintf("d%02d", i), n)
				}
			}
			time.Sleep(30 * time.Minute)
			if n := s.count(); n > 8+30 {
				t.Errorf("%s: %d requests in half an hour to an endpoint that is away", mode, n)
			}
			if st := state(t, h, "hook"); st.Dead != 0 || st.Delivered != 0 || st.FailingSince.IsZero() || st.Waiting != devices*(changes+1) {
				t.Errorf("%s, away: %+v", mode, st)
			}
			s.set(nil)
			until(t, "all", 10*time.Minute, time.Second, func() bool { return len(s.took("")) == devices*(changes+1) })
			next := map[string]int{}
			for _, e := range s.took("twin") {
				if want := fmt.Sprintf(`{"n":%d}`, next[e.Subject]); string(e.Data.Change) != want {
					t.Errorf("%s: %s got %s, want %s", mode, e.Subject, e.Data.Change, want)
				}
				next[e.Subject]++
			}
			time.Sleep(time.Second)
			if st := state(t, h, "hook"); st.Lag != 0 || !st.FailingSince.IsZero() || st.Waiting != 0 {
				t.Errorf("%s, back: %+v", mode, st)
			}
		}
	})
}

// TestWebhookPoison: what the endpoint refuses is a dead letter at once, and
// in a batch it takes no other event with it.
func TestWebhookPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []engine.WebhookMode{engine.WebhookStructured, engine.WebhookBatch} {
			for _, code := range []int{400, 500} {
				s := &sink{}
				h := sinking(t, s)
				s.set(func(_ context.Context, p posted) (engine.WebhookAnswer, error) {
					for _, e := range p.events {
						if e.Subject == "devices/poison" {
							return engine.WebhookAnswer{Status: code}, nil
						}
					}
					return engine.WebhookAnswer{Status: 200}, nil
				})
				w := putWebhook(t, h, engine.Webhook{ID: "hook", Mode: mode, Kinds: []string{"identity.*", "twin.*"}})
				w.Enabled = false
				if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), w, ""); err != nil {
					t.Fatal(err)
				}
				create(t, h, "a", "poison", "b", "c")
				putWebhook(t, h, w)
				until(t, "the others", time.Hour, time.Second, func() bool { return len(s.took("identity")) == 3 })
				until(t, "the dead letter", time.Hour, time.Second, func() bool { return state(t, h, "hook").DeadKept == 1 })
				// Its device goes on, when the endpoint takes it.
				s.set(nil)
				tag(t, h, "poison", 1)
				until(t, "the next of the device", time.Hour, time.Second, func() bool { return len(s.took("twin")) == 1 })
				dead, _, err := h.WebhookDeadLetters(t.Context(), enginetest.Owner(), "hook", 0, 0)
				if err != nil || len(dead) != 1 || !strings.Contains(string(dead[0].Event), "devices/poison") || !strings.Contains(dead[0].Error, fmt.Sprint(code)) {
					t.Fatalf("%s %d: %+v, %v", mode, code, dead, err)
				}
				try, err := h.RetryWebhookDead(t.Context(), enginetest.Owner(), "hook", dead[0].Number)
				if err != nil || try.Error != "" {
					t.Fatal(try, err)
				}
				if st := state(t, h, "hook"); st.DeadKept != 0 || st.DeadBytes != 0 || len(s.took("identity")) != 4 {
					t.Errorf("%s %d, after the retry: %+v", mode, code, st)
				}
				if _, err := h.RetryWebhookDead(t.Context(), enginetest.Owner(), "hook", dead[0].Number); engine.AsError(err).Code != engine.CodeWebhookNotFound {
					t.Errorf("a second retry: %v", err)
				}
			}
		}
	})
}

func TestWebhookPausesItself(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer func(context.Context, posted) (engine.WebhookAnswer, error)
		events int
		reason string
	}{
		{"gone", status(410), 1, "410"},
		{"refuses everything", status(400), 120, "100 events in a row"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sink{}
				h := sinking(t, s)
				s.set(row.answer)
				putWebhook(t, h, engine.Webhook{ID: "hook", Kinds: []string{"identity.*"}})
				for i := range row.events {
					create(t, h, fmt.Sprintf("d%d", i))
				}
				read := func() engine.Webhook {
					w, err := h.Webhook(t.Context(), enginetest.Owner(), "hook")
					if err != nil {
						t.Fatal(err)
					}
					return w
				}
				until(t, "the pause", time.Minute, time.Second, func() bool { return !read().Enabled })
				w := read()
				if !strings.Contains(w.Paused, row.reason) {
					t.Errorf("reason %q, want %q", w.Paused, row.reason)
				}
				list, _ := readAll(t, h, engine.EventFilter{Kinds: []string{"webhook.paused"}}, engine.CursorStart)
				if len(list) != 1 || !strings.Contains(string(list[0].Data), `"webhook":"hook"`) {
					t.Errorf("events %+v", list)
				}
				found := false
				findings, err := h.Doctor(t.Context(), enginetest.Owner())
				for _, f := range findings {
					found = found || f.Check == "webhooks" && f.Level == "fail" && strings.Contains(f.Text, "hook")
				}
				if err != nil || !found {
					t.Errorf("the doctor says %+v, %v", findings, err)
				}
				posts := s.count()
				time.Sleep(10 * time.Minute)
				if n := s.count(); n != posts {
					t.Errorf("%d posts while it is paused", n-posts)
				}
				// It goes on where it stood; what was given up stays so.
				s.set(nil)
				putWebhook(t, h, engine.Webhook{ID: "hook", Kinds: []string{"identity.*"}})
				until(t, "the rest", time.Hour, time.Second, func() bool { return len(s.took("identity"))+int(state(t, h, "hook").Dead) >= row.events })
			})
		})
	}
}

// The failures of one endpoint are not those of the next: three days of them
// would pause a webhook at the first stumble of the address that mended it.
func TestWebhookWithAnotherAddressBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		h := sinking(t, s)
		s.set(status(503))
		putWebhook(t, h, engine.Webhook{ID: "hook", URL: "https://example.com/a", Kinds: []string{"identity.*"}})
		create(t, h, "d")
		until(t, "a failure", time.Minute, time.Second, func() bool { return !state(t, h, "hook").FailingSince.IsZero() })
		putWebhook(t, h, engine.Webhook{ID: "hook", URL: "https://example.com/a", Kinds: []string{"identity.*"}, Description: "the same"})
		if state(t, h, "hook").FailingSince.IsZero() {
			t.Error("another description made it forget the failures")
		}
		s.set(func(ctx context.Context, _ posted) (engine.WebhookAnswer, error) {
			<-ctx.Done()
			return engine.WebhookAnswer{}, ctx.Err()
		})
		putWebhook(t, h, engine.Webhook{ID: "hook", URL: "https://example.com/b", Kinds: []string{"identity.*"}})
		synctest.Wait() // who delivered to the former address tells its failures until then
		if got := state(t, h, "hook"); !got.FailingSince.IsZero() || got.FailedSince != 0 {
			t.Errorf("with another address it fails since %v, %d requests", got.FailingSince, got.FailedSince)
		}
	})
}

func TestWebhookReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		h := sinking(t, s)
		create(t, h, "before")
		time.Sleep(10 * time.Minute)
		middle := time.Now()
		cursor, _ := func() (string, error) {
			_, next, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{}, "", 1)
			return next, err
		}()
		d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "a"})
		if err := d.Telemetry(engine.Message{QoS: 1, Body: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		create(t, h, "after")
		putWebhook(t, h, engine.Webhook{ID: "hook", Kinds: []string{"identity.*", "telemetry"}})
		time.Sleep(time.Minute)
		if s.count() != 0 {
			t.Fatalf("a new webhook got %v", s.took(""))
		}
		for _, row := range []struct {
			from string
			want string
		}{
			{engine.CursorStart, "devices/before devices/a devices/a devices/after"},
			{middle.Format(time.RFC3339), "devices/a devices/a devices/after"},
			{cursor, "devices/a devices/a devices/after"},
			{"1999-01-01T00:00:00Z", "devices/before devices/a devices/a devices/after"},
			{"2999-01-01T00:00:00Z", ""},
		} {
			before := len(s.took(""))
			if _, err := h.ReplayWebhook(t.Context(), enginetest.Owner(), "hook", row.from); err != nil {
				t.Fatal(row.from, err)
			}
			time.Sleep(time.Minute)
			got := map[string]int{}
			for _, e := range s.took("")[before:] {
				got[e.Subject]++
			}
			want := map[string]int{}
			for w := range strings.FieldsSeq(row.want) {
				want[w]++
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("from %s: %v, want %v", row.from, got, want)
			}
		}
		// A reader of events may begin at a time, too.
		for _, at := range []time.Time{middle, middle.In(time.FixedZone("", 7200))} {
			list, _, err := h.ReadEvents(t.Context(), enginetest.Owner(), engine.EventFilter{Kinds: []string{"identity.*"}}, at.Format(time.RFC3339), 10)
			if err != nil || len(list) != 2 || list[0].ID.DeviceID != "a" || list[1].ID.DeviceID != "after" {
				t.Errorf("events from %s: %+v, %v", at, list, err)
			}
		}
		for _, from := range []string{"", "yesterday", "0.0.0"} {
			if _, err := h.ReplayWebhook(t.Context(), enginetest.Owner(), "hook", from); engine.AsError(err).Code != engine.CodeArgumentInvalid {
				t.Errorf("from %q: %v", from, err)
			}
		}
	})
}

// TestWebhookFullWindow: a device whose events fail while it sends a lot does
// not stop those of others, and what is given up is bounded and counted.
func TestWebhookFullWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		h := sinking(t, s)
		s.set(func(_ context.Context, p posted) (engine.WebhookAnswer, error) {
			if p.events[0].Subject == "devices/bad" {
				return engine.WebhookAnswer{Status: 503}, nil
			}
			return engine.WebhookAnswer{Status: 200}, nil
		})
		putWebhook(t, h, engine.Webhook{ID: "hook", Kinds: []string{"telemetry"}})
		bad, good := enginetest.Connect(t, h, engine.TwinID{DeviceID: "bad"}), enginetest.Connect(t, h, engine.TwinID{DeviceID: "good"})
		const rounds, each = 30, 100
		began := time.Now()
		for range rounds {
			for range each {
				if err := bad.Telemetry(engine.Message{QoS: 1, Body: []byte("1")}); err != nil {
					t.Fatal(err)
				}
			}
			if err := good.Telemetry(engine.Message{QoS: 1, Body: []byte("1")}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		until(t, "the other device", time.Minute, time.Second, func() bool { return len(s.took("telemetry")) == rounds })
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %s", took)
		}
		st := state(t, h, "hook")
		if st.Dead == 0 || st.DeadKept > 1000 || st.Dead != uint64(st.DeadKept)+st.DeadDropped || st.Waiting > 1024 {
			t.Errorf("%+v", st)
		}
		t.Logf("%d events given up, %d letters kept, %d dropped, %d wait", st.Dead, st.DeadKept, st.DeadDropped, st.Waiting)
		n, err := h.DeleteWebhookDead(t.Context(), enginetest.Owner(), "hook", 0)
		if err != nil || n == 0 {
			t.Error(n, err)
		}
	})
}

func TestWebhookHeadersRefused(t *testing.T) {
	h := enginetest.New(t)
	for _, row := range []struct{ name, value string }{
		{"Host", "x"}, {"content-length", "1"}, {"Webhook-Id", "1"}, {"ce-id", "1"}, {"Transfer-Encoding", "chunked"}, {"Muster-Attempt", "1"},
		{"A b", "x"}, {"", "x"}, {"X", "a\r\nY: b"}, {"X", "ä"}, {"X", strings.Repeat("x", 5000)},
	} {
		w := engine.Webhook{ID: "hook", URL: "https://example.com/x", Headers: map[string]string{row.name: row.value}}
		if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), w, ""); engine.AsError(err).Code != engine.CodeArgumentInvalid {
			t.Errorf("%q: %.20q: %v", row.name, row.value, err)
		}
	}
	if _, err := h.PutWebhook(t.Context(), enginetest.Owner(), engine.Webhook{ID: "hook", URL: "https://example.com/x", Mode: "avro"}, ""); engine.AsError(err).Code != engine.CodeArgumentInvalid {
		t.Errorf("an unknown mode: %v", err)
	}
}
