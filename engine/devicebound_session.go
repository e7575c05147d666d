package engine

import (
	"crypto/rand"
	"errors"
	"slices"
	"sync"

	"github.com/muster-hub/muster/storage"
)

// Bounds of what one session has without having acknowledged it. The bytes
// keep well below what waits for one connection at most.
const (
	deliveryWindow = 16
	deliveryBytes  = 96 << 10
)

// delivery is the cloud-to-device side of a session. What it has stands in
// the store under its token; here is only what the store need not know.
type delivery struct {
	token string

	mu       sync.Mutex
	inFlight map[uint16]uint64 // packet id -> sequence
	acked    []uint64          // sequences to complete
	nextID   uint16
}

func newDelivery() delivery { return delivery{token: rand.Text(), inFlight: map[uint16]uint64{}} }

// deliverTo delivers what waits to a device that is connected and subscribed.
func (h *Hub) deliverTo(deviceID string) {
	if s := h.sessions.get(TwinID{DeviceID: deviceID}); s != nil {
		s.deliver()
	}
}

// retryDeliveries tries again what the store was too busy for.
func (h *Hub) retryDeliveries() {
	h.devicebound.mu.Lock()
	list := h.devicebound.retry
	h.devicebound.retry = nil
	h.devicebound.mu.Unlock()
	for s := range list {
		s.deliver()
	}
}

func (s *Session) deliverLater() {
	d := &s.hub.devicebound
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.retry == nil {
		d.retry = map[*Session]struct{}{}
	}
	d.retry[s] = struct{}{}
}

// AcknowledgeMessage completes the message that was sent with the packet id;
// an id that is not in use is ignored.
func (s *Session) AcknowledgeMessage(packetID uint16) {
	d := &s.delivery
	d.mu.Lock()
	sequence, ok := d.inFlight[packetID]
	if ok {
		delete(d.inFlight, packetID)
		d.acked = append(d.acked, sequence)
	}
	d.mu.Unlock()
	if ok {
		s.deliver()
	}
}

// deliver completes what was acknowledged and sends what the window has room
// for, without waiting: messages are marked in the store before they are sent.
func (s *Session) deliver() {
	if s.id.ModuleID != "" || s.Err() != nil || s.hub.db.Paused() {
		return
	}
	s.announce()
	if err := s.hub.db.Submit(s.deliverTx); err != nil && s.Err() == nil {
		s.deliverLater()
	}
}

func (s *Session) deliverTx(tx *storage.Tx) error {
	if err := s.liveTx(tx); err != nil {
		return nil // its successor delivers
	}
	qos := s.Subscriptions()[EndpointMessage]
	d := &s.delivery
	d.mu.Lock()
	acked := slices.Clone(d.acked)
	d.mu.Unlock()
	for _, sequence := range acked {
		k := deviceboundKey(s.id.DeviceID, sequence)
		if r, err := deviceboundTable.Get(tx, k); err == nil && r.Session == d.token {
			if err := s.hub.finishMessageTx(tx, k, r, feedbackSuccess); err != nil {
				return err
			}
		}
	}
	if len(acked) > 0 {
		tx.OnCommit(func(uint64) { s.forgetAcked(acked) })
	}
	q, err := deviceboundQueueOf(tx, s.id.DeviceID)
	if err != nil || q.Count == 0 || qos == NotSubscribed {
		return err
	}
	if err := s.forgetGoneTx(tx); err != nil {
		return err
	}
	window, bytes := 0, 0
	for item, err := range deviceboundTable.Scan(tx, storage.Range{Prefix: storage.Tuple(s.id.DeviceID)}) {
		if err != nil {
			return err
		}
		r, size := item.Value, len(item.Value.Body)
		mine := r.Session == d.token
		if !mine && !s.hub.availableAt(s.id.DeviceID, &r, tx.Now(), s) {
			continue
		}
		if window++; window > deliveryWindow || window > 1 && bytes+size > deliveryBytes {
			break
		}
		bytes += size
		if mine {
			continue
		}
		_, sequence, err := deviceboundID(item.Key)
		if err != nil {
			return err
		}
		duplicate := s.resumed && r.PacketID != 0 && qos > 0
		r.Session, r.Lock, r.Deliveries = d.token, "", r.Deliveries+1
		r.PacketID = 0
		if qos > 0 {
			if r.PacketID = item.Value.PacketID; !s.reserve(r.PacketID, sequence) {
				r.PacketID = s.newPacketID(sequence)
			}
		}
		if qos == 0 { // at most once: it is complete when it is sent
			err = s.hub.finishMessageTx(tx, item.Key, r, feedbackSuccess)
		} else {
			err = deviceboundTable.Put(tx, item.Key, r)
		}
		if err != nil {
			return err
		}
		tx.OnCommit(func(uint64) { s.send(r.queued(sequence), r.PacketID, duplicate) })
	}
	return nil
}

func (s *Session) forgetAcked(done []uint64) {
	d := &s.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acked = slices.DeleteFunc(d.acked, func(n uint64) bool { return slices.Contains(done, n) })
}

// forgetGoneTx frees the packet ids of messages that expired or were purged:
// a device that never acknowledges must not use up all ids. A sequence that is
// gone never comes back, so that a second preparation does no harm.
func (s *Session) forgetGoneTx(tx *storage.Tx) error {
	d := &s.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.inFlight) <= 2*deliveryWindow {
		return nil
	}
	for id, sequence := range d.inFlight {
		_, err := deviceboundTable.Get(tx, deviceboundKey(s.id.DeviceID, sequence))
		if errors.Is(err, storage.ErrNotFound) {
			delete(d.inFlight, id)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// reserve takes a packet id for a message, unless another one has it.
func (s *Session) reserve(id uint16, sequence uint64) bool {
	d := &s.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	if has, used := d.inFlight[id]; id == 0 || used && has != sequence {
		return false
	}
	d.inFlight[id] = sequence
	return true
}

// newPacketID gives a message its packet id; the same one again when the
// transaction is prepared again.
func (s *Session) newPacketID(sequence uint64) uint16 {
	d := &s.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, has := range d.inFlight {
		if has == sequence {
			return id
		}
	}
	for {
		d.nextID++
		if _, used := d.inFlight[d.nextID]; d.nextID != 0 && !used {
			d.inFlight[d.nextID] = sequence
			return d.nextID
		}
	}
}

// send hands a message to the connection. Behind those at QoS 0, which nobody
// acknowledges, the next ones follow with the next sweep.
func (s *Session) send(m QueuedMessage, packetID uint16, duplicate bool) {
	if s.Err() != nil || s.connection.Outbox.Message(m, packetID, duplicate) != nil {
		return // the connection is ending: the next one gets the message
	}
	s.hub.count.deviceboundDelivered.Add(1)
	if packetID == 0 {
		s.deliverLater()
	}
}
