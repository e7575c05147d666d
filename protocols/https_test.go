package protocols

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const upgradeRequest = "GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

func TestWebSocketRequest(t *testing.T) {
	t.Parallel()
	replaced := func(old, by string) string { return strings.Replace(upgradeRequest, old, by, 1) }
	for name, test := range map[string]struct {
		b     string
		ours  bool
		ahead string
	}{
		"an SDK's":            {upgradeRequest, true, ""},
		"with what follows":   {upgradeRequest + "\x82\x80", true, "\x82\x80"},
		"escaped":             {replaced("$", "%24"), true, ""},
		"of plain MQTT":       {replaced("/$iothub/websocket?iothub-no-client-cert=true", "/mqtt"), true, ""},
		"a page at the root":  {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", false, ""},
		"a part":              {upgradeRequest[:len(upgradeRequest)-2], false, ""},
		"nothing":             {"", false, ""},
		"another path":        {replaced("/$iothub/websocket", "/api/v1/hub"), false, ""},
		"another method":      {replaced("GET", "POST"), false, ""},
		"with a body":         {replaced("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"), false, ""},
		"with chunks":         {replaced("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), false, ""},
		"HTTP/1.0":            {replaced("HTTP/1.1", "HTTP/1.0"), false, ""},
		"without a host":      {replaced("Host: localhost\r\n", ""), false, ""},
		"a header that isn't": {replaced("Upgrade: websocket", "Upg rade: websocket"), false, ""},
	} {
		r, ahead := webSocketRequest([]byte(test.b))
		if (r != nil) != test.ours || string(ahead) != test.ahead {
			t.Errorf("%s: got %v and %q ahead", name, r, ahead)
		}
	}
}

func FuzzWebSocketRequest(f *testing.F) {
	f.Add([]byte(upgradeRequest))
	f.Add([]byte(upgradeRequest + "\x82\x80"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.Clone(b)
		r, ahead := webSocketRequest(b)
		if !bytes.Equal(b, whole) {
			t.Fatal("the bytes were changed")
		}
		if r == nil {
			return
		}
		if !bytes.HasSuffix(b, ahead) || !isDevicePath(r.URL.EscapedPath(), r) {
			t.Fatalf("%s with %q ahead", r.URL, ahead)
		}
		// An HTTP server would have read the same.
		same, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || same.RequestURI != r.RequestURI || same.Host != r.Host {
			t.Fatalf("read as %v, %v", same, err)
		}
	})
}

// dialTLS opens a connection that has not sent a request.
func dialTLS(t *testing.T, r *running, kind string, c *tls.Config) *tls.Conn {
	t.Helper()
	c.RootCAs, c.ServerName = r.roots(), "localhost"
	conn, err := tls.Dial("tcp", r.address(kind), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestFirstRequests sends requests in all the ways in which the first bytes of a
// connection can come.
func TestFirstRequests(t *testing.T) {
	t.Parallel()
	r := start(t)
	const page = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, test := range map[string]struct {
		writes []string
		status []int
	}{
		"a WebSocket":                  {[]string{upgradeRequest}, []int{101}},
		"in two parts":                 {[]string{upgradeRequest[:30], upgradeRequest[30:]}, []int{101}},
		"refused":                      {[]string{strings.Replace(upgradeRequest, "mqtt", "AMQPWSB10", 1)}, []int{400}},
		"a request":                    {[]string{page}, []int{200}},
		"byte by byte":                 {strings.Split(page, ""), []int{200}},
		"two requests in one write":    {[]string{page + page}, []int{200, 200}},
		"a WebSocket after a request":  {[]string{page, upgradeRequest}, []int{200, 101}},
		"no HTTP":                      {[]string{"hello there\r\n\r\n"}, []int{400}},
		"a request larger than a page": {[]string{strings.Replace(page, "\r\n\r\n", "\r\nX-Filler: "+strings.Repeat("x", 8000)+"\r\n\r\n", 1)}, []int{200}},
		"a header too large":           {[]string{strings.Replace(page, "\r\n\r\n", "\r\nX-Filler: "+strings.Repeat("x", 2*maxHeaderBytes)+"\r\n\r\n", 1)}, []int{431}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dialTLS(t, r, "https", &tls.Config{})
			go func() {
				for _, b := range test.writes {
					_, _ = io.WriteString(conn, b) // the answer tells
				}
			}()
			br := bufio.NewReader(conn)
			for i, status := range test.status {
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatalf("answer %d: %v", i+1, err)
				}
				body, err := io.ReadAll(resp.Body)
				if resp.StatusCode != status || err != nil {
					t.Errorf("answer %d: %s %s (%v), want %d", i+1, resp.Status, body, err, status)
				}
			}
		})
	}
}

func TestPlainRequestToTLS(t *testing.T) {
	t.Parallel()
	r := start(t)
	conn, err := net.Dial("tcp", r.address("https"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	answer, read := io.ReadAll(conn)
	if err := errors.Join(err, read); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") || !strings.Contains(string(answer), "https://") {
		t.Errorf("got %q (%v)", answer, err)
	}
}

// TestDrainCutsTheSilent has connections that have shaken hands and sent nothing
// when the server is told to stop: it need not wait for them.
func TestDrainCutsTheSilent(t *testing.T) {
	t.Parallel()
	r := start(t)
	conn := dialTLS(t, r, "https", &tls.Config{})
	began := time.Now()
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took >= readHeaderTime {
		t.Errorf("the end took %s", took)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still there")
	}
}

// TestPanicEndsTheConnection: what fails for one client fails for no other.
func TestPanicEndsTheConnection(t *testing.T) {
	t.Parallel()
	r := start(t)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- r.accept(t.Context(), r.secure(&gatedListener{Listener: raw, gate: r.gate}), func(*tls.Conn, func() bool) { panic("of the test") })
	}()
	for range 2 {
		conn, err := tls.Dial("tcp", raw.Addr().String(), &tls.Config{RootCAs: r.roots(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the connection ended with %v", err)
		}
		_ = conn.Close()
	}
	if err := errors.Join(raw.Close(), <-ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept ended with %v", err)
	}
}

// written notes each write.
type written struct {
	net.Conn
	writes []string
}

func (w *written) Write(b []byte) (int, error) {
	w.writes = append(w.writes, string(b))
	return len(b), nil
}

func (w *written) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (w *written) Close() error         { return nil }

// TestTicketsGoWithWhatIsNext feeds a connection what crypto/tls writes to it.
func TestTicketsGoWithWhatIsNext(t *testing.T) {
	t.Parallel()
	const hello, ticket, data = "\x16hello", "\x17ticket", "\x17data"
	for name, test := range map[string]struct {
		steps string // s: shake, o: shook, f: shook after a failure, h, t and d: writes
		want  []string
	}{
		"TLS 1.3":            {"shtodd", []string{hello, ticket + data, data}},
		"two tickets":        {"shttodd", []string{hello, ticket + ticket + data, data}},
		"TLS 1.2":            {"shhod", []string{hello, hello, data}},
		"an alert":           {"shtf", []string{hello, ticket}},
		"a failure before":   {"shf", []string{hello}},
		"no TLS of our own":  {"htd", []string{hello, ticket, data}},
		"nothing is written": {"shto", []string{hello}},
	} {
		c := &written{}
		k := newAdmission(1, 1).admit(c, false)
		for _, step := range test.steps {
			var err error
			switch text := map[rune]string{'h': hello, 't': ticket, 'd': data}[step]; step {
			case 's':
				k.shake()
			case 'o', 'f':
				k.shook(step == 'f')
			default:
				var n int
				if n, err = k.Write([]byte(text)); n != len(text) {
					t.Errorf("%s: wrote %d bytes of %d", name, n, len(text))
				}
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !slices.Equal(c.writes, test.want) {
			t.Errorf("%s: wrote %q, want %q", name, c.writes, test.want)
		}
		if err := k.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
