package storage

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

func TestRecordsIndexesLogsCounters(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, tuning{})
	tab, log, chain := docs(), changes(), auditLog()
	update(t, db, func(tx *Tx) error {
		for i, city := range []string{"Bonn", "Ulm", "Bonn", ""} {
			if err := tab.Put(tx, Tuple("k", uint64(i)), doc{City: city, Number: int64(i)}); err != nil {
				return err
			}
		}
		tx.Add("docs", 4)
		tx.SetCursor("reader", 7)
		got, err := tab.Get(tx, Tuple("k", uint64(1)))
		if err != nil || got.City != "Ulm" {
			t.Errorf("own write: %v, %v", got, err)
		}
		var cities []string
		for it, err := range tab.Lookup(tx, "city", Range{}) {
			if err != nil {
				return err
			}
			cities = append(cities, it.Value.City)
		}
		if !slices.Equal(cities, []string{"Bonn", "Bonn", "Ulm"}) {
			t.Errorf("index inside the transaction: %v", cities)
		}
		return errors.Join(log.Append(tx, []byte("one")), chain.Append(tx, []byte("a")), log.Append(tx, []byte("two")))
	})
	update(t, db, func(tx *Tx) error {
		tx.Add("docs", -1)
		return errors.Join(tab.Delete(tx, Tuple("k", uint64(0))), tab.Delete(tx, Tuple("absent")), chain.Append(tx, []byte("b")))
	})
	check := func(db *DB) {
		t.Helper()
		view(t, db, func(r Reader) error {
			if _, err := tab.Get(r, Tuple("k", uint64(0))); !errors.Is(err, ErrNotFound) {
				t.Errorf("deleted: %v", err)
			}
			var cities []string
			for it, err := range tab.Lookup(r, "city", Range{Reverse: true}) {
				if err != nil {
					return err
				}
				cities = append(cities, it.Value.City)
			}
			if !slices.Equal(cities, []string{"Ulm", "Bonn"}) {
				t.Errorf("index: %v", cities)
			}
			if n, err := Counter(r, "docs"); n != 3 || err != nil {
				t.Errorf("counter: %d, %v", n, err)
			}
			if n, err := Cursor(r, "reader"); n != 7 || err != nil {
				t.Errorf("cursor: %d, %v", n, err)
			}
			if first, last, err := log.Bounds(r); first != 1 || last != 2 || err != nil {
				t.Errorf("bounds: %d, %d, %v", first, last, err)
			}
			if n, bad, err := chain.Verify(t.Context(), r); n != 2 || bad != 0 || err != nil {
				t.Errorf("chain: %d, %d, %v", n, bad, err)
			}
			return nil
		})
	}
	check(db)
	sealed, err := db.Seal([]byte("secret"), "device a")
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, tuning{})
	check(db)
	if plain, err := db.Unseal(sealed, "device a"); string(plain) != "secret" || err != nil {
		t.Errorf("unseal: %q, %v", plain, err)
	}
	if _, err := db.Unseal(sealed, "device b"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("unseal elsewhere: %v", err)
	}
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	} else {
		t.Log(err)
	}
	mustClose(t, db)
	r, err := Verify(t.Context(), o)
	if err != nil || r.Records != 3 || r.Indexes != 2 || r.Logs != 4 {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

func TestConflicts(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tuning{})
	defer mustClose(t, db)
	tab, key := docs(), Tuple("n")
	var wg sync.WaitGroup
	const writers, rounds = 16, 50
	for range writers {
		wg.Go(func() {
			for range rounds {
				err := db.Update(context.Background(), func(tx *Tx) error {
					v, err := tab.Get(tx, key)
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					v.Number++
					tx.Add("sum", 1)
					if err := changes().Append(tx, []byte("x")); err != nil {
						return err
					}
					return tab.Put(tx, key, v)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	view(t, db, func(r Reader) error {
		v, err := tab.Get(r, key)
		n, cerr := Counter(r, "sum")
		_, last, lerr := changes().Bounds(r)
		if v.Number != writers*rounds || n != writers*rounds || last != writers*rounds {
			t.Errorf("%d increments, counter %d, log %d, want %d", v.Number, n, last, writers*rounds)
		}
		return errors.Join(err, cerr, lerr)
	})
	t.Logf("%+v", db.Stats())
}
