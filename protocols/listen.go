package protocols

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ListenError says which address could not be opened, why, and what to do.
type ListenError struct {
	Flag    string // "--https", "--mqtts", "--http" or "socket"
	Address string
	Reason  string
	Next    string
	cause   error
}

// Error returns one sentence.
func (e *ListenError) Error() string {
	return fmt.Sprintf("can't listen on %s %s: %s", e.Flag, e.Address, e.Reason)
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.cause }

func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	e := &ListenError{Flag: flag, Address: address, Reason: err.Error(), cause: err,
		Next: fmt.Sprintf("Give another address with %s HOST:PORT.", flag)}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Reason = "the port is taken"
		if who := portHolder(address); who != "" {
			e.Reason += " by " + who
		}
		e.Next = fmt.Sprintf("Stop that process, or give another port with %s HOST:PORT.", flag)
	case errors.Is(err, syscall.EACCES):
		e.Reason = "the system does not let this user open the port"
		program, err := os.Executable()
		if err != nil {
			program = "muster"
		}
		e.Next = fmt.Sprintf("Ports below 1024 need the capability CAP_NET_BIND_SERVICE: sudo setcap cap_net_bind_service=+ep %s, or AmbientCapabilities= in the systemd unit.", program)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Reason = "this machine has no such address"
		e.Next = fmt.Sprintf("Give an address of this machine with %s, or :PORT for all of them.", flag)
	}
	return nil, e
}

// portHolder names the process that listens on the address's port: "name (pid
// N)", or "" when the system doesn't tell. It reads /proc and nothing else.
func portHolder(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return ""
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if inode := listenerInode(table, uint16(port)); inode != "" {
			if who := inodeHolder(inode); who != "" {
				return who
			}
		}
	}
	return ""
}

// listenerInode finds the socket that listens on a port in a table of the
// kernel's, whose columns are number, local address, remote address, state,
// ..., inode.
func listenerInode(table string, port uint16) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	const stateListen, columnInode = "0A", 9
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > columnInode && fields[3] == stateListen && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			return fields[columnInode]
		}
	}
	return ""
}

func inodeHolder(inode string) string {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, l := range links {
		if target, err := os.Readlink(l); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(l, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "pid " + pid
		}
		return strings.TrimSpace(string(name)) + " (pid " + pid + ")"
	}
	return ""
}
