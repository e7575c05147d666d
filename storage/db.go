package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// DB is an open store. Its methods are safe for concurrent use.
type DB struct {
	opt      Options
	fs       fsys
	tune     tuning
	limits   limits
	format   format
	seal     *sealer
	lock     *os.File
	badger   *badger.DB
	builders builders // of badger; for whom writes to it
	journal  *journal
	messages *MessageLog
	blobs    *Blobs
	hash     maphash.Seed // of keys
	recent   recent

	opened   keptOf        // what Open has found
	visible  atomic.Uint64 // newest sequence that readers see
	newest   atomic.Int64  // time of the newest commit, Unix ns
	settling settling
	readers  *readers
	cache    *recordCache
	tails    tails
	space    *spaceGuard
	keep     keeper

	queue    chan *request
	answers  sync.Pool     // of channels on which a request was answered: empty, and known to nobody
	commits  pending       // in queue and beyond
	closing  chan struct{} // closed when Close begins
	stopped  chan struct{} // closed when the last group has been answered
	broken   chan struct{} // closed at the first failed write
	closed   sync.Once
	closeErr error
	owned    sync.WaitGroup // the goroutines

	paused   atomic.Bool // restored, and not resumed
	resuming sync.Mutex

	failed  atomic.Pointer[error] // why the store is read-only
	trouble atomic.Pointer[error] // what Badger or a callback complained about
	count   counts
}

// counts are the counters behind Stats.
type counts struct {
	groups, commits, conflicts, reprepared, syncs, bytes, dropped    atomic.Uint64
	checkpoints, journalWaits, replayed, scannedTables, damagedTable atomic.Uint64
	lastGroup, checkpointNanos, checkpointAt                         atomic.Int64
}

// Open opens the store in Options.Dir, or makes one. It takes the directory for this process
// (ErrLocked names the holder), refuses what is damaged (ErrCorrupt names file and offset) or
// newer (ErrNewerFormat), replays the journal and takes a checkpoint before it returns. A wrong
// clock does not fail it: Health says so and nothing is written until the clock is right.
func Open(ctx context.Context, o Options) (*DB, error) { return openWith(ctx, o, osFS{}) }

// openWith is Open with another file layer and other sizes, for tests.
func openWith(ctx context.Context, o Options, fs fsys, t ...tuning) (*DB, error) {
	var tune tuning
	if len(t) > 0 {
		tune = t[0]
	}
	db, err := recoverStore(ctx, o.withDefaults(), fs, tune, strict)
	if err != nil {
		return nil, err
	}
	return db, nil
}

// start runs the goroutines; the store takes transactions from here on.
func (db *DB) start(heads map[string]*logHead) {
	c := newCommitter(db, db.visible.Load(), heads)
	for _, run := range []func(){c.run, c.sync, c.publish, db.apply, db.keepUp, db.scanTables, db.messages.run} {
		db.owned.Go(run)
	}
	if db.opt.Threads > 0 {
		db.owned.Go(db.paceThreads)
	}
}

// Close waits for the transactions under way and for open Views, settles everything in Badger,
// writes the final checkpoint and what is kept (Options.Kept), and frees the directory. After it every call is ErrClosed.
func (db *DB) Close() error {
	db.closed.Do(func() {
		close(db.closing)
		<-db.stopped
		db.readers.close()
		db.owned.Wait()
		db.closeErr = db.shut()
	})
	return db.closeErr
}

// shut closes the files, after a clean checkpoint when nothing has failed.
func (db *DB) shut() error {
	if db.merging() {
		db.opt.Logger.Info("waiting for a merge of level 0, which cannot be broken off and takes seconds; a kill would lose nothing, and the next start would take a little longer")
	}
	var errs []error
	errs = append(errs, closeBadger(db.badger))
	if db.failure() == nil && errs[0] == nil {
		m, err := db.lookAtManifest()
		if err == nil {
			err = db.writeCheckpoint(db.settling.applied.Load(), m, nil, true)
		}
		errs = append(errs, err)
		if err == nil {
			db.keepWhat() // last: it may take a while, and all else is done
		}
	}
	errs = append(errs, db.messages.close(), db.journal.close(), unlockDir(db.lock))
	return errors.Join(errs...)
}

// View runs f on a snapshot of what is durable. The Reader is valid until f returns, and several
// goroutines of f may use it.
func (db *DB) View(ctx context.Context, f func(r Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	snap, err := db.newSnapshot()
	if err != nil {
		return err
	}
	defer snap.end()
	return f(snap)
}

// bulkWindow is how many items of a bulk load are under way at once.
const bulkWindow = 512

// BulkLoad commits many items, each as one transaction, in order, and returns when all are
// durable. At the first error it stops; the items before the failed one are stored, and a few
// behind it may be.
func (db *DB) BulkLoad(ctx context.Context, items iter.Seq[func(tx *Tx) error]) error {
	var under []*request
	var first error
	oldest := func() {
		if err := db.await(ctx, under[0]); err != nil && first == nil {
			first = err
		}
		under = under[1:]
	}
	for item := range items {
		r, err := db.prepare(item, true)
		if (err != nil || r == nil) && len(under) > 0 {
			// It failed or did nothing on a snapshot that lacks the items before it: ask again.
			for len(under) > 0 {
				oldest()
			}
			if first != nil {
				break
			}
			r, err = db.prepare(item, true)
		}
		if err == nil && r != nil {
			if err = db.enqueue(ctx, r); err == nil {
				under = append(under, r)
			}
		}
		if err != nil {
			first = err
		}
		if len(under) >= bulkWindow {
			oldest()
		}
		if first != nil {
			break
		}
	}
	for len(under) > 0 {
		oldest()
	}
	return first
}

// Dir is the data directory.
func (db *DB) Dir() string { return db.opt.Dir }

// Epoch names this life of the directory.
func (db *DB) Epoch() Epoch {
	return Epoch{ID: db.format.EpochID, Ordinal: db.format.Ordinal, Started: db.format.Started}
}

// Health is nil while the store does everything it should, else the most important reason why
// not: ErrClosed, ErrReadOnly, ErrCorrupt, ErrClock, ErrReserve or what Badger complained about,
// with the next step.
func (db *DB) Health() error {
	now := time.Now()
	if err := db.writable(now); err != nil {
		return err
	}
	if p := db.trouble.Load(); p != nil {
		return *p
	}
	return db.space.check(now, false)
}

// writable is the part of Health that ends an Update before it begins.
func (db *DB) writable(now time.Time) error {
	select {
	case <-db.closing:
		return ErrClosed
	default:
	}
	if err := db.failure(); err != nil {
		return err
	}
	if db.format.Rung < currentRung {
		return fmt.Errorf("%w: it was opened with the format %s that it has, to be read", ErrReadOnly, db.format.Name)
	}
	return db.clockCheck(now)
}

func (db *DB) failure() error {
	if p := db.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail makes the store read-only for good.
func (db *DB) fail(cause error) {
	err := fmt.Errorf("%w: %w; look at the disk, then restart: the restart replays what was acknowledged", ErrReadOnly, cause)
	if db.failed.CompareAndSwap(nil, &err) {
		db.opt.Logger.Error("storage is read-only", "cause", cause)
		close(db.broken)
	}
}

// raise makes Health report a trouble that does not stop writes.
func (db *DB) raise(err error) { db.trouble.CompareAndSwap(nil, &err) }

// Stats returns counters and gauges; it is cheap enough for every scrape.
func (db *DB) Stats() Stats {
	c := &db.count
	s := Stats{
		Groups: c.groups.Load(), Commits: c.commits.Load(), Conflicts: c.conflicts.Load(),
		Reprepared: c.reprepared.Load(), Syncs: c.syncs.Load(), JournalBytes: c.bytes.Load(),
		DroppedSubmits: c.dropped.Load(), Checkpoints: c.checkpoints.Load(),
		CheckpointAge:  time.Since(time.Unix(0, c.checkpointAt.Load())),
		CheckpointTime: time.Duration(c.checkpointNanos.Load()), JournalWaits: c.journalWaits.Load(),
		Visible: db.visible.Load(), Unsettled: len(db.settling.view.Load().groups), Queue: len(db.queue), ReserveBytes: db.space.reserve,
		Replayed: c.replayed.Load(), ScannedTables: c.scannedTables.Load(), DamagedTables: c.damagedTable.Load(),
		LastGroupCommits: int(c.lastGroup.Load()),
	}
	db.messages.stats(&s)
	s.JournalSegments = len(db.journal.names())
	s.FreeBytes, _ = db.space.look(time.Now()) // an error shows in Health
	if snap, err := db.newSnapshot(); err == nil {
		for _, l := range db.badger.Levels() { // its Size stays 0 without its metrics
			s.DiskBytes += l.Size
		}
		s.OldestSnapshot = db.readers.lowest()
		snap.end()
	}
	return s
}

func (db *DB) path(parts ...string) string {
	return filepath.Join(append([]string{db.opt.Dir}, parts...)...)
}
