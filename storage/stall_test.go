package storage

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// stuckSync makes the syncs of files whose name holds part wait until release is called.
func stuckSync(fs *faultFS, part string) (entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}, 100), make(chan struct{})
	fs.set(func(op, name string) error {
		if op == "sync" && strings.Contains(name, part) {
			in <- struct{}{}
			<-out
		}
		return nil
	})
	return in, func() {
		fs.set(nil)
		close(out)
	}
}

func TestStalled(t *testing.T) {
	t.Parallel()
	table := docs()
	put := func(tx *Tx) error { return table.Put(tx, Tuple("a"), doc{City: "Oslo"}) }
	for _, test := range []struct {
		name, file string
		write      func(db *DB) (answered chan error)
	}{
		{"a transaction whose sync does not return", "journal", func(db *DB) chan error {
			answered := make(chan error, 1)
			go func() { answered <- db.Update(context.Background(), put) }()
			return answered
		}},
		{"a submitted one", "journal", func(db *DB) chan error {
			answered := make(chan error, 1)
			answered <- db.Submit(put)
			return answered
		}},
		{"one that its caller gave up", "journal", func(db *DB) chan error {
			answered := make(chan error, 1)
			go func() {
				ctx, stop := context.WithTimeout(context.Background(), time.Millisecond)
				defer stop()
				err := db.Update(ctx, put)
				if errors.Is(err, ErrUncertain) || errors.Is(err, context.DeadlineExceeded) {
					err = nil // as it should be
				}
				answered <- err
			}()
			return answered
		}},
		{"a message", "messages", func(db *DB) chan error {
			answered := make(chan error, 1)
			if err := db.Messages().Append([]byte("m"), func(_ uint64, err error) { answered <- err }); err != nil {
				answered <- err
			}
			return answered
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fs := &faultFS{}
			db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
			defer mustClose(t, db)
			if n := db.Stalled(); n != 0 {
				t.Fatalf("an idle store is stalled for %s", n)
			}
			entered, release := stuckSync(fs, test.file)
			answered := test.write(db)
			select {
			case <-entered:
			case <-time.After(30 * time.Second):
				t.Fatal("the sync was not reached")
			}
			first := db.Stalled()
			for began := time.Now(); time.Since(began) < 2*time.Millisecond; {
			}
			if second := db.Stalled(); second <= first || second < 2*time.Millisecond {
				t.Errorf("stalled for %s, then for %s", first, second)
			}
			release()
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			update(t, db, func(tx *Tx) error { return table.Put(tx, Tuple("b"), doc{City: "Bern"}) })
			for began := time.Now(); db.Stalled() != 0; {
				if time.Since(began) > 30*time.Second {
					t.Fatal("stalled for good")
				}
			}
			if n := db.commits.open.Load() + db.messages.pending.open.Load(); n != 0 {
				t.Errorf("%d are counted as waiting, none does", n)
			}
		})
	}
}

// Whatever way a transaction ends, it is not counted as waiting any more.
func TestStalledCounts(t *testing.T) {
	t.Parallel()
	table := docs()
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	failing := errors.New("no")
	gone, stop := context.WithCancel(t.Context())
	stop()
	_ = db.Update(t.Context(), func(*Tx) error { return failing })
	_ = db.Update(gone, func(tx *Tx) error { return table.Put(tx, Tuple("a"), doc{}) })
	_ = db.Update(t.Context(), func(*Tx) error { return nil })
	_ = db.Submit(func(tx *Tx) error { return table.Put(tx, Tuple("a"), doc{}) })
	update(t, db, func(tx *Tx) error { return table.Put(tx, Tuple("c"), doc{}) })
	mustClose(t, db)
	_ = db.Submit(func(tx *Tx) error { return table.Put(tx, Tuple("a"), doc{}) })
	_ = db.Update(t.Context(), func(tx *Tx) error { return table.Put(tx, Tuple("a"), doc{}) })
	if n := db.commits.open.Load(); n != 0 || db.Stalled() != 0 {
		t.Errorf("%d are counted as waiting", n)
	}
}
