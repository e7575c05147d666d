package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// fleetSize is how large TestFleetSurvivesKills is: small in `go test`, and as
// the environment says in test/fleet/run.sh.
func fleetSize(t *testing.T) (devices, rounds int, rate float64) {
	t.Helper()
	read := func(name string, small int) int {
		text := os.Getenv(name)
		if text == "" {
			return small
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: expected a number above 0", name, text)
		}
		return n
	}
	return read("MUSTER_FLEET_DEVICES", 60), read("MUSTER_FLEET_ROUNDS", 3), float64(read("MUSTER_FLEET_RATE", 300))
}

// TestFleetSurvivesKills runs `muster simulate --ack-log` while the hub is
// killed and started again: every device returns by itself, and `muster verify
// --acks` finds all that was acknowledged. Then it takes a backup of the running
// hub, kills that, lets the fleet go on, restores, and finds all that was acknowledged up to the sequence
// that the backup names, and misses what came after.
func TestFleetSurvivesKills(t *testing.T) {
	devices, rounds, rate := fleetSize(t)
	f := newFleet(t)
	f.start(f.data)
	log := filepath.Join(f.dir, "acks.jsonl")
	began := time.Now()
	simulate, report := f.simulate(devices, rate, log)
	f.allBack(devices)
	t.Logf("%d devices are there after %.1f s, load average %s", devices, time.Since(began).Seconds(), load())

	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for round := range rounds {
		f.progress(1+random.IntN(3*int(rate)/2), round)
		f.kill(syscall.SIGKILL)
		killed := time.Now()
		f.start(f.data)
		ready := time.Since(killed)
		f.allBack(devices)
		t.Logf("round %d: killed; ready after %.1f s, all %d devices back after %.1f s, load average %s", round+1, ready.Seconds(), devices, time.Since(killed).Seconds(), load())
		f.verify(f.data, 0, log, "--partial") // the simulator still writes
	}

	f.progress(int(rate)/2, rounds)
	backup := filepath.Join(f.dir, "hub.mbk")
	var made struct{ Sequence uint64 }
	f.json(&made, "backup", "create", backup, "--data", f.data) // while the hub serves
	f.kill(syscall.SIGKILL)
	f.start(f.data)
	f.allBack(devices)
	f.progress(int(rate)/2, rounds+1)

	f.interrupt(simulate)
	var r struct {
		Devices, Online, Connects, Reconnects, Messages, TwinPatches, Unknown int64
		ReturnP50Ms, ReturnP99Ms, ReturnMaxMs                                 int64
	}
	if err := json.Unmarshal(report.Bytes(), &r); err != nil {
		t.Fatalf("the report: %v\n%s", err, report)
	}
	t.Logf("report: %+v", r)
	if want := int64(devices * (rounds + 1)); r.Reconnects < want || r.Messages == 0 || r.TwinPatches == 0 {
		t.Errorf("%d reconnects, want at least %d; %d messages, %d reports", r.Reconnects, want, r.Messages, r.TwinPatches)
	}
	t.Logf("after %d kills:\n%s", rounds, f.verify(f.data, 0, log))
	f.plant(log)
	f.kill(syscall.SIGTERM)

	restored := filepath.Join(f.dir, "restored")
	f.muster(0, "restore", backup, "--data", restored, "--master-key-file", filepath.Join(f.data, "master.key"))
	f.muster(0, "resume", "--data", restored, "--master-key-file", filepath.Join(f.data, "master.key"))
	until := []string{"--until", strconv.FormatUint(made.Sequence, 10), "--master-key-file", filepath.Join(f.data, "master.key")}
	t.Logf("restored from a backup that names %d:\n%s", made.Sequence, f.verify(restored, 0, log, until...))
	if out := f.verify(restored, 1, log, until[2:]...); !strings.Contains(out, "missing") {
		t.Errorf("what came after the backup is not missed:\n%s", out)
	}
	f.start(restored, until[2:]...)
	f.verify(restored, 0, log, until...)
	f.kill(syscall.SIGTERM)
}

// fleet is a built binary, and a hub that is killed and started again at the
// same addresses.
type fleet struct {
	t            *testing.T
	binary       string
	dir, data    string
	https, mqtts string
	hub          *exec.Cmd
	said         *bytes.Buffer
	service      *client.Service
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fleet{t: t, dir: dir, binary: program(t), data: filepath.Join(dir, "data")}
	for _, a := range []*string{&f.https, &f.mqtts} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*a = l.Addr().String()
		_ = l.Close() // the hub takes it
	}
	return f
}

// until repeats a look until it is content, or minutes have passed.
func (f *fleet) until(what string, content func(ctx context.Context) (string, bool)) {
	f.t.Helper()
	ctx, stop := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer stop()
	for {
		have, ok := content(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			f.t.Fatalf("%s: %s after five minutes; the hub said: %s", what, have, f.said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (f *fleet) start(data string, more ...string) {
	f.t.Helper()
	f.said = &bytes.Buffer{}
	f.hub = exec.Command(f.binary, append([]string{"serve", "--data", data, "--https", f.https, "--mqtts", f.mqtts, "--log-level", "error", "--quiet"}, more...)...) //nolint:noctx // ended by kill
	f.hub.Stderr = f.said
	if err := f.hub.Start(); err != nil {
		f.t.Fatal(err)
	}
	hub := f.hub
	f.t.Cleanup(sync.OnceFunc(func() {
		if hub.ProcessState == nil {
			_ = hub.Process.Kill()
			_ = hub.Wait()
		}
	}))
	f.service = localService(f.t, data)
	f.until("the hub is ready", func(ctx context.Context) (string, bool) {
		h, err := f.service.Hub(ctx)
		return fmt.Sprintf("%v, %v", h.NotReady, err), err == nil && h.Ready
	})
}

func (f *fleet) kill(s os.Signal) {
	f.t.Helper()
	if err := f.hub.Process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
	err := f.hub.Wait()
	if s == syscall.SIGTERM && err != nil {
		f.t.Fatalf("the hub did not stop in order: %v: %s", err, f.said)
	}
}

// allBack waits until every device is connected.
func (f *fleet) allBack(devices int) {
	f.t.Helper()
	f.until("all devices are there", func(ctx context.Context) (string, bool) {
		s, err := f.service.Status(ctx)
		return fmt.Sprintf("%d of %d, %v", s.Devices.Connected, devices, err), err == nil && s.Devices.Connected == int64(devices)
	})
}

// progress waits until the hub has taken so many more messages, while a
// service writes desired properties.
func (f *fleet) progress(messages, round int) {
	f.t.Helper()
	before, err := f.service.Position(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for i := range 10 {
		patch := fmt.Appendf(nil, `{"properties":{"desired":{"round":%d,"step":%d}}}`, round, i)
		if _, err := f.service.PatchTwin(f.t.Context(), fmt.Sprintf("sim-%06d", i+1), "", patch, ""); err != nil {
			f.t.Fatal(err)
		}
	}
	f.until("messages are taken", func(ctx context.Context) (string, bool) {
		now, err := f.service.Position(ctx)
		return fmt.Sprintf("%d of %d, %v", now.NewestMessage-before.NewestMessage, messages, err), err == nil && now.NewestMessage >= before.NewestMessage+uint64(messages)
	})
}

// simulate starts `muster simulate`; its report is complete when interrupt has returned.
func (f *fleet) simulate(devices int, rate float64, log string) (*exec.Cmd, *bytes.Buffer) {
	f.t.Helper()
	c := exec.Command(f.binary, "simulate", "--data", f.data, "--transport", "ws", "--devices", strconv.Itoa(devices), //nolint:noctx // ended by interrupt
		"--rate", strconv.FormatFloat(rate, 'f', -1, 64), "--ack-log", log, "--quiet", "-o", "json")
	var report, said bytes.Buffer
	c.Stdout, c.Stderr = &report, &said
	if err := c.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		if f.t.Failed() {
			f.t.Logf("the simulator said: %s", &said)
		}
	})
	return c, &report
}

func (f *fleet) interrupt(c *exec.Cmd) {
	f.t.Helper()
	if err := c.Process.Signal(os.Interrupt); err != nil {
		f.t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		f.t.Fatalf("the simulator: %v", err)
	}
}

// muster runs a command that must end with an exit code.
func (f *fleet) muster(exit int, args ...string) (stdout string) {
	f.t.Helper()
	c := exec.CommandContext(f.t.Context(), f.binary, args...)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	err := c.Run()
	if c.ProcessState == nil || c.ProcessState.ExitCode() != exit {
		f.t.Fatalf("muster %s: %v, want exit code %d\n%s%s", strings.Join(args, " "), err, exit, &out, &said)
	}
	return out.String()
}

func (f *fleet) verify(data string, exit int, log string, more ...string) string {
	f.t.Helper()
	return f.muster(exit, append([]string{"verify", "--data", data, "--acks", log}, more...)...)
}

// plant changes copies of a log so that the hub lacks something, or lines are
// missing, and wants each to be found.
func (f *fleet) plant(log string) {
	f.t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		f.t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	before, end := strings.Join(lines[:len(lines)-1], ""), lines[len(lines)-1]
	gone := len(lines) / 2 // without a question for the position the log is refused instead
	for !strings.Contains(lines[gone], `"kind":"telemetry"`) {
		gone++
	}
	for name, c := range map[string]struct{ text, want string }{
		"a message that never was":      {before + `{"kind":"telemetry","device":"sim-000001","n":1000000,"acked":true}` + "\n" + end, "-1000000 was acknowledged and is not there"},
		"a twin version that never was": {before + `{"kind":"reported","device":"sim-000002","n":1000000,"version":1000000,"acked":true}` + "\n" + end, "version 1000000 with value 1000000 was acknowledged"},
		"a device that never was":       {before + `{"kind":"reported","device":"nobody","n":1,"version":2,"acked":true}` + "\n" + end, "nobody: the device is not there"},
		"a log that was cut":            {before[:len(before)*2/3], "has no end"},
		"a log without one line":        {strings.Join(lines[:gone], "") + strings.Join(lines[gone+1:], ""), "the log holds"},
	} {
		planted := filepath.Join(f.dir, "planted.jsonl")
		if err := os.WriteFile(planted, []byte(c.text), 0o600); err != nil {
			f.t.Fatal(err)
		}
		if out := f.verify(f.data, 1, planted); !strings.Contains(out, c.want) {
			f.t.Errorf("%s: %q is not in\n%s", name, c.want, out)
		}
	}
}

func (f *fleet) json(into any, args ...string) {
	f.t.Helper()
	out := f.muster(0, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		list := []json.RawMessage{}
		if json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || json.Unmarshal(list[0], into) != nil {
			f.t.Fatalf("muster %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
