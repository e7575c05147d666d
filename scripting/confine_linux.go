package scripting

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const workerNice = 19

// confine takes away from this process what a worker has no use for, and tells
// what it could not, in words; empty: nothing. It can't be taken back.
//
// What the Go runtime itself needs stays: memory, threads of this process, and
// signals to it. There is no limit of threads (RLIMIT_NPROC): it would count all
// of the user's, and the filter knows a thread from a process.
func confine() string {
	time.Sleep(time.Microsecond) // so that the runtime has made what timers need
	var failed []string
	try := func(what string, err error) {
		if err != nil {
			failed = append(failed, what+": "+err.Error())
		}
	}
	// Who runs out of memory has the kernel end this process first.
	try("first to end when memory is short", os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0))
	try("lower priority", lowerPriority())
	try("end with the parent", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
	for _, l := range []struct {
		what     string
		resource int
		most     uint64
	}{
		{"no core files", unix.RLIMIT_CORE, 0}, {"no files", unix.RLIMIT_FSIZE, 0}, {"no new descriptors", unix.RLIMIT_NOFILE, 0},
		{"no locked memory", unix.RLIMIT_MEMLOCK, 0}, {"no message queues", unix.RLIMIT_MSGQUEUE, 0},
	} {
		try(l.what, syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.most, Max: l.most}))
	}
	try("no new privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	try("filter of system calls", filter())
	return strings.Join(failed, "; ")
}

// lowerPriority lowers that of all threads: the kernel's call is for one of them,
// and the runtime has made some before main.
func lowerPriority() error {
	// A thread that was made meanwhile has the priority of the one that made it.
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, workerNice); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// detach has a command become a worker that signals of a terminal don't reach.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// usage tells what a process takes.
type usage struct {
	statm *os.File
	clock int32
	page  int64
	buf   [128]byte
}

func watchUsage(pid int) (*usage, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return nil, err
	}
	// The clock of another process's processor time: its number is made of the
	// process's (clock_getcpuclockid).
	return &usage{statm: f, clock: int32(^pid<<3 | 2), page: int64(os.Getpagesize())}, nil
}

func (u *usage) close() { _ = u.statm.Close() } // it was read from

// memory is how many bytes the process has for itself: what is resident, without
// what it shares, such as the pages of the binary.
func (u *usage) memory() int64 {
	n, err := u.statm.ReadAt(u.buf[:], 0)
	if n == 0 && err != nil {
		return 0 // it has ended
	}
	fields := bytes.Fields(u.buf[:n])
	if len(fields) < 3 {
		return 0
	}
	resident, err1 := strconv.ParseInt(string(fields[1]), 10, 64)
	shared, err2 := strconv.ParseInt(string(fields[2]), 10, 64)
	if errors.Join(err1, err2) != nil {
		return 0
	}
	return (resident - shared) * u.page
}

// processor is how long the process has run.
func (u *usage) processor() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(u.clock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
