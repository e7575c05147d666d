package protocols

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/console"
	"github.com/muster-hub/muster/protocols/device"
)

// retryAfter is what a client that meets a hub that isn't ready should wait, in
// seconds.
const retryAfter = 5

// newRoutes sends each request to its edge. It looks at the escaped path: a
// device id may hold an escaped slash.
func (s *Server) newRoutes() http.Handler {
	page := console.NewHandler()
	metrics := promhttp.HandlerFor(s.o.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	// A browser that shows somebody else's page must not change anything here,
	// whatever that page knows. Requests of programs carry neither Origin nor
	// Sec-Fetch-Site and pass.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(s.service.DenyCrossOrigin))
	rest := guard.Handler(s.service)
	return s.certs.challenge(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.EscapedPath()
		switch {
		case isDevicePath(path, r):
			// The device edge says when CONNECT is accepted.
			if k, _ := r.Context().Value(knockKey{}).(*knock); k != nil {
				k.handOver()
			}
			s.device.ServeHTTP(w, r)
		case device.ServesHTTPPath(path):
			s.web.ServeHTTP(&vouched{ResponseWriter: w, server: s, request: r}, r)
		case path == "/healthz":
			s.public(r)
			if onlyRead(w, r) {
				healthz(w)
			}
		case path == "/readyz":
			s.public(r)
			if onlyRead(w, r) {
				s.readyz(w)
			}
		case path == "/metrics":
			if !onlyRead(w, r) {
				s.public(r)
				return
			}
			if !s.mayReadMetrics(r) {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "/metrics needs a bearer token (--metrics-token-file) or a token of a policy with StatusRead", http.StatusUnauthorized)
				return
			}
			s.vouch(r)
			metrics.ServeHTTP(w, r)
		case page.Serves(path):
			s.public(r)
			page.ServeHTTP(w, r)
		default:
			rest.ServeHTTP(&vouched{ResponseWriter: w, server: s, request: r}, r)
		}
	}))
}

// isDevicePath reports whether a request is a device's WebSocket: at IoT Hub's
// path in any spelling, or an upgrade at the paths that plain MQTT clients use.
func isDevicePath(path string, r *http.Request) bool {
	switch p := strings.ToLower(strings.TrimSuffix(path, "/")); p {
	case "/$iothub/websocket", "/%24iothub/websocket":
		return true
	case "", "/mqtt":
		return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	}
	return false
}

// vouch says that the request's connection is no stranger any more.
func (s *Server) vouch(r *http.Request) {
	if k, _ := r.Context().Value(knockKey{}).(*knock); k != nil {
		k.Authenticated()
	}
}

// public lets the connection live on, as a stranger: it gives way when there
// is no room.
func (s *Server) public(r *http.Request) {
	if k, _ := r.Context().Value(knockKey{}).(*knock); k != nil {
		k.tolerate()
	}
}

// refused counts wrong credentials. While the address is slowed for them, each
// further attempt takes a new connection.
func (s *Server) refused(r *http.Request, answer http.Header) {
	s.public(r)
	if k, _ := r.Context().Value(knockKey{}).(*knock); k != nil && k.Refused() {
		answer.Set("Connection", "close")
	}
}

// vouched watches the status of a REST answer: one that isn't a refusal
// vouches for the connection.
type vouched struct {
	http.ResponseWriter
	server  *Server
	request *http.Request
	done    bool
}

// WriteHeader sends the status.
func (v *vouched) WriteHeader(status int) {
	if !v.done {
		v.done = true
		switch status {
		case http.StatusUnauthorized:
			v.server.refused(v.request, v.Header())
		case http.StatusForbidden, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed:
			v.server.public(v.request)
		default:
			v.server.vouch(v.request)
		}
	}
	v.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (v *vouched) Write(b []byte) (int, error) {
	if !v.done {
		v.done = true
		v.server.vouch(v.request)
	}
	return v.ResponseWriter.Write(b)
}

// Hijack hands the connection to a stream: whoever may have one is no stranger.
func (v *vouched) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !v.done {
		v.done = true
		v.server.vouch(v.request)
	}
	return http.NewResponseController(v.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach the connection.
func (v *vouched) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// onlyRead refuses a request that is no read of a document. A probe with the
// wrong method is a mistake, which a 200 would hide.
func onlyRead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, r.URL.Path+" is only read; use GET or HEAD", http.StatusMethodNotAllowed)
	return false
}

func healthz(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n")) // a client that has gone needs no answer
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready   bool           `json:"ready"`
	Reasons []string       `json:"reasons"`
	Queries queryReadiness `json:"queries"`
}

// queryReadiness says how far queries are: they come a little after the hub
// itself, and until then are answered with 503.
type queryReadiness struct {
	Ready bool  `json:"ready"`
	Rows  int64 `json:"rows"` // read so far
	Total int64 `json:"total"`
}

// readyz says whether devices and reads are served. It costs no I/O.
func (s *Server) readyz(w http.ResponseWriter) {
	answer, status := readiness{Ready: true, Reasons: []string{}}, http.StatusOK
	if err := s.hub.Ready(); err != nil {
		answer, status = readiness{Reasons: []string{engine.AsError(err).Message}}, http.StatusServiceUnavailable
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	p := s.hub.QueryProgress()
	answer.Queries = queryReadiness{p.Ready, p.Done, p.Total}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a client that has gone needs no answer
}

// mayReadMetrics lets in this machine, the holder of the metrics token, and
// whoever may read the status. A request that a proxy forwarded is not this
// machine's, although it comes from here.
func (s *Server) mayReadMetrics(r *http.Request) bool {
	if local, _ := r.Context().Value(localKey{}).(bool); local {
		return true
	}
	header := r.Header.Get("Authorization")
	if token, ok := strings.CutPrefix(header, "Bearer "); ok && *s.metricsToken.Load() != "" {
		return subtle.ConstantTimeCompare([]byte(token), []byte(*s.metricsToken.Load())) == 1
	}
	if header != "" {
		p, err := s.hub.AuthenticateService(context.WithoutCancel(r.Context()), engine.Caller{Address: r.RemoteAddr}, header, "/metrics")
		return err == nil && p.Permissions.Has(auth.StatusRead)
	}
	return isLoopback(r.RemoteAddr) && s.isOwnHost(r.Host) && !forwarded(r.Header)
}

func isLoopback(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// isOwnHost guards against a foreign name that was made to resolve to this
// machine, with which a web page could read what only this machine may.
func (s *Server) isOwnHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(host, "localhost") || slices.ContainsFunc(s.o.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

func forwarded(h http.Header) bool {
	return h.Get("Forwarded") != "" || h.Get("X-Forwarded-For") != "" || h.Get("X-Real-Ip") != "" || h.Get("Via") != ""
}

// passes reports whether an accept failed for a reason that passes: the process
// or the system is out of something, or the peer has gone already.
func passes(err error) bool {
	for _, passing := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}
