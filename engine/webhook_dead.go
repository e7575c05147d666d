package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/muster-hub/muster/storage"
)

// WebhookDead is an event that a webhook gave up.
type WebhookDead struct {
	Number   uint64    `json:"-"`
	Time     time.Time `json:"t"`
	Error    string    `json:"e"`
	Attempts int       `json:"n"`
	Event    []byte    `json:"b"` // the CloudEvent as JSON
}

// addDeadTx stores dead letters and drops the oldest above the bounds.
func (h *Hub) addDeadTx(tx *storage.Tx, id string, s *WebhookState, list []WebhookDead) error {
	for _, d := range list {
		s.DeadNext++
		if err := webhookDeadTable.Put(tx, storage.Tuple(id, s.DeadNext), d); err != nil {
			return err
		}
		s.DeadKept++
		s.DeadBytes += len(d.Event)
	}
	if s.DeadKept <= h.limits.WebhookDead && s.DeadBytes <= h.limits.WebhookDeadBytes {
		return nil
	}
	var drop []storage.Key
	kept, bytes := s.DeadKept, s.DeadBytes
	for item, err := range webhookDeadTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id)}) {
		if err != nil {
			return err
		}
		if kept <= h.limits.WebhookDead && bytes <= h.limits.WebhookDeadBytes {
			break
		}
		kept--
		bytes -= len(item.Value.Event)
		drop = append(drop, item.Key)
	}
	for _, key := range drop {
		if err := webhookDeadTable.Delete(tx, key); err != nil {
			return err
		}
	}
	s.DeadDropped += uint64(len(drop))
	s.DeadKept, s.DeadBytes = kept, bytes
	return nil
}

// WebhookDeadLetters lists events that a webhook gave up, oldest first, at
// most limit (1 to 1000) after number after. next is 0 at the end. It needs
// HubManage.
func (h *Hub) WebhookDeadLetters(ctx context.Context, c Caller, id string, after uint64, limit int) (list []WebhookDead, next uint64, err error) {
	if err := h.authorize(ctx, c, opWebhookRead, id); err != nil {
		return nil, 0, err
	}
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	const pageBytes = 8 << 20
	err = h.view(ctx, "list dead letters", func(r storage.Reader) error {
		list, next = nil, 0
		if _, err := getWebhook(r, id); err != nil {
			return err
		}
		g := storage.Range{Prefix: storage.Tuple(id)}
		if after > 0 {
			g.After = storage.Tuple(id, after)
		}
		bytes := 0
		for item, err := range webhookDeadTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(list) == limit || bytes > pageBytes {
				next = list[len(list)-1].Number
				break
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			item.Value.Number, _ = parts[1].(uint64)
			bytes += len(item.Value.Event)
			list = append(list, item.Value)
		}
		return nil
	})
	return list, next, err
}

// DeleteWebhookDead deletes one dead letter, or with number 0 all of them, and
// returns how many. It needs HubManage.
func (h *Hub) DeleteWebhookDead(ctx context.Context, c Caller, id string, number uint64) (n int, err error) {
	if err := h.authorize(ctx, c, opWebhookDead, id); err != nil {
		return 0, err
	}
	err = h.update(ctx, "delete dead letters", func(tx *storage.Tx) error {
		if _, err := getWebhook(tx, id); err != nil {
			return err
		}
		var keys []storage.Key
		if number > 0 {
			keys = []storage.Key{storage.Tuple(id, number)}
		} else {
			for item, err := range webhookDeadTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id)}) {
				if err != nil {
					return err
				}
				keys = append(keys, item.Key)
			}
		}
		for _, key := range keys {
			if err := dropDeadTx(tx, id, key); err != nil {
				return err
			}
		}
		n = len(keys)
		return h.auditTx(tx, c, opWebhookDead, id, json.RawMessage(`{"deleted":`+strconv.Itoa(n)+`}`))
	})
	return n, err
}

// dropDeadTx takes a dead letter away.
func dropDeadTx(tx *storage.Tx, id string, key storage.Key) error {
	d, err := webhookDeadTable.Get(tx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return errf(CodeWebhookNotFound, "the webhook %q has no such dead letter; it was delivered, deleted or dropped", id)
	}
	if err != nil {
		return err
	}
	state, err := webhookStateTable.Get(tx, storage.Tuple(id))
	if err != nil {
		return err
	}
	state.DeadKept--
	state.DeadBytes -= len(d.Event)
	return errors.Join(webhookDeadTable.Delete(tx, key), webhookStateTable.Put(tx, storage.Tuple(id), state))
}

// WebhookTry is what came of a request that somebody asked for.
type WebhookTry struct {
	Status  int           // the answer's; 0 when there was none
	Latency time.Duration // until the answer or the failure
	Error   string        // empty when the endpoint took it
	Next    string        // what to do about Error; empty: nobody knows
	EventID string
}

// TestWebhook posts a synthetic event, once, also when the webhook is off. It
// waits for the answer. It needs HubManage.
func (h *Hub) TestWebhook(ctx context.Context, c Caller, id string) (WebhookTry, error) {
	if err := h.authorize(ctx, c, opWebhookTest, id); err != nil {
		return WebhookTry{}, err
	}
	target, err := h.readTarget(ctx, id)
	if err != nil {
		return WebhookTry{}, err
	}
	now := time.Now().UTC()
	e := cloudEvent{
		SpecVersion: "1.0", ID: "test-" + strconv.FormatInt(now.UnixNano(), 36), Source: "muster://" + h.about.hosts[0], Type: "muster.test",
		Time: now, ContentType: "application/json", Data: cloudEventData{Principal: c.Principal.String(), Cause: c.Cause, Change: json.RawMessage(`{"test":true}`)},
	}
	try := h.try(ctx, target, e, 1)
	h.auditLater(newAuditRecord(c, opWebhookTest, id, tryOutcome(try)))
	return try, nil
}

func tryOutcome(t WebhookTry) string {
	if t.Error != "" {
		return outcomeFailed
	}
	return outcomeDone
}

func (h *Hub) try(ctx context.Context, target webhookTarget, e cloudEvent, attempt int) WebhookTry {
	r := h.postWebhook(ctx, target, []cloudEvent{e}, attempt)
	return WebhookTry{Status: r.status, Latency: r.took, Error: r.text, Next: r.next, EventID: e.ID}
}

// readTarget is where a webhook's requests go. CodeUnavailable means that this
// hub posts nothing.
func (h *Hub) readTarget(ctx context.Context, id string) (target webhookTarget, err error) {
	if h.webhooks.deliver == nil || h.db.Paused() {
		return target, errf(CodeUnavailable, "this hub posts nothing to webhooks now; a restored one does after `muster resume`")
	}
	err = h.view(ctx, "read webhook", func(r storage.Reader) error {
		record, err := getWebhook(r, id)
		if err != nil {
			return err
		}
		target, err = h.webhookTarget(id, record)
		return err
	})
	return target, err
}

// RetryWebhookDead posts a dead letter again, once, and removes it when the
// endpoint takes it. It waits for the answer. It needs HubManage.
func (h *Hub) RetryWebhookDead(ctx context.Context, c Caller, id string, number uint64) (WebhookTry, error) {
	if err := h.authorize(ctx, c, opWebhookDead, id); err != nil {
		return WebhookTry{}, err
	}
	target, err := h.readTarget(ctx, id)
	if err != nil {
		return WebhookTry{}, err
	}
	key := storage.Tuple(id, number)
	var d WebhookDead
	err = h.view(ctx, "read dead letter", func(r storage.Reader) error {
		d, err = webhookDeadTable.Get(r, key)
		if errors.Is(err, storage.ErrNotFound) {
			return errf(CodeWebhookNotFound, "the webhook %q has no dead letter %d; it was delivered, deleted or dropped", id, number)
		}
		return err
	})
	if err != nil {
		return WebhookTry{}, err
	}
	var e cloudEvent
	if err := json.Unmarshal(d.Event, &e); err != nil {
		return WebhookTry{}, wrapf(CodeInternal, err, "dead letter %d can't be read", number)
	}
	try := h.try(ctx, target, e, d.Attempts+1)
	err = h.update(ctx, "settle dead letter", func(tx *storage.Tx) error {
		r := newAuditRecord(c, opWebhookDead, id, tryOutcome(try))
		r.Details = json.RawMessage(`{"retried":` + strconv.FormatUint(number, 10) + `}`)
		if err := appendAudit(tx, r); err != nil {
			return err
		}
		if try.Error == "" {
			return ignoreGone(dropDeadTx(tx, id, key))
		}
		d, err := webhookDeadTable.Get(tx, key)
		if err != nil {
			return ignoreGone(err)
		}
		d.Attempts, d.Error, d.Time = d.Attempts+1, try.Error, tx.Now().UTC()
		return webhookDeadTable.Put(tx, key, d)
	})
	return try, err
}

// ignoreGone lets pass that somebody else took the dead letter away meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeWebhookNotFound {
		return nil
	}
	return err
}
