// Package outbound makes the hub's outgoing HTTP calls. Its dialer looks at
// the address that it is about to connect to, so that a name which resolves
// to a private address, now or at the next look-up, reaches nothing that the
// operator did not allow.
package outbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds of a call.
const (
	dialTimeout   = 5 * time.Second
	mostTimeout   = time.Minute // the caller's context ends most calls before
	headerBytes   = 16 << 10
	responseBytes = 64 << 10
	idlePerHost   = 16
	idleMost      = 128
	idleTimeout   = 90 * time.Second
)

// ErrRefused is in the error of a call to an address that is not allowed.
var ErrRefused = errors.New("the address is private or reserved; only those that `muster serve --webhook-allow` names may be reached")

// Allow lists what may be reached beyond public addresses.
type Allow struct {
	prefixes []netip.Prefix
	hosts    map[string]bool
}

// ParseAllow reads addresses (10.1.2.3), prefixes (10.0.0.0/8) and host names.
// A host name that is allowed may resolve to any address.
func ParseAllow(list []string) (Allow, error) {
	a := Allow{hosts: map[string]bool{}}
	for _, text := range list {
		if p, err := netip.ParsePrefix(text); err == nil {
			a.prefixes = append(a.prefixes, p.Masked())
			continue
		}
		if ip, err := netip.ParseAddr(text); err == nil {
			ip = ip.Unmap()
			a.prefixes = append(a.prefixes, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		if text == "" || strings.ContainsAny(text, "/:@ *") {
			return Allow{}, fmt.Errorf("%q is no address, prefix or host name; expected for example 10.1.2.3, 10.0.0.0/8 or hooks.example.com", text)
		}
		a.hosts[canonical(text)] = true
	}
	return a, nil
}

func canonical(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// reserved are ranges that the methods of netip.Addr don't name.
func reserved() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"), // 6to4 relays
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("168.63.129.16/32"), // a cloud's metadata, on a public address
		netip.MustParsePrefix("::/96"),            // IPv4-compatible
		netip.MustParsePrefix("64:ff9b::/96"),     // NAT64 reaches IPv4, also private
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"), // Teredo and other protocols
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("2002::/16"), // 6to4 embeds IPv4
		netip.MustParsePrefix("3fff::/20"),
		netip.MustParsePrefix("fec0::/10"), // former site-local
	}
}

// Client makes outgoing calls. It is safe for concurrent use.
type Client struct {
	allow    Allow
	reserved []netip.Prefix
	http     *http.Client
	resolver *net.Resolver // nil: the system's
}

// New returns a client that reaches public addresses and what allow holds. It
// checks certificates against roots; nil means the system's.
func New(allow Allow, roots *x509.CertPool) *Client { return newClient(allow, roots, nil) }

// Roots are the system's certificate authorities with those of a PEM text.
func Roots(pem []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any: the given ones are all
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate is in it; expected PEM with at least one CERTIFICATE block")
	}
	return pool, nil
}

func newClient(allow Allow, roots *x509.CertPool, resolver *net.Resolver) *Client {
	c := &Client{allow: allow, reserved: reserved(), resolver: resolver}
	c.http = &http.Client{
		Timeout: mostTimeout,
		Transport: &http.Transport{ // Proxy stays nil: a proxy would resolve names itself
			DialContext: c.dial, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
			ResponseHeaderTimeout: mostTimeout, MaxResponseHeaderBytes: headerBytes,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxIdleConns:    idleMost, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idleTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTimeout, Resolver: c.resolver}
	if !c.allow.hosts[canonical(host)] {
		// Control runs with the address of the socket itself, after resolving.
		d.Control = func(_, resolved string, _ syscall.RawConn) error { return c.check(resolved) }
	}
	return d.DialContext(ctx, network, address)
}

func (c *Client) check(resolved string) error {
	at, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrRefused, resolved)
	}
	if c.permits(at.Addr()) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRefused, at.Addr())
}

func (c *Client) permits(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range c.allow.prefixes {
		if p.Contains(ip) {
			return true
		}
	}
	// What is no global unicast: unspecified, loopback, multicast, link-local, broadcast.
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, p := range c.reserved {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// CheckURL says whether a call to the URL makes sense: absolute, http or
// https, with a host, without a user or fragment.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errors.New("expected an absolute http or https URL with a host, without user or fragment")
	}
	return nil
}

// Response is an answer; a body beyond 64 KiB is cut.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Post sends a body and returns the answer, whatever its status; redirects
// are answers too. It takes at most a minute.
func (c *Client) Post(ctx context.Context, target string, header http.Header, body []byte) (Response, error) {
	if err := CheckURL(target); err != nil {
		return Response{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return Response{}, err
	}
	r.Header = header.Clone()
	answer, err := c.http.Do(r)
	if err != nil {
		return Response{}, err
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, responseBytes))
	return Response{answer.StatusCode, answer.Header, data}, errors.Join(err, answer.Body.Close())
}

// Close closes the connections that wait to be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }
