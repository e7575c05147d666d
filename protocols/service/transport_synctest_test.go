package service

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

// pipes is a listener whose connections live in the test's bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// serveBubble runs f against a server with short timeouts of its own.
func serveBubble(t *testing.T, f func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string)) {
	t.Helper()
	serveWith(t, &http.Server{ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}, f)
}

func serveWith(t *testing.T, server *http.Server, f func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := enginetest.New(t, enginetest.Azure)
		fix := &fixture{TB: t, hub: hub}
		list, err := hub.Policies(t.Context(), enginetest.Owner())
		if err != nil {
			t.Fatal(err)
		}
		token := ""
		for _, p := range list {
			if p.Name == "iothubowner" {
				fix.keys = map[string]auth.SharedAccessPolicy{"iothubowner": p}
				token = fix.token("iothubowner", enginetest.HostName)
			}
		}
		l := newPipes()
		server.Handler = NewHandler(hub, Options{})
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		defer func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}()
		f(t, hub, l.dial, token)
	})
}

// A call that waits for a device outlives the server's own timeouts.
func TestLongMethod(t *testing.T) {
	serveBubble(t, func(t *testing.T, hub *engine.Hub, dial func() net.Conn, authorization string) {
		d := enginetest.Connect(t, hub, engine.TwinID{DeviceID: "d"}, engine.EndpointMethod)
		conn := dial()
		defer conn.Close()
		body := `{"methodName":"slow","responseTimeoutInSeconds":60}`
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://hub/twins/d/methods?api-version=2021-04-12", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", authorization)
		go func() {
			time.Sleep(40 * time.Second) // of the bubble
			d.Session.CompleteMethod(d.Methods()[0].RequestID, 200, []byte(`"late"`))
		}()
		if err := r.Write(conn); err != nil {
			t.Fatal(err)
		}
		w, err := http.ReadResponse(bufio.NewReader(conn), r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(w.Body)
		if err != nil || w.StatusCode != http.StatusOK || string(got) != `{"status":200,"payload":"late"}` {
			t.Errorf("%d %s %v", w.StatusCode, got, err)
		}
		d.Session.Close(nil)
	})
}

// A client that promises a body and does not send it is answered in time.
func TestBodyThatDoesNotCome(t *testing.T) {
	serveBubble(t, func(t *testing.T, _ *engine.Hub, dial func() net.Conn, authorization string) {
		conn := dial()
		defer conn.Close()
		start := time.Now()
		if _, err := io.WriteString(conn, "PUT /devices/x?api-version=2021-04-12 HTTP/1.1\r\nHost: hub\r\nAuthorization: "+authorization+"\r\nContent-Length: 500\r\n\r\n{\"deviceId\":"); err != nil {
			t.Fatal(err)
		}
		w, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if w.StatusCode != http.StatusBadRequest || time.Since(start) > bodyTime+time.Second {
			t.Errorf("%d after %v", w.StatusCode, time.Since(start))
		}
	})
}

// TestBodyThatNobodyReads announces bodies that never come to requests that
// are answered without a look at them: net/http would wait for them for ever.
func TestBodyThatNobodyReads(t *testing.T) {
	serveWith(t, &http.Server{}, func(t *testing.T, _ *engine.Hub, dial func() net.Conn, authorization string) {
		for status, head := range map[string]string{
			"401": "PUT /devices/d?api-version=2021-04-12 HTTP/1.1\r\nHost: h\r\n",
			"200": "GET /statistics/devices?api-version=2021-04-12 HTTP/1.1\r\nHost: h\r\nAuthorization: " + authorization + "\r\n",
		} {
			c := dial()
			began := time.Now()
			if _, err := c.Write([]byte(head + "Content-Length: 100\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(began.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil || !strings.Contains(line, status) || time.Since(began) > bodyTime {
				t.Errorf("got %q, %v after %s, want %s within %s", line, err, time.Since(began), status, bodyTime)
			}
			_ = c.Close()
		}
	})
}
