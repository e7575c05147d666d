package storage

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// deleteNotes is how many bytes a transaction may write beside each of its deletes and still
// count as one that deletes: log entries, counters, cursors.
const deleteNotes = 4 << 10

// spaceGuard looks at the free space at most once a second. Badger maps its files, so a full
// disk is not an error but the end of the process; writes must stop well before.
type spaceGuard struct {
	fs      fsys
	dir     string
	reserve int64

	mu     sync.Mutex
	looked time.Time
	free   int64
	err    error
}

// computedReserve is room for what the store may still have to write without asking: every
// memtable as log and as table, one compaction, the rest of the journal's pool.
func computedReserve(t tuning) int64 {
	memtables := 2 * t.memTable * int64(t.numMemtables+1)
	compaction := 10*t.tableSize + t.baseLevelSize
	journal := t.segmentSize * int64(t.segments) / 2
	return memtables + compaction + journal
}

// DiskSize returns the size of the file system that holds the store, in bytes.
func (db *DB) DiskSize() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(db.opt.Dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", db.opt.Dir, err)
	}
	return int64(st.Blocks) * int64(st.Bsize), nil
}

// openNeeds is what opening writes before a transaction could be refused: what the journal holds
// beyond the checkpoint (all of its pool at most), as tables, and memtables to begin with.
func openNeeds(t tuning, checkpointBytes int64) int64 {
	return 4*t.memTable + min(checkpointBytes, t.segmentSize*int64(t.segments))
}

// checkOpen refuses to open where that would end in the middle, killed by the system.
func (g *spaceGuard) checkOpen(needs int64) error {
	free, err := g.look(time.Now())
	if err == nil && free < needs {
		err = fmt.Errorf("%w: %d MiB are free on the file system of %s, opening needs %d MiB: make room and start again", ErrReserve, free>>20, g.dir, needs>>20)
	}
	return err
}

func (g *spaceGuard) look(now time.Time) (int64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := now.Sub(g.looked); d < 0 || d >= time.Second {
		g.free, _, g.err = g.fs.Free(g.dir)
		g.looked = now
	}
	return g.free, g.err
}

// check decides whether a transaction may run. deletes is for one that mostly frees space.
func (g *spaceGuard) check(now time.Time, deletes bool) error {
	free, err := g.look(now)
	switch {
	case err != nil:
		return fmt.Errorf("%w: the free space of %s is unknown: %v", ErrReserve, g.dir, err)
	case free >= g.reserve, deletes && free >= g.reserve/2:
		return nil
	case free >= g.reserve/2:
		return fmt.Errorf("%w: %d MiB are free on the file system of %s, %d MiB are reserved; only deletes and reads run: delete something or make room", ErrReserve, free>>20, g.dir, g.reserve>>20)
	}
	return fmt.Errorf("%w: %d MiB are free on the file system of %s, %d MiB are reserved; only reads run: make room", ErrReserve, free>>20, g.dir, g.reserve>>20)
}

// fileSystems are those whose order of metadata the store relies on, by statfs type.
func knownFileSystem(kind int64) bool {
	switch uint32(kind) {
	case 0xEF53, 0x58465342, 0x9123683E: // ext4, xfs, btrfs
		return true
	}
	return false
}
