package service

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Bounds of what is kept for Idempotency-Key.
const (
	replayAge     = 24 * time.Hour
	replayMost    = 10000    // answers in all
	replayEach    = 1000     // answers of one principal
	replayBytes   = 16 << 20 // bytes of answers in all
	maxReplayKey  = 255      // characters of a key
	replayedField = "Idempotency-Replayed"
)

// replays keeps the answers of requests that carried an Idempotency-Key, so
// that a client that did not see an answer can ask again without a second
// effect. They are kept in memory: at most replayAge, less under pressure of
// the bounds above (the oldest go first), and not over a restart.
type replays struct {
	mu    sync.Mutex
	all   map[replayKey]*list.Element
	order *list.List // of *replay, oldest first
	each  map[string]int
	bytes int
}

type replayKey struct {
	principal, operation, key string
}

// replay is a request and, once it has one, its answer.
type replay struct {
	replayKey
	body    [sha256.Size]byte
	since   time.Time
	done    bool
	status  int
	header  http.Header
	content []byte
}

// held returns the element's value; nothing but *replay is put into the list.
func held(e *list.Element) *replay { return e.Value.(*replay) } //nolint:errcheck // see above

func newReplays() *replays {
	return &replays{all: map[replayKey]*list.Element{}, order: list.New(), each: map[string]int{}}
}

// begin returns an earlier answer to the same request, or notes the request
// as running. A key that was used for another body, or whose first request
// still runs, is refused.
func (s *replays) begin(k replayKey, body [sha256.Size]byte, now time.Time) (*replay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Front(); e != nil && now.Sub(held(e).since) >= replayAge; e = s.order.Front() {
		s.remove(e)
	}
	if e, ok := s.all[k]; ok {
		r := held(e)
		switch {
		case r.body != body:
			return nil, &failure{status: http.StatusUnprocessableEntity, number: 422000, code: "IdempotencyKeyReused",
				text: "this Idempotency-Key was used for a request with another body", next: "Use a new key for a new request."}
		case !r.done:
			return nil, &failure{status: http.StatusConflict, number: 409000, code: "IdempotencyKeyInUse",
				text: "the first request with this Idempotency-Key still runs", next: "Wait and ask again with the same key."}
		}
		return r, nil
	}
	for s.order.Len() >= replayMost {
		s.remove(s.order.Front())
	}
	if s.each[k.principal] >= replayEach {
		s.dropOldestOf(k.principal)
	}
	s.all[k] = s.order.PushBack(&replay{replayKey: k, body: body, since: now})
	s.each[k.principal]++
	return nil, nil
}

// finish keeps the answer of a request that began, or forgets the request
// when its answer should not be given again.
func (s *replays) finish(k replayKey, keep bool, status int, header http.Header, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.all[k]
	if !ok {
		return // dropped under pressure meanwhile
	}
	if !keep {
		s.remove(e)
		return
	}
	r := held(e)
	r.done, r.status, r.header, r.content = true, status, header, content
	s.bytes += len(content)
	for s.bytes > replayBytes {
		s.remove(s.order.Front())
	}
}

func (s *replays) dropOldestOf(principal string) {
	for e := s.order.Front(); e != nil; e = e.Next() {
		if held(e).principal == principal {
			s.remove(e)
			return
		}
	}
}

func (s *replays) remove(e *list.Element) {
	r := held(e)
	s.order.Remove(e)
	delete(s.all, r.replayKey)
	s.bytes -= len(r.content)
	if s.each[r.principal]--; s.each[r.principal] == 0 {
		delete(s.each, r.principal)
	}
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
	body, err := c.read(maxBody)
	if err != nil {
		return err
	}
	c.r.Body, c.r.ContentLength = http.NoBody, int64(len(body))
	if len(body) > 0 {
		c.r.Body = readCloser{bytes.NewReader(body)}
	}
	k := replayKey{c.caller.Principal.String(), c.route.method + " " + c.path, key}
	old, err := c.replays.begin(k, sha256.Sum256(body), time.Now())
	if err != nil {
		return err
	}
	if old != nil {
		return c.again(old)
	}
	finished := false
	defer func() {
		if !finished { // the handler panicked
			c.replays.finish(k, false, 0, nil, nil)
		}
	}()
	a, err := c.handle()
	status := a.status
	if status == 0 {
		status = http.StatusOK
	}
	if err != nil {
		status = failureOf(err, c.shape).status
	}
	outer := c.w
	kept := &capture{header: http.Header{}}
	c.w = &recorder{ResponseWriter: kept}
	if err != nil {
		c.fail(err)
	} else {
		_ = c.send(a) // writes to memory
	}
	c.w = outer
	// What may succeed later, or for another reason, must not stick.
	keep := status < http.StatusInternalServerError && status != http.StatusUnauthorized && status != http.StatusTooManyRequests && status != 499
	c.replays.finish(k, keep, kept.status, kept.header, kept.content.Bytes())
	finished = true
	c.copy(kept.status, kept.header, kept.content.Bytes())
	return nil
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func (c *call) again(r *replay) error {
	c.w.Header().Set(replayedField, "true")
	c.copy(r.status, r.header, r.content)
	return nil
}

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
