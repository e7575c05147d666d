//go:build linux && (amd64 || arm64)

package scripting

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allowedCalls are the system calls that the Go runtime makes in a process that
// reads, writes and computes.
func allowedCalls() []uint32 {
	return []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FUTEX, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRANDOM, unix.SYS_EPOLL_PWAIT,
		unix.SYS_EPOLL_CTL, unix.SYS_RSEQ, unix.SYS_SET_ROBUST_LIST, unix.SYS_MEMBARRIER, unix.SYS_PPOLL,
	}
}

// filter lets this process make no system calls but those that a Go program needs
// which reads, writes and computes; others give EPERM. Without the privilege to
// filter, or where a container forbids it, it tells so.
func filter() error {
	program := filterProgram()
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// TSYNC puts it on the threads that the runtime has already.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return errno
	}
	return nil
}

// filterProgram is the filter, which reads the number, the architecture and the
// arguments of a call.
func filterProgram() []unix.SockFilter {
	arch := uint32(unix.AUDIT_ARCH_X86_64) // numbers mean something else under others
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	const (
		offsetNumber = 0
		offsetArch   = 4
		offsetArgs   = 16
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	equal := func(k uint32, jt, jf uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: jt, Jf: jf}
	}
	anyOf := func(k uint32, jt, jf uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: k, Jt: jt, Jf: jf}
	}
	allow, deny := ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	unknown := ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))

	p := []unix.SockFilter{
		load(offsetArch), equal(arch, 1, 0), ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber),
		// clone: threads of this process alone.
		equal(unix.SYS_CLONE, 0, 4), load(offsetArgs), anyOf(unix.CLONE_THREAD, 0, 1), allow, deny,
		// mmap and mprotect: nothing that can be executed.
		equal(unix.SYS_MMAP, 1, 0), equal(unix.SYS_MPROTECT, 0, 4), load(offsetArgs + 2*8), anyOf(unix.PROT_EXEC, 1, 0), allow, deny,
		// tgkill: this process.
		equal(unix.SYS_TGKILL, 0, 4), load(offsetArgs), equal(uint32(os.Getpid()), 0, 1), allow, deny,
		equal(unix.SYS_CLONE3, 0, 1), unknown,
	}
	for _, number := range allowedCalls() {
		p = append(p, equal(number, 0, 1), allow)
	}
	return append(p, deny)
}
