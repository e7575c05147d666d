package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/storage"
)

// WebhookState says how far a webhook has come. What is stored lags behind
// what a running webhook shows by half a second at most.
type WebhookState struct {
	Change      uint64    `json:"c"`           // last entry of the change log that is dealt with
	Message     uint64    `json:"m,omitempty"` // last device-to-cloud message that is
	LastSuccess time.Time `json:"s,omitzero"`
	LastFailure time.Time `json:"f,omitzero"`
	LastError   string    `json:"e,omitempty"`
	Delivered   uint64    `json:"n,omitempty"`  // events
	Failed      uint64    `json:"fn,omitempty"` // requests that failed
	Dead        uint64    `json:"d,omitempty"`  // events given up so far
	DeadDropped uint64    `json:"dx,omitempty"` // dead letters that fell out of the bound

	FailingSince time.Time `json:"fs,omitzero"`  // first failure after the last success
	FailedSince  uint64    `json:"fa,omitempty"` // requests that failed since
	DeadInARow   int       `json:"dr,omitempty"` // events given up since
	Moves        uint64    `json:"v,omitempty"`  // how often a replay moved the place

	// Behind are devices that are not as far as the place: their own places. It
	// is never changed, only replaced.
	Behind map[string]webhookBehind `json:"h,omitempty"`

	DeadNext  uint64 `json:"dn,omitempty"` // number of the next dead letter
	DeadKept  int    `json:"dk,omitempty"`
	DeadBytes int    `json:"db,omitempty"`

	Cursor   string        `json:"-"` // the place as readers of events have it
	Lag      uint64        `json:"-"` // entries of the logs after it
	LagTime  time.Duration `json:"-"` // age of the oldest event that is not dealt with
	InFlight int           `json:"-"` // requests under way
	Waiting  int           `json:"-"` // events read and not yet dealt with
	Retry    time.Time     `json:"-"` // when it is tried again; zero when nothing waits for that
}

// webhookBehind is the place of a device that is behind.
type webhookBehind struct {
	Change  uint64 `json:"c"`
	Message uint64 `json:"m,omitempty"`
}

func (b webhookBehind) place() place { return place{b.Change, b.Message} }

// oldest is the place that nobody is behind, in each log.
func (s *WebhookState) oldest() place {
	at := s.place()
	for _, b := range s.Behind {
		at.change, at.message = min(at.change, b.Change), min(at.message, b.Message)
	}
	return at
}

// begin forgets the failures before a webhook was enabled.
func (s *WebhookState) begin() {
	s.FailingSince, s.FailedSince, s.DeadInARow = time.Time{}, 0, 0
}

// place is where the webhook goes on.
func (s *WebhookState) place() place { return place{s.Change, s.Message} }

// openWebhooks takes the webhooks of a restored hub back to the messages that
// it has, before it takes new ones: positions that the backup does not hold are
// given out again, and a webhook that stood behind them would pass over what
// devices send before the hub is resumed.
func (h *Hub) openWebhooks(ctx context.Context) error {
	if !h.db.Paused() {
		return nil
	}
	return h.update(ctx, "open webhooks", func(tx *storage.Tx) error {
		last := h.db.Messages().Last()
		var ahead []storage.Item[WebhookState]
		for item, err := range webhookStateTable.Scan(tx, storage.Range{}) {
			if err != nil {
				return err
			}
			if item.Value.Message > last {
				ahead = append(ahead, item)
			}
		}
		for _, item := range ahead {
			item.Value.Message = last
			behind := map[string]webhookBehind{}
			for device, b := range item.Value.Behind {
				behind[device] = webhookBehind{b.Change, min(b.Message, last)}
			}
			item.Value.Behind = behind
			if err := webhookStateTable.Put(tx, item.Key, item.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

// showWebhook joins what is stored with what the running webhook knows. What
// can't be read of it is its last error: the others are shown all the same.
func (h *Hub) showWebhook(r storage.Reader, id string, record webhookRecord) (Webhook, error) {
	w := record.show(id)
	state, unread := webhookStateTable.Get(r, storage.Tuple(id))
	h.webhooks.mu.Lock()
	pump, trouble := h.webhooks.running[id], h.webhooks.trouble[id]
	h.webhooks.mu.Unlock()
	if pump != nil {
		if live := pump.show(); unread == nil && live.Moves == state.Moves {
			live.DeadNext, live.DeadKept, live.DeadBytes = state.DeadNext, state.DeadKept, state.DeadBytes
			state = live
		}
	}
	_, last, err := changeLog.Bounds(r)
	if err != nil {
		return w, err
	}
	oldest := state.oldest()
	state.Lag = last - min(last, oldest.change)
	if record.wantsTelemetry() {
		newest := h.db.Messages().Last()
		state.Lag += newest - min(newest, oldest.message)
	} else {
		state.Message = h.db.Messages().Last() // those before are not its business
	}
	state.Cursor = state.place().cursor(h.db.Epoch().ID)
	if unread == nil && state.Lag > 0 && (pump == nil || len(state.Behind) > 0) {
		state.LagTime, unread = h.oldestAfter(r, oldest, record.wantsTelemetry())
	}
	switch {
	case errors.Is(unread, storage.ErrClosed), errors.Is(unread, context.Canceled), errors.Is(unread, context.DeadlineExceeded):
		return w, unread
	case unread != nil:
		state.LastError = clip(AsError(storeError(unread, "read the webhook's events")).Message)
	}
	if !trouble.since.IsZero() {
		state.LastFailure, state.LastError = trouble.last, trouble.text
		if state.FailingSince.IsZero() {
			state.FailingSince = trouble.since
		}
		state.LagTime = max(state.LagTime, time.Since(trouble.since)) // at least
	}
	w.State = state
	return w, nil
}

// oldestAfter is the age of the oldest entry after a place: of those that can
// be read, beside an error.
func (h *Hub) oldestAfter(r storage.Reader, at place, telemetry bool) (age time.Duration, err error) {
	now := time.Now()
	for e, err := range changeLog.Read(r, at.change) {
		if err != nil {
			return 0, err
		}
		age = max(age, now.Sub(e.Time))
		break
	}
	if telemetry {
		for e, err := range h.db.Messages().Read(at.message) {
			if err != nil {
				return age, err
			}
			age = max(age, now.Sub(e.Time))
			break
		}
	}
	return age, nil
}

// WebhookStats returns the webhooks with their state, for metrics.
func (h *Hub) WebhookStats(ctx context.Context) ([]Webhook, error) { return h.listWebhooks(ctx) }

// doctorWebhooks finds webhooks that don't deliver.
func (h *Hub) doctorWebhooks(ctx context.Context) Finding {
	list, err := h.listWebhooks(ctx)
	if err != nil {
		return Finding{"webhooks", "fail", err.Error(), "run `muster doctor` again; if it stays, look at the hub's log"}
	}
	var gaveUp, failing, dead, paused []string
	enabled := 0
	for _, w := range list {
		switch {
		case w.Paused != "":
			gaveUp = append(gaveUp, w.ID)
		case !w.Enabled:
			paused = append(paused, w.ID)
		default:
			enabled++
			if !w.State.FailingSince.IsZero() {
				failing = append(failing, fmt.Sprintf("%s for %s (%s)", w.ID, max(time.Since(w.State.FailingSince), 0).Round(time.Second), w.State.LastError))
			}
		}
		if w.State.DeadKept > 0 {
			dead = append(dead, w.ID)
		}
	}
	f := Finding{"webhooks", "ok", fmt.Sprintf("%d of %d are enabled", enabled, len(list)), ""}
	if enabled > 0 && len(failing) == 0 {
		f.Text += ", and none of them fails"
	}
	add := func(level, what string, names []string, next string) {
		if len(names) == 0 {
			return
		}
		slices.Sort(names)
		if f.Text += "; " + what + ": " + strings.Join(names, ", "); f.Level == "ok" {
			f.Level, f.Next = level, next
		}
	}
	add("fail", "paused by the hub because they failed", gaveUp, "`muster webhook show NAME` tells why, `muster webhook test NAME` tries it, `muster webhook enable NAME` lets it go on where it stood")
	add("warn", "failing", failing, "`muster webhook test NAME` shows what the endpoint answers; what the hub can't read, it tells of in its log and above")
	add("warn", "with dead letters", dead, "`muster webhook dead-letters list NAME` shows them; retry or delete them")
	add("ok", "paused by whoever runs them", paused, "")
	return f
}

// pauseWebhook disables a webhook that does not work, and says so: an event,
// an entry of the audit, and the reason in the webhook. It does nothing when
// the webhook was changed meanwhile.
func (h *Hub) pauseWebhook(ctx context.Context, id string, revision uint64, reason string) error {
	return h.update(ctx, "pause webhook", func(tx *storage.Tx) error {
		record, err := webhookTable.Get(tx, storage.Tuple(id))
		if errors.Is(err, storage.ErrNotFound) || err == nil && record.Revision != revision {
			return nil
		}
		if err != nil {
			return err
		}
		record.Disabled, record.Paused = true, reason
		record.Revision, record.Updated = record.Revision+1, tx.Now()
		details, err := marshal(struct {
			Webhook string `json:"webhook"`
			Reason  string `json:"reason"`
		}{id, reason})
		if err != nil {
			return err
		}
		hub := Caller{Cause: "webhook:" + id}
		tx.OnCommit(func(uint64) { h.webhooks.wake() }) // its worker, which waits for this, sends nothing afterwards
		return errors.Join(
			webhookTable.Put(tx, storage.Tuple(id), record),
			appendChange(tx, hub, changeWebhookPaused, TwinID{}, 0, details),
			h.auditTx(tx, hub, opWebhookWrite, id, details),
		)
	})
}
