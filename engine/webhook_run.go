package engine

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/muster-hub/muster/storage"
)

const webhookPause = 5 * time.Second // after an error of the store

// runWebhooks keeps one worker for each enabled webhook until ctx ends, and
// returns when all of them have. A stored change of a webhook restarts its
// worker where it stands.
func (h *Hub) runWebhooks(ctx context.Context) {
	if h.db.Paused() { // a restored hub tells nobody until it is resumed, which a start comes after
		<-ctx.Done()
		return
	}
	type worker struct {
		webhookVersion
		stop context.CancelFunc
		done chan struct{}
	}
	running := map[string]worker{}
	end := func(id string) { w := running[id]; w.stop(); <-w.done; delete(running, id) }
	for {
		changed := h.webhooks.next()
		wanted := map[string]webhookRecord{}
		versions := map[string]webhookVersion{}
		var retry <-chan time.Time
		err := h.view(ctx, "read webhooks", func(r storage.Reader) error {
			clear(wanted)
			for item, err := range webhookTable.Scan(r, storage.Range{}) {
				if err != nil {
					return err
				}
				parts, err := item.Key.Parts()
				if err != nil {
					return err
				}
				id, ok := parts[0].(string)
				if !ok || item.Value.Disabled {
					continue
				}
				// One whose state can't be read is begun like the others: it says so
				// itself, and holds up none of them.
				state, _ := webhookStateTable.Get(r, item.Key)
				wanted[id], versions[id] = item.Value, item.Value.version(&state)
			}
			return nil
		})
		if err != nil {
			if ctx.Err() == nil {
				h.log.Warn("the webhooks can't be read; it will be tried again", slog.Any("error", err))
			}
			retry = time.After(webhookPause)
		} else {
			for id, w := range running {
				if _, ok := wanted[id]; !ok || versions[id] != w.webhookVersion {
					end(id)
				}
			}
			for id, r := range wanted {
				if _, ok := running[id]; ok {
					continue
				}
				own, stop := context.WithCancel(ctx)
				w := worker{versions[id], stop, make(chan struct{})}
				running[id] = w
				go func() { defer close(w.done); h.runWebhook(own, id, r) }()
			}
		}
		select {
		case <-ctx.Done():
			for _, w := range running { // all at once: each stores how far it came
				w.stop()
			}
			for id := range running {
				end(id)
			}
			return
		case <-changed:
		case <-retry:
		}
	}
}

// runWebhook delivers until ctx ends, beginning again after errors of the store.
func (h *Hub) runWebhook(ctx context.Context, id string, r webhookRecord) {
	defer h.webhooks.goesOn(id)
	for ctx.Err() == nil {
		err := h.pumpWebhook(ctx, id, r)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			h.webhooks.interrupted(id, AsError(err))
			h.log.Warn("a webhook is interrupted; it goes on in a few seconds", slog.String("webhook", id), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(webhookPause):
		}
	}
}

// pumpWebhook reads events and hands them to a pump, until either ends.
func (h *Hub) pumpWebhook(ctx context.Context, id string, r webhookRecord) error {
	target, err := h.webhookTarget(id, r)
	if err != nil {
		return err
	}
	var state WebhookState
	var at place
	var gap bool
	err = h.view(ctx, "read webhook", func(reader storage.Reader) error {
		if state, err = webhookStateTable.Get(reader, storage.Tuple(id)); err != nil {
			return err
		}
		at, gap, err = h.webhookPlace(reader, state.place(), r.wantsTelemetry())
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := newWebhookPump(h, id, r, target, state, at)
	p.version, p.stop = r.version(&state), cancel
	h.webhooks.mu.Lock()
	h.webhooks.running[id] = p
	h.webhooks.mu.Unlock()
	defer func() {
		h.webhooks.mu.Lock()
		delete(h.webhooks.running, id)
		h.webhooks.mu.Unlock()
	}()
	// A change from here on finds p and stops it; one before is found here.
	if now, err := h.webhookVersionNow(ctx, id); err != nil || now != p.version {
		if ctx.Err() != nil {
			return nil // found it just now
		}
		return err
	}
	reading := make(chan error, 1)
	go func() { reading <- p.read(ctx, gap); cancel() }()
	err = p.run(ctx)
	cancel()
	readErr := <-reading
	if readErr != nil {
		return readErr
	}
	return err
}

// webhookVersionNow is the version of a webhook as it is stored.
func (h *Hub) webhookVersionNow(ctx context.Context, id string) (now webhookVersion, err error) {
	err = h.view(ctx, "read webhook", func(reader storage.Reader) error {
		now = webhookVersion{}
		record, err := webhookTable.Get(reader, storage.Tuple(id))
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		state, err := webhookStateTable.Get(reader, storage.Tuple(id))
		now = record.version(&state)
		return err
	})
	return now, err
}

// webhookPlace is where a webhook can go on: nothing before what is kept, and
// nothing of a log that it does not read.
func (h *Hub) webhookPlace(r storage.Reader, at place, telemetry bool) (place, bool, error) {
	first, last, err := changeLog.Bounds(r)
	if err != nil {
		return at, false, err
	}
	messages := h.db.Messages()
	at.change, at.message = min(at.change, last), min(at.message, messages.Last()) // a restored hub has fewer messages
	if !telemetry {
		at.message = messages.Last()
	}
	oldest := place{first - min(first, 1), messages.First() - min(messages.First(), 1)}
	return at.join(oldest), !at.covers(oldest), nil
}

// webhooksKeep is the last entry of the change log that every enabled webhook
// has passed.
func (h *Hub) webhooksKeep(ctx context.Context) (keep uint64, err error) {
	keep = math.MaxUint64
	if h.webhooks.deliver == nil {
		return keep, nil
	}
	err = h.view(ctx, "read webhooks", func(r storage.Reader) error {
		keep = math.MaxUint64
		for item, err := range webhookTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			if item.Value.Disabled {
				continue
			}
			state, err := webhookStateTable.Get(r, item.Key)
			if err != nil {
				return err
			}
			keep = min(keep, state.oldest().change)
		}
		return nil
	})
	return keep, err
}

// webhookPage is what the reader hands over: events, and the place behind them.
type webhookPage struct {
	events []*Event
	at     place
}

// read follows the events until ctx ends or they can't be read.
func (p *webhookPump) read(ctx context.Context, gap bool) error {
	h := p.hub
	if err := h.events.enter(ctx, feedOwn); err != nil {
		return p.ended(ctx, err)
	}
	s := &Subscription{
		hub: h, principal: feedOwn, epoch: h.db.Epoch().ID, at: p.read0, timer: time.NewTimer(time.Hour),
		filter: EventFilter{Devices: p.record.Devices, Kinds: p.record.Kinds},
	}
	defer s.Close()
	if gap {
		s.pending, s.gap = []Event{s.newGap()}, true
	}
	telemetry := p.record.wantsTelemetry()
	for {
		if !telemetry && s.tail == nil { // the logs are read: not the messages before now
			s.at.message = max(s.at.message, h.db.Messages().Last())
		}
		list, err := s.Next(ctx, webhookIdle)
		if err != nil {
			return p.ended(ctx, err)
		}
		h.webhooks.goesOn(p.id)
		page := webhookPage{at: s.at}
		for _, e := range list {
			if p.record.wants(e) {
				page.events = append(page.events, e)
			}
		}
		select {
		case p.in <- page:
		case <-ctx.Done():
			return nil
		}
	}
}

// ended waits for the hub's end when it is shutting down.
func (p *webhookPump) ended(ctx context.Context, err error) error {
	if AsError(err).Code == CodeClosed && p.hub.draining.Load() {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}
