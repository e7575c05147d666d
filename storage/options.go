package storage

import (
	"log/slog"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Options say where a store lives and how much it may use. The zero value of each field but Dir
// is a sensible default.
type Options struct {
	// Dir is the data directory; it is made when absent.
	Dir string
	// Logger takes warnings and Badger's messages; nil discards them.
	Logger *slog.Logger
	// Memory is what Badger's memtables and caches may use together, in bytes; 0 is 256 MiB.
	// The memtable size that follows from it stays as it was while the directory is dirty.
	Memory int64
	// Built is the build date of the binary: a wall clock before it is wrong. Zero: no bound.
	Built time.Time
	// Reserve is the free space, in bytes, below which only deletes and reads run, and below
	// half of which only reads; 0 is computed from the memory and the journal.
	Reserve int64
	// CheckpointEvery is the longest time between two checkpoints; 0 is 5 s.
	CheckpointEvery time.Duration
	// CheckpointBytes is how much journal starts a checkpoint before its time; 0 is 64 MiB.
	CheckpointBytes int64
	// MasterKeyFile holds the key that seals secrets; "" is Dir/master.key, made at first open.
	MasterKeyFile string
	// Published is called once for each group of transactions that is durable and visible, after
	// their OnCommit functions and before any of their callers is answered. Like those it must
	// not block or update. nil: nobody wants to know.
	Published func(seq uint64)
	// Kept is what Close leaves for the next Open; see DB.Kept.
	Kept Kept
	// Threads is how many threads run Go in this process, for a store that may set GOMAXPROCS: it lets
	// more of them run while it merges tables, which computes for seconds. 0: it leaves it alone. Of
	// several stores in a process only one may have it.
	Threads int
	// KeepFormat opens a directory of an older format to be read, and leaves its format: nothing
	// can be written to it (ErrReadOnly). A directory of the present format opens as always.
	KeepFormat bool
}

const (
	defaultMemory          = 256 << 20
	minMemory              = 64 << 20
	defaultCheckpointEvery = 5 * time.Second
	defaultCheckpointBytes = 64 << 20
	// maxValue is the largest encoded record; what is larger belongs into a blob.
	maxValue = 1 << 20
	// maxKey bounds a raw key; Badger's own bound is 65,000 bytes.
	maxKey = 8 << 10
)

// tuning holds the sizes that are not for operators. Tests make them small, so that rotation,
// flush and compaction happen within a few thousand writes. A zero field takes its default.
type tuning struct {
	memTable       int64         // bytes of one Badger memtable
	numMemtables   int           // immutable memtables that may wait for their flush
	levelZero      int           // tables of level 0 that are merged into the level below
	tableSize      int64         // bytes of one table of the levels below
	baseLevelSize  int64         // bytes of the first level below level 0
	levels         int           // most levels
	blockCache     int64         // bytes
	recordCache    int64         // bytes
	indexCache     int64         // bytes
	segmentSize    int64         // bytes of a journal segment, header included
	segments       int           // most segments
	messageSegment int64         // bytes after which a segment of the message log is not continued
	messageBytes   int64         // bytes that the message log keeps; 0 follows from the file system
	queue          int           // requests that wait for the committer
	settleBytes    int           // of groups that may wait for Badger before those who commit wait too
	settleRest     time.Duration // how long groups gather after Badger took the ones before
	scanPause      time.Duration // the background scan's pause after each MiB

	beforeSettle func(seq uint64) error // of tests: may hold groups up, or fail in Badger's place
	opened       func(b *badger.DB)     // of tests: sees Badger each time it was opened
}

func (t tuning) withDefaults(memory int64) tuning {
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	memory = max(memory, minMemory)
	// A memtable is written into one table, whose builder takes pages of 2, 4, 8 ... MiB until it
	// holds the blocks twice, as they are and compressed, with what they do not fill: usual records of
	// 24 MiB in 62, of 28 in 126. No cache bound covers it, so memtables are no larger than they must
	// be. They bound a transaction, too (limits.groupBytes): with 24 MiB the largest twin fits, its
	// history and its entry in the log of changes included (TestFullTwinFits of the engine).
	memTable := min(max(memory/8, 9<<20), 26<<20) / 16 * 15 &^ (1<<20 - 1)
	set(&t.memTable, memTable)
	if t.levelZero == 0 {
		t.levelZero = int(min(memory, 512<<20) * levelZeroMost / (512 << 20) / memTable)
	}
	// While a compaction runs, up to eighteen tables are built at once, each in pages as above, until
	// it is as large as this when compressed. Logs and histories shrink to a sixth: a table of 768 KiB
	// then takes 14 MiB, where one of 1 MiB takes 30. Each is a mapped file, of which a process may
	// have some 65,000 as Linux is usually set, so they are no smaller than that.
	set(&t.tableSize, 768<<10)
	// The first level below level 0 is rewritten with each compaction of level 0, but for logs
	// (Log.place), so less than what level 0 holds, whose memtables shrink to a third, saves little, and
	// costs another level, through which everything passes: a level of 64 MiB under 320 MiB of memtables
	// took half of an update's processor time. More needs a larger reserve (space.go).
	set(&t.baseLevelSize, int64(t.levelZero)*t.memTable*2/5)
	set(&t.blockCache, memory/16)
	set(&t.recordCache, memory/2)
	set(&t.indexCache, memory/16)
	set(&t.segmentSize, 16<<20)
	set(&t.messageSegment, 32<<20)
	if t.numMemtables == 0 {
		t.numMemtables = 2
	}
	if t.levels == 0 {
		t.levels = 7
	}
	if t.segments == 0 {
		t.segments = 16
	}
	if t.queue == 0 {
		t.queue = 4096
	}
	if t.settleBytes == 0 {
		t.settleBytes = int(memory / 16)
	}
	set((*int64)(&t.settleRest), int64(100*time.Millisecond))
	if t.scanPause == 0 {
		t.scanPause = 250 * time.Millisecond
	}
	return t
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	if o.CheckpointEvery <= 0 {
		o.CheckpointEvery = defaultCheckpointEvery
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = defaultCheckpointBytes
	}
	return o
}
