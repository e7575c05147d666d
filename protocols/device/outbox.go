package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// outboxLimit is how many bytes may wait for one connection before the next
// packet is refused and the connection closed; one packet more may follow the
// limit, since a twin can be larger than it.
const outboxLimit = 256 << 10

// paceLimit is how many bytes of answers a session gathers before it writes
// them and reads on.
const paceLimit = 64 << 10

var (
	errOutboxClosed = errors.New("the connection has ended")
	errOutboxFull   = fmt.Errorf("the device does not read: more than %d KiB wait for it", outboxLimit>>10)
)

// outbox gathers what goes to one device, and writes it. Acknowledgements and
// replies come from the session's own goroutine, which flushes them after each
// read; requests and notifications come from the hub, which must never wait:
// it starts a goroutine for the write, unless one is under way and takes the
// new packet along.
//
// It implements engine.Outbox.
type outbox struct {
	st   *wire.Stream
	pool *wire.Buffers
	wg   *sync.WaitGroup // of the handler: a write in progress is waited for

	deviceID string                       // for topics; set before the hub knows the outbox
	lose     func() bool                  // an injected fault takes this message; set before the session begins
	cause    atomic.Pointer[engine.Error] // why the hub ended the connection

	mu       sync.Mutex
	pending  *wire.Buffer
	deferred *wire.Buffer // notifications that wait for a reply
	held     bool         // nothing goes out before CONNACK
	deferral bool         // notifications go to deferred
	writing  bool         // some goroutine is in write
	written  *sync.Cond   // signals the end of a write; nil until the session waits for one
	err      error        // final: no more packets are taken
}

func newOutbox(st *wire.Stream, pool *wire.Buffers, wg *sync.WaitGroup) *outbox {
	return &outbox{st: st, pool: pool, wg: wg, held: true}
}

// Method sends a direct method request.
func (o *outbox) Method(requestID, name string, payload json.RawMessage) error {
	return o.publish(wire.Message{Topic: methodTopic(name, requestID), Payload: payload}, false)
}

// Desired tells the device a change of its desired properties.
func (o *outbox) Desired(version int64, patch []byte) error {
	return o.publish(wire.Message{Topic: desiredTopic(version), Payload: patch}, true)
}

// Message sends a cloud-to-device message.
func (o *outbox) Message(m engine.QueuedMessage, packetID uint16, duplicate bool) error {
	w := wire.Message{Topic: messageTopic(o.deviceID, m), Payload: m.Body, ID: packetID, Dup: duplicate}
	if packetID != 0 {
		w.QoS = 1
	}
	return o.publish(w, false)
}

// Close ends the connection: the session's goroutine wakes up and cleans up.
func (o *outbox) Close(cause *engine.Error) {
	o.cause.CompareAndSwap(nil, cause)
	o.mu.Lock()
	if o.err == nil {
		o.err = errOutboxClosed
	}
	o.mu.Unlock()
	o.st.Cut()
}

// publish queues a PUBLISH and makes sure that it is written.
func (o *outbox) publish(m wire.Message, notification bool) error {
	if o.lose != nil && o.lose() {
		return o.failure()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	where := &o.pending
	if notification && o.deferral {
		where = &o.deferred
	}
	b, err := o.space(where, len(m.Topic)+len(m.Payload)+10)
	if err != nil {
		return err
	}
	if b.B, err = wire.AppendPublish(b.B, m); err != nil {
		return err
	}
	if where == &o.pending && !o.held && !o.writing {
		o.writing = true
		o.wg.Go(o.write)
	}
	return nil
}

// add queues what f appends, for the next flush. It is for the session.
func (o *outbox) add(size int, f func(dst []byte) ([]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, err := o.space(&o.pending, size)
	if err != nil {
		return err
	}
	b.B, err = f(b.B)
	return err
}

// space returns a buffer for one more packet; mu is held. A device that lets
// the outbox fill up is cut off.
func (o *outbox) space(where **wire.Buffer, size int) (*wire.Buffer, error) {
	if o.err != nil {
		return nil, o.err
	}
	used := 0
	if o.pending != nil {
		used += len(o.pending.B)
	}
	if o.deferred != nil {
		used += len(o.deferred.B)
	}
	if used > outboxLimit {
		o.err = errOutboxFull
		o.st.Cut()
		return nil, o.err
	}
	if *where == nil {
		*where = o.pool.Get(size)
	}
	return *where, nil
}

// open lets packets out, the CONNACK before all that the hub has queued.
func (o *outbox) open(connack []byte) error {
	o.mu.Lock()
	queued := o.pending
	o.pending = o.pool.Get(len(connack))
	o.pending.B = append(o.pending.B, connack...)
	if queued != nil {
		o.pending.B = append(o.pending.B, queued.B...)
		o.pool.Put(queued)
	}
	o.held = false
	o.mu.Unlock()
	return o.flush()
}

// deferNotifications keeps desired notifications back until release, so that
// none overtakes the reply to a request that was read before it.
func (o *outbox) deferNotifications() {
	o.mu.Lock()
	o.deferral = true
	o.mu.Unlock()
}

// release queues the notifications that were kept back.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deferral = false
	if o.deferred == nil {
		return
	}
	if o.pending == nil {
		o.pending = o.deferred
	} else {
		o.pending.B = append(o.pending.B, o.deferred.B...)
		o.pool.Put(o.deferred)
	}
	o.deferred = nil
}

// flush writes what is pending, or leaves it to the write that is under way.
// It is for the session.
func (o *outbox) flush() error {
	o.mu.Lock()
	if o.held || o.writing || o.pending == nil {
		defer o.mu.Unlock()
		return o.err
	}
	o.writing = true
	o.mu.Unlock()
	o.write()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// write writes until nothing is pending. Whoever set writing calls it.
func (o *outbox) write() {
	o.mu.Lock()
	for o.pending != nil && o.err == nil {
		b := o.pending
		o.pending = nil
		o.mu.Unlock()
		_, err := o.st.Write(b.B)
		o.pool.Put(b)
		o.mu.Lock()
		if err != nil && o.err == nil {
			o.err = err
			o.st.Cut()
		}
	}
	o.writing = false
	if o.written != nil {
		o.written.Broadcast()
	}
	o.mu.Unlock()
}

// pace waits until less than paceLimit is pending: a device that asks for
// much at once and reads the answers must not fill its own outbox. It is for
// the session, and a write timeout bounds it.
func (o *outbox) pace() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && o.pending != nil && len(o.pending.B) >= paceLimit {
		if o.writing {
			if o.written == nil {
				o.written = sync.NewCond(&o.mu)
			}
			o.written.Wait()
			continue
		}
		o.writing = true
		o.mu.Unlock()
		o.write()
		o.mu.Lock()
	}
	return o.err
}

// failure returns why the outbox takes no more packets, nil while it does.
func (o *outbox) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// shut makes the outbox refuse packets from now on and drops what it holds.
func (o *outbox) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = errOutboxClosed
	}
	o.pool.Put(o.pending)
	o.pool.Put(o.deferred)
	o.pending, o.deferred = nil, nil
}
