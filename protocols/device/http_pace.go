package device

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine"
)

// httpPatience is how long a request waits for its device's allowance before it
// is refused.
const httpPatience = 2 * time.Second

// httpPaceKept is how long an identity is remembered that sends nothing: by then
// its allowance is whole again, since nobody owes more than what the requests
// that waited together have added.
const httpPaceKept = time.Minute

// httpPace holds a device that speaks HTTPS to what a session may send in a
// second, whatever the number of its connections. It is safe for concurrent use.
type httpPace struct {
	mu    sync.Mutex
	known map[engine.TwinID]*httpAllowance
	swept time.Time
}

type httpAllowance struct {
	packets, bytes allowance
	filled, told   time.Time
}

// spend takes n messages of size bytes off an identity's allowance. It returns
// how long it takes until nothing is owed.
func (p *httpPace) spend(id engine.TwinID, n, size int, l *engine.Limits, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.swept) > httpPaceKept {
		p.swept = now
		for id, a := range p.known {
			if now.Sub(a.filled) > httpPaceKept {
				delete(p.known, id)
			}
		}
	}
	a := p.known[id]
	if a == nil {
		if p.known == nil {
			p.known = map[engine.TwinID]*httpAllowance{}
		}
		a = &httpAllowance{filled: now.Add(-time.Second)} // it begins with a second's worth
		p.known[id] = a
	}
	since := now.Sub(a.filled)
	a.filled = now
	return max(a.packets.spend(n, l.DeviceMessageRate, since), a.bytes.spend(size, l.DeviceByteRate, since))
}

// tells reports whether the log is to say now that an identity is held back.
func (p *httpPace) tells(id engine.TwinID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.known[id]
	if a == nil || now.Sub(a.told) <= tellEvery {
		return false
	}
	a.told = now
	return true
}

// wait holds a request back while its device owes for what it has sent, before
// its body is read. A device that owes for longer is refused.
func (h *HTTPHandler) wait(ctx context.Context, id engine.TwinID, address string) error {
	limits := h.hub.Limits()
	now := time.Now()
	wait := h.pace.spend(id, 0, 0, &limits, now)
	if wait == 0 {
		return nil
	}
	h.paced.Add(1)
	if h.pace.tells(id, now) {
		h.log.WarnContext(ctx, pacedText, pacedAttrs(id, address, &limits)...)
	}
	timer := time.NewTimer(min(wait, httpPatience))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	if wait > httpPatience {
		return &engine.Error{Code: engine.CodeThrottled, Message: fmt.Sprintf("the device sends more than %.0f messages or %.0f bytes a second. Wait %.0f s and send more slowly; the hub's limits device_message_rate and device_byte_rate say how fast",
			limits.DeviceMessageRate, limits.DeviceByteRate, math.Ceil((wait - httpPatience).Seconds()))}
	}
	return nil
}

// Paced returns how many requests were held back since their devices sent more
// than they may.
func (h *HTTPHandler) Paced() int64 { return h.paced.Load() }
