package engine

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// inbox is an outbox that keeps messages.
type inbox struct {
	deaf
	got chan delivered
}

type delivered struct {
	m         QueuedMessage
	id        uint16
	duplicate bool
}

func (i inbox) Message(m QueuedMessage, id uint16, duplicate bool) error {
	i.got <- delivered{m, id, duplicate}
	return nil
}

func TestMessagesAreDelivered(t *testing.T) {
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c := Caller{Principal: auth.Principal{Permissions: ^auth.Permission(0)}}
	i, err := h.CreateIdentity(t.Context(), c, Identity{DeviceID: "d"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 51 {
		_, err := h.SendMessage(t.Context(), c, "d", DeviceboundMessage{Body: []byte{byte(n)}, Ack: "full"})
		if n < 50 && err != nil || n == 50 && AsError(err).Code != CodeQueueFull {
			t.Fatalf("message %d: %v", n, err)
		}
	}
	connect := func() (*Session, inbox) {
		in := inbox{got: make(chan delivered, 100)}
		var r identityRecord
		err := h.db.View(t.Context(), func(rd storage.Reader) (err error) { r, err = loadIdentity(rd, i.ID()); return err })
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.Connect(t.Context(), Connection{Grant: Grant{ID: i.ID(), GenerationID: i.GenerationID, revision: r.Revision}, Outbox: in})
		if err != nil {
			t.Fatal(err)
		}
		return s, in
	}
	s, in := connect()
	add := NoSubscriptions()
	add[EndpointMessage] = 1
	if err := s.Subscribe(t.Context(), add); err != nil {
		t.Fatal(err)
	}
	next := func(in inbox) delivered {
		select {
		case d := <-in.got:
			return d
		case <-time.After(10 * time.Second):
			t.Fatal("no message came")
			return delivered{}
		}
	}
	first := next(in)
	s.AcknowledgeMessage(first.id)
	second := next(in)
	for range deliveryWindow - 1 {
		next(in)
	}
	// A newer connection takes over what was not acknowledged, in order.
	s, in = connect()
	for n := range 49 {
		d := next(in)
		if int(d.m.Body[0]) != n+1 || n == 0 && (!d.duplicate || d.id != second.id) {
			t.Fatalf("message %d: %+v", n, d)
		}
		s.AcknowledgeMessage(d.id)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, total, err := h.Messages(t.Context(), c, "d", 0, 50)
		if err != nil || time.Now().After(deadline) {
			t.Fatal(total, err)
		}
		if total == 0 {
			break
		}
	}
	list, token, err := h.ReceiveFeedback(t.Context(), c)
	if err != nil || len(list) != 50 || list[0].Status != feedbackSuccess {
		t.Fatal(len(list), err)
	}
	if err := h.CompleteFeedback(t.Context(), c, token); err != nil {
		t.Fatal(err)
	}
}

// openMessages returns a hub with the device d, and a grant of it.
func openMessages(t *testing.T, dir string) (*Hub, Caller, Grant) {
	t.Helper()
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	c := Caller{Principal: auth.Principal{Permissions: ^auth.Permission(0)}}
	if _, err := h.CreateIdentity(t.Context(), c, Identity{DeviceID: "d"}); err != nil && AsError(err).Code != CodeDeviceAlreadyExists {
		t.Fatal(err)
	}
	g := Grant{ID: TwinID{DeviceID: "d"}}
	err = h.db.View(t.Context(), func(r storage.Reader) error {
		record, err := loadDevice(r, "d")
		g.GenerationID, g.revision = record.GenerationID, record.Revision
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, c, g
}

func TestMessagesOverHTTPS(t *testing.T) {
	dir := t.TempDir()
	h, c, g := openMessages(t, dir)
	for _, id := range []string{"a", "b"} {
		if _, err := h.SendMessage(t.Context(), c, "d", DeviceboundMessage{MessageID: id, Ack: "full"}); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(want string) string {
		t.Helper()
		m, found, err := h.ReceiveMessage(t.Context(), g, 0)
		if err != nil || found != (want != "") || m.MessageID != want {
			t.Fatalf("received %+v, %v; want %q", m, err, want)
		}
		return m.LockToken
	}
	settle := func(want Code, err error) {
		t.Helper()
		if err != nil && AsError(err).Code != want || err == nil && want != 0 {
			t.Fatalf("%v, want code %v", err, want)
		}
	}
	a, b := receive("a"), receive("b")
	receive("")
	settle(CodeMessageLockLost, h.CompleteMessage(t.Context(), g, "unknown"))
	settle(0, h.CompleteMessage(t.Context(), g, b))
	settle(CodeMessageLockLost, h.CompleteMessage(t.Context(), g, b))
	for n := range 10 {
		settle(0, h.AbandonMessage(t.Context(), g, a))
		if n == 5 { // the queue and its counts are in the store
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			h, c, g = openMessages(t, dir)
		}
		if n < 9 {
			a = receive("a")
		}
	}
	receive("")
	list, token, err := h.ReceiveFeedback(t.Context(), c)
	if err != nil || len(list) != 2 || list[0].Status != feedbackSuccess || list[1].Status != feedbackDeliveryCount {
		t.Fatalf("feedback %+v, %v", list, err)
	}
	if again, _, err := h.ReceiveFeedback(t.Context(), c); err != nil || len(again) != 0 {
		t.Fatalf("locked feedback was handed out again: %+v, %v", again, err)
	}
	settle(0, h.AbandonFeedback(t.Context(), c, token))
	if again, _, err := h.ReceiveFeedback(t.Context(), c); err != nil || len(again) != 2 {
		t.Fatalf("abandoned feedback: %+v, %v", again, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesOfACleanSessionAreGivenUp(t *testing.T) {
	h, c, g := openMessages(t, t.TempDir())
	defer h.Close()
	if _, err := h.SendMessage(t.Context(), c, "d", DeviceboundMessage{Ack: "negative"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Connect(t.Context(), Connection{Grant: g, Clean: true, Outbox: deaf{}}); err != nil {
		t.Fatal(err)
	}
	if _, total, err := h.Messages(t.Context(), c, "d", 0, 50); err != nil || total != 0 {
		t.Fatal(total, err)
	}
	if list, _, err := h.ReceiveFeedback(t.Context(), c); err != nil || len(list) != 1 || list[0].Status != feedbackPurged {
		t.Fatalf("feedback %+v, %v", list, err)
	}
}

// TestMessagesAreCountedInTwins: also by a hub that found them in its store.
func TestMessagesAreCountedInTwins(t *testing.T) {
	dir := t.TempDir()
	waiting := func(h *Hub, c Caller) int {
		twin, err := h.Twin(t.Context(), c, TwinID{DeviceID: "d"})
		if err != nil {
			t.Fatal(err)
		}
		page, err := h.Query(t.Context(), c, QueryRequest{Text: "SELECT * FROM devices WHERE cloudToDeviceMessageCount = " + strconv.Itoa(twin.Identity.CloudToDeviceMessages)})
		if err != nil || len(page.Twins) != 1 || page.Twins[0].Identity.CloudToDeviceMessages != twin.Identity.CloudToDeviceMessages {
			t.Fatalf("a query gives %+v, %v", page.Twins, err)
		}
		return twin.Identity.CloudToDeviceMessages
	}
	for round := range 3 {
		h, c, _ := openMessages(t, dir)
		if n := waiting(h, c); n != round {
			t.Errorf("%d messages wait, expected %d", n, round)
		}
		if _, err := h.SendMessage(t.Context(), c, "d", DeviceboundMessage{}); err != nil {
			t.Fatal(err)
		}
		if n := waiting(h, c); n != round+1 {
			t.Errorf("%d messages wait, expected %d", n, round+1)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMessagesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, g := openMessages(t, t.TempDir())
		defer h.Close()
		for _, ttl := range []time.Duration{time.Minute, 10 * time.Minute} {
			if _, err := h.SendMessage(t.Context(), c, "d", DeviceboundMessage{Expires: time.Now().Add(ttl), Ack: "negative"}); err != nil {
				t.Fatal(err)
			}
		}
		if _, found, err := h.ReceiveMessage(t.Context(), g, 5*time.Second); err != nil || !found {
			t.Fatal(found, err)
		}
		time.Sleep(6 * time.Second)
		if m, found, err := h.ReceiveMessage(t.Context(), g, 300*time.Second); err != nil || !found || m.Sequence != 1 || m.Deliveries != 2 {
			t.Fatalf("after the lock: %+v, %v", m, err)
		}
		time.Sleep(time.Minute)
		if err := h.sweepMessages(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, total, err := h.Messages(t.Context(), c, "d", 0, 50)
		if err != nil || total != 1 || list[0].Sequence != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		feedback, _, err := h.ReceiveFeedback(t.Context(), c)
		if err != nil || len(feedback) != 1 || feedback[0].Status != feedbackExpired {
			t.Fatalf("%+v, %v", feedback, err)
		}
		if err := h.DeleteIdentity(t.Context(), c, g.ID, IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		if err := h.sweepMessages(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMessagesThatNobodyAcknowledgesFreeTheirIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, g := openMessages(t, t.TempDir())
		defer h.Close()
		in := inbox{got: make(chan delivered, 1000)}
		s, err := h.Connect(t.Context(), Connection{Grant: g, Outbox: in})
		if err != nil {
			t.Fatal(err)
		}
		add := NoSubscriptions()
		add[EndpointMessage] = 1
		if err := s.Subscribe(t.Context(), add); err != nil {
			t.Fatal(err)
		}
		for round := range 10 {
			for range deliveryWindow {
				if _, err := h.SendMessage(t.Context(), c, "d", DeviceboundMessage{Expires: time.Now().Add(time.Second)}); err != nil {
					t.Fatal(err)
				}
			}
			for range deliveryWindow {
				<-in.got
			}
			time.Sleep(2 * time.Second)
			if err := h.sweepMessages(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(s.delivery.inFlight); n > 3*deliveryWindow {
				t.Fatalf("round %d: %d packet ids are taken", round, n)
			}
		}
	})
}
