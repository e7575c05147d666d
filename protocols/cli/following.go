package cli

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// following is how a command that follows the hub outlives the hub's absence.
type following struct {
	app     *app
	pause   time.Duration // before the next attempt; 0 while the hub answers
	reached bool          // it has answered before
	away    bool          // it was said to be away
}

const backoffMost = 15 * time.Second

// heard notes that the hub has answered.
func (f *following) heard() {
	f.reached = true
	if f.away {
		f.app.note("The hub is back.")
	}
	f.pause, f.away = 0, false
}

// wait waits before the next attempt when err is one that passes by itself and
// the hub has answered before; it returns any other. It returns nil when the
// command is interrupted, too.
func (f *following) wait(err error) error {
	if err == nil {
		return nil
	}
	if !f.reached || !comesBack(err) {
		return err
	}
	switch e, said := errors.AsType[*client.Error](err); {
	case f.away:
	case said && e.Message != "" && !isAway(e):
		f.app.note("%s; asking again.", printable(strings.ToUpper(e.Message[:1])+e.Message[1:]))
	default:
		f.away = true
		f.app.note("The hub does not answer; going on when it is back.")
	}
	f.pause = min(max(2*f.pause, 500*time.Millisecond), backoffMost)
	pause := f.pause
	if e, ok := errors.AsType[*client.Error](err); ok {
		pause = max(pause, e.RetryAfter)
	}
	select {
	case <-f.app.ctx.Done():
	case <-time.After(pause):
	}
	return nil
}

// isAway reports whether a hub that said why it does not answer can't be asked
// again at once: it is going down, or not up yet.
func isAway(e *client.Error) bool {
	return e.Code == "closing" || e.Code == "ServiceUnavailable" || e.Code == "ServerShuttingDown"
}

// comesBack reports whether an error is one that passes by itself. A hub that
// fails (500) answers, and would fail for ever.
func comesBack(err error) bool {
	if _, ok := errors.AsType[*client.ConnectError](err); ok {
		return true
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
