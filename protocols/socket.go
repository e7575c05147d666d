package protocols

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/muster-hub/muster/engine/auth"
)

// longestSocketPath is what a unix socket's address holds on Linux and, a few
// bytes less, elsewhere.
const longestSocketPath = 100

// listenSocket opens the unix socket for the hub's owner. The data directory's
// lock is held by now, so that a socket file that is there is a dead hub's.
func listenSocket(ctx context.Context, path string) (*net.UnixListener, error) {
	if len(path) > longestSocketPath {
		return nil, &ListenError{Flag: "socket", Address: path, Reason: fmt.Sprintf("the path is longer than the %d bytes that a unix socket takes", longestSocketPath),
			Next: "Choose a data directory with a shorter path, or start the hub inside its parent directory with a relative --data."}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &ListenError{Flag: "socket", Address: path, Reason: err.Error(), Next: "Remove the file by hand.", cause: err}
	}
	// The file must never be open to others, not even for the moment between
	// bind and chmod. The directory is 0700; the mask guards where it isn't.
	old := unix.Umask(0o177)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, &ListenError{Flag: "socket", Address: path, Reason: err.Error(), Next: "Check that the data directory's file system takes unix sockets.", cause: err}
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("the system gave no unix listener"), l.Close())
	}
	return ul, nil
}

// peerPrincipal says who is at the other end of the unix socket: this
// process's user and root hold every permission, others none.
func peerPrincipal(c net.Conn) (auth.Principal, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return auth.Principal{}, errors.New("not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return auth.Principal{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return auth.Principal{}, err
	}
	if credErr != nil {
		return auth.Principal{}, credErr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Getuid() {
		return auth.Principal{}, fmt.Errorf("user id %d is neither root nor the hub's own", cred.Uid)
	}
	return auth.Principal{Kind: auth.Local, Name: "uid=" + strconv.FormatUint(uint64(cred.Uid), 10), Permissions: auth.AllPermissions}, nil
}
