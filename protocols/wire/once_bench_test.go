package wire

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"testing"
)

// BenchmarkWriteOnce writes a page of many records.
func BenchmarkWriteOnce(b *testing.B) {
	certified := httptest.NewTLSServer(nil)
	b.Cleanup(certified.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		client, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own
		if err == nil {
			_, _ = io.Copy(io.Discard, client)
		}
	}()
	near, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	s := NewSocket(near)
	server := tls.Server(&s, certified.TLS)
	page := make([]byte, 100<<10)
	if err := server.Handshake(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	var gatherings Gatherings
	for b.Loop() {
		if err := WriteOnce(server, page, &gatherings); err != nil {
			b.Fatal(err)
		}
	}
	_ = server.Close()
}
