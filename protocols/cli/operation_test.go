package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

// step is a command with what it must say.
type step struct {
	args string
	code int
	want string // in standard output or error
	not  string
}

func (s step) run(t *testing.T, env map[string]string, replace ...string) string {
	t.Helper()
	got := call{args: words(strings.NewReplacer(replace...).Replace(s.args)), env: env}.run(t)
	all := got.out + got.err
	if got.code != s.code || !strings.Contains(all, s.want) || s.not != "" && strings.Contains(all, s.not) {
		t.Errorf("muster %s\nexit code %d, want %d, with %q and without %q:\n%s", s.args, got.code, s.code, s.want, s.not, all)
	}
	return all
}

// TestFaultsAndRestore walks through both with a hub behind them.
func TestFaultsAndRestore(t *testing.T) {
	env := map[string]string{"MUSTER_DATA": clienttest.Start(t).Dir}
	for _, s := range []step{
		{"device create pump-1", ExitOK, "pump-1", ""},
		{"module create pump-1 camera", ExitOK, "camera", ""},
		{"fault list", ExitOK, "No fault is injected.", ""},
		{"fault add pump-1 --drop 10% --delay 2s --disconnect-every 1m --for 1h", ExitOK, "10%", ""},
		{"fault add pump-1/camera --drop 2.5%", ExitOK, "pump-1/camera", ""},
		{"fault list", ExitOK, "2.5%", ""},
		{"fault list -o jsonl", ExitOK, `"delaySeconds":2`, ""},
		{"device show pump-1", ExitOK, "A fault is injected into the connection of pump-1", ""},
		{"doctor", ExitOK, "2 connections are disturbed on purpose", ""},
		{"fault add pump-1 --drop 10", ExitUsage, "percent sign", ""},
		{"fault add pump-1 --drop 101%", ExitUsage, "is not a share", ""},
		{"fault add pump-1 --drop NaN%", ExitUsage, "is not a share", ""},
		{"fault add pump-1", ExitFailed, "the fault does nothing", ""},
		{"fault add pump-1 --delay 31s", ExitFailed, "allowed are 0 to 30s", ""},
		{"fault add nobody --drop 1%", ExitNotFound, "nobody", ""},
		{"fault remove pump-1", ExitOK, "", "error"},
		{"fault remove pump-1/camera", ExitOK, "", "error"},
		{"fault remove pump-1/camera", ExitOK, "", "error"},
		{"fault remove nobody", ExitNotFound, "nobody", ""},
		{"fault list", ExitOK, "No fault is injected.", ""},

		{"twin patch pump-1 tags.site=attic desired.interval=5", ExitOK, "attic", ""},
	} {
		s.run(t, env)
	}
	var entry struct {
		ID string `json:"id"`
	}
	history := call{args: words("twin history pump-1 --limit 1 -o jsonl"), env: env}.run(t)
	if err := json.Unmarshal([]byte(strings.SplitN(history.out, "\n", 2)[0]), &entry); err != nil {
		t.Fatal(err, history)
	}
	for _, s := range []step{
		{"twin patch pump-1 tags.site=cellar desired.interval=60", ExitOK, "cellar", ""},
		{"twin show pump-1 --as-of THEN", ExitOK, "attic", "cellar"},
		{"twin restore pump-1 --to THEN --dry-run", ExitOK, "tags.site", ""},
		{"twin show pump-1", ExitOK, "cellar", "attic"},
		{"twin restore pump-1 --to THEN --yes --etag wrong", ExitConflict, "ETag", ""},
		{"twin restore pump-1 --to THEN --section tags --yes -o jsonl", ExitOK, `"tags.site"`, "desired"},
		{"twin show pump-1", ExitOK, "attic", "cellar"},
		{"twin restore pump-1 --to THEN --section tags --yes", ExitOK, "nothing to restore", ""},
		{"twin restore pump-1 --to nonsense --yes", ExitUsage, "90m or 2d", ""},
		{"twin restore nobody --to THEN --yes", ExitNotFound, "nobody", ""},
		{"twin restore pump-1 --to THEN --section reported --yes", ExitUsage, "tags", ""},
	} {
		s.run(t, env, "THEN", entry.ID)
	}
}

// TestQueuedMethods: a call waits for a device that is away, is shown, taken
// back, or answered when the device comes, and the exit codes tell which.
func TestQueuedMethods(t *testing.T) {
	h := clienttest.Start(t)
	env := map[string]string{"MUSTER_DATA": h.Dir}
	made, err := h.Service.CreateIdentity(t.Context(), client.Identity{DeviceID: "d"})
	if err != nil {
		t.Fatal(err)
	}
	queue := func(name string) string {
		t.Helper()
		q, err := h.Service.QueueMethod(t.Context(), "d", "", client.MethodCall{Name: name}, time.Hour, "")
		if err != nil {
			t.Fatal(err)
		}
		return q.ID
	}
	first, second := queue("one"), queue("fail")
	for _, s := range []step{
		{"method list d", ExitOK, first, ""},
		{"method list d -o jsonl --status queued", ExitOK, second, "canceled"},
		{"method list --limit 1", ExitOK, "There are more than 1", second},
		{"method show d " + first, ExitOK, "queued", ""},
		{"method show d nope", ExitNotFound, "nope", ""},
		{"method cancel d nope", ExitNotFound, "nope", ""},
		{"method cancel d " + first, ExitOK, "canceled", ""},
		{"method cancel d " + first, ExitConflict, "only a call that still waits", ""},
		{"method list d --status canceled", ExitOK, first, second},
		{"method invoke d m --wait-for-device 1s", ExitFailed, "allowed are 1m0s to 720h0m0s", ""},
		{"method invoke d m --wait-for-device 1m --connect-timeout 1s", ExitUsage, "--wait-for-device alone", ""},
		{"method invoke nobody m --wait-for-device 1m", ExitNotFound, "nobody", ""},
	} {
		s.run(t, env)
	}
	d, err := client.NewDevice(client.DeviceOptions{
		ConnectionString: auth.ConnectionString{HostName: "localhost", DeviceID: "d", SharedAccessKey: auth.Secret(made.Authentication.SymmetricKey.Primary)},
		Address:          h.MQTTS, RootCAs: h.RootCAs,
		OnMethod: func(_ context.Context, name string, payload json.RawMessage) (int, any) {
			if name == "fail" {
				return 500, nil
			}
			return 200, payload
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	if err := d.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Service.QueuedMethod(t.Context(), "d", "", second, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, s := range []step{
		{"method show d " + second, ExitFailed, "other than 2xx", ""},
		{`method invoke d echo [1] --wait-for-device 1m`, ExitOK, "succeeded", ""},
		{`method invoke d echo [2] --wait-for-device 1m -o jsonl`, ExitOK, `"response":{"status":200,"payload":[2]}`, ""},
	} {
		s.run(t, env)
	}
}

// TestWebhookCommands walks through the life of a webhook whose endpoint the
// hub must not reach: the error says so.
func TestWebhookCommands(t *testing.T) {
	env := map[string]string{"MUSTER_DATA": clienttest.Start(t).Dir}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("headers.txt", []byte("Authorization: Bearer hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []step{
		{"webhook list", ExitOK, "", "error"},
		{"webhook create hook https://example.com/in --kind twin.* --device pump-* --mode batch --header-file headers.txt --disabled", ExitOK, "whsec_", "hidden"},
		{"webhook show hook", ExitOK, "Authorization", "whsec_"},
		{"webhook show hook -o json", ExitOK, `"mode": "batch"`, "hidden"},
		{"webhook show nobody", ExitNotFound, "nobody", ""},
		{"webhook create bad ftp://example.com", ExitFailed, "expected an absolute http or https URL", ""},
		{"webhook create bad https://user:secret@example.com", ExitFailed, "without user", ""},
		{"webhook update hook --description mine --all-kinds", ExitOK, "mine", "twin.*"},
		{"webhook list -o jsonl", ExitOK, `"status":"paused"`, "whsec_"},
		{"webhook enable hook", ExitOK, "", "error"},
		{"webhook list", ExitOK, "active", "paused"},
		{"webhook disable hook", ExitOK, "", "error"},
		{"webhook rotate-secret hook --overlap 169h", ExitFailed, "604800", ""},
		{"webhook rotate-secret hook --overlap 1h", ExitOK, "whsec_", ""},
		{"webhook replay hook --from start", ExitOK, "hook", ""},
		{"webhook replay hook --from nonsense", ExitFailed, "not one that this hub gave", ""},
		{"webhook dead-letters list hook", ExitOK, "", "error"},
		{"webhook delete hook --yes", ExitOK, "", "error"},
		{"webhook show hook", ExitNotFound, "hook", ""},
	} {
		s.run(t, env)
	}
}

// TestWebhookTestAdvice: what the hub knows to do about a failure stands for the
// general advice.
func TestWebhookTestAdvice(t *testing.T) {
	for next, want := range map[string]string{
		"":                                      "  next: Mend the endpoint or the webhook's URL",
		"Start the hub with --webhook-allow h.": "  next: Start the hub with --webhook-allow h.\n",
	} {
		dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(client.WebhookTry{Error: "the address is private", Next: next, EventID: "e"})
		}))
		got := call{args: words("webhook test w --data " + dir)}.run(t)
		if got.code != ExitFailed || !strings.Contains(got.err, want) {
			t.Errorf("exit code %d, want %q:\n%s", got.code, want, got.err)
		}
	}
}
