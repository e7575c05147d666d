package protocols

import (
	"bytes"
	"context"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedText is a log that is read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Files that can't be used are told of once for each change, shown until they
// are well, and taken up when they are, also when nothing but their content shows it.
func TestCertificateFilesThatCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
		changes := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		touch := func() {
			t.Helper()
			changes = changes.Add(time.Second) // the file system's own clock is too coarse for a test
			if err := os.Chtimes(cert, changes, changes); err != nil {
				t.Fatal(err)
			}
		}
		first := writeCertificate(t, cert, key, "localhost")
		touch()
		var log lockedText
		c, err := openCertificates(Options{DataDir: dir, Hosts: []string{"localhost"}, CertFile: cert, KeyFile: key, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go c.watch(ctx)
		state := func(when, trouble string, failures int64, serial *big.Int) {
			t.Helper()
			time.Sleep(time.Hour)
			synctest.Wait()
			if why := c.troubles()["file"]; trouble == "" && why != "" || !strings.Contains(why, trouble) {
				t.Errorf("%s: the trouble is %q, want %q", when, why, trouble)
			}
			if n := strings.Count(log.String(), "certificate not renewed"); c.failures() != failures || int64(n) != failures {
				t.Errorf("%s: %d failures and %d lines, want %d", when, c.failures(), n, failures)
			}
			if got := (*c.current.Load())[0].Leaf.SerialNumber; got.Cmp(serial) != 0 {
				t.Errorf("%s: another certificate is served", when)
			}
		}
		state("at first", "", 0, first)

		good, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		write := func(text []byte) {
			t.Helper()
			if err := os.WriteFile(cert, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(bytes.Repeat([]byte("x"), len(good)))
		touch()
		state("no PEM", "can't be used", 1, first)
		touch()
		state("no PEM, written again", "can't be used", 2, first)
		if err := c.reload(ctx); err == nil {
			t.Error("reload said nothing")
		}
		state("asked for", "can't be used", 3, first)
		was := changes
		write(good)
		if err := os.Chtimes(cert, was, was); err != nil {
			t.Fatal(err)
		}
		state("mended without a change that shows", "", 3, first)

		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		state("no file", "no such file", 4, first)
		write(good)
		if err := os.Chtimes(cert, was, was); err != nil {
			t.Fatal(err)
		}
		state("the file is back", "", 4, first)

		other := filepath.Join(dir, "other.pem")
		writeCertificate(t, other, filepath.Join(dir, "other.key"), "localhost")
		text, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		write(text)
		touch()
		state("of another key", "private key does not match public key", 5, first)
	})
}

// A certificate that has ended does not take the place of one that is good; at
// a start there is none better.
func TestCertificateFileThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
		writeCertificate(t, filepath.Join(dir, "old.pem"), filepath.Join(dir, "old.key"), "localhost")
		time.Sleep(2 * time.Hour)
		serial := writeCertificate(t, cert, key, "localhost")
		o := Options{DataDir: dir, Hosts: []string{"localhost"}, CertFile: cert, KeyFile: key, Logger: slog.New(slog.DiscardHandler)}
		c, err := openCertificates(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"old.pem", "old.key"} {
			if err := os.Rename(filepath.Join(dir, name), map[string]string{"old.pem": cert, "old.key": key}[name]); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.loadFiles(); err == nil || !strings.Contains(err.Error(), "ended on 2000-01-01") || (*c.current.Load())[0].Leaf.SerialNumber.Cmp(serial) != 0 {
			t.Errorf("taken up, or %v", err)
		}
		if _, err := openCertificates(o); err != nil {
			t.Errorf("at a start: %v", err)
		}
	})
}
