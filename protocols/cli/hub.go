package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

// WhichHub says which hub a command talks to.
type WhichHub struct {
	Data string `help:"Data directory of a hub on this machine; its unix socket is used." default:"./muster-data" placeholder:"DIR" group:"Which hub"`
	RemoteHub
}

// RemoteHub names a hub that is reached over HTTPS.
type RemoteHub struct {
	Hub  string `help:"Where a policy's connection string is: a FILE, or env:NAME. The environment variable MUSTER_HUB may also hold the string itself." placeholder:"FILE" group:"Which hub"`
	CA   string `name:"ca" help:"CA certificate of the hub (PEM), with --hub." placeholder:"FILE" group:"Which hub"`
	Port port   `help:"HTTPS port of the hub, with --hub." default:"443" placeholder:"PORT" group:"Which hub"`
}

// port is a TCP port to connect to.
type port int

// UnmarshalText checks the text, so that a typing error is told as one of usage, and not as a hub that
// cannot be reached.
func (p *port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a port, expected a number from 1 to 65535", text)
	}
	*p = port(n)
	return nil
}

// HubFlags are WhichHub and how long to wait for it.
type HubFlags struct {
	WhichHub
	Timeout time.Duration `help:"How long to wait for an answer; 0 waits forever." default:"60s" group:"Which hub"`
}

const socketName = "muster.sock"

// service makes the client that the flags ask for. What was said more
// explicitly wins: --hub and --data on the command line before the environment
// and the config file; of one rank, --hub.
func (a *app) service(h HubFlags) (*client.Service, error) {
	dataByFlag := a.settings.origin["data"] == "flag"
	hubByFlag := a.settings.origin["hub"] == "flag"
	if dataByFlag && hubByFlag {
		return nil, usage("--data and --hub name two hubs", "Give one of them.")
	}
	if h.Hub == "" || dataByFlag {
		return client.NewService(client.ServiceOptions{Socket: filepath.Join(h.Data, socketName), UserAgent: a.userAgent(), Held: a.held()})
	}
	text, err := a.hubText(h.Hub)
	if err != nil {
		return nil, err
	}
	c, err := auth.ParseConnectionString(text)
	if err != nil {
		return nil, usage("the connection string of --hub is not valid: "+err.Error(), "`muster connection-string` on the hub's machine prints one.")
	}
	if c.DeviceID != "" {
		return nil, usage("the connection string of --hub is a device's", "Use a policy's; `muster connection-string` on the hub's machine prints one.")
	}
	pool, err := loadCA(h.CA)
	if err != nil {
		return nil, err
	}
	return client.NewService(client.ServiceOptions{ConnectionString: c, Port: int(h.Port), RootCAs: pool, UserAgent: a.userAgent(), Held: a.held()})
}

// held tells once that the hub holds back what the command gave it.
func (a *app) held() func(why string) {
	var once sync.Once
	return func(why string) { once.Do(func() { a.note("Note: %s.", printable(why)) }) }
}

// connect is service with the context that bounds the command's calls; the
// caller ends it.
func (a *app) connect(h HubFlags) (*client.Service, context.Context, context.CancelFunc, error) {
	s, err := a.service(h)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, stop := a.with(h)
	return s, ctx, stop, nil
}

// connectConfirmed is connect after a question: --timeout bounds the calls, not
// the time that a person takes to answer.
func (a *app) connectConfirmed(h HubFlags, yes bool, question string) (*client.Service, context.Context, context.CancelFunc, error) {
	s, err := a.service(h)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := a.confirm(yes, question); err != nil {
		return nil, nil, nil, err
	}
	ctx, stop := a.with(h)
	return s, ctx, stop, nil
}

func (a *app) userAgent() string { return "muster-cli/" + a.version() }

// with bounds a command's calls by --timeout.
func (a *app) with(h HubFlags) (context.Context, context.CancelFunc) {
	if h.Timeout <= 0 {
		return context.WithCancel(a.ctx)
	}
	return context.WithTimeout(a.ctx, h.Timeout)
}

// hubText finds the connection string that --hub points to. Arguments are
// visible to every user of a machine, so the string itself is refused there.
func (a *app) hubText(where string) (string, error) {
	origin := a.settings.origin["hub"]
	if strings.Contains(strings.ToLower(where), "sharedaccesskey=") {
		if strings.HasPrefix(origin, "environment ") {
			return where, nil
		}
		return "", usage("--hub holds a connection string in clear, which other users and the shell's history can see",
			"Put it into a file that only you can read and give --hub FILE, or into the environment variable MUSTER_HUB.")
	}
	if name, ok := strings.CutPrefix(where, "env:"); ok {
		text := a.io.Env(name)
		if text == "" {
			return "", usage("the environment variable "+name+" of --hub is not set", "Set it to a connection string.")
		}
		return text, nil
	}
	f, err := os.Open(where)
	if err != nil {
		return "", &problem{exit: ExitUsage, what: "the file of --hub cannot be read", why: pathError(err), next: "`muster connection-string > FILE` on the hub's machine makes one."}
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, 8<<10))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", where, err)
	}
	return string(bytes.TrimSpace(text)), nil
}

// loadCA reads PEM certificates; no name means the system's pool.
func loadCA(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	return addCA(x509.NewCertPool(), name)
}

func addCA(pool *x509.CertPool, name string) (*x509.CertPool, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, &problem{exit: ExitUsage, what: "the CA file cannot be read", why: pathError(err), next: "A hub with its own CA keeps it in DATA/tls/ca.pem."}
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, usage(name+" holds no PEM certificate", "A hub with its own CA keeps it in DATA/tls/ca.pem.")
	}
	return pool, nil
}

// localCA is who vouches for a hub on this machine: the CA that it has made
// besides those of the system, since what it made once stays there when it is
// given a certificate from elsewhere, and serves beside one by ACME.
func localCA(h HubFlags) (*x509.CertPool, error) {
	if h.CA != "" {
		return loadCA(h.CA)
	}
	name := filepath.Join(h.Data, "tls", "ca.pem")
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return addCA(systemCAs(), name)
}

// systemCAs are the authorities that the machine trusts, as a pool of the caller's own.
func systemCAs() *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	return pool
}

func pathError(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Path + ": " + e.Err.Error()
	}
	return err.Error()
}

// splitID takes DEVICE or DEVICE/MODULE apart; ids never hold a slash.
func splitID(id string) (device, module string, err error) {
	device, module, both := strings.Cut(id, "/")
	if device == "" || both && module == "" || strings.Contains(module, "/") {
		return "", "", usage(fmt.Sprintf("%q is not an id, expected DEVICE or DEVICE/MODULE", id), "`muster device list` shows the devices.")
	}
	return device, module, nil
}

// openInput opens the file that -f names; "-" is standard input.
func (a *app) openInput(name string) (io.ReadCloser, string, error) {
	if name == "-" {
		return io.NopCloser(a.io.In), "standard input", nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, name, &problem{exit: ExitUsage, what: "the input file cannot be read", why: pathError(err), next: "Check the name; -f - reads standard input."}
	}
	return f, name, nil
}
