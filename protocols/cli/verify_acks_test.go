package cli

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

// TestVerifyAcksElsewhere: a log is compared with the hub that --hub names, which is
// asked over HTTPS and never replaced by a directory that happens to be here.
func TestVerifyAcksElsewhere(t *testing.T) {
	h := clienttest.Start(t)
	t.Chdir(t.TempDir())
	made, err := h.Service.CreateIdentity(t.Context(), client.Identity{DeviceID: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := client.NewDevice(client.DeviceOptions{
		ConnectionString: auth.ConnectionString{HostName: "localhost", DeviceID: "d1", SharedAccessKey: auth.Secret(made.Authentication.SymmetricKey.Primary)},
		Address:          h.MQTTS, RootCAs: h.RootCAs,
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
	version, err := d.PatchReported(ctx, map[string]any{"sim": map[string]any{"n": 1}})
	stop()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	connection := func(policy string) string {
		c, err := auth.ParseConnectionString(call{args: []string{"connection-string", "--policy", policy, "--data", h.Dir}}.run(t).out)
		if err != nil {
			t.Fatal(err)
		}
		c.HostName = "localhost" // its own does not resolve here
		return c.String()
	}
	log := func(n int) string {
		text := `{"kind":"begin","run":"r","format":1}` + "\n" +
			fmt.Sprintf(`{"kind":"reported","device":"d1","n":%d,"version":%d,"acked":true}`, n, version) + "\n"
		return text + fmt.Sprintf(`{"kind":"end","run":"r","lines":2,"sum":"%08x"}`, crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli))) + "\n"
	}
	for name, text := range map[string]string{"hub.txt": connection("service"), "reader.txt": connection("registryRead"), "acks.jsonl": log(1), "lost.jsonl": log(2)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(h.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(h.Dir, "tls", "ca.pem")
	opened := errors.New("the directory was opened")
	hooks := Hooks{
		AckSource: func(context.Context, StoreFlags, IO) (AckSource, func() error, error) { return nil, nil, opened },
		Verify: func(context.Context, StoreFlags, IO) (Report, error) {
			return Report{OK: true, Findings: []Finding{{"read", "ok", "The directory was read.", ""}}}, nil
		},
	}
	for _, c := range []struct {
		name, args string
		hub        string // in the environment
		code       int
		want       string
	}{
		{"a hub elsewhere", "--acks acks.jsonl --hub hub.txt --ca " + ca + " --port " + port, "", ExitOK, "1 acknowledged reports of 1 devices were looked up, 0 missing"},
		{"what it lacks", "--acks lost.jsonl --hub hub.txt --ca " + ca + " --port " + port, "", ExitFailed, "value 2 was acknowledged"},
		{"the environment", "--acks acks.jsonl --ca " + ca + " --port " + port, "hub.txt", ExitOK, "0 missing"},
		{"less rights", "--acks acks.jsonl --hub reader.txt --ca " + ca + " --port " + port, "", ExitForbidden, "policy"},
		{"no CA", "--acks acks.jsonl --hub hub.txt --port " + port, "", ExitConnect, "--ca"},
		{"no connection", "--acks acks.jsonl --hub hub.txt --port 1 --ca " + ca, "", ExitConnect, "--port"},
		{"the socket", "--acks acks.jsonl --data " + h.Dir, "", ExitOK, "0 missing"},
		{"the socket, whatever the environment says", "--acks acks.jsonl --data " + h.Dir, "hub.txt", ExitOK, "0 missing"},
		{"no hub here", "--acks acks.jsonl", "", ExitFailed, opened.Error()},
		{"two hubs", "--acks acks.jsonl --hub hub.txt --data " + h.Dir, "", ExitUsage, "name two hubs"},
		{"a CA for the socket", "--acks acks.jsonl --ca " + ca, "", ExitUsage, "--ca is for a hub that --hub names"},
		{"a port for the socket", "--acks acks.jsonl --port 8443 --data " + h.Dir, "", ExitUsage, "--port is for a hub that --hub names"},
		{"a directory's key for a hub", "--acks acks.jsonl --hub hub.txt --master-key-file k", "", ExitUsage, "--master-key-file is for a directory"},
		{"a directory's memory for a hub", "--acks acks.jsonl --hub hub.txt --memory 1GiB", "", ExitUsage, "--memory is for a directory"},
		{"a hub whose directory is read", "--hub hub.txt", "", ExitUsage, "--hub belongs to --acks"},
		{"a directory, whatever the environment says", "", "hub.txt", ExitOK, "The directory was read."},
	} {
		got := call{args: append([]string{"verify"}, words(c.args)...), env: map[string]string{"MUSTER_HUB": c.hub}, hooks: hooks}.run(t)
		if got.code != c.code || !strings.Contains(got.out+got.err, c.want) || c.code == ExitUsage && !strings.Contains(got.err, "next:") {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s%s", c.name, got.code, c.code, c.want, got.out, got.err)
		}
	}
}
