package storage

import (
	"context"
	"fmt"
	"time"
)

const (
	// How long work that nobody waits for rests after each piece: at least paceRest, and while
	// others are there paceTimes as long as the piece took, paceMost at most.
	paceRest  = 2 * time.Millisecond
	paceTimes = 4
	paceMost  = 2 * time.Second // on a machine that is full a piece takes long, and so must the rest
)

// pacer has long work rest between its pieces, so that those who wait for a transaction find the
// processor and the disk free. It belongs to one goroutine.
type pacer struct {
	busy  func() bool // reports whether others are there; nil: they are not
	began time.Time
}

func newPacer(busy func() bool) *pacer { return &pacer{busy: busy, began: time.Now()} }

// pacer is busy while transactions or messages are stored.
func (db *DB) pacer() *pacer {
	var commits, syncs uint64
	return newPacer(func() bool {
		var s Stats
		db.messages.stats(&s)
		n, m := db.count.commits.Load(), s.MessageSyncs
		busy := n != commits || m != syncs
		commits, syncs = n, m
		return busy
	})
}

// rest ends a piece. idle is how much of its time was not work. It returns the context's cause when
// that ends.
func (p *pacer) rest(ctx context.Context, idle time.Duration) error {
	d := paceRest
	if p.busy != nil && p.busy() {
		d = min(max(d, paceTimes*(time.Since(p.began)-idle)), paceMost)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	p.began = time.Now()
	return context.Cause(ctx)
}

// spaceStop returns a function that fails once free space has fallen below the reserve since: then
// whatever runs may be what fills the disk. Where it was below already, it is not, and goes on.
func (db *DB) spaceStop() func() error {
	free, err := db.space.look(time.Now())
	if err != nil || free < db.space.reserve {
		return nil
	}
	return func() error {
		if free, err := db.space.look(time.Now()); err == nil && free < db.space.reserve {
			return fmt.Errorf("%w: while the backup ran, the free space of %s fell to %d MiB, below the %d MiB that the store keeps; the backup was stopped: write it to another disk, or make room",
				ErrReserve, db.opt.Dir, free>>20, db.space.reserve>>20)
		}
		return nil
	}
}
