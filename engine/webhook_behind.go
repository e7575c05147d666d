package engine

import (
	"context"
	"log/slog"
	"time"
)

// A device that sends faster than its events are taken, or whose events take
// long, must not fill the window of a webhook: then all others would go at its
// pace. Once it has its share of a window that fills up, it is behind: its next
// events are passed over, and read again, a share at a time, from a place of
// its own, which is stored beside that of the webhook.

// webhookBehindMost bounds the devices that are behind at a time; with more of
// them the window fills up, and all go at the pace of the slowest.
const webhookBehindMost = 64

// resume makes the queues of the devices that were behind when the pump was
// stopped.
func (p *webhookPump) resume() {
	for device, b := range p.state.Behind {
		at := b.place()
		if !p.record.wantsTelemetry() {
			at.message = p.seen.message
		}
		q := p.queue(device)
		q.behind = &at
		p.own[q] = struct{}{}
		p.hungry = append(p.hungry, q)
	}
}

// leaves decides whether an event is left to be read again later, or was read
// ahead. A device whose events fail does not fall behind: see relieve.
func (p *webhookPump) leaves(q *webhookQueue, e *Event) bool {
	_, own := p.own[q]
	switch {
	case e.Kind == EventGap:
		return false
	case q.behind != nil:
		return true
	case own && e.seenBy(q.upTo):
		return true
	case len(q.items) < webhookShare && q.bytes < webhookShareBytes,
		p.open.Len()+p.apart < webhookWindow/2 && p.bytes < webhookWindowBytes/2,
		!own && (len(p.own) >= webhookBehindMost || q.items[0].tries > 0):
		return false
	}
	at := p.seen
	q.behind, p.dirty = &at, true
	p.own[q] = struct{}{}
	for _, item := range q.items { // what it has in the window holds up the others' place no longer
		if item.element != nil {
			p.open.Remove(item.element)
			item.element = nil
			p.apart++
		}
	}
	return true
}

// emptied says that a queue has nothing to send.
func (p *webhookPump) emptied(q *webhookQueue) {
	_, own := p.own[q]
	switch {
	case q.behind != nil:
		p.hungry = append(p.hungry, q)
	case own && !p.seen.covers(q.upTo):
		// What the others are about to read must be known as read.
	default:
		p.forget(q)
	}
}

func (p *webhookPump) forget(q *webhookQueue) {
	if _, own := p.own[q]; own {
		delete(p.own, q)
		p.dirty = true
	}
	delete(p.devices, q.device)
}

// caughtUp forgets the queues that were ahead of the others and no longer are.
func (p *webhookPump) caughtUp() {
	for q := range p.own {
		if len(q.items) == 0 && q.behind == nil && p.seen.covers(q.upTo) {
			p.forget(q)
		}
	}
}

// feed reads on for one device that is behind and has nothing to send.
func (p *webhookPump) feed(ctx context.Context, now time.Time) {
	if len(p.hungry) == 0 || !p.room() || now.Before(p.starved) {
		return
	}
	q := p.hungry[0]
	h, epoch := p.hub, p.hub.db.Epoch().ID
	at := *q.behind
	telemetry := p.record.wantsTelemetry()
	if !telemetry {
		at.message = h.db.Messages().Last()
	}
	// The id may end in what a filter takes for a prefix: the others' are dropped.
	list, next, err := h.readEvents(ctx, EventFilter{Devices: []string{q.device}, Kinds: p.record.Kinds}, at.cursor(epoch), webhookShare, webhookShareBytes/4)
	if err == nil {
		at, _, err = parsePlace(next, epoch)
	}
	if err != nil {
		if ctx.Err() == nil {
			p.state.LastFailure, p.state.LastError, p.dirty = now.UTC(), clip(AsError(err).Message), true
			h.log.Warn("the events of a device whose webhook is behind can't be read; it will be tried again", slog.String("webhook", p.id), slog.String("device", q.device), slog.Any("error", err))
		}
		p.starved = now.Add(webhookPause)
		return
	}
	p.hungry = p.hungry[1:]
	before := *q.behind
	if q.behind = &at; at.covers(p.seen) { // it is as far as the others, or ahead
		q.behind, q.upTo = nil, at
	}
	p.dirty = true
	for i := range list {
		e := &list[i]
		if e.Kind == EventGap || e.ID.DeviceID == q.device && p.record.wants(e) {
			to := q
			if e.Kind == EventGap {
				to = p.queue(e.ID.DeviceID)
			}
			p.apart++
			p.push(to, &webhookItem{event: e, before: before})
		}
		before = before.join(e.at)
	}
	if len(q.items) == 0 {
		p.emptied(q)
	}
}

// behind are the places of the devices that have their own.
func (p *webhookPump) behind() map[string]webhookBehind {
	var list map[string]webhookBehind
	for q := range p.own {
		var at place
		switch {
		case len(q.items) > 0:
			at = q.items[0].before
		case q.behind != nil:
			at = *q.behind
		default:
			continue
		}
		if list == nil {
			list = map[string]webhookBehind{}
		}
		list[q.device] = webhookBehind{at.change, at.message}
	}
	return list
}
