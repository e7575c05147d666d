package storage

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// held is a store in which groups become visible and do not settle until open is called.
func held(t *testing.T, o Options, tune tuning) (db *DB, open func()) {
	t.Helper()
	gate := make(chan struct{})
	tune.beforeSettle = func(uint64) error { <-gate; return nil }
	open = sync.OnceFunc(func() { close(gate) })
	db = mustOpen(t, o, osFS{}, tune)
	t.Cleanup(func() { open(); _ = db.Close() })
	return db, open
}

// TestReadsOverUnsettledGroups compares every way to read with a model while part of the records
// is in Badger, part only in layers, and part in both with different values.
func TestReadsOverUnsettledGroups(t *testing.T) {
	rng := seeded(t)
	o := testOptions(t, t.TempDir())
	tab := docs()
	model := map[string]doc{}
	step := func(db *DB) {
		update(t, db, func(tx *Tx) error {
			tx.Add("turn", 1) // a step that deletes only what is absent is a group, too
			for range 3 {
				key := fmt.Sprintf("k%02d", rng.IntN(40))
				if rng.IntN(3) == 0 {
					delete(model, key)
					if err := tab.Delete(tx, Tuple(key)); err != nil {
						return err
					}
					continue
				}
				v := doc{City: []string{"Bonn", "Ulm", ""}[rng.IntN(3)], Number: rng.Int64N(1000)}
				model[key] = v
				if err := tab.Put(tx, Tuple(key), v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	check := func(db *DB) {
		t.Helper()
		keys := slices.Sorted(maps.Keys(model))
		compare := func(r Reader) error {
			for i := range 40 {
				key := fmt.Sprintf("k%02d", i)
				got, err := tab.Get(r, Tuple(key))
				want, ok := model[key]
				if ok && (err != nil || got != want) || !ok && !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %v, %v; want %v, %v", key, got, err, want, ok)
				}
			}
			for _, reverse := range []bool{false, true} {
				from, to := rng.IntN(40), rng.IntN(41)
				rg := Range{Start: Tuple(fmt.Sprintf("k%02d", from)), End: Tuple(fmt.Sprintf("k%02d", to)), Reverse: reverse}
				var got, want []doc
				for item, err := range tab.Scan(r, rg) {
					if err != nil {
						return err
					}
					got = append(got, item.Value)
				}
				for _, key := range keys {
					if key >= fmt.Sprintf("k%02d", from) && key < fmt.Sprintf("k%02d", to) {
						want = append(want, model[key])
					}
				}
				if reverse {
					slices.Reverse(want)
				}
				if !slices.Equal(got, want) {
					t.Errorf("range %d to %d, reverse %v: %v, want %v", from, to, reverse, got, want)
				}
			}
			var got, want []string
			for item, err := range tab.Lookup(r, "city", Range{Prefix: Tuple("Ulm")}) {
				if err != nil {
					return err
				}
				got = append(got, string(item.Key))
			}
			for _, key := range keys {
				if model[key].City == "Ulm" {
					want = append(want, string(Tuple(key)))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("index: %v, want %v", got, want)
			}
			return nil
		}
		view(t, db, compare)
		update(t, db, func(tx *Tx) error { return compare(tx) })
	}

	db := mustOpen(t, o, osFS{}, small())
	for range 20 {
		step(db)
	}
	mustClose(t, db)
	db, open := held(t, o, small())
	for range 30 {
		step(db)
		check(db)
	}
	if n := db.Stats().Unsettled; n < 30 {
		t.Fatalf("%d groups wait to settle, want 30 at least: the test tested nothing", n)
	}
	if db.settling.applied.Load() >= db.visible.Load() {
		t.Fatal("everything has settled")
	}
	var old []doc
	view(t, db, func(r Reader) error { // a snapshot stays what it was while its layers settle
		before := maps.Clone(model)
		open()
		step(db)
		for db.Stats().Unsettled > 0 {
			update(t, db, func(tx *Tx) error { tx.Add("turn", 1); return nil })
		}
		for item, err := range tab.Scan(r, Range{}) {
			if err != nil {
				return err
			}
			old = append(old, item.Value)
		}
		var want []doc
		for _, key := range slices.Sorted(maps.Keys(before)) {
			want = append(want, before[key])
		}
		if !slices.Equal(old, want) {
			t.Errorf("the old snapshot: %v, want %v", old, want)
		}
		return nil
	})
	check(db)
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, small())
	check(db)
	mustClose(t, db)
}

// TestUnsettledGroupsAreBounded: when Badger stands still, updates wait once the layers are full,
// and none is lost.
func TestUnsettledGroupsAreBounded(t *testing.T) {
	const size = 512 << 10
	const settleBytes = 16 << 20
	const updates = settleBytes/size + 20
	db, open := held(t, testOptions(t, t.TempDir()), tuning{settleBytes: settleBytes})
	tab := docs()
	answered := make(chan error, updates)
	go func() {
		for i := range updates { // one after another: each is a group
			answered <- db.Update(t.Context(), func(tx *Tx) error {
				return tab.Put(tx, Tuple(uint64(i)), doc{Text: text(size, "x")})
			})
		}
	}()
	count := 0
	for quiet := false; !quiet; {
		select {
		case err := <-answered:
			if err != nil {
				t.Fatal(err)
			}
			count++
		case <-time.After(300 * time.Millisecond): // a slow machine makes the bound look lower, never higher
			quiet = true
		}
	}
	if most := settleBytes/size + 2; count > most {
		t.Errorf("%d updates of %d bytes were answered, at most %d are allowed", count, size, most)
	}
	open()
	for ; count < updates; count++ {
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	}
	view(t, db, func(r Reader) error {
		n := 0
		for _, err := range tab.Scan(r, Range{}) {
			if err != nil {
				return err
			}
			n++
		}
		if n != updates {
			t.Errorf("%d records, want %d", n, updates)
		}
		return nil
	})
}

// TestBadgerFailsToSettle: what was acknowledged stays readable, the store takes no more, and a
// restart has everything from the journal.
func TestBadgerFailsToSettle(t *testing.T) {
	o := testOptions(t, t.TempDir())
	tune := small()
	tune.beforeSettle = func(seq uint64) error {
		if seq > 5 {
			return errors.New("no room")
		}
		return nil
	}
	db := mustOpen(t, o, osFS{}, tune)
	tab := docs()
	stored := 0
	for i := range 200 {
		err := db.Update(t.Context(), func(tx *Tx) error {
			return tab.Put(tx, Tuple(uint64(i)), doc{Number: int64(i), Text: text(1000, "x")})
		})
		if err != nil {
			if !errors.Is(err, ErrReadOnly) {
				t.Fatalf("update %d: %v, want ErrReadOnly", i, err)
			}
			break
		}
		stored++
	}
	if stored == 200 {
		t.Fatal("the store went on without Badger")
	}
	check := func(db *DB) {
		t.Helper()
		view(t, db, func(r Reader) error {
			for i := range stored {
				if v, err := tab.Get(r, Tuple(uint64(i))); err != nil || v.Number != int64(i) {
					t.Errorf("acknowledged update %d: %v, %v", i, v, err)
				}
			}
			return nil
		})
	}
	check(db)
	_ = db.Close() // it says why the store failed, or nothing
	db = mustOpen(t, o, osFS{}, small())
	check(db)
	mustClose(t, db)
}

// TestRecentOnlyGoesUp: the journal's goroutine seals a group when the committer is at the next
// ones. What these have written must stay known, or a transaction that has read the version before
// would replace it.
func TestRecentOnlyGoesUp(t *testing.T) {
	var r recent
	const key = 7
	for _, seq := range []uint64{3, 5, 4, 5, 1} {
		r.add(key, seq)
		r.add(key+recentKeys, seq-1) // in the same place
	}
	if !r.after(key, 4) || r.after(key, 5) {
		t.Error("a place went back, or beyond what was written")
	}
	var writers sync.WaitGroup
	for w := range uint64(4) {
		writers.Go(func() {
			for seq := range uint64(5000) {
				r.add(key, 4*seq+w)
				if !r.after(key, 4*seq+w-1) && seq+w > 0 {
					t.Errorf("%d is not known", 4*seq+w)
				}
			}
		})
	}
	writers.Wait()
}
