package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// local returns a client that reaches this machine.
func local(t *testing.T) *Client {
	t.Helper()
	allow, err := ParseAllow([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c := New(allow, nil)
	t.Cleanup(c.Close)
	return c
}

func TestFetch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "/there", http.StatusFound)
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 5000))
		default:
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("X-Key"), body)
		}
	}))
	defer server.Close()
	c := local(t)
	for _, row := range []struct {
		request Request
		status  int
		body    string
	}{
		{Request{Method: "POST", URL: server.URL + "/", Header: http.Header{"X-Key": {"k"}}, Body: []byte("b")}, 418, "POST k b"},
		{Request{URL: server.URL + "/"}, 418, "GET  "},
		{Request{URL: server.URL + "/long"}, 200, strings.Repeat("x", 1000)},
	} {
		a, sent, err := c.Fetch(t.Context(), row.request, 1000)
		if err != nil || !sent || a.Status != row.status || string(a.Body) != row.body {
			t.Errorf("%s %s: %d %q, sent %v, %v", row.request.Method, row.request.URL, a.Status, a.Body, sent, err)
		}
	}
	if a, _, err := c.Fetch(t.Context(), Request{URL: server.URL + "/away"}, 1000); err != nil || a.Status != http.StatusFound {
		t.Errorf("a redirect: %d, %v; expected it as the answer", a.Status, err)
	}
}

// TestFetchSaysWhetherItWasSent: what never had a connection was not sent; what
// had one was, perhaps.
func TestFetchSaysWhetherItWasSent(t *testing.T) {
	c := local(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + listener.Addr().String() + "/"
	taken := make(chan struct{})
	go func() { // takes a request, and hangs up without an answer
		defer close(taken)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Read(make([]byte, 1000))
		_ = conn.Close()
	}()
	post := Request{Method: http.MethodPost, URL: address, Body: []byte("x")}
	if _, sent, err := c.Fetch(t.Context(), post, 10); err == nil || !sent {
		t.Errorf("hung up on: sent %v, %v", sent, err)
	}
	<-taken
	_ = listener.Close()
	if _, sent, err := c.Fetch(t.Context(), post, 10); err == nil || sent {
		t.Errorf("nobody listens: sent %v, %v", sent, err)
	}
	if _, sent, err := New(Allow{}, nil).Fetch(t.Context(), post, 10); !errors.Is(err, ErrRefused) || sent {
		t.Errorf("a private address: sent %v, %v", sent, err)
	}
	for _, q := range []Request{{URL: "ftp://x/"}, {Method: "A B", URL: address}, {Method: "POST", URL: address, Header: http.Header{"X": {"a\nb"}}}} {
		if _, sent, err := c.Fetch(t.Context(), q, 10); err == nil || sent {
			t.Errorf("%q %s: sent %v, %v", q.Method, q.URL, sent, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, sent, err := c.Fetch(ended, post, 10); err == nil || sent {
		t.Errorf("after its end: sent %v, %v", sent, err)
	}
}

// TestFetchOverAKeptConnection: one that its server has closed meanwhile took
// nothing, and there is no other.
func TestFetchOverAKeptConnection(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	c := local(t)
	post := Request{Method: http.MethodPost, URL: server.URL, Body: []byte("x")}
	if _, sent, err := c.Fetch(t.Context(), post, 10); err != nil || !sent {
		t.Fatal(sent, err)
	}
	server.CloseClientConnections()
	server.Close()
	if _, _, err := c.Fetch(t.Context(), post, 10); err == nil {
		t.Error("a server that is gone answered")
	}
	if _, sent, err := c.Fetch(t.Context(), post, 10); err == nil || sent {
		t.Errorf("a server that is gone: sent %v, %v", sent, err)
	}
}
