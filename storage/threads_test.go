package storage

import (
	"runtime"
	"testing"
	"time"
)

// TestThreads: a store that may set GOMAXPROCS sets it, raises it while level 0 is merged, and then
// and when it is closed has it as before. It is no parallel test: GOMAXPROCS is the process's.
func TestThreads(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	few := before + 1
	tune := small()
	tune.levelZero = 2
	o := testOptions(t, t.TempDir())
	o.Threads = few
	db := mustOpen(t, o, osFS{}, tune)
	tab := docs()
	end := time.Now().Add(30 * time.Second)
	// A merge of so little is short, and has to be under way when the store looks.
	for i := uint64(0); runtime.GOMAXPROCS(0) != few+mergeThreads; i++ {
		if time.Now().After(end) {
			t.Fatalf("%d threads while %d updates were written, want %d during a merge", runtime.GOMAXPROCS(0), i, few+mergeThreads)
		}
		update(t, db, func(tx *Tx) error { return tab.Put(tx, Tuple(i%1000), doc{Text: text(4<<10, "x")}) })
	}
	look := time.NewTicker(threadsLook / 10)
	defer look.Stop()
	for runtime.GOMAXPROCS(0) != few {
		if time.Now().After(end) {
			t.Fatalf("%d threads of a quiet store, want %d", runtime.GOMAXPROCS(0), few)
		}
		<-look.C
	}
	mustClose(t, db)
	if n := runtime.GOMAXPROCS(0); n != few {
		t.Errorf("%d threads after the store was closed, want %d", n, few)
	}
}
