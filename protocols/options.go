package protocols

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configure a Server. The zero value of each field but DataDir is a
// sensible default.
type Options struct {
	DataDir string   // certificates are kept in DATA/tls, the socket is DATA/muster.sock
	Hosts   []string // names and addresses that certificates hold; the first is printed

	HTTPS []string // TLS: REST, status page, WebSocket
	MQTTS []string // TLS: MQTT
	HTTP  []string // the same as HTTPS without TLS; for loopback or behind a proxy

	CertFile, KeyFile string // given certificate; both or neither
	ACMEHosts         []string
	ACMEEmail         string
	ACMEDirectory     string // "" = Let's Encrypt

	MetricsToken string        // bearer token for /metrics beyond loopback; "" = none
	DrainTime    time.Duration // over which sessions are told to leave; 0 = at once
	GraceTime    time.Duration // how long running requests may take after that; 0 = 5 s
	Socket       string        // "" = DATA/muster.sock

	Logger   *slog.Logger                            // nil = discard
	Inside   func(s *Server) map[string]http.Handler // served as GET /debug/NAME on the unix socket; nil = none
	LogLevel *slog.LevelVar                          // the Logger's, to be changed at run time; nil = fixed
	Registry *prometheus.Registry                    // where metrics are registered and read; nil = one of its own
	Notify   string                                  // socket of the service manager (NOTIFY_SOCKET); "" = none
	Watchdog time.Duration                           // how often it wants to hear that the hub lives; 0 = never
	Workers  func() WorkerStats                      // the processes that run patterns, for metrics; nil = none
}

// WorkerStats are figures of the processes that run patterns. Alive, Busy and
// Waiting are of this moment, the others count since the start.
type WorkerStats struct {
	Alive   int
	Busy    int
	Waiting int // activations for which none is free
	Starts  int64
	Crashes int64            // that ended by themselves
	Kills   map[string]int64 // by the budget that a program went over
	Waited  time.Duration    // by activations, together
}

const defaultGrace = 5 * time.Second

func (o Options) withDefaults() (Options, error) {
	if o.DataDir == "" {
		return o, errors.New("the server has no data directory")
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return o, errors.New("a certificate file and a key file belong together, expected both or neither")
	}
	if o.CertFile != "" && len(o.ACMEHosts) > 0 {
		return o, errors.New("a certificate file and ACME exclude each other, expected one of them")
	}
	if o.DrainTime < 0 || o.GraceTime < 0 {
		return o, fmt.Errorf("drain time %s and grace time %s must not be negative", o.DrainTime, o.GraceTime)
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"localhost"}
	}
	if o.GraceTime == 0 {
		o.GraceTime = defaultGrace
	}
	if o.Socket == "" {
		o.Socket = filepath.Join(o.DataDir, "muster.sock")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	return o, nil
}
