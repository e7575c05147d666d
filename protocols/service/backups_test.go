package service

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/storage"
)

// stream posts for a backup and returns the answer, which the caller reads.
func (f *fixture) stream(ctx context.Context, body string, options ...option) *http.Response {
	f.Helper()
	return f.send(ctx, http.MethodPost, "/api/v1/backups/stream", body, options...)
}

func TestBackupStream(t *testing.T) {
	f := newFixture(t)
	for _, p := range []auth.SharedAccessPolicy{{Name: "manager", Permissions: auth.HubManage}, {Name: "viewer", Permissions: auth.StatusRead}} {
		if _, err := f.hub.PutPolicy(t.Context(), enginetest.Owner(), p); err != nil {
			t.Fatal(err)
		}
	}
	f.learnKeys()
	f.do("PUT", "/devices/d1", `{"deviceId":"d1"}`).want(200)
	w := f.stream(t.Context(), `{"passphrase":"correct horse"}`)
	b, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode != 200 || w.Header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%d, %v, %v", w.StatusCode, w.Header, err)
	}
	info, err := storage.VerifyBackup(t.Context(), bytes.NewReader(b))
	if err != nil || !info.HasKey || info.Sequence == 0 || info.Epoch != f.hub.Info(t.Context()).Epoch || engine.BackupChanges(info) == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	for _, c := range []struct {
		policy, body string
		status       int
	}{
		{"manager", ``, 200},
		{"manager", `{}`, 200},
		{"manager", `{"passphrase":"x"}`, 403}, // it would open keys that the policy may not read
		{"viewer", ``, 403},
		{"device", `{"passphrase":""}`, 403},
		{"iothubowner", `{"passphrase":""}`, 400},
		{"iothubowner", `{"passphrase":7}`, 400},
		{"iothubowner", `{"passphrase":"` + strings.Repeat("x", passphraseMax+1) + `"}`, 400},
		{"iothubowner", `[`, 400},
	} {
		w := f.stream(t.Context(), c.body, f.as(c.policy))
		if _, err := io.Copy(io.Discard, w.Body); err != nil || w.StatusCode != c.status {
			t.Errorf("%s %.40s: %d, want %d, %v", c.policy, c.body, w.StatusCode, c.status, err)
		}
	}
	f.do("GET", "/api/v1/backups", "", f.as("viewer")).want(200)
	f.do("GET", "/api/v1/backups", "", f.as("device")).want(403)
	f.do("POST", "/api/v1/backups", "", f.as("viewer")).want(403)
	f.do("POST", "/api/v1/backups", "", f.as("manager")).want(403) // this hub has no directory
	// Refusals are audited a moment later.
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		var refused, made int
		list, _, err := f.hub.Audit(t.Context(), enginetest.Owner(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Operation == "backup.create" && e.Outcome == "done" {
				made++
			} else if e.Operation == "backup.create" && e.Outcome == "refused" {
				refused++
			}
		}
		if made == 3 && refused == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the audit shows %d backups and %d refusals", made, refused)
		}
	}
}

// TestBackupStreamIsOne: a second one is refused while one runs; a client that
// leaves ends its own, and the next one runs.
func TestBackupStreamIsOne(t *testing.T) {
	h := enginetest.New(t)
	server := httptest.NewServer(NewHandler(h, Options{}))
	t.Cleanup(server.Close)
	f := &fixture{TB: t, hub: h, url: server.URL, client: server.Client(), keys: map[string]auth.SharedAccessPolicy{}}
	f.learnKeys()
	if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "d1"}); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1})
	for range 50 { // more than the sockets between take, and nothing that gets smaller
		body := make([]byte, 200<<10)
		_, _ = random.Read(body) // never fails
		if err := h.SendTelemetry(t.Context(), engine.Grant{ID: engine.TwinID{DeviceID: "d1"}}, []engine.Message{{Body: body}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	first := f.stream(ctx, "")
	var head [64]byte
	if _, err := io.ReadFull(first.Body, head[:]); err != nil {
		t.Fatal(err)
	}
	second := f.stream(t.Context(), "")
	text, err := io.ReadAll(second.Body)
	if err != nil || second.StatusCode != http.StatusConflict || !bytes.Contains(text, []byte(`"BackupRunning"`)) {
		t.Errorf("%d: %s, %v", second.StatusCode, text, err)
	}
	if s, err := h.Backups(t.Context(), enginetest.Owner()); err != nil || s.Running == nil || s.Running.File != "" {
		t.Errorf("%+v, %v", s.Running, err)
	}
	leave()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if s, err := h.Backups(t.Context(), enginetest.Owner()); err != nil || s.Running == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the backup of a client that left goes on")
		}
	}
	third := f.stream(t.Context(), "")
	b, err := io.ReadAll(third.Body)
	if err != nil || len(b) < 8<<20 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if _, err := storage.VerifyBackup(t.Context(), bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
}
