package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/storage"
)

func TestAvailableMemory(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing to read": {nil, memoryUnknown},
		"a machine":       {map[string]string{"proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\n"}, 8 * gib},
		"a cgroup below it": {map[string]string{
			"proc/meminfo": "MemTotal: 8388608 kB\n", "proc/self/cgroup": "0::/system.slice/muster.service\n",
			"sys/fs/cgroup/system.slice/muster.service/memory.max": "max\n", "sys/fs/cgroup/system.slice/memory.max": "1073741824\n",
		}, gib},
		"a container": {map[string]string{
			"proc/meminfo": "MemTotal: 8388608 kB\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n",
		}, gib / 2},
		"an old cgroup": {map[string]string{
			"proc/meminfo": "MemTotal: 8388608 kB\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
		}, 2 * gib},
		"an old cgroup without a limit": {map[string]string{
			"proc/meminfo": "MemTotal: 8388608 kB\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 8 * gib},
		"rubbish": {map[string]string{"proc/meminfo": "MemTotal: many kB\n", "proc/self/cgroup": "x\n"}, memoryUnknown},
	} {
		root := t.TempDir()
		for file, text := range test.files {
			file = filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := availableMemory(root); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

func TestDivide(t *testing.T) {
	t.Parallel()
	for asked, want := range map[int64]int64{1: storeLeast, 512 * mib: 128 * mib, 64 * 1024 * mib: storeMost} {
		if got := divide(asked); got.total != asked || got.store != want {
			t.Errorf("%d: got %+v, want %d for the store", asked, got, want)
		}
	}
	if got := divide(0); got.total <= 0 {
		t.Errorf("by itself: got %+v", got)
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		code int
		ok   bool
	}{
		{&protocols.ListenError{Flag: "--https", Next: "x"}, cli.ExitConnect, true},
		{fmt.Errorf("open: %w", storage.ErrLocked), cli.ExitConnect, true},
		{fmt.Errorf("open: %w", storage.ErrCorrupt), cli.ExitConnect, true},
		{storage.ErrNewerFormat, cli.ExitConnect, true},
		{storage.ErrClock, cli.ExitConnect, true},
		{&engine.Error{Code: engine.CodeArgumentInvalid}, cli.ExitUsage, true},
		{syscall.EIO, 0, false},
	} {
		if code, next, ok := exitCode(test.err); code != test.code || ok != test.ok || ok && code == cli.ExitConnect && next == "" {
			t.Errorf("%v: got %d, %q, %t", test.err, code, next, ok)
		}
	}
	err := divide(10).enough(10)
	if code, next, _ := exitCode(err); code != cli.ExitUsage || !strings.HasPrefix(next, "Give at least") || !strings.Contains(err.Error(), "--memory 10 is less") {
		t.Errorf("%v: got %d, %q", err, code, next)
	}
}

// TestMissingMasterKey: nobody is led to give up what is sealed for want of a key that lies elsewhere.
func TestMissingMasterKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() error {
		db, err := storage.Open(t.Context(), storage.Options{Dir: dir, Memory: storeLeast})
		if err == nil {
			err = db.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "master.key")); err != nil {
		t.Fatal(err)
	}
	err := open()
	if code, next, _ := exitCode(err); code != cli.ExitConnect || !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(next, "--master-key-file") || strings.Contains(next, "muster repair") {
		t.Errorf("%v: exit code %d, %q", err, code, next)
	}
}

// TestCare runs the commands that look after a data directory without a hub.
func TestCare(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, command := range []string{"verify", "repair"} {
		args := []string{command, "--data", "nowhere"}
		if command == "repair" {
			args = append(args, "--yes")
		}
		if out, code := b.run(args...); code == 0 {
			t.Errorf("%s of a directory that is not there: exit code 0\n%s", command, out)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "nowhere")); err == nil {
			t.Errorf("%s made the directory that it was to look at", command)
		}
	}
	if out, code := b.run("check-config", "--memory", "1MiB", "--host", "no-such-name.invalid"); code != cli.ExitUsage || !strings.Contains(out, "Give at least 96MiB") {
		t.Errorf("check-config: %d\n%s", code, out)
	}
	if out, code := b.run("check-config", "--cert", "no.pem", "--key", "no.key"); code != cli.ExitUsage || !strings.Contains(out, "no.pem") {
		t.Errorf("check-config with a certificate that is not there: %d\n%s", code, out)
	}
	// What keeps a hub from starting must not pass: the package restarts hubs by it.
	empty := filepath.Join(b.dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, value := range map[string]string{"--webhook-allow": "x/y", "--webhook-ca": empty, "--metrics-token-file": empty} {
		if out, code := b.run("check-config", flag, value); code == 0 || !strings.Contains(out, flag) {
			t.Errorf("check-config %s %s: %d\n%s", flag, value, code, out)
		}
	}
	if out, code := b.run("check-config", "--acme-host", "other.example.net"); code != 0 || !strings.Contains(out, "is no --host") {
		t.Errorf("check-config with a certificate for a name that is no host: %d\n%s", code, out)
	}
	for _, plan := range [][]string{{"--backup-every", "1s"}, {"--backup-at", "03:00", "--backup-every", "1h"}} {
		if out, code := b.run(append([]string{"check-config", "--backup-dir", b.dir}, plan...)...); code == 0 || !strings.Contains(out, "every 1") {
			t.Errorf("check-config %q: %d\n%s", plan, code, out)
		}
	}
	if out, code := b.run("check-config", "--master-key-file", filepath.Join(b.dir, "new.key")); code != 0 || !strings.Contains(out, "will be made") {
		t.Errorf("check-config with a master key that serve makes: %d\n%s", code, out)
	}
	hub := b.serve()
	b.must("device", "create", "d1")
	if out, code := b.run("verify"); code == 0 || !strings.Contains(out, "in use") {
		t.Errorf("verify beside a running hub: %d\n%s", code, out)
	}
	hub.stop(syscall.SIGTERM)
	out, _ := b.run("doctor")
	for _, want := range []string{"No hub answers", "master.key is private", "files or connections"} {
		if !strings.Contains(out, want) {
			t.Errorf("doctor without a hub lacks %q:\n%s", want, out)
		}
	}
	// What the hub does not use is nobody's trouble.
	pem := filepath.Join(b.dir, "given.pem")
	text, err := os.ReadFile(filepath.Join(b.dir, "muster-data", "tls", "server-ecdsa.pem"))
	if err == nil {
		err = errors.Join(os.WriteFile(pem, text, 0o600), os.Remove(filepath.Join(b.dir, "muster-data", "tls", "ca.key")))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := b.run("doctor"); !strings.Contains(out, "ca.key is not there. Next: With --master-key-file or --cert this is right") {
		t.Errorf("doctor without a hub and without the CA's key:\n%s", out)
	}
	hub = b.serve("--cert", pem, "--key", pem)
	if out, code := b.run("doctor"); code != 0 || strings.Contains(out, "ca.key") || strings.Contains(out, "server-") || !strings.Contains(out, "master.key is private") {
		t.Errorf("doctor with --cert: %d\n%s", code, out)
	}
	if err := os.WriteFile(pem, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	hub.wait("certificate not renewed")
	if out, code := b.run("doctor"); code == 0 || !strings.Contains(out, "The files of --cert and --key can't be used") {
		t.Errorf("doctor with --cert and files that can't be used: %d\n%s", code, out)
	}
	hub.stop(syscall.SIGTERM)
	if err := os.Chmod(filepath.Join(b.dir, "muster-data", "master.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code := b.run("doctor"); code == 0 || !strings.Contains(out, "can be read by others") {
		t.Errorf("doctor with an open master key: %d\n%s", code, out)
	}
}

// TestStatusPageNamesEachChange: the status page has words for all kinds of events
// that it may show.
func TestStatusPageNamesEachChange(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("protocols/console/page/status.js")
	if err != nil {
		t.Fatal(err)
	}
	_, names, _ := strings.Cut(string(script), "const names = {")
	names, _, found := strings.Cut(names, "};")
	if !found {
		t.Fatal("the page has no names")
	}
	for _, kind := range engine.EventKinds() {
		if kind != engine.EventTelemetry && kind != engine.EventGap && !strings.Contains(names, fmt.Sprintf("%q: ", kind)) {
			t.Errorf("%s has no name", kind)
		}
	}
}
