package protocols

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// acmeDirectory is an authority that signs by ACME (RFC 8555) what it has
// proven with tls-alpn-01 (RFC 8737): it connects to the hub and looks at the
// certificate there. It does not check the signatures of requests.
type acmeDirectory struct {
	*httptest.Server
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	dial func(ctx context.Context, host string) (*tls.Conn, error) // to the hub, for the proof

	mu       sync.Mutex
	down     bool          // refuses everything
	hang     chan struct{} // not nil: holds every request until it is closed
	life     time.Duration // of certificates
	nonce    int
	jwk      json.RawMessage
	orders   []*acmeOrder
	issued   int
	requests int
}

type acmeOrder struct {
	host, token, status string
	chain               []byte
}

func newACMEDirectory(t *testing.T) *acmeDirectory {
	t.Helper()
	d := &acmeDirectory{life: 90 * 24 * time.Hour}
	var err error
	if d.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 10000), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, d.key.Public(), d.key)
	if err != nil {
		t.Fatal(err)
	}
	if d.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	d.Server = httptest.NewServer(http.HandlerFunc(d.serve))
	t.Cleanup(d.Close)
	return d
}

func (d *acmeDirectory) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *acmeDirectory) count() (requests, issued int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests, d.issued
}

func (d *acmeDirectory) serve(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.requests++
	hang, down := d.hang, d.down
	d.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	if down {
		http.Error(w, `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"no"}`, http.StatusForbidden)
		return
	}
	var protected struct{ JWK json.RawMessage }
	var payload struct {
		Identifiers []struct{ Value string }
		CSR         string
	}
	if r.Method == http.MethodPost {
		if err := readJWS(r, &protected, &payload); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nonce++
	w.Header().Set("Replay-Nonce", fmt.Sprint("nonce", d.nonce))
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	var what string
	n := -1
	_, _ = fmt.Sscanf(strings.ReplaceAll(strings.TrimPrefix(r.URL.Path, "/"), "/", " "), "%s %d", &what, &n)
	var o *acmeOrder
	if n >= 0 && n < len(d.orders) {
		o = d.orders[n]
	}
	order := func() map[string]any {
		m := map[string]any{"status": o.status, "identifiers": []map[string]string{{"type": "dns", "value": o.host}}, "authorizations": []string{d.at("authz", n)}, "finalize": d.at("finalize", n)}
		if o.chain != nil {
			m["certificate"] = d.at("cert", n)
		}
		return m
	}
	switch {
	case what == "":
		answer(200, map[string]string{"newNonce": d.URL + "/nonce", "newAccount": d.URL + "/account", "newOrder": d.URL + "/order", "revokeCert": d.URL + "/revoke"})
	case what == "nonce":
	case what == "account":
		d.jwk = protected.JWK
		w.Header().Set("Location", d.URL+"/account/1")
		answer(201, map[string]string{"status": "valid"})
	case what == "order" && o == nil && len(payload.Identifiers) == 1:
		n = len(d.orders)
		o = &acmeOrder{host: payload.Identifiers[0].Value, token: fmt.Sprint("token-", n), status: "pending"}
		d.orders = append(d.orders, o)
		w.Header().Set("Location", d.at("order", n))
		answer(201, order())
	case o == nil:
		answer(404, map[string]string{"type": "urn:ietf:params:acme:error:malformed"})
	case what == "order":
		answer(200, order())
	case what == "authz":
		status := "pending"
		if o.status != "pending" {
			status = "valid"
		}
		answer(200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": o.host}, "challenges": []map[string]string{{"type": "tls-alpn-01", "url": d.at("challenge", n), "token": o.token, "status": status}}})
	case what == "challenge":
		if err := d.prove(r.Context(), o); err != nil {
			answer(403, map[string]string{"type": "urn:ietf:params:acme:error:unauthorized", "detail": err.Error()})
			return
		}
		o.status = "ready"
		answer(200, map[string]string{"type": "tls-alpn-01", "url": d.at("challenge", n), "token": o.token, "status": "valid"})
	case what == "finalize":
		if err := d.sign(o, payload.CSR); err != nil {
			answer(400, map[string]string{"type": "urn:ietf:params:acme:error:badCSR", "detail": err.Error()})
			return
		}
		w.Header().Set("Location", d.at("order", n))
		answer(200, order())
	case what == "cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(o.chain)
	}
}

func (d *acmeDirectory) at(what string, n int) string { return fmt.Sprintf("%s/%s/%d", d.URL, what, n) }

func readJWS(r *http.Request, protected, payload any) error {
	var jws struct{ Protected, Payload string }
	if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
		return err
	}
	for text, into := range map[string]any{jws.Protected: protected, jws.Payload: payload} {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err == nil && len(b) > 0 {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prove connects to the hub as RFC 8737 says.
func (d *acmeDirectory) prove(ctx context.Context, o *acmeOrder) error {
	var jwk struct{ X, Y string }
	if err := json.Unmarshal(d.jwk, &jwk); err != nil {
		return err
	}
	x, err1 := base64.RawURLEncoding.DecodeString(jwk.X)
	y, err2 := base64.RawURLEncoding.DecodeString(jwk.Y)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	account, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		return err
	}
	print, err := acme.JWKThumbprint(account)
	if err != nil {
		return err
	}
	want := sha256.Sum256([]byte(o.token + "." + print))
	c, err := d.dial(ctx, o.host)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if got := c.ConnectionState().NegotiatedProtocol; got != acme.ALPNProto {
		return fmt.Errorf("the hub speaks %q", got)
	}
	for _, e := range c.ConnectionState().PeerCertificates[0].Extensions {
		var sum []byte
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical {
			if _, err := asn1.Unmarshal(e.Value, &sum); err == nil && string(sum) == string(want[:]) {
				return nil
			}
		}
	}
	return errors.New("the proof is not in the certificate")
}

func (d *acmeDirectory) sign(o *acmeOrder, csr string) error {
	der, err := base64.RawURLEncoding.DecodeString(csr)
	if err != nil {
		return err
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil || o.status != "ready" || len(request.DNSNames) != 1 || request.DNSNames[0] != o.host {
		return fmt.Errorf("not what was proven: %s, %v, %w", o.status, request, err)
	}
	d.issued++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(1000 + d.issued)), DNSNames: request.DNSNames, NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(d.life),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, d.ca, request.PublicKey, crypto.Signer(d.key))
	if err != nil {
		return err
	}
	o.status = "valid"
	for _, der := range [][]byte{leaf, d.ca.Raw} {
		o.chain = append(o.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return nil
}

// keyKind tells the kind of a served certificate's key.
func keyKind(cert *x509.Certificate) string {
	if _, ok := cert.PublicKey.(*rsa.PublicKey); ok {
		return "rsa"
	}
	return "ecdsa"
}
