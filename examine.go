package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
)

// Findings that need the hub's own process (its limits, memory, settings) are
// made there and asked for through the unix socket; those about the machine
// are made by the command, since a unit's sandbox hides some of it.

// insideHandlers are served below /debug/ on the unix socket.
func insideHandlers(f cli.ServeFlags, s *protocols.Server, log http.Handler) map[string]http.Handler {
	answer := func(v func(ctx context.Context) any) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v(r.Context())) // the caller may have gone
		})
	}
	return map[string]http.Handler{
		"log":      log,
		"config":   answer(func(context.Context) any { return f.Settings() }),
		"findings": answer(func(ctx context.Context) any { return examineHub(ctx, f, s.Listeners(), s.CertificateTroubles()) }),
	}
}

// examineHub looks at the process and its settings. troubles are those of the
// certificates, as the server tells them.
func examineHub(ctx context.Context, f cli.ServeFlags, listeners []protocols.Listener, troubles map[string]string) []cli.Finding {
	list := append([]cli.Finding{checkFiles(), checkUse(f)}, checkSecrets(f)...)
	for _, name := range slices.Sorted(maps.Keys(troubles)) {
		list = append(list, checkTrouble(name, troubles[name]))
	}
	public := publicListeners(listeners)
	for _, h := range f.Host {
		list = append(list, checkName(ctx, h, public))
	}
	if len(f.ACMEHost) > 0 {
		list = append(list, checkProof(f, listeners))
	}
	return append(list, checkPorts(listeners, public))
}

// checkTrouble tells of a certificate that could not be renewed or reloaded.
func checkTrouble(name, why string) cli.Finding {
	switch name {
	case "file":
		return cli.Finding{Check: "certificate", Level: "fail", Text: "The files of --cert and --key can't be used, and the former certificate stays in use: " + why + ".",
			Next: "Correct the files: the hub takes them up by itself. `muster check-config` tells whether they are well."}
	case "own":
		return cli.Finding{Check: "certificate", Level: "fail", Text: "The hub can't renew its own certificates: " + why + ".",
			Next: "See that the hub's user may write to tls in the data directory; it is tried again every hour."}
	}
	return cli.Finding{Check: "certificate", Level: "warn", Text: "ACME gave no certificate for " + name + ": " + why + ".",
		Next: "See that port 443 of " + name + " reaches this hub from the Internet; it is tried again by itself."}
}

// checkProof tells whether an authority that signs by ACME finds the hub where it looks, as far as
// that shows here: what lies before the hub may pass on any port. A proof by http-01 on port 80 is as
// good, and the hub tries it when it listens there.
func checkProof(f cli.ServeFlags, listeners []protocols.Listener) cli.Finding {
	names := strings.Join(f.ACMEHost, ", ")
	var all []string
	for _, l := range listeners {
		host, port, err := net.SplitHostPort(l.Address)
		if err != nil {
			continue
		}
		here := host == "localhost" || net.ParseIP(host).IsLoopback()
		if !here && (l.Kind == "https" && port == "443" || l.Kind == "http" && port == "80") {
			return cli.Finding{Check: "acme", Level: "ok", Text: "The authority finds " + names + " at " + l.Kind + " " + l.Address + ", if that is where the name leads."}
		}
		if l.Kind == "https" {
			all = append(all, l.Address)
		}
	}
	return cli.Finding{Check: "acme", Level: "warn", Text: "The authority connects to port 443 of " + names + " and to no other, and the hub listens for HTTPS on " + strings.Join(all, ", ") + " only.",
		Next: "Listen there with --https :443, or forward port 443 to the hub as it is, without ending TLS; nothing is to do where that is done already."}
}

// checkSecrets looks at the keys that a hub with these settings makes and uses.
// The key of --cert is whoever's it is: often one for several services.
func checkSecrets(f cli.ServeFlags) (list []cli.Finding) {
	const missing = "Restore it from your copy of it, before the hub is started again."
	if f.MasterKeyFile != "" {
		list = append(list, checkSecret(f.MasterKeyFile, 0o007, missing)) // a credential of systemd shows rights of the group
	} else {
		list = append(list, checkSecret(filepath.Join(f.Data, "master.key"), 0o077, missing))
	}
	if f.Cert == "" {
		list = append(list, checkSecret(filepath.Join(f.Data, "tls", "ca.key"), 0o077, missing))
	}
	return list
}

// checkUse compares the memory that the hub has with what it may have.
func checkUse(f cli.ServeFlags) cli.Finding {
	limit, most := debug.SetMemoryLimit(-1), availableMemory("/")
	found := checkMemory(f)
	text, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return found
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return found
	}
	used := pages * int64(os.Getpagesize())
	found.Text = fmt.Sprintf("%d MiB are used, of %d MiB for the hub and %d MiB of the machine or cgroup.", used/mib, limit/mib, most/mib)
	if found.Level == "ok" && used > limit-limit/10 {
		found.Level, found.Next = "warn", "Give the hub more with --memory, or a machine with more; near the limit the collector of garbage takes processor time from devices."
	}
	return found
}

// publicListeners are those that other machines reach.
func publicListeners(listeners []protocols.Listener) (list []protocols.Listener) {
	for _, l := range listeners {
		if ap, err := netip.ParseAddrPort(l.Address); err == nil && !ap.Addr().IsLoopback() {
			list = append(list, l)
		}
	}
	return list
}

// checkName looks at a name of the hub as clients do.
func checkName(ctx context.Context, host string, public []protocols.Listener) cli.Finding {
	if len(public) == 0 {
		return cli.Finding{Check: "host", Level: "ok", Text: host + " is for this machine only, as the listeners are."}
	}
	if net.ParseIP(host) == nil && !strings.Contains(host, ".") {
		return cli.Finding{Check: "host", Level: "warn", Text: host + " has no dot, and some of Microsoft's SDKs refuse such a name.", Next: "Give the hub a full name with --host, before devices learn the short one."}
	}
	return checkHost(ctx, host)
}

// checkPorts tells whether Microsoft's SDKs find the hub.
func checkPorts(listeners, public []protocols.Listener) cli.Finding {
	has := map[string]bool{}
	var all []string
	for _, l := range listeners {
		_, port, err := net.SplitHostPort(l.Address)
		if err == nil {
			has[l.Kind+" "+port] = true
		}
		all = append(all, l.Kind+" "+l.Address)
	}
	found := cli.Finding{Check: "ports", Level: "ok", Text: "The hub listens on " + strings.Join(all, ", ") + "."}
	if len(public) > 0 && (!has["https 443"] || !has["mqtts 8883"]) {
		found.Level = "warn"
		found.Next = "Microsoft's SDKs know only 443 and 8883: --https :443 --mqtts :8883, unless a proxy or a container's port mapping does that."
	}
	return found
}

// examineMachine looks at what is under and around the data directory, whether
// the hub runs or not.
func examineMachine(_ context.Context, f cli.StoreFlags, _ cli.IO) ([]cli.Finding, error) {
	return []cli.Finding{checkFileSystem(f.Data), checkClock(), checkTimeSync()}, nil
}

// fileSystems are those whose behavior at a power cut is known, and what others
// are called that people use.
func fileSystems() map[int64]string {
	return map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.NFS_SUPER_MAGIC: "nfs", unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.FUSE_SUPER_MAGIC: "fuse",
		0xFF534D42: "cifs", 0xFE534D42: "smb2", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2FC12FC1: "zfs", unix.MSDOS_SUPER_MAGIC: "vfat",
	}
}

func checkFileSystem(dir string) cli.Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return cli.Finding{Check: "file system", Level: "fail", Text: err.Error(), Next: "Check the directory's name and rights."}
	}
	name := fileSystems()[int64(st.Type)]
	if name == "" {
		name = fmt.Sprintf("of type 0x%x", st.Type)
	}
	found := cli.Finding{Check: "file system", Level: "ok", Text: fmt.Sprintf("%s is on %s, of %d MiB.", dir, name, int64(st.Blocks)*int64(st.Bsize)/mib)}
	switch name {
	case "ext4", "xfs", "btrfs":
	case "tmpfs":
		found.Level, found.Next = "warn", "All data is gone when the machine restarts: use a directory on a disk."
	case "overlayfs":
		found.Level, found.Next = "warn", "All data is gone when the container is removed: put a volume on an ext4, xfs or btrfs disk there."
	default:
		found.Level, found.Next = "warn", "What a power cut does there is not known: use ext4, xfs or btrfs, and no network file system."
	}
	return found
}

// checkTimeSync asks the kernel whether something keeps the clock right.
func checkTimeSync() cli.Finding {
	found := cli.Finding{Check: "time", Level: "ok", Text: "The clock is kept by a time service."}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case errors.Is(err, unix.EPERM):
		found.Text = "Whether a time service keeps the clock can't be asked here."
	case err != nil:
		found.Level, found.Text = "warn", "Whether a time service keeps the clock is not known: "+err.Error()
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		found.Level = "warn"
		found.Text = fmt.Sprintf("No time service keeps the clock (it says %s).", time.Now().UTC().Format(time.RFC3339))
		found.Next = "Run systemd-timesyncd, chrony or ntpd: tokens and certificates depend on the time. In a container its host does that."
	}
	return found
}
