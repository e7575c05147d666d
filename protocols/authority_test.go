package protocols

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func mustLoad(t *testing.T, dir string, hosts []string, now time.Time) (*authority, bool) {
	t.Helper()
	a, changed, err := loadAuthority(dir, hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	return a, changed
}

// verifies reports whether a client that trusts ca takes the server
// certificates under the host's name.
func verifies(ca *x509.Certificate, a *authority, host string, now time.Time) error {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, s := range a.servers {
		if _, err := s.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: now}); err != nil {
			return err
		}
	}
	return nil
}

func TestAuthority(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	hosts := []string{"hub.example.net", "192.0.2.7"}
	first, changed := mustLoad(t, dir, hosts, now)
	if !changed {
		t.Error("nothing was made at the first start")
	}
	if _, ok := first.servers[0].PrivateKey.(*ecdsa.PrivateKey); !ok {
		t.Errorf("the first certificate has a %T, want ECDSA first", first.servers[0].PrivateKey)
	}
	if k, ok := first.servers[1].PrivateKey.(*rsa.PrivateKey); !ok || k.N.BitLen() != 2048 {
		t.Errorf("the second certificate has a %T, want RSA of 2048 bits", first.servers[1].PrivateKey)
	}
	for _, host := range append(hosts, "localhost", "127.0.0.1", "::1") {
		if err := verifies(first.cert, first, host, now); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := verifies(first.cert, first, "other.example.net", now); err == nil {
		t.Error("the certificate is good for a host that is not the hub's")
	}
	for _, file := range []string{authorityKey, serverECDSA, serverRSA} {
		if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", file, st.Mode(), err)
		}
	}

	again, changed := mustLoad(t, dir, hosts, now)
	if changed || again.fingerprint() != first.fingerprint() {
		t.Error("a second start made certificates anew")
	}

	wider, changed := mustLoad(t, dir, append(hosts, "new.example.net"), now)
	if !changed || wider.fingerprint() == first.fingerprint() {
		t.Error("a new host made no new CA certificate")
	}
	if err := verifies(wider.cert, wider, "new.example.net", now); err != nil {
		t.Errorf("new host: %v", err)
	}
	// The documents say so: the former CA's constraints do not allow the new name.
	if err := verifies(first.cert, wider, "hub.example.net", now); err == nil {
		t.Error("a client of the former CA accepts the server's new certificate")
	}
	if first.replaced || again.replaced || !wider.replaced {
		t.Error("only the new host replaced a CA certificate that clients may trust")
	}
	if !publicKeyIs(wider.cert, first.key) || string(wider.cert.RawSubject) != string(first.cert.RawSubject) {
		t.Error("the CA's key or name changed with the host")
	}

	narrower, changed := mustLoad(t, dir, hosts, now)
	if !changed || narrower.fingerprint() != wider.fingerprint() {
		t.Error("a host less needs new server certificates and the same CA")
	}
	if narrower.servers[0].Leaf.VerifyHostname("new.example.net") == nil {
		t.Error("a host that the hub no longer has is still in the certificate")
	}
}

func TestAuthorityConstrains(t *testing.T) {
	t.Parallel()
	a, _ := mustLoad(t, t.TempDir(), []string{"hub.example.net"}, time.Now())
	// What somebody with the CA's key could sign for other names.
	names, addresses := []string{"bank.example.com"}, []net.IP{net.ParseIP("203.0.113.9")}
	pair, err := a.makeServer(filepath.Join(t.TempDir(), "x.pem"), false, names, addresses, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged := &authority{servers: []tls.Certificate{pair}}
	for _, host := range []string{"bank.example.com", "203.0.113.9"} {
		if err := verifies(a.cert, forged, host, time.Now()); err == nil || !strings.Contains(err.Error(), "not permitted") {
			t.Errorf("%s: got %v, want that the name constraints forbid it", host, err)
		}
	}
}

func TestAuthorityRenews(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	first, _ := mustLoad(t, dir, nil, now)
	if got := first.renewAt(); got.Before(now.Add(59*24*time.Hour)) || got.After(now.Add(61*24*time.Hour)) {
		t.Errorf("renewal at %v, want 60 days from now", got)
	}
	if _, changed := mustLoad(t, dir, nil, first.renewAt().Add(-time.Hour)); changed {
		t.Error("renewed too early")
	}
	later := first.renewAt().Add(time.Hour)
	second, changed := mustLoad(t, dir, nil, later)
	if !changed || second.fingerprint() != first.fingerprint() {
		t.Error("the server certificates were not renewed under the same CA")
	}
	if err := verifies(first.cert, second, "localhost", later.Add(60*24*time.Hour)); err != nil {
		t.Error(err)
	}
	old := now.Add(authorityLife - 24*time.Hour)
	if third, changed := mustLoad(t, dir, nil, old); !changed || third.fingerprint() == first.fingerprint() {
		t.Error("the CA certificate was not renewed before its end")
	}
}

func TestAuthorityDamaged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, file, text string
		want             string // in the error; "" = made anew
	}{
		{"server certificate cut", serverECDSA, "-----BEGIN CERT", ""},
		{"server certificate empty", serverRSA, "", ""},
		{"CA certificate cut", authorityCert, "rubbish", "remove it"},
		{"CA key cut", authorityKey, "rubbish", "restore it"},
		{"CA key gone", authorityKey, "REMOVE", "restore the key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			mustLoad(t, dir, nil, time.Now())
			file := filepath.Join(dir, test.file)
			err := os.WriteFile(file, []byte(test.text), 0o600)
			if test.text == "REMOVE" {
				err = os.Remove(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = loadAuthority(dir, nil, time.Now())
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestGivenCertificateIsReloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, _ := mustLoad(t, filepath.Join(dir, "a"), nil, time.Now())
	b, _ := mustLoad(t, filepath.Join(dir, "b"), nil, time.Now())
	file := filepath.Join(dir, "server.pem")
	put := func(from string, at time.Time) {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(dir, "a", serverECDSA), time.Now().Add(-time.Hour))
	o, err := Options{DataDir: dir, CertFile: file, KeyFile: file}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c, err := openCertificates(o)
	if err != nil {
		t.Fatal(err)
	}
	shows := func() string { return string((*c.current.Load())[0].Certificate[0]) }
	if shows() != string(a.servers[0].Certificate[0]) {
		t.Error("the given certificate is not presented")
	}
	put(filepath.Join(dir, "b", serverECDSA), time.Now())
	if err := c.refresh(time.Now()); err != nil || shows() != string(b.servers[0].Certificate[0]) {
		t.Errorf("the changed certificate is not presented (%v)", err)
	}
	if err := os.WriteFile(file, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.refresh(time.Now()); err == nil || shows() != string(b.servers[0].Certificate[0]) {
		t.Errorf("a file that is no certificate: got %v, want an error and the former certificate", err)
	}
}
