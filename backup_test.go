package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/protocols/client"
)

// heavy fills a hub with enough that a backup of it takes a while.
func heavy(t *testing.T, s *client.Service, devices int) {
	t.Helper()
	tags, err := json.Marshal(map[string]any{"note": strings.Repeat("something that takes room in a twin; ", 60)})
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < devices; at += 100 {
		var items []client.BulkItem
		for i := at; i < min(at+100, devices); i++ {
			items = append(items, client.BulkItem{ID: fmt.Sprintf("heavy-%05d", i), ImportMode: "create", Tags: tags})
		}
		if _, err := s.Bulk(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledDuringBackup kills a hub (SIGKILL) in the middle of a backup under
// load, streamed to a client or made in the hub's directory. What has a
// backup's name is whole; the hub loses nothing that it acknowledged.
func TestKilledDuringBackup(t *testing.T) {
	t.Parallel()
	binary, base := program(t), t.TempDir()
	data, dir := filepath.Join(base, "data"), filepath.Join(base, "backups")
	stop := startHub(t, binary, data, "--backup-dir", dir, "--backup-every", "1h")
	service := localService(t, data)
	heavy(t, service, 4000)
	targets := make([]*victim, 8)
	for i := range targets {
		targets[i] = &victim{id: fmt.Sprintf("victim-%02d", i)}
		if _, err := service.CreateIdentity(t.Context(), client.Identity{DeviceID: targets[i].id}); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 4 {
		streamed := round%2 == 0
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var acked atomic.Int64
		for _, v := range targets {
			wg.Go(func() { v.desire(ctx, data, &acked) })
		}
		file := filepath.Join(base, fmt.Sprintf("round-%d.mbk", round))
		args := []string{"backup", "run", "--data", data}
		if streamed {
			args = []string{"backup", "create", file, "--data", data}
		}
		ended := make(chan string, 1)
		go func() {
			out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
			ended <- fmt.Sprint(string(out), err)
		}()
		awaitRunning(t, service, ended)
		stop()
		cancel()
		wg.Wait()
		out := <-ended
		if !strings.Contains(out, "exit status") {
			t.Errorf("round %d: the command says that it made a backup:\n%s", round, out)
		}
		if streamed && (!strings.Contains(out, "the hub did not send all of the backup") || !strings.Contains(out, "There is no "+file) || !strings.HasSuffix(out, "exit status 3")) {
			t.Errorf("round %d: the command does not say what happened and what to do:\n%s", round, out)
		}
		for _, name := range []string{file, file + ".part"} {
			if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("round %d: %s: %v", round, name, err)
			}
		}
		wholeBackups(t, binary, dir)
		stop = startHub(t, binary, data, "--backup-dir", dir, "--backup-every", "1h")
		service = localService(t, data)
		for _, v := range targets {
			v.check(t, service)
		}
		t.Logf("round %d: killed after %d acknowledged changes", round, acked.Load())
	}
	// It can still be backed up, and what was left of the killed ones goes.
	if out, err := exec.CommandContext(t.Context(), binary, "backup", "run", "--data", data).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	wholeBackups(t, binary, dir)
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		parts, err := filepath.Glob(filepath.Join(dir, "*.part"))
		if err != nil || len(parts) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("unfinished backups stay: %v", parts)
		}
	}
}

func awaitRunning(t *testing.T, s *client.Service, ended <-chan string) {
	t.Helper()
	for {
		select {
		case out := <-ended:
			t.Fatalf("the backup ended before it could be killed:\n%s", out)
		case <-time.After(2 * time.Millisecond):
		}
		b, err := s.Backups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Running != nil && b.Running.Bytes > 0 {
			return
		}
	}
}

func wholeBackups(t *testing.T, binary, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.mbk"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if out, err := exec.CommandContext(t.Context(), binary, "backup", "verify", f).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", f, err, out)
		}
	}
}

// TestBackupLife walks through docs/how-to/backup.md: a backup of a hub that
// runs, its check and its drill, a restore, what the new epoch refuses, and
// the resume.
func TestBackupLife(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	if err := os.WriteFile(filepath.Join(b.dir, "pass"), []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := b.serve("--backup-dir", "backups", "--backup-passphrase-file", "pass")
	b.must("device", "create", "d1", "d2", "d3")
	b.must("twin", "patch", "d1", "desired.interval=5")
	before, err := localService(t, filepath.Join(b.dir, "muster-data")).Twin(t.Context(), "d1", "")
	if err != nil {
		t.Fatal(err)
	}
	service := localService(t, filepath.Join(b.dir, "muster-data"))
	page := func(s *client.Service, cursor string) (next string, err error) {
		var p struct {
			Items  []json.RawMessage `json:"items"`
			Cursor string            `json:"cursor"`
		}
		q := url.Values{"limit": {"1"}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		err = s.Do(t.Context(), client.Request{Method: http.MethodGet, Path: "/api/v1/devices", Query: q}, &p)
		return p.Cursor, err
	}
	list, err := page(service, "")
	if err != nil || list == "" {
		t.Fatalf("page: %q, %v", list, err)
	}
	_, events, err := service.Events(t.Context(), client.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var made []cli.BackupSummary
	b.must("backup", "create", "hub.mbk", "--passphrase-file", "pass")
	out, err := b.command(t.Context(), "backup", "verify", "hub.mbk", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &made); err != nil || made[0].Sequence == 0 || made[0].Changes == 0 || !made[0].HasKey {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, code := b.run("backup", "create", "hub.mbk"); code != cli.ExitConflict {
		t.Errorf("over a backup: %d\n%s", code, out)
	}
	b.must("twin", "patch", "d1", "desired.interval=6") // after the backup
	if out := b.must("upgrade", "--check"); !strings.Contains(out, "is this program's") && !strings.Contains(out, "which is this program's") {
		t.Errorf("upgrade --check:\n%s", out)
	}
	if out := b.must("backup", "list"); !strings.Contains(out, "muster-2") || strings.Contains(out, "not by this hub") {
		t.Errorf("list:\n%s", out)
	}
	hub.stop(syscall.SIGTERM)
	if out := b.must("backup", "create", "stopped.mbk"); !strings.Contains(out, "stopped.mbk") {
		t.Errorf("of a stopped hub:\n%s", out)
	}
	b.must("backup", "verify", "hub.mbk")
	b.must("backup", "verify", "hub.mbk", "--drill", "--passphrase-file", "pass")
	flipped(t, b, "hub.mbk")

	if out, code := b.run("restore", "hub.mbk", "--data", "restored"); code == 0 || !strings.Contains(out, "passphrase") {
		t.Errorf("restore without the passphrase: %d\n%s", code, out)
	}
	// Without the key in it, the backup needs the old hub's: the message names the file and the flag.
	for _, args := range [][]string{{"restore", "stopped.mbk", "--data", "keyless"}, {"backup", "verify", "stopped.mbk", "--drill"}} {
		out, code := b.run(args...)
		if code != cli.ExitConnect || !strings.Contains(out, "the backup does not hold the master key; give the key file of the old hub (its DATA/master.key) with --master-key-file") {
			t.Errorf("%q without the key: %d\n%s", args, code, out)
		}
	}
	b.must("restore", "stopped.mbk", "--data", "keyless", "--master-key-file", "muster-data/master.key")
	// The key stays where it is, and no command says that the directory is damaged for want of it.
	for _, command := range []string{"resume", "verify", "serve"} {
		out, code := b.run(command, "--data", "keyless")
		if code != cli.ExitConnect || !strings.Contains(out, "Put the key back from your copy of it, or name its file with --master-key-file") || strings.Contains(out, "Copy the data directory") {
			t.Errorf("%s of the new directory without the key: %d\n%s", command, code, out)
		}
	}
	b.must("restore", "hub.mbk", "--data", "restored", "--passphrase-file", "pass")
	hub = b.serve("--data", "restored")
	restored := localService(t, filepath.Join(b.dir, "restored"))
	twin, err := restored.Twin(t.Context(), "d1", "")
	if err != nil {
		t.Fatal(err)
	}
	var desired struct {
		Interval int   `json:"interval"`
		Version  int64 `json:"$version"`
	}
	if err := json.Unmarshal(twin.Properties.Desired, &desired); err != nil || desired.Interval != 5 || desired.Version < 1_000_000 {
		t.Errorf("restored: %s, %v", twin.Properties.Desired, err)
	}
	var refused *client.Error
	if _, err := restored.PatchTwin(t.Context(), "d1", "", []byte(`{"tags":{"a":1}}`), before.ETag); !errors.As(err, &refused) || refused.Status != http.StatusPreconditionFailed {
		t.Errorf("an ETag of the old epoch: %v", err)
	}
	if _, err := page(restored, list); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || !strings.Contains(refused.Message, "restored") {
		t.Errorf("a cursor of a list of the old epoch: %v", err)
	}
	got, _, err := restored.Events(t.Context(), client.EventQuery{Cursor: events})
	if err != nil || len(got) == 0 || got[0].Kind != "gap" {
		t.Errorf("a cursor of events of the old epoch: %v, %v", got, err)
	}
	for _, command := range []string{"status", "doctor"} {
		if out := b.must(command, "--data", "restored"); !strings.Contains(out, "not resumed") {
			t.Errorf("%s does not say that the hub is paused:\n%s", command, out)
		}
	}
	if out := b.must("message", "send", "d1", "hello", "--data", "restored"); strings.Count(out, "held back until `muster resume") != 1 {
		t.Errorf("a message for later does not say so:\n%s", out)
	}
	hub.stop(syscall.SIGTERM)
	b.must("resume", "--data", "restored")
	b.serve("--data", "restored")
	for _, command := range [][]string{{"status"}, {"message", "send", "d1", "hello"}} {
		if out := b.must(append(command, "--data", "restored")...); strings.Contains(out, "not resumed") {
			t.Errorf("after the resume:\n%s", out)
		}
	}
}

// TestRestoredLogAsDocumented runs the commands of docs/how-to/simulate.md for a log after a
// restore as they stand there, but for the sequence that the backup names.
func TestRestoredLogAsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("docs", "how-to", "simulate.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n### After a restore\n")
	section, _, _ = strings.Cut(section, "\n## ")
	const named = "1295" // in the text
	b := newBox(t)
	hub := b.serve()
	b.must("simulate", "--devices", "4", "--rate", "40", "--duration", "3s", "--quiet", "--ack-log", "acks.jsonl")
	var ran []string
	sequence := ""
	for line := range strings.Lines(section) {
		line, ok := strings.CutPrefix(line, "    muster ")
		if !ok {
			continue
		}
		line, _, _ = strings.Cut(line, "    ") // what the command shows
		args := strings.Fields(strings.ReplaceAll(line, named, sequence))
		if args[0] == "restore" {
			hub.stop(syscall.SIGTERM)
		}
		out := b.must(args...)
		if args[0] == "backup" {
			out = b.must("backup", "verify", args[2], "-o", "json")
			var made []cli.BackupSummary
			if err := json.Unmarshal([]byte(out), &made); err != nil || len(made) != 1 {
				t.Fatalf("%v\n%s", err, out)
			}
			sequence = strconv.FormatUint(made[0].Sequence, 10)
			b.must("twin", "patch", "sim-000001", "tags.after=1")
		}
		if args[0] == "verify" && (!slices.Contains(args, sequence) || !strings.Contains(out, ", 0 missing")) {
			t.Errorf("muster %q does not look up to %s:\n%s", args, sequence, out)
		}
		ran = append(ran, args[0])
	}
	if want := []string{"backup", "restore", "resume", "verify"}; !slices.Equal(ran, want) {
		t.Errorf("the page has %q, expected %q", ran, want)
	}
}

// flipped changes one byte at some places of a backup: the command finds each.
func flipped(t *testing.T, b *box, name string) {
	t.Helper()
	whole, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	const places = 12
	for i := range places {
		at := i * (len(whole) - 1) / (places - 1)
		bad := append([]byte(nil), whole...)
		bad[at] ^= 1 << (i % 8)
		if err := os.WriteFile(filepath.Join(b.dir, "flipped.mbk"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := b.run("backup", "verify", "flipped.mbk"); code == 0 {
			t.Errorf("byte %d of %d flipped: not found\n%s", at, len(whole), out)
		}
	}
}

// TestUpgradeCheck looks at directories of every format, and starts the hub on
// the oldest: it leaves a backup that restores.
func TestUpgradeCheck(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	old := filepath.Join(b.dir, "old")
	if err := os.CopyFS(old, os.DirFS(filepath.Join("storage", "testdata", "journal-1", "closed"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(old, "master.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	format, err := os.ReadFile(filepath.Join(old, "FORMAT"))
	if err != nil {
		t.Fatal(err)
	}
	out := b.must("upgrade", "--check", "--data", "old")
	for _, want := range []string{"journal-1", "packs-2", "front-3", "before-front-3.mbk", "No backup is known", "space"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if again, err := os.ReadFile(filepath.Join(old, "FORMAT")); err != nil || string(again) != string(format) {
		t.Error("the check changed the directory")
	}
	if out, code := b.run("upgrade", "--check", "--data", "old", "--reserve", "1000TiB"); code != cli.ExitFailed || !strings.Contains(out, "Make room") {
		t.Errorf("without room: %d\n%s", code, out)
	}
	if out, code := b.run("upgrade", "--data", "old"); code != cli.ExitUsage {
		t.Errorf("without --check: %d\n%s", code, out)
	}
	for _, command := range [][]string{{"backup", "create", "old.mbk", "--data", "old"}, {"verify", "--data", "old"}} {
		b.must(command...)
		if again, err := os.ReadFile(filepath.Join(old, "FORMAT")); err != nil || string(again) != string(format) {
			t.Errorf("muster %v changed the format", command)
		}
	}
	b.must("backup", "verify", "old.mbk", "--drill", "--master-key-file", "old/master.key")
	b.serve("--data", "old").stop(syscall.SIGTERM)
	b.must("backup", "verify", "old/before-front-3.mbk", "--drill", "--master-key-file", "old/master.key")
	if out := b.must("upgrade", "--check", "--data", "old"); !strings.Contains(out, "nothing is migrated") {
		t.Errorf("after the start:\n%s", out)
	}
	newer := strings.Replace(string(format), `"rung":1,"name":"journal-1"`, `"rung":99,"name":"future-99"`, 1)
	if newer == string(format) {
		t.Fatalf("FORMAT has another shape: %s", format)
	}
	if err := os.WriteFile(filepath.Join(old, "FORMAT"), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := b.run("upgrade", "--check", "--data", "old"); code != cli.ExitFailed || !strings.Contains(out, "future-99") {
		t.Errorf("a newer format: %d\n%s", code, out)
	}
}
