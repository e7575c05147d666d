package device

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// httpTime is how long a client may take to send its body, and then to take the answer.
const httpTime = 30 * time.Second

// HTTPHub is what the HTTPS device API needs of *engine.Hub.
type HTTPHub interface {
	AuthenticateDevice(ctx context.Context, cr engine.Credentials) (engine.Grant, error)
	SendTelemetry(ctx context.Context, g engine.Grant, list []engine.Message) error
	ReceiveMessage(ctx context.Context, g engine.Grant, lock time.Duration) (engine.QueuedMessage, bool, error)
	CompleteMessage(ctx context.Context, g engine.Grant, lockToken string) error
	AbandonMessage(ctx context.Context, g engine.Grant, lockToken string) error
	RejectMessage(ctx context.Context, g engine.Grant, lockToken string) error
	BeginUpload(ctx context.Context, g engine.Grant, name string) (engine.Upload, error)
	CompleteUpload(ctx context.Context, g engine.Grant, correlationID string, o engine.UploadOutcome) error
	AuthorizeUpload(ctx context.Context, t auth.UploadToken, blob string) (engine.UploadGrant, error)
	StageBlock(ctx context.Context, g engine.UploadGrant, block string, b engine.UploadBody) error
	PutUpload(ctx context.Context, g engine.UploadGrant, b engine.UploadBody) (engine.Stored, error)
	CommitBlocks(ctx context.Context, g engine.UploadGrant, ids []string, kind, encoding string) (engine.Stored, error)
	Limits() engine.Limits
	Fault(id engine.TwinID) (engine.Fault, bool)
	FaultLost()
}

// HTTPHandler serves IoT Hub's HTTPS device API, and the blobs that devices
// upload files to. It is safe for concurrent use.
type HTTPHandler struct {
	hub   HTTPHub
	codes map[engine.Code]wireCode
	blobs map[engine.Code]blobCode
	log   *slog.Logger
	count requestCounter
	pace  httpPace
	paced atomic.Int64

	chance func() float64 // as a Handler's
}

// NewHTTPHandler returns a handler of the hub's HTTPS device API; a nil logger
// discards.
func NewHTTPHandler(h HTTPHub, log *slog.Logger) *HTTPHandler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &HTTPHandler{hub: h, codes: wireCodes(), blobs: blobCodes(), log: log, chance: rand.Float64}
}

// Requests returns how many requests were answered, by operation and status.
func (h *HTTPHandler) Requests() []RequestCount { return h.count.snapshot() }

// httpPath is a path of the HTTPS device API.
type httpPath struct {
	id    engine.TwinID
	parts []string // below the identity, decoded
}

// parseHTTPPath splits an escaped path and decodes each segment once, so that
// an id may hold an escaped slash. Empty segments are skipped: the Java SDK
// doubles slashes, others end with one.
func parseHTTPPath(escaped string) (p httpPath, ok bool) {
	var parts []string
	for raw := range strings.SplitSeq(escaped, "/") {
		if raw == "" {
			continue
		}
		part, err := url.PathUnescape(raw)
		if err != nil || len(parts) > 8 {
			return p, false
		}
		parts = append(parts, part)
	}
	if len(parts) < 3 || !strings.EqualFold(parts[0], "devices") {
		return p, false
	}
	p.id.DeviceID, p.parts = parts[1], parts[2:]
	if strings.EqualFold(p.parts[0], "modules") {
		if len(p.parts) < 3 {
			return p, false
		}
		p.id.ModuleID, p.parts = p.parts[1], p.parts[2:]
	}
	return p, strings.EqualFold(p.parts[0], "files") || strings.EqualFold(p.parts[0], "messages") && len(p.parts) > 1 &&
		(strings.EqualFold(p.parts[1], "events") || strings.EqualFold(p.parts[1], "devicebound"))
}

// ServesHTTPPath reports whether an escaped path belongs to the HTTPS device
// API, or is that of a blob.
func ServesHTTPPath(escaped string) bool {
	if servesBlobPath(escaped) {
		return true
	}
	_, ok := parseHTTPPath(escaped)
	return ok
}

// ServeHTTP answers one request.
func (h *HTTPHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	giveTime(control)
	counted := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	var operation string
	if servesBlobPath(r.URL.EscapedPath()) {
		operation = h.serveBlob(counted, r)
	} else {
		var err error
		if operation, err = h.serve(counted, r); err != nil {
			h.fail(counted, err)
		}
	}
	h.count.add(operation, counted.status)
	_ = control.SetReadDeadline(time.Time{})
}

// giveTime bounds from now on how long a client may take.
func giveTime(control *http.ResponseController) {
	_ = control.SetReadDeadline(time.Now().Add(httpTime)) // not supported by test recorders
	_ = control.SetWriteDeadline(time.Now().Add(2 * httpTime))
}

// serve answers one request, or returns what is wrong with it. The operation is
// for counting.
func (h *HTTPHandler) serve(w http.ResponseWriter, r *http.Request) (operation string, err error) {
	operation = "other"
	p, ok := parseHTTPPath(r.URL.EscapedPath())
	if !ok {
		return operation, &engine.Error{Code: engine.CodeArgumentInvalid, Message: "the path is not one of the device API"}
	}
	g, err := h.hub.AuthenticateDevice(r.Context(), engine.Credentials{
		ID: p.id, Host: r.Host, Token: r.Header.Get("Authorization"), Protocol: protocolHTTPS, Address: r.RemoteAddr,
	})
	if err != nil {
		if e := engine.AsError(err); e.Code == engine.CodeUnauthorized {
			// The reason is for the log: a stranger does not learn what exists.
			return operation, &engine.Error{Code: e.Code, Message: "Unauthorized"}
		}
		return operation, err
	}
	if err := h.disturb(w, r, g.ID); err != nil {
		return operation, err
	}
	query := r.URL.Query()
	if _, err := time.Parse(time.DateOnly, strings.TrimSuffix(strings.ToLower(query.Get("api-version")), "-preview")); err != nil {
		return operation, badRequest("api-version is missing or not of the form YYYY-MM-DD; expected for example api-version=2021-04-12")
	}
	if strings.EqualFold(p.parts[0], "files") {
		return h.serveFiles(w, r, g, p.parts[1:])
	}
	rest := p.parts[2:]
	switch {
	case strings.EqualFold(p.parts[1], "events") && len(rest) == 0:
		if r.Method != http.MethodPost {
			return operation, notAllowed(w, r, http.MethodPost)
		}
		if err := h.wait(r.Context(), g.ID, r.RemoteAddr); err != nil {
			return "send", err
		}
		list, size, err := h.readEvents(w, r)
		if err == nil {
			limits := h.hub.Limits()
			h.pace.spend(g.ID, len(list), size, &limits, time.Now())
			err = h.hub.SendTelemetry(r.Context(), g, list)
		}
		return "send", noContent(w, err)
	case strings.EqualFold(p.parts[1], "events"):
		return operation, badRequest("nothing is below messages/events; POST the message there")
	case p.id.ModuleID != "":
		return operation, badRequest("modules have no cloud-to-device messages")
	case len(rest) == 0 && r.Method == http.MethodGet:
		return "receive", h.receive(w, r, g)
	case len(rest) == 0:
		return operation, notAllowed(w, r, http.MethodGet)
	}
	if err := sameToken(r.Header.Get("If-Match"), rest[0]); err != nil {
		return operation, err
	}
	abandon := len(rest) == 2 && strings.EqualFold(rest[1], "abandon")
	switch {
	case len(rest) > 1 && !abandon:
		return operation, badRequest("below a lock token there is only abandon")
	case abandon && r.Method == http.MethodPost:
		return "abandon", noContent(w, h.hub.AbandonMessage(r.Context(), g, rest[0]))
	case abandon:
		return operation, notAllowed(w, r, http.MethodPost)
	case r.Method != http.MethodDelete:
		return operation, notAllowed(w, r, http.MethodDelete)
	case query.Has("reject"):
		return "reject", noContent(w, h.hub.RejectMessage(r.Context(), g, rest[0]))
	}
	return "complete", noContent(w, h.hub.CompleteMessage(r.Context(), g, rest[0]))
}

// sameToken checks an If-Match header, with or without quotes, against the lock
// token in the path. Without one, or with *, the path decides alone.
func sameToken(ifMatch, token string) error {
	tag := strings.Trim(strings.TrimSpace(ifMatch), `"`)
	if tag == "" || tag == "*" || tag == token {
		return nil
	}
	return &engine.Error{Code: engine.CodePreconditionFailed, Message: "If-Match is not the lock token in the path; expected the same token, or no If-Match"}
}

// methodError says that a path does not take a method.
type methodError struct{ method, allowed string }

func (e *methodError) Error() string {
	return "the path takes " + e.allowed + ", not " + e.method
}

func notAllowed(w http.ResponseWriter, r *http.Request, allowed string) error {
	w.Header().Set("Allow", allowed)
	return &methodError{method: r.Method, allowed: allowed}
}

// receive hands out one message.
func (h *HTTPHandler) receive(w http.ResponseWriter, r *http.Request, g engine.Grant) error {
	var lock time.Duration
	if text := r.Header.Get("iothub-messagelocktimeout"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 3600 {
			return badRequest("iothub-messagelocktimeout is not a number of seconds from 5 to 300")
		}
		lock = time.Duration(n) * time.Second
	}
	m, found, err := h.hub.ReceiveMessage(r.Context(), g, lock)
	if err != nil || !found {
		return noContent(w, err)
	}
	head := w.Header()
	// Written as IoT Hub writes them, and not as Go would: Microsoft's client in C looks for names
	// with their case, and a property's name has one.
	set := func(name, value string) {
		if value != "" {
			head[name] = []string{headerText(value)}
		}
	}
	for _, p := range m.Properties {
		if headerName(p.Name) {
			set("iothub-app-"+p.Name, p.Value)
		}
	}
	set("iothub-messageid", m.MessageID)
	set("iothub-correlationid", m.CorrelationID)
	set("iothub-userid", m.UserID)
	set("iothub-to", "/devices/"+url.PathEscape(g.ID.DeviceID)+"/messages/deviceBound")
	set("iothub-ack", m.Ack)
	set("iothub-enqueuedtime", m.Enqueued.UTC().Format(timestampLayout))
	if !m.Expires.IsZero() {
		set("iothub-expiry", m.Expires.UTC().Format(timestampLayout))
	}
	set("iothub-sequencenumber", strconv.FormatUint(m.Sequence, 10))
	set("iothub-deliverycount", strconv.Itoa(max(m.Deliveries-1, 0)))
	set("ContentEncoding", m.ContentEncoding)
	head.Set("Content-Type", "application/octet-stream")
	set("Content-Type", m.ContentType)
	set("ContentType", m.ContentType)
	head.Set("X-Content-Type-Options", "nosniff")
	set("ETag", `"`+m.LockToken+`"`)
	head.Set("Content-Length", strconv.Itoa(len(m.Body)))
	_, _ = w.Write(m.Body) // a client that is gone gets the message again when its lock ends
	return nil
}

// headerText percent-encodes what a header can't carry.
func headerText(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return s
	}
	return url.PathEscape(s)
}

// headerName reports whether s can stand in the name of a header.
func headerName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.!#$&'*+^|~", r)
	}) < 0
}

// noContent answers 204 unless there is an error.
func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

const (
	batchType     = "application/vnd.microsoft.iothub.json"
	batchMessages = 500
)

// readEvents reads the messages of a request, one or a batch. size is that of
// its body.
func (h *HTTPHandler) readEvents(w http.ResponseWriter, r *http.Request) (list []engine.Message, size int, err error) {
	most := int64(h.hub.Limits().MessageBytes)
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	batch := strings.EqualFold(strings.TrimSpace(kind), batchType)
	if batch {
		most *= 2 // base64 and the envelope
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, 0, &engine.Error{Code: engine.CodeTooLarge, Message: fmt.Sprintf("the body is larger than %d bytes", most)}
	}
	if err != nil {
		return nil, 0, badRequest("the body ended before it was complete")
	}
	if batch {
		list, err = parseBatch(body)
		return list, len(body), err
	}
	m := engine.Message{Body: body, QoS: 1}
	for name, values := range r.Header {
		if err := addHeader(&m, strings.ToLower(name), values[0]); err != nil {
			return nil, 0, err
		}
	}
	slices.SortFunc(m.Properties, func(a, b engine.Property) int { return strings.Compare(a.Name, b.Name) })
	return []engine.Message{m}, len(body), nil
}

// httpSystem are the headers of system properties with the names that the hub gives them.
func httpSystem(name string) string {
	switch name {
	case "iothub-messageid":
		return "message-id"
	case "iothub-correlationid":
		return "correlation-id"
	case "iothub-userid":
		return "user-id"
	case "iothub-to":
		return "to"
	case "iothub-contenttype":
		return "content-type"
	case "iothub-contentencoding":
		return "content-encoding"
	case "iothub-creation-time-utc":
		return "creation-time-utc"
	case "iothub-interface-id":
		return "interface-id"
	case "dt-subject":
		return "dt-subject"
	}
	return ""
}

// addHeader takes a header or a property of a batch's message, if it is one of
// a message. The name of an application property keeps its case: that of a header has none, and
// comes in lower case.
func addHeader(m *engine.Message, name, value string) error {
	const app = "iothub-app-"
	if len(name) > len(app) && strings.EqualFold(name[:len(app)], app) {
		if m.Properties = setProperty(m.Properties, engine.Property{Name: name[len(app):], Value: value}); len(m.Properties) > maxProperties {
			return badRequest(fmt.Sprintf("the message has more than %d properties", maxProperties))
		}
	} else if system := httpSystem(strings.ToLower(name)); system != "" {
		m.System = setProperty(m.System, engine.Property{Name: system, Value: value})
	}
	return nil
}

// parseBatch reads a batch: an array of bodies, in base64 unless they say otherwise.
func parseBatch(data []byte) ([]engine.Message, error) {
	var items []struct {
		Body       string            `json:"body"`
		Base64     *bool             `json:"base64Encoded"`
		Properties map[string]string `json:"properties"`
	}
	if !utf8.Valid(data) { // the decoder would store something else than was sent
		return nil, &engine.Error{Code: engine.CodeFormat, Message: "the batch is not UTF-8; send bodies that are not text in base64"}
	}
	if err := json.Unmarshal(data, &items); err != nil || len(items) == 0 {
		return nil, &engine.Error{Code: engine.CodeFormat, Message: "the batch is not a JSON array of objects with body, base64Encoded and properties"}
	}
	if len(items) > batchMessages {
		return nil, badRequest(fmt.Sprintf("the batch has %d messages, at most %d are allowed", len(items), batchMessages))
	}
	list := make([]engine.Message, 0, len(items))
	for i, item := range items {
		m := engine.Message{Body: []byte(item.Body), QoS: 1}
		if item.Base64 == nil || *item.Base64 {
			raw, err := base64.StdEncoding.DecodeString(item.Body)
			if err != nil {
				return nil, badRequest(fmt.Sprintf("the body of message %d of the batch is not base64; send it so, or with base64Encoded false", i+1))
			}
			m.Body = raw
		}
		for name, value := range item.Properties {
			if err := addHeader(&m, name, value); err != nil {
				return nil, err
			}
		}
		slices.SortFunc(m.Properties, func(a, b engine.Property) int { return strings.Compare(a.Name, b.Name) })
		list = append(list, m)
	}
	return list, nil
}

func badRequest(text string) error {
	return &engine.Error{Code: engine.CodeArgumentInvalid, Message: text}
}

// fail sends an error in IoT Hub's form.
func (h *HTTPHandler) fail(w http.ResponseWriter, err error) {
	if e, ok := errors.AsType[*methodError](err); ok {
		writeHTTPError(w, wireCode{status: http.StatusMethodNotAllowed, number: 405000}, "GenericMethodNotAllowed", e.Error())
		return
	}
	e := engine.AsError(err)
	c, ok := h.codes[e.Code]
	if !ok {
		c = h.codes[engine.CodeInternal]
	}
	writeHTTPError(w, c, e.Code.String(), e.Message)
}

func writeHTTPError(w http.ResponseWriter, c wireCode, name, message string) {
	_, tracking := newErrorBody(c.number, message, time.Now())
	body, _ := json.Marshal(struct { // strings always marshal
		Message          string `json:"Message"`
		ExceptionMessage string `json:"ExceptionMessage"`
	}{"ErrorCode:" + name + ";" + message, "Tracking ID:" + tracking})
	head := w.Header()
	head.Set("Content-Type", "application/json; charset=utf-8")
	head["iothub-errorcode"] = []string{name}
	if c.status == http.StatusTooManyRequests || c.status == http.StatusServiceUnavailable {
		head.Set("Retry-After", "10")
	}
	w.WriteHeader(c.status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}
