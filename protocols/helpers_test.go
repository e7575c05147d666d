package protocols

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// running is a server on free ports of this machine.
type running struct {
	*Server
	hub   *engine.Hub
	dir   string
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, change ...func(*Options)) *running {
	t.Helper()
	r := &running{hub: enginetest.New(t), dir: t.TempDir(), ended: make(chan error, 1)}
	o := Options{
		DataDir: r.dir, HTTPS: []string{"127.0.0.1:0"}, MQTTS: []string{"127.0.0.1:0"}, HTTP: []string{"127.0.0.1:0"},
		Socket: filepath.Join(r.dir, "s"),
	}
	for _, c := range change {
		c(&o)
	}
	s, err := Listen(t.Context(), r.hub, o)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { r.ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// end stops the server and returns what Serve returned.
func (r *running) end() error {
	r.stop()
	err := <-r.ended
	r.ended <- err
	return err
}

func (r *running) address(kind string) string {
	for _, l := range r.Listeners() {
		if l.Kind == kind {
			return l.Address
		}
	}
	return ""
}

func (r *running) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.certs.authority.Load().cert)
	return pool
}

func (r *running) client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots(), ServerName: "localhost"}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// socketClient speaks to the unix socket.
func (r *running) socketClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(r.dir, "s"))
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}
