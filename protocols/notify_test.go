package protocols

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listenManager is the service manager's end of the socket.
func listenManager(t *testing.T) (socket string, next func() string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return socket, func() string {
		b := make([]byte, 1000)
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// A hub that does not work does not feed the watchdog, and says why in its log;
// it feeds again when it works again.
func TestWatchdogStarves(t *testing.T) {
	t.Parallel()
	socket, next := listenManager(t)
	ctx, stop := context.WithCancel(t.Context())
	calls, stuck := 0, errors.New("changes have waited")
	m := &manager{
		socket: socket, watchdog: 2 * time.Millisecond, log: slog.New(slog.DiscardHandler),
		status: func() string { return "look " + string(rune('0'+calls)) },
		working: func(context.Context, time.Duration) error {
			calls++
			switch {
			case calls == 2 || calls == 3:
				return stuck
			case calls == 5:
				stop()
			}
			return nil
		},
	}
	m.run(ctx)
	var got []string
	for range 4 {
		got = append(got, strings.ReplaceAll(next(), "\n", " "))
	}
	want := "WATCHDOG=1 STATUS=look 1|STATUS=look 2|STATUS=look 3|WATCHDOG=1 STATUS=look 4"
	if text := strings.Join(got, "|"); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// A probe that does not return is silence, too.
func TestWatchdogBlocks(t *testing.T) {
	t.Parallel()
	socket, next := listenManager(t)
	ctx, stop := context.WithCancel(t.Context())
	entered := make(chan struct{})
	m := &manager{
		socket: socket, watchdog: 2 * time.Millisecond, log: slog.New(slog.DiscardHandler), status: func() string { return "" },
		working: func(ctx context.Context, _ time.Duration) error {
			close(entered)
			<-ctx.Done()
			return ctx.Err()
		},
	}
	ended := make(chan struct{})
	go func() {
		m.run(ctx)
		close(ended)
	}()
	<-entered
	m.tell(t.Context(), "X_NEXT=1")
	stop()
	<-ended
	if got := next(); got != "X_NEXT=1" {
		t.Errorf("the first word was %q", got)
	}
}

// Reload takes up the certificate's files and the token, and says so as
// systemd wants to hear it.
func TestReload(t *testing.T) {
	t.Parallel()
	socket, next := listenManager(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	serial := writeCertificate(t, cert, key, "localhost")
	r := start(t, func(o *Options) { o.Notify, o.CertFile, o.KeyFile, o.MetricsToken = socket, cert, key, "one" })
	if got := next(); !strings.HasPrefix(got, "READY=1\n") {
		t.Fatalf("at the start: %q", got)
	}
	if got := servedSerial(t, r.address("https")); got.Cmp(serial) != 0 {
		t.Fatalf("serves %s, want %s", got, serial)
	}
	// The same second and the same size: only being asked makes it look.
	was, err := os.Stat(cert)
	if err != nil {
		t.Fatal(err)
	}
	serial = writeCertificate(t, cert, key, "localhost")
	if err := os.Chtimes(cert, was.ModTime(), was.ModTime()); err != nil {
		t.Fatal(err)
	}
	token := func(text string) func() (string, error) {
		return func() (string, error) { return text, nil }
	}
	if err := r.Reload(t.Context(), token("two")); err != nil {
		t.Fatal(err)
	}
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\n") || !strings.Contains(got, "\nMONOTONIC_USEC=") {
		t.Errorf("before: %q", got)
	}
	if got := next(); !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("after: %q", got)
	}
	if got := servedSerial(t, r.address("https")); got.Cmp(serial) != 0 {
		t.Errorf("serves %s, want %s", got, serial)
	}
	if token := *r.metricsToken.Load(); token != "two" {
		t.Errorf("the token is %q", token)
	}
	// What can be read is taken up, whatever else can't.
	serial = writeCertificate(t, cert, key, "localhost")
	unreadable := errors.New("the token's file is gone")
	if err := r.Reload(t.Context(), func() (string, error) { return "", unreadable }); !errors.Is(err, unreadable) {
		t.Errorf("without a token: %v", err)
	}
	if got := servedSerial(t, r.address("https")); got.Cmp(serial) != 0 {
		t.Errorf("without a token: serves %s, want %s", got, serial)
	}
	if token := *r.metricsToken.Load(); token != "two" {
		t.Errorf("without a token it is %q", token)
	}
	if err := os.WriteFile(cert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(t.Context(), token("three")); err == nil {
		t.Error("a broken certificate was taken up")
	}
	if got := servedSerial(t, r.address("https")); got.Cmp(serial) != 0 {
		t.Errorf("after a broken file: serves %s, want %s", got, serial)
	}
	if token := *r.metricsToken.Load(); token != "three" {
		t.Errorf("after a broken file the token is %q", token)
	}
}
