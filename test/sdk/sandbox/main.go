//go:build linux

// Command sandbox runs a program in a private network and mount namespace:
//
//	sandbox HOSTS-FILE PROGRAM ARGUMENT...
//
// Inside, the loopback interface is up and nothing else exists, so every port
// (443 and 8883 too) is free, and HOSTS-FILE is what /etc/hosts shows. Nothing
// outside changes, and the kernel removes all of it when the program ends.
//
// As root it needs nothing more. Other users get a user namespace in which
// they are root, where the machine permits that.
//
// The SDK tests need it because Microsoft's device SDKs know only the ports 443
// and 8883 and ask the machine's resolver for the hub's name. It is Go, and
// uses no module, because Go is on every machine that builds the hub while
// unshare and ip need not be.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// stageInside is the first argument of the second start, inside the namespaces.
const stageInside = "--inside"

func main() {
	// The death signal below belongs to the thread that starts the child.
	runtime.LockOSThread()
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: sandbox HOSTS-FILE PROGRAM ARGUMENT...")
		os.Exit(2)
	}
	var err error
	if os.Args[1] == stageInside {
		err = inside(os.Args[2], os.Args[3:])
	} else {
		err = outside(os.Args[1:])
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(125)
	}
}

// outside starts this program again in fresh namespaces and waits for it.
func outside(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	attributes := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	cmd := exec.Command(self, append([]string{stageInside}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attributes
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make the namespaces: %w", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	return cmd.Wait()
}

// inside finishes the namespaces and becomes the wanted program.
func inside(hosts string, command []string) error {
	// Without this the bind mount below would show outside, too.
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over /etc/hosts: %w", hosts, err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	path := command[0]
	if !strings.Contains(path, "/") {
		found, err := exec.LookPath(path)
		if err != nil {
			return fmt.Errorf("find the program to run: %w", err)
		}
		path = found
	}
	if err := syscall.Exec(path, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// loopbackUp sets the interface lo to up, which also gives it 127.0.0.1/8.
func loopbackUp() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket to set lo up: %w", err)
	}
	defer func() { _ = syscall.Close(socket) }()
	// struct ifreq: a name of 16 bytes, then a union whose first two bytes are the flags.
	var request [40]byte
	copy(request[:15], "lo")
	*(*uint16)(unsafe.Pointer(&request[16])) = syscall.IFF_UP | syscall.IFF_RUNNING
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request[0])))
	if errno != 0 {
		return fmt.Errorf("set lo up: %w", errno)
	}
	return nil
}
