package storage

import "testing"

// TestUnchanged: what was read at a sequence is told to be the same until it is written, by others or
// by the transaction itself, and a transaction that was told so depends on it.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	tab := docs()
	key, other := Tuple("a"), Tuple("b")
	put := func(key Key, n int64) {
		update(t, db, func(tx *Tx) error { return tab.Put(tx, key, doc{Number: n}) })
	}
	put(key, 1)
	put(other, 1)
	var seen uint64
	view(t, db, func(r Reader) error { seen = SequenceOf(r); return nil })
	expect := func(tx *Tx, what string, key Key, since uint64, want bool) {
		t.Helper()
		if got := tab.Unchanged(tx, key, since); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	update(t, db, func(tx *Tx) error {
		expect(tx, "nothing was written", key, seen, true)
		expect(tx, "nothing was ever written there", Tuple("c"), seen, true)
		expect(tx, "since a time before it", key, seen-2, false)
		expect(tx, "since nobody knows when", key, 0, false)
		if err := tab.Put(tx, other, doc{Number: 2}); err != nil {
			return err
		}
		expect(tx, "the transaction has written it", other, seen, false)
		return nil
	})
	update(t, db, func(tx *Tx) error {
		expect(tx, "another one has written another", key, seen, true)
		expect(tx, "another one has written it", other, seen, false)
		tx.Add("turn", 1)
		return nil
	})

	// It is written between the first half and the commit.
	attempts := 0
	update(t, db, func(tx *Tx) error {
		attempts++
		expect(tx, "in a later attempt", key, seen, attempts == 1)
		if attempts == 1 {
			put(key, 2)
		}
		return tab.Put(tx, Tuple("d"), doc{Number: int64(attempts)})
	})
	if attempts != 2 {
		t.Errorf("%d attempts, want 2: the transaction depended on what changed", attempts)
	}
	mustClose(t, db)
}
