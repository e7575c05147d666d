package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/storage"
)

// feed is the hub's one reader of events at the tail of both logs. It decodes
// each event once and keeps the newest in a bounded ring, from which all
// subscriptions take them. A subscription that the ring has left behind reads
// the logs for itself and comes back; it holds up nobody.
type feed struct {
	hub   *Hub
	slots chan struct{} // of those who read the logs for themselves

	lagged atomic.Int64 // how often the ring left a subscription behind

	mu         sync.Mutex
	principals map[string]int // open subscriptions of each
	open       int
	closed     bool
	tail       *feedTail // nil while nobody subscribes
	tails      uint64    // made so far
	running    sync.WaitGroup
	drained    chan struct{} // closed when subscriptions are to end
}

// feedTail is the ring and the goroutine that fills it. mu is the feed's.
type feedTail struct {
	feed  *feed
	id    uint64
	stop  context.CancelFunc
	ring  []*Event
	first uint64 // number of ring[0]; numbers have no meaning beyond the ring
	bytes int
	begin place         // right before ring[0]
	moved chan struct{} // closed when the ring grew, or when err was set
	err   error         // the logs can't be read
}

// feedOwn is the principal of the hub's own subscriptions.
const feedOwn = ""

const (
	feedEvents = 4096     // in the ring
	feedBytes  = 16 << 20 // about, of events in the ring with all their forms
	feedSlots  = 4        // subscriptions that read the logs for themselves at once
	feedPause  = 75 * time.Millisecond
	feedLeast  = 5 * time.Millisecond
	feedEach   = 75 * time.Microsecond // of pause for each subscription
	feedTake   = 512                   // events that a subscription looks at in one go
	feedPage   = 64 << 10              // bytes of data and bodies that it takes in one go
)

func newFeed(h *Hub) *feed {
	return &feed{hub: h, slots: make(chan struct{}, feedSlots), principals: map[string]int{}, drained: make(chan struct{})}
}

// FeedStats are figures of the shared reader of events.
type FeedStats struct {
	Subscriptions int64
	Lagged        int64 // how often one was left behind and read the logs for itself
}

// FeedStats returns the figures of the shared reader of events.
func (h *Hub) FeedStats() FeedStats {
	f := h.events
	f.mu.Lock()
	defer f.mu.Unlock()
	return FeedStats{Subscriptions: int64(f.open - f.principals[feedOwn]), Lagged: f.lagged.Load()}
}

// enter counts a subscription of a principal, within the limits, and makes
// sure that the tail is read.
func (f *feed) enter(ctx context.Context, principal string) error {
	l := f.hub.limits
	f.mu.Lock()
	switch {
	case f.closed || f.hub.draining.Load():
		f.mu.Unlock()
		return errf(CodeClosed, "the hub is shutting down")
	case principal == feedOwn: // what the hub follows itself is bounded by what it is for
	case f.open-f.principals[feedOwn] >= l.EventStreams:
		f.mu.Unlock()
		return &Error{Code: CodeThrottled, Message: plural(l.EventStreams, "event stream") + " are open, the most of this hub", Next: "Close a stream, or read pages."}
	case f.principals[principal] >= l.EventStreamsEach:
		f.mu.Unlock()
		return &Error{Code: CodeThrottled, Message: plural(l.EventStreamsEach, "event stream") + " of " + principal + " are open, the most of one principal", Next: "Close one, use another policy, or read pages."}
	}
	f.open++
	f.principals[principal]++
	running := f.tail != nil
	f.mu.Unlock()
	if running {
		return nil
	}
	var begin place
	err := f.hub.view(ctx, "read events", func(r storage.Reader) (err error) {
		begin, _, err = f.hub.findPlace(r, "", f.hub.db.Epoch().ID)
		return err
	})
	if err != nil {
		f.leave(principal)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tail != nil || f.closed {
		return nil // another one was first; a closed feed answers the first Next
	}
	run, stop := context.WithCancel(context.Background())
	f.tails++
	f.tail = &feedTail{feed: f, id: f.tails, stop: stop, begin: begin, moved: make(chan struct{})}
	tail := f.tail
	f.running.Go(func() { tail.run(run) })
	return nil
}

// leave is the other end of enter. When the last one goes, nobody reads.
func (f *feed) leave(principal string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	if f.principals[principal]--; f.principals[principal] == 0 {
		delete(f.principals, principal)
	}
	if f.open == 0 && f.tail != nil {
		f.tail.stop()
		f.tail = nil
	}
}

// drain ends the subscriptions.
func (f *feed) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.drained:
	default:
		close(f.drained)
	}
}

// close stops the reader and waits for it.
func (f *feed) close() {
	f.drain()
	f.mu.Lock()
	f.closed = true
	if f.tail != nil {
		f.tail.stop()
		f.tail = nil
	}
	f.mu.Unlock()
	f.running.Wait()
}

// run reads what is new until stop.
func (t *feedTail) run(ctx context.Context) {
	h := t.feed.hub
	epoch := h.db.Epoch().ID
	at := t.begin
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		var list []Event
		var next string
		err := h.waitPlace(ctx, at)
		if err == nil {
			list, next, err = h.readEvents(ctx, EventFilter{}, at.cursor(epoch), eventPage, eventBytes)
		}
		if err == nil {
			at, _, err = parsePlace(next, epoch)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			h.log.Error("events can't be read; their streams end", slog.Any("error", err))
			t.fail(err)
			return
		}
		more, wait := t.publish(list)
		if more {
			continue
		}
		// Events that come together are read and sent together: the more
		// subscriptions, the more a round of all of them costs.
		pause.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// publish adds events to the ring and wakes who waits. more says that there
// are more to read already, wait how long to let events gather.
func (t *feedTail) publish(list []Event) (more bool, wait time.Duration) {
	f := t.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	raw := 0
	for i := range list {
		e := &list[i]
		e.forms = &eventForms{}
		t.ring = append(t.ring, e)
		e.forms.last = i == len(list)-1
		t.bytes += e.size()
		raw += e.raw()
	}
	drop := 0
	for drop < len(t.ring)-1 && (len(t.ring)-drop > feedEvents || t.bytes > feedBytes) {
		t.bytes -= t.ring[drop].size()
		t.begin = t.begin.join(t.ring[drop].at)
		t.ring[drop] = nil
		drop++
	}
	t.ring, t.first = t.ring[drop:], t.first+uint64(drop)
	close(t.moved)
	t.moved = make(chan struct{})
	return len(list) == eventPage || raw >= eventBytes, min(feedPause, max(feedLeast, time.Duration(f.open)*feedEach))
}

// fail tells all subscriptions that there will be no more; the next one that
// is made begins anew.
func (t *feedTail) fail(err error) {
	f := t.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	t.err = err
	close(t.moved)
	t.moved = make(chan struct{})
	if f.tail == t {
		f.tail = nil
	}
}

// raw is what an event counts against the bytes of a page. A message may be
// all properties, and has the bound of one that is all body.
func (e *Event) raw() int {
	n := len(e.Data) + len(e.Twin)
	if e.Message != nil {
		n += len(e.Message.Body)
		for _, p := range e.Message.Properties {
			n += len(p.Name) + len(p.Value)
		}
		for _, p := range e.Message.System {
			n += len(p.Value)
		}
	}
	return n
}

// size is about what an event takes, its forms included.
func (e *Event) size() int { return 1024 + 3*e.raw() }

// eventForms holds the encoded forms of a shared event, each made once.
type eventForms struct {
	last  bool // of those that were read together
	forms [eventFormCount]struct {
		once sync.Once
		text []byte
	}
}

const eventFormCount = 2

// Form returns encoded form n (0 or 1) of the event: what encode makes of it.
// Readers that share the event share the form, which nobody may change; encode
// must give the same for the same n always.
func (e *Event) Form(n int, encode func(*Event) []byte) []byte {
	if e.forms == nil {
		return encode(e)
	}
	f := &e.forms.forms[n]
	f.once.Do(func() { f.text = encode(e) })
	return f.text
}
