package protocols

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
)

// How often the certificates are looked at.
const (
	fileLookEvery  = 5 * time.Second
	renewLookEvery = time.Hour
)

// certificates hold what the TLS listeners present, from one of three
// sources: files that were given, ACME, or the hub's own authority (which
// also stands in for the names that ACME doesn't cover).
type certificates struct {
	dir   string // DATA/tls
	hosts []string
	log   *slog.Logger

	certFile, keyFile string
	acme              *acmeCertificates // nil = none

	current   atomic.Pointer[[]tls.Certificate]
	authority atomic.Pointer[authority] // nil with given files
	stamp     fileStamp                 // of the given files that are in use; owned by load and watch
	tried     fileStamp                 // of the given files at the last try; watch's own
	told      toldTrouble               // watch's own
	trouble   atomic.Pointer[string]    // why the last try failed; nil while all is well
	failed    atomic.Int64              // renewals and reloads that failed
	again     chan chan error           // asks watch to look now, whatever the stamps say
}

type fileStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// toldTrouble is a failure that was logged.
type toldTrouble struct {
	files fileStamp
	why   string
}

// openCertificates loads or makes the certificates.
func openCertificates(o Options) (*certificates, error) {
	c := &certificates{
		dir: filepath.Join(o.DataDir, "tls"), hosts: o.Hosts, log: o.Logger,
		certFile: o.CertFile, keyFile: o.KeyFile,
		again: make(chan chan error),
	}
	if c.certFile != "" {
		return c, c.loadFiles()
	}
	if len(o.ACMEHosts) > 0 {
		c.acme = newACME(o, c.dir)
	}
	return c, c.loadAuthority(time.Now())
}

func (c *certificates) loadAuthority(now time.Time) error {
	a, changed, err := loadAuthority(c.dir, c.hosts, now)
	if err != nil {
		return fmt.Errorf("certificates in %s: %w", c.dir, err)
	}
	c.authority.Store(a)
	c.current.Store(&a.servers)
	if changed {
		c.log.Info("certificates made", slog.String("ca", filepath.Join(c.dir, authorityCert)), slog.String("sha256", a.fingerprint()),
			slog.Time("renewed_at", a.renewAt()))
	}
	if a.replaced {
		c.log.Warn("the CA certificate was replaced, since the hub's hosts have changed or it would have ended; give clients the new one",
			slog.String("ca", filepath.Join(c.dir, authorityCert)))
	}
	return nil
}

// CheckCertificate reads a certificate chain and its key as the hub would.
func CheckCertificate(certFile, keyFile string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return pair, fmt.Errorf("the certificate %s with the key %s can't be used: %w; expected a PEM chain, the server's certificate first, and its unencrypted PEM key", certFile, keyFile, err)
	}
	return pair, nil
}

func (c *certificates) loadFiles() error {
	stamp, err := c.look()
	if err != nil {
		return err
	}
	pair, err := CheckCertificate(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	now, used := time.Now(), c.current.Load()
	if now.After(pair.Leaf.NotAfter) && used != nil && now.Before((*used)[0].Leaf.NotAfter) {
		return fmt.Errorf("the certificate %s ended on %s, while the one in use is still good", c.certFile, pair.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if now.After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate has ended; clients will refuse it", slog.String("file", c.certFile), slog.Time("ended", pair.Leaf.NotAfter))
	}
	for _, h := range c.hosts {
		if err := pair.Leaf.VerifyHostname(h); err != nil {
			c.log.Warn("the certificate does not hold a name of the hub; clients that use the name will refuse it", slog.String("file", c.certFile), slog.String("host", h))
		}
	}
	c.stamp = stamp
	c.current.Store(&[]tls.Certificate{pair})
	return nil
}

func (c *certificates) look() (fileStamp, error) {
	cert, err1 := os.Stat(c.certFile)
	key, err2 := os.Stat(c.keyFile)
	if err := errors.Join(err1, err2); err != nil {
		return fileStamp{}, fmt.Errorf("look at the certificate's files: %w", err)
	}
	return fileStamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

// watch renews or reloads until ctx ends. What can't be loaded is logged, and
// the former certificate stays.
func (c *certificates) watch(ctx context.Context) {
	every := renewLookEvery
	if c.certFile != "" {
		every = fileLookEvery
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			c.settle(c.refresh(time.Now()))
		case answer := <-c.again:
			c.stamp, c.told = fileStamp{}, toldTrouble{}
			err := c.refresh(time.Now())
			c.settle(err)
			answer <- err
		}
	}
}

// settle remembers how a try ended. One that fails as the last did, with the
// same files, is neither logged nor counted again. It is made all the same: what
// is wrong may be mended without a change that shows, such as by chmod.
func (c *certificates) settle(err error) {
	if err == nil {
		c.told = toldTrouble{}
		c.trouble.Store(nil)
		return
	}
	now := toldTrouble{c.tried, err.Error()}
	if now == c.told {
		return
	}
	c.told = now
	c.trouble.Store(&now.why)
	c.failed.Add(1)
	c.log.Error("certificate not renewed; the former one stays in use", slog.Any("error", err))
}

// reload has watch look at the certificates now.
func (c *certificates) reload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case c.again <- answer:
		return <-answer
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *certificates) refresh(now time.Time) error {
	if c.certFile == "" {
		if now.Before(c.authority.Load().renewAt()) {
			return nil
		}
		return c.loadAuthority(now)
	}
	stamp, err := c.look()
	c.tried = stamp
	if err != nil || stamp == c.stamp {
		return err
	}
	if err := c.loadFiles(); err != nil {
		return err
	}
	c.log.Info("certificate reloaded", slog.String("file", c.certFile))
	return nil
}

// config returns the TLS settings of a listener. protos are what it speaks
// (ALPN); a client that offers none of them, or none at all, is served too.
//
// Client certificates are asked for but not judged here: which of them is
// right depends on the device, which only CONNECT or the request names.
//
// Curves and session tickets are crypto/tls's own choice. Measured with the
// ECDSA certificate, the hybrid key exchange X25519MLKEM768 costs 0.4 ms of CPU
// a handshake and X25519 alone 0.3 ms: too little to give up what protects
// recorded traffic, and nothing of it outlives the handshake; a client that does
// not know it pays nothing. Tickets cost the hub no memory, and spare a client
// that only knows RSA the signature, 1 ms of the hub's time.
func (c *certificates) config(protos []string, hello func(*tls.ClientHelloInfo) error) *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequestClientCert,
		NextProtos: protos,
	}
	if c.acme != nil {
		base.NextProtos = append(append([]string{}, protos...), acme.ALPNProto)
	}
	var made atomic.Pointer[servedConfig]
	base.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := hello(info); err != nil {
			return nil, err
		}
		now := c.current.Load()
		if s := made.Load(); s != nil && s.of == now {
			return s.config, nil
		}
		// Session ticket keys stay those of base: crypto/tls keeps and turns them.
		next := base.Clone()
		next.GetConfigForClient = nil
		next.Certificates = *now
		if c.acme != nil {
			next.GetCertificate = c.acme.certificate
		}
		made.Store(&servedConfig{now, next})
		return next, nil
	}
	return base
}

// servedConfig is a tls.Config with the certificates that it was made of.
type servedConfig struct {
	of     *[]tls.Certificate
	config *tls.Config
}

// challenge wraps the plain HTTP handler so that ACME can ask there, too.
func (c *certificates) challenge(next http.Handler) http.Handler {
	if c.acme == nil {
		return next
	}
	return c.acme.challenge(next)
}

// ends says when each certificate that clients may see ends: "file" is the one
// of --cert, "own" the earliest that the hub signed, "authority" the hub's own
// CA, and a host's name its certificate by ACME.
func (c *certificates) ends() map[string]time.Time {
	list := map[string]time.Time{}
	name := "file"
	if a := c.authority.Load(); a != nil {
		name = "own"
		list["authority"] = a.cert.NotAfter
	}
	for _, cert := range *c.current.Load() {
		if t, ok := list[name]; !ok || cert.Leaf.NotAfter.Before(t) {
			list[name] = cert.Leaf.NotAfter
		}
	}
	if c.acme != nil {
		c.acme.ends(list)
	}
	return list
}

// troubles says of each certificate that is renewed or reloaded, by its name in
// ends, why the last try failed; "" while all is well.
func (c *certificates) troubles() map[string]string {
	list := map[string]string{}
	name, why := "file", ""
	if c.certFile == "" {
		name = "own"
	}
	if p := c.trouble.Load(); p != nil {
		why = *p
	}
	list[name] = why
	if c.acme != nil {
		c.acme.troubles(list)
	}
	return list
}

// failures counts renewals and reloads that failed.
func (c *certificates) failures() int64 {
	n := c.failed.Load()
	if c.acme != nil {
		n += c.acme.failed.Load()
	}
	return n
}
