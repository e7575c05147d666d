package storage

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// TestOpensWithoutMerges: after a crash Badger merges nothing until it was closed again, which waits
// for merges; after an orderly end it is opened once, and merges.
func TestOpensWithoutMerges(t *testing.T) {
	dir, m := crashed(t, 200, time.Hour)
	o := testOptions(t, dir)
	tune := small()
	var compactors []int
	tune.opened = func(b *badger.DB) { compactors = append(compactors, b.Opts().NumCompactors) }
	for _, c := range []struct {
		after string
		want  []int
	}{{"a crash", []int{0, 2}}, {"an orderly end", []int{2}}} {
		compactors = nil
		db := mustOpen(t, o, osFS{}, tune)
		if !slices.Equal(compactors, c.want) {
			t.Errorf("after %s Badger was opened with %v goroutines that merge, want %v", c.after, compactors, c.want)
		}
		m.check(t, db)
		mustClose(t, db)
	}
}

// TestBadgerWithoutMerges: as many tables as a replay brings gather in level 0, and nobody waits for
// their merge, which does not come.
func TestBadgerWithoutMerges(t *testing.T) {
	tune := small().withDefaults(minMemory)
	tune.levelZero = 2
	b, err := openBadger(t.TempDir(), tune, false, &badgerLog{log: testOptions(t, "").Logger})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeBadger(b); err != nil {
			t.Error(err)
		}
	}()
	value := []byte(text(4<<10, "x"))
	for n := uint64(1); b.Levels()[0].NumTables <= 4*tune.levelZero; n++ {
		if n > 4000 {
			t.Fatalf("%d tables in level 0 after %d values", b.Levels()[0].NumTables, n)
		}
		txn := b.NewTransactionAt(n, true)
		if err := txn.Set(fmt.Appendf(nil, "t/%d", n%100), value); err != nil {
			t.Fatal(err)
		}
		if err := txn.CommitAt(n, nil); err != nil {
			t.Fatal(err)
		}
	}
}
