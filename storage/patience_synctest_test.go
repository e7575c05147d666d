package storage

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience: transactions that may wait share a sync, and go at once with one that may not.
func TestPatience(t *testing.T) {
	const patience = time.Second
	for name, test := range map[string]struct {
		hurried time.Duration // after the first: one that may not wait for so long; negative: none
		less    time.Duration // for which that one may wait
		closed  time.Duration // after the first: the store closes; negative: it does not
		want    time.Duration // when the first is answered
	}{
		"nobody hurries":     {-1, 0, -1, patience},
		"one hurries":        {patience / 4, 0, -1, patience / 4},
		"one waits for less": {patience / 4, patience / 4, -1, patience / 2},
		"one hurries before": {0, 0, -1, patience},
		"the store closes":   {-1, 0, patience / 2, patience / 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				db := mustOpen(t, testOptions(t, dir), osFS{}, small())
				put := func(n uint64, d time.Duration) {
					update(t, db, func(tx *Tx) error {
						tx.MayWait(d)
						return docs().Put(tx, Tuple(n), doc{Text: "x"})
					})
				}
				if test.hurried == 0 {
					put(100, 0)
				}
				syncs, began := db.Stats().Syncs, time.Now()
				var writers sync.WaitGroup
				for i := range 20 {
					writers.Go(func() {
						time.Sleep(time.Duration(i) * time.Millisecond)
						put(uint64(i), patience)
						if took := time.Since(began); took != test.want {
							t.Errorf("transaction %d was answered after %s, want %s", i, took, test.want)
						}
					})
				}
				if test.hurried > 0 {
					time.Sleep(test.hurried)
					put(100, test.less)
					if took := time.Since(began); took != test.hurried+test.less {
						t.Errorf("one that hurries was answered after %s, want %s", took, test.hurried+test.less)
					}
				}
				if test.closed > 0 {
					time.Sleep(test.closed)
					mustClose(t, db)
				}
				writers.Wait()
				if n := db.Stats().Syncs - syncs; n != 1 {
					t.Errorf("%d syncs, want 1 for all", n)
				}
				if test.closed <= 0 {
					mustClose(t, db)
				}
				db = mustOpen(t, testOptions(t, dir), osFS{}, small())
				view(t, db, func(r Reader) error {
					for i := range 20 {
						if _, err := docs().Get(r, Tuple(uint64(i))); err != nil {
							t.Errorf("transaction %d: %v", i, err)
						}
					}
					return nil
				})
				mustClose(t, db)
			})
		})
	}
}
