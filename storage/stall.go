package storage

import (
	"sync/atomic"
	"time"
)

// pending follows work that one of the store's goroutines was given and has not answered. From it
// a watchdog learns that a goroutine is stuck, without a write of its own: on an idle store
// nothing waits, and nothing has to be tried.
//
// Who hands work over calls take before, who answers it calls answer. Two atomic operations and a
// look at the monotonic clock a transaction; no lock, so a stuck holder of one is seen too.
type pending struct {
	born  time.Time    // what moved counts from
	open  atomic.Int64 // given and not answered
	moved atomic.Int64 // when something was answered last, or given while nothing waited; ns since born
}

func (p *pending) take() {
	if p.open.Load() == 0 { // before the count rises, else stalled could see an old time
		p.moved.Store(int64(time.Since(p.born)))
	}
	p.open.Add(1)
}

func (p *pending) answer(n int) {
	p.moved.Store(int64(time.Since(p.born)))
	p.open.Add(-int64(n))
}

// stalled is how long something has waited while nothing was answered; 0 when nothing waits.
func (p *pending) stalled() time.Duration {
	if p.open.Load() == 0 {
		return 0
	}
	return max(0, time.Since(p.born)-time.Duration(p.moved.Load()))
}

// Stalled is how long transactions or messages have waited while not one of them was answered: the
// sign of a disk that does not return from a sync, or of a goroutine that is stuck. It is 0 when
// nothing waits. It takes no lock and does no I/O.
func (db *DB) Stalled() time.Duration {
	return max(db.commits.stalled(), db.messages.pending.stalled())
}
