package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/protocols/cli"
)

// program builds the binary once for all tests.
func program(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "muster-test-") //nolint:usetesting // shared by all tests, removed by TestMain
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "muster")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := buildOnce(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// box is a directory with a hub in it, as a user has it: commands run inside.
type box struct {
	t   *testing.T
	dir string
	env []string
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir()}
	b.env = []string{
		"HOME=" + b.dir, "PATH=" + filepath.Dir(program(t)) + ":" + os.Getenv("PATH"), "TZ=UTC",
		"MUSTER_HTTPS=127.0.0.1:0", "MUSTER_MQTTS=127.0.0.1:0", "MUSTER_BANNER=1",
	}
	return b
}

func (b *box) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program(b.t), args...)
	cmd.Dir, cmd.Env = b.dir, b.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// run runs a command to its end and returns what it wrote, both streams in one.
func (b *box) run(args ...string) (output string, code int) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
	defer stop()
	out, err := b.command(ctx, args...).CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), e.ExitCode()
	}
	if err != nil {
		b.t.Fatalf("muster %s: %v", strings.Join(args, " "), err)
	}
	return string(out), 0
}

func (b *box) must(args ...string) string {
	b.t.Helper()
	out, code := b.run(args...)
	if code != 0 {
		b.t.Fatalf("muster %s ended with %d:\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// background is a command that runs until it is stopped.
type background struct {
	t       *testing.T
	cmd     *exec.Cmd
	mu      sync.Mutex
	out     bytes.Buffer
	changed chan struct{}
	ended   chan struct{}
}

// Write collects the output.
func (g *background) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := g.out.Write(p)
	select {
	case g.changed <- struct{}{}:
	default:
	}
	return n, err
}

func (g *background) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.String()
}

func (b *box) start(args ...string) *background {
	b.t.Helper()
	g := &background{t: b.t, changed: make(chan struct{}, 1), ended: make(chan struct{})}
	g.cmd = b.command(context.WithoutCancel(b.t.Context()), args...)
	g.cmd.Stdout, g.cmd.Stderr = g, g
	if err := g.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { // ends with the command, which Cleanup ends
		_ = g.cmd.Wait()
		close(g.ended)
	}()
	b.t.Cleanup(func() { g.stop(syscall.SIGKILL) })
	return g
}

// wait returns when the output holds the text.
func (g *background) wait(text string) {
	g.t.Helper()
	late := time.After(time.Minute)
	for !strings.Contains(g.text(), text) {
		select {
		case <-g.changed:
		case <-g.ended:
			if !strings.Contains(g.text(), text) {
				g.t.Fatalf("%v ended before it wrote %q:\n%s", g.cmd.Args, text, g.text())
			}
		case <-late:
			g.t.Fatalf("%v did not write %q in time:\n%s", g.cmd.Args, text, g.text())
		}
	}
}

// stop sends a signal and returns the exit code.
func (g *background) stop(s os.Signal) int {
	_ = g.cmd.Process.Signal(s) // it may have ended
	select {
	case <-g.ended:
	case <-time.After(time.Minute):
		_ = g.cmd.Process.Kill()
		<-g.ended
		g.t.Errorf("%v did not end within a minute after %v:\n%s", g.cmd.Args, s, g.text())
	}
	return g.cmd.ProcessState.ExitCode()
}

func (b *box) serve(args ...string) *background {
	b.t.Helper()
	g := b.start(append([]string{"serve"}, args...)...)
	g.wait("ready in")
	return g
}

func (b *box) twin(id string) map[string]any {
	b.t.Helper()
	var twin struct{ Properties map[string]map[string]any }
	if err := json.Unmarshal([]byte(b.must("twin", "show", id, "-o", "json")), &twin); err != nil {
		b.t.Fatal(err)
	}
	return twin.Properties["desired"]
}

// TestLife takes a hub from its first start through a clean stop and a kill.
func TestLife(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	hub := b.serve()
	if cs := b.must("connection-string"); !strings.HasPrefix(cs, "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=") {
		t.Errorf("connection-string: got %q", cs)
	}
	b.must("device", "create", "d1")
	b.must("twin", "patch", "d1", "desired.interval=5")
	if code := hub.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("SIGTERM: exit code %d, want 0\n%s", code, hub.text())
	}
	if out, code := b.run("device", "list"); code != cli.ExitConnect || !strings.Contains(out, "next:") {
		t.Errorf("without a hub: exit code %d, want %d and a next step:\n%s", code, cli.ExitConnect, out)
	}

	ca, err := os.ReadFile(filepath.Join(b.dir, "muster-data", "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	hub = b.serve()
	if strings.Contains(hub.text(), "(new)") {
		t.Error("the second start calls the directory new")
	}
	if got := b.twin("d1")["interval"]; got != 5.0 {
		t.Errorf("desired.interval after a restart: got %v, want 5", got)
	}
	again, err := os.ReadFile(filepath.Join(b.dir, "muster-data", "tls", "ca.pem"))
	if err != nil || !bytes.Equal(ca, again) {
		t.Errorf("the CA certificate changed at a restart (%v)", err)
	}
	b.must("twin", "patch", "d1", "desired.interval=6")
	if code := hub.stop(syscall.SIGKILL); code != -1 {
		t.Errorf("SIGKILL: exit code %d", code)
	}
	hub = b.serve()
	if got := b.twin("d1")["interval"]; got != 6.0 {
		t.Errorf("desired.interval after kill -9: got %v, want the acknowledged 6", got)
	}
	hub.stop(os.Interrupt)
	if out := b.must("verify"); !strings.Contains(out, "records") {
		t.Errorf("verify: %s", out)
	}
}

// TestFullDisk starts a hub on a disk that has too little room: it says that it is
// there for reads only, why, and what to do.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.serve().stop(syscall.SIGTERM)
	hub := b.serve("--reserve", "1000TiB")
	hub.wait("changes refused")
	for _, want := range []string{"below the reserve", "next="} {
		if !strings.Contains(hub.text(), want) {
			t.Errorf("the message lacks %q:\n%s", want, hub.text())
		}
	}
	if out, code := b.run("device", "create", "d1"); code == 0 {
		t.Errorf("a device was made: %s", out)
	}
	b.must("device", "list")
}

// TestSecondHub starts a second hub on the same directory.
func TestSecondHub(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	first := b.serve()
	out, code := b.run("serve")
	if code != cli.ExitConnect {
		t.Errorf("exit code %d, want %d", code, cli.ExitConnect)
	}
	for _, want := range []string{"in use", fmt.Sprint(first.cmd.Process.Pid), "next:"} {
		if !strings.Contains(out, want) {
			t.Errorf("the message lacks %q:\n%s", want, out)
		}
	}
	b.must("device", "list")
}

// TestTakenPort starts a hub on a port that another one has.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	first := b.serve()
	address := regexp.MustCompile(`mqtts://(\S+)`).FindStringSubmatch(first.text())[1]
	out, code := b.run("serve", "--data", "other", "--mqtts", address)
	if code != cli.ExitConnect {
		t.Errorf("exit code %d, want %d", code, cli.ExitConnect)
	}
	for _, want := range []string{"--mqtts", address, "taken by muster", fmt.Sprint(first.cmd.Process.Pid), "next:"} {
		if !strings.Contains(out, want) {
			t.Errorf("the message lacks %q:\n%s", want, out)
		}
	}
}

// TestBadFlags shows that a mistake is a usage error with a next step and
// leaves nothing behind.
func TestBadFlags(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, args := range [][]string{
		{"serve", "--https", "nowhere"},
		{"serve", "--host", "https://hub.example.net"},
		{"serve", "--memory", "lots"},
		{"serve", "--memory", "95MiB"},
		{"serve", "--limits", "none"},
		{"serve", "--cert", "server.pem"},
		{"serve", "--dat", "x"},
		{"serve", "--drain=-1s"},
		{"device", "create"},
		{"twin", "patch", "d1"},
		{"nonsense"},
	} {
		out, code := b.run(args...)
		if code != cli.ExitUsage {
			t.Errorf("%v: exit code %d, want %d:\n%s", args, code, cli.ExitUsage, out)
		}
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("mistakes left %v behind (%v)", entries, err)
	}
}

// TestSecondSignal shows that a second signal does not wait for the drain.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	hub := b.serve("--drain", "1h")
	fleet := b.start("demo", "--devices", "5", "--quiet")
	b.eventually(func() bool { return strings.Contains(b.must("status"), "connected             5") })
	_ = hub.cmd.Process.Signal(syscall.SIGSTOP) // so that both signals wait for it
	_ = hub.cmd.Process.Signal(syscall.SIGTERM)
	_ = hub.cmd.Process.Signal(syscall.SIGINT)
	if code := hub.stop(syscall.SIGCONT); code != exitForced && code != 0 {
		t.Errorf("exit code %d, want %d", code, exitForced)
	}
	fleet.stop(os.Interrupt)
	b.serve() // what was forced recovers
}

// TestEchoOfASignal shows that a signal that timeout(1) sends twice ends
// nothing before its time, and that an impatient person's still does.
func TestEchoOfASignal(t *testing.T) {
	for _, row := range []struct {
		name   string
		second os.Signal
		after  time.Duration
		forced bool
	}{
		{"the same at once", syscall.SIGTERM, 2 * time.Millisecond, false},
		{"the same later", syscall.SIGTERM, time.Second, true},
		{"another at once", os.Interrupt, 2 * time.Millisecond, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal, 2)
				stopped, forced := false, false
				go func() { obey(signals, func() { stopped = true }); forced = true }()
				signals <- syscall.SIGTERM
				time.Sleep(row.after)
				signals <- row.second
				synctest.Wait()
				if !stopped || forced != row.forced {
					t.Errorf("stopped %v, forced %v, want %v", stopped, forced, row.forced)
				}
				if !forced {
					close(signals)
				}
			})
		})
	}
}

// eventually calls f until it is true.
func (b *box) eventually(f func() bool) {
	b.t.Helper()
	late := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-late:
			b.t.Fatal("it did not come about within a minute")
		}
	}
}

// TestNoTerminal shows what a service manager's log gets: one line of JSON,
// without a token.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.env = append(b.env, "MUSTER_BANNER=")
	hub := b.start("serve", "--log-format", "json", "--memory", "96MiB")
	hub.wait(`"msg":"ready"`)
	if said := hub.text(); !strings.Contains(said, `"next":"Give --memory at least 128 MiB."`) { // as check-config says
		t.Errorf("no word about the little memory:\n%s", said)
	}
	hub.stop(syscall.SIGTERM)
	for l := range strings.Lines(hub.text()) {
		if !json.Valid([]byte(l)) {
			t.Errorf("not a line of JSON: %s", l)
		}
	}
	if strings.Contains(hub.text(), "sig=") {
		t.Errorf("a token is in the log:\n%s", hub.text())
	}
}

// changing are the parts of a transcript that differ from run to run.
func changing() []struct {
	pattern *regexp.Regexp
	as      string
} {
	type row = struct {
		pattern *regexp.Regexp
		as      string
	}
	return []row{
		{regexp.MustCompile(`time=\S+ level=.*\n`), ""}, // the log is not part of it
		{regexp.MustCompile(`pid \d+`), "pid N"},
		{regexp.MustCompile(`127\.0\.0\.1:\d+(/\S*)?`), "ADDRESS$1"},
		{regexp.MustCompile(`#sr=\S+`), "#TOKEN"},
		{regexp.MustCompile(`SHA-256 [0-9A-F:]+`), "SHA-256 SUM"},
		{regexp.MustCompile(`\d+ ms`), "N ms"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+Z)?`), "TIME"},
		{regexp.MustCompile(`(?m)^(etag|generation)( +)\S+$`), "$1$2X"},
		{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+`), "REQUEST"},
		{regexp.MustCompile(`("uptime": )\d+`), "${1}N"},
		{regexp.MustCompile(`(?m)^((?:connected|\w+ per second|entries) +)[\d.]+$`), "${1}N"},
		{regexp.MustCompile(`local:uid=\d+`), "local:uid=N"},
		{regexp.MustCompile(`(?m)^ *\d+  TIME`), "N  TIME"},
		{regexp.MustCompile(` +`), " "}, // columns are as wide as what is in them
	}
}

func normalised(s string) string {
	for _, c := range changing() {
		s = c.pattern.ReplaceAllString(s, c.as)
	}
	return strings.TrimSpace(s)
}

// TestTutorial runs every command of the tutorial's console blocks, in order
// and in one directory, and compares what they print.
func TestTutorial(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("docs", "tutorials", "first-five-minutes.md"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	count := 0
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for _, step := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			count++
			args := strings.Fields(command)
			if args[0] != "muster" {
				t.Fatalf("%q is not a command of muster", command)
			}
			if got := b.follow(args[1:], want); normalised(got) != normalised(want) {
				t.Errorf("$ %s\nprints\n%s\nthe page says\n%s", command, normalised(got), normalised(want))
			}
		}
	}
	if count < 10 {
		t.Errorf("only %d commands were found", count)
	}
}

// follow runs one command of the tutorial; serve and demo go on running.
func (b *box) follow(args []string, want string) string {
	b.t.Helper()
	lines := strings.Split(strings.TrimSpace(want), "\n")
	switch strings.Join(args, " ") {
	case "serve":
		return b.serve().text()
	case "demo":
		g := b.start("demo")
		g.wait(lines[len(lines)-1])
		b.eventually(func() bool {
			return regexp.MustCompile(`connected +(4[5-9]|50)`).MatchString(b.must("status"))
		})
		b.eventually(func() bool { _, code := b.run("method", "invoke", "demo-pump-001", "ping"); return code == 0 })
		text, _, _ := strings.Cut(g.text(), "\n\n  devices ")
		return text
	}
	out, _ := b.run(args...)
	return out
}
