package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

// TestKilledHubLosesNothing kills a hub (SIGKILL) again and again while
// devices report over real sockets and a service writes desired properties,
// and checks after each start that nothing acknowledged is missing: every
// twin is at or one change past what was acknowledged, with the value of
// exactly that change.
func TestKilledHubLosesNothing(t *testing.T) {
	t.Parallel()
	const devices, rounds = 24, 4
	binary, data := program(t), filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	stop := startHub(t, binary, data)
	service := localService(t, data)
	targets := make([]*victim, devices)
	for i := range targets {
		targets[i] = &victim{id: fmt.Sprintf("victim-%02d", i)}
		if _, err := service.CreateIdentity(t.Context(), client.Identity{DeviceID: targets[i].id}); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var acked atomic.Int64
		for _, v := range targets {
			wg.Go(func() { v.report(ctx, t, data, &acked) })
			wg.Go(func() { v.desire(ctx, data, &acked) })
		}
		// Kill in the middle of the work, not at a moment of its own choosing.
		enough := int64(200 + random.IntN(1500))
		for deadline := time.Now().Add(30 * time.Second); acked.Load() < enough; {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: %d changes acknowledged in 30 s", round, acked.Load())
			}
			<-time.After(5 * time.Millisecond)
		}
		stop()
		cancel()
		wg.Wait()
		stop = startHub(t, binary, data)
		service = localService(t, data)
		for _, v := range targets {
			v.check(t, service)
		}
		check, err := service.VerifyAudit(t.Context())
		if err != nil || !check.OK {
			t.Errorf("round %d: audit %+v, %v", round, check, err)
		}
		t.Logf("round %d: killed after %d acknowledged changes", round, acked.Load())
	}
	stop()
}

// victim is one device and what it knows to be stored.
type victim struct {
	id string

	mu       sync.Mutex
	reported change
	desired  change
}

// change is the newest number that was sent, and the newest acknowledged,
// with the version that the hub gave it.
type change struct {
	sent, acked   int
	versionOfLast int64
}

func (v *victim) next(c *change) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	c.sent++
	return c.sent
}

func (v *victim) done(c *change, n int, version int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c.acked, c.versionOfLast = n, version
}

func (v *victim) report(ctx context.Context, t *testing.T, data string, acked *atomic.Int64) {
	d := dialHub(ctx, t, data, v.id, nil)
	if d == nil {
		return
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = d.Run(running) }) // ends with the context
	for d.WaitConnected(ctx) == nil {
		n := v.next(&v.reported)
		version, err := d.PatchReported(ctx, map[string]int{"n": n})
		if err != nil {
			return
		}
		v.done(&v.reported, n, version)
		acked.Add(1)
	}
}

// dialHub makes a device of a hub; nil when the hub has been killed already.
func dialHub(ctx context.Context, t *testing.T, data, id string, onMethod func(context.Context, string, json.RawMessage) (int, any)) *client.Device {
	t.Helper()
	service := localService(t, data)
	text, err := service.IdentityConnectionString(ctx, id, "", "primary")
	if err != nil {
		return nil
	}
	hub, err := service.Hub(ctx)
	if err != nil {
		return nil
	}
	cs, err := auth.ParseConnectionString(text)
	if err != nil {
		t.Error(err)
		return nil
	}
	pem, err := os.ReadFile(filepath.Join(data, "tls", "ca.pem"))
	if err != nil {
		t.Error(err)
		return nil
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	o := client.DeviceOptions{ConnectionString: cs, RootCAs: roots, OnMethod: onMethod}
	for _, l := range hub.Listeners {
		if l.Kind == "mqtts" {
			o.Address = l.Address
		}
	}
	d, err := client.NewDevice(o)
	if err != nil {
		t.Error(err)
		return nil
	}
	return d
}

func (v *victim) desire(ctx context.Context, data string, acked *atomic.Int64) {
	service, err := client.NewService(client.ServiceOptions{Socket: filepath.Join(data, "muster.sock")})
	if err != nil {
		return
	}
	defer service.Close()
	for ctx.Err() == nil {
		n := v.next(&v.desired)
		tw, err := service.PatchTwin(ctx, v.id, "", fmt.Appendf(nil, `{"properties":{"desired":{"n":%d}}}`, n), "")
		if err != nil {
			return
		}
		_, version := numbers(tw.Properties.Desired)
		v.done(&v.desired, n, version)
		acked.Add(1)
	}
}

// numbers reads n and $version of a section.
func numbers(section json.RawMessage) (n int, version int64) {
	var s struct {
		N       int   `json:"n"`
		Version int64 `json:"$version"`
	}
	if json.Unmarshal(section, &s) != nil {
		return -1, -1
	}
	return s.N, s.Version
}

func (v *victim) check(t *testing.T, service *client.Service) {
	t.Helper()
	tw, err := service.Twin(t.Context(), v.id, "")
	if err != nil {
		t.Errorf("%s: %v", v.id, err)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range []struct {
		name    string
		change  *change
		section json.RawMessage
	}{{"reported", &v.reported, tw.Properties.Reported}, {"desired", &v.desired, tw.Properties.Desired}} {
		n, version := numbers(c.section)
		if n < c.change.acked || n > c.change.sent || version < c.change.versionOfLast {
			t.Errorf("%s: %s has n=%d at version %d; acknowledged was n=%d at version %d, sent up to n=%d",
				v.id, c.name, n, version, c.change.acked, c.change.versionOfLast, c.change.sent)
		}
	}
}

// startHub starts the binary and waits until it is ready. stop kills it.
func startHub(t *testing.T, binary, data string, more ...string) (stop func()) {
	t.Helper()
	_, stop = startProcess(t, binary, data, more...)
	return stop
}

// startProcess is startHub, and gives the process.
func startProcess(t *testing.T, binary, data string, more ...string) (cmd *exec.Cmd, stop func()) {
	t.Helper()
	args := append([]string{"serve", "--data", data, "--https", "127.0.0.1:0", "--mqtts", "127.0.0.1:0", "--log-level", "error"}, more...)
	cmd = exec.Command(binary, args...) //nolint:noctx // stopped by kill
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		var said strings.Builder
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&said, lines.Text())
			if strings.Contains(lines.Text(), `"msg":"ready"`) {
				ready <- ""
			}
		}
		ready <- "the hub ended: " + said.String()
	}()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(os.Kill)
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	select {
	case trouble := <-ready:
		if trouble != "" {
			t.Fatal(trouble)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the hub was not ready within 30 s")
	}
	return cmd, stop
}

// socketClient asks the hub over its unix socket.
func socketClient(data string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(data, "muster.sock"))
	}}}
}

func localService(t *testing.T, data string) *client.Service {
	t.Helper()
	s, err := client.NewService(client.ServiceOptions{Socket: filepath.Join(data, "muster.sock")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
