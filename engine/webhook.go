package engine

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Bounds of webhooks.
const (
	webhooksMost       = 100
	webhookText        = 2048 // bytes of a URL
	webhookDescription = 512
	webhookDeadMost    = 1000 // dead letters of one webhook; the oldest goes first
	webhookSecretBytes = 32
	webhookPrefix      = "whsec_"
)

// Webhook is an endpoint to which the hub posts its changes.
type Webhook struct {
	ID          string
	URL         string
	Description string
	Devices     []string // ids, or prefix*; all when empty
	Kinds       []string // kinds of change, or prefix.*; all when empty
	Enabled     bool
	Secret      string // whsec_...; only in the answer that made it
	ETag        string
	Created     time.Time
	Updated     time.Time
	State       WebhookState
}

// WebhookState says how far a webhook has come.
type WebhookState struct {
	Cursor      uint64    `json:"c"` // position in the change log that is dealt with
	Lag         uint64    `json:"-"` // changes after it
	LastSuccess time.Time `json:"s,omitzero"`
	LastFailure time.Time `json:"f,omitzero"`
	LastError   string    `json:"e,omitempty"`
	Delivered   uint64    `json:"n,omitempty"`
	Dead        uint64    `json:"d,omitempty"` // events given up so far
}

// WebhookDead is an event that a webhook gave up.
type WebhookDead struct {
	Position uint64    `json:"-"`
	Time     time.Time `json:"t"`
	Error    string    `json:"e"`
	Attempts int       `json:"n"`
	Event    []byte    `json:"b"` // the CloudEvent
}

// WebhookPost is one request to an endpoint.
type WebhookPost struct {
	URL    string
	Header map[string]string
	Body   []byte
}

// WebhookAnswer is what an endpoint answered. RetryAfter is zero when it did
// not ask for a pause.
type WebhookAnswer struct {
	Status     int
	RetryAfter time.Duration
}

// Deliver posts to an endpoint. It returns when ctx ends and is safe for
// concurrent use.
type Deliver func(ctx context.Context, p WebhookPost) (WebhookAnswer, error)

type webhookRecord struct {
	URL         string    `json:"l"`
	Description string    `json:"t,omitempty"`
	Devices     []string  `json:"d,omitempty"`
	Kinds       []string  `json:"k,omitempty"`
	Disabled    bool      `json:"x,omitempty"`
	Sealed      []byte    `json:"s"`
	Revision    uint64    `json:"n"`
	Created     time.Time `json:"c"`
	Updated     time.Time `json:"u"`
}

var (
	webhookTable      = storage.NewTable("webhook", 1, storage.JSON[webhookRecord]())
	webhookStateTable = storage.NewTable("webhookstate", 1, storage.JSON[WebhookState]())
	webhookDeadTable  = storage.NewTable("webhookdead", 1, storage.JSON[WebhookDead]())
)

// webhooks is what the hub keeps of its webhooks while it runs.
type webhooks struct {
	deliver Deliver
	mu      sync.Mutex
	changed chan struct{} // closed when a webhook was stored or deleted
}

func newWebhooks(d Deliver) *webhooks { return &webhooks{deliver: d, changed: make(chan struct{})} }

func (w *webhooks) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *webhooks) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (r webhookRecord) show(id string) Webhook {
	return Webhook{
		ID: id, URL: r.URL, Description: r.Description, Devices: r.Devices, Kinds: r.Kinds, Enabled: !r.Disabled,
		ETag: strconv.FormatUint(r.Revision, 10), Created: r.Created.UTC(), Updated: r.Updated.UTC(),
	}
}

func (h *Hub) showWebhook(r storage.Reader, id string, record webhookRecord) (Webhook, error) {
	w := record.show(id)
	state, err := webhookStateTable.Get(r, storage.Tuple(id))
	if err != nil {
		return w, err
	}
	_, last, err := changeLog.Bounds(r)
	if last > state.Cursor {
		state.Lag = last - state.Cursor
	}
	w.State = state
	return w, err
}

// Webhooks lists the webhooks by id, at most 100. It needs HubManage.
func (h *Hub) Webhooks(ctx context.Context, c Caller) ([]Webhook, error) {
	if err := h.authorize(ctx, c, opWebhookRead, "*"); err != nil {
		return nil, err
	}
	var list []Webhook
	err := h.view(ctx, "list webhooks", func(r storage.Reader) error {
		list = nil
		for item, err := range webhookTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			id, _ := parts[0].(string)
			w, err := h.showWebhook(r, id, item.Value)
			if err != nil {
				return err
			}
			list = append(list, w)
		}
		return nil
	})
	return list, err
}

// Webhook returns one webhook without its secret. It needs HubManage.
func (h *Hub) Webhook(ctx context.Context, c Caller, id string) (w Webhook, err error) {
	if err := h.authorize(ctx, c, opWebhookRead, id); err != nil {
		return w, err
	}
	err = h.view(ctx, "read webhook", func(r storage.Reader) error {
		record, err := getWebhook(r, id)
		if err != nil {
			return err
		}
		w, err = h.showWebhook(r, id, record)
		return err
	})
	return w, err
}

func getWebhook(r storage.Reader, id string) (webhookRecord, error) {
	record, err := webhookTable.Get(r, storage.Tuple(id))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeWebhookNotFound, "there is no webhook %q", id)
	}
	return record, err
}

func checkWebhook(w Webhook) error {
	if err := checkID("webhook id", w.ID, 64); err != nil {
		return err
	}
	u, err := url.Parse(w.URL)
	if err != nil || len(w.URL) > webhookText || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errf(CodeArgumentInvalid, "url is not right; expected an absolute http or https URL of at most %d bytes with a host, without user or fragment", webhookText)
	}
	if len(w.Description) > webhookDescription {
		return errf(CodeArgumentInvalid, "description has %d bytes; expected at most %d", len(w.Description), webhookDescription)
	}
	return EventFilter{Devices: w.Devices, Kinds: w.Kinds}.check()
}

// PutWebhook makes a webhook, whose answer holds its secret, or replaces one;
// cursor and secret stay. etag is empty or "*", or the one that it must have.
// A new one starts with the changes after it. It needs HubManage.
func (h *Hub) PutWebhook(ctx context.Context, c Caller, w Webhook, etag string) (Webhook, error) {
	if err := h.authorize(ctx, c, opWebhookWrite, w.ID); err != nil {
		return Webhook{}, err
	}
	if err := checkWebhook(w); err != nil {
		return Webhook{}, err
	}
	var out Webhook
	err := h.update(ctx, "store webhook", func(tx *storage.Tx) error {
		key, secret := storage.Tuple(w.ID), ""
		record, err := webhookTable.Get(tx, key)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			if etag != "" {
				return errf(CodeWebhookNotFound, "there is no webhook %q", w.ID)
			}
			n := 0
			for _, err := range webhookTable.Scan(tx, storage.Range{}) {
				if err != nil {
					return err
				}
				n++
			}
			if n >= webhooksMost {
				return errf(CodeArgumentInvalid, "the hub has %d webhooks, which is the limit; delete one first", webhooksMost)
			}
			random := make([]byte, webhookSecretBytes)
			if _, err := rand.Read(random); err != nil {
				return err
			}
			secret = webhookPrefix + base64.StdEncoding.EncodeToString(random)
			if record.Sealed, err = h.db.Seal(random, "webhook:"+w.ID); err != nil {
				return err
			}
			record.Created = tx.Now()
			_, last, err := changeLog.Bounds(tx)
			if err != nil {
				return err
			}
			if err := webhookStateTable.Put(tx, key, WebhookState{Cursor: last}); err != nil {
				return err
			}
		case err != nil:
			return err
		case etag != "" && etag != "*" && etag != strconv.FormatUint(record.Revision, 10):
			return errf(CodePreconditionFailed, "webhook %q has changed; expected the ETag %q", w.ID, strconv.FormatUint(record.Revision, 10))
		}
		record.URL, record.Description, record.Devices, record.Kinds, record.Disabled = w.URL, w.Description, w.Devices, w.Kinds, !w.Enabled
		record.Revision, record.Updated = record.Revision+1, tx.Now()
		if err := errors.Join(webhookTable.Put(tx, key, record), h.auditTx(tx, c, opWebhookWrite, w.ID, nil)); err != nil {
			return err
		}
		tx.OnCommit(func(uint64) { h.webhooks.wake() })
		out, err = h.showWebhook(tx, w.ID, record)
		out.Secret = secret
		return err
	})
	return out, err
}

// DeleteWebhook removes a webhook with its dead letters. It needs HubManage.
func (h *Hub) DeleteWebhook(ctx context.Context, c Caller, id string) error {
	if err := h.authorize(ctx, c, opWebhookWrite, id); err != nil {
		return err
	}
	return h.update(ctx, "delete webhook", func(tx *storage.Tx) error {
		if _, err := getWebhook(tx, id); err != nil {
			return err
		}
		for item, err := range webhookDeadTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id)}) {
			if err != nil {
				return err
			}
			if err := webhookDeadTable.Delete(tx, item.Key); err != nil {
				return err
			}
		}
		tx.OnCommit(func(uint64) { h.webhooks.wake() })
		return errors.Join(webhookTable.Delete(tx, storage.Tuple(id)), webhookStateTable.Delete(tx, storage.Tuple(id)), h.auditTx(tx, c, opWebhookWrite, id, nil))
	})
}

// WebhookDeadLetters lists up to 1000 events that a webhook gave up, oldest
// first. It needs HubManage.
func (h *Hub) WebhookDeadLetters(ctx context.Context, c Caller, id string) ([]WebhookDead, error) {
	if err := h.authorize(ctx, c, opWebhookRead, id); err != nil {
		return nil, err
	}
	var list []WebhookDead
	err := h.view(ctx, "list dead letters", func(r storage.Reader) error {
		list = nil
		if _, err := getWebhook(r, id); err != nil {
			return err
		}
		for item, err := range webhookDeadTable.Scan(r, storage.Range{Prefix: storage.Tuple(id)}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			item.Value.Position, _ = parts[1].(uint64)
			list = append(list, item.Value)
		}
		return nil
	})
	return list, err
}
