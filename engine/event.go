package engine

import (
	"context"
	"encoding/json"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Event is a thing that happened: an entry of the change log, a stored
// device-to-cloud message, or a gap. Readers share it: nobody changes one.
type Event struct {
	Cursor    string // resumes right after the event
	Kind      string // "twin.reported", "identity.created", "session.connected", ...; EventTelemetry, EventGap
	Time      time.Time
	ID        TwinID
	Principal string          // who changed it; empty for messages
	Cause     string          // on whose behalf
	Version   int64           // of what changed, when it has one
	Data      json.RawMessage // of a change: what was written; nil otherwise
	// Twin is the whole twin as a service sees it, without its ids: after a
	// change that replaced it, or as it was when its identity was deleted. It
	// is nil of other changes, and where it is larger than 16 KiB.
	Twin        json.RawMessage
	TwinVersion int64          // of the whole twin after a change of it, when it is known
	Message     *StoredMessage // of EventTelemetry
	Position    uint64         // in the change log; 0 of messages and gaps

	at    place       // right after it
	forms *eventForms // nil: nobody shares it
}

// Kinds of events that are no changes.
const (
	EventTelemetry = "telemetry"
	// EventGap stands where events have gone: retention passed the cursor, or
	// it is of another epoch. Its cursor is the first live one.
	EventGap = "gap"
)

// EventFilter says which events are wanted; an empty list means all. An item
// that ends in * is a prefix.
type EventFilter struct {
	Devices []string // device ids; modules' events come with their device's
	Kinds   []string
}

// The bounds of one read.
const (
	eventPage    = 1000
	eventScan    = 10_000    // entries looked at, however few of them are wanted
	eventBytes   = 256 << 10 // of data and bodies on a page
	filterItems  = 100
	filterLength = 256
)

// CursorStart reads from the oldest event that is kept.
const CursorStart = "start"

// place is what a cursor holds: the last entries seen of both logs.
type place struct {
	change, message uint64
}

// cursor is the place as clients carry it, with the epoch in which it is true.
func (p place) cursor(epoch string) string {
	return epoch + "." + strconv.FormatUint(p.change, 36) + "." + strconv.FormatUint(p.message, 36)
}

// join is the place of a reader who has seen what lies before p and what lies before q.
func (p place) join(q place) place {
	return place{max(p.change, q.change), max(p.message, q.message)}
}

// covers reports whether everything that q has seen is seen by p too.
func (p place) covers(q place) bool { return p.change >= q.change && p.message >= q.message }

// parsePlace reads a cursor. current is false for one of another epoch.
func parsePlace(cursor, epoch string) (p place, current bool, err error) {
	bad := errf(CodeArgumentInvalid, "the cursor %.80q is not one that this hub gave; send one from an event, a time such as 2026-01-31T08:00:00Z, %q, or none to begin now", cursor, CursorStart)
	parts := strings.Split(cursor, ".")
	if len(parts) != 3 || len(parts[0]) != len(epoch) || strings.Trim(parts[0], "0123456789abcdef") != "" {
		return p, false, bad
	}
	if p.change, err = strconv.ParseUint(parts[1], 36, 64); err != nil {
		return place{}, false, bad
	}
	if p.message, err = strconv.ParseUint(parts[2], 36, 64); err != nil {
		return place{}, false, bad
	}
	return p, parts[0] == epoch, nil
}

func (f EventFilter) check() error {
	for _, list := range [][]string{f.Devices, f.Kinds} {
		if len(list) > filterItems {
			return errf(CodeArgumentInvalid, "the filter has %d items, at most %d are allowed; use a prefix such as %q", len(list), filterItems, "site-a-*")
		}
		for _, item := range list {
			if item == "" || len(item) > filterLength {
				return errf(CodeArgumentInvalid, "an item of the filter has %d bytes, expected 1 to %d", len(item), filterLength)
			}
		}
	}
	return checkKinds(f.Kinds)
}

func (f EventFilter) wants(kind, device string) bool {
	return matchesAny(f.Kinds, kind) && matchesAny(f.Devices, device)
}

func matchesAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(s, prefix) || p == s {
			return true
		}
	}
	return len(patterns) == 0
}

// ReadEvents returns what happened after cursor and passes the filter, at most
// limit events, without waiting: fewer or none does not mean the end, which
// Subscribe waits at. "" begins now, CursorStart with the oldest event, a time
// (RFC 3339) with the first event of then or later.
// Changes come in commit order and messages in the order in which they were
// stored; between the two the order is that of time. It needs ServiceConnect.
func (h *Hub) ReadEvents(ctx context.Context, c Caller, f EventFilter, cursor string, limit int) (list []Event, next string, err error) {
	if err := h.authorize(ctx, c, opEventRead, "*"); err != nil {
		return nil, "", err
	}
	if err := f.check(); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > eventPage {
		limit = eventPage
	}
	return h.readEvents(ctx, f, cursor, limit, eventBytes)
}

// readEvents is ReadEvents without its checks. The page ends with the event
// that reaches the bound on bytes.
func (h *Hub) readEvents(ctx context.Context, f EventFilter, cursor string, limit, bytes int) (list []Event, next string, err error) {
	epoch := h.db.Epoch().ID
	// Taken before the snapshot of the changes: a message after it could be younger than a change
	// that the snapshot does not hold.
	tail := h.db.Messages().Last()
	err = h.view(ctx, "read events", func(r storage.Reader) error {
		list = nil
		at, gap, err := h.findPlace(r, cursor, epoch)
		if err != nil {
			return err
		}
		if gap {
			list = append(list, Event{Cursor: at.cursor(epoch), Kind: EventGap, Time: time.Now().UTC(), at: at})
		}
		list, at, err = h.mergeEvents(ctx, r, f, at, tail, epoch, list, limit, bytes)
		next = at.cursor(epoch)
		return err
	})
	return list, next, err
}

// findPlace turns a cursor into a place that can be read from.
func (h *Hub) findPlace(r storage.Reader, cursor, epoch string) (at place, gap bool, err error) {
	first, last, err := changeLog.Bounds(r)
	if err != nil {
		return at, false, err
	}
	messages := h.db.Messages()
	oldest := place{change: first - min(first, 1), message: messages.First() - min(messages.First(), 1)}
	newest := place{change: last, message: messages.Last()}
	switch cursor {
	case "":
		return newest, false, nil
	case CursorStart:
		return oldest, false, nil
	}
	if moment, err := time.Parse(time.RFC3339, cursor); err == nil {
		at, err = h.placeAt(r, moment)
		return at, false, err
	}
	at, current, err := parsePlace(cursor, epoch)
	switch {
	case err != nil:
		return at, false, err
	case !current, at.change > newest.change, at.message > newest.message:
		return oldest, true, nil
	}
	if at.change < oldest.change || at.message < oldest.message {
		return place{max(at.change, oldest.change), max(at.message, oldest.message)}, true, nil
	}
	return at, false, nil
}

// mergeEvents reads both logs from a place on, messages up to tail, the older entry first.
func (h *Hub) mergeEvents(ctx context.Context, r storage.Reader, f EventFilter, at place, tail uint64, epoch string, list []Event, limit, room int) ([]Event, place, error) {
	changes, stopChanges := pull2(changeLog.Read(r, at.change))
	defer stopChanges()
	messages, stopMessages := pull2(h.db.Messages().Read(at.message))
	defer stopMessages()
	var change, message storage.Entry
	var haveChange, haveMessage bool
	bytes := 0
	// missing tells what is not there where it should be: retention took it since the place was
	// found, or a repair set it aside.
	missing := func(behind place) {
		if behind != at {
			at = behind
			list = append(list, Event{Cursor: at.cursor(epoch), Kind: EventGap, Time: time.Now().UTC(), at: at})
		}
	}
	for range eventScan {
		if len(list) >= limit || bytes >= room {
			break
		}
		if err := ctx.Err(); err != nil {
			return list, at, err
		}
		var err error
		if !haveChange {
			if change, haveChange, err = changes(); err != nil {
				return list, at, err
			}
			if haveChange {
				missing(place{change.Position - 1, at.message})
			}
		}
		if !haveMessage {
			if message, haveMessage, err = messages(); err != nil {
				return list, at, err
			}
			if haveMessage = haveMessage && message.Position <= tail; haveMessage {
				missing(place{at.change, message.Position - 1})
			}
		}
		var e Event
		switch {
		case haveChange && (!haveMessage || !message.Time.Before(change.Time)):
			haveChange = false
			at.change = change.Position
			c, err := decodeChange(change)
			if err != nil {
				return list, at, err
			}
			e = Event{Kind: c.Kind, Time: c.Time, ID: c.ID, Principal: c.Principal, Cause: c.Cause, Version: c.Version, Data: c.Data, Twin: c.Twin, TwinVersion: c.TwinVersion, Position: c.Position}
		case haveMessage:
			haveMessage = false
			at.message = message.Position
			m, err := decodeMessage(message)
			if err != nil {
				return list, at, err
			}
			e = Event{Kind: EventTelemetry, Time: m.Enqueued, ID: m.ID, Message: &m}
		default:
			return list, at, nil
		}
		bytes += e.raw()
		if f.wants(e.Kind, e.ID.DeviceID) {
			e.Cursor, e.at = at.cursor(epoch), at
			list = append(list, e)
		}
	}
	return list, at, nil
}

// waitPlace returns when there is an entry after a place in either log, or
// when ctx ends, with its error.
func (h *Hub) waitPlace(ctx context.Context, at place) error {
	ctx, cancel := context.WithCancel(ctx)
	var first error
	var once, wg = sync.Once{}, sync.WaitGroup{}
	wait := func(f func() error) {
		err := f()
		once.Do(func() { first = err; cancel() })
	}
	wg.Go(func() { wait(func() error { return changeLog.Wait(ctx, h.db, at.change) }) })
	wait(func() error { return h.db.Messages().Wait(ctx, at.message) })
	wg.Wait()
	cancel()
	return storeError(first, "wait for events")
}

// Draining reports whether the hub is shutting down.
func (h *Hub) Draining() bool { return h.draining.Load() }

// pull2 makes a log's iterator one that is asked for the next entry.
func pull2(seq iter.Seq2[storage.Entry, error]) (next func() (e storage.Entry, ok bool, err error), stop func()) {
	n, stop := iter.Pull2(seq)
	return func() (storage.Entry, bool, error) {
		e, err, ok := n()
		return e, ok && err == nil, err
	}, stop
}
