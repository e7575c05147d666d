package protocols

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Lifetimes of what the local authority makes.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	renewBefore   = 30 * 24 * time.Hour // a server certificate is re-made this long before its end
	backdate      = 24 * time.Hour      // start of validity, for clients whose clock is behind
)

// Files of the local authority, below DATA/tls.
const (
	authorityCert = "ca.pem"
	authorityKey  = "ca.key"
	serverECDSA   = "server-ecdsa.pem" // certificate and key in one file
	serverRSA     = "server-rsa.pem"
)

// authority is the hub's own certificate authority and the two server
// certificates that it made: ECDSA for most clients, RSA for those that know
// nothing else. It is a value: a renewal makes a new one.
type authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	servers []tls.Certificate // ECDSA first: Go takes the first that the client supports

	replaced bool // loading it replaced a CA certificate that clients may trust
}

// fingerprint is the SHA-256 of the CA certificate as people compare it.
func (a *authority) fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// renewAt is when the server certificates should be re-made.
func (a *authority) renewAt() time.Time {
	at := a.cert.NotAfter
	for _, s := range a.servers {
		if t := s.Leaf.NotAfter.Add(-renewBefore); t.Before(at) {
			at = t
		}
	}
	return at
}

// certificateHosts returns the names and addresses that a certificate must
// hold: the given ones, and always this machine's own.
func certificateHosts(hosts []string) (names []string, addresses []net.IP) {
	seen := map[string]bool{}
	for _, h := range append(append([]string{}, hosts...), "localhost", "127.0.0.1", "::1") {
		ip := net.ParseIP(h)
		if ip != nil {
			h = ip.String()
		} else {
			h = strings.ToLower(strings.TrimSuffix(h, "."))
		}
		if h == "" || seen[h] {
			continue
		}
		seen[h] = true
		if ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, h)
		}
	}
	return names, addresses
}

// loadAuthority reads the authority in dir and makes what is missing, has
// ended, or lacks one of the hosts. It reports whether it made anything.
//
// The CA's key is made once. When a host is added, a CA certificate of the
// same name and key, with wider constraints, takes the former one's place.
// Clients need it: OpenSSL, and so Node and Python, apply the former one's
// constraints to all names in the server's certificate, not only to the one
// that they use.
func loadAuthority(dir string, hosts []string, now time.Time) (a *authority, changed bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, err
	}
	names, addresses := certificateHosts(hosts)
	a = &authority{}
	if a.key, err = loadKey(filepath.Join(dir, authorityKey)); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, authorityCert)); err == nil {
			return nil, false, fmt.Errorf("%s is there but %s is missing; restore the key from a backup, or remove the directory %s to get a new CA (every client must trust it anew)", authorityCert, authorityKey, dir)
		}
		if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = writeKey(filepath.Join(dir, authorityKey), a.key)
		}
	}
	if err != nil {
		return nil, false, err
	}
	a.cert, err = loadCertificate(filepath.Join(dir, authorityCert))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	if a.cert == nil || !publicKeyIs(a.cert, a.key) || !permits(a.cert, names, addresses) || now.After(a.cert.NotAfter.Add(-serverLife)) {
		replaced := a.cert != nil
		if err := a.makeCA(dir, names, addresses, now); err != nil {
			return nil, false, err
		}
		a.replaced, changed = replaced, true
	}
	for _, file := range []string{serverECDSA, serverRSA} {
		pair, err := a.loadServer(filepath.Join(dir, file), names, addresses, now)
		if err != nil {
			if pair, err = a.makeServer(filepath.Join(dir, file), file == serverRSA, names, addresses, now); err != nil {
				return nil, false, err
			}
			changed = true
		}
		a.servers = append(a.servers, pair)
	}
	return a, changed, nil
}

func publicKeyIs(c *x509.Certificate, k crypto.Signer) bool {
	pub, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(k.Public())
}

// permits reports whether a CA's constraints allow all of the hosts.
func permits(ca *x509.Certificate, names []string, addresses []net.IP) bool {
	for _, n := range names {
		if !slices.ContainsFunc(ca.PermittedDNSDomains, func(d string) bool { return d == n || strings.HasSuffix(n, "."+d) }) {
			return false
		}
	}
	for _, ip := range addresses {
		if !slices.ContainsFunc(ca.PermittedIPRanges, func(r *net.IPNet) bool { return r.Contains(ip) }) {
			return false
		}
	}
	return true
}

// makeCA signs a CA certificate that is good for these hosts and nothing else.
// The constraints are not marked critical: small TLS libraries that do not know
// them refuse a certificate with an unknown critical part, while every library
// that knows them applies them either way.
func (a *authority) makeCA(dir string, names []string, addresses []net.IP, now time.Time) error {
	if a.cert != nil {
		names = append(append([]string{}, names...), missing(a.cert.PermittedDNSDomains, names)...)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Muster local CA of " + names[0], Organization: []string{"Muster"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomains:   names,
	}
	if a.cert != nil && publicKeyIs(a.cert, a.key) {
		// The same subject as before, so that old trust anchors still match.
		template.RawSubject = a.cert.RawSubject
	}
	for _, ip := range addresses {
		bits := 128
		if v4 := ip.To4(); v4 != nil {
			ip, bits = v4, 32
		}
		template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
	}
	der, err := sign(template, template, a.key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make the CA certificate: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, authorityCert), 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// missing returns the members of have that list lacks.
func missing(have, list []string) []string {
	var out []string
	for _, h := range have {
		if !slices.ContainsFunc(list, func(n string) bool { return n == h }) {
			out = append(out, h)
		}
	}
	return out
}

// loadServer reads a server certificate and says as an error why it can't be
// used any more.
func (a *authority) loadServer(file string, names []string, addresses []net.IP, now time.Time) (tls.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return pair, err
	}
	if now.After(pair.Leaf.NotAfter.Add(-renewBefore)) || now.Before(pair.Leaf.NotBefore) {
		return pair, errors.New("the certificate ends soon")
	}
	if err := pair.Leaf.CheckSignatureFrom(a.cert); err != nil {
		return pair, err
	}
	for _, n := range names {
		if err := pair.Leaf.VerifyHostname(n); err != nil {
			return pair, err
		}
	}
	for _, ip := range addresses {
		if err := pair.Leaf.VerifyHostname(ip.String()); err != nil {
			return pair, err
		}
	}
	if want := len(names) + len(addresses); len(pair.Leaf.DNSNames)+len(pair.Leaf.IPAddresses) != want {
		return pair, errors.New("the certificate holds hosts that the hub no longer has")
	}
	return pair, nil
}

func (a *authority) makeServer(file string, rsaKey bool, names []string, addresses []net.IP, now time.Time) (tls.Certificate, error) {
	var key crypto.Signer
	var err error
	if rsaKey {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0], Organization: []string{"Muster"}},
		NotBefore:   now.Add(-backdate),
		NotAfter:    now.Add(serverLife),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    names,
		IPAddresses: addresses,
	}
	if len(names[0]) > 64 { // a common name holds no more [RFC 5280, appendix A.1]
		template.Subject.CommonName = ""
	}
	if !rsaKey {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	der, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a server certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: private}} {
		if err := pem.Encode(&b, block); err != nil {
			return tls.Certificate{}, err
		}
	}
	if err := writeFile(file, 0o600, b.Bytes()); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(b.Bytes(), b.Bytes())
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

func loadKey(file string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block; restore it from a backup, or remove its directory to get a new CA", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that can't sign", file)
	}
	return s, nil
}

func writeKey(file string, k crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	return writeFile(file, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func loadCertificate(file string) (*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block; remove it, and the hub makes it anew from its key", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, and the hub makes it anew from its key", file, err)
	}
	return c, nil
}

// writeFile replaces a file in one step and survives a power cut in between:
// a hub whose CA key is half written could not be trusted again.
func writeFile(name string, mode fs.FileMode, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
