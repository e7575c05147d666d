package service

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"

	"github.com/muster-hub/muster/engine"
)

const (
	maxReplayKey  = 255 // characters of a key
	replayedField = "Idempotency-Replayed"
)

// replays are the requests with an Idempotency-Key that run now. Their answers
// are kept by the hub, durably, so that a client that did not see one can ask
// again without a second effect.
type replays struct {
	mu      sync.Mutex
	running map[replayKey]struct{}
}

type replayKey struct {
	principal, operation, key string
}

func newReplays() *replays { return &replays{running: map[replayKey]struct{}{}} }

// begin notes a request as running; it reports false when it runs already.
func (s *replays) begin(k replayKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, runs := s.running[k]; runs {
		return false
	}
	s.running[k] = struct{}{}
	return true
}

func (s *replays) finish(k replayKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, k)
}

// capture holds an answer back until it is known whether to keep it.
type capture struct {
	header  http.Header
	status  int
	content bytes.Buffer
}

func (w *capture) Header() http.Header         { return w.header }
func (w *capture) WriteHeader(status int)      { w.status = status }
func (w *capture) Write(b []byte) (int, error) { return w.content.Write(b) }

// serveOnce runs a POST of Muster's own, once for each Idempotency-Key.
func (c *call) serveOnce() error {
	key := c.r.Header.Get("Idempotency-Key")
	if key == "" {
		a, err := c.handle()
		if err != nil {
			return err
		}
		return c.send(a)
	}
	if len(key) > maxReplayKey || !printable(key) {
		return invalid("the Idempotency-Key has more than %d characters or one that is not visible ASCII", maxReplayKey)
	}
	body, err := c.read(max(maxBody, c.route.bodyLimit()))
	if err != nil {
		return err
	}
	c.r.Body, c.r.ContentLength = http.NoBody, int64(len(body))
	if len(body) > 0 {
		c.r.Body = readCloser{bytes.NewReader(body)}
	}
	k := replayKey{c.caller.Principal.String(), c.route.method + " " + c.path, key}
	if !c.replays.begin(k) {
		return &failure{status: http.StatusConflict, number: 409000, code: "IdempotencyKeyInUse",
			text: "the first request with this Idempotency-Key still runs", next: "Wait and ask again with the same key."}
	}
	defer c.replays.finish(k)
	hash := sha256.Sum256(body)
	if len(c.query) > 0 { // it is a part of what is asked for
		hash = sha256.Sum256(append(hash[:], c.query.Encode()...))
	}
	old, found, err := c.hub.FindAnswer(c.r.Context(), c.caller, k.operation, key)
	switch {
	case err != nil:
		return err
	case found && old.Request != hash:
		return &failure{status: http.StatusUnprocessableEntity, number: 422000, code: "IdempotencyKeyReused",
			text: "this Idempotency-Key was used for a request with another body", next: "Use a new key for a new request."}
	case found && old.Status == statusBegun:
		return &failure{status: http.StatusConflict, number: 409000, code: "IdempotencyOutcomeUnknown",
			text: "the first request with this Idempotency-Key did not end in an answer: the hub was stopped meanwhile, or could not tell whether it was stored",
			next: "Read what it would have made. To do it again, use a new key."}
	case found:
		c.w.Header().Set(replayedField, "true")
		c.copy(old.Status, old.Header, old.Content)
		return nil
	}
	// A client that goes away asks again with its key, and shall find the answer.
	c.r = c.r.WithContext(context.WithoutCancel(c.r.Context()))
	// First the note that it began: after a kill nobody knows whether it had an
	// effect, and it must not have a second one.
	if err := c.keep(k, hash, &capture{status: statusBegun}); err != nil {
		return err
	}
	kept, uncertain := c.answerInMemory()
	switch s := kept.status; {
	case uncertain:
		// The note stays.
	case s >= http.StatusInternalServerError, s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusTooManyRequests:
		// What may succeed later, or for another reason, must not stick.
		err = c.hub.DropAnswer(c.r.Context(), c.caller, k.operation, k.key)
	default:
		err = c.keep(k, hash, kept)
		if e := engine.AsError(err); e != nil && e.Code == engine.CodeTooLarge {
			// The effect must not come twice all the same: a repetition is told so.
			err = c.keep(k, hash, c.inMemory(func() { c.fail(answerNotKept(s)) }))
		}
	}
	if err != nil { // the note stays, and a repetition is told that the outcome is unknown
		c.log.WarnContext(c.r.Context(), "the answer to a request with an idempotency key was not kept", slog.Any("error", err))
	}
	c.copy(kept.status, kept.header, kept.content.Bytes())
	return nil
}

// statusBegun stands for the answer of a request that runs.
const statusBegun = 0

func (c *call) keep(k replayKey, request [sha256.Size]byte, kept *capture) error {
	answer := engine.Answer{Request: request, Status: kept.status, Header: kept.header, Content: kept.content.Bytes()}
	return c.hub.KeepAnswer(c.r.Context(), c.caller, k.operation, k.key, answer)
}

// answerNotKept is what a repetition gets in place of an answer that was too
// large to be kept.
func answerNotKept(status int) error {
	return &failure{status: http.StatusConflict, number: 409000, code: "IdempotencyAnswerNotKept",
		text: fmt.Sprintf("the first request with this Idempotency-Key was answered with status %d; the answer was too large to be kept", status),
		next: "Read what the first request made; it was not done again."}
}

// answerInMemory runs the request and holds its answer back. uncertain says
// that it may or may not have had its effect.
func (c *call) answerInMemory() (kept *capture, uncertain bool) {
	a, err := c.handle()
	e, ok := errors.AsType[*engine.Error](err)
	uncertain = ok && e.Code == engine.CodeUncertain
	return c.inMemory(func() {
		if err != nil {
			c.fail(err)
		} else {
			_ = c.send(a) // writes to memory
		}
	}), uncertain
}

// inMemory captures what f sends.
func (c *call) inMemory(f func()) *capture {
	kept := &capture{header: http.Header{}, status: http.StatusOK}
	outer := c.w
	defer func() { c.w = outer }()
	c.w = &recorder{ResponseWriter: kept}
	f()
	return kept
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func (c *call) copy(status int, header http.Header, content []byte) {
	maps.Copy(c.w.Header(), header)
	c.w.WriteHeader(status)
	_, _ = c.w.Write(content) // a client that is gone is no failure of the operation
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
