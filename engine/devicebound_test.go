package engine

import (
	"testing"
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
