package protocols

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/device"
	"github.com/muster-hub/muster/protocols/service"
	"github.com/muster-hub/muster/protocols/wire"
)

// Limits of the HTTP servers. There is no write timeout: a direct method may
// take ten minutes, and the edges set deadlines request by request.
const (
	readHeaderTime = 10 * time.Second
	// The service SDKs keep connections and never retry after a reset, so that
	// an idle one must live longer than the gaps between their calls.
	idleTime       = 10 * time.Minute
	maxHeaderBytes = 32 << 10
	// A session takes this long to be told at shutdown when there are few:
	// pacing is for fleets, and a small one should not wait for it.
	drainPerSession = 5 * time.Millisecond
	// methodShare of the drain time is for direct methods to end, before any session is told to leave.
	methodShare = 2
)

// Listener is an address on which the server accepts connections.
type Listener struct {
	Kind    string // "https", "mqtts" or "http"
	Address string // as bound: HOST:PORT
}

// Server accepts connections for one hub. Listen makes it, Serve runs it.
type Server struct {
	o       Options
	hub     *engine.Hub
	certs   *certificates
	gate    *admission
	device  *device.Handler
	web     *device.HTTPHandler
	service *service.Handler
	debug   *debugHandler
	routes  http.Handler
	socket  *net.UnixListener
	open    []openListener
	conns   sync.WaitGroup // handshakes, and what follows on the same goroutine
	heads   wire.Buffers   // for first requests
	manager *manager

	metricsToken atomic.Pointer[string] // "" = none
}

type openListener struct {
	Listener
	socket net.Listener
}

// Listen opens every listener and the unix socket, and loads or makes the
// certificates. Connections wait in the system's queue until Serve. An address
// that can't be opened is a *ListenError.
func Listen(ctx context.Context, hub *engine.Hub, o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, hub: hub, gate: newAdmission(strangersPerAddress, strangersAll)}
	if s.certs, err = openCertificates(o); err != nil {
		return nil, err
	}
	for _, group := range []struct {
		kind      string
		addresses []string
	}{{"https", o.HTTPS}, {"mqtts", o.MQTTS}, {"http", o.HTTP}} {
		for _, a := range group.addresses {
			l, err := listen(ctx, "--"+group.kind, a)
			if err != nil {
				return nil, errors.Join(err, s.closeListeners())
			}
			s.open = append(s.open, openListener{Listener{group.kind, l.Addr().String()}, l})
		}
	}
	if s.socket, err = listenSocket(ctx, o.Socket); err != nil {
		return nil, errors.Join(err, s.closeListeners())
	}
	s.web = device.NewHTTPHandler(hub, o.Logger)
	s.device = device.NewHandler(hub, device.Options{Logger: o.Logger, Authenticated: s.leaveGate, Refused: s.countRefusal})
	s.service = service.NewHandler(hub, service.Options{Logger: o.Logger, Registry: o.Registry, Listeners: s.describe})
	o.Registry.MustRegister(newCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.debug = newDebugHandler(o.LogLevel, o.Logger)
	if o.Inside != nil {
		for name, h := range o.Inside(s) {
			s.debug.mux.Handle("GET /debug/"+name, h)
		}
	}
	s.routes = s.newRoutes()
	s.manager = s.newManager(o)
	s.metricsToken.Store(&o.MetricsToken)
	return s, nil
}

// Listeners returns where the server listens.
func (s *Server) Listeners() []Listener {
	list := make([]Listener, 0, len(s.open))
	for _, l := range s.open {
		list = append(list, l.Listener)
	}
	return list
}

func (s *Server) describe() []service.Listener {
	list := make([]service.Listener, 0, len(s.open))
	for _, l := range s.open {
		list = append(list, service.Listener{Kind: l.Kind, Address: l.Address})
	}
	return list
}

// Authority returns the file of the hub's own CA certificate and its SHA-256;
// both are empty when the certificate was given as files.
func (s *Server) Authority() (file, fingerprint string) {
	a := s.certs.authority.Load()
	if a == nil {
		return "", ""
	}
	return filepath.Join(s.certs.dir, authorityCert), a.fingerprint()
}

// CertificateTroubles says of which certificate the last renewal or reload
// failed, and why: "file" of --cert, "own" of those that the hub signs, else a
// name that ACME is asked for. The former certificate of each stays in use.
func (s *Server) CertificateTroubles() map[string]string {
	list := s.certs.troubles()
	maps.DeleteFunc(list, func(_, why string) bool { return why == "" })
	return list
}

func (s *Server) closeListeners() error {
	var errs []error
	for _, l := range s.open {
		errs = append(errs, l.socket.Close())
	}
	if s.socket != nil {
		errs = append(errs, s.socket.Close())
	}
	return errors.Join(errs...)
}

// Close gives up a server that Serve was never called for.
func (s *Server) Close() error { return errors.Join(s.closeListeners(), s.device.Close()) }

// Serve accepts connections until ctx ends, then drains: no new connection,
// sessions told to leave in a paced way, running requests finished up to the
// grace time. It returns when nothing of it runs any more; the hub is still
// open then. A listener that fails ends the server with its error.
func (s *Server) Serve(ctx context.Context) error {
	accepting, stop := context.WithCancel(context.WithoutCancel(ctx)) // drain says when
	defer stop()
	failed := make(chan error, len(s.open)+1)
	var wg sync.WaitGroup
	web, local := s.newHTTPServer(), s.newSocketServer()
	serve := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, errShutdown) {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	for _, l := range s.open {
		gated := &gatedListener{Listener: l.socket, gate: s.gate, paced: l.Kind != "http"}
		what := l.Kind + " listener on " + l.Address
		switch l.Kind {
		case "https":
			rest := newHandover(s.secure(gated, "http/1.1"))
			serve(what, func() error { return s.serveHTTPS(accepting, rest) })
			serve(what, func() error { return web.Serve(rest) })
		case "http":
			serve(what, func() error { return web.Serve(gated) })
		case "mqtts":
			serve(what, func() error { return s.serveMQTT(accepting, s.secure(gated)) })
		}
	}
	serve("unix socket "+s.o.Socket, func() error { return local.Serve(s.socket) })
	wg.Go(func() { s.certs.watch(accepting) })
	if s.certs.acme != nil {
		wg.Go(func() { s.certs.acme.run(accepting) })
	}
	told, quiet := context.WithCancel(context.WithoutCancel(ctx)) // the watchdog bites during the drain, too
	defer quiet()
	wg.Go(func() { s.manager.run(told) })
	s.manager.ready(ctx)

	var cause error
	select {
	case <-ctx.Done():
	case cause = <-failed:
	}
	err := s.drain(context.WithoutCancel(ctx), stop, web, local)
	quiet()
	wg.Wait()
	s.conns.Wait()
	s.debug.close()
	return errors.Join(cause, err, s.device.Close())
}

// Reload reads the files of --cert and --key again and takes another metrics
// token, and tells the service manager. Of what can't be read the former stays in
// use, and the error tells of each. It needs Serve to run; safe for concurrent
// use.
func (s *Server) Reload(ctx context.Context, metricsToken func() (string, error)) error {
	s.manager.reloading(ctx)
	defer s.manager.ready(ctx)
	token, err := metricsToken()
	if err == nil {
		s.metricsToken.Store(&token)
	}
	return errors.Join(err, s.certs.reload(ctx))
}

// drain lets everybody leave in order. It calls stop when nobody new is to come.
func (s *Server) drain(ctx context.Context, stop func(), web, local *http.Server) error {
	start := time.Now()
	s.hub.Drain()
	stats := s.device.Stats()
	spread := min(s.o.DrainTime, time.Duration(stats.Sessions+stats.Pending)*drainPerSession)
	calls, patience := s.hub.MethodsSent(), time.Duration(0)
	if calls > 0 {
		patience = s.o.DrainTime / methodShare
		spread = min(spread, s.o.DrainTime-patience)
	}
	s.manager.stopping(ctx, stats.Sessions, patience+spread+s.o.GraceTime)
	s.o.Logger.Info("shutting down", slog.Int64("sessions", stats.Sessions), slog.Int64("methods", calls), slog.Duration("drain", patience+spread))
	s.awaitMethods(ctx, patience)
	s.gate.shutDown()
	stop()
	ctx, cancel := context.WithTimeout(ctx, spread+s.o.GraceTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, l := range s.open {
		if l.Kind == "mqtts" {
			_ = l.socket.Close() // its accept loop ends with net.ErrClosed
		}
	}
	wg.Go(func() {
		sessions, cancel := context.WithTimeout(ctx, spread)
		defer cancel()
		if err := s.device.Drain(sessions); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.o.Logger.Warn("sessions not drained", slog.Any("error", err))
		}
	})
	wg.Go(func() { s.service.Drain(ctx) })
	for _, server := range []*http.Server{web, local} {
		wg.Go(func() {
			if err := server.Shutdown(ctx); err != nil {
				s.o.Logger.Warn("requests cut at the end of the grace time", slog.Any("error", err))
				_ = server.Close() // what is left has had its time
			}
		})
	}
	wg.Wait()
	s.o.Logger.Info("drained", slog.Duration("took", time.Since(start)))
	return nil
}

// awaitMethods gives direct methods under way time to end. Meanwhile all listeners
// answer, so that a load balancer sees /readyz turn red before it finds nobody.
func (s *Server) awaitMethods(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.hub.AwaitMethods(ctx)
	if left := s.hub.MethodsSent(); left > 0 {
		s.o.Logger.Warn("direct methods are cut", slog.Int64("methods", left), slog.Duration("after", patience))
	}
}

// secure puts TLS on a gated listener.
func (s *Server) secure(l *gatedListener, protos ...string) net.Listener {
	return tls.NewListener(l, s.certs.config(protos, func(info *tls.ClientHelloInfo) error {
		if k, ok := info.Conn.(*knock); ok {
			return k.hello()
		}
		return nil
	}))
}

// serveMQTT hands connections to the device edge once their handshake is done.
func (s *Server) serveMQTT(ctx context.Context, l net.Listener) error {
	return s.accept(ctx, l, func(c *tls.Conn, begun func() bool) {
		begun()
		if k := knockOf(c); k != nil {
			k.handOver()
		}
		_ = c.SetDeadline(time.Time{}) // a failure shows in the next read
		s.device.ServeConn(ctx, c)
	})
}

// accept does the handshakes of what a listener accepts, each on a goroutine
// that then serves the connection. When ctx ends before serve has called begun,
// the connection is closed, and begun returns false.
func (s *Server) accept(ctx context.Context, l net.Listener, serve func(c *tls.Conn, begun func() bool)) error {
	pause := time.Millisecond
	for {
		c, err := l.Accept()
		if err != nil {
			if !passes(err) {
				return err
			}
			// Out of file descriptors, most likely: connections that end free some.
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return errShutdown
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		secure, ok := c.(*tls.Conn)
		if !ok {
			_ = c.Close() // never happens: the listener is tls.NewListener's
			continue
		}
		s.conns.Go(func() {
			growStack()
			// Instead of a context for the handshake, which would cost it a goroutine.
			begun := context.AfterFunc(ctx, func() { _ = secure.NetConn().Close() })
			defer begun()
			defer func() {
				if v := recover(); v != nil { // no client may end the hub
					s.o.Logger.Error("a connection failed", slog.String("address", c.RemoteAddr().String()), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
					_ = c.Close()
				}
			}()
			if err := s.handshake(secure); err != nil {
				s.o.Logger.Debug("handshake refused", slog.String("address", c.RemoteAddr().String()), slog.Any("error", err))
				_ = c.Close()
				return
			}
			serve(secure, begun)
		})
	}
}

func (s *Server) handshake(c *tls.Conn) error {
	// The gate puts it off while the hub lets the client wait.
	_ = c.SetDeadline(time.Now().Add(handshakeTime)) // a failure shows in the handshake
	k := knockOf(c)
	if k != nil {
		k.shake()
	}
	err := c.HandshakeContext(context.Background())
	refusePlain(err)
	if k != nil {
		k.shook(err != nil)
	}
	return err
}

// leaveGate says that a connection is no stranger any more.
func (s *Server) leaveGate(c net.Conn) {
	if k := knockOf(c); k != nil {
		k.Authenticated()
	}
}

// countRefusal says that a connection showed wrong credentials.
func (s *Server) countRefusal(c net.Conn) {
	if k := knockOf(c); k != nil {
		k.Refused()
	}
}

// knockOf returns the admitted connection below TLS, or nil.
func knockOf(c net.Conn) *knock {
	if again, ok := c.(*begunConn); ok {
		c = again.Conn
	}
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	k, _ := c.(*knock)
	return k
}

type knockKey struct{}

func (s *Server) newHTTPServer() *http.Server {
	h := s.bareHTTPServer()
	h.Handler = withTLS(s.routes) // and never /debug/: that is the unix socket's alone
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if again, ok := c.(*begunConn); ok {
			state := again.ConnectionState()
			ctx = context.WithValue(ctx, tlsKey{}, &state)
		}
		return context.WithValue(ctx, knockKey{}, knockOf(c))
	}
	return h
}

func (s *Server) bareHTTPServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // the SDKs' WebSocket clients and their tests know nothing of h2
	return &http.Server{
		ReadHeaderTimeout: readHeaderTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes, Protocols: protocols,
		ErrorLog: slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
}

// newSocketServer serves the unix socket: the same REST, as the local
// principal that the peer's user id names.
func (s *Server) newSocketServer() *http.Server {
	h := s.bareHTTPServer()
	h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/debug/") {
			s.debug.ServeHTTP(w, r)
			return
		}
		s.routes.ServeHTTP(w, r)
	})
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		p, err := peerPrincipal(c)
		if err != nil {
			s.o.Logger.Warn("unix socket refused", slog.Any("error", err))
			_ = c.Close()
			return ctx
		}
		return context.WithValue(service.WithLocal(ctx, p), localKey{}, true)
	}
	return h
}

// localKey marks requests of the unix socket.
type localKey struct{}
