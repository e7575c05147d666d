package protocols

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/enginetest"
)

const acmeHostName = "hub.example.net"

// startACME starts a hub that gets its certificate from d. The times are short.
func startACME(t *testing.T, d *acmeDirectory, dir string) *running {
	t.Helper()
	r := &running{hub: enginetest.New(t), dir: dir, ended: make(chan error, 1)}
	s, err := Listen(t.Context(), r.hub, Options{
		DataDir: dir, Socket: filepath.Join(t.TempDir(), "s"), HTTPS: []string{"127.0.0.1:0"}, MQTTS: []string{"127.0.0.1:0"},
		Hosts: []string{acmeHostName}, ACMEHosts: []string{acmeHostName}, ACMEEmail: "ops@example.net", ACMEDirectory: d.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.certs.acme.lookEvery, s.certs.acme.retryFirst = 10*time.Millisecond, 10*time.Millisecond
	r.Server = s
	d.set(func() {
		d.dial = func(ctx context.Context, host string) (*tls.Conn, error) {
			var dialer net.Dialer
			c, err := dialer.DialContext(ctx, "tcp", r.address("https"))
			if err != nil {
				return nil, err
			}
			secure := tls.Client(c, &tls.Config{ServerName: host, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}) //nolint:gosec // the certificate is the proof
			return secure, secure.HandshakeContext(ctx)
		}
	})
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

// served is the certificate that a new connection sees.
func served(t *testing.T, address string, change ...func(*tls.Config)) *x509.Certificate {
	t.Helper()
	c := &tls.Config{InsecureSkipVerify: true, ServerName: acmeHostName} //nolint:gosec // only looks
	for _, f := range change {
		f(c)
	}
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 20 * time.Second}, Config: c}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatal("not TLS")
	}
	return secure.ConnectionState().PeerCertificates[0]
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
		select { // gives the processor away
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func (d *acmeDirectory) signed(cert *x509.Certificate) bool {
	return cert.CheckSignatureFrom(d.ca) == nil
}

func onlyRSA(c *tls.Config) {
	c.MaxVersion = tls.VersionTLS12
	c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
}

// A certificate is got in the background, proven on the hub's own port, kept
// over restarts without the authority, and for clients that know only RSA got
// when one comes.
func TestACME(t *testing.T) {
	t.Parallel()
	d, dir := newACMEDirectory(t), t.TempDir()
	r := startACME(t, d, dir)
	until(t, "a certificate by ACME", func() bool { return d.signed(served(t, r.address("https"))) })
	until(t, "no trouble", func() bool { return len(r.CertificateTroubles()) == 0 })
	cert := served(t, r.address("mqtts"))
	if !d.signed(cert) || keyKind(cert) != "ecdsa" || cert.VerifyHostname(acmeHostName) != nil {
		t.Errorf("on the MQTT port: %v", cert)
	}
	if other := served(t, r.address("https"), func(c *tls.Config) { c.ServerName = "localhost" }); d.signed(other) {
		t.Error("a name that ACME does not cover has its certificate")
	}
	if cert := served(t, r.address("https"), onlyRSA); d.signed(cert) || keyKind(cert) != "rsa" {
		t.Error("the first client with only RSA did not get the hub's own certificate at once")
	}
	until(t, "an RSA certificate by ACME", func() bool { return d.signed(served(t, r.address("https"), onlyRSA)) })
	if keyKind(served(t, r.address("https"))) != "ecdsa" {
		t.Error("RSA took the place of ECDSA")
	}
	_, text := get(t, r.client(t), "https://"+r.address("https")+"/metrics", "Host", "localhost")
	if !strings.Contains(text, `muster_certificate_end_time_seconds{certificate="`+acmeHostName+`"}`) {
		t.Error("no metric tells when it ends")
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}

	requests, issued := d.count()
	d.set(func() { d.down = true })
	again := startACME(t, d, dir)
	until(t, "the certificate after a restart", func() bool { return d.signed(served(t, again.address("https"))) })
	if n, _ := d.count(); n != requests || issued != 2 {
		t.Errorf("%d requests after a restart, and %d certificates; want none and 2", n-requests, issued)
	}
}

// Renewal is of autocert's making: what it got is taken up while connections
// stay open, and when it gets nothing the former one goes on being served.
func TestACMERenews(t *testing.T) {
	t.Parallel()
	d := newACMEDirectory(t)
	d.life = 3 * time.Second // renewed after two
	r := startACME(t, d, t.TempDir())
	until(t, "a certificate by ACME", func() bool { return d.signed(served(t, r.address("https"))) })
	first := served(t, r.address("https"))
	c := r.client(t)
	url := "https://" + r.address("https") + "/healthz"
	var open net.Conn
	tr, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatal("another transport")
	}
	dials := 0
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials++
		var dialer net.Dialer
		var err error
		open, err = dialer.DialContext(ctx, network, address)
		return open, err
	}
	get(t, c, url)
	until(t, "a renewed certificate", func() bool {
		now := served(t, r.address("https"))
		return d.signed(now) && now.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	d.set(func() { d.down = true })
	last := served(t, r.address("https"))
	until(t, "the certificate to end", func() bool { return time.Now().After(last.NotAfter) })
	if now := served(t, r.address("https")); !d.signed(now) || now.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("without its authority the hub gave up the certificate that it had")
	}
	if get(t, c, url); dials != 1 {
		t.Errorf("the open connection was not kept: %d were made", dials)
	}
}

// An authority that refuses is asked less and less; one that does not answer
// holds no handshake up; and both do not keep the hub from stopping.
func TestACMEFails(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(d *acmeDirectory){
		"refuses": func(d *acmeDirectory) { d.down = true },
		"hangs":   func(d *acmeDirectory) { d.hang = make(chan struct{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newACMEDirectory(t)
			fail(d)
			r := startACME(t, d, t.TempDir())
			until(t, "the authority to be asked", func() bool { n, _ := d.count(); return n > 0 })
			for range 2*cap(r.gate.slots) + 1 { // more than compute at a time
				if cert := served(t, r.address("https")); d.signed(cert) || cert.VerifyHostname(acmeHostName) != nil {
					t.Fatal("not the hub's own certificate")
				}
			}
			if d.hang == nil {
				until(t, "failures to be counted", func() bool { return r.certs.failures() >= 3 })
				if s := r.certs.acme.slots[0]; r.certs.acme.slots[1].wanted.Load() || s.cert.Load() != nil {
					t.Error("there is a certificate")
				}
				if why := r.CertificateTroubles(); len(why) != 1 || why[acmeHostName] == "" {
					t.Errorf("the troubles are %q", why)
				}
				if _, text := get(t, r.client(t), "https://"+r.address("https")+"/metrics", "Host", "localhost"); !strings.Contains(text, `muster_certificate_failing{certificate="`+acmeHostName+`"} 1`) || !strings.Contains(text, `muster_certificate_failing{certificate="own"} 0`) {
					t.Error("no metric tells that it fails")
				}
			}
			began := time.Now()
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("stopping took %s", took)
			}
			if d.hang != nil {
				close(d.hang)
			}
		})
	}
}

// Files that change are taken up while connections stay open.
func TestCertificateChangesUnderConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	writeCertificate(t, cert, key, "localhost")
	r := start(t, func(o *Options) { o.CertFile, o.KeyFile = cert, key })
	conn, err := tls.Dial("tcp", r.address("https"), &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}) //nolint:gosec // only looks
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ask := func() {
		t.Helper()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := conn.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			t.Fatalf("%v: %s", err, b[:n])
		}
	}
	ask()
	serial := writeCertificate(t, cert, key, "localhost")
	until(t, "the new file", func() bool { return servedSerial(t, r.address("https")).Cmp(serial) == 0 })
	ask()
}
