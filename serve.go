package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/plugins"
	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/storage"
)

// threadsPerProcessor is how many threads run Go for each processor (or what a cgroup leaves of one),
// beside those that the store adds while it merges tables. Badger maps its files: a
// thread that waits for a page of them keeps its place among those that run Go. With two
// for each processor the kernel fills the gaps: the store takes a quarter more
// updates, with a shorter tail.
const threadsPerProcessor = 2

const (
	// statusPolicy may read what the status page shows and nothing else; the page's
	// link carries a token of it.
	statusPolicy    = "status"
	statusTokenLife = 30 * 24 * time.Hour
)

// serve runs a hub until ctx ends: open the store, open the listeners, serve,
// drain, close. What reload brings makes it read its certificate again.
func serve(ctx context.Context, f cli.ServeFlags, std cli.IO, b build, started time.Time, reload <-chan os.Signal) (err error) {
	level := new(slog.LevelVar)
	tail := &logTail{to: std.Err}
	log, err := newLogger(f, level, tail)
	if err != nil {
		return err
	}
	memory := divide(int64(f.Memory))
	if err := memory.enough(int64(f.Memory)); err != nil {
		return err
	}
	if text, next := memory.doubt(); text != "" {
		log.Warn("the memory is not as it should be", slog.String("reason", text), slog.String("next", next))
	}
	debug.SetMemoryLimit(memory.total)
	paced := std.Env("GOGC") == "" // else whoever starts the hub knows better
	if paced {
		debug.SetGCPercent(gcMost)
	}
	threads := 0 // whoever starts the hub knows better
	if std.Env("GOMAXPROCS") == "" {
		threads = threadsPerProcessor * runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(threads)
	}
	_, statErr := os.Stat(filepath.Join(f.Data, "tls"))
	outgoing, err := webhookClient(f)
	if err != nil {
		return err
	}
	defer outgoing.Close()
	if err := protocols.Notify(ctx, std.Env("NOTIFY_SOCKET"), "STATUS=opening the store in "+f.Data); err != nil {
		log.Warn("the service manager could not be told", slog.Any("error", err))
	}
	shipped, err := plugins.Bundles()
	if err != nil {
		return err
	}
	scripts, err := scriptWorkers(f, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scripts.Close()) }() // after the hub
	hub, err := engine.Open(ctx, engine.Options{
		Storage: storage.Options{
			Dir: f.Data, Logger: log, Memory: memory.store, Built: b.date, Reserve: int64(f.Reserve), MasterKeyFile: f.MasterKeyFile,
			Threads: threads,
		},
		Hosts: f.Host, Profile: engine.Profile(f.Limits), Logger: log, Version: b.version, Build: thisBinary(), Deliver: deliverBy(outgoing), Backups: backupPlan(f),
		FileNotifications: f.FileNotes, Columns: memory.columns, Fetch: fetchBy(outgoing), Shipped: shipped, Scripts: scripts,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hub.Close()) }()
	options, err := serverOptions(f, std.Env, log)
	if err != nil {
		return err
	}
	options.LogLevel, options.Workers = level, workerStats(scripts)
	options.Inside = func(s *protocols.Server) map[string]http.Handler { return insideHandlers(f, s, tail) }
	server, err := protocols.Listen(ctx, hub, options)
	if err != nil {
		return err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background := make(chan error, 1)
	go func() {
		var pace sync.WaitGroup
		if paced {
			pace.Go(func() { paceCollector(work, hub.Importing) })
		}
		pace.Go(func() { reloadWhen(work, reload, server, f, log) })
		err := hub.Run(work)
		pace.Wait()
		background <- err
	}()

	a := announcement{
		flags: f, version: b.version, fresh: errors.Is(statErr, fs.ErrNotExist), listeners: server.Listeners(),
		link: statusLink(ctx, hub, server.Listeners(), log), ready: time.Since(started),
		fleet: std.Env("MUSTER_BANNER") == "fleet",
	}
	a.caFile, a.caPrint = server.Authority()
	announce(a, std, log)
	if e := engine.AsError(hub.Ready()); e != nil && e.Code == engine.CodeReadOnly {
		log.Warn("reads are served, and changes refused", slog.String("reason", e.Message), slog.String("next", e.NextStep()))
	}

	err = server.Serve(ctx)
	stop()
	return errors.Join(err, <-background)
}

// newLogger sets level from the flags; it can be changed later.
func newLogger(f cli.ServeFlags, level *slog.LevelVar, w io.Writer) (*slog.Logger, error) {
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: %w", f.LogLevel, err)
	}
	o := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

func serverOptions(f cli.ServeFlags, env func(string) string, log *slog.Logger) (protocols.Options, error) {
	o := protocols.Options{
		DataDir: f.Data, Hosts: f.Host, HTTPS: f.HTTPS, MQTTS: f.MQTTS, HTTP: f.HTTP, CertFile: f.Cert, KeyFile: f.Key,
		ACMEHosts: f.ACMEHost, ACMEEmail: f.ACMEEmail, ACMEDirectory: f.ACMEDirectory, DrainTime: f.Drain, Logger: log, Notify: env("NOTIFY_SOCKET"),
	}
	if us, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64); err == nil {
		o.Watchdog = time.Duration(us) * time.Microsecond
	}
	var err error
	o.MetricsToken, err = metricsToken(f)
	return o, err
}

// metricsToken reads the token that /metrics asks for; "" when there is none.
func metricsToken(f cli.ServeFlags) (string, error) {
	if f.MetricsToken == "" {
		return "", nil
	}
	text, err := os.ReadFile(f.MetricsToken)
	if err != nil {
		return "", fmt.Errorf("--metrics-token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("--metrics-token-file %s is empty, expected a token on its first line", f.MetricsToken)
	}
	return token, nil
}

// reloadWhen reads certificate and metrics token again at each signal, until
// ctx ends.
func reloadWhen(ctx context.Context, signals <-chan os.Signal, server *protocols.Server, f cli.ServeFlags, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if err := server.Reload(ctx, func() (string, error) { return metricsToken(f) }); err != nil {
			log.Error("not all of it was reloaded; of that, what was in use stays", slog.Any("error", err))
		} else {
			log.Info("reloaded")
		}
	}
}

// statusLink returns the address of the status page with a token that may read
// what it shows and nothing else; "" when the hub has no web listener, or no
// policy can be made now.
func statusLink(ctx context.Context, hub *engine.Hub, listeners []protocols.Listener, log *slog.Logger) string {
	base := ""
	for _, l := range listeners {
		switch {
		case l.Kind == "http" && !strings.HasPrefix(base, "http:"), l.Kind == "https" && base == "":
			base = l.Kind + "://" + reachable(l.Address, hub.Hosts()[0]) + "/"
		}
	}
	if base == "" {
		return ""
	}
	caller := engine.Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=" + strconv.Itoa(os.Getuid()), Permissions: auth.AllPermissions}, Cause: "start"}
	p, err := hub.Policy(ctx, caller, statusPolicy)
	if e, ok := errors.AsType[*engine.Error](err); ok && e.Code == engine.CodePolicyNotFound {
		p, err = hub.PutPolicy(ctx, caller, auth.SharedAccessPolicy{Name: statusPolicy, Permissions: auth.StatusRead})
	}
	if err != nil {
		log.Warn("no link to the status page", slog.Any("error", err))
		return base
	}
	key, err := p.PrimaryKey.Bytes()
	if err != nil {
		log.Warn("no link to the status page", slog.Any("error", err))
		return base
	}
	token := auth.SignToken(hub.Hosts()[0], key, statusPolicy, time.Now().Add(statusTokenLife))
	return base + "#" + strings.TrimPrefix(token, "SharedAccessSignature ")
}

// reachable is an address that a client on this machine can use: a listener
// on all addresses is reached by the hub's name.
func reachable(address, host string) string {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().IsUnspecified() {
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(int(ap.Port())))
}

// announcement is what the hub says when it is ready.
type announcement struct {
	flags           cli.ServeFlags
	version         string
	fresh           bool // the data directory is new
	listeners       []protocols.Listener
	link            string
	caFile, caPrint string
	ready           time.Duration
	fleet           bool // make run starts the demo beside the hub
}

// announce prints the banner on a terminal, and one log line elsewhere. The
// link's token is never logged. MUSTER_BANNER=1 asks for the banner where there
// is no terminal; `make run` does.
func announce(a announcement, std cli.IO, log *slog.Logger) {
	switch w := bannerWriter(std); {
	case a.flags.Quiet:
	case w != nil:
		_, _ = io.WriteString(w, a.banner()) // a terminal that has gone needs no banner
	default:
		where := []map[string]string{} // as GET /api/v1/hub shows them
		for _, l := range a.listeners {
			where = append(where, map[string]string{"kind": l.Kind, "address": l.Address})
		}
		slog.New(slog.NewJSONHandler(std.Err, nil)).Info("ready", slog.String("version", a.version), slog.String("data", a.flags.Data),
			slog.Any("listeners", where), slog.String("ca", a.caFile), slog.String("ca_sha256", a.caPrint),
			slog.Int64("ready_ms", a.ready.Milliseconds()), slog.Int("pid", os.Getpid()))
	}
	for _, l := range a.listeners {
		if ap, err := netip.ParseAddrPort(l.Address); l.Kind == "http" && err == nil && !ap.Addr().IsLoopback() {
			log.Warn("plain HTTP beyond this machine: keys and data can be read on the way; put a TLS proxy before it", slog.String("address", l.Address))
		}
	}
}

func bannerWriter(std cli.IO) io.Writer {
	for _, w := range []io.Writer{std.Out, std.Err} {
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return w
		}
	}
	if std.Env("MUSTER_BANNER") != "" {
		return std.Out
	}
	return nil
}

func (a announcement) banner() string {
	var b strings.Builder
	state, data := "", ""
	if a.fresh {
		state = " (new)"
	}
	if a.flags.Data != "./muster-data" {
		data = " --data " + a.flags.Data
	}
	fmt.Fprintf(&b, "Muster %s  data %s%s  pid %d\n\n", a.version, a.flags.Data, state, os.Getpid())
	line := func(label, text string) { fmt.Fprintf(&b, "  %-9s %s\n", label, text) }
	if a.link != "" {
		line("Status", a.link)
	}
	host, label, onDefaultPort := a.flags.Host[0], "Devices", false
	for _, l := range a.listeners {
		address := reachable(l.Address, host)
		switch l.Kind {
		case "mqtts":
			line(label, fmt.Sprintf("%-34s MQTT, as to IoT Hub", "mqtts://"+address))
		case "https":
			line(label, fmt.Sprintf("%-34s MQTT over WebSocket", "wss://"+address))
			onDefaultPort = onDefaultPort || strings.HasSuffix(address, ":443")
		default:
			continue
		}
		label = ""
	}
	for _, l := range a.listeners {
		if l.Kind == "https" {
			line("API", fmt.Sprintf("%-34s OpenAPI at /api/v1/openapi.json", "https://"+reachable(l.Address, host)+"/api/v1/"))
			break
		}
	}
	if a.caFile != "" {
		fmt.Fprintf(&b, "\n  The certificate comes from this hub's own CA: %s\n  SHA-256 %s\n", a.caFile, a.caPrint)
	}
	fmt.Fprintf(&b, "\n  An application:  muster connection-string%s\n", data)
	fmt.Fprintf(&b, "  A device:        muster device create ID%s, then: muster device connection-string ID%s\n", data, data)
	if !onDefaultPort {
		b.WriteString("  Azure SDKs know only ports 443 and 8883 and a host name with a dot: docs/tutorials/from-azure.md\n")
	}
	if !a.fleet {
		fmt.Fprintf(&b, "\nTry:  muster demo%s     (in another terminal; 50 simulated devices)\n", data)
	}
	if a.fleet {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "ready in %d ms\n", a.ready.Milliseconds())
	return b.String()
}

// thisBinary tells the file that runs from others that were built from nearly the
// same; "" if that can't be said.
func thisBinary() string {
	name, err := os.Executable()
	if err != nil {
		return ""
	}
	st, err := os.Stat(name)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d bytes of %s", st.Size(), st.ModTime().UTC().Format(time.RFC3339Nano))
}
