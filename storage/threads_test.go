package storage

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestMerging: a store that is written to says that level 0 is merged, and one that has become quiet
// does not.
func TestMerging(t *testing.T) {
	t.Parallel()
	tune := small()
	tune.levelZero = 2
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tune)
	var seen atomic.Bool
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if db.merging() {
				seen.Store(true)
				return
			}
		}
	}()
	tab := docs()
	for i := 0; i < 5000 && !seen.Load(); i++ {
		update(t, db, func(tx *Tx) error { return tab.Put(tx, Tuple(uint64(i)), doc{Text: text(4<<10, "x")}) })
	}
	close(stop)
	<-stopped
	if !seen.Load() {
		t.Error("20 MiB were written, and no merge was seen")
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if !db.merging() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a quiet store merges without end")
		}
	}
	mustClose(t, db)
}
