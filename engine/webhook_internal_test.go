package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// The example of the Standard Webhooks documentation and libraries.
func TestWebhookSignature(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := signWebhook(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
}

func TestWebhookBackOff(t *testing.T) {
	for n, most := range map[int]time.Duration{1: time.Second, 3: 4 * time.Second, 60: webhookLongest} {
		if d := webhookBackOff(n, 0); d > most || d < most/2 {
			t.Errorf("attempt %d: %s, expected %s to %s", n, d, most/2, most)
		}
	}
	if d := webhookBackOff(1, time.Hour); d != webhookLongest {
		t.Errorf("an hour asked: %s", d)
	}
}

func TestClassifyWebhook(t *testing.T) {
	for status, want := range map[int]webhookClass{
		200: webhookTaken, 202: webhookTaken, 204: webhookTaken, 299: webhookTaken,
		400: webhookRefused, 413: webhookRefused, 415: webhookRefused, 422: webhookRefused,
		408: webhookBroken, 500: webhookBroken, 501: webhookBroken, 505: webhookBroken, 507: webhookBroken,
		301: webhookAway, 302: webhookAway, 307: webhookAway, 401: webhookAway, 403: webhookAway, 404: webhookAway,
		405: webhookAway, 425: webhookAway, 429: webhookAway, 502: webhookAway, 503: webhookAway, 504: webhookAway, 199: webhookAway,
		410: webhookGone,
	} {
		if got := classifyWebhook(status); got != want {
			t.Errorf("%d: class %d, want %d", status, got, want)
		}
	}
}

// TestWebhookPausedAfterDays: one that failed for three days, over restarts,
// is paused; the log is kept for it until then.
func TestWebhookPausedAfterDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int64
		h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, Deliver: func(context.Context, WebhookPost) (WebhookAnswer, error) {
			posts.Add(1)
			return WebhookAnswer{Status: 302}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		owner := Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: auth.AllPermissions}}
		if _, err := h.PutWebhook(t.Context(), owner, Webhook{ID: "hook", URL: "https://example.com", Enabled: true}, ""); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: fmt.Sprint("d", i)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range []struct {
			failing time.Duration
			paused  bool
		}{{71 * time.Hour, false}, {72 * time.Hour, true}} {
			if err := h.retain(t.Context(), time.Now().Add(row.failing)); err != nil {
				t.Fatal(err)
			}
			err := h.update(t.Context(), "age", func(tx *storage.Tx) error {
				s, err := webhookStateTable.Get(tx, storage.Tuple("hook"))
				if err != nil {
					return err
				}
				s.FailingSince, s.FailedSince = time.Now().Add(-row.failing), 100
				return webhookStateTable.Put(tx, storage.Tuple("hook"), s)
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := h.Run(ctx); err != nil {
				t.Error(err)
			}
			cancel()
			w, err := h.Webhook(t.Context(), owner, "hook")
			if err != nil || (w.Paused != "") != row.paused || row.paused && !strings.Contains(w.Paused, "failed for 72h") || w.State.Lag < 3 || w.State.Dead > 0 {
				t.Errorf("failing for %s: %+v, %v", row.failing, w, err)
			}
		}
		if posts.Load() == 0 {
			t.Error("nothing was posted")
		}
		// Nobody is waited for any more.
		if err := h.retain(t.Context(), time.Now().Add(72*time.Hour)); err != nil {
			t.Fatal(err)
		}
		err = h.view(t.Context(), "bounds", func(r storage.Reader) error {
			first, last, err := changeLog.Bounds(r)
			if first != last {
				t.Errorf("the log still has %d to %d", first, last)
			}
			return err
		})
		if err := errors.Join(err, h.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestWebhookOutdated: once a change of a webhook is acknowledged, nothing
// that happens is posted as it was before, whoever ran: the worker has no need
// to be told by its owner, which here is nobody.
func TestWebhookOutdated(t *testing.T) {
	hook := Webhook{ID: "hook", URL: "https://example.com", Mode: WebhookBinary}
	for name, change := range map[string]func(ctx context.Context, h *Hub) error{
		"paused": func(ctx context.Context, h *Hub) error { _, err := h.PutWebhook(ctx, owner, hook, "*"); return err },
		"rotated": func(ctx context.Context, h *Hub) error {
			_, err := h.RotateWebhookSecret(ctx, owner, "hook", 0)
			return err
		},
		"replayed": func(ctx context.Context, h *Hub) error {
			_, err := h.ReplayWebhook(ctx, owner, "hook", time.Now().Format(time.RFC3339))
			return err
		},
		"deleted": func(ctx context.Context, h *Hub) error { return h.DeleteWebhook(ctx, owner, "hook") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &hookSink{}
				h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, Deliver: s.deliver})
				if err != nil {
					t.Fatal(err)
				}
				putHook(t, h)
				var record webhookRecord
				err = h.view(t.Context(), "read webhook", func(r storage.Reader) error {
					record, err = getWebhook(r, "hook")
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- h.pumpWebhook(t.Context(), "hook", record) }()
				makeDevice(t, h, "before")
				synctest.Wait()
				if got := s.take(); len(got) != 1 {
					t.Fatalf("before it changed: %q", got)
				}
				h.webhooks.outdate("hook", record.version(&WebhookState{})) // it is of that version already
				makeDevice(t, h, "still")
				time.Sleep(time.Second)
				if got := s.take(); len(got) != 1 {
					t.Fatalf("told of a change that it knows: %q", got)
				}
				if err := change(t.Context(), h); err != nil {
					t.Fatal(err)
				}
				makeDevice(t, h, "after")
				time.Sleep(time.Minute)
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Error("it still runs")
				}
				if name != "replayed" && name != "deleted" { // it begins where it was moved to; what is not there is an error
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					if err := h.pumpWebhook(ctx, "hook", record); err != nil || ctx.Err() != nil {
						t.Errorf("begun again as it was: %v, %v", err, ctx.Err())
					}
					cancel()
				}
				if got := s.take(); len(got) > 0 {
					t.Errorf("posted afterwards: %q", got)
				}
				if err := h.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
