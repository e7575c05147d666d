package device

import (
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
)

// loses tosses whether an injected fault takes a message of this connection,
// in either direction. Acknowledgements are never lost: their message is.
func (s *session) loses() bool {
	f, ok := s.h.hub.Fault(s.id)
	if !ok || f.Drop <= 0 || s.h.chance() >= f.Drop {
		return false
	}
	s.h.hub.FaultLost()
	return true
}

// disturb does to a PUBLISH that was read what an injected fault wants: it
// holds the first of a read back, and says whether this one is lost.
func (s *session) disturb(first bool) (lost bool, err error) {
	f, ok := s.h.hub.Fault(s.id)
	if !ok {
		return false, nil
	}
	if first && f.Delay > 0 {
		if err := s.out.flush(); err != nil { // what is ready is not late
			return false, err
		}
		if err := s.linger(f.Delay); err != nil {
			return false, err
		}
	}
	return s.loses(), nil
}

// linger waits; it notices within throttleStep when the session ends.
func (s *session) linger(d time.Duration) error {
	end := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(end) {
		timer := time.NewTimer(min(left, throttleStep))
		select {
		case <-timer.C:
		case <-s.h.ctx.Done():
			timer.Stop()
			return s.h.ctx.Err()
		}
		if err := s.out.failure(); err != nil {
			return err
		}
	}
	return nil
}

// disturb does to a request what an injected fault wants: it holds it back, or
// loses it before anything is done, as a network does: the connection ends
// without an answer.
func (h *HTTPHandler) disturb(w http.ResponseWriter, r *http.Request, id engine.TwinID) error {
	f, ok := h.hub.Fault(id)
	if !ok {
		return nil
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return r.Context().Err()
		}
		giveTime(http.NewResponseController(w)) // what was held back is not late
	}
	if f.Drop > 0 && h.chance() < f.Drop {
		h.hub.FaultLost()
		panic(http.ErrAbortHandler)
	}
	return nil
}
