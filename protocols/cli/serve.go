// Package cli is the command line: a tree of commands (noun verb) that are
// clients of a running hub, and the few that main supplies as Hooks because
// they are the hub itself or work on its data directory.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ServeFlags are the settings of a hub, as `muster serve` takes them from
// flags, environment and config file. The zero value is not useful: the
// parser fills the defaults.
type ServeFlags struct {
	Data             string         `help:"Data directory; made when it is absent." default:"./muster-data" placeholder:"DIR" group:"Store"`
	Memory           Bytes          `help:"Memory the hub may use, such as 2GiB; 0 takes 70 % of the machine's or the cgroup's." default:"0" placeholder:"SIZE" group:"Store"`
	Reserve          Bytes          `help:"Free disk space below which changes are refused; 0 computes it." default:"0" placeholder:"SIZE" group:"Store"`
	MasterKeyFile    string         `help:"File with the key that seals secrets; default DATA/master.key, made at first start." placeholder:"FILE" group:"Store"`
	Host             []string       `help:"Name of the hub, repeatable: the first is printed, all are in the certificate and accepted in tokens." default:"localhost" sep:"none" placeholder:"NAME" group:"Network"`
	HTTPS            []string       `name:"https" help:"Address for REST, status page and WebSocket, repeatable." default:"127.0.0.1:8443" sep:"none" placeholder:"ADDR" group:"Network"`
	MQTTS            []string       `name:"mqtts" help:"Address for MQTT over TLS, repeatable." default:"127.0.0.1:8883" sep:"none" placeholder:"ADDR" group:"Network"`
	HTTP             []string       `name:"http" help:"Plain HTTP address for loopback or behind a proxy, repeatable; none by default." sep:"none" placeholder:"ADDR" group:"Network"`
	Cert             string         `help:"Certificate chain file (PEM); reloaded on change." placeholder:"FILE" group:"TLS"`
	Key              string         `help:"Private key file (PEM) for --cert." placeholder:"FILE" group:"TLS"`
	ACMEEmail        string         `name:"acme-email" help:"Contact for an ACME account." placeholder:"EMAIL" group:"TLS"`
	ACMEDirectory    string         `name:"acme-directory" help:"Directory of another ACME authority than Let's Encrypt." placeholder:"URL" group:"TLS"`
	ACMEHost         []string       `name:"acme-host" help:"Name to get a certificate for by ACME, repeatable; needs an --https address that the Internet reaches on 443." sep:"none" placeholder:"NAME" group:"TLS"`
	WebhookAllow     []string       `help:"Address, prefix or host name that webhooks and patterns may reach although it is private, repeatable." sep:"none" placeholder:"PREFIX" group:"Network"`
	WebhookCA        string         `name:"webhook-ca" help:"File with CA certificates (PEM) that webhooks and patterns trust besides the system's." placeholder:"FILE" group:"Network"`
	BackupDir        string         `help:"Directory for backups that the hub makes by itself, best on another disk; none by default." placeholder:"DIR" group:"Backup"`
	BackupEvery      *time.Duration `help:"How long after a backup the next one begins; 24h when absent." placeholder:"DURATION" group:"Backup"`
	BackupAt         string         `help:"Instead make them daily at this time of day, such as 03:30, in the machine's zone." placeholder:"HH:MM" group:"Backup"`
	BackupKeep       *int           `help:"How many backups stay; older ones go once a newer one was read back; 7 when absent." placeholder:"N" group:"Backup"`
	BackupPassphrase string         `name:"backup-passphrase-file" help:"Include the master key in them, encrypted with the passphrase in this file." placeholder:"FILE" group:"Backup"`
	FileNotes        bool           `name:"file-notifications" help:"Keep a notification for applications of each file that a device uploads." group:"Operation"`
	Workers          int            `help:"Processes that run patterns, 1 to 64; 0 takes two, or one on a machine with one processor. Each may take 64 MiB." default:"0" placeholder:"N" group:"Operation"`
	Limits           string         `help:"Limits profile: default, or azure for IoT Hub's quotas." enum:"default,azure" default:"default" group:"Operation"`
	Drain            time.Duration  `help:"How long sessions get to leave at shutdown." default:"10s" group:"Operation"`
	MetricsToken     string         `name:"metrics-token-file" help:"File with the bearer token that /metrics asks of callers beyond loopback." placeholder:"FILE" group:"Operation"`
	LogLevel         string         `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info" group:"Operation"`
	LogFormat        string         `help:"Log format: text or json. Without a terminal the line that says ready is JSON in either." enum:"text,json" default:"text" group:"Operation"`
	Quiet            bool           `help:"Print no banner." group:"Operation"`
}

const workersMost = 64 // processes that run patterns

// Validate checks what the parser cannot see field by field.
func (f *ServeFlags) Validate() error {
	if f.Data == "" {
		return fmt.Errorf("--data is empty, expected a directory")
	}
	if len(f.Host) == 0 {
		return fmt.Errorf("--host is missing, expected at least one name")
	}
	for _, h := range f.Host {
		if h == "" || strings.ContainsAny(h, " /:;") && net.ParseIP(h) == nil {
			return fmt.Errorf("--host %q is not a host name; expected a name such as hub.example.net, without port or path", h)
		}
	}
	if len(f.HTTPS)+len(f.MQTTS)+len(f.HTTP) == 0 {
		return fmt.Errorf("no listener is configured, expected at least one of --https, --mqtts and --http")
	}
	for _, l := range []struct {
		flag string
		list []string
	}{{"--https", f.HTTPS}, {"--mqtts", f.MQTTS}, {"--http", f.HTTP}} {
		for _, a := range l.list {
			if err := checkAddress(a); err != nil {
				return fmt.Errorf("%s %q: %w", l.flag, a, err)
			}
		}
	}
	if f.Workers < 0 || f.Workers > workersMost {
		return fmt.Errorf("--workers is %d, expected 0 to %d", f.Workers, workersMost)
	}
	if f.Drain < 0 {
		return fmt.Errorf("--drain is %s, expected 0 or more", f.Drain)
	}
	if f.BackupDir == "" && (f.BackupEvery != nil || f.BackupAt != "" || f.BackupKeep != nil || f.BackupPassphrase != "") {
		return fmt.Errorf("backups are described but have no directory; expected --backup-dir")
	}
	// Absent is the default; a 0 that is written is meant, and nothing that the hub does fits it.
	if f.BackupEvery != nil && *f.BackupEvery <= 0 {
		return fmt.Errorf("--backup-every is %s, expected how long after a backup the next one begins, such as 24h; without --backup-dir none is made", *f.BackupEvery)
	}
	if f.BackupKeep != nil && *f.BackupKeep <= 0 {
		return fmt.Errorf("--backup-keep is %d, expected how many backups stay, 1 or more", *f.BackupKeep)
	}
	if f.BackupAt != "" {
		if _, err := time.Parse("15:04", f.BackupAt); err != nil {
			return fmt.Errorf("--backup-at %q is no time of day, expected HH:MM such as 03:30", f.BackupAt)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return fmt.Errorf("--cert and --key belong together, expected both or neither")
	}
	return f.validateACME()
}

// validateACME refuses what no authority could ever sign for this hub: it would
// ask again and again, and nobody may look at its log.
func (f *ServeFlags) validateACME() error {
	if len(f.ACMEHost) == 0 {
		if f.ACMEEmail != "" || f.ACMEDirectory != "" {
			return fmt.Errorf("--acme-email and --acme-directory do nothing alone; expected --acme-host too")
		}
		return nil
	}
	if f.Cert != "" {
		return fmt.Errorf("--cert and --acme-host exclude each other, expected one of them")
	}
	if len(f.HTTPS) == 0 {
		return fmt.Errorf("--acme-host without a listener to prove the name with; expected --https")
	}
	for _, h := range f.ACMEHost {
		if name := strings.Trim(h, "."); !strings.Contains(name, ".") || strings.ContainsAny(h, "*/:@ ") || net.ParseIP(h) != nil {
			return fmt.Errorf("--acme-host %q can't have a certificate by ACME; expected a name with a dot, such as hub.example.net, and no wildcard or address", h)
		}
	}
	if f.ACMEDirectory != "" {
		if u, err := url.Parse(f.ACMEDirectory); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("--acme-directory is no address of a directory; expected one such as https://ca.example.net/acme/directory")
		}
	}
	return nil
}

func checkAddress(a string) error {
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("not an address, expected HOST:PORT such as 127.0.0.1:8443 or :443")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

// IO is where a command reads and writes. Out is for results, Err for what a
// person reads beside them.
type IO struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	Env func(string) string
}

// Hooks are the parts of the program that are no client of a running hub;
// main supplies them. A nil hook makes its command answer that this build
// does not hold it.
type Hooks struct {
	// Version is the binary's version, shown by `muster version`.
	Version string
	// Serve runs a hub until ctx ends and drains it. It prints its own
	// banner to io.Err, or to io.Out when that is a terminal.
	Serve func(ctx context.Context, f ServeFlags, io IO) error
	// Verify reads a whole data directory, offline, and reports.
	Verify func(ctx context.Context, f StoreFlags, io IO) (Report, error)
	// AckSource opens a data directory whose hub does not run, for verify
	// --acks. The caller calls end when it is done with it.
	AckSource func(ctx context.Context, f StoreFlags, io IO) (src AckSource, end func() error, err error)
	// Repair mends a data directory, offline, and says what was lost.
	Repair func(ctx context.Context, f StoreFlags, io IO) (Report, error)
	// Backup makes, reads and restores backups.
	Backup BackupHooks
	// Upgrade looks at a data directory with the eyes of this program, and changes nothing.
	Upgrade func(f UpgradeFlags) ([]Finding, error)
	// CheckConfig checks what needs more than the flags: files exist, keys
	// match, names resolve. It opens no listener and no store.
	CheckConfig func(ctx context.Context, f ServeFlags, io IO) ([]Finding, error)
	// DoctorOffline looks at a data directory without a running hub.
	DoctorOffline func(ctx context.Context, f StoreFlags, io IO) ([]Finding, error)
	// DoctorMachine looks at what is under and around the data directory of a
	// hub on this machine, whether it runs or not.
	DoctorMachine func(ctx context.Context, f StoreFlags, io IO) ([]Finding, error)
	// Author has what whoever writes patterns needs; none of it needs a hub.
	Author AuthorHooks
	// ExitCode gives an error of a hook its exit code; ok false leaves it to
	// the command line.
	ExitCode func(err error) (code int, next string, ok bool)
}

// StoreFlags name a data directory for commands that work on it offline.
type StoreFlags struct {
	Data          string `help:"Data directory." default:"./muster-data" placeholder:"DIR"`
	MasterKeyFile string `help:"File with the key that seals secrets; default DATA/master.key." placeholder:"FILE"`
	Memory        Bytes  `help:"Memory for the work, such as 512MiB; 0 takes the store's default." default:"0" placeholder:"SIZE"`
}

// Report is what Verify and Repair found, in the order of the work.
type Report struct {
	OK       bool          `json:"ok"`
	Findings []Finding     `json:"findings"`
	Took     time.Duration `json:"-"`
}

// Finding is one result of a check.
type Finding struct {
	Check string `json:"check"`
	Level string `json:"level"` // "ok", "warn", "fail"
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"`
}

// Bytes is a size in bytes; text forms are 123, 64KiB, 512MiB, 2GiB, 1TiB,
// and K, M, G, T for the same powers of 1024.
type Bytes int64

// UnmarshalText parses a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	digits := strings.TrimRight(s, "KkMmGgTtIiBb ")
	unit := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	shift, ok := sizeShift(unit)
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if !ok || err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a size, expected a whole number with an optional unit such as 512MiB or 2GiB", s)
	}
	*b = Bytes(n << shift)
	return nil
}

func sizeShift(unit string) (uint, bool) {
	switch unit {
	case "", "b":
		return 0, true
	case "k", "kb", "kib":
		return 10, true
	case "m", "mb", "mib":
		return 20, true
	case "g", "gb", "gib":
		return 30, true
	case "t", "tb", "tib":
		return 40, true
	}
	return 0, false
}

// MarshalText writes the size in its largest whole unit.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalJSON writes the plain number.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(int64(b)) }

// String returns the size in its largest whole unit.
func (b Bytes) String() string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if b > 0 && b%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(b>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
