package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// socketListener accepts connections as the hub does: as Sockets.
type socketListener struct{ net.Listener }

func (l socketListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := NewSocket(c)
	return &s, nil
}

// socketPair returns both ends of a stream: the server's over a Socket.
func socketPair(t *testing.T, webSocket, useTLS bool) (client, server *Stream) {
	t.Helper()
	accepted := make(chan *Stream, 1)
	pool := NewBuffers()
	hs := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if st, err := Accept(w, r, pool); err == nil {
			accepted <- st
		}
	}))
	hs.Listener = socketListener{hs.Listener}
	t.Cleanup(hs.Close)
	if useTLS {
		hs.StartTLS()
	} else {
		hs.Start()
	}
	var o DialOptions
	if useTLS {
		o.TLS = hs.Client().Transport.(*http.Transport).TLSClientConfig
	}
	var err error
	if webSocket {
		client, err = DialWebSocket(t.Context(), "ws"+strings.TrimPrefix(hs.URL, "http")+"/", o)
	} else {
		client, err = rawPair(t, o.TLS, hs.TLS, accepted)
	}
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// rawPair is a pair without HTTP.
func rawPair(t *testing.T, client, server *tls.Config, accepted chan<- *Stream) (*Stream, error) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	done := make(chan error, 1)
	go func() {
		c, err := socketListener{l}.Accept()
		if err == nil && server != nil {
			tc := tls.Server(c, server)
			c, err = tc, tc.HandshakeContext(context.Background())
		}
		if err == nil {
			accepted <- NewStream(c, NewBuffers())
		}
		done <- err
	}()
	if client != nil {
		st, err := Dial(t.Context(), l.Addr().String(), DialOptions{TLS: client})
		return st, errors.Join(err, <-done)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	return NewStream(c, NewBuffers()), <-done
}

// What a client wrote piece by piece is read in one go, and nothing is waited
// for once it has all been read.
func TestReadArrived(t *testing.T) {
	for _, kind := range []struct {
		name      string
		webSocket bool
		tls       bool
	}{{"tcp", false, false}, {"tls", false, true}, {"ws", true, false}, {"wss", true, true}} {
		t.Run(kind.name, func(t *testing.T) {
			client, server := socketPair(t, kind.webSocket, kind.tls)
			var sent []byte
			for _, size := range []int{100, 1, 125, 126, 127, 3000, 20_000, 300, 70_000, 5} {
				piece := make([]byte, size)
				_, _ = rand.Read(piece)
				sent = append(sent, piece...)
				if _, err := client.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			var got []byte
			buf := make([]byte, 4096)
			waits, early := 0, 0
			for len(got) < len(sent) {
				n, err := server.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				waits++
				for n > 0 {
					got = append(got, buf[:n]...)
					if n, err = server.ReadArrived(buf); err != nil {
						t.Fatal(err)
					}
					early++
				}
			}
			if !bytes.Equal(got, sent) {
				t.Fatal("what was read is not what was written")
			}
			if early < 10 {
				t.Errorf("%d reads waited and only %d took what had arrived", waits, early)
			}
			if n, err := server.ReadArrived(buf); n != 0 || err != nil {
				t.Errorf("with nothing there: %d, %v", n, err)
			}
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			if _, err := server.Read(buf); err == nil {
				t.Errorf("after the client's end: %v", err)
			}
		})
	}
}

// A frame that has begun to arrive, a fragment and a ping are left to Read,
// which may wait.
func TestReadArrivedParts(t *testing.T) {
	frame := func(first byte, body string) []byte {
		return append([]byte{first, 0x80 | byte(len(body)), 0, 0, 0, 0}, body...)
	}
	whole := frame(0x82, "first")
	tests := []struct {
		name   string
		then   []byte // behind a whole frame
		early  string // what ReadArrived finds of it
		rest   []byte
		onward string // what the next Read finds
	}{
		{"half a header", []byte{0x82}, "", frame(0x82, "second")[1:], "second"},
		{"half a frame", frame(0x82, "second")[:9], "", frame(0x82, "second")[9:], "second"},
		{"a fragment", frame(0x02, "second"), "", frame(0x80, ""), "second"},
		{"a ping", frame(0x89, "ping"), "", frame(0x82, "second"), "second"},
		{"a frame and a half", append(frame(0x82, "second"), 0x82, 0x85), "second", frame(0x82, "third")[2:], "third"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client, server := socketPair(t, true, false)
			raw := client.link.Conn // past the library
			if _, err := raw.Write(append(bytes.Clone(whole), test.then...)); err != nil {
				t.Fatal(err)
			}
			if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, err := server.Read(buf); string(buf[:n]) != "first" {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
			var early []byte
			for {
				n, err := server.ReadArrived(buf)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				early = append(early, buf[:n]...)
			}
			if string(early) != test.early {
				t.Errorf("ReadArrived found %q, want %q", early, test.early)
			}
			if _, err := raw.Write(test.rest); err != nil {
				t.Fatal(err)
			}
			if n, err := server.Read(buf); string(buf[:n]) != test.onward {
				t.Errorf("then Read found %q, %v, want %q", buf[:n], err, test.onward)
			}
		})
	}
}

// A deadline in the past and a cut end ReadArrived's streams as they end Read's.
func TestReadArrivedCut(t *testing.T) {
	client, server := socketPair(t, false, true)
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	if _, err := server.Read(buf); err != nil {
		t.Fatal(err)
	}
	if n, err := server.ReadArrived(buf); n != 2 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	server.Cut()
	if n, err := server.ReadArrived(buf); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
	if _, err := server.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the cut: %v", err)
	}
}
