package engine

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Bounds of one pump.
const (
	webhookWindow      = 1024     // events that are read and not dealt with
	webhookWindowBytes = 16 << 20 // about, of them
	webhookIdle        = time.Second
	webhookFlush       = 500 * time.Millisecond
	webhookFlushIdle   = 30 * time.Second // when nothing was delivered, only passed over
	webhookDeadPending = 200              // dead letters that are not stored yet
	webhookDeadBytes   = 2 << 20          // of them
	webhookShare       = webhookWindow / 8
	webhookShareBytes  = webhookWindowBytes / 8
	webhookFinalFlush  = 5 * time.Second
	webhookPauseLeast  = 20 // requests that failed before time alone pauses a webhook
)

// webhookPump delivers the events of one webhook. Each device has its own
// queue, whose head alone is under way: its events keep their order, and one
// that fails holds up no other device. One that has more than its share of the
// window falls behind: what comes next of it stays in the logs (webhook_behind.go).
// One goroutine owns all fields but those under mu.
type webhookPump struct {
	hub    *Hub
	id     string
	record webhookRecord
	target webhookTarget
	read0  place

	version webhookVersion     // these two for any goroutine
	stop    context.CancelFunc // ends it

	in      chan webhookPage
	results chan webhookDone
	posts   sync.WaitGroup

	state    WebhookState
	seen     place                      // behind what was read
	open     *list.List                 // of *webhookItem, in the order of the log
	apart    int                        // items that are not in open: of devices that are behind
	bytes    int                        // of all items
	hungry   []*webhookQueue            // behind, and with nothing to send until their events are read
	own      map[*webhookQueue]struct{} // have a place of their own: are behind, or were
	starved  time.Time                  // not before, after the store could not be read
	devices  map[string]*webhookQueue
	ready    []*webhookQueue
	sleeping map[*webhookQueue]struct{}
	flying   int
	failures int       // requests that failed in a row
	down     time.Time // no request before; only after several failures in a row
	dead     []WebhookDead
	deadSize int
	flushed  time.Time
	dirty    bool // something was delivered or failed since the last flush
	unstored bool // the last flush failed
	pausing  bool

	mu    sync.Mutex
	shown WebhookState
}

// webhookItem is an event on its way.
type webhookItem struct {
	event   *Event
	before  place         // all before it was dealt with or is in the list before it; apart: of its device
	element *list.Element // nil: apart
	tries   int
	first   time.Time // of the first attempt
	alone   bool      // not in a batch with others: one of a refused batch
}

// webhookQueue holds the events of one device.
type webhookQueue struct {
	device string
	items  []*webhookItem
	bytes  int
	behind *place // its events after this are not in items
	upTo   place  // it has been read up to here, perhaps ahead of the others
	busy   bool
	due    time.Time
	asked  bool // due is what the endpoint asked for
}

// webhookDone is the end of a request for some events.
type webhookDone struct {
	items  []*webhookItem
	queues []*webhookQueue
	result webhookResult
}

func newWebhookPump(h *Hub, id string, r webhookRecord, t webhookTarget, state WebhookState, at place) *webhookPump {
	p := &webhookPump{
		hub: h, id: id, record: r, target: t, read0: at, in: make(chan webhookPage), results: make(chan webhookDone, h.limits.WebhookPosts),
		state: state, seen: at, open: list.New(), own: map[*webhookQueue]struct{}{}, devices: map[string]*webhookQueue{}, sleeping: map[*webhookQueue]struct{}{}, flushed: time.Now(),
	}
	p.resume()
	p.publish(time.Now())
	return p
}

// run delivers until ctx ends. It stores how far it came.
func (p *webhookPump) run(ctx context.Context) error {
	posting, stop := context.WithCancel(ctx)
	p.loop(ctx, posting)
	stop()
	p.posts.Wait()
	for len(p.results) > 0 {
		if d := <-p.results; d.result.class == webhookTaken {
			p.done(context.WithoutCancel(ctx), d, time.Now())
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), webhookFinalFlush)
	defer cancel()
	return p.flush(last, time.Now())
}

func (p *webhookPump) loop(ctx, posting context.Context) {
	timer := time.NewTimer(webhookFlush)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		if !p.room() {
			p.relieve(now)
		}
		p.wake(now)
		p.feed(ctx, now)
		if !p.pausing {
			p.send(posting, now)
		}
		if p.flushDue(now) {
			p.tryFlush(ctx, now)
		}
		p.publish(now)
		var in chan webhookPage
		if p.room() && !p.deadFull() {
			in = p.in
		}
		timer.Reset(p.next(now))
		select {
		case <-ctx.Done():
		case page := <-in:
			p.take(page)
		case d := <-p.results:
			p.done(ctx, d, time.Now())
		case <-timer.C:
		}
	}
}

// tryFlush flushes, or has it tried again later. A store that takes no writes,
// since its disk is full, must not end the pump: it would begin again where it
// was stored last, and post the same events over and over.
func (p *webhookPump) tryFlush(ctx context.Context, now time.Time) {
	err := p.flush(ctx, now)
	if err != nil && ctx.Err() == nil && !p.unstored {
		p.hub.log.Warn("how far a webhook has come can't be stored; it goes on, and would post again after a restart", slog.String("webhook", p.id), slog.Any("error", err))
	}
	p.unstored = err != nil
}

func (p *webhookPump) room() bool {
	return p.open.Len()+p.apart < webhookWindow && p.bytes < webhookWindowBytes
}

// deadFull reports whether dead letters must be stored before there are more.
func (p *webhookPump) deadFull() bool {
	return len(p.dead) >= webhookDeadPending || p.deadSize >= webhookDeadBytes
}

// take queues what was read.
func (p *webhookPump) take(page webhookPage) {
	for _, e := range page.events {
		if q := p.queue(e.ID.DeviceID); !p.leaves(q, e) {
			item := &webhookItem{event: e, before: p.seen}
			if _, own := p.own[q]; own {
				p.apart++
			} else {
				item.element = p.open.PushBack(item)
			}
			p.push(q, item)
		}
		p.seen = p.seen.join(e.at)
	}
	p.seen = p.seen.join(page.at)
	p.caughtUp()
}

func (p *webhookPump) queue(device string) *webhookQueue {
	q := p.devices[device]
	if q == nil {
		q = &webhookQueue{device: device}
		p.devices[device] = q
	}
	return q
}

// push adds an item to its device's queue.
func (p *webhookPump) push(q *webhookQueue, item *webhookItem) {
	size := item.event.size()
	p.bytes += size
	q.bytes += size
	if q.items = append(q.items, item); len(q.items) == 1 {
		p.ready = append(p.ready, q)
	}
}

// wake makes ready whose time has come.
func (p *webhookPump) wake(now time.Time) {
	for q := range p.sleeping {
		if !q.due.After(now) {
			delete(p.sleeping, q)
			p.ready = append(p.ready, q)
		}
	}
}

// next is how long there is nothing to do but what comes by a channel.
func (p *webhookPump) next(now time.Time) time.Duration {
	d := webhookFlushIdle
	if p.dirty || len(p.dead) > 0 {
		d = webhookFlush
	}
	for q := range p.sleeping {
		d = min(d, q.due.Sub(now))
	}
	if len(p.ready) > 0 && p.down.After(now) {
		d = min(d, p.down.Sub(now))
	}
	if len(p.hungry) > 0 && p.room() {
		d = min(d, p.starved.Sub(now))
	}
	return max(d, time.Millisecond)
}

// send begins requests while there is something to send and room for it.
// After several failures in a row one request at a time tries the endpoint,
// each with another device's event, so that one bad event can't keep it down.
func (p *webhookPump) send(ctx context.Context, now time.Time) {
	most := p.hub.limits.WebhookPosts
	if p.failing() {
		if most = 1; p.down.After(now) {
			return
		}
	}
	for p.flying < most && len(p.ready) > 0 && !p.deadFull() {
		d := p.collect()
		events, tries := make([]*Event, len(d.items)), 0
		for i, item := range d.items {
			events[i] = item.event
			tries = max(tries, item.tries)
			if item.first.IsZero() {
				item.first = now
			}
		}
		p.flying++
		p.posts.Go(func() {
			list := make([]cloudEvent, len(events))
			for i, e := range events {
				list[i] = p.hub.cloudEvent(e)
			}
			d.result = p.hub.postWebhook(ctx, p.target, list, tries+1)
			p.results <- d // has room for all that are under way
		})
	}
}

func (p *webhookPump) failing() bool { return p.failures >= p.hub.limits.WebhookPosts }

// collect takes the next request's events from the queues that are ready.
func (p *webhookPump) collect() webhookDone {
	var d webhookDone
	bytes := 0
	for len(p.ready) > 0 {
		q := p.ready[0]
		taken := 0
		for _, item := range q.items {
			size := item.event.size()
			if len(d.items) > 0 && (p.target.mode != WebhookBatch || item.alone || d.items[0].alone ||
				len(d.items) >= p.hub.limits.WebhookBatch || bytes+size > p.hub.limits.WebhookBodyBytes) {
				break
			}
			d.items = append(d.items, item)
			bytes += size
			taken++
		}
		if taken == 0 {
			break
		}
		p.ready = p.ready[1:]
		q.busy = true
		d.queues = append(d.queues, q)
	}
	return d
}

// done deals with the end of a request.
func (p *webhookPump) done(ctx context.Context, d webhookDone, now time.Time) {
	p.flying--
	if ctx.Err() != nil && d.result.class != webhookTaken {
		return // it was broken off by the end
	}
	p.dirty = true
	r := d.result
	utc := now.UTC()
	if r.class == webhookTaken {
		p.state.LastSuccess = utc
		p.state.Delivered += uint64(len(d.items))
		p.state.begin()
		if p.failing() {
			for q := range p.sleeping { // it is back: nobody waits longer, but for what the endpoint asked
				if !q.asked {
					q.due = now
				}
			}
		}
		p.failures, p.down = 0, time.Time{}
		for _, item := range d.items {
			p.remove(item)
		}
		p.release(d, time.Time{}, false)
		return
	}
	p.state.LastFailure, p.state.LastError = utc, r.text
	p.state.Failed++
	p.state.FailedSince++
	if p.state.FailingSince.IsZero() {
		p.state.FailingSince = utc
	}
	split := len(d.items) > 1
	if r.class != webhookRefused {
		p.failures++
		if p.failing() {
			p.down = now.Add(webhookBackOff(p.failures-p.hub.limits.WebhookPosts+1, r.retryAfter))
		}
	} else {
		p.failures = 0 // it is there, and judges
	}
	tries := 0
	for _, item := range d.items {
		switch {
		case split: // find out which one it is
			item.alone = item.alone || r.class == webhookRefused || item.tries > 0
			if r.class != webhookRefused {
				item.tries++
			}
		default:
			item.tries++
			if p.givesUp(item, r.class) {
				p.bury(item, r.text, now)
				p.state.DeadInARow++
				continue
			}
		}
		tries = max(tries, item.tries)
	}
	var due time.Time
	if tries > 0 {
		due = now.Add(webhookBackOff(tries, r.retryAfter))
	}
	p.release(d, due, r.retryAfter > 0)
	p.pause(ctx, r, now)
}

// givesUp decides whether an event becomes a dead letter. What the endpoint
// refuses is not repeated. What fails is given up after some attempts, when
// the endpoint is there: one that is away loses nothing, its webhook waits.
func (p *webhookPump) givesUp(item *webhookItem, class webhookClass) bool {
	alive := p.state.LastSuccess.After(item.first)
	switch class {
	case webhookRefused:
		return true
	case webhookBroken:
		if item.tries >= p.hub.limits.WebhookAttempts {
			return true
		}
	default:
		if alive && item.tries >= p.hub.limits.WebhookAttempts {
			return true
		}
	}
	return false
}

// relieve makes room in a full window when the endpoint takes what others
// have: a device whose events fail gives up those above its share, or if no
// device has that many, each failing event that was tried twice is given up.
func (p *webhookPump) relieve(now time.Time) {
	var longest *webhookQueue
	for q := range p.sleeping {
		if p.state.LastSuccess.After(q.items[0].first) && (longest == nil || len(q.items) > len(longest.items)) {
			longest = q
		}
	}
	if longest == nil {
		return
	}
	const why = "given up to make room: events of this device fail while those of others are taken; the last error: "
	if len(longest.items) > webhookShare {
		for len(longest.items) > webhookShare && !p.deadFull() {
			p.bury(longest.items[0], why+p.state.LastError, now)
		}
		return
	}
	for q := range p.sleeping {
		head := q.items[0]
		if p.deadFull() || head.tries < 2 || !p.state.LastSuccess.After(head.first) {
			continue
		}
		p.bury(head, why+p.state.LastError, now)
		delete(p.sleeping, q)
		if len(q.items) == 0 {
			p.emptied(q)
		} else {
			p.ready = append(p.ready, q)
		}
	}
}

func (p *webhookPump) bury(item *webhookItem, text string, now time.Time) {
	body, err := marshal(p.hub.cloudEvent(item.event))
	if err != nil { // its data is JSON from the store
		body = nil
	}
	p.dead = append(p.dead, WebhookDead{Time: now.UTC(), Error: text, Attempts: item.tries, Event: body})
	p.deadSize += len(body)
	p.state.Dead++
	p.remove(item)
}

// remove takes an event that is dealt with from the list and its queue.
func (p *webhookPump) remove(item *webhookItem) {
	if item.element != nil {
		p.open.Remove(item.element)
	} else {
		p.apart--
	}
	q := p.devices[item.event.ID.DeviceID]
	p.bytes -= item.event.size()
	q.bytes -= item.event.size()
	for i := range q.items {
		if q.items[i] == item {
			copy(q.items[i:], q.items[i+1:])
			q.items[len(q.items)-1] = nil
			q.items = q.items[:len(q.items)-1]
			break
		}
	}
}

// release makes the queues of a request ready again, or lets them sleep.
func (p *webhookPump) release(d webhookDone, due time.Time, asked bool) {
	for _, q := range d.queues {
		q.busy = false
		switch {
		case len(q.items) == 0:
			p.emptied(q)
		case q.items[0].tries > 0 && !due.IsZero():
			q.due, q.asked = due, asked
			p.sleeping[q] = struct{}{}
		default:
			p.ready = append(p.ready, q)
		}
	}
}

// pause disables the webhook when there is no hope in going on.
func (p *webhookPump) pause(ctx context.Context, r webhookResult, now time.Time) {
	l := p.hub.limits
	reason := ""
	switch {
	case r.class == webhookGone:
		reason = "the endpoint answered 410: it is gone for good"
	case p.state.DeadInARow >= l.WebhookRefusalsMost:
		reason = plural(p.state.DeadInARow, "event") + " in a row were given up; the last time: " + r.text
	case p.state.FailedSince >= webhookPauseLeast && now.Sub(p.state.FailingSince) >= l.WebhookFailingMost:
		reason = "it has failed for " + l.WebhookFailingMost.String() + "; the last time: " + r.text
	default:
		return
	}
	if p.pausing {
		return
	}
	// What it gave up is stored first: the pause ends this pump.
	err := p.flush(ctx, now)
	if err == nil {
		err = p.hub.pauseWebhook(ctx, p.id, p.record.Revision, reason)
	}
	if err != nil {
		p.hub.log.Warn("a webhook could not be paused; it will be tried again", slog.String("webhook", p.id), slog.Any("error", err))
		return
	}
	p.pausing = true
	p.hub.log.Warn("a webhook is paused", slog.String("webhook", p.id), slog.String("reason", reason))
}

// place is behind everything that is dealt with without a hole.
func (p *webhookPump) place() place {
	if front := p.open.Front(); front != nil {
		return front.Value.(*webhookItem).before //nolint:forcetypeassert // the list holds nothing else
	}
	return p.seen
}

func (p *webhookPump) flushDue(now time.Time) bool {
	if p.unstored {
		return now.Sub(p.flushed) >= webhookPause
	}
	if p.dirty || len(p.dead) > 0 {
		return now.Sub(p.flushed) >= webhookFlush || p.deadFull()
	}
	return now.Sub(p.flushed) >= webhookFlushIdle && p.moved()
}

// moved reports whether the place is another than the stored one.
func (p *webhookPump) moved() bool {
	at, stored := p.place(), p.state.place()
	return at.change != stored.change || p.record.wantsTelemetry() && at.message != stored.message
}

// flush stores how far the webhook has come, with its new dead letters.
func (p *webhookPump) flush(ctx context.Context, now time.Time) error {
	p.flushed = now
	at, dead := p.place(), p.dead
	if !p.moved() && !p.dirty && len(dead) == 0 {
		return nil
	}
	next := p.state
	next.Change, next.Message, next.Behind = at.change, at.message, p.behind()
	var stored WebhookState
	err := p.hub.update(ctx, "move webhook", func(tx *storage.Tx) error {
		stored = next
		key := storage.Tuple(p.id)
		record, err := webhookTable.Get(tx, key)
		if errors.Is(err, storage.ErrNotFound) || err == nil && !record.Created.Equal(p.record.Created) {
			return nil // deleted meanwhile; one of the same name is another, which begins behind all this
		}
		if err != nil {
			return err
		}
		state, err := webhookStateTable.Get(tx, key)
		if err != nil {
			return err
		}
		if record.Revision != p.record.Revision { // perhaps enabled again, with its failures forgiven
			stored.FailingSince, stored.FailedSince, stored.DeadInARow = state.FailingSince, state.FailedSince, state.DeadInARow
		}
		if state.Moves != p.state.Moves { // moved meanwhile; this pump is about to end
			stored.Change, stored.Message, stored.Behind, stored.Moves = state.Change, state.Message, state.Behind, state.Moves
		}
		if !p.record.wantsTelemetry() {
			stored.Message = state.Message // its business only when telemetry is asked for
		}
		stored.DeadNext, stored.DeadKept, stored.DeadBytes, stored.DeadDropped = state.DeadNext, state.DeadKept, state.DeadBytes, state.DeadDropped
		if err := p.hub.addDeadTx(tx, p.id, &stored, dead); err != nil {
			return err
		}
		return webhookStateTable.Put(tx, key, stored)
	})
	if err != nil {
		return err
	}
	p.dead, p.deadSize, p.dirty = nil, 0, false
	moves := p.state.Moves
	p.state = stored
	p.state.Moves = moves
	return nil
}

// publish shows the state to those who ask.
func (p *webhookPump) publish(now time.Time) {
	s := p.state
	at := p.place()
	s.Change, s.Message, s.Behind = at.change, at.message, p.behind()
	if front := p.open.Front(); front != nil {
		s.LagTime = max(0, now.Sub(front.Value.(*webhookItem).event.Time)) //nolint:forcetypeassert // the list holds nothing else
	}
	s.InFlight, s.Waiting = p.flying, p.open.Len()+p.apart
	for q := range p.sleeping {
		if s.Retry.IsZero() || q.due.Before(s.Retry) {
			s.Retry = q.due.UTC()
		}
	}
	if p.down.After(now) {
		s.Retry = p.down.UTC()
	}
	p.mu.Lock()
	p.shown = s
	p.mu.Unlock()
}

// show returns the newest state, from any goroutine.
func (p *webhookPump) show() WebhookState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}
