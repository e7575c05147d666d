package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/scripting/author"
	"github.com/muster-hub/muster/storage"
)

func storeOptions(f cli.StoreFlags) storage.Options {
	return storage.Options{Dir: f.Data, Memory: int64(f.Memory), MasterKeyFile: f.MasterKeyFile, Built: readBuild().date}
}

// existing refuses a directory without a store: verify and repair must not
// make an empty one and call it sound.
func existing(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s is empty: %w", dir, fs.ErrNotExist)
	}
	return nil
}

func verify(ctx context.Context, f cli.StoreFlags, _ cli.IO) (cli.Report, error) {
	return offline(ctx, f, storage.Verify)
}

func repair(ctx context.Context, f cli.StoreFlags, _ cli.IO) (cli.Report, error) {
	return offline(ctx, f, storage.Repair)
}

// offline runs Verify or Repair and reports it for people. Damage is a result,
// not an error.
func offline(ctx context.Context, f cli.StoreFlags, work func(context.Context, storage.Options) (storage.Report, error)) (cli.Report, error) {
	began := time.Now()
	if err := existing(f.Data); err != nil {
		return cli.Report{}, err
	}
	r, err := work(ctx, storeOptions(f))
	err = errors.Join(err, giveBack(f.Data))
	// A key that lies elsewhere is no damage: the next step for that gives up all that it has sealed.
	if err != nil && (!errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrMasterKey)) {
		return cli.Report{}, err
	}
	out := cli.Report{OK: err == nil && len(r.Problems) == 0}
	for _, p := range r.Problems {
		out.Findings = append(out.Findings, cli.Finding{Check: "damage", Level: "fail", Text: p, Next: "Copy the data directory, then run `muster repair`; or restore a backup."})
	}
	if err != nil && len(r.Problems) == 0 {
		out.Findings = append(out.Findings, cli.Finding{Check: "damage", Level: "fail", Text: err.Error()})
	}
	for _, a := range r.Actions {
		out.Findings = append(out.Findings, cli.Finding{Check: "repair", Level: "warn", Text: a})
	}
	level := "ok"
	if !out.OK {
		level = "warn"
	}
	out.Findings = append(out.Findings, cli.Finding{Check: "read", Level: level,
		Text: fmt.Sprintf("%d records, %d index entries and %d log entries (%d bytes), up to change %d; format %s", r.Records, r.Indexes, r.Logs, r.Bytes, r.Sequence, r.Rung)})
	out.Took = time.Since(began)
	return out, nil
}

// checkConfig looks at what the flags alone don't show.
func checkConfig(ctx context.Context, f cli.ServeFlags, _ cli.IO) ([]cli.Finding, error) {
	list := []cli.Finding{checkMemory(f), checkData(f.Data)}
	if f.Cert != "" {
		list = append(list, checkCertificate(f))
	}
	for _, h := range f.ACMEHost {
		if !slices.ContainsFunc(f.Host, func(name string) bool { return strings.EqualFold(name, h) }) {
			list = append(list, cli.Finding{Check: "acme", Level: "warn", Text: h + " is to get a certificate, and is no --host.", Next: "Give it with --host too: tokens for other names are refused."})
		}
	}
	if len(f.ACMEHost) > 0 {
		list = append(list, checkProof(f, wanted(f)))
	}
	if f.MetricsToken != "" {
		list = append(list, checkMetricsToken(f))
	}
	if len(f.WebhookAllow) > 0 || f.WebhookCA != "" {
		list = append(list, checkOutgoing(f))
	}
	if f.MasterKeyFile != "" {
		list = append(list, checkMasterKey(f))
	}
	if err := backupPlan(f).Check(); err != nil {
		list = append(list, cli.Finding{Check: "backups", Level: "fail", Text: engine.AsError(err).Message + ".", Next: "Correct --backup-at, --backup-every or --backup-keep."})
	}
	if f.BackupDir != "" {
		list = append(list, checkBackupDir(f)...)
	}
	for _, h := range f.Host {
		list = append(list, checkHost(ctx, h))
	}
	return list, nil
}

// wanted are the listeners that a hub with these settings will open.
func wanted(f cli.ServeFlags) (list []protocols.Listener) {
	for _, a := range f.HTTPS {
		list = append(list, protocols.Listener{Kind: "https", Address: a})
	}
	for _, a := range f.HTTP {
		list = append(list, protocols.Listener{Kind: "http", Address: a})
	}
	return list
}

func checkMemory(f cli.ServeFlags) cli.Finding {
	m := divide(int64(f.Memory))
	found := cli.Finding{Check: "memory", Level: "ok", Text: fmt.Sprintf("%d MiB for the hub, %d MiB of that for the store and %d MiB for the columns of queries.", m.total/mib, m.store/mib, m.columns/mib)}
	if e := engine.AsError(m.enough(int64(f.Memory))); e != nil {
		return cli.Finding{Check: "memory", Level: "fail", Text: e.Message, Next: e.NextStep()}
	}
	if text, next := m.doubt(); text != "" {
		found.Level, found.Next = "warn", next
	}
	return found
}

// checkData tells whether a hub could use the directory, without making it.
func checkData(dir string) cli.Finding {
	found := cli.Finding{Check: "data", Level: "ok", Text: dir + " is there and can be written."}
	at := dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		found.Text = dir + " will be made at the first start."
		if at, err = filepath.Abs(dir); err != nil {
			return cli.Finding{Check: "data", Level: "fail", Text: err.Error()}
		}
		for {
			at = filepath.Dir(at)
			if _, err := os.Stat(at); err == nil || at == "/" {
				break
			}
		}
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return cli.Finding{Check: "data", Level: "fail", Text: fmt.Sprintf("%s can't be written: %v", at, err), Next: "Give a directory that the hub's user owns with --data."}
	}
	return found
}

func checkCertificate(f cli.ServeFlags) cli.Finding {
	pair, err := protocols.CheckCertificate(f.Cert, f.Key)
	if err != nil {
		return cli.Finding{Check: "certificate", Level: "fail", Text: err.Error()}
	}
	found := cli.Finding{Check: "certificate", Level: "ok", Text: fmt.Sprintf("%s is valid until %s.", f.Cert, pair.Leaf.NotAfter.UTC().Format(time.DateOnly))}
	for _, h := range f.Host {
		if err := pair.Leaf.VerifyHostname(h); err != nil {
			found.Level, found.Next = "warn", fmt.Sprintf("It does not hold the host %s: clients that use that name will refuse it.", h)
		}
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		found.Level, found.Text, found.Next = "fail", f.Cert+" has ended.", "Renew it."
	}
	return found
}

// checkMetricsToken does as the start of a hub does.
func checkMetricsToken(f cli.ServeFlags) cli.Finding {
	if _, err := metricsToken(f); err != nil {
		return cli.Finding{Check: "metrics token", Level: "fail", Text: err.Error(), Next: "Check the file's name, rights and content."}
	}
	return cli.Finding{Check: "metrics token", Level: "ok", Text: f.MetricsToken + " can be read."}
}

// checkOutgoing does as the start of a hub does.
func checkOutgoing(f cli.ServeFlags) cli.Finding {
	c, err := webhookClient(f)
	if err != nil {
		return cli.Finding{Check: "webhooks", Level: "fail", Text: err.Error(), Next: "Correct it: a hub does not start with it."}
	}
	c.Close()
	return cli.Finding{Check: "webhooks", Level: "ok", Text: "What webhooks may reach and trust is well."}
}

// checkMasterKey tells of the key that a first start would make, too.
func checkMasterKey(f cli.ServeFlags) cli.Finding {
	if _, err := os.Stat(f.MasterKeyFile); errors.Is(err, fs.ErrNotExist) && existing(f.Data) != nil {
		return cli.Finding{Check: "master key", Level: "ok", Text: f.MasterKeyFile + " will be made at the first start."}
	}
	return checkReadable("master key", f.MasterKeyFile)
}

func checkReadable(what, file string) cli.Finding {
	if err := unix.Access(file, unix.R_OK); err != nil {
		return cli.Finding{Check: what, Level: "fail", Text: fmt.Sprintf("%s can't be read: %v", file, err), Next: "Check the file's name and rights."}
	}
	return cli.Finding{Check: what, Level: "ok", Text: file + " can be read."}
}

func checkHost(ctx context.Context, host string) cli.Finding {
	ctx, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		return cli.Finding{Check: "host", Level: "warn", Text: fmt.Sprintf("%s does not resolve on this machine: %v", host, err), Next: "Add it to DNS or to the clients' hosts file."}
	}
	return cli.Finding{Check: "host", Level: "ok", Text: host + " resolves on this machine."}
}

// doctorOffline looks at a data directory whose hub does not run.
func doctorOffline(_ context.Context, f cli.StoreFlags, _ cli.IO) ([]cli.Finding, error) {
	if err := existing(f.Data); err != nil {
		return []cli.Finding{{Check: "data", Level: "fail", Text: f.Data + " holds no hub: " + err.Error(), Next: "`muster serve` makes one there; --data names another directory."}}, nil
	}
	list := []cli.Finding{
		{Check: "hub", Level: "warn", Text: "No hub answers at " + filepath.Join(f.Data, "muster.sock") + ".", Next: "Start it with `muster serve`; what follows was seen without it."},
		checkData(f.Data), checkSpace(f.Data), checkFiles(),
	}
	for _, name := range []string{"master.key", filepath.Join("tls", "ca.key")} {
		list = append(list, checkSecret(filepath.Join(f.Data, name), 0o077, "With --master-key-file or --cert this is right; else restore it from your copy of it."))
	}
	return list, nil
}

func checkSpace(dir string) cli.Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return cli.Finding{Check: "disk", Level: "fail", Text: err.Error()}
	}
	free := int64(st.Bavail) * st.Bsize
	found := cli.Finding{Check: "disk", Level: "ok", Text: fmt.Sprintf("%d MiB are free.", free/mib)}
	if free < 1024*mib {
		found.Level, found.Next = "warn", "Free some space: near the end of the disk the hub takes no writes."
	}
	return found
}

func checkFiles() cli.Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return cli.Finding{Check: "open files", Level: "fail", Text: err.Error()}
	}
	found := cli.Finding{Check: "open files", Level: "ok", Text: fmt.Sprintf("%d files or connections may be open.", limit.Max)}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		found.Text = fmt.Sprintf("%d files or connections may be open, %d are open.", limit.Max, len(open))
	}
	if limit.Max < 65536 {
		found.Level, found.Next = "warn", "Each device needs one: raise the limit (ulimit -n, or LimitNOFILE= in the systemd unit)."
	}
	return found
}

func checkClock() cli.Finding {
	if built := readBuild().date; time.Now().Before(built) {
		return cli.Finding{Check: "clock", Level: "fail", Text: "The clock says " + time.Now().UTC().Format(time.RFC3339) + ", which is before this program was made.", Next: "Set the clock; tokens and certificates depend on it."}
	}
	return cli.Finding{Check: "clock", Level: "ok", Text: "The clock says " + time.Now().UTC().Format(time.RFC3339) + "."}
}

// checkSecret looks at the rights of a key file: nobody may have those of
// others. missing is what to do when there is no such file.
func checkSecret(file string, others fs.FileMode, missing string) cli.Finding {
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cli.Finding{Check: "secrets", Level: "warn", Text: file + " is not there.", Next: missing}
	case err != nil:
		return cli.Finding{Check: "secrets", Level: "fail", Text: err.Error(), Next: "Check the rights of the directory."}
	case st.Mode().Perm()&others != 0:
		return cli.Finding{Check: "secrets", Level: "fail", Text: fmt.Sprintf("%s can be read by others (%v).", file, st.Mode().Perm()), Next: "chmod 600 " + file}
	}
	return cli.Finding{Check: "secrets", Level: "ok", Text: file + " is private."}
}

// exitCode gives the errors of the hooks their exit code and next step.
func exitCode(err error) (code int, next string, ok bool) {
	if e, ok := errors.AsType[*protocols.ListenError](err); ok {
		return cli.ExitConnect, e.Next, true
	}
	if errors.Is(err, errFound) || errors.Is(err, errFailed) || errors.Is(err, errNone) {
		return cli.ExitFailed, "", true
	}
	if errors.Is(err, author.ErrNoPattern) {
		return cli.ExitUsage, "Name a pattern's folder; `muster pattern new NAME` begins one.", true
	}
	if errors.Is(err, storage.ErrExists) || errors.Is(err, fs.ErrExist) {
		return cli.ExitConflict, "Give another name; nothing is overwritten.", true
	}
	for _, row := range []struct {
		err  error
		next string
	}{
		{storage.ErrLocked, "Use the hub that runs, stop it, or give another directory with --data."},
		{storage.ErrMasterKey, "Put the key back from your copy of it, or name its file with --master-key-file; a repair would give up all that it has sealed."},
		{storage.ErrCorrupt, "Copy the data directory. Then run `muster repair --data DIR`, which says what is lost, or restore a backup."},
		{storage.ErrBackup, "Take another backup, or restore an older one."},
		{storage.ErrRestoring, "Run `muster restore` into the directory again."},
		{storage.ErrNotEmpty, "Give a new directory with --data."},
		{storage.ErrPassphrase, "Give the passphrase with --passphrase-file, or the key file of the old hub with --master-key-file."},
		{storage.ErrNewerFormat, "Run the newer version of muster, or restore a backup made by this one."},
		{storage.ErrReserve, "Make room on the disk and start again."},
		{storage.ErrClock, "Set the system clock and start again."},
	} {
		if errors.Is(err, row.err) {
			return cli.ExitConnect, row.next, true
		}
	}
	if e, ok := errors.AsType[*engine.Error](err); ok && e.Code == engine.CodeArgumentInvalid {
		return cli.ExitUsage, e.Next, true
	}
	return 0, "", false
}
