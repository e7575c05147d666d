package engine

import (
	"context"
	"encoding/json"
	"iter"
	"sort"
	"time"

	"github.com/muster-hub/muster/storage"
)

// ReplayWebhook lets a webhook go on from a cursor of an event, CursorStart,
// or a time (RFC 3339), before or after where it stands. What is older than
// what the hub keeps is not there: then it begins with the oldest. What is
// under way may be delivered besides. It needs HubManage.
func (h *Hub) ReplayWebhook(ctx context.Context, c Caller, id, from string) (Webhook, error) {
	if err := h.authorize(ctx, c, opWebhookReplay, id); err != nil {
		return Webhook{}, err
	}
	if from == "" {
		return Webhook{}, errf(CodeArgumentInvalid, "from is empty; expected the cursor of an event, %q, or a time such as 2026-01-31T08:00:00Z", CursorStart)
	}
	var out Webhook
	err := h.update(ctx, "replay webhook", func(tx *storage.Tx) error {
		record, err := getWebhook(tx, id)
		if err != nil {
			return err
		}
		at, _, err := h.findPlace(tx, from, h.db.Epoch().ID)
		if err != nil {
			return err
		}
		state, err := webhookStateTable.Get(tx, storage.Tuple(id))
		if err != nil {
			return err
		}
		state.Change, state.Message, state.Behind = at.change, at.message, nil
		state.Moves++
		details, err := marshal(struct {
			From string `json:"from"`
		}{clip(from)})
		if err != nil {
			return err
		}
		if err := h.auditTx(tx, c, opWebhookReplay, id, json.RawMessage(details)); err != nil {
			return err
		}
		if err := webhookStateTable.Put(tx, storage.Tuple(id), state); err != nil {
			return err
		}
		if err := h.webhookChangedTx(tx, id, &record); err != nil {
			return err
		}
		out, err = h.showWebhook(tx, id, record)
		return err
	})
	return out, err
}

// placeAt is the place before the first entries of a time or after.
func (h *Hub) placeAt(r storage.Reader, moment time.Time) (at place, err error) {
	first, last, err := changeLog.Bounds(r)
	if err != nil {
		return at, err
	}
	if at.change, err = positionAt(first, last, moment, func(after uint64) iter.Seq2[storage.Entry, error] { return changeLog.Read(r, after) }); err != nil {
		return at, err
	}
	messages := h.db.Messages()
	at.message, err = positionAt(messages.First(), messages.Last(), moment, messages.Read)
	return at, err
}

// positionAt searches a log, whose times rise, for the last position before a moment.
func positionAt(first, last uint64, moment time.Time, read func(after uint64) iter.Seq2[storage.Entry, error]) (uint64, error) {
	if last == 0 || first > last {
		return last, nil
	}
	var failed error
	n := sort.Search(int(last-first+1), func(i int) bool {
		for e, err := range read(first + uint64(i) - 1) {
			if err != nil {
				failed = err
				return true
			}
			return !e.Time.Before(moment)
		}
		return true
	})
	return first + uint64(n) - 1, failed
}
