package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/storage"
)

// The rules of a device's queue of cloud-to-device messages; they are IoT Hub's.
const (
	deviceboundTTL        = time.Hour
	deviceboundLock       = time.Minute
	deviceboundLockLeast  = 5 * time.Second
	deviceboundLockMost   = 300 * time.Second
	deviceboundProperties = 100
)

// DeviceboundMessage is a cloud-to-device message to send.
type DeviceboundMessage struct {
	MessageID       string // made up when empty
	CorrelationID   string
	UserID          string
	ContentType     string
	ContentEncoding string
	Ack             string    // none (when empty), positive, negative or full: what feedback is wanted
	Expires         time.Time // zero: an hour from now; at most two days ahead
	Properties      []Property
	Body            []byte
}

// QueuedMessage is a message in a device's queue.
type QueuedMessage struct {
	DeviceboundMessage
	Sequence   uint64 // place in the device's queue
	Enqueued   time.Time
	Deliveries int    // how often it was handed out
	LockToken  string // of the receiver that it was handed to; empty in a list
	Invisible  bool   // handed out, not completed yet
}

// deviceboundRecord is a stored message.
type deviceboundRecord struct {
	DeviceboundMessage
	Generation string    `json:"g"`
	Enqueued   time.Time `json:"e"`
	Deliveries int       `json:"n,omitempty"`
	Abandons   int       `json:"a,omitempty"`
	Lock       string    `json:"l,omitempty"` // token of an HTTPS receiver
	Locked     time.Time `json:"u,omitzero"`  // until when it has the message
	Session    string    `json:"s,omitempty"` // MQTT session that has the message while it lives
	PacketID   uint16    `json:"i,omitempty"` // of the last PUBLISH at QoS 1
}

// deviceboundQueue is what is known of one device's queue without reading it.
type deviceboundQueue struct {
	Last  uint64 `json:"l"` // sequence given out last
	Count int    `json:"c"`
}

var (
	deviceboundTable = storage.NewTable("devicebound", 1, storage.JSON[deviceboundRecord](),
		storage.Index[deviceboundRecord]{Name: "due", Keys: func(_ storage.Key, r deviceboundRecord) []storage.Key {
			due := r.Expires
			if !r.Locked.IsZero() && r.Locked.Before(due) {
				due = r.Locked
			}
			return []storage.Key{storage.Tuple(due)}
		}})
	deviceboundQueueTable = storage.NewTable("devicebound.queue", 1, storage.JSON[deviceboundQueue]())
)

func deviceboundKey(deviceID string, sequence uint64) storage.Key {
	return storage.Tuple(deviceID, sequence)
}

// deviceboundState is what the hub remembers of deliveries between sweeps.
type deviceboundState struct {
	used  atomic.Bool // there are queues: a device may have one
	mu    sync.Mutex
	retry map[*Session]struct{} // sessions whose delivery could not be tried
}

// SendMessage puts a message into the device's queue, durably. Errors:
// CodeQueueFull when 50 wait, CodeTooLarge, CodeArgumentInvalid,
// CodeDeviceNotFound. It needs ServiceConnect.
func (h *Hub) SendMessage(ctx context.Context, c Caller, deviceID string, m DeviceboundMessage) (QueuedMessage, error) {
	if err := h.authorize(ctx, c, opMessageSend, deviceID); err != nil {
		return QueuedMessage{}, err
	}
	if err := h.checkDevicebound(&m); err != nil {
		return QueuedMessage{}, err
	}
	if m.MessageID == "" {
		m.MessageID = rand.Text()
	}
	var sent QueuedMessage
	err := h.update(ctx, "send message", func(tx *storage.Tx) (err error) {
		sent, err = h.sendMessageTx(tx, c, deviceID, m)
		return err
	})
	if err != nil {
		return QueuedMessage{}, err
	}
	h.count.deviceboundSent.Add(1)
	h.deliverTo(deviceID)
	return sent, nil
}

// sendMessageTx puts a message that was checked into the device's queue.
func (h *Hub) sendMessageTx(tx *storage.Tx, c Caller, deviceID string, m DeviceboundMessage) (sent QueuedMessage, err error) {
	now := tx.Now().UTC()
	device, err := loadDevice(tx, deviceID)
	if err != nil {
		return sent, err
	}
	if m.MessageID == "" {
		m.MessageID = rand.Text()
	}
	r := deviceboundRecord{DeviceboundMessage: m, Generation: device.GenerationID, Enqueued: now}
	switch {
	case r.Expires.IsZero():
		r.Expires = now.Add(deviceboundTTL)
	case !r.Expires.After(now), r.Expires.After(now.Add(h.limits.MessageTTLMax)):
		return sent, errf(CodeArgumentInvalid, "expiry %s is not within the next %.0f hours", r.Expires.UTC().Format(time.RFC3339), h.limits.MessageTTLMax.Hours())
	}
	r.Expires = r.Expires.UTC()
	q, err := deviceboundQueueOf(tx, deviceID)
	if err != nil {
		return sent, err
	}
	if most := h.limits.MessagesWaiting; q.Count >= most {
		return sent, errf(CodeQueueFull, "%d messages wait for %q, at most %d may", q.Count, deviceID, most)
	}
	q.Last++
	q.Count++
	h.devicebound.used.Store(true) // before anybody can see that there is one
	details, err := json.Marshal(struct {
		MessageID string `json:"messageId"`
	}{m.MessageID})
	return r.queued(q.Last), errors.Join(err,
		deviceboundQueueTable.Put(tx, deviceKey(deviceID), q),
		deviceboundTable.Put(tx, deviceboundKey(deviceID, q.Last), r),
		h.auditTx(tx, c, opMessageSend, deviceID, details))
}

func (r *deviceboundRecord) queued(sequence uint64) QueuedMessage {
	return QueuedMessage{
		DeviceboundMessage: r.DeviceboundMessage, Sequence: sequence, Enqueued: r.Enqueued,
		Deliveries: r.Deliveries, Invisible: r.Lock != "" || r.Session != "",
	}
}

// messagesWaiting is how many cloud-to-device messages wait for an identity.
func (h *Hub) messagesWaiting(r storage.Reader, id TwinID) (int, error) {
	if id.ModuleID != "" || !h.devicebound.used.Load() {
		return 0, nil
	}
	q, err := deviceboundQueueOf(r, id.DeviceID)
	return q.Count, err
}

// openDevicebound finds out whether there are queues.
func (h *Hub) openDevicebound(ctx context.Context) error {
	return h.view(ctx, "read cloud-to-device queues", func(r storage.Reader) error {
		for _, err := range deviceboundQueueTable.Scan(r, storage.Range{}) {
			h.devicebound.used.Store(true)
			return err
		}
		return nil
	})
}

func deviceboundQueueOf(r storage.Reader, deviceID string) (deviceboundQueue, error) {
	q, err := deviceboundQueueTable.Get(r, deviceKey(deviceID))
	if errors.Is(err, storage.ErrNotFound) {
		return deviceboundQueue{}, nil
	}
	return q, err
}

// checkDevicebound applies the rules for what becomes a topic or headers.
func (h *Hub) checkDevicebound(m *DeviceboundMessage) error {
	size := len(m.Body)
	for _, f := range []struct{ name, value string }{
		{"messageId", m.MessageID}, {"correlationId", m.CorrelationID}, {"userId", m.UserID},
		{"contentType", m.ContentType}, {"contentEncoding", m.ContentEncoding},
	} {
		if len(f.value) > 128 || !printableASCII(f.value) {
			return errf(CodeArgumentInvalid, "%s must have at most 128 printable ASCII characters", f.name)
		}
		size += len(f.value)
	}
	switch m.Ack {
	case "":
		m.Ack = "none"
	case "none", "positive", "negative", "full":
	default:
		return errf(CodeArgumentInvalid, "ack %q is not known, expected none, positive, negative or full", m.Ack)
	}
	if len(m.Properties) > deviceboundProperties {
		return errf(CodeArgumentInvalid, "the message has %d properties, at most %d are allowed", len(m.Properties), deviceboundProperties)
	}
	escaped := 0
	for _, p := range m.Properties {
		// Several SDKs fail on a property without a value, or read one whose
		// name looks like the hub's own as such.
		if p.Name == "" || p.Value == "" || !printableASCII(p.Name) || !printableASCII(p.Value) {
			return errf(CodeArgumentInvalid, "the property %q needs a name and a value of printable ASCII characters", p.Name)
		}
		if strings.HasPrefix(p.Name, "$.") || strings.HasPrefix(strings.ToLower(p.Name), "iothub-") {
			return errf(CodeArgumentInvalid, "the property %q has a reserved name: it must not begin with $. or iothub-", p.Name)
		}
		size += len(p.Name) + len(p.Value)
		escaped += 3*(len(p.Name)+len(p.Value)) + 2
	}
	if most := h.limits.DeviceboundBytes; size > most {
		return errf(CodeTooLarge, "the message has %d bytes with its properties, at most %d are allowed", size, most)
	}
	// Everything but the body goes into an MQTT topic, percent-encoded.
	if escaped > math.MaxUint16-4096 {
		return errf(CodeTooLarge, "the properties do not fit into an MQTT topic; put them into the body")
	}
	return nil
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Messages lists a device's waiting messages in order behind the sequence
// given, at most limit, and how many there are in all. It needs ServiceConnect.
func (h *Hub) Messages(ctx context.Context, c Caller, deviceID string, after uint64, limit int) (list []QueuedMessage, total int, err error) {
	if err := h.authorize(ctx, c, opMessageRead, deviceID); err != nil {
		return nil, 0, err
	}
	list = []QueuedMessage{}
	err = h.view(ctx, "list messages", func(r storage.Reader) error {
		if _, err := loadDevice(r, deviceID); err != nil {
			return err
		}
		q, err := deviceboundQueueOf(r, deviceID)
		if err != nil {
			return err
		}
		total = q.Count
		for item, err := range deviceboundTable.Scan(r, storage.Range{Prefix: storage.Tuple(deviceID), After: deviceboundKey(deviceID, after)}) {
			if err != nil {
				return err
			}
			if len(list) == limit {
				return nil
			}
			_, sequence, err := deviceboundID(item.Key)
			if err != nil {
				return err
			}
			m := item.Value.queued(sequence)
			// What an ended session or lock had is free, though the record still names it.
			m.Invisible = m.Invisible && !h.availableAt(deviceID, &item.Value, time.Now(), nil)
			list = append(list, m)
		}
		return nil
	})
	return list, total, err
}

func deviceboundID(k storage.Key) (deviceID string, sequence uint64, err error) {
	parts, err := k.Parts()
	if err != nil || len(parts) != 2 {
		return "", 0, errors.New("key is not that of a message")
	}
	deviceID, ok1 := parts[0].(string)
	sequence, ok2 := parts[1].(uint64)
	if !ok1 || !ok2 {
		return "", 0, errors.New("key is not that of a message")
	}
	return deviceID, sequence, nil
}

// PurgeMessages removes a device's messages, also those that were handed out,
// and returns how many there were. It needs ServiceConnect.
func (h *Hub) PurgeMessages(ctx context.Context, c Caller, deviceID string) (int, error) {
	if err := h.authorize(ctx, c, opMessagePurge, deviceID); err != nil {
		return 0, err
	}
	n := 0
	err := h.update(ctx, "purge messages", func(tx *storage.Tx) error {
		if _, err := loadDevice(tx, deviceID); err != nil {
			return err
		}
		var err error
		if n, err = h.purgeMessagesTx(tx, deviceID, true); err != nil {
			return err
		}
		return h.auditTx(tx, c, opMessagePurge, deviceID, nil)
	})
	return n, err
}

// purgeMessagesTx empties a queue; it touches nothing when the queue is empty.
func (h *Hub) purgeMessagesTx(tx *storage.Tx, deviceID string, feedback bool) (int, error) {
	q, err := deviceboundQueueOf(tx, deviceID)
	if err != nil || q.Count == 0 {
		return 0, err
	}
	var keys []storage.Item[deviceboundRecord]
	for item, err := range deviceboundTable.Scan(tx, storage.Range{Prefix: storage.Tuple(deviceID)}) {
		if err != nil {
			return 0, err
		}
		keys = append(keys, item)
	}
	for _, item := range keys {
		status := feedbackPurged
		if !feedback {
			item.Value.Ack = "none"
		}
		if err := h.finishMessageTx(tx, item.Key, item.Value, status); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}

// finishMessageTx takes a message out of its queue and writes the feedback
// that its sender asked for.
func (h *Hub) finishMessageTx(tx *storage.Tx, key storage.Key, r deviceboundRecord, status string) error {
	deviceID, sequence, err := deviceboundID(key)
	if err != nil {
		return err
	}
	q, err := deviceboundQueueOf(tx, deviceID)
	if err != nil {
		return err
	}
	q.Count--
	if err := errors.Join(deviceboundTable.Delete(tx, key), deviceboundQueueTable.Put(tx, deviceKey(deviceID), q)); err != nil {
		return err
	}
	tx.OnCommit(func(uint64) {
		if status == feedbackSuccess {
			h.count.deviceboundCompleted.Add(1)
		} else {
			h.count.deviceboundDead.Add(1)
		}
	})
	positive := status == feedbackSuccess
	if r.Ack == "full" || r.Ack == "positive" && positive || r.Ack == "negative" && !positive {
		return putFeedbackTx(tx, deviceID, sequence, r, status)
	}
	return nil
}
