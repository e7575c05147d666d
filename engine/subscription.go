package engine

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Subscription follows events from a cursor on, for one goroutine at a time.
type Subscription struct {
	hub       *Hub
	filter    EventFilter
	signature string // of the filter
	principal string
	epoch     string
	at        place // everything before it was given out or passed over
	pending   []Event
	gap       bool // pending holds one that nobody has seen

	tail  *feedTail // the ring that next is a number of; nil while the logs are read
	next  uint64
	timer *time.Timer
	batch []*Event // what was taken from the ring, reused
	list  []*Event // what Next returned, reused
	id    BatchID  // of list
}

// BatchID names what Next returned: subscriptions with the same filter that
// get the same events together get the same id. It is comparable.
type BatchID struct {
	tail, from uint64
	filter     string
}

// Batch returns the id of the list that Next returned last. shared is false
// when nobody else gets the same.
func (s *Subscription) Batch() (id BatchID, shared bool) { return s.id, s.id.tail != 0 }

// Subscribe follows the events that pass the filter from a cursor on, as
// ReadEvents takes it. Close must be called. CodeThrottled means that as many
// as allowed are open. It needs ServiceConnect.
func (h *Hub) Subscribe(ctx context.Context, c Caller, f EventFilter, cursor string) (*Subscription, error) {
	if err := h.authorize(ctx, c, opEventRead, "*"); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &Subscription{hub: h, filter: f, signature: strings.Join(f.Devices, "\x00") + "\x01" + strings.Join(f.Kinds, "\x00"), principal: c.Principal.String(), epoch: h.db.Epoch().ID}
	if err := h.events.enter(ctx, s.principal); err != nil {
		return nil, err
	}
	err := h.view(ctx, "read events", func(r storage.Reader) (err error) {
		s.at, s.gap, err = h.findPlace(r, cursor, s.epoch)
		return err
	})
	if s.gap {
		s.pending = []Event{s.newGap()}
	}
	if err != nil {
		h.events.leave(s.principal)
		return nil, err
	}
	s.timer = time.NewTimer(time.Hour)
	return s, nil
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.timer.Stop()
	s.hub.events.leave(s.principal)
}

// Release lets go of what Next returned, which may be much, before what is
// made of it is sent to somebody who may be slow.
func (s *Subscription) Release() { clear(s.list) }

// Cursor resumes after all that Next has returned or passed over. It is empty
// while only the one that Subscribe was given would do: there is a gap, and
// Next has not told it yet.
func (s *Subscription) Cursor() string {
	if s.gap {
		return ""
	}
	return s.at.cursor(s.epoch)
}

func (s *Subscription) newGap() Event {
	return Event{Cursor: s.at.cursor(s.epoch), Kind: EventGap, Time: time.Now().UTC(), at: s.at}
}

// Next waits for events and returns them, at most so many that one can write
// them at once. It returns none when nothing came for idle. Errors: ctx's,
// CodeClosed when the hub shuts down, and those of reading. The list, not the
// events, is reused by the next call.
func (s *Subscription) Next(ctx context.Context, idle time.Duration) ([]*Event, error) {
	s.timer.Reset(idle)
	for {
		clear(s.list)
		s.list, s.id = s.list[:0], BatchID{}
		if s.pending != nil {
			for i := range s.pending {
				s.list = append(s.list, &s.pending[i])
			}
			s.pending, s.gap = nil, false
			if len(s.list) > 0 {
				return s.list, nil
			}
		}
		select {
		case <-s.hub.events.drained:
			return nil, errf(CodeClosed, "the hub is shutting down")
		default:
		}
		moved, live, err := s.take()
		if err != nil {
			return nil, err
		}
		if !live {
			if err := s.readLogs(ctx); err != nil {
				return nil, err
			}
			if len(s.pending) > 0 {
				continue
			}
			select { // a narrow filter may have much to pass over
			case <-s.timer.C:
				return nil, nil
			default:
				continue
			}
		}
		if len(s.batch) > 0 {
			s.sift()
			if len(s.list) > 0 {
				return s.list, nil
			}
			continue
		}
		select {
		case <-moved:
		case <-s.timer.C:
			return nil, nil
		case <-s.hub.events.drained:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take copies what is new in the ring to the batch. live is false when the
// ring begins behind what the subscription has seen.
func (s *Subscription) take() (moved <-chan struct{}, live bool, err error) {
	f := s.hub.events
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tail
	switch {
	case s.tail != nil && s.tail.err != nil:
		return nil, false, s.tail.err
	case t == nil:
		return nil, false, errf(CodeClosed, "the reader of events has ended")
	case s.tail != t:
		if !s.at.covers(t.begin) {
			return nil, false, nil
		}
		s.tail, s.next = t, t.first
	case s.next < t.first:
		f.lagged.Add(1)
		s.tail = nil
		return nil, false, nil
	}
	list := t.ring[s.next-t.first:]
	list = list[:min(len(list), feedTake)]
	for i, e := range list {
		// What was read together is given out together, also to those who come late:
		// so they share what is made of it.
		if e.forms.last {
			list = list[:i+1]
			break
		}
	}
	s.batch = append(s.batch[:0], list...)
	return t.moved, true, nil
}

// sift lists what of the batch is new and wanted, and moves on behind it.
func (s *Subscription) sift() {
	bytes, same := 0, true
	s.id = BatchID{s.tail.id, s.next, s.signature}
	for _, e := range s.batch {
		s.next++
		if e.seenBy(s.at) {
			same = false
			continue
		}
		s.at = s.at.join(e.at)
		same = same && s.at == e.at
		if e.Kind != EventGap && !s.filter.wants(e.Kind, e.ID.DeviceID) {
			continue
		}
		if s.at != e.at {
			// The logs were read ahead of the ring: the event's own cursor would
			// repeat what came from there.
			own := *e
			own.Cursor, own.at, own.forms = s.at.cursor(s.epoch), s.at, nil
			e = &own
		}
		s.list = append(s.list, e)
		if bytes += e.raw(); bytes >= feedPage {
			break
		}
	}
	if !same {
		s.id = BatchID{}
	}
	clear(s.batch)
	s.batch = s.batch[:0]
}

// seenBy reports whether the event lies before a place, in its own log.
func (e *Event) seenBy(p place) bool {
	switch {
	case e.Kind == EventGap: // of either log
		return p.covers(e.at)
	case e.Message != nil:
		return e.at.message <= p.message
	}
	return e.at.change <= p.change
}

// readLogs reads a page for this subscription alone.
func (s *Subscription) readLogs(ctx context.Context) error {
	slots := s.hub.events.slots
	select {
	case slots <- struct{}{}:
	case <-s.hub.events.drained:
		return errf(CodeClosed, "the hub is shutting down")
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-slots }()
	list, next, err := s.hub.readEvents(ctx, s.filter, s.at.cursor(s.epoch), eventPage, feedPage)
	if err != nil {
		return err
	}
	s.pending = list
	s.at, _, err = parsePlace(next, s.epoch)
	return err
}

// plural is a number with a noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
