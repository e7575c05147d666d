package engine

import (
	"context"
	"encoding/json"
	"runtime"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// deaf is an outbox that takes everything and does nothing.
type deaf struct{}

func (deaf) Method(string, string, json.RawMessage) error { return nil }
func (deaf) Desired(int64, []byte) error                  { return nil }
func (deaf) Close(*Error)                                 {}

// connect makes a session without a token.
func connect(t *testing.T, h *Hub, id TwinID) *Session {
	t.Helper()
	var g Grant
	err := h.db.View(t.Context(), func(r storage.Reader) error {
		record, err := loadIdentity(r, id)
		g = Grant{ID: id, GenerationID: record.GenerationID, revision: record.Revision}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Connect(t.Context(), Connection{Grant: g, Outbox: deaf{}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFencedWhileItsPatchWasHeldBack(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	old := connect(t, h, id)
	limiter := rate.NewLimiter(10, 1)
	limiter.Allow()
	h.throttles[throttleTwinUpdate] = limiter
	done := make(chan error)
	go func() {
		_, err := old.PatchReported(t.Context(), []byte(`{"from":"old"}`), -1)
		done <- err
	}()
	for limiter.Tokens() >= 0 { // until the patch waits for its turn
		runtime.Gosched()
	}
	connect(t, h, id)
	if err := <-done; err == nil || AsError(err).Code != CodeConnectionClosed {
		t.Errorf("the patch of a session that was taken over: %v", err)
	}
}

// TestThrottledConnectIsRecorded: a device that came too soon finds in its log why it was turned away.
func TestThrottledConnectIsRecorded(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	h.throttles[throttleConnect] = rate.NewLimiter(0.1, 1) // the next turn is later than anybody waits
	s := connect(t, h, id)
	s.Close(errf(CodeConnectionClosed, "keep_alive_timeout"))
	_, err := h.Connect(t.Context(), Connection{Grant: s.connection.Grant, Protocol: "test", Address: "192.0.2.1:1", Outbox: deaf{}})
	if err == nil || AsError(err).Code != CodeThrottled {
		t.Fatalf("the second connect: %v", err)
	}
	// A change that is waited for is behind all that was submitted before it.
	if _, err := h.PatchTwin(t.Context(), owner, id, TwinUpdate{Tags: []byte(`{"a":1}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	list, _, err := h.Connections(t.Context(), owner, id, "", 0)
	if err != nil || len(list) != 2 || list[0].Refused != 1 || list[0].Code != CodeThrottled.String() || list[0].Protocol != "test" ||
		list[0].Address != "192.0.2.1:1" || list[1].Refused != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestSubscriptionsOfADeletedIdentityAreNotKept(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	anyETag := IfMatch{Present: true, Any: true}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	first := connect(t, h, id)
	if err := h.DeleteIdentity(t.Context(), owner, id, anyETag); err != nil {
		t.Fatal(err)
	}
	// Its packet was on the way when the identity went.
	late := &Session{hub: h, id: id, connection: first.connection, subs: NoSubscriptions()}
	var all Subscriptions
	if err := late.Subscribe(t.Context(), all); err == nil || AsError(err).Code != CodeDeviceNotFound {
		t.Errorf("subscribing for a deleted identity: %v", err)
	}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	if err := late.Subscribe(t.Context(), all); err == nil || AsError(err).Code != CodeDeviceNotFound {
		t.Errorf("subscribing for a namesake: %v", err)
	}
	if s := connect(t, h, id); s.Resumed() {
		t.Error("the new identity found a session of the old one")
	}
}

// TestTroubleTurnsNobodyAway: what makes the hub not ready need not keep its
// devices out.
func TestTroubleTurnsNobodyAway(t *testing.T) {
	h := openHub(t)
	made, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.update(t.Context(), "", func(tx *storage.Tx) error {
		tx.OnCommit(func(uint64) { panic("a defect") })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if h.Ready() == nil {
		t.Error("a defect does not show")
	}
	key, err := made.Authentication.PrimaryKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	token := auth.SignToken("hub.muster.test/devices/d", key, "", time.Now().Add(time.Hour))
	if _, err := h.AuthenticateDevice(t.Context(), Credentials{ID: TwinID{DeviceID: "d"}, Token: token}); err != nil {
		t.Errorf("after a defect elsewhere: %v", err)
	}
}

func TestNobodyWaitsForever(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx     context.Context
		timeout time.Duration
		want    Code
	}{
		{t.Context(), 0, CodeDeviceNotOnline},
		{t.Context(), time.Millisecond, CodeDeviceNotOnline},
		{canceled, time.Hour, CodeCanceled},
	} {
		if _, err := h.awaitCallable(c.ctx, id, c.timeout); err == nil || AsError(err).Code != c.want {
			t.Errorf("waiting %s: %v, want %s", c.timeout, err, c.want)
		}
	}
	if n := len(h.sessions.shard(id.DeviceID).waiting); n != 0 {
		t.Errorf("%d arrivals are still waited for", n)
	}
}

func (deaf) Message(QueuedMessage, uint16, bool) error { return nil }
