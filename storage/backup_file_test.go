package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestSaveBackup(t *testing.T) {
	db := filled(t, 50)
	dir := t.TempDir()
	name := filepath.Join(dir, BackupName(time.Now()))
	var read, back int64
	info, err := db.SaveBackup(t.Context(), name, BackupOptions{Progress: func(n int64) { read = n }}, func(n int64) { back = n })
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil || int64(len(b)) != info.Size || back != info.Size || read == 0 {
		t.Errorf("%d bytes of %d, read %d, back %d, %v", len(b), info.Size, read, back, err)
	}
	if again, err := VerifyBackup(t.Context(), bytes.NewReader(b)); err != nil || again.SHA256 != info.SHA256 {
		t.Errorf("%+v, %v", again, err)
	}
	if info.Last("changes") != 50 || info.Messages != 50 || info.Last("nothing") != 0 {
		t.Errorf("positions %+v, %d", info.Logs, info.Messages)
	}
	if _, err := db.SaveBackup(t.Context(), name, BackupOptions{}, nil); !errors.Is(err, ErrExists) {
		t.Errorf("over a file: %v", err)
	}
	list, err := ListBackups(dir)
	if err != nil || len(list) != 1 || list[0].Size != info.Size || list[0].Info.Sequence != info.Sequence || list[0].Err != nil {
		t.Errorf("list %+v, %v", list, err)
	}
}

// TestSaveBackupFaults: whatever fails, and wherever the copying ends, nothing
// has the name, nothing is left, and the store goes on.
func TestSaveBackupFaults(t *testing.T) {
	db := filled(t, 50)
	var whole bytes.Buffer
	if _, err := db.Backup(t.Context(), &whole, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	whole.Write(nil)
	copyAll := func(w io.Writer) error { _, err := w.Write(whole.Bytes()); return err }
	boom := errors.New("boom")
	for _, c := range []struct {
		name  string
		hook  func(op, name string) error
		write func(w io.Writer) error
		want  error
	}{
		{"disk full", func(op, _ string) error {
			if op == "write" {
				return unix.ENOSPC
			}
			return nil
		}, copyAll, unix.ENOSPC},
		{"failed sync", func(op, _ string) error {
			if op == "sync" {
				return unix.EIO
			}
			return nil
		}, copyAll, unix.EIO},
		{"failed rename", func(op, _ string) error {
			if op == "rename" {
				return unix.EIO
			}
			return nil
		}, copyAll, unix.EIO},
		{"failed sync of the directory", func(op, _ string) error {
			if op == "syncdir" {
				return unix.EIO
			}
			return nil
		}, copyAll, unix.EIO},
		{"failed open", func(op, _ string) error {
			if op == "open" {
				return unix.EACCES
			}
			return nil
		}, copyAll, unix.EACCES},
		{"cut connection", nil, func(w io.Writer) error {
			_, err := w.Write(whole.Bytes()[:whole.Len()/2])
			return errors.Join(err, boom)
		}, boom},
		{"cut without a word", nil, func(w io.Writer) error { _, err := w.Write(whole.Bytes()[:whole.Len()-1]); return err }, ErrBackup},
		{"flipped on the disk", nil, func(w io.Writer) error {
			b := bytes.Clone(whole.Bytes())
			b[len(b)/2] ^= 4
			_, err := w.Write(b)
			return err
		}, ErrBackup},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := &faultFS{}
			fs.set(c.hook)
			dir := t.TempDir()
			info, err := saveBackup(t.Context(), fs, filepath.Join(dir, "b.mbk"), SaveOptions{}, c.write)
			if !errors.Is(err, c.want) || info.Sequence != 0 && info.SHA256 != "" {
				t.Errorf("%+v, %v", info, err)
			}
			if left := names(t, dir); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			fs.set(nil)
			if _, err := saveBackup(t.Context(), fs, filepath.Join(dir, "b.mbk"), SaveOptions{}, copyAll); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
	update(t, db, func(tx *Tx) error { return changes().Append(tx, []byte("goes on")) })
}

// TestBackupSpace: a backup asks for room before it begins, ends when it eats
// the reserve, and runs all the same where the disk was short before and the
// backup goes elsewhere.
func TestBackupSpace(t *testing.T) {
	fs := &faultFS{}
	o := testOptions(t, t.TempDir())
	o.Reserve = 100 << 20
	fs.setFree(1 << 40)
	db := mustOpen(t, o, fs, small())
	defer mustClose(t, db)
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("k"), doc{Text: text(1000, "x")}) })
	name := filepath.Join(o.Dir, "b.mbk")
	fs.setFree(100<<20 - 1)
	if _, err := db.SaveBackup(t.Context(), name, BackupOptions{}, nil); !errors.Is(err, ErrReserve) {
		t.Errorf("no room: %v", err)
	}
	fs.setFree(1 << 40)
	w := writerFunc(func(b []byte) (int, error) {
		fs.setFree(50 << 20)
		db.space.mu.Lock()
		db.space.looked = time.Time{} // as a second later
		db.space.mu.Unlock()
		return len(b), nil
	})
	if _, err := db.Backup(t.Context(), w, BackupOptions{}); !errors.Is(err, ErrReserve) {
		t.Errorf("room that goes: %v", err)
	}
	if _, err := db.Backup(t.Context(), io.Discard, BackupOptions{}); err != nil {
		t.Errorf("short before: %v", err)
	}
	part := &partWriter{fs: fs, file: nopFile{}, dir: o.Dir, reserve: o.Reserve}
	if _, err := part.Write(make([]byte, partSync)); !errors.Is(err, ErrReserve) {
		t.Errorf("a file that grows: %v", err)
	}
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

type nopFile struct{ file }

func (nopFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (nopFile) Datasync() error                        { return nil }

// TestBackupSaysWhyItEnded: whoever reads a backup that could not be finished
// is told, and never takes it for a whole one.
func TestBackupSaysWhyItEnded(t *testing.T) {
	db := filled(t, 200)
	cause := errors.New("the power of a test")
	ctx, stop := context.WithCancelCause(t.Context())
	var b bytes.Buffer
	_, err := db.Backup(ctx, &b, BackupOptions{Progress: func(int64) { stop(cause) }})
	if !errors.Is(err, cause) {
		t.Fatal(err)
	}
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(b.Bytes())); !errors.Is(err, ErrBackup) {
		t.Errorf("cut: %v", err)
	}
	// What cannot be read ends it with a frame that says so.
	blob := storedBlob(t, db, "x")
	if err := os.Remove(db.blobs.path(blob.Digest)); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if _, err := db.Backup(t.Context(), &b, BackupOptions{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a blob that is gone: %v", err)
	}
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(b.Bytes())); !errors.Is(err, ErrBackup) || !strings.Contains(err.Error(), "reading a blob") {
		t.Errorf("its reader: %v", err)
	}
}

func storedBlob(t *testing.T, db *DB, by string) Blob {
	t.Helper()
	w, err := db.Blobs().Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("the content of a blob")); err != nil {
		t.Fatal(err)
	}
	blob, err := w.Commit(t.Context(), func(tx *Tx, b Blob) error { return db.Blobs().Refer(tx, b, Tuple(by)) })
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestPruneBackups(t *testing.T) {
	dir := t.TempDir()
	db := filled(t, 3)
	other := filled(t, 3)
	save := func(db *DB, at time.Time) string {
		name := BackupName(at)
		if _, err := db.SaveBackup(t.Context(), filepath.Join(dir, name), BackupOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		return name
	}
	at := time.Now()
	foreign := save(other, at.Add(-9*time.Hour))
	var mine []string
	for h := range 5 {
		mine = append(mine, save(db, at.Add(time.Duration(h-5)*time.Hour)))
	}
	for name, content := range map[string]string{
		"notes.txt": "mine", BackupName(at) + partSuffix: "left by a process that died", BackupName(at.Add(time.Hour)): "no backup", "muster-yesterday.mbk": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held := filepath.Join(dir, BackupName(at.Add(-time.Hour*30))+partSuffix)
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := lockPart(held)
	if err != nil {
		t.Fatal(err)
	}
	removed, err := PruneBackups(dir, db.Epoch().ID, 2)
	if err != nil || len(removed) != 3 || !slices.Contains(removed, mine[0]) || slices.Contains(removed, mine[3]) {
		t.Errorf("removed %v, %v", removed, err)
	}
	left := strings.Join(names(t, dir), " ")
	for _, want := range []string{foreign, mine[3], mine[4], "notes.txt", "muster-yesterday.mbk", filepath.Base(held), BackupName(at.Add(time.Hour))} {
		if !strings.Contains(left, want) {
			t.Errorf("%s is gone", want)
		}
	}
	if strings.Contains(left, BackupName(at)+partSuffix) {
		t.Error("the part of a process that died is still there")
	}
	if _, err := saveBackup(t.Context(), osFS{}, strings.TrimSuffix(held, partSuffix), SaveOptions{}, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("a part that another process writes: %v", err)
	}
	if err := unlockDir(lock); err != nil {
		t.Fatal(err)
	}
	list, err := ListBackups(dir)
	if err != nil || list[0].Err == nil {
		t.Errorf("a file that is no backup is listed without a word: %+v, %v", list, err)
	}
}

// TestBackupKeepsWhatRetentionTakes: messages and blobs that go while a backup
// is made are in it, whole.
func TestBackupKeepsWhatRetentionTakes(t *testing.T) {
	tune := small()
	tune.messageSegment = 2 << 10
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tune)
	defer mustClose(t, db)
	for range 100 {
		stored := make(chan error, 1)
		if err := db.Messages().Append([]byte(text(200, "message ")), func(_ uint64, err error) { stored <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
	}
	blob := storedBlob(t, db, "x")
	var b bytes.Buffer
	first := true
	out := writerFunc(func(p []byte) (int, error) {
		if first {
			first = false
			if n, err := db.Messages().Trim(time.Now().Add(time.Hour), 1); err != nil || n < 5 {
				t.Errorf("trimmed %d, %v", n, err)
			}
			update(t, db, func(tx *Tx) error { return db.Blobs().Release(tx, blob.Digest, Tuple("x")) })
			if _, err := db.Blobs().Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return b.Write(p)
	})
	info, err := db.Backup(t.Context(), out, BackupOptions{Passphrase: []byte("p")})
	if err != nil {
		t.Fatal(err)
	}
	var messages, blobs uint64
	for _, row := range info.Tables {
		switch row.Name {
		case "messages":
			messages = row.Records
		case "blob contents":
			blobs = row.Records
		}
	}
	if messages != 100 || blobs != 1 {
		t.Errorf("%d messages, %d parts of blobs", messages, blobs)
	}
	if _, err := Drill(t.Context(), bytes.NewReader(b.Bytes()), Options{Dir: filepath.Join(t.TempDir(), "drill")}, []byte("p")); err != nil {
		t.Error(err)
	}
}

// Two backups of one second have two names, in the order of their making.
func TestFreeBackupName(t *testing.T) {
	dir, at := t.TempDir(), time.Date(2026, 11, 29, 20, 0, 59, 0, time.UTC)
	var names []string
	for range 3 {
		name := FreeBackupName(dir, at)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	want := []string{BackupName(at), BackupName(at.Add(time.Second)), BackupName(at.Add(2 * time.Second))}
	if !slices.Equal(names, want) {
		t.Errorf("the names are %v, want %v", names, want)
	}
}
