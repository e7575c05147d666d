package cli

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

// printConnectionString writes the string alone to standard output, for
// `$(...)` and files, and to standard error what keeps SDKs from using it.
func (a *app) printConnectionString(ctx context.Context, s *client.Service, o OutputFlags, text string) error {
	item := map[string]string{"connectionString": text}
	var err error
	if o.Output == "table" {
		_, err = fmt.Fprintln(a.io.Out, text)
	} else {
		err = a.printRecord(o, item, []field{{"connectionString", text}})
	}
	if err != nil {
		return err
	}
	c, err := auth.ParseConnectionString(text)
	if err != nil {
		return nil // the hub's business; nothing to warn about
	}
	if hub, err := s.Hub(ctx); err == nil {
		a.noteForSDKs(ctx, c.HostName, hub.Listeners)
	}
	return nil
}

// noteForSDKs tells when Microsoft's SDKs would not reach the hub: they know
// only the ports 443 and 8883, and some want a dot in the name.
func (a *app) noteForSDKs(ctx context.Context, host string, listeners []client.Listener) {
	https, mqtts := listens(ctx, host, listeners, "https", "443"), listens(ctx, host, listeners, "mqtts", "8883")
	if https && mqtts {
		if !strings.Contains(host, ".") {
			a.note("Note: some of Microsoft's SDKs want a dot in the host name. Next: muster serve --host NAME.EXAMPLE")
		}
		return
	}
	missing := "443"
	if !mqtts {
		missing = "8883"
		if !https {
			missing = "443 and 8883"
		}
	}
	a.note("Note: connection strings carry no port, and Microsoft's SDKs know only 443 (HTTPS, WebSocket) and 8883 (MQTT);\n"+
		"this hub does not listen on %s. Next: muster serve --https :443 --mqtts :8883\n"+
		"(ports below 1024 need root, or once: sudo setcap cap_net_bind_service=+ep ./muster)", missing)
}

// listens says whether the hub accepts connections on a port: by its own list
// of listeners, or, from a hub that gives none, by trying.
func listens(ctx context.Context, host string, listeners []client.Listener, kind, port string) bool {
	if len(listeners) > 0 {
		for _, l := range listeners {
			if _, p, err := net.SplitHostPort(l.Address); err == nil && l.Kind == kind && p == port {
				return true
			}
		}
		return false
	}
	d := net.Dialer{Timeout: 300 * time.Millisecond}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return false
	}
	_ = conn.Close() // only tried
	return true
}
