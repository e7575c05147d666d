package client_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// TestBackupIsCut: a stream that ends early is an error of the connection,
// whatever came before; a refusal is the hub's; a writer's error stays its own.
func TestBackupIsCut(t *testing.T) {
	dir, err := os.MkdirTemp("", "muster") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var modes atomic.Value
	modes.Store("whole")
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := modes.Load()
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != `{"passphrase":"p"}` || r.URL.Path != "/api/v1/backups/stream" {
			t.Errorf("%s %s: %q, %v", r.Method, r.URL, body, err)
		}
		if mode == "refused" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write([]byte(`{"code":"BackupRunning","detail":"a backup runs"}`))
			return
		}
		if mode == "cut at once" {
			panic(http.ErrAbortHandler)
		}
		for range 100 {
			_, _ = w.Write(make([]byte, 10_000))
		}
		if mode == "cut" {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	s, err := client.NewService(client.ServiceOptions{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var got bytes.Buffer
	if err := s.Backup(t.Context(), []byte("p"), &got); err != nil || got.Len() != 1_000_000 {
		t.Errorf("whole: %d bytes, %v", got.Len(), err)
	}
	var unreached *client.ConnectError
	for _, mode := range []string{"cut", "cut at once"} {
		modes.Store(mode)
		if err := s.Backup(t.Context(), []byte("p"), io.Discard); !errors.As(err, &unreached) || !errors.Is(err, client.ErrBackupCut) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	modes.Store("refused")
	var refused *client.Error
	if err := s.Backup(t.Context(), []byte("p"), io.Discard); !errors.As(err, &refused) || refused.Code != "BackupRunning" || errors.Is(err, client.ErrBackupCut) {
		t.Errorf("refused: %v", err)
	}
	modes.Store("whole")
	full := errors.New("no space")
	if err := s.Backup(t.Context(), []byte("p"), failing{full}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
