package engine_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/storage"
)

// scheduled opens a hub that makes backups and runs it. stop ends it as a
// process that is told to; die leaves everything as kill -9 does, as far as one
// process can.
func scheduled(t *testing.T, data string, plan engine.BackupPlan) (h *engine.Hub, stop func()) {
	t.Helper()
	h, err := engine.Open(t.Context(), engine.Options{
		Storage: storage.Options{Dir: data, Memory: 64 << 20, Reserve: 1}, Hosts: []string{enginetest.HostName}, Backups: plan,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	return h, func() {
		cancel()
		<-done
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func backupFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func backupState(t *testing.T, h *engine.Hub) engine.BackupState {
	t.Helper()
	s, err := h.Backups(t.Context(), enginetest.Owner())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func backupFinding(t *testing.T, h *engine.Hub) engine.Finding {
	t.Helper()
	return findingOf(t, h, "backup")
}

// findingOf returns doctor's line on something.
func findingOf(t *testing.T, h *engine.Hub, check string) engine.Finding {
	t.Helper()
	list, err := h.Doctor(t.Context(), enginetest.Owner())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("doctor says nothing of %s", check)
	return engine.Finding{}
}

// backupEvents returns what the event stream holds of a kind.
func backupEvents(t *testing.T, h *engine.Hub, kind string) []map[string]any {
	t.Helper()
	list, _ := readAll(t, h, engine.EventFilter{Kinds: []string{kind}}, engine.CursorStart)
	var out []map[string]any
	for _, e := range list {
		var m map[string]any
		if err := json.Unmarshal(e.Data, &m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestScheduledBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, dir := t.TempDir(), filepath.Join(t.TempDir(), "backups")
		plan := engine.BackupPlan{Dir: dir, Every: 6 * time.Minute, Keep: 3}
		h, stop := scheduled(t, data, plan)
		time.Sleep(5 * time.Second)
		if n := backupFiles(t, dir); len(n) != 1 { // the first one at once
			t.Fatalf("at once: %v", n)
		}
		s := backupState(t, h)
		if s.Last == nil || s.Files[0].Verified.IsZero() || s.Files[0].SHA256 == "" || s.Files[0].Sequence != s.Last.Sequence || s.Next.Sub(s.Last.Started) != plan.Every {
			t.Fatalf("state %+v", s)
		}
		if f := backupFinding(t, h); f.Level != "warn" || !strings.Contains(f.Text, "same file system") {
			t.Errorf("doctor: %+v", f)
		}
		time.Sleep(5 * time.Minute)
		stop()

		// A restart makes none before its time, and forgets none.
		_, stop = scheduled(t, data, plan)
		time.Sleep(50 * time.Second)
		if n := backupFiles(t, dir); len(n) != 1 {
			t.Fatalf("before it is due: %v", n)
		}
		time.Sleep(20 * time.Second)
		if n := backupFiles(t, dir); len(n) != 2 {
			t.Fatalf("after it was due: %v", n)
		}
		stop()
		time.Sleep(30 * time.Minute) // nobody runs; the five that were missed are one
		h, stop = scheduled(t, data, plan)
		time.Sleep(5 * time.Second)
		if n := backupFiles(t, dir); len(n) != 3 {
			t.Fatalf("after a pause: %v", n)
		}
		time.Sleep(25 * time.Minute)
		names := backupFiles(t, dir)
		if len(names) != 3 {
			t.Fatalf("kept: %v", names)
		}
		if made := backupEvents(t, h, "backup.completed"); len(made) == 0 || made[len(made)-1]["file"] != names[2] {
			t.Errorf("events: %v, files: %v", made, names)
		}
		if st := h.BackupStats(); st.Made < 4 || st.Failed != 0 || st.LastBytes == 0 {
			t.Errorf("figures: %+v", st)
		}
		for _, n := range names {
			f, err := os.Open(filepath.Join(dir, n))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := storage.VerifyBackup(t.Context(), f); err != nil {
				t.Errorf("%s: %v", n, err)
			}
			_ = f.Close()
		}
		stop()
	})
}

// TestBackupThatFails: the hub says so everywhere, removes nothing, tries again
// less and less often, and is content once it works.
func TestBackupThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, base := t.TempDir(), t.TempDir()
		dir := filepath.Join(base, "backups")
		plan := engine.BackupPlan{Dir: dir, Every: time.Minute, Keep: 1}
		h, stop := scheduled(t, data, plan)
		time.Sleep(5 * time.Second)
		first := backupFiles(t, dir)
		// The disk goes away: what stands at its place is no directory.
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(18 * time.Minute) // tried after 1, 1, 2, 4 and 8
		st := h.BackupStats()
		if st.Made != 1 || st.Failed != 5 || st.InRow != st.Failed {
			t.Errorf("figures: %+v", st)
		}
		if f := backupFinding(t, h); f.Level != "fail" || !strings.Contains(f.Text, "not a directory") {
			t.Errorf("doctor: %+v", f)
		}
		if bad := backupEvents(t, h, "backup.failed"); int64(len(bad)) != st.Failed || bad[0]["error"] == "" {
			t.Errorf("events: %v", bad)
		}
		if s := backupState(t, h); s.Problem == "" || s.Failed == nil || s.Failures < 4 {
			t.Errorf("state: %+v", s)
		}
		stop()
		h, stop = func() (*engine.Hub, func()) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			return scheduled(t, data, plan)
		}()
		if f := backupFinding(t, h); f.Level != "fail" { // a restart does not make it well
			t.Errorf("doctor: %+v", f)
		}
		if err := h.StartBackup(t.Context(), enginetest.Owner()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if f := backupFinding(t, h); f.Level == "fail" {
			t.Errorf("doctor: %+v", f)
		}
		if now := backupFiles(t, dir); len(now) != 1 || now[0] == first[0] {
			t.Errorf("%v, then %v", first, now)
		}
		stop()
	})
}

// TestBackupBetweenNameAndRecord: a hub that died after it had given a backup
// its name does not make it again; one that died before does, and what it left
// goes.
func TestBackupBetweenNameAndRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, dir := t.TempDir(), t.TempDir()
		h, stop := scheduled(t, data, engine.BackupPlan{}) // the same hub, without a memory of backups
		time.Sleep(time.Minute)
		name := storage.BackupName(time.Now())
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Backup(t.Context(), enginetest.Owner(), f, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		stop()
		part := filepath.Join(dir, storage.BackupName(time.Now().Add(-time.Hour))+".part")
		if err := os.WriteFile(part, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		h, stop = scheduled(t, data, engine.BackupPlan{Dir: dir, Every: time.Hour})
		time.Sleep(30 * time.Minute)
		s := backupState(t, h)
		if len(s.Files) != 1 || s.Last == nil || s.Last.File != name || s.Files[0].Verified.IsZero() {
			t.Errorf("made again: %+v", s)
		}
		time.Sleep(time.Hour)
		if n := backupFiles(t, dir); len(n) != 2 || strings.Contains(strings.Join(n, " "), "part") {
			t.Errorf("files %v", n)
		}
		stop()
	})
}

// TestBackupInAnotherDirectory: what was made elsewhere doesn't count for a
// directory that is new, and doctor looks whether the last one is still there,
// and whether there can be a next one.
func TestBackupInAnotherDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, first, second := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "other")
		_, stop := scheduled(t, data, engine.BackupPlan{Dir: first})
		time.Sleep(5 * time.Second)
		stop()
		h, stop := scheduled(t, data, engine.BackupPlan{Dir: second})
		time.Sleep(5 * time.Second)
		if one, two := backupFiles(t, first), backupFiles(t, second); len(one) != 1 || len(two) != 1 {
			t.Fatalf("files %v and %v, want one in each", one, two)
		}
		if s := backupState(t, h); s.Next.Sub(s.Last.Started) != 24*time.Hour {
			t.Errorf("the next is due %s, the last one is of %s", s.Next, s.Last.Started)
		}
		stop()
		h, stop = scheduled(t, data, engine.BackupPlan{Dir: second})
		defer stop()
		time.Sleep(5 * time.Second)
		names := backupFiles(t, second)
		if len(names) != 1 {
			t.Fatalf("made again at a restart: %v", names)
		}

		if err := os.Remove(filepath.Join(second, names[0])); err != nil {
			t.Fatal(err)
		}
		if f := backupFinding(t, h); f.Level != "warn" || !strings.Contains(f.Text, names[0]+" of ") || !strings.Contains(f.Text, "is not in "+second) || f.Next == "" {
			t.Errorf("doctor of one that is gone: %+v", f)
		}
		if err := os.Remove(second); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(second, nil, 0o600); err != nil { // nobody may enter it, root neither
			t.Fatal(err)
		}
		if f := backupFinding(t, h); f.Level != "fail" || !strings.Contains(f.Text, "the next backup will fail: write to "+second) || f.Next == "" {
			t.Errorf("doctor of a directory that takes nothing: %+v", f)
		}
	})
}

// TestBackupDirectoryThatIsAway: the hub starts and serves, and says what is wrong.
func TestBackupDirectoryThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		h, stop := scheduled(t, t.TempDir(), engine.BackupPlan{Dir: filepath.Join(file, "backups")})
		defer stop()
		time.Sleep(5 * time.Second)
		if err := h.Ready(); err != nil {
			t.Error(err)
		}
		if f := backupFinding(t, h); f.Level != "fail" || !strings.Contains(f.Text, "not a directory") {
			t.Errorf("doctor: %+v", f)
		}
		if s := backupState(t, h); s.Problem == "" || s.Failed == nil {
			t.Errorf("state: %+v", s)
		}
	})
}

func TestBackupPlanIsChecked(t *testing.T) {
	for _, p := range []engine.BackupPlan{
		{Keep: 3}, {At: "03:00"}, {Dir: "d", At: "3 o'clock"}, {Dir: "d", At: "03:00", Every: time.Hour}, {Dir: "d", Every: time.Second}, {Dir: "d", Keep: -1},
	} {
		_, err := engine.Open(t.Context(), engine.Options{Storage: storage.Options{Dir: t.TempDir()}, Backups: p})
		if e := engine.AsError(err); err == nil || e.Code != engine.CodeArgumentInvalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
