package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What a part of a transaction did that failed is gone, and the rest is not.
func TestTry(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tuning{})
	defer mustClose(t, db)
	tab, log := docs(), changes()
	failed := errors.New("failed")
	called := map[string]int{}
	part := func(tx *Tx, name string, n int64, with error) func() error {
		return func() error {
			for i := range 20 { // beyond where writes have an index
				if err := tab.Put(tx, Tuple(name, uint64(i)), doc{City: name, Number: n}); err != nil {
					return err
				}
			}
			tx.Add("docs", n)
			tx.Add(name, n)
			tx.OnCommit(func(uint64) { called[name]++ })
			return errors.Join(
				tab.Put(tx, Tuple("shared"), doc{City: name, Number: n}), tab.Put(tx, Tuple("shared"), doc{City: name + " again", Number: n}),
				tab.Delete(tx, Tuple("before")), log.Append(tx, []byte(name)), with)
		}
	}
	update(t, db, func(tx *Tx) error {
		if err := errors.Join(tab.Put(tx, Tuple("before"), doc{City: "before", Number: 1}), tx.Try(part(tx, "kept", 1, nil))); err != nil {
			return err
		}
		size, puts := tx.size, tx.puts
		if err := tx.Try(part(tx, "gone", 10, failed)); !errors.Is(err, failed) {
			t.Errorf("got %v", err)
		}
		if tx.size != size || tx.puts != puts {
			t.Errorf("size and puts are %d and %d, were %d and %d", tx.size, tx.puts, size, puts)
		}
		func() {
			defer func() { _ = recover() }()
			_ = tx.Try(func() error { _ = part(tx, "panicked", 10, nil)(); panic("in a part") })
		}()
		if err := tx.Try(func() error { return tx.Try(func() error { return nil }) }); err == nil {
			t.Error("parts must not nest")
		}
		return tx.Try(part(tx, "later", 100, nil))
	})
	view(t, db, func(r Reader) error {
		var got strings.Builder
		for it, err := range tab.Scan(r, Range{}) {
			if err != nil {
				return err
			}
			if p, _ := it.Key.Parts(); len(p) == 1 {
				got.WriteString(fmt.Sprint(p[0], "=", it.Value.City, it.Value.Number, " "))
			} else if p[1] == uint64(7) {
				got.WriteString(fmt.Sprint(p[0], it.Value.Number, " "))
			}
		}
		for it, err := range tab.Lookup(r, "city", Range{Start: Tuple("g"), End: Tuple("h")}) {
			t.Errorf("an index entry is left: %v %v", it, err)
		}
		if want := "kept1 later100 shared=later again100 "; got.String() != want {
			t.Errorf("records %q, want %q", got.String(), want)
		}
		for name, want := range map[string]int64{"docs": 101, "kept": 1, "gone": 0, "panicked": 0, "later": 100} {
			if n, err := Counter(r, name); n != want || err != nil {
				t.Errorf("counter %s is %d, %v, want %d", name, n, err, want)
			}
		}
		if _, last, err := log.Bounds(r); last != 2 || err != nil {
			t.Errorf("the log has %d entries, %v", last, err)
		}
		return nil
	})
	if len(called) != 2 || called["kept"] != 1 || called["later"] != 1 {
		t.Errorf("callbacks ran: %v", called)
	}
}
