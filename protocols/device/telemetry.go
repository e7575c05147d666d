package device

import (
	"sync"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// busyPause is between two attempts to hand over a message while the store's
// queue is full: the device feels it as a slow network.
const busyPause = 5 * time.Millisecond

// maxUnsettled is how many messages at QoS 1 a session hands over before it
// waits for them.
const maxUnsettled = 1024

// maxLoose is how many bytes of messages at QoS 0 a session hands over before
// it waits for them. All devices share the store's queue: one that pours into
// it would make every group as large as the queue, and everybody wait for it.
const maxLoose = 1 << 20

// store hands telemetry over to the hub. A message at QoS 1 is acknowledged
// by settle, once for all that one read brought.
func (s *session) store(p *wire.Packet, m engine.Message) error {
	if len(s.unsettled) >= maxUnsettled || s.looseBytes >= maxLoose {
		if err := s.settle(); err != nil {
			return err
		}
	}
	for {
		err := s.es.SubmitTelemetry(m, s.settled.note)
		if err == nil {
			break
		}
		if engine.AsError(err).Code != engine.CodeThrottled {
			return err
		}
		timer := time.NewTimer(busyPause)
		select {
		case <-timer.C:
		case <-s.h.ctx.Done():
			timer.Stop()
			return s.h.ctx.Err()
		}
	}
	if p.QoS > 0 {
		s.unsettled = append(s.unsettled, p.ID)
	} else {
		s.loose++
		s.looseBytes += len(p.Topic) + len(p.Payload)
	}
	return nil
}

// tally counts the answers of the store, which come from its goroutine, for
// the one session that waits for them. Its zero value is ready.
type tally struct {
	mu     sync.Mutex
	count  int
	want   int           // 0: nobody waits
	err    error         // the first
	enough chan struct{} // made by the first wait; capacity 1
}

// note is called by the store once for each message; it does not block.
func (t *tally) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if t.err == nil {
		t.err = err
	}
	if t.want > 0 && t.count >= t.want {
		t.want = 0
		t.enough <- struct{}{}
	}
}

// wait returns after n answers, with the first error among them, and begins
// to count anew. The store answers everything that it took.
func (t *tally) wait(n int) error {
	t.mu.Lock()
	if t.count < n {
		if t.enough == nil {
			t.enough = make(chan struct{}, 1)
		}
		t.want = n
		t.mu.Unlock()
		<-t.enough
		t.mu.Lock()
	}
	err := t.err
	t.count, t.err = 0, nil
	t.mu.Unlock()
	return err
}

// settle waits until the telemetry that was handed over is durable, and
// queues its PUBACKs. When it could not be stored there is none, and the
// error ends the connection, so that the device sends it again. For messages
// at QoS 0 alone it waits only when they have become many.
func (s *session) settle() error {
	n := len(s.unsettled)
	if n == 0 && s.looseBytes < maxLoose {
		return nil
	}
	err := s.settled.wait(n + s.loose)
	s.loose, s.looseBytes = 0, 0
	if err == nil && n > 0 {
		err = s.out.add(4*n, func(dst []byte) ([]byte, error) {
			for _, id := range s.unsettled {
				dst = wire.AppendPuback(dst, id)
			}
			return dst, nil
		})
	}
	s.unsettled = s.unsettled[:0]
	return err
}
