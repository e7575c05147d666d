package engine

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Bounds of webhooks that no profile changes; the others are in the table of limits.
const (
	webhookDescription = 512
	webhookHeaderNames = 10
	webhookSecretBytes = 32
	webhookPrefix      = "whsec_"
	webhookOverlapMost = 7 * 24 * time.Hour
)

// WebhookMode is how events are put into requests.
type WebhookMode string

// The modes, as CloudEvents names them.
const (
	WebhookStructured WebhookMode = "structured" // one event a request, as JSON
	WebhookBatch      WebhookMode = "batch"      // a JSON array of events
	WebhookBinary     WebhookMode = "binary"     // one event a request, its attributes as headers
)

// Webhook is an endpoint to which the hub posts events.
type Webhook struct {
	ID          string
	URL         string
	Description string
	Devices     []string // ids, or prefix*; all when empty
	Kinds       []string // kinds of event, or prefix*; all but telemetry when empty
	Mode        WebhookMode
	// Headers are sent with each request. Put takes nil as "as they were"; what
	// is read back has the names with empty values.
	Headers   map[string]string
	Enabled   bool
	Paused    string    // why the hub paused it; empty when it did not
	Secret    string    // whsec_...; only in the answer that made it
	OldSecret time.Time // until when the secret before it also signs; zero: it does not
	ETag      string
	Created   time.Time
	Updated   time.Time
	State     WebhookState
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
	Next       string // beside an error: what to do about it; empty: nobody knows
}

// Deliver posts to an endpoint. It returns when ctx ends and is safe for
// concurrent use.
type Deliver func(ctx context.Context, p WebhookPost) (WebhookAnswer, error)

type webhookRecord struct {
	URL         string      `json:"l"`
	Description string      `json:"t,omitempty"`
	Devices     []string    `json:"d,omitempty"`
	Kinds       []string    `json:"k,omitempty"`
	Mode        WebhookMode `json:"m,omitempty"` // empty: structured
	HeaderNames []string    `json:"hn,omitempty"`
	Headers     []byte      `json:"h,omitempty"` // sealed JSON
	Disabled    bool        `json:"x,omitempty"`
	Paused      string      `json:"p,omitempty"`
	Sealed      []byte      `json:"s"`
	OldSealed   []byte      `json:"os,omitempty"`
	OldUntil    time.Time   `json:"ou,omitzero"`
	Revision    uint64      `json:"n"`
	Created     time.Time   `json:"c"`
	Updated     time.Time   `json:"u"`
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
	running map[string]*webhookPump
	trouble map[string]webhookTrouble // of those that can't go on for a reason of the hub's own
}

// webhookTrouble says since when a webhook is interrupted, and why.
type webhookTrouble struct {
	since, last time.Time
	text        string
}

func newWebhooks(d Deliver) *webhooks {
	return &webhooks{deliver: d, changed: make(chan struct{}), running: map[string]*webhookPump{}, trouble: map[string]webhookTrouble{}}
}

func (w *webhooks) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakeLocked()
}

func (w *webhooks) wakeLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// interrupted remembers why a webhook can't go on, until goesOn.
func (w *webhooks) interrupted(id string, why *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.trouble[id]
	t.last, t.text = time.Now().UTC(), clip(why.Message)
	if t.since.IsZero() {
		t.since = t.last
	}
	w.trouble[id] = t
}

func (w *webhooks) goesOn(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.trouble, id)
}

// webhookVersion is another after each change of a webhook, but for what its worker
// stores. That of one which is no more is zero.
type webhookVersion struct {
	created         int64 // one that is deleted and made again is another
	revision, moves uint64
}

func (r *webhookRecord) version(s *WebhookState) webhookVersion {
	return webhookVersion{r.Created.UnixNano(), r.Revision, s.Moves}
}

// outdate ends the deliveries of a webhook that has changed, before the change
// is acknowledged: what happens after a pause is not posted. It begins again as
// it is stored now, if it did not yet.
func (w *webhooks) outdate(id string, now webhookVersion) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.running[id]; p != nil && p.version != now {
		p.stop()
	}
	w.wakeLocked()
}

// webhookChangedTx has a webhook's worker ended that is older than what was stored.
func (h *Hub) webhookChangedTx(tx *storage.Tx, id string, r *webhookRecord) error {
	state, err := webhookStateTable.Get(tx, storage.Tuple(id))
	now := r.version(&state)
	tx.OnCommit(func(uint64) { h.webhooks.outdate(id, now) })
	return err
}

func (w *webhooks) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (r webhookRecord) show(id string) Webhook {
	w := Webhook{
		ID: id, URL: r.URL, Description: r.Description, Devices: r.Devices, Kinds: r.Kinds, Mode: r.mode(), Enabled: !r.Disabled, Paused: r.Paused,
		ETag: strconv.FormatUint(r.Revision, 10), Created: r.Created.UTC(), Updated: r.Updated.UTC(),
	}
	if len(r.OldSealed) > 0 && time.Now().Before(r.OldUntil) {
		w.OldSecret = r.OldUntil.UTC()
	}
	for _, name := range r.HeaderNames {
		if w.Headers == nil {
			w.Headers = map[string]string{}
		}
		w.Headers[name] = ""
	}
	return w
}

func (r webhookRecord) mode() WebhookMode {
	if r.Mode == "" {
		return WebhookStructured
	}
	return r.Mode
}

// Webhooks lists the webhooks by id; there are few. It needs HubManage.
func (h *Hub) Webhooks(ctx context.Context, c Caller) ([]Webhook, error) {
	if err := h.authorize(ctx, c, opWebhookRead, "*"); err != nil {
		return nil, err
	}
	return h.listWebhooks(ctx)
}

func (h *Hub) listWebhooks(ctx context.Context) ([]Webhook, error) {
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

func (l *Limits) checkWebhook(w Webhook) error {
	if err := checkID("webhook id", w.ID, 64); err != nil {
		return err
	}
	u, err := url.Parse(w.URL)
	if err != nil || len(w.URL) > l.WebhookURLBytes || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errf(CodeArgumentInvalid, "url is not right; expected an absolute http or https URL of at most %d bytes with a host, without user or fragment", l.WebhookURLBytes)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errf(CodeArgumentInvalid, "url has the port %.20q; expected 1 to 65535", port)
		}
	}
	if len(w.Description) > webhookDescription {
		return errf(CodeArgumentInvalid, "description has %d bytes; expected at most %d", len(w.Description), webhookDescription)
	}
	switch w.Mode {
	case "", WebhookStructured, WebhookBatch, WebhookBinary:
	default:
		return errf(CodeArgumentInvalid, "mode %.20q is not known; expected %s, %s or %s", string(w.Mode), WebhookStructured, WebhookBatch, WebhookBinary)
	}
	return errors.Join(l.checkWebhookHeaders(w.Headers), EventFilter{Devices: w.Devices, Kinds: w.Kinds}.check())
}

// checkWebhookHeaders refuses names that the hub or HTTP itself sets, and
// values that would end their line.
func (l *Limits) checkWebhookHeaders(headers map[string]string) error {
	if len(headers) > webhookHeaderNames {
		return errf(CodeArgumentInvalid, "headers has %d names; expected at most %d", len(headers), webhookHeaderNames)
	}
	sum := 0
	for name, value := range headers {
		sum += len(name) + len(value)
		lower := strings.ToLower(name)
		switch {
		case name == "" || len(name) > 64 || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
			return errf(CodeArgumentInvalid, "the header name %.64q is not right; expected 1 to 64 letters, digits, - and _", name)
		case slices.Contains([]string{"host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "user-agent"}, lower),
			strings.HasPrefix(lower, "content-"), strings.HasPrefix(lower, "webhook-"), strings.HasPrefix(lower, "ce-"),
			strings.HasPrefix(lower, "muster-"), strings.HasPrefix(lower, "proxy-"):
			return errf(CodeArgumentInvalid, "the header %q is set by the hub; expected another name, such as Authorization or X-Api-Key", name)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			return errf(CodeArgumentInvalid, "the value of the header %q holds control characters or letters beyond ASCII; expected printable ASCII", name)
		}
	}
	if sum > l.WebhookHeaderBytes {
		return errf(CodeArgumentInvalid, "headers has %d bytes; expected at most %d", sum, l.WebhookHeaderBytes)
	}
	return nil
}

// PutWebhook makes a webhook, whose answer holds its secret, or replaces one;
// cursor and secret stay. etag is empty or "*", or the one that it must have.
// A new one starts with the events after it. It needs HubManage.
func (h *Hub) PutWebhook(ctx context.Context, c Caller, w Webhook, etag string) (Webhook, error) {
	if err := h.authorize(ctx, c, opWebhookWrite, w.ID); err != nil {
		return Webhook{}, err
	}
	if err := h.limits.checkWebhook(w); err != nil {
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
			if n >= h.limits.Webhooks {
				return errf(CodeArgumentInvalid, "the hub has %d webhooks, which is the limit; delete one first", h.limits.Webhooks)
			}
			if record.Sealed, secret, err = h.newWebhookSecret(w.ID); err != nil {
				return err
			}
			record.Created = tx.Now()
			_, last, err := changeLog.Bounds(tx)
			if err != nil {
				return err
			}
			if err := webhookStateTable.Put(tx, key, WebhookState{Change: last, Message: h.db.Messages().Last()}); err != nil {
				return err
			}
		case err != nil:
			return err
		case etag != "" && etag != "*" && etag != strconv.FormatUint(record.Revision, 10):
			return errf(CodePreconditionFailed, "webhook %q has changed; expected the ETag %q", w.ID, strconv.FormatUint(record.Revision, 10))
		}
		if err := h.changeWebhookTx(tx, &record, w); err != nil {
			return err
		}
		record.Revision, record.Updated = record.Revision+1, tx.Now()
		if err := errors.Join(webhookTable.Put(tx, key, record), h.webhookChangedTx(tx, w.ID, &record), h.auditTx(tx, c, opWebhookWrite, w.ID, nil)); err != nil {
			return err
		}
		out, err = h.showWebhook(tx, w.ID, record)
		out.Secret = secret
		return err
	})
	return out, err
}

// changeWebhookTx takes what a caller may set of a webhook.
func (h *Hub) changeWebhookTx(tx *storage.Tx, record *webhookRecord, w Webhook) error {
	if w.Headers != nil {
		record.HeaderNames, record.Headers = nil, nil
		if len(w.Headers) > 0 {
			text, err := marshal(w.Headers)
			if err != nil {
				return err
			}
			if record.Headers, err = h.db.Seal(text, "webhookheaders:"+w.ID); err != nil {
				return err
			}
			record.HeaderNames = slices.Sorted(maps.Keys(w.Headers))
		}
	}
	told := !record.wantsTelemetry() // it begins with the messages after this
	another := record.URL != w.URL || w.Headers != nil
	record.URL, record.Description, record.Devices, record.Kinds, record.Mode = w.URL, w.Description, w.Devices, w.Kinds, w.Mode
	state, err := webhookStateTable.Get(tx, storage.Tuple(w.ID))
	if err != nil {
		return err
	}
	if told && record.wantsTelemetry() {
		state.Message = h.db.Messages().Last()
	}
	if record.Disabled && w.Enabled || another { // the failures were those of the endpoint before
		state.begin()
	}
	record.Disabled = !w.Enabled
	if w.Enabled {
		record.Paused = ""
	}
	return webhookStateTable.Put(tx, storage.Tuple(w.ID), state)
}

// wantsTelemetry reports whether messages of devices are posted.
func (r webhookRecord) wantsTelemetry() bool {
	return len(r.Kinds) > 0 && matchesAny(r.Kinds, EventTelemetry)
}

// wants reports whether an event is posted. Telemetry must be asked for.
func (r webhookRecord) wants(e *Event) bool {
	return e.Kind == EventGap || len(r.Kinds) > 0 || e.Kind != EventTelemetry
}

func (h *Hub) newWebhookSecret(id string) (sealed []byte, secret string, err error) {
	random := make([]byte, webhookSecretBytes)
	if _, err := rand.Read(random); err != nil {
		return nil, "", err
	}
	sealed, err = h.db.Seal(random, "webhook:"+id)
	return sealed, webhookPrefix + base64.StdEncoding.EncodeToString(random), err
}

// RotateWebhookSecret gives a webhook a new secret, which is in the answer.
// The one before it also signs for overlap, 0 to 7 days. It needs HubManage.
func (h *Hub) RotateWebhookSecret(ctx context.Context, c Caller, id string, overlap time.Duration) (Webhook, error) {
	if err := h.authorize(ctx, c, opWebhookWrite, id); err != nil {
		return Webhook{}, err
	}
	if overlap < 0 || overlap > webhookOverlapMost {
		return Webhook{}, errf(CodeArgumentInvalid, "the overlap is %s; expected 0 to %s", overlap, webhookOverlapMost)
	}
	var out Webhook
	err := h.update(ctx, "rotate a webhook's secret", func(tx *storage.Tx) error {
		record, err := getWebhook(tx, id)
		if err != nil {
			return err
		}
		record.OldSealed, record.OldUntil = nil, time.Time{}
		if overlap > 0 {
			record.OldSealed, record.OldUntil = record.Sealed, tx.Now().Add(overlap)
		}
		var secret string
		if record.Sealed, secret, err = h.newWebhookSecret(id); err != nil {
			return err
		}
		record.Revision, record.Updated = record.Revision+1, tx.Now()
		if err := errors.Join(
			webhookTable.Put(tx, storage.Tuple(id), record), h.webhookChangedTx(tx, id, &record),
			h.auditTx(tx, c, opWebhookWrite, id, json.RawMessage(`{"secret":"rotated"}`)),
		); err != nil {
			return err
		}
		out, err = h.showWebhook(tx, id, record)
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
		tx.OnCommit(func(uint64) { h.webhooks.outdate(id, webhookVersion{}) })
		return errors.Join(webhookTable.Delete(tx, storage.Tuple(id)), webhookStateTable.Delete(tx, storage.Tuple(id)), h.auditTx(tx, c, opWebhookWrite, id, nil))
	})
}
