package scripting

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-hub/muster/engine/pattern"
)

// probe is a worker that tries what a worker must not be able to do, and tells
// what worked.
func probe(out io.Writer) error {
	missing := confine()
	found := map[string]string{"missing": missing}
	try := func(what string, err error) {
		if err == nil {
			found[what] = "worked"
		}
	}
	file := func(f *os.File, err error) error { return err }
	try("open a file to read", file(os.Open("/etc/passwd")))
	try("open a file to write", file(os.Create(filepath.Join(os.TempDir(), "muster-probe"))))
	try("open its own memory", file(os.OpenFile("/proc/self/mem", os.O_RDWR, 0)))
	_, err := os.ReadDir("/")
	try("read a directory", err)
	_, err = os.Stat("/etc/passwd")
	try("look at a file", err)
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	try("a socket", err)
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	try("a unix socket", err)
	_, err = net.Dial("tcp", "127.0.0.1:1")
	if err != nil && strings.Contains(err.Error(), "refused") {
		err = nil // it got through to the network
	}
	try("a connection", err)
	try("a process", exec.Command("/bin/true").Run())
	try("another program", syscall.Exec("/bin/true", []string{"true"}, nil))
	try("a signal to the parent", syscall.Kill(os.Getppid(), 0))
	try("ptrace", unix.PtraceAttach(os.Getppid()))
	_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	try("memory that can be executed", err)
	var fds [2]int
	try("a pipe", unix.Pipe2(fds[:], 0))
	try("a lower nice value", unix.Setpriority(unix.PRIO_PROCESS, 0, 0))
	try("a change of directory", os.Chdir("/proc"))
	try("a namespace", unix.Unshare(unix.CLONE_NEWUSER))
	try("a change of limits", syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 100, Max: 100}))
	_, _, errno := unix.Syscall(unix.SYS_MEMFD_CREATE, 0, 0, 0)
	try("a file in memory", nonzero(errno))
	_, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	try("io_uring", nonzero(errno))
	if env := os.Environ(); len(env) > 0 {
		found["the environment"] = strings.Join(env, " ")
	}
	if wd, err := os.Getwd(); err == nil && wd != "/" {
		found["the directory"] = wd
	}
	// What a worker does need still works: memory, threads, time.
	done := make(chan int)
	for range 8 {
		go func() { done <- len(make([]byte, 1<<20)) }()
	}
	for range 8 {
		<-done
	}
	return json.NewEncoder(out).Encode(found)
}

func nonzero(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// TestWorkerIsConfined has a worker try to get at files, network, processes and
// the environment.
func TestWorkerIsConfined(t *testing.T) {
	t.Setenv("MUSTER_SECRET", "must not be seen")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "__worker-probe")
	cmd.Env, cmd.Dir = []string{}, "/"
	detach(cmd)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	found := map[string]string{}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	missing := found["missing"]
	delete(found, "missing")
	switch {
	case strings.Contains(missing, "filter"):
		t.Skipf("this machine lets no process filter its system calls: %s", missing)
	case missing != "":
		t.Errorf("could not be taken away: %s", missing)
	}
	for what, how := range found {
		t.Errorf("%s: %s", what, how)
	}
}

// parent is a process with a pool, whose worker never ends by itself. It tells the
// worker's number, and waits to be killed.
func parent(out io.Writer) error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := NewPool(Options{Command: []string{binary, "__worker-open"}, Workers: 1})
	if err != nil {
		return err
	}
	if _, err := p.Activate(context.Background(), bundleOf(`return 1`), []pattern.Activation{activationOf()}); err != nil {
		return err
	}
	fmt.Fprintln(out, p.alive()[0].cmd.Process.Pid)
	for {
		_, _ = p.Activate(context.Background(), bundleOf(`while true do end`), []pattern.Activation{activationOf()})
	}
}

// TestWorkerEndsWithParent kills a hub's process while its worker is in a loop:
// the worker is gone, too.
func TestWorkerEndsWithParent(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "__parent")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, _ := strings.Cut(string(text), ") ")
		if err != nil || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
			return // nobody may be there to bury it
		}
		if time.Now().After(until) {
			t.Fatalf("worker %d is still there: %s", pid, text)
		}
	}
}
