package outbound

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestPermits(t *testing.T) {
	c := New(Allow{}, nil)
	for _, ip := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
		"100.64.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1",
		"240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001:0:a00:1::", "fec0::1",
	} {
		if c.permits(netip.MustParseAddr(ip)) {
			t.Errorf("%s is permitted", ip)
		}
	}
	for _, ip := range []string{"1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"} {
		if !c.permits(netip.MustParseAddr(ip)) {
			t.Errorf("%s is refused", ip)
		}
	}
	allow, err := ParseAllow([]string{"10.0.0.0/8", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	for ip, want := range map[string]bool{"10.2.3.4": true, "::ffff:10.2.3.4": true, "::1": true, "127.0.0.1": false, "192.168.0.1": false} {
		if got := New(allow, nil).permits(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s with an allow list: got %v, expected %v", ip, got, want)
		}
	}
}

func TestParseAllowRefuses(t *testing.T) {
	for _, text := range []string{"", "10.0.0.0/99", "http://x", "*.example.com", "a b", "host:80"} {
		if _, err := ParseAllow([]string{text}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// resolving returns a resolver that answers the nth A question with the nth
// address, and all after with the last.
func resolving(t *testing.T, ips ...[4]byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = server.Close(); <-done })
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			if q.Type == dnsmessage.TypeA {
				ip := ips[0]
				ips = ips[min(1, len(ips)-1):]
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: ip}}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(b, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

func TestNamesAreCheckedAfterResolving(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(strings.Repeat("x", 2*responseBytes)))
	}))
	defer receiver.Close()
	_, port, _ := net.SplitHostPort(receiver.Listener.Addr().String())
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	for _, row := range []struct {
		name, path string
		allow      []string
		refused    bool
		status     int
	}{
		{"name", "/", nil, true, 0},
		{"name with another prefix", "/", []string{"10.0.0.0/8"}, true, 0},
		{"another name", "/", []string{"other.example.com"}, true, 0},
		{"name that is allowed", "/", []string{"Hooks.example.com"}, false, 200},
		{"address that is allowed", "/", []string{"127.0.0.1"}, false, 200},
		{"redirect is not followed", "/redirect", []string{"127.0.0.0/8"}, false, 302},
	} {
		t.Run(row.name, func(t *testing.T) {
			allow, err := ParseAllow(row.allow)
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(allow, nil, resolving(t, [4]byte{127, 0, 0, 1}))
			defer c.Close()
			r, err := c.Post(t.Context(), "http://hooks.example.com:"+port+row.path, http.Header{}, nil)
			if errors.Is(err, ErrRefused) != row.refused || r.Status != row.status {
				t.Fatalf("got status %d and %v", r.Status, err)
			}
			if len(r.Body) > responseBytes {
				t.Errorf("the body has %d bytes", len(r.Body))
			}
		})
	}
}

// TestSpellingsOfAnAddress: however a URL writes an address of this machine or
// network, nothing is connected to.
func TestSpellingsOfAnAddress(t *testing.T) {
	var reached atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer receiver.Close()
	_, port, _ := net.SplitHostPort(receiver.Listener.Addr().String())
	c := New(Allow{}, nil)
	defer c.Close()
	for _, host := range []string{
		"127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0", "localhost", "LOCALHOST.", "localhost.localdomain",
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fe80::1%25lo]", "[fe80::1]",
		"169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := c.Post(ctx, "http://"+host+":"+port, http.Header{}, nil)
		cancel()
		// What is no address to this machine's resolver is not found.
		if _, notFound := errors.AsType[*net.DNSError](err); err == nil || !errors.Is(err, ErrRefused) && !notFound {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests got through", n)
	}
}

// TestRebinding: a name that is good at one call and bad at the next, with a
// redirect to it besides, is looked at again each time.
func TestRebinding(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // the next call must connect again
		http.Redirect(w, r, "http://10.0.0.1/inside", http.StatusTemporaryRedirect)
	}))
	defer receiver.Close()
	_, port, _ := net.SplitHostPort(receiver.Listener.Addr().String())
	allow, err := ParseAllow([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(allow, nil, resolving(t, [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2}))
	defer c.Close()
	if r, err := c.Post(t.Context(), "http://hooks.example.com:"+port, http.Header{}, nil); err != nil || r.Status != http.StatusTemporaryRedirect {
		t.Errorf("the first call: %d, %v", r.Status, err)
	}
	if r, err := c.Post(t.Context(), "http://hooks.example.com:"+port, http.Header{}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("the second call: %d, %v", r.Status, err)
	}
}
