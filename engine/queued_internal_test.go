package engine

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

func TestQueuedMethodsExpireAndAreDropped(t *testing.T) {
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)}}
	id := TwinID{DeviceID: "pump"}
	if _, err := h.CreateIdentity(t.Context(), c, Identity{DeviceID: "pump"}); err != nil {
		t.Fatal(err)
	}
	q, err := h.QueueMethod(t.Context(), c, id, MethodCall{Name: "open"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at   time.Duration
		want QueuedStatus
	}{{59 * time.Minute, QueuedWaiting}, {61 * time.Minute, QueuedExpired}, {6 * 24 * time.Hour, QueuedExpired}, {8 * 24 * time.Hour, ""}} {
		if err := h.methods.queue.sweep(t.Context(), h, q.Created.Add(step.at)); err != nil {
			t.Fatal(err)
		}
		got, err := h.QueuedMethod(t.Context(), c, id, q.ID)
		if step.want == "" {
			if AsError(err) == nil || AsError(err).Code != CodeMethodCallNotFound {
				t.Errorf("after %s: %v", step.at, err)
			}
		} else if err != nil || got.Status != step.want {
			t.Errorf("after %s: %s, %v", step.at, got.Status, err)
		}
	}
	if len(h.methods.queue.waiting) != 0 {
		t.Errorf("the queue still notes %v", h.methods.queue.waiting)
	}
}
