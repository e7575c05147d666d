package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate for hub.example.net that ends at the time given.
func selfSigned(t *testing.T, end time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Factory CA"}, DNSNames: []string{"hub.example.net"},
		NotBefore: end.AddDate(0, 0, -90), NotAfter: end, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestRefusedHandshake(t *testing.T) {
	now := time.Now()
	good, over := selfSigned(t, now.Add(time.Hour)), selfSigned(t, now.Add(-time.Hour))
	unverified := func(cert *x509.Certificate, err error) error {
		return fmt.Errorf("dial: %w", &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{cert}, Err: err})
	}
	for _, row := range []struct {
		name, host  string
		err         error
		level, says string
	}{
		{"a private authority", "hub.example.net", unverified(good, x509.UnknownAuthorityError{Cert: good}), "warn", "Factory CA"},
		{"a private authority, ended", "hub.example.net", unverified(over, x509.UnknownAuthorityError{Cert: over}), "fail", "ended on"},
		{"another name", "other.example.net", unverified(good, x509.UnknownAuthorityError{Cert: good}), "fail", "not for other.example.net"},
		{"something else", "hub.example.net", unverified(good, errors.New("too many intermediates")), "fail", "too many intermediates"},
		{"no TLS", "hub.example.net", errors.New("connection refused"), "fail", "connection refused"},
	} {
		if f := refusedHandshake("https", "127.0.0.1:8443", row.host, row.err, now); f.Level != row.level || !strings.Contains(f.Text, row.says) || f.Next == "" {
			t.Errorf("%s: %+v, want %s with %q", row.name, f, row.level, row.says)
		}
	}
}

// A hub with a public certificate may have a CA of its own, too, from before or
// beside ACME.
func TestLocalCAKeepsTheSystems(t *testing.T) {
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t, time.Now().Add(time.Hour)).Raw})
	if err := os.Mkdir(filepath.Join(dir, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tls", "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := localCA(HubFlags{WhichHub: WhichHub{Data: dir}})
	if err != nil {
		t.Fatal(err)
	}
	want := systemCAs()
	want.AppendCertsFromPEM(ca)
	if !got.Equal(want) {
		t.Error("the system's authorities are not trusted")
	}
}
