package storage

import (
	"runtime"
	"time"
)

const (
	// mergeThreads is on how many goroutines about Badger computes while it merges level 0: it cuts
	// the keys into at most five ranges, and each range fills one table while others are compressed
	// and written.
	mergeThreads = 12
	// threadsLook is how often paceThreads looks. A merge takes seconds.
	threadsLook = 100 * time.Millisecond
)

// paceThreads sets GOMAXPROCS until the store closes: to Options.Threads, and above that while
// Badger merges level 0.
//
// A merge computes on a dozen goroutines for seconds, and Go's scheduler lets each of them run for
// 10 ms. With all places taken by them, whoever comes back from a sync or is woken by another
// waits behind them, and a transaction does so several times. With a place for each of
// them, it is the kernel that divides the processors, and it lets who slept go first. Without a
// merge more places only cost: each looks for work before it sleeps.
func (db *DB) paceThreads() {
	paceThreads(db.closing, db.opt.Threads, db.merging, func(n int) { runtime.GOMAXPROCS(n) })
}

func paceThreads(closing <-chan struct{}, few int, merging func() bool, set func(n int)) {
	t := time.NewTicker(threadsLook)
	defer t.Stop()
	set(few)
	for now := few; ; {
		select {
		case <-closing:
			set(few)
			return
		case <-t.C:
		}
		next := few
		if merging() {
			next += mergeThreads
		}
		if next != now { // each change stops the world for a moment
			set(next)
			now = next
		}
	}
}

// merging reports whether Badger, which must be open, merges level 0: that begins when so many
// tables have gathered, and they stay until it is done.
func (db *DB) merging() bool { return db.badger.Levels()[0].NumTables >= db.tune.levelZero }
