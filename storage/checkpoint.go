package storage

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// checkpoint is the content of CHECKPOINT: everything up to Sequence is durable in Badger's
// files, and how long those files were then. It lies outside Badger, whose own recovery after a
// power cut need not end at one sequence.
type checkpoint struct {
	Sequence  uint64     `json:"sequence"`
	Newest    int64      `json:"newest"` // time of the newest commit, Unix ns
	Epoch     string     `json:"epoch"`
	Clean     bool       `json:"clean"`    // Badger was closed: no .mem holds anything
	MemTable  int64      `json:"memtable"` // Badger's memtable size, fixed while not clean
	Inode     uint64     `json:"manifestInode"`
	First     string     `json:"manifestFirst,omitempty"` // see manifest; absent from records of older programs
	Manifest  int64      `json:"manifestLength"`
	Tables    []uint64   `json:"tables,omitempty"` // of a clean directory: exactly these
	Memtables []memState `json:"memtables,omitempty"`
	Segments  []string   `json:"segments"`

	lost bool // a repair goes on without the record
}

// memState is what a .mem held at the checkpoint: versions First to Last up to Length.
type memState struct {
	Name   string `json:"name"`
	Length int64  `json:"length"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
}

// keeper is the state of the goroutine that takes checkpoints and grows the journal.
type keeper struct {
	kick  chan struct{} // capacity 1
	since atomic.Int64  // journal bytes since the newest checkpoint
	taken uint64        // sequence of the newest checkpoint
	mems  map[string]memScan
}

// wrote counts journal bytes and asks for a checkpoint or a segment in time.
func (db *DB) wrote(n int64) {
	grow, starved := db.journal.wants()
	if db.keep.since.Add(n) >= db.opt.CheckpointBytes || grow || starved {
		db.kickKeeper()
	}
}

func (db *DB) kickKeeper() {
	wake(db.keep.kick)
}

// waitForSegment blocks the journal's goroutine until a segment is free or the store fails.
func (db *DB) waitForSegment(freed <-chan struct{}) error {
	db.count.journalWaits.Add(1)
	db.kickKeeper()
	select {
	case <-freed:
		return nil
	case <-db.broken:
		return db.failure()
	}
}

// keepUp grows the journal's pool and takes checkpoints, outside the committer, until the last
// group has been answered.
func (db *DB) keepUp() {
	tick := time.NewTicker(db.opt.CheckpointEvery)
	defer tick.Stop()
	for {
		due := false
		select {
		case <-tick.C:
			due = true
		case <-db.keep.kick:
		case <-db.stopped:
			return
		}
		if db.failure() != nil {
			continue
		}
		grow, starved := db.journal.wants()
		if grow {
			if err := db.journal.grow(); err != nil {
				db.fail(err)
				continue
			}
		}
		if due || starved && !grow || db.keep.since.Load() >= db.opt.CheckpointBytes {
			switch err := db.checkpoint(); {
			case errors.Is(err, errNoRoom):
				// Somebody else took the space below the reserve. The last checkpoint stands and
				// everything is in the journal; the next tick tries again.
				db.opt.Logger.Warn("a checkpoint waits for room on the disk", "error", err)
			case err != nil:
				db.fail(err)
			}
		}
	}
}

// errNoRoom says that there was no room to write a checkpoint's record. Unlike a failed sync of
// what holds data, that loses nothing.
var errNoRoom = errors.New("there is no room for the record of a checkpoint")

// checkpoint makes everything that Badger has now durable in Badger's files by syncing the
// files, records it, and frees the journal up to there. Writers go on meanwhile.
func (db *DB) checkpoint() error {
	started := time.Now()
	db.keep.since.Store(0)
	seq := db.settling.applied.Load() // before anything is listed
	if seq == db.keep.taken && db.count.checkpoints.Load() > 0 {
		db.count.checkpointAt.Store(started.UnixNano())
		return nil
	}
	m, err := db.lookAtManifest()
	if err != nil {
		return err
	}
	mems, err := db.listMemtables(seq)
	if err != nil {
		return err
	}
	if err := db.syncBadgerFiles(); err != nil {
		return err
	}
	if err := db.writeCheckpoint(seq, m, mems, false); err != nil {
		if _, old := errors.AsType[notReplaced](err); old && errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%w: %w", errNoRoom, err)
		}
		return err
	}
	db.journal.recycle(seq)
	db.keep.taken = seq
	// Badger may forget versions that nobody reads, that the checkpoint covers (the last record
	// can be taken back, see undoOrphans) and that lie in tables (so that the table of a
	// vanished .mem can be told by its newest version).
	discard := min(seq, db.readers.oldest(seq))
	for _, m := range mems {
		discard = min(discard, m.First-1)
	}
	db.badger.SetDiscardTs(discard)
	db.count.checkpoints.Add(1)
	db.count.checkpointNanos.Store(int64(time.Since(started)))
	db.count.checkpointAt.Store(time.Now().UnixNano())
	return nil
}

// listMemtables reads on in every .mem from where the last checkpoint stopped. Entries up to seq
// are completely written; what Badger is writing now lies above.
func (db *DB) listMemtables(seq uint64) ([]memState, error) {
	dir := db.path(badgerDir)
	sizes, err := memFiles(db.fs, dir)
	if err != nil {
		return nil, err
	}
	var states []memState
	for name := range db.keep.mems {
		if _, ok := sizes[name]; !ok {
			delete(db.keep.mems, name)
		}
	}
	for name, size := range sizes {
		if size == 0 {
			continue // on its way out: its table is durable
		}
		s, err := scanMem(db.fs, filepath.Join(dir, name), db.keep.mems[name], seq, false)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		db.keep.mems[name] = s
		if s.last > 0 {
			states = append(states, memState{Name: name, Length: s.length, First: s.first, Last: s.last})
		}
	}
	slices.SortFunc(states, func(a, b memState) int { return strings.Compare(a.Name, b.Name) })
	return states, nil
}

// syncBadgerFiles syncs what Badger leaves to the kernel: all but the tables, which it syncs when
// it makes them. A file that vanishes meanwhile has its table on disk already.
func (db *DB) syncBadgerFiles() error {
	dir := db.path(badgerDir)
	entries, err := db.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		switch ext := filepath.Ext(name); {
		case ext == ".mem", ext == ".vlog", name == "MANIFEST", name == "DISCARD", name == "KEYREGISTRY":
		default:
			continue
		}
		if err := db.fs.SyncFile(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return db.fs.SyncDir(dir)
}

// manifestState is what a checkpoint records about Badger's MANIFEST. It is read before the
// file is synced, so that nothing is recorded that a power cut could still take away.
type manifestState struct {
	manifest
	inode uint64
}

func (db *DB) lookAtManifest() (manifestState, error) {
	name := db.path(badgerDir, "MANIFEST")
	for { // Badger may replace the file between the two looks
		before, err := fileInode(db.fs, name)
		if err != nil {
			return manifestState{}, err
		}
		m, err := readManifest(db.fs, name)
		if err != nil {
			return manifestState{}, err
		}
		after, err := fileInode(db.fs, name)
		if err != nil {
			return manifestState{}, err
		}
		if before == after {
			return manifestState{m, after}, nil
		}
	}
}

// writeCheckpoint writes the record. clean means that Badger is closed.
func (db *DB) writeCheckpoint(seq uint64, m manifestState, mems []memState, clean bool) error {
	c := checkpoint{
		Sequence: seq, Newest: db.newest.Load(), Epoch: db.format.EpochID, Clean: clean,
		MemTable: db.tune.memTable, Inode: m.inode, First: m.first, Manifest: m.length, Memtables: mems, Segments: db.journal.names(),
	}
	if clean {
		for id := range m.tables {
			c.Tables = append(c.Tables, id)
		}
		slices.Sort(c.Tables)
	}
	return writeText(db.fs, db.path(checkpointFile), c)
}

func fileInode(fs fsys, name string) (uint64, error) {
	st, err := fs.Stat(name)
	if err != nil {
		return 0, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Ino, nil
	}
	return math.MaxUint64, nil
}
