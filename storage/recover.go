package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// mode says what recovery does with damage.
type mode struct {
	repair bool    // go on with what is left
	report *Report // where Repair writes what it did; never nil when repair is set

	restore *BackupInfo // the backup that a new directory is filled from; nothing is started
}

var strict = mode{}

// recoverStore is Open: it brings a directory into the state that its journal says and starts
// the store. The steps are listed in docs/reference/storage-format.md.
func recoverStore(ctx context.Context, o Options, fs fsys, tune tuning, m mode) (db *DB, err error) {
	if o.Dir == "" {
		return nil, errors.New("storage: Options.Dir is empty")
	}
	if err := fs.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	db = &DB{
		opt: o, fs: fs, lock: lock, hash: maphash.MakeSeed(),
		tails: tails{logs: map[string]*tail{}}, settling: newSettling(),
		keep:    keeper{kick: make(chan struct{}, 1), mems: map[string]memScan{}},
		closing: make(chan struct{}), stopped: make(chan struct{}), broken: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			if db.badger != nil {
				err = errors.Join(err, closeBadger(db.badger))
			}
			if db.messages != nil {
				err = errors.Join(err, db.messages.close())
			}
			if db.journal != nil {
				err = errors.Join(err, db.journal.close())
			}
			err = errors.Join(err, unlockDir(lock))
			db = nil
		}
	}()
	if _, kind, err := fs.Free(o.Dir); err == nil && !knownFileSystem(kind) {
		o.Logger.Warn("this file system's behavior at a power cut is not known to be safe; use ext4, xfs or btrfs",
			"dir", o.Dir, "type", fmt.Sprintf("%#x", kind))
	}
	if m.repair { // what is lost from here on may leave the sequence as it was
		if err := db.forgetKept(); err != nil {
			return db, err
		}
	}
	ckpt, err := db.identify(tune, m)
	if err != nil {
		return db, err
	}
	heads, err := db.settle(ctx, ckpt, m)
	if err != nil {
		return db, err
	}
	if db.messages, err = openMessages(db, m); err != nil {
		return db, err
	}
	if db.blobs, err = openBlobs(db); err != nil {
		return db, err
	}
	if m.restore != nil {
		return db, nil
	}
	if err := db.climb(ctx, m); err != nil {
		return db, err
	}
	db.opened = db.keptOf()
	db.start(heads)
	return db, nil
}

// identify reads FORMAT, master key, checkpoint and the journal's headers, or makes them.
func (db *DB) identify(tune tuning, m mode) (checkpoint, error) {
	o, fs := db.opt, db.fs
	if half, err := exists(fs, db.path(restoringFile)); err != nil || half && m.restore == nil {
		return checkpoint{}, errors.Join(err, fmt.Errorf("%w: %s; run `muster restore` again", ErrRestoring, o.Dir))
	}
	f, ok, err := readFormat(fs, o.Dir)
	if err == nil && !ok {
		err = db.refuseOrphan()
	}
	rescued := err != nil && m.repair && errors.Is(err, ErrCorrupt)
	if rescued {
		f, err = db.rescueFormat(m, err)
		ok = true
	}
	if err != nil {
		return checkpoint{}, err
	}
	db.seal, err = loadMasterKey(fs, o.masterKeyPath(), !ok)
	if err == nil && ok && !rescued {
		err = db.seal.check(f.MasterKey, o.masterKeyPath())
	}
	if err != nil && m.repair && errors.Is(err, ErrCorrupt) {
		err = db.rescueKey(m, err)
		rescued = true
	}
	if err != nil {
		return checkpoint{}, err
	}
	if rescued {
		f.MasterKey = db.seal.id()
		if err := writeText(fs, db.path(formatFile), f); err != nil {
			return checkpoint{}, err
		}
	}
	ckpt := checkpoint{Clean: true}
	if ok {
		if ckpt, err = readCheckpoint(fs, db.path(checkpointFile), f, m); err != nil {
			return checkpoint{}, err
		}
	} else {
		f = newFormat(1, db.seal.id())
		if m.restore != nil {
			f.Ordinal, f.Paused = m.restore.Ordinal+1, true
		}
	}
	db.format = f
	db.paused.Store(f.Paused)
	db.newest.Store(ckpt.Newest)
	if !ckpt.Clean && tune.memTable == 0 {
		tune.memTable = ckpt.MemTable // never smaller than what a .mem was written for
	}
	db.tune = tune.withDefaults(o.Memory)
	db.settling.most = db.tune.settleBytes
	db.cache = newRecordCache(db.tune.recordCache)
	reserve := o.Reserve
	if reserve <= 0 {
		reserve = computedReserve(db.tune)
	}
	db.space = &spaceGuard{fs: fs, dir: o.Dir, reserve: reserve}
	err = db.space.checkOpen(openNeeds(db.tune, o.CheckpointBytes))
	if err != nil && db.forgetKept() == nil { // which only saves time
		db.space.looked = time.Time{}
		err = db.space.checkOpen(openNeeds(db.tune, o.CheckpointBytes))
	}
	if err != nil {
		return checkpoint{}, err
	}
	db.queue = make(chan *request, db.tune.queue)
	db.commits.born = time.Now()
	if err := fs.MkdirAll(db.path(badgerDir), 0o700); err != nil {
		return checkpoint{}, err
	}
	if db.journal, err = openJournal(fs, db.path(journalDir), f.epoch(), db.tune); err != nil {
		return checkpoint{}, err
	}
	if ok {
		err = db.checkSegments(ckpt, m)
	} else {
		err = db.create(f)
	}
	return ckpt, err
}

// refuseOrphan stops before a directory that lost its FORMAT is taken for an empty one.
func (db *DB) refuseOrphan() error {
	has, err := exists(db.fs, db.path(checkpointFile))
	if err != nil {
		return err
	}
	if !has {
		return nil // a creation that was interrupted begins anew
	}
	var c checkpoint
	if err := readText(db.fs, db.path(checkpointFile), &c, nil); err != nil || c.Sequence > 0 || !c.Clean {
		return damage(db.path(formatFile), 0, "the file is missing although the directory holds data")
	}
	return nil
}

// create makes a directory; FORMAT is written last and makes it one.
func (db *DB) create(f format) error {
	for len(db.journal.names()) < initialSegments {
		if err := db.journal.grow(); err != nil {
			return err
		}
	}
	c := checkpoint{Epoch: f.EpochID, Clean: true, MemTable: db.tune.memTable, Segments: db.journal.names()}
	if err := writeText(db.fs, db.path(checkpointFile), c); err != nil {
		return err
	}
	if err := writeText(db.fs, db.path(formatFile), f); err != nil {
		return err
	}
	return db.fs.SyncDir(filepath.Dir(db.opt.Dir)) // the directory's own name
}

// initialSegments is the pool of a new directory; it grows under load.
const initialSegments = 2

func readCheckpoint(fs fsys, name string, f format, m mode) (checkpoint, error) {
	var c checkpoint
	err := readText(fs, name, &c, nil)
	if errors.Is(err, os.ErrNotExist) {
		err = damage(name, 0, "the file is missing")
	}
	if err == nil && c.Epoch != f.EpochID {
		err = damage(name, 0, "it belongs to epoch %s, the directory is of epoch %s", c.Epoch, f.EpochID)
	}
	if err != nil && m.repair && errors.Is(err, ErrCorrupt) {
		m.report.act("the checkpoint record was damaged (%v): the whole journal that is left is replayed", err)
		return checkpoint{Epoch: f.EpochID, lost: true}, nil
	}
	return c, err
}

// checkSegments compares the pool with the one that the checkpoint knew.
func (db *DB) checkSegments(c checkpoint, m mode) error {
	have := db.journal.names()
	for _, name := range c.Segments {
		if !slices.Contains(have, name) {
			err := damage(db.journal.path(name), 0, "the journal segment is missing")
			if !m.repair {
				return err
			}
			m.report.act("%v", err)
		}
	}
	for len(db.journal.names()) < initialSegments {
		if err := db.journal.grow(); err != nil {
			return err
		}
	}
	return nil
}

// settle repairs and opens Badger, replays the journal and takes the first checkpoint.
func (db *DB) settle(ctx context.Context, c checkpoint, m mode) (map[string]*logHead, error) {
	dir := db.path(badgerDir)
	if err := db.checkBadgerFiles(ctx, c, m); err != nil {
		return nil, err
	}
	// After a crash Badger is closed again before anything is served, and to close it would wait for the
	// merge of level 0 that it begins when one is due: for as long as that takes, ten seconds and more.
	// A merge that the crash ended is due.
	settled := c.Clean
	if err := db.openSettled(dir, settled, m); err != nil {
		return nil, err
	}
	maxBatch, maxOps := db.badger.MaxBatchSize(), db.badger.MaxBatchCount()
	// An operation counts for no less here than in Badger, but for a few bytes each where there are
	// many; these go through Badger's loader, which has no such bound.
	db.limits.groupBytes = int(min(maxBatch*15/16, db.tune.segmentSize-segmentHeader-recordHeader-recordAlign))
	db.limits.groupOps = int(maxOps * 3 / 4)
	db.limits.value = min(maxValue-1, db.limits.groupBytes*3/4)

	after := c.Sequence
	if c.lost {
		var err error
		if after, err = db.journalStart(); err != nil {
			return nil, err
		}
	}
	end, err := db.journal.read(after, func(r record, ops []op) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		writes := make([]pair, 0, len(ops))
		index := make(map[string]int, len(ops))
		for _, o := range ops {
			if i, ok := index[string(o.key)]; ok {
				writes[i].value = o.value
				continue
			}
			index[string(o.key)] = len(writes)
			writes = append(writes, pair{key: o.key, value: o.value})
		}
		return db.applyToBadger(r.seq, writes)
	})
	if err != nil {
		return nil, err
	}
	if end.damage != nil {
		if !m.repair {
			return nil, end.damage
		}
		m.report.act("the journal ends at sequence %d: %v; at least %d segment(s) behind it were cut", end.seq, end.damage, end.lost)
	}
	db.count.replayed.Store(end.records)
	db.newest.Store(max(db.newest.Load(), end.time))
	if end.tornFile != "" {
		db.opt.Logger.Warn("the journal had a torn tail, which was never acknowledged unless the disk lost it",
			"file", end.tornFile, "offset", end.tornAt, "sequence", end.seq)
	}
	last, undone := max(end.seq, db.badger.MaxVersion()), 0
	if c.lost && end.damage != nil {
		m.report.act("the newest transactions may be stored in part, since neither the checkpoint nor the journal tells where they end")
	} else if last, undone, err = db.undoOrphans(end.seq); err != nil {
		return nil, err
	}
	if undone > 0 {
		db.opt.Logger.Warn("writes that the journal no longer holds were taken back", "keys", undone, "after", end.seq)
		if m.repair {
			m.report.act("%d writes after sequence %d were taken back, since their journal records are damaged", undone, end.seq)
		}
	}
	if !settled || end.records > 0 || undone > 0 {
		// What was replayed lies in memtables a second time, out of order. Tables put that right.
		if err := closeBadger(db.badger); err != nil {
			db.badger = nil
			return nil, fmt.Errorf("%w: settling the replayed journal: %w", ErrCorrupt, err)
		}
		if err := db.openSettled(dir, true, m); err != nil {
			return nil, err
		}
	}
	if m.repair && end.damage != nil {
		if err := db.journal.wipe(); err != nil {
			return nil, err
		}
	}
	db.settleAt(last)
	db.readers = newReaders(last)
	heads, err := db.readHeads()
	if err != nil {
		return nil, err
	}
	if m.repair && db.newest.Load() > time.Now().Add(clockSlack).UnixNano() {
		m.report.act("the newest commit was dated %s; it now counts as of today", time.Unix(0, db.newest.Load()).UTC().Format(time.RFC3339))
		db.newest.Store(time.Now().UnixNano())
	}
	if err := db.checkpoint(); err != nil {
		return nil, err
	}
	db.journal.reset()
	return heads, nil
}

// journalStart finds where to replay from without a checkpoint: the lowest sequence from which the
// journal reads on to its end without a gap. Replaying what is settled already changes nothing.
func (db *DB) journalStart() (uint64, error) {
	var starts []uint64
	for _, s := range db.journal.all {
		if s.first > 0 {
			starts = append(starts, s.first-1)
		}
	}
	slices.Sort(starts)
	var start uint64
	for _, start = range starts {
		end, err := db.journal.read(start, func(record, []op) error { return nil })
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return 0, err
		}
		if err == nil && end.damage == nil {
			break
		}
	}
	return start, nil
}

func (db *DB) openSettled(dir string, merges bool, m mode) error {
	log := &badgerLog{log: db.opt.Logger}
	listed, err := listedTables(db.fs, dir)
	if err != nil && !m.repair {
		return err
	}
	b, err := openBadger(dir, db.tune, merges, log)
	if err != nil {
		db.badger = nil
		return fmt.Errorf("%w: %s: %w; restore a backup, or run `muster repair --data DIR`", ErrCorrupt, dir, err)
	}
	db.badger, db.builders = b, newBuilders(b, db.tune)
	if f := db.tune.opened; f != nil {
		f(b)
	}
	// Badger goes on without a table that it cannot open.
	if text := log.errors.Load(); text != nil && !m.repair {
		return fmt.Errorf("%w: %s: Badger says: %s; restore a backup, or run `muster repair --data DIR`", ErrCorrupt, dir, *text)
	}
	if err := checkTables(db.fs, dir, listed, b); err != nil && !m.repair {
		return err
	}
	raise := db.raise
	log.raise.Store(&raise)
	return nil
}

// listedTables returns what MANIFEST lists before Badger opens it; nothing in a new directory.
func listedTables(fs fsys, dir string) (map[uint64]manifestTable, error) {
	m, err := readManifest(fs, filepath.Join(dir, "MANIFEST"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return m.tables, err
}

// checkTables compares the open tables with those that the manifest listed before. A compaction
// may have replaced some meanwhile; Badger says so in the manifest before it lets go of them, and
// waits for the disk in between, so the manifest is read last.
func checkTables(fs fsys, dir string, listed map[uint64]manifestTable, b *badger.DB) error {
	opened := map[uint64]bool{}
	for _, t := range b.Tables() {
		opened[t.ID] = true
	}
	name := filepath.Join(dir, "MANIFEST")
	m, err := readManifest(fs, name)
	if err != nil {
		return err
	}
	for id := range listed {
		if _, still := m.tables[id]; still && !opened[id] {
			return damage(name, 0, "Badger did not open table %s, which it lists", tableName(id))
		}
	}
	return nil
}

// undoOrphans takes back what Badger holds above the journal's end. That exists only when the
// last journal record was damaged after it had been applied; its effects may be incomplete by
// now. It returns the sequence that the store goes on from.
func (db *DB) undoOrphans(last uint64) (seq uint64, undone int, err error) {
	highest := db.badger.MaxVersion()
	if highest <= last {
		return last, 0, nil
	}
	before := db.badger.NewTransactionAt(last, false)
	defer before.Discard()
	now := db.badger.NewTransactionAt(math.MaxUint64, false)
	defer now.Discard()
	it := now.NewIterator(badger.IteratorOptions{AllVersions: true, SinceTs: last})
	defer it.Close()
	var batch []pair
	var size int
	seq = highest + 1
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := db.applyToBadger(seq, batch)
		batch, size = nil, 0
		seq++
		return err
	}
	var newest []byte
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		if item.Version() <= last || string(item.Key()) == string(newest) {
			continue
		}
		newest = item.KeyCopy(nil)
		p := pair{key: newest}
		old, err := before.Get(newest)
		if err == nil {
			p.value, err = old.ValueCopy(nil)
		}
		if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
			return 0, undone, fmt.Errorf("%w: reading key %q: %w", ErrCorrupt, newest, err)
		}
		batch = append(batch, p)
		size += len(p.key) + len(p.value) + opOverhead
		undone++
		if size > db.limits.groupBytes/2 || len(batch) > db.limits.groupOps/2 {
			if err := flush(); err != nil {
				return 0, undone, err
			}
		}
	}
	if err := flush(); err != nil {
		return 0, undone, err
	}
	return max(seq-1, highest), undone, nil
}

// checkBadgerFiles verifies what the checkpoint vouches for, then repairs what lies past it:
// Badger refuses to open over an empty file or an incomplete manifest record, both of which a
// power cut leaves behind.
func (db *DB) checkBadgerFiles(ctx context.Context, c checkpoint, m mode) error {
	dir := db.path(badgerDir)
	name := filepath.Join(dir, "MANIFEST")
	has, err := exists(db.fs, name)
	if err != nil {
		return err
	}
	if !has {
		if c.Manifest > 0 {
			err := damage(name, 0, "the file is missing")
			if !m.repair {
				return err
			}
			return db.rebuildManifest(m, err)
		}
		return nil // a new directory
	}
	man, err := readManifest(db.fs, name)
	if err == nil {
		err = db.checkManifest(name, man, c)
	}
	if err != nil {
		if !m.repair || !errors.Is(err, ErrCorrupt) {
			return err
		}
		if err := db.rebuildManifest(m, err); err != nil {
			return err
		}
		if man, err = readManifest(db.fs, name); err != nil {
			return err
		}
	}
	newest, err := db.checkTableFiles(ctx, man, m)
	if err != nil {
		return err
	}
	if err := db.checkMemtables(c, newest, m); err != nil {
		return err
	}
	if man, err = readManifest(db.fs, name); err != nil { // a repair may have changed it
		return err
	}
	return db.repairPastCheckpoint(name, man)
}

func (db *DB) checkManifest(name string, man manifest, c checkpoint) error {
	if man.badAt >= 0 && !man.badLast {
		return damage(name, man.badAt, "the checksum of a record does not match")
	}
	inode, err := fileInode(db.fs, name)
	if err != nil {
		return err
	}
	// Badger writes the file anew now and then, whole and synced, and it may be shorter then. Whether it
	// is the one that the checkpoint saw its first record tells, also of a directory that was copied.
	same := inode == c.Inode || man.first == c.First && c.First != "" || man.first == ""
	if same && man.length < c.Manifest {
		return damage(name, man.length, "the whole records end here, the checkpoint saw %d bytes", c.Manifest)
	}
	if !c.Clean {
		return nil
	}
	for _, id := range c.Tables {
		if _, ok := man.tables[id]; !ok {
			return damage(name, man.length, "table %s is not listed", tableName(id))
		}
	}
	if len(man.tables) != len(c.Tables) && c.Sequence > 0 && len(c.Tables) > 0 {
		return damage(name, man.length, "%d tables are listed, %d are expected", len(man.tables), len(c.Tables))
	}
	return nil
}

// checkTableFiles reads every table from end to end, on all cores, and returns the newest
// version in them.
func (db *DB) checkTableFiles(ctx context.Context, man manifest, m mode) (newest uint64, err error) {
	dir := db.path(badgerDir)
	var mu sync.Mutex
	var bad error
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))
	for id, t := range man.tables {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			name := filepath.Join(dir, tableName(id))
			v, err := tableCheck(db.fs, name, t.compression, func(int) error { return ctx.Err() })
			if errors.Is(err, os.ErrNotExist) {
				err = damage(name, 0, "the table is missing")
			}
			mu.Lock()
			defer mu.Unlock()
			newest = max(newest, v)
			if err != nil && m.repair && errors.Is(err, ErrCorrupt) {
				err = db.dropTable(m, id, err)
			}
			if err != nil && (bad == nil || err.Error() < bad.Error()) {
				bad = err
			}
		})
	}
	wg.Wait()
	return newest, bad
}

// checkMemtables verifies the listed .mem files up to their recorded lengths. One may be absent
// or empty only when its table is in the manifest: then a table holds its newest version, since
// versions reach the memtables in order and nothing above DiscardTs is dropped.
func (db *DB) checkMemtables(c checkpoint, newest uint64, m mode) error {
	for _, s := range c.Memtables {
		name := filepath.Join(db.path(badgerDir), s.Name)
		if strings.ContainsRune(s.Name, filepath.Separator) {
			return damage(db.path(checkpointFile), 0, "the memtable name %q", s.Name)
		}
		var bad error
		st, err := db.fs.Stat(name)
		switch {
		case errors.Is(err, os.ErrNotExist), err == nil && st.Size() == 0:
			if newest < s.Last {
				bad = damage(name, 0, "the memtable's log is missing and no table holds its newest version %d", s.Last)
			}
		case err != nil:
			return err
		default:
			got, err := scanMem(db.fs, name, memScan{}, math.MaxUint64, true)
			if err != nil {
				return err
			}
			if got.length < s.Length && newest < s.Last {
				bad = damage(name, got.length, "the whole entries end here, the checkpoint saw %d bytes", s.Length)
			}
		}
		if bad != nil && !m.repair {
			return bad
		}
		if bad != nil {
			m.report.act("%v: what only it held is lost", bad)
		}
	}
	return nil
}

// repairPastCheckpoint cuts the incomplete last record of MANIFEST (its effects never happened)
// and removes empty files that Badger was about to delete or had just made.
func (db *DB) repairPastCheckpoint(manifestName string, man manifest) error {
	if man.length < man.size {
		f, err := db.fs.OpenFile(manifestName, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = f.Truncate(man.length)
		if err == nil {
			err = f.Datasync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		db.opt.Logger.Warn("cut an incomplete record of Badger's manifest", "offset", man.length, "bytes", man.size-man.length)
	}
	dir := db.path(badgerDir)
	entries, err := db.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".mem" && ext != ".vlog" && e.Name() != "DISCARD" {
			continue
		}
		name := filepath.Join(dir, e.Name())
		st, err := db.fs.Stat(name)
		if err != nil {
			return err
		}
		// A log shorter than its header was just being made and holds nothing.
		if st.Size() >= memHeader {
			continue
		}
		if err := db.fs.Remove(name); err != nil {
			return err
		}
		db.opt.Logger.Warn("removed an empty file of Badger", "file", name)
	}
	return db.fs.SyncDir(dir)
}

// readHeads finds the newest entry of every log.
func (db *DB) readHeads() (map[string]*logHead, error) {
	heads := map[string]*logHead{}
	snap, err := db.newSnapshot()
	if err != nil {
		return nil, err
	}
	defer snap.end()
	for _, place := range logPlaces { // the newer head stays
		for p, err := range newestOfLogs(snap, place) {
			if err != nil {
				return nil, err
			}
			h := &logHead{}
			chained := false
			err := unpack(p.key, p.value, func(e Entry) bool {
				h.position, h.time, chained = e.Position, e.Time.UnixNano(), e.Hash != nil
				copy(h.hash[:], e.Hash)
				return true
			})
			if err != nil {
				return nil, err
			}
			name, _, _ := splitLogKey(p.key)
			heads[name] = h
			db.tails.publish(name, h.position)
			if place == prefixLog && !chained {
				db.tails.behind(name, h.position)
			}
		}
	}
	return heads, nil
}
