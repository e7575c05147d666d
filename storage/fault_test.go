package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFailedWrites lets the Nth file operation fail, once for each N: nothing acknowledged is
// lost, what was answered otherwise is there or not, and the store says that it is read-only.
func TestFailedWrites(t *testing.T) {
	for _, fault := range []error{unix.EIO, unix.ENOSPC} {
		for nth := range 14 {
			t.Run(fmt.Sprintf("%v/%d", fault, nth), func(t *testing.T) {
				t.Parallel()
				failNth(t, fault, int64(nth*5))
			})
		}
	}
}

func failNth(t *testing.T, fault error, nth int64) {
	o := testOptions(t, t.TempDir())
	o.CheckpointBytes = 50 << 10
	layer := &faultFS{}
	db := mustOpen(t, o, layer, small())
	var calls atomic.Int64
	layer.set(func(op, name string) error {
		if op == "open" && !strings.HasSuffix(name, ".tmp") || calls.Add(1) <= nth {
			return nil
		}
		return fault
	})
	acked, issued := int64(0), int64(0)
	var failure error
	for i := range int64(3000) {
		issued = i + 1
		failure = db.Update(t.Context(), func(tx *Tx) error {
			return docs().Put(tx, Tuple("n"), doc{Number: i + 1, Text: text(500, "fault ")})
		})
		if failure != nil {
			break
		}
		acked = i + 1
	}
	if !errors.Is(failure, ErrUncertain) && !errors.Is(failure, ErrReadOnly) {
		t.Fatalf("after %d updates: %v", acked, failure)
	}
	if err := db.Health(); !errors.Is(err, ErrReadOnly) || !errors.Is(err, fault) {
		t.Errorf("health: %v", err)
	}
	err := db.Update(t.Context(), func(tx *Tx) error { return docs().Put(tx, Tuple("m"), doc{}) })
	if !errors.Is(err, ErrReadOnly) {
		t.Errorf("the next update: %v", err)
	}
	view(t, db, func(r Reader) error {
		v, err := docs().Get(r, Tuple("n"))
		if acked > 0 && (err != nil || v.Number != acked) {
			t.Errorf("reads see %d, %v, acknowledged were %d", v.Number, err, acked)
		}
		return nil
	})
	layer.set(nil)
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	db = mustOpen(t, o, layer, small())
	defer mustClose(t, db)
	view(t, db, func(r Reader) error {
		v, err := docs().Get(r, Tuple("n"))
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		if err != nil || v.Number < acked || v.Number > issued {
			t.Errorf("reopened: %d, %v, acknowledged %d, issued %d", v.Number, err, acked, issued)
		}
		return nil
	})
}

// TestFailedOpen lets the Nth file operation of Open fail: the next Open finds everything.
func TestFailedOpen(t *testing.T) {
	o := testOptions(t, t.TempDir())
	layer := &faultFS{}
	made := false
	for nth := int64(1); ; nth++ {
		var calls atomic.Int64
		var failed atomic.Bool
		layer.set(func(op, name string) error {
			if calls.Add(1) == nth {
				failed.Store(true)
				return unix.EIO
			}
			return nil
		})
		db, err := openWith(t.Context(), o, layer, small())
		layer.set(nil)
		if err != nil {
			if !errors.Is(err, unix.EIO) {
				t.Fatalf("call %d: %v", nth, err)
			}
			continue
		}
		if !made {
			made = true
			update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{Number: 7}) })
			nth = 0
		}
		view(t, db, func(r Reader) error {
			v, err := docs().Get(r, Tuple("a"))
			if v.Number != 7 {
				t.Errorf("call %d: %v, %v", nth, v, err)
			}
			return err
		})
		mustClose(t, db)
		if !failed.Load() && nth > 0 {
			t.Logf("%d operations", nth)
			return
		}
	}
}

// TestStalledSync: while a sync stalls, nothing of its group is seen, reads go on, and a caller
// that stops waiting is told that it is uncertain.
func TestStalledSync(t *testing.T) {
	layer := &faultFS{}
	db := mustOpen(t, testOptions(t, t.TempDir()), layer, small())
	defer mustClose(t, db)
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{Number: 1}) })
	stalled, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	layer.set(func(op, name string) error {
		if op == "sync" && strings.Contains(name, ".seg") {
			once.Do(func() { close(stalled) })
			<-release
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		answer <- db.Update(ctx, func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{Number: 2}) })
	}()
	<-stalled
	view(t, db, func(r Reader) error {
		v, err := docs().Get(r, Tuple("a"))
		if v.Number != 1 {
			t.Errorf("an unsynced write is visible: %d", v.Number)
		}
		return err
	})
	cancel()
	if err := <-answer; !errors.Is(err, ErrUncertain) || !errors.Is(err, context.Canceled) {
		t.Errorf("answer: %v", err)
	}
	// The queue is bounded: submitted transactions are refused, not kept.
	busy := 0
	for range 2000 {
		if err := db.Submit(func(tx *Tx) error { return docs().Put(tx, Tuple("b"), doc{Text: text(4000, "x")}) }); errors.Is(err, ErrBusy) {
			busy++
		}
	}
	if busy == 0 || db.Stats().DroppedSubmits != uint64(busy) {
		t.Errorf("%d were refused, %d counted", busy, db.Stats().DroppedSubmits)
	}
	close(release)
	layer.set(nil)
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("c"), doc{}) })
	view(t, db, func(r Reader) error {
		v, err := docs().Get(r, Tuple("a"))
		if v.Number != 2 {
			t.Errorf("after the stall: %d", v.Number)
		}
		return err
	})
}

func TestReserve(t *testing.T) {
	layer := &faultFS{}
	o := testOptions(t, t.TempDir())
	o.Reserve = 1000
	db := mustOpen(t, o, layer, small())
	defer mustClose(t, db)
	put := func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{City: "Bonn"}) }
	del := func(tx *Tx) error {
		tx.Add("deleted", 1)
		return errors.Join(docs().Delete(tx, Tuple("a")), auditLog().Append(tx, []byte("deleted a")))
	}
	for _, step := range []struct {
		free             int64
		put, del, health error
	}{
		{2000, nil, nil, nil},
		{999, ErrReserve, nil, ErrReserve},
		{499, ErrReserve, ErrReserve, ErrReserve},
		{1000, nil, nil, nil},
	} {
		layer.setFree(step.free)
		db.space.mu.Lock()
		db.space.looked = time.Time{}
		db.space.mu.Unlock()
		if err := db.Health(); !errors.Is(err, step.health) {
			t.Errorf("%d bytes free: health %v", step.free, err)
		}
		if err := db.Update(t.Context(), put); !errors.Is(err, step.put) {
			t.Errorf("%d bytes free: put %v", step.free, err)
		}
		layer2 := db.View(t.Context(), func(r Reader) error { _, err := Counter(r, "deleted"); return err })
		if layer2 != nil {
			t.Errorf("%d bytes free: read %v", step.free, layer2)
		}
		if step.put == nil || step.del == nil {
			// There is something to delete after a put; between the limits it was put before.
			if err := db.Update(t.Context(), del); !errors.Is(err, step.del) {
				t.Errorf("%d bytes free: delete %v", step.free, err)
			}
			if step.put == nil {
				if err := db.Update(t.Context(), put); err != nil {
					t.Error(err)
				}
			}
			continue
		}
		layer.setFree(2000)
		db.space.mu.Lock()
		db.space.looked = time.Time{}
		db.space.mu.Unlock()
		update(t, db, put)
		layer.setFree(step.free)
		db.space.mu.Lock()
		db.space.looked = time.Time{}
		db.space.mu.Unlock()
		if err := db.Update(t.Context(), del); !errors.Is(err, step.del) {
			t.Errorf("%d bytes free: delete %v", step.free, err)
		}
	}
}

// TestWhatFreesSpace: below the reserve a delete may note what it did, and an update that trims
// its own history is still an update.
func TestWhatFreesSpace(t *testing.T) {
	layer := &faultFS{}
	o := testOptions(t, t.TempDir())
	o.Reserve = 1000
	db := mustOpen(t, o, layer, small())
	defer mustClose(t, db)
	plain := NewTable("plain", 1, JSON[doc]())
	layer.setFree(999)
	db.space.mu.Lock()
	db.space.looked = time.Time{}
	db.space.mu.Unlock()
	for name, c := range map[string]struct {
		f    func(tx *Tx) error
		want error
	}{
		"an update that trims": {func(tx *Tx) error {
			return errors.Join(plain.Put(tx, Tuple("twin"), doc{City: "Ulm"}), plain.Delete(tx, Tuple("history", uint64(1))))
		}, ErrReserve},
		"one delete with much beside it": {func(tx *Tx) error {
			return errors.Join(plain.Delete(tx, Tuple("a")), auditLog().Append(tx, make([]byte, 2*deleteNotes)))
		}, ErrReserve},
		"many deletes, each noted": {func(tx *Tx) error {
			for i := range uint64(50) {
				if err := errors.Join(plain.Delete(tx, Tuple(i)), auditLog().Append(tx, make([]byte, 300))); err != nil {
					return err
				}
			}
			tx.Add("count", -50)
			return nil
		}, nil},
		"a log entry alone": {func(tx *Tx) error { return auditLog().Append(tx, []byte("x")) }, ErrReserve},
	} {
		if err := db.Update(t.Context(), c.f); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// TestDeleteIsBlind: a table without indexes deletes without reading, so that nobody else's
// write of the key makes the committer prepare the delete again.
func TestDeleteIsBlind(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	defer mustClose(t, db)
	plain := NewTable("plain", 1, JSON[doc]())
	key := Tuple("a")
	prepared := 0
	update(t, db, func(tx *Tx) error { return plain.Put(tx, key, doc{City: "Ulm"}) })
	update(t, db, func(tx *Tx) error {
		if prepared++; prepared == 1 { // only outside the committer: another transaction comes first
			update(t, db, func(tx *Tx) error { return plain.Put(tx, key, doc{City: "Bonn"}) })
		}
		return errors.Join(plain.Delete(tx, key), plain.Delete(tx, Tuple("absent")))
	})
	if prepared != 1 {
		t.Errorf("the delete was prepared %d times", prepared)
	}
	err := db.View(t.Context(), func(r Reader) error { _, err := plain.Get(r, key); return err })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("after the delete: %v", err)
	}
}

// TestOpenWithoutSpace wants a named error: Badger's mapped files would end the process.
func TestOpenWithoutSpace(t *testing.T) {
	o := testOptions(t, t.TempDir())
	layer := &faultFS{}
	layer.setFree(1 << 20)
	if _, err := openWith(t.Context(), o, layer, small()); !errors.Is(err, ErrReserve) {
		t.Errorf("a new store with 1 MiB free: got %v, want %v", err, ErrReserve)
	}
	layer.setFree(0)
	db := mustOpen(t, o, layer, small())
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{City: "Bonn"}) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	layer.setFree(1 << 20)
	kept := filepath.Join(o.Dir, keptFile) // what only saves time goes first
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(t.Context(), o, layer, small()); !errors.Is(err, ErrReserve) {
		t.Errorf("a store with 1 MiB free: got %v, want %v", err, ErrReserve)
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("what was kept is still there: %v", err)
	}
	layer.setFree(0)
	db = mustOpen(t, o, layer, small())
	view(t, db, func(r Reader) error { _, err := docs().Get(r, Tuple("a")); return err })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDiskBytes wants the size of the tables, which Badger's own figure lacks without its metrics.
func TestDiskBytes(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, small())
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{City: "Bonn"}) })
	if err := db.Close(); err != nil { // which writes the memtable as a table
		t.Fatal(err)
	}
	db = mustOpen(t, o, osFS{}, small())
	if got := db.Stats().DiskBytes; got == 0 {
		t.Error("the tables have 0 bytes")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestClock(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.Built = time.Now().Add(time.Hour)
	db := mustOpen(t, o, osFS{}, small())
	if err := db.Health(); !errors.Is(err, ErrClock) {
		t.Errorf("before the build date: %v", err)
	}
	if err := db.Update(t.Context(), func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{}) }); !errors.Is(err, ErrClock) {
		t.Errorf("update: %v", err)
	}
	view(t, db, func(r Reader) error { return nil })
	mustClose(t, db)
	o.Built = time.Time{}
	db = mustOpen(t, o, osFS{}, small())
	update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("a"), doc{}) })
	db.newest.Store(time.Now().Add(6 * time.Minute).UnixNano()) // as if the clock had been set back
	if err := db.Health(); !errors.Is(err, ErrClock) {
		t.Errorf("before the newest commit: %v", err)
	}
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, small())
	if err := db.Health(); !errors.Is(err, ErrClock) {
		t.Errorf("after a restart: %v", err)
	}
	mustClose(t, db)
	r, err := Repair(t.Context(), o)
	if err != nil || len(r.Actions) != 1 {
		t.Errorf("repair: %+v, %v", r, err)
	}
	db = mustOpen(t, o, osFS{}, small())
	if err := db.Health(); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	mustClose(t, db)
}

func TestNewerFormat(t *testing.T) {
	o := testOptions(t, t.TempDir())
	mustClose(t, mustOpen(t, o, osFS{}, small()))
	name := filepath.Join(o.Dir, formatFile)
	if err := os.WriteFile(name, []byte(`{"rung":99,"name":"later","shape":[1]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(t.Context(), o, osFS{}, small()); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("got %v", err)
	}
}

// TestPermissions: whoever is not the owner can read nothing.
func TestPermissions(t *testing.T) {
	o := testOptions(t, filepath.Join(t.TempDir(), "data"))
	mustClose(t, mustOpen(t, o, osFS{}, small()))
	for name, want := range map[string]fs.FileMode{".": 0o700, masterKeyFile: 0o600, formatFile: 0o600, checkpointFile: 0o600} {
		st, err := os.Stat(filepath.Join(o.Dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

// TestNoRoomForACheckpoint: somebody else fills the disk to its end. The record of a checkpoint
// can't be written then; that loses nothing, and must not end the store's writes for good.
func TestNoRoomForACheckpoint(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		t.Run(op, func(t *testing.T) {
			o := testOptions(t, t.TempDir())
			o.CheckpointEvery = 10 * time.Millisecond
			layer := &faultFS{}
			db := mustOpen(t, o, layer, small())
			var refused atomic.Int64
			layer.set(func(what, name string) error {
				if what == op && filepath.Base(name) == checkpointFile+".tmp" {
					refused.Add(1)
					return unix.ENOSPC
				}
				return nil
			})
			put := func(n int64) {
				t.Helper()
				if err := db.Update(t.Context(), func(tx *Tx) error { return docs().Put(tx, Tuple("n"), doc{Number: n}) }); err != nil {
					t.Fatalf("update %d: %v", n, err)
				}
			}
			before := db.Stats().Checkpoints
			for n := int64(1); refused.Load() < 5; n++ {
				put(n)
			}
			if err := db.Health(); err != nil || db.Stats().Checkpoints != before {
				t.Errorf("health %v, %d checkpoints", err, db.Stats().Checkpoints-before)
			}
			layer.set(nil)
			for n := int64(1000); db.Stats().Checkpoints == before; n++ {
				put(n)
			}
			put(7777)
			mustClose(t, db)
			db = mustOpen(t, o, osFS{}, small())
			defer mustClose(t, db)
			view(t, db, func(r Reader) error {
				v, err := docs().Get(r, Tuple("n"))
				if v.Number != 7777 {
					t.Errorf("reopened: %d", v.Number)
				}
				return err
			})
		})
	}
}
