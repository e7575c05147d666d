package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// How events are delivered. Devices of one page share the lanes; the events
// of one device are in one lane, so their order holds.
const (
	webhookPage     = 256
	webhookLanes    = 8
	webhookAttempts = 8
	webhookBackoff  = time.Second
	webhookLongest  = 5 * time.Minute
	webhookPause    = 5 * time.Second // after an error of the store
)

// cloudEvent is a CloudEvent 1.0 in structured mode.
type cloudEvent struct {
	SpecVersion string         `json:"specversion"`
	ID          string         `json:"id"`
	Source      string         `json:"source"`
	Type        string         `json:"type"`
	Subject     string         `json:"subject,omitempty"`
	Time        time.Time      `json:"time"`
	ContentType string         `json:"datacontenttype"`
	Data        cloudEventData `json:"data"`
}

type cloudEventData struct {
	DeviceID  string          `json:"deviceId,omitempty"`
	ModuleID  string          `json:"moduleId,omitempty"`
	Principal string          `json:"principal,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Version   int64           `json:"version,omitempty"`
	Change    json.RawMessage `json:"change,omitempty"`
}

func (h *Hub) cloudEvent(c Change) ([]byte, error) {
	e := cloudEvent{
		SpecVersion: "1.0", ID: strconv.FormatUint(c.Position, 10), Source: "muster://" + h.about.hosts[0], Type: "muster." + c.Kind,
		Time: c.Time, ContentType: "application/json",
		Data: cloudEventData{c.ID.DeviceID, c.ID.ModuleID, c.Principal, c.Cause, c.Version, c.Data},
	}
	if c.ID.DeviceID != "" {
		e.Subject = "devices/" + c.ID.DeviceID
		if c.ID.ModuleID != "" {
			e.Subject += "/modules/" + c.ID.ModuleID
		}
	}
	return marshal(e)
}

// signWebhook is the signature of Standard Webhooks, version 1.
func signWebhook(secret []byte, id string, at time.Time, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// webhookBackOff returns the pause after attempt n (1 is the first): doubled
// each time, with a random half so that endpoints don't see all come at once,
// and at least what the endpoint asked for; never above five minutes.
func webhookBackOff(n int, asked time.Duration) time.Duration {
	d := webhookBackoff << min(n-1, 10)
	d = d/2 + rand.N(d/2+1)
	return min(max(d, asked), webhookLongest)
}

// runWebhooks keeps one worker for each enabled webhook until ctx ends, and
// returns when all of them have. A stored change of a webhook restarts its
// worker at its cursor.
func (h *Hub) runWebhooks(ctx context.Context) {
	if h.db.Paused() { // a restored hub tells nobody until it is resumed, which a start comes after
		<-ctx.Done()
		return
	}
	type worker struct {
		revision uint64
		stop     context.CancelFunc
		done     chan struct{}
	}
	running := map[string]worker{}
	end := func(id string) { w := running[id]; w.stop(); <-w.done; delete(running, id) }
	for {
		changed := h.webhooks.next()
		wanted := map[string]webhookRecord{}
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
				if id, ok := parts[0].(string); ok && !item.Value.Disabled {
					wanted[id] = item.Value
				}
			}
			return nil
		})
		if err != nil {
			retry = time.After(webhookPause)
		} else {
			for id, w := range running {
				if r, ok := wanted[id]; !ok || r.Revision != w.revision {
					end(id)
				}
			}
			for id, r := range wanted {
				if _, ok := running[id]; ok {
					continue
				}
				own, stop := context.WithCancel(ctx)
				w := worker{r.Revision, stop, make(chan struct{})}
				running[id] = w
				go func() { defer close(w.done); h.runWebhook(own, id, r) }()
			}
		}
		select {
		case <-ctx.Done():
			for id := range running {
				end(id)
			}
			return
		case <-changed:
		case <-retry:
		}
	}
}

func (h *Hub) runWebhook(ctx context.Context, id string, r webhookRecord) {
	for ctx.Err() == nil {
		err := h.webhookPage(ctx, id, r)
		if err == nil || ctx.Err() != nil {
			continue
		}
		h.log.Warn("a webhook's events could not be read or its cursor not stored; it will be tried again", slog.String("webhook", id), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(webhookPause):
		}
	}
}

// webhookOutcome is what became of a page.
type webhookOutcome struct {
	mu      sync.Mutex
	state   WebhookState
	dead    map[uint64]WebhookDead
	aborted bool
}

// webhookPage delivers the next changes and moves the cursor in the
// transaction that stores what was given up. A crash before that repeats the
// page: delivery is at least once.
func (h *Hub) webhookPage(ctx context.Context, id string, r webhookRecord) error {
	secret, err := h.db.Unseal(r.Sealed, "webhook:"+id)
	if err != nil {
		return err
	}
	wanted := EventFilter{Devices: r.Devices, Kinds: r.Kinds}
	var cursor, last uint64
	var changes []Change
	err = h.view(ctx, "read changes", func(reader storage.Reader) error {
		changes = nil
		state, err := webhookStateTable.Get(reader, storage.Tuple(id))
		if err != nil {
			return err
		}
		cursor, last = state.Cursor, state.Cursor
		looked := 0
		for e, err := range changeLog.Read(reader, cursor) {
			if err != nil {
				return err
			}
			if looked++; looked == 1 && e.Position > cursor+1 {
				changes = append(changes, Change{Position: e.Position - 1, Time: e.Time.UTC(), Kind: EventGap})
			}
			last = e.Position
			c, err := decodeChange(e)
			if err != nil {
				return err
			}
			if wanted.wants(c.Kind, c.ID.DeviceID) {
				changes = append(changes, c)
			}
			if looked == webhookPage {
				break
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if last == cursor {
		return changeLog.Wait(ctx, h.db, cursor)
	}
	out := &webhookOutcome{dead: map[uint64]WebhookDead{}}
	lanes := map[string][]Change{}
	for _, c := range changes {
		lanes[c.ID.DeviceID] = append(lanes[c.ID.DeviceID], c)
	}
	slots := make(chan struct{}, webhookLanes)
	var wg sync.WaitGroup
	for _, lane := range lanes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, c := range lane {
				h.deliverChange(ctx, r.URL, secret, c, out)
			}
		})
	}
	wg.Wait()
	if out.aborted || ctx.Err() != nil {
		return ctx.Err()
	}
	return h.update(ctx, "move webhook", func(tx *storage.Tx) error {
		state, err := webhookStateTable.Get(tx, storage.Tuple(id))
		if errors.Is(err, storage.ErrNotFound) {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		state.Cursor = last
		state.Delivered += out.state.Delivered
		state.Dead += uint64(len(out.dead))
		if !out.state.LastSuccess.IsZero() {
			state.LastSuccess = out.state.LastSuccess
		}
		if !out.state.LastFailure.IsZero() {
			state.LastFailure, state.LastError = out.state.LastFailure, out.state.LastError
		}
		for position, d := range out.dead {
			if err := webhookDeadTable.Put(tx, storage.Tuple(id, position), d); err != nil {
				return err
			}
		}
		if len(out.dead) > 0 {
			if err := trimDeadTx(tx, id); err != nil {
				return err
			}
		}
		return webhookStateTable.Put(tx, storage.Tuple(id), state)
	})
}

// trimDeadTx drops the oldest dead letters above the bound.
func trimDeadTx(tx *storage.Tx, id string) error {
	kept := 0
	var drop []storage.Key
	for item, err := range webhookDeadTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id), Reverse: true}) {
		if err != nil {
			return err
		}
		if kept++; kept > webhookDeadMost {
			drop = append(drop, item.Key)
		}
	}
	for _, key := range drop {
		if err := webhookDeadTable.Delete(tx, key); err != nil {
			return err
		}
	}
	return nil
}

// deliverChange posts one change until it is taken, given up or ctx ends.
func (h *Hub) deliverChange(ctx context.Context, target string, secret []byte, c Change, out *webhookOutcome) {
	body, err := h.cloudEvent(c)
	if err != nil {
		out.fail(c, nil, 0, err.Error(), true)
		return
	}
	id := strconv.FormatUint(c.Position, 10)
	for n := 1; ctx.Err() == nil; n++ {
		at := time.Now()
		answer, err := h.webhooks.deliver(ctx, WebhookPost{URL: target, Body: body, Header: map[string]string{
			"Content-Type": "application/cloudevents+json", "Webhook-Id": id, "Webhook-Timestamp": strconv.FormatInt(at.Unix(), 10),
			"Webhook-Signature": signWebhook(secret, id, at, body), "Muster-Attempt": strconv.Itoa(n),
		}})
		if ctx.Err() != nil {
			break
		}
		if err == nil && answer.Status >= 200 && answer.Status < 300 {
			out.mu.Lock()
			out.state.Delivered++
			out.state.LastSuccess = time.Now().UTC()
			out.mu.Unlock()
			return
		}
		text := fmt.Sprintf("the endpoint answered %d; expected 200 to 299", answer.Status)
		if err != nil {
			text = clip(err.Error())
		}
		out.fail(c, body, n, text, n >= webhookAttempts)
		if n >= webhookAttempts {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(webhookBackOff(n, answer.RetryAfter)):
		}
	}
	out.mu.Lock()
	out.aborted = true
	out.mu.Unlock()
}

func (o *webhookOutcome) fail(c Change, body []byte, attempts int, text string, final bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now().UTC()
	o.state.LastFailure, o.state.LastError = now, text
	if final {
		o.dead[c.Position] = WebhookDead{Time: now, Error: text, Attempts: attempts, Event: body}
	}
}
