package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// Times that a request may take beside what its handler waits for.
const (
	bodyTime   = 30 * time.Second // for the client to send its body
	answerTime = 30 * time.Second // for the client to take the answer
	auditTime  = 10 * time.Minute // for the walk through the whole audit chain
)

// What a hub that was restored and not resumed adds to the answers of the routes
// whose work it holds back: they succeed, and nothing happens.
const (
	heldField = "Muster-Held"
	heldText  = "the hub was restored and is not resumed: it is stored and held back until `muster resume --data DIR`, while deadlines and expiry times go on"
)

// Options configure a Handler. The zero value is usable.
type Options struct {
	Logger    *slog.Logger          // nil = discard
	Registry  prometheus.Registerer // where the metrics of Metrics are registered; nil = nowhere
	Listeners func() []Listener     // where the hub listens, for GET /api/v1/hub; nil = not shown
}

// Handler serves the REST API of one hub. It is safe for concurrent use.
type Handler struct {
	hub       *engine.Hub
	log       *slog.Logger
	routes    *router
	metrics   *metrics
	replays   *replays
	rates     *rates
	openapi   []byte
	listeners func() []Listener
	streams   *streams
}

// NewHandler returns a handler of the hub's REST API. It panics when the
// route table contradicts itself, which a test excludes.
func NewHandler(hub *engine.Hub, o Options) *Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	table := routes()
	h := &Handler{
		hub:       hub,
		log:       o.Logger,
		routes:    newRouter(table),
		metrics:   newMetrics(o.Registry),
		replays:   newReplays(),
		rates:     newRates(),
		openapi:   describe(table),
		listeners: o.Listeners,
		streams:   newStreams(),
	}
	h.registerStreams(o.Registry)
	return h
}

type localKey struct{}

// WithLocal returns a context whose requests act as p unless they carry an
// Authorization header of their own. The listener of the hub's unix socket
// sets it, after looking at the peer's user id.
func WithLocal(ctx context.Context, p auth.Principal) context.Context {
	return context.WithValue(ctx, localKey{}, p)
}

func localPrincipal(ctx context.Context) (auth.Principal, bool) {
	p, ok := ctx.Value(localKey{}).(auth.Principal)
	return p, ok
}

// call is one request on its way through the handler.
type call struct {
	*Handler
	w         *recorder
	r         *http.Request
	route     *route
	params    []string // decoded path parameters, in the pattern's order
	path      string   // decoded, literals in the table's spelling
	query     url.Values
	caller    engine.Caller
	requestID string
	shape     shape
}

// answer is what a handler wants sent. A nil body sends none.
type answer struct {
	status int // 0: 200
	body   any
	etag   string // without quotes; empty: no header
	header map[string]string
	sent   bool // the handler has written it already
}

// recorder notes what was sent, for metrics and for the panic handler.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP answers one request. Nothing it receives makes it panic: a defect
// in a handler is logged and answered as an internal error.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if strings.HasPrefix(r.URL.Path, containersPath) {
		rec := &recorder{ResponseWriter: w}
		label := h.serveBlob(rec, r)
		h.metrics.observe(label, rec.status, time.Since(start))
		return
	}
	c := h.begin(w, r)
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // the value itself is the signal
				panic(v)
			}
			h.log.ErrorContext(r.Context(), "request handler panicked", slog.Any("panic", v),
				slog.String("request_id", c.requestID), slog.String("stack", string(debug.Stack())))
			if c.w.status == 0 {
				c.fail(&engine.Error{Code: engine.CodeInternal, Message: "internal error"})
			}
		}
		label := "other"
		if c.route != nil {
			label = c.route.label()
		}
		h.metrics.observe(label, c.w.status, time.Since(start))
	}()

	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// begin sets what every answer has.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request) *call {
	c := &call{Handler: h, w: &recorder{ResponseWriter: w}, r: r, requestID: requestID(r.Header), shape: shapeOf(r.URL.Path)}
	head := w.Header()
	if r.ContentLength != 0 {
		// Whatever a handler leaves unread, net/http reads before it answers.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // not supported by test recorders
	}
	head["x-ms-request-id"] = []string{c.requestID}
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	return c
}

// DenyCrossOrigin answers a request that a browser sent for a page of another
// origin, in the shape of the path's API. It is for
// http.CrossOriginProtection's SetDenyHandler.
func (h *Handler) DenyCrossOrigin(w http.ResponseWriter, r *http.Request) {
	h.begin(w, r).fail(crossOrigin())
	h.metrics.observe("other", http.StatusForbidden, 0)
}

func crossOrigin() error {
	return &failure{status: http.StatusForbidden, number: 403000, name: "GenericForbidden", code: "CrossOrigin",
		text: "the request comes from a page of another origin", next: "Send it from a program, or from a page of this hub."}
}

// serve matches, authenticates and runs the route.
func (c *call) serve() error {
	method, err := effectiveMethod(c.r)
	if err != nil {
		return err
	}
	m, err := c.routes.match(method, c.r.URL.EscapedPath())
	if err != nil {
		return err
	}
	c.route, c.params, c.path, c.shape = m.route, m.params, m.path, m.route.shape
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return invalid("the query string cannot be read; expected NAME=VALUE pairs, percent-encoded and separated by &")
	}
	principal, err := c.authenticate()
	if err != nil {
		return err
	}
	c.caller = engine.Caller{Principal: principal, RequestID: c.requestID, Address: remoteAddress(c.r)}
	if c.route.shape != shapeProblem {
		if err := checkVersion(c.query); err != nil {
			return err
		}
	}
	if c.route.later != "" {
		return c.notBuilt()
	}
	if c.route.held && c.hub.Paused() {
		c.w.Header().Set(heldField, heldText)
	}
	if c.route.idempotent {
		return c.serveOnce()
	}
	a, err := c.handle()
	if err != nil {
		return err
	}
	return c.send(a)
}

// handle runs the route. Who lacks its permission is told that, and not what
// is wrong with the request: an error that came before the engine was asked
// gives way to the refusal that the engine would have made.
func (c *call) handle() (answer, error) {
	var a answer
	err := c.checkQuery()
	if err == nil {
		err = c.takeEpoch()
	}
	if err == nil {
		a, err = c.route.handle(c)
	}
	if p, ok := a.body.(paged); ok {
		a.body = p.inEpoch(c.cursorPrefix())
	}
	if err != nil && c.route.permission != 0 && !c.caller.Permissions.Has(c.route.permission) {
		if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.CodeForbidden {
			return a, c.refused()
		}
	}
	return a, err
}

// checkQuery refuses a parameter that a route of Muster's own does not take: a
// filter that is misspelled would let everything pass. IoT Hub's paths ignore it,
// as IoT Hub does.
func (c *call) checkQuery() error {
	if c.route.shape != shapeProblem {
		return nil
	}
	_, lists := c.route.response.(paged)
	for _, name := range slices.Sorted(maps.Keys(c.query)) {
		if name == "api-version" { // clients of IoT Hub's paths send it with all that they ask
			continue
		}
		if lists && (name == "limit" || name == "cursor") { // also of those that are short, and given whole
			continue
		}
		if slices.ContainsFunc(c.route.query, func(p parameter) bool { return p.name == name }) {
			continue
		}
		known := make([]string, len(c.route.query))
		for i, p := range c.route.query {
			known[i] = p.name
		}
		if len(known) == 0 {
			return invalid("the query parameter %.80q is not known; there is none here", name)
		}
		return invalid("the query parameter %.80q is not known; expected one of %s", name, strings.Join(known, ", "))
	}
	return nil
}

// refused says that the caller lacks the route's permission.
func (c *call) refused() error {
	return &engine.Error{Code: engine.CodeForbidden, Message: fmt.Sprintf("%s needs the permission %s, which %s does not have", c.route.label(), c.route.permission, c.caller.Principal)}
}

// authenticate returns who asks: by the Authorization header, or by the local
// socket when there is none.
func (c *call) authenticate() (auth.Principal, error) {
	header := c.r.Header.Get("Authorization")
	if header == "" {
		if p, ok := localPrincipal(c.r.Context()); ok {
			return p, nil
		}
	}
	p, err := c.hub.AuthenticateService(c.r.Context(), engine.Caller{RequestID: c.requestID, Address: remoteAddress(c.r)}, header, c.path)
	if err != nil {
		c.log.DebugContext(c.r.Context(), "authentication refused", slog.Any("error", err),
			slog.String("request_id", c.requestID), slog.String("address", remoteAddress(c.r)))
	}
	return p, err
}

// notBuilt answers a path of IoT Hub that this hub does not serve yet. The
// permission is checked here, since there is no engine call that would.
func (c *call) notBuilt() error {
	if !c.caller.Permissions.Has(c.route.permission) {
		return c.refused()
	}
	return &failure{status: http.StatusNotFound, number: 404000, name: "GenericNotFound", code: "NotBuiltYet",
		text: "this hub does not serve " + c.route.later + " yet",
		next: "See the compatibility page for what is served."}
}

// effectiveMethod returns the request's method, or the one that a client
// without PATCH asks for. HEAD is served as GET; net/http drops the body.
func effectiveMethod(r *http.Request) (string, error) {
	if r.Method == http.MethodHead {
		return http.MethodGet, nil
	}
	override := r.Header.Get("X-Http-Method-Override")
	if override == "" || strings.EqualFold(override, r.Method) {
		return r.Method, nil
	}
	if r.Method == http.MethodPost && strings.EqualFold(override, http.MethodPatch) {
		return http.MethodPatch, nil
	}
	return "", invalid("X-HTTP-Method-Override may turn POST into PATCH and nothing else")
}

// checkVersion asks for an api-version and takes every well-formed one:
// YYYY-MM-DD, or that with -preview.
func checkVersion(q url.Values) error {
	list, ok := q["api-version"]
	if !ok || list[0] == "" {
		return &engine.Error{Code: engine.CodeArgumentNull, Message: "the query parameter api-version is missing; expected for example api-version=2021-04-12"}
	}
	v := strings.TrimSuffix(strings.ToLower(list[0]), "-preview")
	if _, err := time.Parse(time.DateOnly, v); err != nil {
		return invalid("api-version is not of the form YYYY-MM-DD; expected for example api-version=2021-04-12")
	}
	return nil
}

// remoteAddress returns the peer's address without its port.
func remoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
