package protocols

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// How often certificates by ACME are looked at, and how long one that was not
// got is left alone: authorities count failures, some five an hour for a name.
const (
	acmeLookEvery  = time.Hour
	acmeRetryFirst = 2 * time.Minute
	acmeRetryMost  = 6 * time.Hour
	acmeTime       = 6 * time.Minute // the library's own bound is five
	acmeEnd        = 5 * time.Second // for a call of the library to end at shutdown
)

// acmeCertificates gets and holds the certificates that an authority signs by
// ACME. No handshake ever waits for the authority: it is asked in the
// background, and until it has answered, the hub's own certificate stands in.
// What was got once is served until a newer one is there.
type acmeCertificates struct {
	manager *autocert.Manager
	log     *slog.Logger
	slots   []*acmeSlot
	wake    chan struct{} // capacity 1: a slot is wanted now
	failed  atomic.Int64
	stop    context.CancelFunc // ends what the library asks the authority

	lookEvery, retryFirst time.Duration
}

// acmeSlot is a certificate of one name, for one kind of key.
type acmeSlot struct {
	host   string
	rsa    bool
	wanted atomic.Bool // the RSA one only when a client knows nothing else
	cert   atomic.Pointer[tls.Certificate]
	failed atomic.Pointer[string] // why the last try failed; nil while all is well

	next  time.Time     // when it is looked at again; run's own
	retry time.Duration // 0 while all is well; run's own
}

func newACME(o Options, dir string) *acmeCertificates {
	until, stop := context.WithCancel(context.Background())
	client := &acme.Client{DirectoryURL: o.ACMEDirectory, HTTPClient: &http.Client{Transport: endingTransport{until}}} // "" is Let's Encrypt
	a := &acmeCertificates{
		stop: stop,
		manager: &autocert.Manager{
			Prompt: autocert.AcceptTOS, Email: o.ACMEEmail, HostPolicy: autocert.HostWhitelist(o.ACMEHosts...),
			Cache: autocert.DirCache(filepath.Join(dir, "acme")), Client: client,
		},
		log: o.Logger, wake: make(chan struct{}, 1), lookEvery: acmeLookEvery, retryFirst: acmeRetryFirst,
	}
	for _, h := range o.ACMEHosts {
		for _, rsa := range []bool{false, true} {
			s := &acmeSlot{host: h, rsa: rsa}
			s.wanted.Store(!rsa)
			a.slots = append(a.slots, s)
		}
	}
	return a
}

// certificate answers a hello at once: nil, nil leaves it to the hub's own
// certificates, also for names that ACME does not cover. The authority's own
// question (tls-alpn-01) is answered from memory.
func (a *acmeCertificates) certificate(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.TrimSuffix(info.ServerName, ".")
	for _, s := range a.slots {
		if !strings.EqualFold(s.host, name) {
			continue
		}
		if slices.Contains(info.SupportedProtos, acme.ALPNProto) {
			return a.manager.GetCertificate(info)
		}
		cert := s.cert.Load()
		if cert == nil {
			if s.rsa && s.wanted.CompareAndSwap(false, true) { // this client can't use the other one
				wakeUp(a.wake)
			}
			return nil, nil
		}
		if info.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return nil, nil
}

func wakeUp(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// endingTransport ends requests when its context ends: the library's calls take
// none.
type endingTransport struct{ until context.Context }

// RoundTrip sends a request.
func (t endingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, stop := context.WithCancel(r.Context())
	forget := context.AfterFunc(t.until, stop)
	context.AfterFunc(r.Context(), func() { // every call has a time limit, so this comes
		forget()
		stop()
	})
	return http.DefaultTransport.RoundTrip(r.WithContext(ctx))
}

// run asks for what is missing and takes up what was renewed, until ctx ends.
func (a *acmeCertificates) run(ctx context.Context) {
	defer a.stop()
	for {
		next := time.Now().Add(a.lookEvery)
		for _, s := range a.slots {
			if !s.wanted.Load() {
				continue
			}
			if !time.Now().Before(s.next) {
				a.look(ctx, s)
			}
			if s.next.Before(next) {
				next = s.next
			}
		}
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-a.wake:
			t.Stop()
		}
	}
}

// look gets one certificate, and says when to look again.
func (a *acmeCertificates) look(ctx context.Context, s *acmeSlot) {
	type result struct {
		cert *tls.Certificate
		err  error
	}
	answered := make(chan result, 1)
	go func() {
		cert, err := a.manager.GetCertificate(s.hello())
		answered <- result{cert, err}
	}()
	var r result
	late := time.NewTimer(acmeTime)
	defer late.Stop()
	select {
	case r = <-answered:
	case <-late.C:
		r.err = fmt.Errorf("no answer within %s", acmeTime)
	case <-ctx.Done():
		a.stop()
		select {
		case <-answered:
		case <-time.After(acmeEnd): // it rests between two requests; nothing comes of it any more
		}
		return
	}
	if r.err != nil {
		s.retry = min(max(2*s.retry, a.retryFirst), acmeRetryMost)
		s.next = time.Now().Add(s.retry)
		a.failed.Add(1)
		why := r.err.Error()
		s.failed.Store(&why)
		a.log.Error("no certificate by ACME; the former one stays in use, or the hub's own", slog.String("host", s.host), slog.Duration("again_in", s.retry), slog.Any("error", r.err))
		return
	}
	s.retry, s.next = 0, time.Now().Add(a.lookEvery)
	s.failed.Store(nil)
	if old := s.cert.Swap(r.cert); old == nil || !slices.EqualFunc(old.Certificate, r.cert.Certificate, slices.Equal[[]byte]) {
		a.log.Info("certificate by ACME", slog.String("host", s.host), slog.Bool("rsa", s.rsa), slog.Time("ends", r.cert.Leaf.NotAfter))
	}
}

// hello is what a client would say that wants the slot's certificate.
func (s *acmeSlot) hello() *tls.ClientHelloInfo {
	info := &tls.ClientHelloInfo{ServerName: s.host}
	if !s.rsa {
		info.SignatureSchemes = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
		info.SupportedCurves = []tls.CurveID{tls.CurveP256}
		info.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}
	return info
}

// ends adds when each certificate ends.
func (a *acmeCertificates) ends(to map[string]time.Time) {
	for _, s := range a.slots {
		if cert := s.cert.Load(); cert != nil {
			if t, ok := to[s.host]; !ok || cert.Leaf.NotAfter.Before(t) {
				to[s.host] = cert.Leaf.NotAfter
			}
		}
	}
}

// troubles adds why the last try for each name failed.
func (a *acmeCertificates) troubles(to map[string]string) {
	for _, s := range a.slots {
		why := to[s.host]
		if p := s.failed.Load(); p != nil {
			why = *p
		}
		to[s.host] = why
	}
}

// challenge wraps the plain HTTP handler so that the authority can ask there,
// too (http-01).
func (a *acmeCertificates) challenge(next http.Handler) http.Handler {
	return a.manager.HTTPHandler(next)
}
