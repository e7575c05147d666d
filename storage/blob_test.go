package storage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// putBlob stores a content with a reference.
func putBlob(t *testing.T, db *DB, content string, by Key) Blob {
	t.Helper()
	w, err := db.Blobs().Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	b, err := w.Commit(t.Context(), func(tx *Tx, b Blob) error { return db.Blobs().Refer(tx, b, by) })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readBlob(t *testing.T, db *DB, digest string) string {
	t.Helper()
	f, err := db.Blobs().Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func blobFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, blobDir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func sweep(t *testing.T, db *DB, want int) {
	t.Helper()
	if n, err := db.Blobs().Sweep(t.Context()); n != want || err != nil {
		t.Fatalf("swept %d, %v; want %d", n, err, want)
	}
}

func TestBlobsLiveAsLongAsTheirReferences(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, tuning{})
	a, b := Tuple("a"), Tuple("b")
	one := putBlob(t, db, "content", a)
	if again := putBlob(t, db, "content", b); again != one {
		t.Fatalf("the same content is %v and %v", one, again)
	}
	empty := putBlob(t, db, "", a)
	if n := len(blobFiles(t, o.Dir)); n != 2 {
		t.Fatalf("%d files for two contents", n)
	}
	release := func(by Key) {
		update(t, db, func(tx *Tx) error { return db.Blobs().Release(tx, one.Digest, by) })
	}
	release(a)
	sweep(t, db, 0)
	if got := readBlob(t, db, one.Digest); got != "content" {
		t.Fatalf("the blob is %q", got)
	}
	open, err := db.Blobs().Open(one.Digest)
	if err != nil {
		t.Fatal(err)
	}
	release(b)
	stop := db.Blobs().hold()
	sweep(t, db, 0)
	stop()
	sweep(t, db, 1)
	if got, err := io.ReadAll(open); string(got) != "content" || err != nil {
		t.Errorf("an open blob that was swept: %q, %v", got, err)
	}
	_ = open.Close()
	if _, err := db.Blobs().Open(one.Digest); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob that was swept: %v", err)
	}
	for _, bad := range []string{"", "..", "../FORMAT", strings.ToUpper(empty.Digest), empty.Digest + "0", blobTmp + "x"} {
		if _, err := db.Blobs().Open(bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("opening %q: %v", bad, err)
		}
	}
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, tuning{})
	defer mustClose(t, db)
	if got := readBlob(t, db, empty.Digest); got != "" {
		t.Errorf("the empty blob is %q", got)
	}
}

// TestUnfinishedBlobs: what was aborted, refused by its transaction, or left by a process that
// died is gone; what is being written is not swept.
func TestUnfinishedBlobs(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, tuning{})
	w, err := db.Blobs().Create()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("x"))
	sweep(t, db, 0)
	w.Abort()
	w.Abort()
	refused := errors.New("no")
	w, err = db.Blobs().Create()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("y"))
	if _, err := w.Commit(t.Context(), func(*Tx, Blob) error { return refused }); !errors.Is(err, refused) {
		t.Fatalf("commit: %v", err)
	}
	sweep(t, db, 1)
	w, err = db.Blobs().Create() // dies with the process
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("z"))
	if n := len(blobFiles(t, o.Dir)); n != 1 {
		t.Fatalf("%d files, want the one that is being written", n)
	}
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, tuning{})
	defer mustClose(t, db)
	if names := blobFiles(t, o.Dir); len(names) != 0 {
		t.Errorf("left over: %v", names)
	}
}

func TestBlobFaults(t *testing.T) {
	broken := errors.New("broken")
	for op, name := range map[string]string{"sync": blobTmp, "rename": blobDir, "write": blobTmp, "syncdir": blobDir} {
		t.Run(op, func(t *testing.T) {
			fs := &faultFS{}
			o := testOptions(t, t.TempDir())
			db := mustOpen(t, o, fs, tuning{})
			hit := false
			fs.set(func(o, n string) error {
				if o == op && strings.Contains(n, blobDir) && strings.Contains(n, name) {
					hit = true
					return broken
				}
				return nil
			})
			w, err := db.Blobs().Create()
			if err != nil {
				t.Fatal(err)
			}
			_, werr := w.Write([]byte("x"))
			_, cerr := w.Commit(t.Context(), func(tx *Tx, b Blob) error { return db.Blobs().Refer(tx, b, Tuple("a")) })
			if !hit {
				t.Fatalf("no %s happened", op)
			}
			if !errors.Is(errors.Join(werr, cerr), broken) || cerr == nil {
				t.Errorf("write: %v, commit: %v; want the fault", werr, cerr)
			}
			fs.set(nil)
			view(t, db, func(r Reader) error {
				return db.Blobs().referred(r, func(b Blob) error { t.Errorf("%v is referred to", b); return nil })
			})
			if _, err := db.Blobs().Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if names := blobFiles(t, o.Dir); len(names) != 0 {
				t.Errorf("left over: %v", names)
			}
			mustClose(t, db)
		})
	}
	t.Run("space", func(t *testing.T) {
		fs := &faultFS{}
		o := testOptions(t, t.TempDir())
		o.Reserve = 1 << 20
		db := mustOpen(t, o, fs, tuning{})
		defer mustClose(t, db)
		w, err := db.Blobs().Create()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		fs.setFree(1 << 10)
		db.space.mu.Lock()
		db.space.looked = db.space.looked.AddDate(-1, 0, 0)
		db.space.mu.Unlock()
		if _, err := w.Write([]byte("x")); !errors.Is(err, ErrReserve) {
			t.Errorf("write: %v, want ErrReserve", err)
		}
		if _, err := db.Blobs().Create(); !errors.Is(err, ErrReserve) {
			t.Errorf("create: %v, want ErrReserve", err)
		}
	})
}

func TestVerifyReadsBlobs(t *testing.T) {
	for what, damage := range map[string]func(name string) error{
		"nothing": func(string) error { return nil },
		"a bit": func(name string) error {
			b, err := os.ReadFile(name)
			if err == nil {
				b[3] ^= 1
				err = os.WriteFile(name, b, 0o600)
			}
			return err
		},
		"its end": func(name string) error { return os.Truncate(name, 4) },
		"all":     os.Remove,
	} {
		t.Run(what, func(t *testing.T) {
			o := testOptions(t, t.TempDir())
			db := mustOpen(t, o, osFS{}, tuning{})
			b := putBlob(t, db, "content", Tuple("a"))
			mustClose(t, db)
			if err := damage(filepath.Join(o.Dir, blobDir, b.Digest)); err != nil {
				t.Fatal(err)
			}
			r, err := Verify(t.Context(), o)
			if r.Blobs != 1 || (what == "nothing") != (err == nil) || err != nil && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), b.Digest)) {
				t.Errorf("%d blobs, %v", r.Blobs, err)
			}
		})
	}
}

func TestBackupHoldsBlobs(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, tuning{})
	contents := []string{"", "small", text(3*backupPart+17, "0123456789abcdef")}
	var blobs []Blob
	for i, c := range contents {
		blobs = append(blobs, putBlob(t, db, c, Tuple(uint64(i))))
	}
	var buf bytes.Buffer
	info, err := db.Backup(t.Context(), &buf, BackupOptions{Passphrase: []byte("p")})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	n := slices.IndexFunc(info.Tables, func(b BackupTable) bool { return b.Name == "blob contents" })
	if n < 0 || info.Tables[n].Records != 6 {
		t.Fatalf("the backup holds %+v, want 6 parts of blobs", info.Tables)
	}
	if _, err := VerifyBackup(t.Context(), bytes.NewReader(buf.Bytes())); err != nil {
		t.Fatal(err)
	}
	to := testOptions(t, filepath.Join(t.TempDir(), "restored"))
	if _, err := Restore(t.Context(), bytes.NewReader(buf.Bytes()), to, []byte("p")); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(t.Context(), to); err != nil || r.Blobs != 3 {
		t.Fatalf("%d blobs, %v", r.Blobs, err)
	}
	db = mustOpen(t, to, osFS{}, tuning{})
	defer mustClose(t, db)
	for i, b := range blobs {
		if got := readBlob(t, db, b.Digest); got != contents[i] {
			t.Errorf("blob %d has %d bytes, want %d", i, len(got), len(contents[i]))
		}
	}
	sweep(t, db, 0)
}

func TestBlobsDrop(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, tuning{})
	defer db.Close()
	a := Tuple("a")
	blob := putBlob(t, db, "content", a)
	drop := func(want bool, files int) {
		t.Helper()
		later, err := db.Blobs().Drop(t.Context(), blob.Digest)
		if err != nil || later != want {
			t.Errorf("later is %v, %v; want %v", later, err, want)
		}
		if n := len(blobFiles(t, o.Dir)); n != files {
			t.Errorf("%d files, want %d", n, files)
		}
	}
	drop(false, 1) // something refers to it
	if err := db.Update(t.Context(), func(tx *Tx) error { return db.Blobs().Release(tx, blob.Digest, a) }); err != nil {
		t.Fatal(err)
	}
	release := db.Blobs().hold()
	drop(true, 1)
	release()
	drop(false, 0)
	drop(false, 0)
	if later, err := db.Blobs().Drop(t.Context(), "../LOCK"); later || err != nil {
		t.Errorf("a name that is no digest: %v, %v", later, err)
	}
}
