package cli

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

// TestAgainstHub walks through the commands with a whole hub behind them.
func TestAgainstHub(t *testing.T) {
	h := clienttest.Start(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("doc.json", []byte(`{"tags":{"line":7},"desired":{"mode":"eco"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"MUSTER_DATA": h.Dir}
	for _, s := range []struct {
		args string
		code int
		want string // in standard output or error
		not  string
	}{
		{"device list", ExitOK, "No devices.", ""},
		{"device create pump-1 pump-2 --reason new", ExitOK, "pump-2", ""},
		{"device create pump-1", ExitConflict, "device update", ""},
		{"device create thumb --auth selfSigned --primary-thumbprint 0123456789012345678901234567890123456789 -o json", ExitOK, "selfSigned", ""},
		{"device create bad/id", ExitFailed, "next:", ""},
		{"device list --prefix pump -o csv", ExitOK, "pump-2,enabled,disconnected", "thumb"},
		{"device list --limit 1", ExitOK, "more than 1", "pump-2"},
		{"device list --connected -o jsonl", ExitOK, "", "pump"},
		{"device show pump-1", ExitOK, "reason         new", "key"},
		{"device show pump-1 --keys", ExitOK, "primary key", ""},
		{"device show nobody", ExitNotFound, "muster device list", ""},
		{"device disable pump-1 --reason stolen", ExitOK, "disabled", ""},
		{"device show pump-1 -o json", ExitOK, `"statusReason": "stolen"`, "symmetricKey"},
		{"device enable pump-1", ExitOK, "enabled", ""},
		{"device update pump-1 --new-key both --reason moved", ExitOK, "moved", ""},
		{"device update pump-1 --etag wrong --reason x", ExitConflict, "ETag", ""},
		{"device update thumb --new-key primary", ExitUsage, "no keys", ""},
		{"device connection-string pump-1", ExitOK, "DeviceId=pump-1;SharedAccessKey=", ""},
		{"device delete pump-2 --yes", ExitOK, "Deleted", ""},
		{"module create pump-1 camera --managed-by ann", ExitOK, "camera", ""},
		{"module list pump-1", ExitOK, "camera", ""},
		{"module show pump-1 camera", ExitOK, "ann", ""},
		{"module update pump-1 camera --managed-by bob --new-key primary", ExitOK, "bob", ""},
		{"module connection-string pump-1 camera", ExitOK, "ModuleId=camera", ""},
		{"twin show pump-1/camera", ExitOK, "pump-1/camera", ""},
		{"module delete pump-1 camera --yes", ExitOK, "Deleted", ""},
		{"module show pump-1 camera", ExitNotFound, "module list", ""},
		{"twin patch pump-1 desired.fan.speed=3 tags.site=lyon", ExitOK, `"speed": 3`, ""},
		{"twin patch pump-1 desired.fan.speed=4.50", ExitOK, `"speed": 4.50`, ""},
		{"twin patch pump-1 desired.a=1 --etag wrong", ExitConflict, "ETag", ""},
		{"twin patch pump-1 tags.$bad=1", ExitFailed, "why:", ""},
		{"twin history pump-1 --section desired", ExitOK, `{"fan":{"speed":4.50}}`, "lyon"},
		{"twin diff pump-1", ExitOK, "+ desired.fan.speed = 4.50", "tags"},
		{"twin diff pump-1 --from nonsense", ExitUsage, "90m or 2d", ""},
		{"twin replace pump-1 -f doc.json --yes", ExitOK, `"mode": "eco"`, "fan"},
		{"twin show pump-1 --section tags -o json", ExitOK, `"line": 7`, "lyon"},
		{"method invoke pump-1 ping", ExitConnect, "--connect-timeout", ""},
		{"policy list", ExitOK, "registryReadWrite", ""},
		{"policy create viewer registryread StatusRead", ExitOK, "RegistryRead,StatusRead", "key"},
		{"policy create viewer RegistryRead", ExitConflict, "policy update", ""},
		{"policy update viewer RegistryRead,ServiceConnect", ExitOK, "RegistryRead,ServiceConnect", ""},
		{"policy rotate viewer --yes", ExitOK, "viewer", ""},
		{"policy show viewer --keys", ExitOK, "secondary key", ""},
		{"policy connection-string viewer --secondary", ExitOK, "SharedAccessKeyName=viewer", ""},
		{"policy delete viewer --yes", ExitOK, "Deleted", ""},
		{"policy show viewer", ExitNotFound, "policy list", ""},
		{"policy delete service --yes", ExitForbidden, "`muster policy rotate service`", "Use a principal"},
		{"policy update service RegistryRead", ExitForbidden, "`muster policy create NAME PERMISSIONS`", "Use a principal"},
		{"connection-string --policy service", ExitOK, "SharedAccessKeyName=service", ""},
		{"connection-string --policy nobody", ExitNotFound, "policy list", ""},
		{"monitor --from start --count 1 --kind identity.deleted", ExitOK, "identity.deleted", "created"},
		{"monitor --from start --count 2 --kind identity.created --transport pages -o jsonl", ExitOK, `"deviceId":"pump-2"`, "thumb"},
		{"monitor --from start --count 2 --schema iothub --device pump-2", ExitOK, "createDeviceIdentity", "pump-1"},
		{"monitor --from start --count 1 --schema iothub --kind twin.tags -o jsonl", ExitOK, `"opType":"updateTwin"`, "kind"},
		{"monitor --from 1h --count 1 --kind identity.deleted", ExitOK, "identity.deleted", "created"},
		{"monitor --from 2020-01-01T00:00:00Z --count 1 --kind identity.deleted -o jsonl", ExitOK, `"kind":"identity.deleted"`, "created"},
		{"monitor --from nonsense", ExitFailed, "not one that this hub gave", ""},
		{"audit list --limit 100", ExitOK, "pump-1", "SharedAccessKey"},
		{"audit verify", ExitOK, "yes", ""},
		{"status", ExitOK, "ready", ""},
		{"status --check", ExitOK, "", ""},
		{"doctor", ExitOK, "https", "fail"},
		{"demo --devices 4 --duration 1s --interval 100ms", ExitOK, "made 4 identities", "failures"},
		{"demo --devices 4 --duration 300ms --quiet", ExitOK, "found 4", ""},
		{"simulate --devices 2 --prefix one- --duration 300ms", ExitOK, "--clean --prefix 'one-'` removes them", ""},
		{"simulate --devices 2 --prefix two- --duration 300ms --quiet", ExitOK, "Connects", "stay"},
		{"simulate --clean --prefix one-", ExitUsage, "--yes", ""},
		{"simulate --clean --prefix one- --yes", ExitOK, "Removed 2", ""},
		{"simulate --clean --prefix demo- --yes", ExitOK, "Removed 0", ""},
		{"device list --prefix two-", ExitOK, "two-000002", "one-"},
		{"demo clean --yes", ExitOK, "Removed 4", ""},
	} {
		got := call{args: words(s.args), env: env}.run(t)
		all := got.out + got.err
		if got.code != s.code || !strings.Contains(all, s.want) || s.not != "" && strings.Contains(all, s.not) {
			t.Errorf("muster %s\nexit code %d, want %d, with %q and without %q:\n%s", s.args, got.code, s.code, s.want, s.not, all)
		}
	}
}

// TestMethodOnDevice: the exit code tells what the device answered.
func TestMethodOnDevice(t *testing.T) {
	h := clienttest.Start(t)
	made, err := h.Service.CreateIdentity(t.Context(), client.Identity{DeviceID: "d"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := client.NewDevice(client.DeviceOptions{
		ConnectionString: auth.ConnectionString{HostName: "localhost", DeviceID: "d", SharedAccessKey: auth.Secret(made.Authentication.SymmetricKey.Primary)},
		Address:          h.MQTTS, RootCAs: h.RootCAs,
		OnMethod: func(_ context.Context, name string, payload json.RawMessage) (int, any) {
			switch name {
			case "fail":
				return 500, map[string]string{"message": "no"}
			case "body":
				return 200, string(payload)
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
	if got := (call{args: []string{"method", "invoke", "d", "echo", `{"a":1.0}`, "-o", "jsonl", "--data", h.Dir}}).run(t); got.code != ExitOK || got.out != "{\"status\":200,\"payload\":{\"a\":1.0}}\n" {
		t.Errorf("%d %s%s", got.code, got.out, got.err)
	}
	if got := (call{args: []string{"method", "invoke", "d", "echo", "-f", "-", "--data", h.Dir}, in: "[1]"}).run(t); got.code != ExitOK || !strings.Contains(got.out, "status 200") {
		t.Errorf("%d %s%s", got.code, got.out, got.err)
	}
	// Microsoft's SDK for Node refuses an empty body as no JSON.
	if got := (call{args: []string{"method", "invoke", "d", "body", "-o", "jsonl", "--data", h.Dir}}).run(t); got.code != ExitOK || got.out != "{\"status\":200,\"payload\":\"null\"}\n" {
		t.Errorf("without a payload the device got something else than null: %d %s%s", got.code, got.out, got.err)
	}
	if got := (call{args: []string{"method", "invoke", "d", "fail", "--data", h.Dir}}).run(t); got.code != ExitFailed || !strings.Contains(got.out, `"message": "no"`) {
		t.Errorf("%d %s%s", got.code, got.out, got.err)
	}
}

// TestOverHTTPS: the connection string comes from a file or the environment,
// the CA from a file, and what the policy lacks is refused.
func TestOverHTTPS(t *testing.T) {
	h := clienttest.Start(t)
	t.Chdir(t.TempDir())
	owner := call{args: []string{"connection-string", "--data", h.Dir}}.run(t)
	if owner.code != ExitOK {
		t.Fatal(owner.err)
	}
	reader := call{args: []string{"connection-string", "--policy", "registryRead", "--data", h.Dir}}.run(t)
	// The test hub's first name is not one that resolves here.
	text := func(s string) string {
		c, err := auth.ParseConnectionString(s)
		if err != nil {
			t.Fatal(err)
		}
		c.HostName = "localhost"
		return c.String()
	}
	if err := os.WriteFile("hub.txt", []byte(text(owner.out)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(h.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	to := []string{"--port", port, "--ca", filepath.Join(h.Dir, "tls", "ca.pem")}
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		want string
	}{
		{"a file", append(words("device create d1 --hub hub.txt"), to...), nil, ExitOK, "d1"},
		{"a named variable", append(words("device list --hub env:MINE"), to...), map[string]string{"MINE": text(owner.out)}, ExitOK, "d1"},
		{"the environment", append(words("device list"), to...), map[string]string{"MUSTER_HUB": text(owner.out)}, ExitOK, "d1"},
		{"--data beats the environment", []string{"device", "list", "--data", h.Dir}, map[string]string{"MUSTER_HUB": "HostName=x;SharedAccessKey=AAAA"}, ExitOK, "d1"},
		{"less rights", append(words("device delete d1 --yes"), to...), map[string]string{"MUSTER_HUB": text(reader.out)}, ExitForbidden, "policy"},
		{"no CA", []string{"device", "list", "--hub", "hub.txt", "--port", port}, nil, ExitConnect, "--ca"},
		{"no connection", append(words("device list --hub hub.txt --ca"), to[3], "--port", "1"), nil, ExitConnect, "--port"},
		{"no port", append(words("device list --hub hub.txt --ca"), to[3], "--port", "99999"), nil, ExitUsage, "expected a number from 1 to 65535"},
		{"no number", append(words("device list --hub hub.txt --ca"), to[3]), map[string]string{"MUSTER_PORT": "https"}, ExitUsage, "expected a number from 1 to 65535"},
		{"a bad CA file", append(words("device list --hub hub.txt --ca"), "hub.txt", "--port", port), nil, ExitUsage, "PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call{args: c.args, env: c.env}.run(t)
			if got.code != c.code || !strings.Contains(got.out+got.err, c.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s%s", got.code, c.code, c.want, got.out, got.err)
			}
			key := strings.TrimSpace(owner.out[strings.LastIndex(owner.out, "SharedAccessKey=")+len("SharedAccessKey="):])
			if strings.Contains(got.out+got.err, key) {
				t.Error("the output shows the key")
			}
		})
	}
}

// Two runs with the same devices do not fight in silence: the second is refused,
// and with --force it says what happens.
func TestSimulateTwice(t *testing.T) {
	h := clienttest.Start(t)
	env := map[string]string{"MUSTER_DATA": h.Dir}
	ctx, stop := context.WithCancel(t.Context())
	first := make(chan string, 1)
	go func() {
		var out, notes strings.Builder
		a := newApp(ctx, IO{In: strings.NewReader(""), Out: &out, Err: &notes, Env: func(name string) string { return env[name] }}, Hooks{})
		a.run(words("simulate --devices 3"))
		first <- notes.String()
	}()
	for connected := 0; connected < 3; {
		connected = 0
		for d, err := range h.Service.Devices(t.Context(), "sim-") {
			if err != nil {
				t.Fatal(err)
			}
			if d.ConnectionState == "Connected" {
				connected++
			}
		}
	}
	got := call{args: words("simulate --devices 3"), env: env}.run(t)
	if got.code != ExitConflict || !strings.Contains(got.err, "3 of the devices are connected already") || !strings.Contains(got.err, "next: Give another --prefix") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	got = call{args: words("simulate --devices 3 --force --duration 8s --quiet"), env: env}.run(t)
	stop()
	const fight = "Another program connects as the same devices"
	if notes := <-first; strings.Count(notes, fight) != 1 || strings.Count(got.err, fight) != 1 || got.code != ExitOK {
		t.Errorf("exit code %d: %s\nthe other: %s", got.code, got.err, notes)
	}
}
