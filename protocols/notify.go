package protocols

import (
	"context"
	"net"
	"strings"
	"time"
)

// notify tells the service manager a state such as READY=1. The protocol is a
// datagram of lines to the socket that NOTIFY_SOCKET names; an empty name
// means that nobody asked.
func notify(ctx context.Context, socket, state string) error {
	if socket == "" {
		return nil
	}
	if strings.HasPrefix(socket, "@") { // the abstract name space
		socket = "\x00" + socket[1:]
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixgram", socket)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(state))
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return err
}

// feedWatchdog says that the hub lives, twice as often as asked, until ctx
// ends. alive decides: when it blocks or errs, the dog is not fed.
func feedWatchdog(ctx context.Context, socket string, every time.Duration, alive func() error) {
	if socket == "" || every <= 0 {
		return
	}
	t := time.NewTicker(every / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if alive() == nil {
				_ = notify(ctx, socket, "WATCHDOG=1") // the dog itself notices what is missing
			}
		}
	}
}
