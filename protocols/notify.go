package protocols

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-hub/muster/engine"
)

// Notify tells the service manager a state such as READY=1. The protocol is a
// datagram of lines to the socket that NOTIFY_SOCKET names; an empty name
// means that nobody asked.
func Notify(ctx context.Context, socket string, lines ...string) error {
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
	_, err = c.Write([]byte(strings.Join(lines, "\n")))
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return err
}

const (
	// statusEvery is how often the status line is looked at without a watchdog.
	statusEvery = 15 * time.Second
	// closeTime is what the store may take to close after the drain.
	closeTime = 30 * time.Second
)

// manager is the service manager that started the hub, if one did.
type manager struct {
	socket   string        // "" = none
	watchdog time.Duration // 0 = none
	log      *slog.Logger
	status   func() string
	// working errs or blocks when the hub does not work; longest is how long
	// anything may have waited.
	working func(ctx context.Context, longest time.Duration) error
}

// tell speaks to the service manager; that it does not listen changes nothing.
func (m *manager) tell(ctx context.Context, lines ...string) {
	if err := Notify(ctx, m.socket, lines...); err != nil {
		m.log.Warn("the service manager could not be told", slog.Any("state", lines), slog.Any("error", err))
	}
}

// run says what the hub does, and, twice as often as the watchdog asks, that
// it works, until ctx ends. While it does not work nothing is said, and the
// watchdog itself notices.
func (m *manager) run(ctx context.Context) {
	if m.socket == "" {
		return
	}
	every := statusEvery
	if m.watchdog > 0 {
		every = m.watchdog / 2
	}
	t := time.NewTicker(every)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var lines []string
		if m.watchdog > 0 {
			if err := m.working(ctx, every); err == nil {
				lines = append(lines, "WATCHDOG=1")
			} else if ctx.Err() == nil {
				m.log.Error("the hub does not work; the service manager will restart it unless that passes", slog.Any("error", err))
			}
		}
		if s := m.status(); s != said {
			lines = append(lines, "STATUS="+s)
			said = s
		}
		if len(lines) > 0 {
			m.tell(ctx, lines...)
		}
	}
}

// ready, reloading and stopping are the states that systemd documents.
func (m *manager) ready(ctx context.Context) { m.tell(ctx, "READY=1", "STATUS="+m.status()) }

func (m *manager) reloading(ctx context.Context) {
	lines := []string{"RELOADING=1", "STATUS=reading certificate and metrics token again"}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		lines = append(lines, "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
	}
	m.tell(ctx, lines...)
}

// stopping asks for the time that the drain may take, which is a setting of
// the hub that the service manager does not know.
func (m *manager) stopping(ctx context.Context, sessions int64, most time.Duration) {
	m.tell(ctx, "STOPPING=1", fmt.Sprintf("STATUS=draining %d sessions", sessions),
		"EXTEND_TIMEOUT_USEC="+strconv.FormatInt((most+closeTime).Microseconds(), 10))
}

// newManager returns the service manager that o names.
func (s *Server) newManager(o Options) *manager {
	return &manager{socket: o.Notify, watchdog: o.Watchdog, log: o.Logger, status: s.statusLine, working: s.working}
}

// statusLine is what `systemctl status` shows.
func (s *Server) statusLine() string {
	if err := s.hub.Ready(); err != nil {
		return "not ready: " + strings.ReplaceAll(engine.AsError(err).Message, "\n", " ")
	}
	return fmt.Sprintf("ready, %d sessions", s.device.Stats().Sessions)
}

// working asks each part of the hub that could be stuck: the gate, the device
// edge, the engine and its store. A store that takes no writes for a reason
// works: reads are served, and a restart would not help.
func (s *Server) working(ctx context.Context, longest time.Duration) error {
	s.gate.snapshot()
	s.device.Stats()
	return s.hub.Working(ctx, longest)
}
