package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// countedConn counts writes.
type countedConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// oncePair is a TLS connection over a Socket whose writes are counted, and its
// client, which takes nothing until it is read from.
func oncePair(t *testing.T) (server, client *tls.Conn, counted *countedConn) {
	t.Helper()
	server, client, counted = strangers(t)
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(t.Context()) }()
	if err := errors.Join(client.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	return server, client, counted
}

// strangers are such a pair before the handshake.
func strangers(t *testing.T) (server, client *tls.Conn, counted *countedConn) {
	t.Helper()
	certified := httptest.NewTLSServer(nil)
	t.Cleanup(certified.Close)
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	counted = &countedConn{Conn: near}
	s := NewSocket(counted)
	server = tls.Server(&s, certified.TLS)
	client = tls.Client(far, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own
	return server, client, counted
}

// TestWriteOnce: many records go out in one write and in order, also when
// somebody else writes at that time.
func TestWriteOnce(t *testing.T) {
	var gatherings Gatherings
	server, client, counted := oncePair(t)
	const large = 100_000
	pieces := [][]byte{bytes.Repeat([]byte("a"), 10), bytes.Repeat([]byte("b"), large), bytes.Repeat([]byte("c"), 5), bytes.Repeat([]byte("d"), large)}
	done := make(chan error, 2)
	go func() {
		for _, p := range pieces {
			if err := WriteOnce(server, p, &gatherings); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	got := make([]byte, 2*large+15)
	before := counted.writes.Load()
	if _, err := io.ReadFull(client, got); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !bytes.Equal(got, bytes.Join(pieces, nil)) {
		t.Fatalf("%v, or another text came than was written", err)
	}
	// The handshake may have left one that the client had not asked for.
	if n := counted.writes.Load() - before; n > int64(len(pieces))+1 {
		t.Errorf("%d writes of %d pieces", n, len(pieces))
	}

	letters := map[byte]int{}
	for _, letter := range []byte("xy") {
		go func() {
			var err error
			for range 50 {
				if letter == 'x' {
					err = errors.Join(err, WriteOnce(server, bytes.Repeat([]byte{letter}, large), &gatherings))
				} else {
					_, wrote := server.Write(bytes.Repeat([]byte{letter}, large))
					err = errors.Join(err, wrote)
				}
			}
			done <- err
		}()
	}
	for left := 2 * 50 * large; left > 0; {
		n, err := client.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range got[:n] {
			letters[b]++
		}
		left -= n
	}
	if err := errors.Join(<-done, <-done); err != nil || letters['x'] != 50*large || letters['y'] != 50*large {
		t.Errorf("%v, %v", err, letters)
	}
}

// TestWriteOnceBeforeTheHandshake: whoever writes first makes the handshake, and is
// told when there is none.
func TestWriteOnceBeforeTheHandshake(t *testing.T) {
	server, client, _ := strangers(t)
	sent, done := bytes.Repeat([]byte("a"), 100_000), make(chan error, 1)
	go func() { done <- WriteOnce(server, sent, &Gatherings{}) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v, or another text came than was written", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}

	server, client, _ = strangers(t)
	go func() { done <- WriteOnce(server, sent, &Gatherings{}) }()
	_ = client.NetConn().Close()
	if err := <-done; err == nil {
		t.Error("a text was written to who was gone before the handshake")
	}
}

// TestWriteOnceFails: what could not be written is said, and nothing waits.
func TestWriteOnceFails(t *testing.T) {
	server, _, _ := oncePair(t)
	if err := server.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := WriteOnce(server, make([]byte, 100_000), &Gatherings{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
}
