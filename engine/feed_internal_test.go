package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// putMessages stores telemetry of a device whose bodies are numbers from on.
func putMessages(t *testing.T, h *Hub, device string, from, n int) {
	t.Helper()
	var list []Message
	for i := range n {
		list = append(list, Message{Body: fmt.Append(nil, from+i)})
	}
	if err := h.SendTelemetry(t.Context(), Grant{ID: TwinID{DeviceID: device}}, list); err != nil {
		t.Fatal(err)
	}
}

func subscribe(t *testing.T, h *Hub, f EventFilter, cursor string) *Subscription {
	t.Helper()
	s, err := h.Subscribe(t.Context(), owner, f, cursor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// collect reads n events.
func collect(t *testing.T, s *Subscription, n int) (bodies []string, cursors []string) {
	t.Helper()
	for len(bodies) < n {
		list, err := s.Next(t.Context(), 10*time.Second)
		if err != nil || len(list) == 0 {
			t.Fatalf("after %d of %d events: %d, %v", len(bodies), n, len(list), err)
		}
		for _, e := range list {
			body := e.Kind
			if e.Message != nil {
				body = string(e.Message.Body)
			}
			bodies, cursors = append(bodies, body), append(cursors, e.Cursor)
		}
	}
	return bodies, cursors
}

func numbers(from, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(from+i))
	}
	return list
}

// TestSubscriptionsLag lets one subscription fall behind the ring while
// another keeps up: both get everything once, the one without the other.
func TestSubscriptionsLag(t *testing.T) {
	h := openHub(t)
	telemetry := EventFilter{Kinds: []string{EventTelemetry}}
	quick, slow := subscribe(t, h, telemetry, ""), subscribe(t, h, telemetry, "")
	putMessages(t, h, "d", 0, 10)
	if got, _ := collect(t, slow, 10); !slices.Equal(got, numbers(0, 10)) {
		t.Fatal(got)
	}
	total := 10
	var kept []string
	for total < 3*feedEvents {
		putMessages(t, h, "d", total, 500)
		total += 500
		more, _ := collect(t, quick, total-len(kept))
		kept = append(kept, more...)
	}
	if !slices.Equal(kept, numbers(0, total)) {
		t.Errorf("the quick one got %d events, in another order than they were stored", len(kept))
	}
	if s := h.FeedStats(); s.Subscriptions != 2 {
		t.Errorf("%+v", s)
	}
	f := h.events
	f.mu.Lock()
	held, bytes := len(f.tail.ring), f.tail.bytes
	f.mu.Unlock()
	if held > feedEvents || bytes > feedBytes+feedEvents {
		t.Errorf("the ring holds %d events of %d bytes", held, bytes)
	}
	got, cursors := collect(t, slow, total-10)
	if !slices.Equal(got, numbers(10, total-10)) {
		t.Errorf("the slow one got %d events, in another order than they were stored", len(got))
	}
	if n := h.FeedStats().Lagged; n != 1 {
		t.Errorf("%d fell behind", n)
	}
	// It is back at the tail, where it shares, and every cursor on its way is good.
	putMessages(t, h, "d", total, 5)
	if got, _ := collect(t, slow, 5); !slices.Equal(got, numbers(total, 5)) {
		t.Errorf("at the tail: %v", got)
	}
	if _, shared := slow.Batch(); !shared {
		t.Error("at the tail it does not share")
	}
	for _, i := range []int{0, 1000, len(cursors) - 1} {
		again := subscribe(t, h, telemetry, cursors[i])
		if got, _ := collect(t, again, 3); got[0] != fmt.Sprint(10+i+1) {
			t.Errorf("after cursor %d came %s", i, got[0])
		}
	}
}

// TestSubscriptionsJoin begins subscriptions everywhere in a stream of changes
// and messages: where the logs end and the ring begins, nothing is missed or
// repeated.
func TestSubscriptionsJoin(t *testing.T) {
	h := openHub(t)
	first := subscribe(t, h, EventFilter{}, CursorStart) // keeps the ring
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		putMessages(t, h, "d", i, 1)
		if _, err := h.PatchTwin(t.Context(), owner, TwinID{DeviceID: "d"}, TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, i)}, IfMatch{}); err != nil {
			t.Fatal(err)
		}
	}
	all, cursors := collect(t, first, 81)
	for i, cursor := range cursors[:80] {
		s, err := h.Subscribe(t.Context(), owner, EventFilter{}, cursor)
		if err != nil {
			t.Fatal(err)
		}
		var messages, changes []string
		got, _ := collect(t, s, 80-i)
		for _, b := range got {
			if strings.Contains(b, ".") {
				changes = append(changes, b)
			} else {
				messages = append(messages, b)
			}
		}
		want := all[i+1:]
		if n := len(slices.DeleteFunc(slices.Clone(want), func(s string) bool { return !strings.Contains(s, ".") })); n != len(changes) {
			t.Errorf("after event %d: %d changes, %d are there", i, len(changes), n)
		}
		if !slices.Equal(messages, numbers(40-len(messages), len(messages))) {
			t.Errorf("after event %d: messages %v", i, messages)
		}
		s.Close()
	}
}

func TestSubscriptionGap(t *testing.T) {
	h := openHub(t)
	putMessages(t, h, "d", 0, 3)
	other := strings.Repeat("0", len(h.db.Epoch().ID)) + ".1.1"
	s := subscribe(t, h, EventFilter{}, other)
	if s.Cursor() != "" {
		t.Errorf("before the gap is told, the cursor is %q", s.Cursor())
	}
	got, cursors := collect(t, s, 4)
	if want := append([]string{EventGap}, numbers(0, 3)...); !slices.Equal(got, want) || !strings.HasPrefix(cursors[0], h.db.Epoch().ID) {
		t.Errorf("got %v, %v", got, cursors)
	}
	for _, bad := range []string{"x", "..", other + "."} {
		if _, err := h.Subscribe(t.Context(), owner, EventFilter{}, bad); AsError(err).Code != CodeArgumentInvalid {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	if n := h.FeedStats().Subscriptions; n != 1 {
		t.Errorf("%d subscriptions are counted", n)
	}
}

func TestSubscriptionLimits(t *testing.T) {
	h := openHub(t)
	h.limits.EventStreams, h.limits.EventStreamsEach = 3, 2
	as := func(name string) Caller {
		return Caller{Principal: auth.Principal{Kind: auth.Policy, Name: name, Permissions: ^auth.Permission(0)}}
	}
	var open []*Subscription
	for _, tc := range []struct{ policy, want string }{
		{"a", ""}, {"a", ""}, {"a", "2 event streams of policy:a are open, the most of one principal"}, {"b", ""}, {"b", "3 event streams are open, the most of this hub"},
	} {
		s, err := h.Subscribe(t.Context(), as(tc.policy), EventFilter{}, "")
		if tc.want == "" {
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
			continue
		}
		if e := AsError(err); e == nil || e.Code != CodeThrottled || e.Message != tc.want {
			t.Errorf("%s: %v, want %q", tc.policy, err, tc.want)
		}
	}
	for _, s := range open {
		s.Close()
	}
	s := subscribe(t, h, EventFilter{}, "")
	if _, err := h.Subscribe(t.Context(), Caller{}, EventFilter{}, ""); AsError(err).Code != CodeForbidden {
		t.Errorf("nobody: %v", err)
	}
	h.Drain()
	if _, err := s.Next(t.Context(), time.Minute); AsError(err).Code != CodeClosed {
		t.Errorf("a hub that goes: %v", err)
	}
	if _, err := h.Subscribe(t.Context(), owner, EventFilter{}, ""); AsError(err).Code != CodeClosed {
		t.Errorf("a hub that has gone: %v", err)
	}
}

// TestSubscriptionIdle: a silence ends Next without an error, and so does one
// in which only unwanted events come.
func TestSubscriptionIdle(t *testing.T) {
	h := openHub(t)
	s := subscribe(t, h, EventFilter{Devices: []string{"other*"}}, "")
	before := s.Cursor()
	putMessages(t, h, "d", 0, 5)
	if list, err := s.Next(t.Context(), 300*time.Millisecond); len(list) != 0 || err != nil {
		t.Fatalf("%d events, %v", len(list), err)
	}
	if s.Cursor() == before {
		t.Error("the cursor stays behind what the filter passed over")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
}

// TestFeedGathers: what comes in one moment is published at once when nothing
// came for a while, and gathers when events are frequent.
func TestFeedGathers(t *testing.T) {
	f := newFeed(&Hub{limits: Limits{EventStreams: 10_000, EventStreamsEach: 10_000}})
	tail := &feedTail{feed: f, moved: make(chan struct{})}
	for _, tc := range []struct {
		open   int
		events int
		more   bool
		wait   time.Duration
	}{
		{1, 1, false, feedLeast}, {100, 1, false, 100 * feedEach}, {1000, 10, false, feedPause}, {9000, 10, false, feedPause}, {1, eventPage, true, feedLeast},
	} {
		f.open = tc.open
		if more, wait := tail.publish(make([]Event, tc.events)); more != tc.more || wait != tc.wait {
			t.Errorf("%d streams, %d events: %t, %s; want %t, %s", tc.open, tc.events, more, wait, tc.more, tc.wait)
		}
	}
}

func FuzzEventFilter(f *testing.F) {
	f.Add("site-a-*", "site-a-1")
	f.Add("*", "")
	f.Add("a*b", "a*b")
	f.Fuzz(func(t *testing.T, pattern, id string) {
		filter := EventFilter{Devices: []string{pattern}}
		if filter.check() != nil {
			return
		}
		want := pattern == id
		if n := len(pattern) - 1; n >= 0 && pattern[n] == '*' {
			want = want || strings.HasPrefix(id, pattern[:n])
		}
		if got := filter.wants("telemetry", id); got != want {
			t.Errorf("%q wants %q: %t", pattern, id, got)
		}
	})
}

// TestFormerSessionsEnd: a hub that is killed leaves sessions behind; the next
// run tells their end, once, and before what the devices do next.
func TestFormerSessionsEnd(t *testing.T) {
	dir := t.TempDir()
	open := func() *Hub {
		h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open()
	const n = 300 // more than a batch
	for i := range n {
		id := TwinID{DeviceID: fmt.Sprintf("d%03d", i)}
		if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: id.DeviceID}); err != nil {
			t.Fatal(err)
		}
		connect(t, h, id).announce() // now, and not when its time has come
	}
	gone := connect(t, h, TwinID{DeviceID: "d000"}) // takes over
	gone.Close(nil)
	// Closing the store under the hub is its death.
	if err := h.db.Close(); err != nil {
		t.Fatal(err)
	}
	h = open()
	t.Cleanup(func() { _ = h.Close() })
	connect(t, h, TwinID{DeviceID: "d001"}).announce() // before its turn
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 { // the second finds nothing
		if err := h.endFormerSessions(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"d001", "d002", "d299"} {
		list, _, err := h.Connections(t.Context(), owner, TwinID{DeviceID: id}, "", 0)
		if err != nil || len(list) != 1 || list[0].Code != "ServerShuttingDown" || !strings.HasPrefix(list[0].Reason, "the hub stopped without notice") || !list[0].Began.Before(list[0].Ended) {
			t.Errorf("the connections of %s: %+v, %v", id, list, err)
		}
	}
	if err := h.DeleteIdentity(t.Context(), owner, TwinID{DeviceID: "d001"}, IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	type line struct{ kind, data string }
	got := map[string][]line{}
	for cursor := CursorStart; ; {
		list, next, err := h.ReadEvents(t.Context(), owner, EventFilter{Kinds: []string{"session.*", "identity.deleted"}}, cursor, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			got[e.ID.DeviceID] = append(got[e.ID.DeviceID], line{e.Kind, string(e.Data)})
		}
		if next == cursor {
			break
		}
		cursor = next
	}
	on := line{changeConnected, ""}
	off := func(reason string) line { return line{changeDisconnected, `{"reason":"` + reason + `"}`} }
	restarted := off("the hub was restarted")
	for id, want := range map[string][]line{
		"d000": {on, off("a newer connection took over"), on, off(`the device \"d000\" disconnected`)},
		"d001": {on, restarted, on, off("the identity was deleted"), {changeIdentityDeleted, ""}},
		"d002": {on, restarted},
		"d299": {on, restarted},
	} {
		if !slices.Equal(got[id], want) {
			t.Errorf("%s: %v\nwant %v", id, got[id], want)
		}
	}
	if len(got) != n {
		t.Errorf("%d devices, want %d", len(got), n)
	}
}
