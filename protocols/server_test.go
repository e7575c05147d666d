package protocols

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/wire"
)

func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	r := start(t)
	c := r.client(t)
	base := "https://" + r.address("https")
	for _, test := range []struct {
		path   string
		status int
		kind   string
		holds  string
	}{
		{"/healthz", 200, "text/plain", "ok"},
		{"/readyz", 200, "application/json", `"ready":true`},
		{"/readyz", 200, "application/json", `"queries":{"ready":`},
		{"/", 200, "text/html", "Muster"},
		{"/patterns", 200, "text/html", "patterns"},
		{"/assets/page.js", 200, "text/javascript", "sessionStorage"},
		{"/assets/page.css", 200, "text/css", "color-scheme"},
		{"/assets/../main.go", 404, "", ""},
		{"/favicon.ico", 200, "image/svg+xml", "<svg"},
		{"/metrics", 200, "text/plain", "muster_ready 1"},
		{"/api/v1/hub", 401, "application/problem+json", ""},
		{"/devices/d1?api-version=2021-04-12", 401, "application/json", ""},
		{"/nothing", 0, "", ""},
		{"/$iothub/websocket", 426, "", "WebSocket"},
		{"/%24iothub/websocket?iothub-no-client-cert=true", 426, "", "WebSocket"},
		{"/$IotHub/WebSocket/", 426, "", "WebSocket"},
	} {
		resp, body := get(t, c, base+test.path)
		if test.status == 0 && resp.StatusCode < 400 || test.status != 0 && resp.StatusCode != test.status {
			t.Errorf("%s: status %d, want %d: %s", test.path, resp.StatusCode, test.status, body)
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), test.kind) || !strings.Contains(body, test.holds) {
			t.Errorf("%s: got %s %.100s", test.path, resp.Header.Get("Content-Type"), body)
		}
		if resp.ProtoMajor != 1 {
			t.Errorf("%s: HTTP/%d", test.path, resp.ProtoMajor)
		}
	}
	if resp, _ := get(t, c, base+"/"); !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the page has the policy %q", resp.Header.Get("Content-Security-Policy"))
	}
	if resp, body := get(t, c, base+"/", "Connection", "Upgrade", "Upgrade", "websocket"); resp.StatusCode != 400 || !strings.Contains(body, "mqtt") {
		t.Errorf("a WebSocket without the subprotocol: %d %s", resp.StatusCode, body)
	}
	resp, body := get(t, r.socketClient(t), "http://socket/api/v1/hub")
	var hub struct {
		Ready     bool
		Listeners []Listener
	}
	if err := json.Unmarshal([]byte(body), &hub); err != nil || resp.StatusCode != 200 || !hub.Ready || len(hub.Listeners) != 3 {
		t.Errorf("over the socket: %d %s (%v)", resp.StatusCode, body, err)
	}
}

func TestProbesAreOnlyRead(t *testing.T) {
	t.Parallel()
	r := start(t)
	c := r.client(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
			req, err := http.NewRequestWithContext(t.Context(), method, "https://"+r.address("https")+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want || want == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q; want %d", method, path, resp.StatusCode, resp.Header.Get("Allow"), want)
			}
		}
	}
}

func TestMetricsAccess(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) { o.MetricsToken = "secret" })
	c := r.client(t)
	url := "https://" + r.address("https") + "/metrics"
	policy, err := r.hub.PutPolicy(t.Context(), enginetest.Owner(), auth.SharedAccessPolicy{Name: "watch", Permissions: auth.StatusRead})
	if err != nil {
		t.Fatal(err)
	}
	key, err := policy.PrimaryKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	token := auth.SignToken(r.hub.Hosts()[0], key, "watch", time.Now().Add(time.Hour))
	device, err := r.hub.Policy(t.Context(), enginetest.Owner(), "device")
	if err != nil {
		t.Fatal(err)
	}
	key, err = device.PrimaryKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	other := auth.SignToken(r.hub.Hosts()[0], key, "device", time.Now().Add(time.Hour))
	for name, test := range map[string]struct {
		header []string
		status int
	}{
		"this machine":          {nil, 200},
		"through a proxy":       {[]string{"X-Forwarded-For", "203.0.113.9"}, 401},
		"foreign name":          {[]string{"Host", "evil.example.com"}, 401},
		"the token":             {[]string{"Authorization", "Bearer secret", "X-Forwarded-For", "203.0.113.9"}, 200},
		"a wrong token":         {[]string{"Authorization", "Bearer secre"}, 401},
		"may read the status":   {[]string{"Authorization", token, "X-Forwarded-For", "203.0.113.9"}, 200},
		"may only be a device":  {[]string{"Authorization", other}, 401},
		"no token but a header": {[]string{"Authorization", "Basic x"}, 401},
	} {
		if resp, body := get(t, c, url, test.header...); resp.StatusCode != test.status {
			t.Errorf("%s: status %d, want %d: %.200s", name, resp.StatusCode, test.status, body)
		}
	}
	_, body := get(t, c, url)
	for _, m := range Metrics() {
		if m.Kind != "histogram" && len(m.Labels) == 0 && !strings.Contains(body, "\n"+m.Name+" ") {
			t.Errorf("%s is documented but not there", m.Name)
		}
	}
}

func TestCrossOriginRequestsAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.address("http")+"/api/v1/policies/service/rotate", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := r.client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("status %d, %s, want 403 in the form of the API's errors", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}

func TestReadinessWhileDraining(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.hub.Drain()
	resp, body := get(t, r.client(t), "https://"+r.address("https")+"/readyz")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "shutting down") {
		t.Errorf("got %d, Retry-After %q, %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
	}
}

// TestDrainAwaitsMethods: while a device has a method to answer, whoever asks
// whether the hub is ready still finds it, and hears no.
func TestDrainAwaitsMethods(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) { o.DrainTime = time.Minute })
	id := engine.TwinID{DeviceID: "slow"}
	calls := make(chan enginetest.Method, 1)
	d := enginetest.Connect(t, r.hub, id, engine.EndpointMethod)
	d.Forward(func(m enginetest.Method) { calls <- m })
	result := make(chan error, 1)
	go func() {
		_, err := r.hub.InvokeMethod(context.WithoutCancel(t.Context()), enginetest.Owner(), id, engine.MethodCall{Name: "m"})
		result <- err
	}()
	call := <-calls
	r.stop()
	for status := 200; status != 503; {
		resp, _ := get(t, r.client(t), "https://"+r.address("https")+"/readyz") // by a connection of its own
		if status = resp.StatusCode; status != 200 && status != 503 {
			t.Fatalf("/readyz answers %d", status)
		}
	}
	select {
	case err := <-r.ended:
		t.Fatalf("Serve has ended with %v", err)
	default:
	}
	d.Session.CompleteMethod(call.RequestID, 200, nil)
	if err := <-result; err != nil {
		t.Errorf("the call ended with %v", err)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, kind := range []string{"https", "mqtts"} {
		dial := func(change func(*tls.Config)) (tls.ConnectionState, error) {
			c := &tls.Config{RootCAs: r.roots(), ServerName: "localhost"}
			change(c)
			conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", r.address(kind))
			if err != nil {
				return tls.ConnectionState{}, err
			}
			secure, ok := conn.(*tls.Conn)
			if !ok {
				t.Fatal("not a TLS connection")
			}
			if kind == "https" { // reads the session ticket, which comes with the first answer
				_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn)
			}
			return secure.ConnectionState(), conn.Close()
		}
		state, err := dial(func(*tls.Config) {})
		if err != nil || state.PeerCertificates[0].PublicKeyAlgorithm.String() != "ECDSA" {
			t.Errorf("%s: got %v, want the ECDSA certificate", kind, err)
		}
		state, err = dial(func(c *tls.Config) {
			c.MaxVersion = tls.VersionTLS12
			c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		})
		if err != nil || state.PeerCertificates[0].PublicKeyAlgorithm.String() != "RSA" {
			t.Errorf("%s: a client that knows only RSA: %v", kind, err)
		}
		if _, err = dial(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }); err == nil {
			t.Errorf("%s: TLS 1.1 is taken", kind)
		}
		state, err = dial(func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} })
		if kind == "https" && (err != nil || state.NegotiatedProtocol != "http/1.1") {
			t.Errorf("%s: ALPN gave %q, %v", kind, state.NegotiatedProtocol, err)
		}
		asked := false
		if _, err = dial(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return &r.certs.authority.Load().servers[0], nil // no client certificate at all: it is not judged here
			}
		}); err != nil || !asked {
			t.Errorf("%s: a client certificate was asked for: %t, %v", kind, asked, err)
		}
		if kind == "https" {
			cache := tls.NewLRUClientSessionCache(1)
			resumed := false
			for range 2 {
				state, err = dial(func(c *tls.Config) { c.ClientSessionCache = cache })
				resumed = state.DidResume
			}
			if err != nil || !resumed {
				t.Errorf("a second connection did not resume the session (%v)", err)
			}
		}
	}
}

// TestTwoThousandStrangers opens 2,000 connections that say nothing, from one
// address, and asks for an answer like any other client meanwhile.
func TestTwoThousandStrangers(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < 6000 {
		t.Fatalf("only %d files may be open, the test needs 6000: ulimit -n 6000", limit.Cur)
	}
	r := start(t)
	var mu sync.Mutex
	var open []net.Conn
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	}()
	var wg sync.WaitGroup
	for i := range 2000 {
		address := r.address([]string{"https", "mqtts"}[i%2])
		wg.Go(func() {
			var d net.Dialer
			c, err := d.DialContext(t.Context(), "tcp", address)
			if err != nil {
				return // it may be refused: that is the gate's right
			}
			mu.Lock()
			defer mu.Unlock()
			open = append(open, c)
		})
	}
	worst := time.Duration(0)
	for range 20 {
		c := r.client(t) // a new connection and handshake each time
		began := time.Now()
		if resp, body := get(t, c, "https://"+r.address("https")+"/healthz"); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		worst = max(worst, time.Since(began))
	}
	wg.Wait()
	if worst > 3*time.Second {
		t.Errorf("a client waited %s behind strangers, want at most 3 s", worst)
	}
	if f := r.gate.snapshot(); f.strangers > strangersAll {
		t.Errorf("%d strangers are in, at most %d may", f.strangers, strangersAll)
	}
	t.Logf("worst answer %s", worst)
}

// TestStrangersUntilConnect shows that a connection at the device path stays a
// stranger until its CONNECT is accepted, whether it became a WebSocket or not.
func TestStrangersUntilConnect(t *testing.T) {
	t.Parallel()
	r := start(t)
	for name, head := range map[string]string{
		"no upgrade": "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"no CONNECT": "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
	} {
		before := r.gate.snapshot().strangers
		c, err := net.Dial("tcp", r.address("http"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte(head)); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if got := r.gate.snapshot().strangers - before; got != 1 {
			t.Errorf("%s: %d strangers more after the answer, want 1", name, got)
		}
	}
	id := engine.TwinID{DeviceID: "d"}
	token := enginetest.Token(t, r.hub, id, time.Now().Add(time.Hour))
	before := r.gate.snapshot()
	d, err := wire.Dial(t.Context(), r.address("mqtts"), wire.DialOptions{TLS: &tls.Config{RootCAs: r.roots(), ServerName: "localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	b, err := wire.AppendConnect(nil, &wire.Connect{ClientID: "d", Username: enginetest.HostName + "/d/?api-version=2021-04-12", Password: token, Clean: true})
	if err == nil {
		_, err = d.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	var p wire.Packet
	if err := wire.NewReader(d, wire.NewBuffers(), 100).ReadPacket(&p); err != nil || p.Code != wire.ConnackAccepted {
		t.Fatalf("got %+v, %v", p, err)
	}
	if after := r.gate.snapshot(); after.strangers != before.strangers || after.open != before.open+1 {
		t.Errorf("after CONNECT: %+v, before %+v", after, before)
	}
}

func TestDrainFinishesRequests(t *testing.T) {
	t.Parallel()
	r := start(t)
	conn, err := net.Dial("tcp", r.address("http"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// A request whose body is still on its way when the server is told to stop.
	if _, err := io.WriteString(conn, "POST /api/v1/policies/x/rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(conn)
		answered <- string(b)
	}()
	r.stop()
	_, _ = io.WriteString(conn, "}")
	select {
	case text := <-answered:
		if text != "" && !strings.HasPrefix(text, "HTTP/1.1 ") {
			t.Errorf("got %q", text)
		}
	case <-time.After(10 * time.Second):
		t.Error("the request was neither answered nor cut")
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", r.address("https")); err == nil {
		t.Error("the listener is still open")
	}
	if _, err := os.Stat(filepath.Join(r.dir, "s")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there (%v)", err)
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	r := start(t)
	for name, test := range map[string]struct {
		change func(*Options)
		want   []string
	}{
		"taken":        {func(o *Options) { o.HTTPS = []string{r.address("https")} }, []string{"--https", "taken by protocols.test (pid "}},
		"not here":     {func(o *Options) { o.MQTTS = []string{"192.0.2.1:8883"} }, []string{"--mqtts", "no such address"}},
		"long socket":  {func(o *Options) { o.Socket = "/" + strings.Repeat("x", 200) }, []string{"socket", "longer than"}},
		"half a pair":  {func(o *Options) { o.CertFile = "x" }, []string{"belong together"}},
		"no such file": {func(o *Options) { o.CertFile, o.KeyFile = "no.pem", "no.key" }, []string{"no.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{DataDir: t.TempDir(), HTTP: []string{"127.0.0.1:0"}, Socket: filepath.Join(t.TempDir(), "s")}
			test.change(&o)
			s, err := Listen(t.Context(), r.hub, o)
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to hold %q", err, want)
				}
			}
			if e, ok := errors.AsType[*ListenError](err); ok && e.Next == "" {
				t.Error("no next step")
			}
		})
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r := start(t, func(o *Options) { o.Notify, o.Watchdog = socket, 20*time.Millisecond })
	var got []string
	read := func() {
		b := make([]byte, 100)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(b[:n]); len(got) == 0 || got[len(got)-1] != text {
			got = append(got, text)
		}
	}
	for len(got) < 3 {
		read()
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	for len(got) < 4 {
		read()
	}
	want := []string{"READY=1\nSTATUS=ready, 0 sessions", "WATCHDOG=1\nSTATUS=ready, 0 sessions", "WATCHDOG=1", "STOPPING=1\nSTATUS=draining 0 sessions\nEXTEND_TIMEOUT_USEC=35000000"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if err := Notify(context.Background(), "", "READY=1"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
}
